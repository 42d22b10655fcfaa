"""The parts of training that need no training: checkpoints, run folders, plans, metrics, where a model starts."""

import copy
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clinvec_files import write_clinvec_folder
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from exmed_bert.console import OptionError
from exmed_bert.data.batches import MaskedCodeCollator
from exmed_bert.data.dataset import PatientDataset
from exmed_bert.data.masking import IGNORED
from exmed_bert.data.vocabulary import CodeVocabulary
from exmed_bert.evaluation import masked_codes
from exmed_bert.models import ExMedBertConfig, ExMedBertForMaskedLM
from exmed_bert.models.code_tree import EMBEDDINGS
from exmed_bert.models.folder import write_pretrained
from exmed_bert.settings import PretrainSettings
from exmed_bert.training import checkpoints
from exmed_bert.training.arguments import training_arguments
from exmed_bert.training.demonstration import masked_codes as shown_codes
from exmed_bert.training.demonstration import print_demonstration
from exmed_bert.training.initial_model import estimate_codes, new_model
from exmed_bert.training.options import check, default_heads
from exmed_bert.training.plan import make_plan
from exmed_bert.training.run_folder import open_run
from exmed_bert.training.trainer import PretrainingTrainer
from exmed_bert.training.unseen import UnseenCodes

# Checkpoints ---------------------------------------------------------------------------------------------------------


def stage(run: Path, name: str, content: str = "weights") -> None:
    folder = run / checkpoints.STAGING / name
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_text(content)
    (folder / "optimizer.pt").write_text("moments")


def test_published_checkpoints_are_whole_and_old_ones_go(tmp_path: Path) -> None:
    for step in (5, 10, 100):
        stage(tmp_path, f"checkpoint-{step}")
        checkpoints.publish(tmp_path, f"checkpoint-{step}", keep=2)
    assert [folder.name for folder in checkpoints.checkpoints(tmp_path)] == ["checkpoint-10", "checkpoint-100"]
    assert checkpoints.last_whole(tmp_path) == (tmp_path / "checkpoint-100", [])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda f: (f / "optimizer.pt").write_text("mom"), "optimizer.pt has 3 bytes, expected 7"),
        (lambda f: (f / "optimizer.pt").write_text("Moments"), "optimizer.pt does not match its digest"),
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda f: (f / "contents.json").unlink(), "contents.json is missing"),
        (lambda f: (f / "contents.json").write_text(""), "contents.json is damaged"),
        (lambda f: (f / "contents.json").write_text("[" * 100_000), "contents.json is damaged"),
        (lambda f: (f / "contents.json").write_text('{"version": 2, "files": {}}'), "contents.json is damaged"),
        (lambda f: (f / "contents.json").write_text('{"version": 2, "files": {"a": 1}}'), "contents.json is damaged"),
        (lambda f: (f / "contents.json").write_bytes(b"\xff\xfe"), "contents.json is damaged"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over(change: Callable[[Path], Any], problem: str, tmp_path: Path) -> None:
    for step in (5, 10):
        stage(tmp_path, f"checkpoint-{step}")
        checkpoints.publish(tmp_path, f"checkpoint-{step}", keep=2)
    last = tmp_path / "checkpoint-10"
    change(last)
    line = f"{last}: is damaged and passed over: {problem}"
    assert checkpoints.last_whole(tmp_path) == (tmp_path / "checkpoint-5", [line])
    stage(tmp_path, "checkpoint-7")
    checkpoints.publish(tmp_path, "checkpoint-7", keep=2)
    assert [folder.name for folder in checkpoints.checkpoints(tmp_path)] == ["checkpoint-5", "checkpoint-7"]


def test_a_checkpoint_of_an_earlier_release_is_checked_by_sizes_and_by_opening_it(tmp_path: Path) -> None:
    last = tmp_path / "checkpoint-5"
    last.mkdir()
    torch.save({"moments": torch.arange(1000)}, last / "optimizer.pt")
    save_file({"weights": torch.arange(1000)}, last / "model.safetensors")
    (last / "config.json").write_text('{"a": 1}')
    (last / "contents.json").write_text(json.dumps({file.name: file.stat().st_size for file in last.iterdir()}))
    assert checkpoints.last_whole(tmp_path) == (last, [])
    for name, at in (("optimizer.pt", 5000), ("model.safetensors", 8), ("config.json", 0)):
        whole = (last / name).read_bytes()
        (last / name).write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        line = f"{last}: is damaged and passed over: {name} cannot be opened"
        assert checkpoints.last_whole(tmp_path) == (None, [line])
        (last / name).write_bytes(whole)
    (last / "optimizer.pt").write_text("mom")
    assert checkpoints.last_whole(tmp_path)[0] is None


def test_a_checkpoint_being_written_is_none(tmp_path: Path) -> None:
    stage(tmp_path, "checkpoint-5")
    assert checkpoints.last_whole(tmp_path) == (None, [])


# Run folders ---------------------------------------------------------------------------------------------------------


def open_at(folder: Path, identity: dict[str, Any], steps: int = 100, overwrite: bool = False) -> Any:
    return open_run(folder / "model", folder / "data", identity, steps, overwrite)


def test_a_new_run_makes_its_folders(tmp_path: Path) -> None:
    assert open_at(tmp_path, {"seed": 1}).state == "new"
    assert json.loads((tmp_path / "model" / "run.json").read_text()) == {"identity": {"seed": 1}}


def test_the_same_run_goes_on_and_ends_once(tmp_path: Path) -> None:
    open_at(tmp_path, {"seed": 1})
    assert open_at(tmp_path, {"seed": 1}).state == "new", "killed before its first checkpoint"
    stage(tmp_path / "model", "checkpoint-40")
    checkpoints.publish(tmp_path / "model", "checkpoint-40", keep=2)
    going_on = open_at(tmp_path, {"seed": 1})
    assert (going_on.state, going_on.first_step) == ("resumed", 40)
    going_on.remember(finished_steps=100)
    assert open_at(tmp_path, {"seed": 1}).state == "finished"
    assert open_at(tmp_path, {"seed": 1}, steps=200).state == "resumed", "more epochs prolong it"


@pytest.mark.parametrize(
    "change",
    [{"identity": {"seed": 2}}, {"identity": {"seed": 1}, "overwrite": True}, {"identity": {"seed": 1}, "steps": 20}],
)
def test_another_run_is_archived_whole(change: dict[str, Any], tmp_path: Path, capsys: Any) -> None:
    open_at(tmp_path, {"seed": 1}).remember(finished_steps=100)
    (tmp_path / "model" / "pytorch_model.bin").write_text("precious")
    (tmp_path / "data" / "eval_results.txt").write_text("0.9")
    fresh = open_at(tmp_path, **change)
    assert fresh.state == "new"
    assert sorted(file.name for file in (tmp_path / "model").iterdir()) == ["run.json"]
    assert not list((tmp_path / "data").iterdir())
    archives = [folder for folder in tmp_path.iterdir() if "." in folder.name]
    assert sorted(folder.name.split(".")[0] for folder in archives) == ["data", "model"]
    kept = {file.name: file.read_text() for folder in archives for file in folder.iterdir()}
    assert kept["pytorch_model.bin"] == "precious" and kept["eval_results.txt"] == "0.9"
    assert capsys.readouterr().out.count("archived as") == 2


def test_foreign_files_that_are_no_results_stay(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "notes.txt").write_text("mine")
    open_at(tmp_path, {"seed": 1})
    assert (tmp_path / "model" / "notes.txt").read_text() == "mine"


def test_a_model_without_our_manifest_is_archived_too(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "pytorch_model.bin").write_text("somebody's")
    open_at(tmp_path, {"seed": 1})
    assert not (tmp_path / "model" / "pytorch_model.bin").exists()
    assert next(tmp_path.glob("model.2*/pytorch_model.bin")).read_text() == "somebody's"


# Plans and sizes -----------------------------------------------------------------------------------------------------


@given(st.integers(1, 5000), st.integers(1, 300), st.integers(1, 8), st.integers(1, 4), st.integers(1, 50))
def test_a_plan_covers_the_run(patients: int, batch: int, accumulation: int, processes: int, epochs: int) -> None:
    settings = PretrainSettings(train_batch_size=batch, gradient_accumulation_steps=accumulation, epochs=epochs)
    plan = make_plan(settings, patients, processes)
    seen = plan.steps_per_epoch * batch * accumulation * processes
    assert patients <= seen < patients + batch * accumulation * processes * 2
    assert plan.total_steps == epochs * plan.steps_per_epoch
    assert 0 <= plan.warmup_steps < plan.total_steps
    assert 1 <= plan.logging_steps <= plan.total_steps and 1 <= plan.eval_steps <= plan.total_steps


def test_what_is_given_is_kept() -> None:
    settings = PretrainSettings(
        max_steps=7, warmup_steps=3, eval_steps=2, logging_steps=1, save_steps=4, learning_rate=0.5
    )
    plan = make_plan(settings, 100, 1)
    assert (plan.total_steps, plan.warmup_steps, plan.eval_steps, plan.save_steps) == (7, 3, 2, 4)
    assert (plan.logging_steps, plan.learning_rate) == (1, 0.5)
    assert make_plan(PretrainSettings(max_steps=200, warmup_ratio=0.5), 100, 1).warmup_steps == 100


@given(st.integers(1, 4096))
def test_default_heads_divide_the_width(hidden_size: int) -> None:
    assert hidden_size % default_heads(hidden_size) == 0


# Metrics -------------------------------------------------------------------------------------------------------------


class _Scores(torch.nn.Module):
    """A model that scores codes by a fixed table, whatever it sees."""

    def __init__(self, scores: torch.Tensor) -> None:
        super().__init__()
        self.scores = scores

    def forward(self, code_labels: torch.Tensor, **inputs: torch.Tensor) -> Any:
        logits = self.scores.expand(int((code_labels != IGNORED).sum()), -1)
        return type("Output", (), {"masked_logits": logits, "plos_logits": None})


def test_metrics_agree_with_counting(small_datasets: Path) -> None:
    dataset = PatientDataset.load(small_datasets / "small_val.pt")
    size = len(dataset.info.vocabulary)
    scores = torch.randn(size, generator=torch.Generator().manual_seed(0))
    collate = MaskedCodeCollator(dataset.info, plos=False, validation=True)
    batches = [collate(dataset.batch([i])) for i in range(len(dataset))]
    found = masked_codes.predict(_Scores(scores), batches, torch.device("cpu"))  # type: ignore[arg-type]
    result = masked_codes.summarize(found, dataset, None)

    order = scores.argsort(descending=True).tolist()
    labels = [c for b in batches for c in b["code_labels"].flatten().tolist() if c != IGNORED]
    groups = {
        "": labels,
        "diagnoses_": [c for c in labels if dataset.info.vocabulary.keys[c][0] == "icd10cm"],
        "drugs_": [c for c in labels if dataset.info.vocabulary.keys[c][0] == "atc"],
        "novel_codes_": [c for c in labels if c in dataset.novel_ids],
    }
    assert all(groups.values())
    for prefix, group in groups.items():
        assert result[f"{prefix}masked_codes"] == len(group)
        for top in (1, 5, 10):
            hits = sum(code in order[:top] for code in group) / len(group)
            assert result[f"{prefix}accuracy_top{top}"] == pytest.approx(hits)
    losses = -scores.log_softmax(0)[labels]
    assert result["loss"] == pytest.approx(losses.mean().item(), rel=1e-5)
    assert result["perplexity"] == pytest.approx(losses.mean().exp().item(), rel=1e-5)
    halves = [
        masked_codes.predict(_Scores(scores), part, torch.device("cpu")) for part in (batches[::2], batches[1::2])
    ]  # type: ignore[arg-type]
    assert masked_codes.summarize(masked_codes.merge(halves), dataset, None) == pytest.approx(result)


def test_the_reference_guesses_the_most_frequent_code(small_datasets: Path) -> None:
    train = PatientDataset.load(small_datasets / "small_train.pt")
    codes = train.columns["codes"].long()
    drugs = codes[train.columns["entities"] == 1]
    top_drug = int(drugs.bincount().argmax())
    result = masked_codes.most_frequent_code_accuracy(train, np.array([top_drug, top_drug, 1, 1]))
    assert result["baseline_entity_top1"] == 0.5
    top = int(codes[codes > 5].bincount().argmax())
    assert masked_codes.most_frequent_code_accuracy(train, np.array([top]))["baseline_top1"] == 1.0


def test_plos_metrics() -> None:
    result = masked_codes.plos_metrics(np.array([0, 0, 1, 1]), np.array([0.1, 0.6, 0.4, 0.9]))
    assert (result["plos_auroc"], result["plos_accuracy"], result["plos_f1"]) == (0.75, 0.5, 0.5)
    assert "plos_auroc" not in masked_codes.plos_metrics(np.array([1, 1]), np.array([0.1, 0.6]))


# Where a model starts ------------------------------------------------------------------------------------------------


@pytest.fixture
def info(small_datasets: Path) -> Any:
    return PatientDataset.load(small_datasets / "small_train.pt").info


SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def test_heads_that_do_not_divide_are_refused(info: Any) -> None:
    with pytest.raises(OptionError, match=r"--num-attention-heads: 5.*--hidden-size 16"):
        new_model(PretrainSettings(**(SMALL | {"num_attention_heads": 5})), info, plos=False)


def test_the_same_seed_gives_the_same_weights(info: Any) -> None:
    models = [new_model(PretrainSettings(**SMALL, seed=seed), info, plos=True).model for seed in (1, 1, 2)]
    states = [torch.cat([t.flatten() for t in model.state_dict().values()]) for model in models]
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])


def test_clinvec_gives_codes_their_own_vector_or_an_ancestors(info: Any, tmp_path: Path) -> None:
    vocabulary = info.vocabulary
    icd = [key[1] for key in vocabulary.keys if key is not None and key[0] == "icd10cm"]
    novel = next(code for code in info.novel_codes if code in icd)
    known = sorted({code for code in icd if code != novel} | {novel[:3]})
    write_clinvec_folder(tmp_path, {"icd10cm": known}, dimension=16)
    options = {"use_clinvec": True, "clinvec_dir": tmp_path, "vocab_types": "icd10cm"}
    composed = new_model(PretrainSettings(**SMALL, **options), info, plos=False).composed
    options["code_ancestors"] = False
    plain = new_model(PretrainSettings(**SMALL, code_ancestors=False), info, plos=False).model
    exact = new_model(PretrainSettings(**SMALL, **options), info, plos=False).model
    start = new_model(PretrainSettings(**SMALL, **options, use_hierarchical_init=True), info, plos=False)
    hierarchical = start.model

    def row(model: Any, code: str) -> torch.Tensor:
        return model.bert.embeddings.code_embeddings.weight[vocabulary.ids[code]]

    a_known = known[-1] if known[-1] in icd else known[-2]
    assert torch.equal(row(exact, novel), row(plain, novel)), "no vector: the model's own initialization"
    assert not torch.equal(row(exact, a_known), row(plain, a_known))
    assert not torch.equal(row(hierarchical, novel), row(plain, novel))
    assert torch.equal(row(exact, "MASK"), row(plain, "MASK")), "special tokens keep theirs"
    assert composed is not None
    nodes = dict(zip(composed.tree.nodes, composed.rows[EMBEDDINGS], strict=True))
    above = nodes[f"icd10cm:{novel[:3]}"]  # has a vector of its own, be it a code of the data or not
    vector = torch.from_numpy(start.codes.vectors[start.codes.ids == vocabulary.ids[novel]][0])
    assert torch.cosine_similarity(above, vector, dim=0) > 0.4
    origin = start.codes.origins[vocabulary.ids[novel]]
    assert origin.how == "ancestor" and novel.startswith(origin.ancestor)
    norms = hierarchical.bert.embeddings.code_embeddings.weight.norm(dim=1).mean()
    assert norms.item() == pytest.approx(
        plain.bert.embeddings.code_embeddings.weight.norm(dim=1).mean().item(), rel=0.1
    )


def test_codes_that_never_occur_are_masked_and_then_initialized_from_their_relatives(info: Any) -> None:
    model = new_model(PretrainSettings(**SMALL, code_ancestors=False), info, plos=False).model
    head = model.code_classifier.predictions
    with torch.no_grad():
        head.decoder.bias.normal_()
    keys = info.vocabulary.keys
    novel = next(i for i, key in enumerate(keys) if key and key[0] == "icd10cm" and (key[0], key[1][:-1]) in keys)
    counts = np.array([key is not None for key in keys]).astype(int) * 5
    counts[novel] = 0
    states = torch.randn(20, model.config.hidden_size)
    before = head.eval()(states).detach()

    unseen = UnseenCodes(model, keys, counts)
    assert unseen.ids.tolist() == [novel]
    others = torch.arange(len(keys)) != novel
    trained = head.train()(states)
    assert torch.isneginf(trained[:, novel]).all() and torch.equal(trained[:, others], before[:, others])
    trained[:, others].sum().backward()
    assert torch.isfinite(head.decoder.weight.grad).all()
    unseen.lower(5.0)
    evaluated = head.eval()(states)
    assert torch.allclose(evaluated[:, novel], before[:, novel] - 5) and torch.equal(
        evaluated[:, others], before[:, others]
    )

    unseen.estimate(model, seed=0)
    expected = estimate_codes(copy.deepcopy(model), keys, [i for i, n in enumerate(counts) if n], 0)
    row = model.bert.embeddings.code_embeddings.weight[novel]
    assert torch.allclose(row, torch.from_numpy(expected.vectors[expected.ids == novel][0]))
    family = model.bert.embeddings.code_embeddings.weight[keys.index(("icd10cm", keys[novel][1][:-1]))]
    assert torch.cosine_similarity(row, family, dim=0) > 0.5


def test_a_pretrained_code_keeps_its_rows_where_it_does_not_occur(info: Any) -> None:
    model = new_model(PretrainSettings(**SMALL, code_ancestors=False), info, plos=False).model
    keys = info.vocabulary.keys
    token = len(keys) - 1
    counts = np.array([key is not None for key in keys]).astype(int)
    counts[token] = 0
    before = copy.deepcopy(model.state_dict())
    states = torch.randn(4, model.config.hidden_size)
    scores = model.code_classifier.predictions.eval()(states).detach()
    unseen = UnseenCodes(model, keys, counts, pretrained=[token])
    unseen.lower(5.0)
    assert torch.equal(model.code_classifier.predictions(states), scores), "evaluations take it as it is"
    unseen.estimate(model, seed=0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_code_that_a_pretrained_model_lacks_starts_from_its_family(info: Any, tmp_path: Path) -> None:
    vocabulary = info.vocabulary
    keys = vocabulary.keys
    novel = next(
        i for i, key in enumerate(keys) if key is not None and key[0] == "icd10cm" and (key[0], key[1][:-1]) in keys
    )
    family = keys.index((keys[novel][0], keys[novel][1][:-1]))
    kept = torch.arange(len(keys)) != novel
    old, old_info = pretrained_without(novel, info)
    with torch.no_grad():
        old.code_classifier.predictions.decoder.weight.normal_()
        old.code_classifier.predictions.decoder.bias.normal_()
    write_pretrained(tmp_path, old, old.state_dict(), old_info)

    def rows(settings: PretrainSettings) -> list[torch.Tensor]:
        model = new_model(settings, info, plos=False).model
        decoder = model.code_classifier.predictions.decoder
        return [model.get_input_embeddings().weight.detach(), decoder.weight.detach()]

    plain = rows(PretrainSettings(model_dir=tmp_path))
    hierarchical = rows(PretrainSettings(model_dir=tmp_path, use_hierarchical_init=True))
    for before, after, old_rows in zip(plain, hierarchical, rows_of(old), strict=True):
        assert torch.equal(before[kept], after[kept]) and torch.equal(after[kept], old_rows)
        likeness = [torch.cosine_similarity(table[novel], table[family], dim=0) for table in (before, after)]
        assert likeness[1] > max(likeness[0] + 0.2, 0.6)


def pretrained_without(token: int, info: Any) -> tuple[Any, Any]:
    """Return a model whose vocabulary lacks a code, and the description of the dataset that it is of."""
    known = [i for i in range(len(info.vocabulary)) if i != token]
    tokens = tuple(info.vocabulary.tokens[i] for i in known)
    without = replace(info, vocabulary=CodeVocabulary(tokens, info.vocabulary.entities[known]))
    return new_model(PretrainSettings(**SMALL, seed=5), without, plos=False).model, without


def rows_of(model: Any) -> list[torch.Tensor]:
    return [model.get_input_embeddings().weight, model.code_classifier.predictions.decoder.weight]


def test_hierarchical_initialization_needs_vectors() -> None:
    with pytest.raises(OptionError, match=r"--use-hierarchical-init needs vectors .* --use-clinvec or --model-dir"):
        check(PretrainSettings(**SMALL, use_hierarchical_init=True))


def test_a_pretrained_model_gives_its_codes_to_another_vocabulary(info: Any, tmp_path: Path) -> None:
    codes = len(info.vocabulary)
    old, old_info = pretrained_without(codes - 1, info)
    write_pretrained(tmp_path, old, old.state_dict(), old_info)
    start = new_model(PretrainSettings(model_dir=tmp_path), info, plos=True)
    model = start.model
    for get in (
        lambda m: m.bert.embeddings.code_embeddings.weight,
        lambda m: m.code_classifier.predictions.decoder.weight,
    ):
        assert torch.equal(get(model)[:-1], get(old)) and not torch.equal(get(model)[-1], get(old)[-1])
    assert torch.equal(model.bert.encoder.layer[0].output.dense.weight, old.bert.encoder.layer[0].output.dense.weight)
    assert f"{codes - 1} of {codes} codes" in start.notes[0]


# What is shown at the end ---------------------------------------------------------------------------------------------


@pytest.fixture
def trainer(small_datasets: Path, tmp_path: Path) -> PretrainingTrainer:
    """Return the trainer of a model with random weights."""
    train, val = (PatientDataset.load(small_datasets / f"small_{split}.pt") for split in ("train", "val"))
    torch.manual_seed(3)
    model = ExMedBertForMaskedLM(
        ExMedBertConfig(code_vocab_size=len(train.info.vocabulary), max_position_embedding=31, **SMALL)
    )
    return PretrainingTrainer(model, training_arguments(tmp_path, "fp32", 1), train, val, 50)


def test_masked_codes_of_a_generated_patient_and_near_codes_are_shown(
    trainer: PretrainingTrainer, capsys: pytest.CaptureFixture[str]
) -> None:
    masked = shown_codes(trainer)
    assert len({one.guesses[0][0] for one in masked}) == 3 and all(len(one.guesses) == 3 for one in masked)
    surest = [one.guesses[0][1] for one in masked]
    assert surest == sorted(surest, reverse=True) and all(0 < share < 1 for share in surest)
    assert all(
        1 <= number <= one.codes and one.guesses[0][0] != token for one in masked for token, number in one.others[:1]
    )
    print_demonstration(trainer)
    shown = capsys.readouterr().out
    assert len(re.findall(r"(?m)^    visit \d+, masked +\w", shown)) == 3 and len(re.findall("guess, ", shown)) == 9
    assert "the surest, right or wrong, for the first 64 patients" in shown
    near = shown.split("Nearest to E11.9 Type 2 diabetes without complications\n")[1].split("\n\n")[0]
    assert len(near.splitlines()) == 3 and "novel" not in near


def test_nothing_of_a_real_patient_and_no_rare_code_is_shown(
    trainer: PretrainingTrainer, capsys: pytest.CaptureFixture[str]
) -> None:
    train = trainer.train_dataset
    for dataset in (train, trainer.eval_dataset):
        dataset.info = replace(dataset.info, novel_codes=(), min_cell=11)
    train.__dict__.pop("novel_ids", None)
    print_demonstration(trainer)
    shown = capsys.readouterr().out
    assert "guess" not in shown and "visit" not in shown
    ids = train.info.vocabulary.ids
    named = [ids[code] for code in re.findall(r"(?m)^(?:  cosine \S+|Nearest to) +(\S+)", shown)]
    assert named and (train.code_counts[named] >= 11).all()
