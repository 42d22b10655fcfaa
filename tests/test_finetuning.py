"""Fine-tuning: the network, the prompt, the splits, and the script from end to end."""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
from click.testing import Result
from conftest import ROOT, WithSplits, assert_one_line_error, mlflow, run_forked, run_here
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification
from typer.testing import CliRunner

from exmed_bert import cli
from exmed_bert.analysis.patient.history import AtVisits, find_patients
from exmed_bert.analysis.patient.page import patient_page
from exmed_bert.analysis.patient.risks import predict_at_visits
from exmed_bert.cohorts.collator import LabeledRows, PromptCollator
from exmed_bert.cohorts.labeled import TRAIN, VALIDATION, LabeledPatients, Timeline
from exmed_bert.cohorts.tasks import registry
from exmed_bert.cohorts.tasks.base import Selection, Task, unlabeled
from exmed_bert.commands import COMMANDS
from exmed_bert.data.batches import MaskedCodeCollator
from exmed_bert.data.code_groups import CodeGroups
from exmed_bert.data.dataset import PaddedBatch, PatientDataset
from exmed_bert.data.forecast import Forecasts, draw_forecasts
from exmed_bert.data.masking import IGNORED
from exmed_bert.data.patient import NO_DAY, PatientColumns
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.data.randomness import hash_patient_ids
from exmed_bert.data.splits import SplitRule
from exmed_bert.data.vocabulary import MASK, ORIGINAL_ENTITIES, SPECIAL_TOKENS, CodeVocabulary
from exmed_bert.evaluation import ridge
from exmed_bert.evaluation.ridge import Prior
from exmed_bert.finetuning.few_labels import are_few, fit_few
from exmed_bert.finetuning.objective import outcome_metrics
from exmed_bert.finetuning.outcome_model import Pretrained, first_inputs, fit_prompt, outcome_model, predict
from exmed_bert.finetuning.plan import draw_subset
from exmed_bert.finetuning.prompt import Prompt
from exmed_bert.models import ExMedBertConfig, ExMedBertForMaskedLM, ExMedBertForSequenceClassification
from exmed_bert.reporting.markdown import markdown
from exmed_bert.settings import FinetuneSettings
from exmed_bert.training import checkpoints

SCRIPT = "finetune-exmed-bert.py"


def config(**changes: object) -> ExMedBertConfig:
    sizes = {"code_vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return ExMedBertConfig(**sizes | {"intermediate_size": 16, "visit_distance_bias": True} | changes)


def batch(length: int = 5, padding: int = 0) -> dict[str, torch.Tensor]:
    """Return three patients whose last real token is the query."""
    torch.manual_seed(0)
    codes = torch.randint(6, 40, (3, length))
    codes[:, -1] = MASK
    fields = {
        "input_ids": codes,
        "entity_ids": torch.ones_like(codes),
        "age_ids": torch.full_like(codes, 50),
        "visit_ids": torch.arange(1, length + 1).repeat(3, 1),
        "attention_mask": torch.ones_like(codes),
    }
    return {name: F.pad(tensor, (0, padding)) for name, tensor in fields.items()}


@pytest.fixture(scope="module")
def labeled(small_datasets: Path) -> LabeledPatients:
    """Return 160 patients with labels at random, one in ten of them 1."""
    dataset = PatientDataset.load(small_datasets / "small_train.pt")
    n = len(dataset)
    rng = np.random.default_rng(0)
    days = np.full(n, 20_454, dtype=np.int32)  # 2026-01-01
    splits = np.where(np.arange(n) % 2 == 0, TRAIN, VALIDATION).astype(np.int8)
    labels = (rng.random(n) < 0.1).astype(np.int8)
    return LabeledPatients(dataset, labels, days, splits, Timeline.unknown(n))


class TestModel:
    @pytest.mark.parametrize("head", ["ffn", "gru", "lstm"])
    def test_padding_changes_nothing(self, head: str) -> None:
        model = ExMedBertForSequenceClassification(config(classifier_head=head, target_codes=[7, 9])).eval()
        torch.nn.init.normal_(model.classifier.weight)
        plain, padded = model(**batch()), model(**batch(padding=4))
        assert torch.allclose(plain.logits, padded.logits, atol=1e-5)
        assert plain.logits.std() > 0

    @pytest.mark.parametrize("forecasts", ["none", "year", "hazards"])
    def test_training_starts_from_the_prompt_logit(self, forecasts: str) -> None:
        ends = [30.0, 365.0] if forecasts == "hazards" else None
        changed = {"predict_future_codes": forecasts != "none", "hazard_bin_ends": ends, "forecast_groups": ["atc:A"]}
        pretrained = ExMedBertForMaskedLM(config(**changed)).eval()
        prompt = Prompt([7, 40] if ends else [7, 9], (10.0, 100.0))
        model = outcome_model(Pretrained(pretrained, None, 0, 0), "ffn", prompt, from_scratch=False, seed=0).eval()
        codes, ages, hidden = batch()["input_ids"], batch()["age_ids"], pretrained.bert(**batch()).last_hidden_state
        rows = pretrained.code_classifier.predictions.decoder.weight
        if ends:
            states = pretrained.forecast_states(hidden[:, -1], codes, ages)
            expected = pretrained.forecast_head.log_odds(states, [7, 40], rows, (10.0, 100.0))
        else:
            more = None
            if forecasts == "year":
                bag = pretrained.bag_of_codes(codes, pretrained.get_input_embeddings()(codes), ages)
                more = pretrained.forecast_head(bag)
            scores = pretrained.code_classifier(hidden[:, -1], more)
            expected = (scores.exp() if forecasts == "year" else scores.softmax(dim=1))[:, [7, 9]].sum(dim=1).log()
        assert torch.allclose(model(**batch()).logits, expected, atol=1e-5)

    @pytest.mark.slow
    def test_labels_first_fit_what_single_codes_say(self, labeled: LabeledPatients) -> None:
        dataset = labeled.dataset
        code = int(dataset.code_counts[6:].argmax()) + 6
        has = np.array([code in dataset[row]["input_ids"] for row in range(len(dataset))]).astype(np.int8)
        patients = replace(labeled, labels=has)
        rows = [LabeledRows(patients, patients.rows(split)) for split in (TRAIN, VALIDATION)]
        sizes = {"code_vocab_size": len(dataset.info.vocabulary), "hidden_size": 64, "target_codes": [9]}
        model, collate = ExMedBertForSequenceClassification(config(**sizes)), PromptCollator([2], 30)
        before = outcome_metrics(rows[1].labels, predict(model, rows[1], collate, 64))
        fit_prompt(model, *rows, collate, 64)
        after = outcome_metrics(rows[1].labels, predict(model, rows[1], collate, 64))
        assert after["loss"] < before["loss"] and after["auroc"] > max(before["auroc"], 0.75)

    def test_prolonged_stay_starts_from_nothing(self) -> None:
        pretrained = ExMedBertForMaskedLM(config(predict_los=True)).eval()
        model = outcome_model(Pretrained(pretrained, None, 0, 0), "ffn", Prompt([]), from_scratch=False, seed=0).eval()
        assert (model(**batch()).logits == 0).all()

    def test_from_scratch_has_the_sizes_and_none_of_the_weights(self) -> None:
        pretrained = Pretrained(ExMedBertForMaskedLM(config()), None, 0, 0)
        tuned, scratch = (outcome_model(pretrained, "ffn", Prompt([7]), scratch, seed=5) for scratch in (False, True))
        shapes = [{name: tensor.shape for name, tensor in model.state_dict().items()} for model in (tuned, scratch)]
        assert shapes[0] == shapes[1]
        name = "bert.encoder.layer.0.attention.self.query.weight"
        own, drawn = tuned.state_dict()[name], scratch.state_dict()[name]
        assert torch.equal(own, pretrained.model.state_dict()[name]) and not torch.allclose(own, drawn)

    def test_class_weights_and_loss(self) -> None:
        model = ExMedBertForSequenceClassification(config()).eval()
        labels = torch.tensor([1, 0, 0])
        output = model(**batch(), labels=labels)
        assert torch.isclose(output.loss, F.binary_cross_entropy_with_logits(output.logits, labels.float()))
        model.class_weights = (1.0, 3.0)
        weighted = F.binary_cross_entropy_with_logits(output.logits, labels.float(), torch.tensor([3.0, 1.0, 1.0]))
        assert torch.isclose(model(**batch(), labels=labels).loss, weighted * 3 / 5)

    def test_saved_and_loaded_by_the_auto_class(self, tmp_path: Path) -> None:
        model = ExMedBertForSequenceClassification(config(classifier_head="gru", target_codes=[8])).eval()
        model.save_pretrained(tmp_path)
        loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
        assert torch.equal(model(**batch()).logits, loaded(**batch()).logits)


class TestPrompts:
    def test_the_prompt_follows_the_history(self, labeled: LabeledPatients) -> None:
        rows = LabeledRows(labeled, np.arange(len(labeled))[::-1])
        collate = PromptCollator([ORIGINAL_ENTITIES.index("icd")], last_position=30)
        made = collate(rows.batch([0, 5, 9]))
        dataset = labeled.dataset
        for i, row in enumerate(rows.rows[[0, 5, 9]]):
            length = int(dataset.lengths[row])
            assert (made["input_ids"][i] == MASK).nonzero().tolist() == [[length]]
            assert made["attention_mask"][i].sum() == length + 1 and made["labels"][i] == labeled.labels[row]
            assert made["visit_ids"][i, length] == min(int(made["visit_ids"][i, length - 1]) + 1, 30)
            assert made["age_ids"][i, length] == 2026 - int(dataset.columns["birth_years"][row]) + 6
            history = dataset[int(row)]
            assert torch.equal(made["input_ids"][i, :length], history["input_ids"])
            assert torch.equal(made["visit_days"][i, :length], history["visit_days"])
            first = int(dataset.columns["visit_days"][dataset.columns["visit_offsets"][row]])
            assert made["visit_days"][i, length] == labeled.index_days[row] - first

    def test_what_the_model_sees_of_days_are_differences(self, labeled: LabeledPatients) -> None:
        columns = labeled.dataset.columns
        later = columns["visit_days"].int() + 12_345
        moved = replace(
            labeled,
            dataset=PatientDataset(labeled.dataset.info, columns | {"visit_days": later}),
            index_days=labeled.index_days + 12_345,
        )
        collate = PromptCollator([2], last_position=30)
        here, there = (collate(LabeledRows(patients, np.arange(40)).batch(range(40))) for patients in (labeled, moved))
        assert torch.equal(here["visit_days"], there["visit_days"]) and here["visit_days"][:, 0].eq(0).all()
        masked = MaskedCodeCollator(labeled.dataset.info, plos=False, forecast_prob=1.0)
        here, there = (masked(patients.dataset.batch(range(40))) for patients in (labeled, moved))
        assert torch.equal(here["visit_days"], there["visit_days"])
        rows = here["query_positions"] != IGNORED
        places = here["query_positions"][rows]
        days = here["visit_days"][rows]
        each = torch.arange(len(places))
        assert (days[each, places] >= days[each, places - 1]).all(), "at the last visit, or after it"
        assert not (here["visit_days"] * (1 - here["attention_mask"])).any()

    def test_predictions_do_not_depend_on_the_batch(self, labeled: LabeledPatients) -> None:
        sizes = {"code_vocab_size": len(labeled.dataset.info.vocabulary), "target_codes": [9]}
        model = ExMedBertForSequenceClassification(config(**sizes))
        rows, collate = LabeledRows(labeled, np.arange(40)), PromptCollator([2], 30)
        one, many = (predict(model, rows, collate, size) for size in (1, 64))
        assert np.allclose(one, many, atol=1e-5) and np.ptp(many) > 0


class TestSubsets:
    def test_smaller_ones_lie_within_larger_ones(self, labeled: LabeledPatients) -> None:
        subsets = [draw_subset(labeled, size, seed=3) for size in (10, 20, 40, None)]
        for small, large in itertools.pairwise(subsets):
            assert set(small.train) <= set(large.train) and set(small.validation) <= set(large.validation)
        assert [subset.labels for subset in subsets] == [10, 20, 40, len(labeled)]
        assert [len(subset.train) for subset in subsets] == [7, 14, 27, len(labeled.rows(TRAIN))]
        assert all(len(subset.validation) <= len(subset.train) for subset in subsets)
        assert set(draw_subset(labeled, 20, seed=4).train) != set(subsets[1].train)

    def test_a_tenth_has_the_outcome_and_its_odds_are_known(self, labeled: LabeledPatients) -> None:
        rare = labeled.labels.copy()
        rare[np.flatnonzero(rare)[6:]] = 0
        patients = replace(labeled, labels=rare, splits=np.zeros_like(labeled.splits))
        subset = draw_subset(patients, 50, seed=0)
        cases, all_cases, n = int(rare[subset.train].sum()), int(rare.sum()), len(patients)
        assert cases == 5
        expected = np.log(5.5 / 45.5) - np.log((all_cases + 0.5) / (n - all_cases + 0.5))
        assert subset.log_odds_offset == pytest.approx(expected)
        assert draw_subset(patients, None, seed=0).log_odds_offset == 0

    def test_the_odds_of_all_labels_are_known(self, labeled: LabeledPatients) -> None:
        subset = draw_subset(labeled, 30, seed=0)
        cases, everyone = int(labeled.labels[subset.rows].sum()), int(labeled.labels.sum())
        expected = np.log((cases + 0.5) / (30.5 - cases)) - np.log((everyone + 0.5) / (len(labeled) + 0.5 - everyone))
        assert subset.pooled_offset == pytest.approx(expected)


class TestFewLabels:
    def test_the_encoder_stays_and_the_head_is_the_fit(self, labeled: LabeledPatients) -> None:
        size = len(labeled.dataset.info.vocabulary)
        model = ExMedBertForSequenceClassification(config(code_vocab_size=size, target_codes=[9]))
        collate, rows = PromptCollator([2], 30), LabeledRows(labeled, np.arange(len(labeled)))
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        answer, wide = np.split(first_inputs(model, rows, collate, 64), [1], axis=1)
        variance, loss = fit_few(model, rows, collate, 64, seed=0)
        head = {"classifier.weight", "classifier.bias", "prompt_scale"}
        after = model.state_dict()
        assert {name for name, old in before.items() if not torch.equal(old, after[name])} == head
        table = np.column_stack((answer, wide - wide.mean(axis=0)))
        prior = Prior(np.append(1.0, np.zeros(model.wide)), np.append(0.25, np.full(model.wide, variance)))
        expected = ridge.fit(table, labeled.labels, None, prior)
        found = predict(model, rows, collate, 64)
        assert np.allclose(found, expected[0] + table @ expected[1:], atol=1e-4)
        assert 0.2 < loss < 0.5, "labels at random: the entropy of one in ten"

    def test_who_sets_training_asks_for_it(self) -> None:
        assert are_few(FinetuneSettings(), 999) and not are_few(FinetuneSettings(), 1000)
        for asked in ({"epochs": 2}, {"learning_rate": 1e-3}, {"class_weights": True}, {"head": "gru"}):
            assert not are_few(FinetuneSettings(**asked), 300)


class TestForecasts:
    @pytest.fixture(scope="class")
    def drawn(self, small_datasets: Path) -> tuple[PaddedBatch, CodeGroups, Forecasts]:
        """Forecasts of patients some of whom are observed beyond their last visit, and some of whom die."""
        dataset = PatientDataset.load(small_datasets / "small_train.pt")
        padded = dataset.batch(range(len(dataset)))
        real = np.arange(padded.codes.shape[1]) < padded.lengths[:, None]
        last = np.where(real, padded.days, 0).astype(np.int64).max(axis=1)
        third = np.arange(len(dataset)) % 3
        periods = {
            "observation_end": np.where(third == 0, NO_DAY, last + 100),
            "death_date": np.where(third == 2, last + 50, NO_DAY),
        }
        padded = replace(padded, periods=periods)
        groups = CodeGroups.of(dataset.info.vocabulary)
        return padded, groups, draw_forecasts(padded, 1.0, groups, seed=1, epoch=2)

    def test_targets_are_first_occurrences_while_observed(
        self, drawn: tuple[PaddedBatch, CodeGroups, Forecasts]
    ) -> None:
        padded, groups, forecasts = drawn
        assert len(forecasts.rows) > 0.9 * len(padded.codes) and forecasts.observed.min() >= 1
        events, at_visits = 0, 0
        for i, row in enumerate(forecasts.rows.tolist()):
            length, day, cut = padded.lengths[row], forecasts.days[i], forecasts.cuts[i]
            codes, days = padded.codes[row, :length].tolist(), padded.days[row, :length].tolist()
            assert days[cut - 1] <= day and (cut == length or day < days[cut]), "between visits"
            at_visits += days[cut - 1] == day
            end = (days[-1] - 1, days[-1] + 100, days[-1] + 50)[row % 3]
            assert day + forecasts.observed[i] == end
            expected = {groups.vocabulary_size + len(groups): 50 + days[-1] - day} if row % 3 == 2 else {}
            for code, on in zip(codes, days, strict=True):
                if code >= len(SPECIAL_TOKENS) and on <= end:
                    for target in (code, *(groups.vocabulary_size + g for g in groups.of_codes[code] if g >= 0)):
                        expected.setdefault(target, max(on - day, 0))
            found = forecasts.targets[i] != IGNORED
            pairs = zip(forecasts.targets[i][found].tolist(), forecasts.target_days[i][found].tolist(), strict=True)
            assert sorted(pairs) == sorted(expected.items())
            events += sum(on > 0 for on in expected.values())
        assert events > len(forecasts.rows) and 0.4 < at_visits / len(forecasts.rows) < 0.8

    def test_a_forecast_depends_on_the_patient_alone(self, drawn: tuple[PaddedBatch, CodeGroups, Forecasts]) -> None:
        padded, groups, whole = drawn
        rows = np.arange(3, 20)
        arrays = {name: value[rows] for name, value in vars(padded).items() if isinstance(value, np.ndarray)}
        dicts = {"static": {}, "periods": {name: days[rows] for name, days in padded.periods.items()}}
        part = draw_forecasts(PaddedBatch(**arrays | dicts), 1.0, groups, seed=1, epoch=2)
        of_whole = dict(zip(whole.rows.tolist(), zip(whole.cuts, whole.days, whole.observed, strict=True), strict=True))
        for row, *one in zip(part.rows.tolist(), part.cuts, part.days, part.observed, strict=True):
            assert of_whole[row + 3] == tuple(one)

    def test_a_batch_without_a_forecast_has_no_fields_for_one_where_a_process_trains_alone(
        self, small_datasets: Path
    ) -> None:
        dataset = PatientDataset.load(small_datasets / "small_train.pt")
        padded, rare = dataset.batch(range(8)), 1e-9
        alone, together = (
            MaskedCodeCollator(dataset.info, plos=False, forecast_prob=rare, same_fields=same)(padded)
            for same in (False, True)
        )
        assert alone.keys() == MaskedCodeCollator(dataset.info, plos=False)(padded).keys()
        assert together.keys() - alone.keys() == {"query_positions", "observed_days", "target_ids", "target_days"}
        torch.manual_seed(0)
        sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
        config = ExMedBertConfig(
            code_vocab_size=len(dataset.info.vocabulary), predict_future_codes=True, hazard_bin_ends=[30.0], **sizes
        )
        model = ExMedBertForMaskedLM(config).eval()
        losses = [model(**batch).loss for batch in (alone, together)]
        assert torch.equal(*losses)
        gradients = torch.autograd.grad(losses[1], list(model.forecast_head.parameters()), allow_unused=True)
        assert all(gradient is not None and not gradient.any() for gradient in gradients)

    def test_nothing_after_the_cut_is_in_the_batch(self, small_datasets: Path) -> None:
        dataset = PatientDataset.load(small_datasets / "small_train.pt")
        padded, groups = dataset.batch(range(64)), CodeGroups.of(dataset.info.vocabulary)
        forecasts = draw_forecasts(padded, 0.5, groups, seed=4, epoch=0)
        made = MaskedCodeCollator(dataset.info, plos=False, forecast_prob=0.5, seed=4, groups=groups)(padded)
        usual = MaskedCodeCollator(dataset.info, plos=False)(padded)
        others = np.setdiff1d(np.arange(64), forecasts.rows)
        width = padded.codes.shape[1]
        assert all(torch.equal(made[name][others][:, :width], usual[name][others]) for name in usual)
        assert (made["query_positions"][others] == IGNORED).all() and (made["target_ids"][others] == IGNORED).all()
        for i, (row, cut) in enumerate(zip(forecasts.rows, forecasts.cuts, strict=True)):
            assert made["attention_mask"][row].sum() == cut + 1 and made["input_ids"][row, cut] == MASK
            assert (made["input_ids"][row, cut + 1 :] == 0).all() and (made["code_labels"][row, cut:] == IGNORED).all()
            for name in ("input_ids", "code_labels", "visit_days"):
                assert torch.equal(made[name][row, :cut], usual[name][row, :cut])
            assert made["query_positions"][row] == cut and made["observed_days"][row] == forecasts.observed[i]
            assert made["visit_days"][row, cut] == forecasts.days[i] - padded.days[row, 0]
            assert made["age_ids"][row, cut] == 1970 + int(forecasts.days[i] // 365.2425) - padded.birth_years[row] + 6
            assert made["target_ids"][row].tolist() == forecasts.targets[i].tolist()

    def test_groups_stand_for_their_codes(self) -> None:
        keys = [("icd10cm", code) for code in ("E11.9", "N18.3", "N18.30", "N18.9")] + [("atc", "C10AA05")]
        vocabulary = CodeVocabulary.build(keys)
        groups = CodeGroups.of(vocabulary)
        assert groups.names == ("icd10cm:N18", "icd10cm:N18.3")
        ids = {code: vocabulary.keys.index(("icd10cm", code)) for code in ("E11.9", "N18.3", "N18.30", "N18.9")}
        assert groups.cover([ids["N18.3"], ids["N18.30"], ids["E11.9"]]) == ([ids["E11.9"]], [1])
        assert groups.cover([ids["N18.3"], ids["N18.30"], ids["N18.9"]]) == ([], [0])
        assert CodeGroups.of(vocabulary.extended([("icd10cm", "N18.1")]), groups.names).members[0] > groups.members[0]


def test_options_are_checked_without_torch() -> None:
    program = "import sys, exmed_bert.finetuning.options; sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


# The script ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with patients, a pretrained model and new patients who have a code that the model never saw."""
    folder = tmp_path_factory.mktemp("finetuning")
    sizes = ["--hidden-size", 16, "--num-hidden-layers", 1, "--train-batch-size", 32, "--epochs", 1]
    data = ["--training-data", "d_train.pt", "--validation-data", "d_val.pt", "--forecast-prob", 0.5]
    for script, arguments in (
        ("generate_synthetic_patients.py", ["-n", 900, "-s", 5, "-o", "patients.json"]),
        (
            "convert_synthetic_to_dataset.py",
            ["--input", "patients.json", "--output", "d.pt", "--max-length", 40, "--train-ratio", 0.5],
        ),
        (
            "pretrain-exmed-bert-clinvec.py",
            [*sizes, *data, "--output-dir", "model", "--output-data-dir", "data"],
        ),
    ):
        result = run_here(script, *arguments, cwd=folder)
        assert result.returncode == 0, result.stderr
    people = json.loads((folder / "patients.json").read_text())[:200]
    for person in people:
        person["diagnoses"].append("E11.8")
        person["diagnosis_dates"].append(max(person["diagnosis_dates"], default="20240101"))
    (folder / "new.json").write_text(json.dumps(people))
    return folder


def flags(world: Path, output: Path, *more: object) -> list[str]:
    given = ["--model-dir", world / "model", "--input", world / "patients.json", "--output-dir", output]
    return [str(flag) for flag in [*given, "--endpoint", "ICD:J*", "--epochs", 2, *more]]


@pytest.fixture(scope="module")
def finished(world: Path) -> Path:
    """The folder of a finished fine-tuning."""
    output = world / "finetuned"
    more = ["--train-sizes", "60,all", "--baselines", "logreg,scratch", "--explain", 4]
    with mlflow():
        result = run_here(SCRIPT, *flags(world, output, *more), cwd=world)
    assert result.returncode == 0, result.stderr
    return output


@pytest.mark.slow
def test_a_patient_is_explained_and_written_only_where_asked(finished: Path, world: Path, tmp_path: Path) -> None:
    options = ["--model-dir", str(finished), "--input", str(world / "patients.json")]

    def explain(*more: str) -> Result:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path)
            return CliRunner().invoke(cli.script(COMMANDS["explain"]), [*options, *more])

    predicted = pyarrow.parquet.read_table(finished / "predictions.parquet").to_pylist()
    patient_id = str(predicted[0]["patient_id"])
    had_it = _with_it_at_the_first_visit(world / "patients.json")
    chosen = explain()  # a generated patient, one who has not had the outcome from the beginning
    assert chosen.exit_code == 0 and len(re.findall(r"\n  \d{4}-", chosen.stdout)) >= 5, chosen.output
    shown = explain("--patient-id", patient_id)
    assert shown.exit_code == 0 and "Nothing is written" in shown.stdout, shown.output
    assert re.search(r"\n  \d{4}-\d\d-\d\d +\d+\.\d+%\n", shown.stdout) and not list(tmp_path.iterdir())
    written = explain("--patient-id", patient_id, "--output-dir", "page")
    assert written.exit_code == 0, written.output
    page = (tmp_path / "page" / "report.html").read_text()
    assert f"<h1>Patient {patient_id}</h1>" in page and "This page holds a generated patient" in page
    assert "All events" in page and "Codes by what they add" in page and page.count("<svg") >= 2
    for more, problem in (
        (["--patient-id", "nobody"], "--patient-id 'nobody': no such patient among 900"),
        (["--input", str(world / "new.json")], "--patient-id: is missing; of patients that were not generated"),
        (["--patient-id", patient_id, "--endpoint", "I10"], "the model predicts another outcome"),
        (["--patient-id", had_it], f"patient {had_it}: the model predicts at none of "),
    ):
        refused = explain(*more)
        assert refused.exit_code in (1, 2) and problem in refused.output, refused.output


def _with_it_at_the_first_visit(path: Path) -> str:
    """Return the id of a patient who has the endpoint of `finished` at the first visit."""
    for patient in json.loads(path.read_text()):
        dates = [*patient["diagnosis_dates"], *patient["prescription_dates"]]
        coded = zip(patient["diagnoses"], patient["diagnosis_dates"], strict=True)
        if any(code.startswith("J") and day == min(dates) for code, day in coded):
            return str(patient["patient_id"])
    raise AssertionError("nobody has it")


@pytest.mark.slow
def test_what_a_run_leaves(finished: Path, world: Path) -> None:
    results = json.loads((finished / "results.json").read_text())
    assert [model["name"] for model in results["models"]] == ["fine-tuned", "logreg", "scratch"]
    assert len(results["label_efficiency"]) == 6
    for name in ("report.html", "results.md", "vocab.json", "settings.json", "output.log", "logs", "mlruns.db"):
        assert (finished / name).exists(), name
    table = pyarrow.parquet.read_table(finished / "predictions.parquet")
    assert table.column_names == ["patient_id", "index_date", "label", "probability", "split"]
    probability = table["probability"].to_numpy()
    assert ((probability > 0) & (probability < 1)).all()
    attributed = pyarrow.parquet.read_table(finished / "attributions.parquet")
    assert len(set(attributed["patient_id"].to_pylist())) == 4


@pytest.mark.slow
def test_risks_without_labels(world: Path, tmp_path: Path) -> None:
    app, output = cli.script(COMMANDS["finetune"]), tmp_path / "risks"
    given = ["--predict-only", "--model-dir", world / "model", "--input", world / "patients.json"]
    given += ["--endpoint", "ICD:J*", "--horizon-days", 180, "--gap-days", 5, "--output-dir", output]
    words = [str(word) for word in given]
    result = CliRunner().invoke(app, [*words, "--index-date", "random"])
    assert result.exit_code == 0, result.output
    found = predictions(output)
    risks = np.array(found["probability"])
    assert 0 < risks.min() < risks.max() < 1 and "label" in found
    results = json.loads((output / "results.json").read_text())
    (model,) = results["models"]
    assert model["name"] == "zero-shot" and model["calibration"] == {"temperature": 1.0, "bias": 0.0}
    seen = SplitRule(42, 0.5).trains_on(hash_patient_ids(found["patient_id"]))
    tested = {split["split"]: split["patients"] for split in results["splits"]}
    assert tested["test"] == (~seen).sum() > 0 == tested["train"] + tested["validation"]
    assert "calibration_slope" in model["metrics"] and (output / "report.html").exists()

    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0 and "report" not in result.output, "nothing is known after the last visit"
    result = CliRunner().invoke(app, [*words, "--washout-days", "30"])
    assert result.exit_code == 2 and "forecasts first occurrences; expected 0" in " ".join(result.output.split())
    result = CliRunner().invoke(app, [word for word in words if word not in ("--endpoint", "ICD:J*")])
    assert result.exit_code == 1 and "holds no finetuning.json, expected the --output-dir" in result.output


@pytest.mark.slow
def test_few_labels_train_no_encoder(world: Path, tmp_path: Path) -> None:
    words = flags(world, tmp_path, "--train-sizes", 90, "--baselines", "logreg,logreg_answer")
    del words[words.index("--epochs") : words.index("--epochs") + 2]
    app = cli.script(COMMANDS["finetune"])
    assert (result := CliRunner().invoke(app, words)).exit_code == 0, result.output
    results = json.loads((tmp_path / "results.json").read_text())
    ours, plain, with_answer = results["models"]
    assert "90 labels, too few to train the encoder on" in ours["budget"]
    assert ours["calibration"]["temperature"] == 1 and plain["calibration"]["temperature"] != 1
    assert with_answer["label"] == "logistic regression + model's answer"
    before, after = load_file(world / "model" / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    name = "bert.encoder.layer.0.attention.self.query.weight"
    assert torch.equal(before[name], after[name])


@pytest.mark.slow
def test_no_patient_of_the_pretraining_is_validated_or_tested_on(finished: Path, world: Path) -> None:
    table = pyarrow.parquet.read_table(finished / "predictions.parquet").to_pydict()
    seen = SplitRule(42, 0.5).trains_on(hash_patient_ids(table["patient_id"]))
    trained_on = PatientDataset.load(world / "d_train.pt").columns["patient_hashes"].numpy()
    in_pretraining = np.isin(hash_patient_ids(table["patient_id"]), trained_on)
    is_train = np.array(table["split"]) == "train"
    assert (is_train == seen).all() and not (in_pretraining & ~is_train).any()
    assert set(table["split"]) == {"train", "validation", "test"}


@pytest.mark.slow
def test_a_model_of_the_inputs_splits_is_tuned_and_tested_on_them(
    with_splits: WithSplits, world: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(world / "model", tmp_path / "model")
    record = json.loads((model / "pretraining.json").read_text())
    (model / "contents.json").unlink()
    (model / "pretraining.json").write_text(json.dumps(record | {"trained_on": [{"from_input": True}]}))
    more = ["--model-dir", model, "--train-sizes", 60, "--baselines", "none"]
    words = flags(world, tmp_path / "tuned", *more)
    app = cli.script(COMMANDS["finetune"])
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 1 and "puts no patient into a split, expected train, tuning, held_out" in result.output

    with_splits(lambda who: int(who) % 3)
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    found = predictions(tmp_path / "tuned")
    assert found["split"] == [("train", "validation", "test")[who % 3] for who in found["patient_id"]]
    assert "The splits are those of the input" in (tmp_path / "tuned" / "results.md").read_text()


@pytest.mark.slow
def test_a_finished_run_is_not_trained_again(finished: Path, world: Path) -> None:
    before = (finished / "results.json").stat().st_mtime_ns
    more = ["--train-sizes", "60,all", "--baselines", "logreg,scratch", "--explain", 4]
    result = run_here(SCRIPT, *flags(world, finished, *more), cwd=world)
    assert result.returncode == 0 and "nothing to do" in result.stdout
    assert (finished / "results.json").stat().st_mtime_ns == before


@pytest.mark.slow
def test_predictions_for_new_patients(finished: Path, world: Path, tmp_path: Path) -> None:
    given = ["--predict-only", "--model-dir", finished, "--output-dir", tmp_path]
    result = run_here(SCRIPT, *given, "--input", world / "new.json", cwd=world)
    assert result.returncode == 0, result.stderr
    assert "codes that the model never saw" in result.stdout and "with relatives to start from" in result.stdout
    table = pyarrow.parquet.read_table(tmp_path / "predictions.parquet")
    assert table.column_names == ["patient_id", "index_date", "probability"] and len(table) > 0

    # The patients it was fine-tuned with get the same probabilities at the same index dates.
    rule = ["--index-date", "last-visit-before", "--input", world / "patients.json"]
    assert run_here(SCRIPT, *given, *rule, cwd=world).returncode == 0
    now = pyarrow.parquet.read_table(tmp_path / "predictions.parquet").to_pydict()
    then = pyarrow.parquet.read_table(finished / "predictions.parquet").to_pydict()
    of_now = dict(zip(now["patient_id"], now["probability"], strict=True))
    assert set(then["patient_id"]) <= set(of_now)
    assert np.allclose([of_now[i] for i in then["patient_id"]], then["probability"], atol=1e-6)


def predictions(folder: Path) -> dict[str, list[Any]]:
    return pyarrow.parquet.read_table(folder / "predictions.parquet").to_pydict()


def day(text: str) -> date:
    return date.fromisoformat(text)  # reads 20230630, too


def last_visits(path: Path) -> dict[int, date]:
    """Return the day of each patient's last event."""
    found = {}
    for person in json.loads(path.read_text()):
        if days := [*person["diagnosis_dates"], *person["prescription_dates"]]:
            found[person["patient_id"]] = day(max(days))
    return found


@pytest.mark.slow
def test_a_model_of_prolonged_stay_predicts(world: Path, tmp_path: Path) -> None:
    model, output = tmp_path / "plos", tmp_path / "new"
    fast = ["--task", "plos", "--epochs", 1, "--baselines", "none", "--train-sizes", 60]
    given = ["--model-dir", world / "model", "--input", world / "patients.json", "--output-dir", model]
    result = run_here(SCRIPT, *given, *fast, cwd=world)
    assert result.returncode == 0, result.stderr
    assert json.loads((model / "finetuning.json").read_text())["task"]["name"] == "plos"

    given = ["--predict-only", "--model-dir", model, "--output-dir", output, "--input", world / "new.json"]
    result = run_here(SCRIPT, *given, cwd=world)
    assert result.returncode == 0, result.stderr
    assert "Prolonged length of stay" in result.stdout
    found, last = predictions(output), last_visits(world / "new.json")
    assert list(found) == ["patient_id", "index_date", "probability"] and len(found["patient_id"]) > 150
    assert all(last[who] == when for who, when in zip(found["patient_id"], found["index_date"], strict=True))

    result = run_here(SCRIPT, *given, "--index-date", "fixed:2024-06-30", cwd=world)
    assert result.returncode == 0, result.stderr
    assert set(predictions(output)["index_date"]) == {date(2024, 6, 30)}


@pytest.mark.slow
def test_a_model_of_own_labels_predicts_with_and_without_labels(world: Path, tmp_path: Path) -> None:
    labels, model, output = tmp_path / "labels.csv", tmp_path / "model", tmp_path / "new"
    lines = ["subject_id,prediction_time,boolean_value"]
    last = last_visits(world / "patients.json")
    for person in json.loads((world / "patients.json").read_text()):
        if person["patient_id"] in last:  # at two times each
            when = last[person["patient_id"]]
            lines += [f"{person['patient_id']},{d},{person['sex'] == 'MALE'}" for d in (when, when - timedelta(400))]
    labels.write_text("\n".join([*lines, "nobody,2023-01-01,true"]))
    fast = ["--labels", labels, "--epochs", 1, "--baselines", "none", "--train-sizes", 60]
    given = ["--model-dir", world / "model", "--input", world / "patients.json", "--output-dir", model]
    result = run_here(SCRIPT, *given, *fast, cwd=world)
    assert result.returncode == 0, result.stderr
    assert "1 labels are of patients who are not in" in result.stderr
    assert "labels excluded: too few codes" in result.stdout

    given = ["--predict-only", "--model-dir", model, "--output-dir", output, "--input", world / "new.json"]
    result = run_here(SCRIPT, *given, cwd=world)
    assert result.returncode == 0, result.stderr
    found, last = predictions(output), last_visits(world / "new.json")
    assert list(found) == ["patient_id", "index_date", "probability"]
    assert all(last[who] == when for who, when in zip(found["patient_id"], found["index_date"], strict=True))

    result = run_here(SCRIPT, *given, "--labels", labels, cwd=world)
    assert result.returncode == 0, result.stderr
    found = predictions(output)
    assert list(found) == ["patient_id", "index_date", "label", "probability"] and set(found["label"]) == {0, 1}


@pytest.mark.slow
def test_a_task_of_an_earlier_release_is_read(finished: Path, world: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(finished, model, ignore=shutil.ignore_patterns("runs", "logs", "mlruns*"))
    content = json.loads((model / "finetuning.json").read_text())
    task = content["task"]
    assert task["endpoint"] == ["ICD:J*"] and task["index_date"] == "last-visit-before"
    content["task"], content["endpoint"], content["horizon_days"] = None, task["endpoint"], task["horizon_days"]
    (model / "contents.json").unlink()
    (model / "finetuning.json").write_text(json.dumps(content))
    found = []
    for number, folder in enumerate((finished, model)):
        given = ["--predict-only", "--model-dir", folder, "--output-dir", tmp_path / str(number)]
        result = run_here(SCRIPT, *given, "--input", world / "new.json", cwd=world)
        assert result.returncode == 0, result.stderr
        found.append(predictions(tmp_path / str(number)))
    assert found[0] == found[1]


class AnyEvent(Task):
    """Whether anything happens in the year after the last visit but one: a task of a user's own."""

    name = "any-event"

    def __init__(self, outcomes: bool) -> None:
        super().__init__()
        self.outcomes = outcomes

    @classmethod
    def from_settings(cls, settings: FinetuneSettings, outcomes: bool) -> "AnyEvent":
        return cls(outcomes)

    def select(self, patients: PatientColumns, hashes: np.ndarray) -> Selection:
        last = patients.events.span()[1].astype(np.int64)
        before = patients.up_to(last - 1).events.span()[1] if self.outcomes else last
        included = self.exclude(self.with_events(patients), before == NO_DAY, "a single visit")
        rows = np.flatnonzero(included)
        labels = (last[rows] <= before[rows] + 365).astype(np.int8) if self.outcomes else unlabeled(len(rows))
        return Selection(rows, before[rows], labels)

    @property
    def title(self) -> str:
        return "Any event within a year"


@pytest.mark.slow
def test_a_task_of_a_users_own_is_one_class_and_one_line(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_TASKS", [*registry._TASKS])
    registry.register(AnyEvent)
    with pytest.raises(ValueError, match="any-event"):
        registry.register(AnyEvent)

    app = cli.script(COMMANDS["finetune"])
    model, output = tmp_path / "model", tmp_path / "new"
    files = ["--model-dir", world / "model", "--input", world / "patients.json", "--output-dir", model]
    fast = ["--epochs", 1, "--baselines", "logreg", "--train-sizes", 60, "--task", "any-event"]
    result = CliRunner().invoke(app, [str(flag) for flag in (*files, *fast)])
    assert result.exit_code == 0, result.output
    assert "excluded: a single visit" in result.output and "Any event within a year" in result.output
    assert set(predictions(model)["label"]) == {0, 1}
    assert json.loads((model / "finetuning.json").read_text())["task"] == {"name": "any-event", "label_type": "boolean"}

    files = ["--model-dir", model, "--input", world / "new.json", "--output-dir", output, "--predict-only"]
    result = CliRunner().invoke(app, [str(flag) for flag in files])
    assert result.exit_code == 0, result.output
    found, last = predictions(output), last_visits(world / "new.json")
    assert len(found["patient_id"]) > 150 and "label" not in found
    assert all(last[who] == when for who, when in zip(found["patient_id"], found["index_date"], strict=True))

    monkeypatch.setattr(registry, "_TASKS", [task for task in registry._TASKS if task is not AnyEvent])
    result = CliRunner().invoke(app, [str(flag) for flag in files])
    assert result.exit_code == 1 and "'any-event', expected one of first-occurrence, own-labels, plos" in result.output


@pytest.mark.slow
def test_a_model_of_time_to_event_is_measured_and_predicts(world: Path, tmp_path: Path) -> None:
    app = cli.script(COMMANDS["finetune"])
    model, output = tmp_path / "model", tmp_path / "new"
    more = ["--task", "time-to-event", "--horizons", "60,200", "--gap-days", 10, "--baselines", "cox", "--explain", 2]
    result = CliRunner().invoke(app, flags(world, model, *more))
    assert result.exit_code == 0, result.output
    results = json.loads((model / "results.json").read_text())
    assert [one["name"] for one in results["models"]] == ["fine-tuned", "cox"]
    assert [one["horizon"] for one in results["horizons"]] == [60, 200] and results["attributions"]
    for one in results["models"]:
        assert one["concordance"]["low"] < one["concordance"]["value"] < one["concordance"]["high"]
        assert {"auroc", "brier"} <= one["horizons"][1]["metrics"].keys() and one["horizons"][1]["bins"]
    assert {"concordance", "auroc_60", "brier_200"} <= {one["metric"] for one in results["differences"]}
    page = (model / "report.html").read_text()
    assert (model / "incidence.png").exists() and "TRIPOD+AI" in page
    assert "adds to the log hazard of the outcome" in page and "adds to the log odds" not in page
    found = predictions(model)
    names = ["patient_id", "index_date", "days", "event", "risk_60", "risk_200", "split"]
    assert list(found) == names and set(found["event"]) <= {"censored", "outcome", "death"}
    risks = np.array([found["risk_60"], found["risk_200"]])
    assert ((risks > 0) & (risks < 1)).all() and (risks[0] < risks[1]).all() and min(found["days"]) > 10

    given = ["--predict-only", "--model-dir", model, "--input", world / "new.json", "--output-dir", output]
    result = CliRunner().invoke(app, [str(flag) for flag in given])
    assert result.exit_code == 0 and "mean risk by 200 days" in result.output, result.output
    found, last = predictions(output), last_visits(world / "new.json")
    assert list(found) == ["patient_id", "index_date", "risk_60", "risk_200"]
    assert all(last[who] == when for who, when in zip(found["patient_id"], found["index_date"], strict=True))

    source = PatientInput([world / "patients.json"])
    patient = find_patients(source, None)[0]
    explained = predict_at_visits(model, AtVisits(source, patient), patient, None, None, True)
    page = markdown(patient_page(explained, "", ""))
    assert "| times the hazard |" in page and "odds" not in page

    result = CliRunner().invoke(app, flags(world, model, *more))  # again
    assert result.exit_code == 0 and "nothing to do" in result.output


def die_at_the_third_checkpoint() -> None:
    """Let this process die when the third checkpoint has been published."""
    publish = checkpoints.publish

    def publish_and_die(run: Path, name: str, keep: int) -> None:
        publish(run, name, keep)
        if name == "checkpoint-3":
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoints.publish = publish_and_die


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_weights(world: Path, tmp_path: Path) -> None:
    outputs = [tmp_path / "whole", tmp_path / "killed"]
    more = ["--baselines", "none", "--head", "gru"]
    assert run_here(SCRIPT, *flags(world, outputs[0], *more), cwd=world).returncode == 0
    killed = run_forked(SCRIPT, *flags(world, outputs[1], *more), cwd=world, before=die_at_the_third_checkpoint)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = run_here(SCRIPT, *flags(world, outputs[1], *more), cwd=world)
    assert resumed.returncode == 0 and "Going on from" in resumed.stdout, resumed.stderr
    one, other = (load_file(output / "model.safetensors") for output in outputs)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "code", "parts"),
    [
        (["--endpoint", "Q99.9"], 1, ("--endpoint Q99.9", "no patient has such a code")),
        (["--endpoint", "nonsense"], 2, ("--endpoint", "nonsense", "heart_failure")),
        (["--task", "plos"], 2, ("one of --endpoint, --labels and --task plos", "got --endpoint and --task")),
        (["--task", "survival"], 2, ("--task", "'survival'", "expected plos")),
        (["--index-date", "yesterday"], 2, ("--index-date", "fixed:YYYY-MM-DD")),
        (["--gap-days", 400], 2, ("--gap-days", "365")),
        (["--task", "time-to-event", "--horizons", "365,180"], 2, ("--horizons", "'365,180'", "that rise")),
        (["--task", "time-to-event", "--index-date", "last-visit-before"], 2, ("--index-date", "expected random")),
        (["--train-sizes", "few"], 2, ("--train-sizes", "few")),
        (["--baselines", "svm"], 2, ("--baselines", "svm", "logreg")),
        (["--model-dir", "nowhere"], 1, ("nowhere", "config.json")),
    ],
)
def test_refusals_are_one_line(
    world: Path, tmp_path: Path, more: list[object], code: int, parts: tuple[str, ...]
) -> None:
    result = run_here(SCRIPT, *flags(world, tmp_path / "out"), *more, cwd=world)
    assert_one_line_error(result, code, *parts)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_model_of_unknown_origin_is_said_to_be_one(world: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for name in ("config.json", "model.safetensors", "vocab.json"):
        (model / name).write_bytes((world / "model" / name).read_bytes())
    given = [
        "--task",
        "plos",
        "--model-dir",
        model,
        "--input",
        world / "patients.json",
        "--output-dir",
        tmp_path / "out",
    ]
    result = run_here(SCRIPT, *given, "--epochs", 1, "--baselines", "none", "--freeze-encoder", cwd=world)
    assert result.returncode == 0, result.stderr
    assert "is unknown" in json.loads((tmp_path / "out" / "results.json").read_text())["notes"][0]
    before = load_file(model / "model.safetensors")
    after = load_file(tmp_path / "out" / "model.safetensors")
    name = "bert.encoder.layer.0.attention.self.query.weight"
    assert torch.equal(before[name], after[name])  # the encoder was frozen
