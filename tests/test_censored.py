"""Fine-tuning where some patients are censored: what the others count, and how near to the truth that comes."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
from torch.nn import functional as F
from typer.testing import CliRunner

from exmed_bert.cli import script
from exmed_bert.cohorts.cohort import build
from exmed_bert.cohorts.labeled import TEST, TRAIN, UNLABELED, VALIDATION, LabeledPatients
from exmed_bert.cohorts.model_input import ModelInput
from exmed_bert.cohorts.tasks.base import GeneratedOutcome, Task
from exmed_bert.cohorts.tasks.registry import requested_task
from exmed_bert.commands import COMMANDS
from exmed_bert.config import Resolved
from exmed_bert.console import InputError
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.data.splits import SplitRule
from exmed_bert.data.vocabulary import CodeVocabulary
from exmed_bert.evaluation.attainable import TrueRisks, compare_with_truth, true_risks
from exmed_bert.evaluation.censoring import HorizonOutcome
from exmed_bert.evaluation.flow import flow_of
from exmed_bert.evaluation.metrics import measure
from exmed_bert.evaluation.results import SplitCount
from exmed_bert.evaluation.small_cells import told_attrition
from exmed_bert.finetuning.censored import horizon_outcome, weighted
from exmed_bert.finetuning.plan import draw_subset
from exmed_bert.models import ExMedBertConfig, ExMedBertForMaskedLM, ExMedBertForSequenceClassification
from exmed_bert.models.folder import write_pretrained
from exmed_bert.reporting.content import FlowBox
from exmed_bert.reporting.small_cells import MinCell
from exmed_bert.settings import FinetuneSettings, GenerateSettings
from exmed_bert.synthetic import generate
from exmed_bert.synthetic.truth import attainable, truth

CODES = ("I10", "E78.5", "E11.9", "F41.9")
HORIZON = 730
FORM = ModelInput(CodeVocabulary.build([("icd10cm", "I10")]), 50, "years", [SplitRule(42, 0.5)])


@dataclass(frozen=True)
class Built:
    """A cohort, its task and, where some are censored, the outcomes by the horizon."""

    source: PatientInput
    task: Task
    patients: LabeledPatients
    attrition: dict[str, int]
    outcome: HorizonOutcome | None


def built(people: Path, **given: Any) -> Built:
    settings = FinetuneSettings(input=people, min_history=1, **given)  # type: ignore[arg-type]
    source, task = PatientInput(settings.input, settings), requested_task(settings)
    cohort = build(source, task, FORM, 1, seed=1)
    return Built(source, task, cohort.patients, dict(cohort.attrition), horizon_outcome(cohort.patients, task))


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of 10,000 patients who enter and leave, and some of whom die."""
    path = tmp_path_factory.mktemp("people") / "people.parquet"
    generate.run(Resolved(GenerateSettings(num_patients=10_000, realistic=True, seed=7, output=path), {}))
    return path


# --- the cohort ---


def test_the_weighted_find_the_true_risk_and_those_who_are_known_alone_do_not(people: Path) -> None:
    found = []
    for code in CODES:
        one = built(people, endpoint=code, index_date="first-visit", horizon_days=HORIZON)
        patients, outcome = one.patients, one.outcome
        assert outcome is not None
        ids = np.array([patients.dataset.patient_id(row) for row in range(len(patients))])
        known = truth(one.source.origin.meta, code, ids, patients.index_days.astype(np.int64), HORIZON)
        outcome, risk = outcome.take(known.at_risk), known.risk[known.at_risk]
        weights = outcome.weights()[0]
        estimate = np.average(outcome.labels, weights=weights)
        of_the_known = outcome.labels[outcome.known].mean()
        found.append((estimate, of_the_known, risk.mean(), estimate / outcome.effective_patients))
        measured, best = measure(outcome.labels, risk, weights), attainable(risk)
        assert measured["auroc"] == pytest.approx(best["auroc"], abs=0.06)
        assert measured["brier"] == pytest.approx(best["brier"], rel=0.25)
    estimate, of_the_known, true, variance = np.sum(found, axis=0)
    assert abs(estimate - true) < 2 * np.sqrt(variance) < of_the_known - true


def test_dropping_excludes_those_whom_weighting_keeps(people: Path) -> None:
    for rule, drops in (("first-visit", True), ("fixed:2023-06-30", True), ("last-visit-before", False)):
        kept, dropped = (
            built(people, endpoint="I10", index_date=rule, censored=censored) for censored in ("weight", "drop")
        )
        assert dropped.outcome is None and (dropped.patients.labels != UNLABELED).all()
        assert (kept.outcome is not None) == drops == (len(kept.patients) > len(dropped.patients))
        assert kept.task.censoring != dropped.task.censoring or not drops
        censored = "  censored before the end of the horizon, not excluded"
        assert kept.attrition.get(censored, 0) == (kept.patients.labels == UNLABELED).sum()
        for one in (kept, dropped):
            read, *excluded = (n for name, n in one.attrition.items() if name.endswith(("read", "left")))
            assert read - sum(n for name, n in one.attrition.items() if "excluded: " in name) == excluded[0]
        if not drops:
            assert kept.attrition == dropped.attrition and weighted(kept.patients, None) is kept.patients
            assert np.array_equal(kept.patients.labels, dropped.patients.labels)


def test_each_stratum_counts_for_its_own(people: Path) -> None:
    found = built(people, endpoint="I10", index_date="fixed:2023-06-30")
    outcome = horizon_outcome(found.patients, found.task, ("sex", "age"))
    patients = weighted(found.patients, outcome, ("sex", "age"))
    assert outcome is not None and outcome.strata is not None and patients.weights is not None
    assert len(np.unique(outcome.strata)) == 8
    assert (patients.weights[patients.labels == UNLABELED] == 0).all()
    for rows in (patients.splits == TEST, patients.splits != TEST):
        for stratum in range(8):
            own = rows & (outcome.strata == stratum)
            assert patients.weights[own].sum() == pytest.approx(own.sum())
    shown = found.patients.timeline
    early = replace(found.patients, timeline=replace(shown, observed_until=shown.observed_until.clip(max=19_800)))
    with pytest.raises(InputError, match=r"patients of sex \w+, age .*: none of .* to the end of the horizon of 365"):
        weighted(early, horizon_outcome(early, found.task), ("sex", "age"))


def test_a_subset_is_of_those_whose_outcome_is_known(people: Path) -> None:
    found = built(people, endpoint="I10", index_date="fixed:2023-06-30")
    patients = weighted(found.patients, found.outcome)
    every, few = draw_subset(patients, None, 0), draw_subset(patients, 100, 0)
    assert np.array_equal(every.train, patients.known_rows(TRAIN)) and every.log_odds_offset == 0
    assert set(every.validation) <= set(patients.known_rows(VALIDATION))
    assert (patients.labels[few.train] != UNLABELED).all() and patients.labels[few.train].sum() == 7
    assert (len(few.train), len(few.validation), few.labels) == (67, 33, 100)
    whole_rows = np.concatenate([patients.known_rows(split) for split in (TRAIN, VALIDATION)])
    own, whole = (float(patients.labels[rows] @ patients.weights_of(rows)) for rows in (few.validation, whole_rows))
    expected = np.log((own + 0.5) / (33.5 - own)) - np.log((whole + 0.5) / (len(whole_rows) + 0.5 - whole))
    assert few.log_odds_offset == pytest.approx(expected)


def test_true_risks_are_those_of_the_rows_of_a_cohort(people: Path) -> None:
    rules = ("fixed:2023-06-30", "last-visit-before")
    died, stay = (built(people, endpoint="I10", index_date=rule, gap_days=30) for rule in rules)
    ratios = []
    for one in (died, stay):
        outcome = one.task.generated_outcome
        assert outcome == GeneratedOutcome(("I10",), 30, 365)
        found = true_risks(one.source.origin.meta, outcome, one.patients)
        ids = np.array([one.patients.dataset.patient_id(row) for row in range(len(one.patients))])
        known = truth(one.source.origin.meta, "I10", ids, one.patients.index_days.astype(np.int64), 335)
        assert np.array_equal(found.at_risk, known.at_risk) and 0.9 < found.at_risk.mean() < 1
        ratios.append(found.risk[found.at_risk] / known.risk[found.at_risk])
    assert np.allclose(ratios[0], 1) and 1 < ratios[1].mean() < 1.02  # nobody dies first of those who stay
    unknown = GeneratedOutcome(("J06.9",), 0, 365)
    with pytest.raises(InputError, match=r"J06\.9: no known hazard"):
        true_risks(died.source.origin.meta, unknown, died.patients)
    with pytest.raises(InputError, match="no code: no known hazard"):
        true_risks(died.source.origin.meta, replace(unknown, codes=()), died.patients)


def test_the_truth_is_measured_on_those_at_risk() -> None:
    rng = np.random.default_rng(1)
    n, hashes = 4000, np.arange(4000)
    risk, at_risk = rng.uniform(0, 0.5, n), rng.random(n) < 0.8
    labels = np.where(at_risk, rng.random(n) < risk, rng.random(n) < 0.9).astype(np.int8)
    worse = np.clip(risk + rng.normal(0, 0.2, n), 0.01, 0.99)
    known = TrueRisks(at_risk, np.where(at_risk, risk, 0))
    found = compare_with_truth(labels, known, {"ours": worse}, hashes, resamples=50)
    assert found is not None and (found.patients, found.others) == (at_risk.sum(), n - at_risk.sum())
    assert found.true["auroc"].value == pytest.approx(found.expected["auroc"], abs=0.02)
    assert found.true["brier"].value == pytest.approx(found.expected["brier"], rel=0.05)
    behind = found.behind["ours"]
    assert behind is not None and behind.excludes_zero and behind.value > 0.02
    assert behind.value == pytest.approx(found.true["auroc"].value - found.models["ours"]["auroc"].value)
    assert compare_with_truth(np.zeros(n, dtype=np.int8), known, {}, hashes) is None


def test_what_patients_count_in_the_loss() -> None:
    sizes = {"code_vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = ExMedBertForSequenceClassification(ExMedBertConfig(**sizes, intermediate_size=16)).eval()
    codes = torch.randint(6, 40, (3, 5))
    given = {"input_ids": codes, "entity_ids": torch.ones_like(codes), "labels": torch.tensor([1, 0, 0])}
    weights = torch.tensor([2.0, 0.5, 0.5])
    output = model(**given, weights=weights)
    losses = F.binary_cross_entropy_with_logits(output.logits, given["labels"].float(), reduction="none")
    assert torch.isclose(output.loss, (weights * losses).mean())
    model.class_weights = (1.0, 3.0)
    of_class = torch.tensor([3.0, 1.0, 1.0])
    assert torch.isclose(model(**given, weights=weights).loss, (weights * of_class * losses).sum() / of_class.sum())


def test_no_part_of_those_left_gives_another_away() -> None:
    steps = [("patients read", 100), ("patients left", 100), ("  with the outcome", 60), ("  censored", 35)]
    told = [str(count) for _, count in told_attrition(steps, MinCell(11))]
    assert told == ["100", "100", "60", "30 to 39"]


def test_the_flow_counts_everyone_once() -> None:
    steps = [
        ("patients read", 100),
        ("excluded: no event", 7),
        ("excluded: another reason", 0),
        ("patients left", 93),
        ("  with the outcome", 12),
        ("  censored before the end of the horizon, not excluded", 9),
    ]
    splits = [SplitCount("train", 50, 6), SplitCount("validation", 10, 2), SplitCount("test", 30, 4, 6)]
    flow = flow_of(steps, splits)
    assert flow is not None
    (read, left), ends = flow.steps, flow.ends
    assert (read.box.title, read.box.count, left.box.count) == ("Patients read", "100", "93")
    assert read.leaving == FlowBox("Excluded", "7", (("no event", "7"),))
    assert [count for _, count in left.box.lines] == ["12", "9"]
    assert left.leaving is not None and (left.leaving.title, left.leaving.count) == ("Not used", "3")
    assert [(box.title, box.count, len(box.lines)) for box in ends] == [
        ("Train", "50", 1),
        ("Validation", "10", 1),
        ("Test", "30", 2),
    ]
    assert flow_of([], splits) is None


# --- the command ---


@pytest.fixture(scope="module")
def world(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an untrained model, whose training patients are half of the patients."""
    folder = tmp_path_factory.mktemp("censored")
    info = built(people, endpoint="I10").patients.dataset.info
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = ExMedBertConfig(code_vocab_size=len(info.vocabulary), max_position_embedding=64, **sizes)
    torch.manual_seed(0)
    model = ExMedBertForMaskedLM(config)
    write_pretrained(folder / "model", model, model.state_dict(), replace(info, train_ratio=0.5))
    return folder


def finetune(world: Path, people: Path, output: Path, *more: object) -> Any:
    given = ["--model-dir", world / "model", "--input", people, "--output-dir", output, *more]
    return CliRunner().invoke(script(COMMANDS["finetune"]), [str(word) for word in given])


@pytest.mark.slow
def test_a_report_of_censored_patients(world: Path, people: Path, tmp_path: Path) -> None:
    fast = ["--epochs", 1, "--baselines", "logreg", "--train-sizes", 300, "--min-history", 3]
    given = ["--endpoint", "I10", "--index-date", "fixed:2023-06-30", "--censoring-strata", "sex", *fast]
    result = finetune(world, people, tmp_path, *given)
    assert result.exit_code == 0, result.output
    assert "censored before the end of the horizon, not excluded" in result.stdout
    results = json.loads((tmp_path / "results.json").read_text())
    train, validation, test = results["splits"]
    assert train["censored"] == validation["censored"] == 0 and 0.1 < test["censored"] / test["patients"] < 0.4
    assert test["events"] / test["patients"] < test["risk"] < test["events"] / (test["patients"] - test["censored"])
    assert any("test patients are censored before the end of 365 days" in note for note in results["notes"])
    assert "estimated by sex" in results["study"]["censoring"] and "are censored." in results["study"]["censoring"]
    table = pyarrow.parquet.read_table(tmp_path / "predictions.parquet").to_pydict()
    assert set(table["label"]) == {0, 1, None}
    best, first = results["attainable"], results["models"][0]["name"]
    assert (
        best["patients"] + best["others"] == test["patients"]
        and best["events"] + best["other_events"] == test["events"]
    )
    assert 0.6 < best["expected"]["auroc"] < 1 and set(best["models"][first]) <= set(best["true"])
    of_test = [label for label, split in zip(table["label"], table["split"], strict=True) if split == "test"]
    assert of_test.count(None) == test["censored"] and of_test.count(1) == test["events"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--censoring-strata", "height"], 2, "--censoring-strata: 'height', expected some of age, sex"),
        (["--censoring-strata", "sex", "--censored", "drop"], 2, "--censoring-strata: --censored drop"),
        (["--horizon-days", 5000], 1, "patients who are not censored"),
    ],
)
def test_refusals_are_one_line(
    world: Path, people: Path, tmp_path: Path, more: list[object], code: int, message: str
) -> None:
    result = finetune(world, people, tmp_path / "out", "--endpoint", "I10", "--index-date", "first-visit", *more)
    assert result.exit_code == code and message in result.stderr, result.output
    assert len(result.stderr.splitlines()) == 1
