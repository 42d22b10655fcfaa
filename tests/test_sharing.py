"""Models to give away: a copy without rare codes, which computes the same for histories that have none of them."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from exmed_bert.cli import script
from exmed_bert.commands import COMMANDS
from exmed_bert.data.batches import MaskedCodeCollator
from exmed_bert.data.dataset import PatientDataset
from exmed_bert.data.vocabulary import SPECIAL_TOKENS, CodeVocabulary
from exmed_bert.models import ExMedBertConfig, ExMedBertForMaskedLM
from exmed_bert.models.folder import read_pretrained, read_start_embeddings, write_pretrained, write_start_embeddings
from exmed_bert.sharing.share import patients_by_code, with_codes

pytestmark = pytest.mark.slow

MIN_COUNT = 4  # patients


def model_of(vocabulary: CodeVocabulary, **changes: object) -> ExMedBertForMaskedLM:
    torch.manual_seed(5)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = ExMedBertConfig(code_vocab_size=len(vocabulary), max_position_embedding=31, **sizes, **changes)
    model = ExMedBertForMaskedLM(config).eval()
    torch.nn.init.normal_(model.code_classifier.predictions.decoder.bias)
    return model


def run(command: str, **places: Path) -> Result:
    """Run a command; its words may name places."""
    name, *options = command.format(**places).split()
    return CliRunner().invoke(script(COMMANDS[name]), options)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with patients and their datasets."""
    folder = tmp_path_factory.mktemp("data")
    for command in (
        "generate -n 200 -p 0.05 -o {o}/patients.json",
        "convert --input {o}/patients.json --output {o}/d.pt --max-length 30",
    ):
        result = run(command, o=folder)
        assert result.exit_code == 0, result.output
    return folder


@pytest.fixture(scope="module")
def copied(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the folders of a model and of its copy."""
    folder = tmp_path_factory.mktemp("sharing")
    train = PatientDataset.load(data / "d_train.pt")
    model = model_of(train.info.vocabulary, predict_future_codes=True, predict_los=True)
    write_pretrained(folder / "model", model, model.state_dict(), train.info)
    write_start_embeddings(folder / "model", model.get_input_embeddings().weight)
    command = "share --model-dir {o}/model --training-data {d}/d_train.pt --output-dir {o}/copy --min-count " + str(
        MIN_COUNT
    )
    result = run(command, o=folder, d=data)
    assert result.exit_code == 0, result.output
    removed = len(train.info.vocabulary) - len(read_pretrained(folder / "copy")[1].vocabulary)
    assert removed > 10 and f"codes of fewer, removed           {removed}" in result.stdout
    assert result.stderr == ""
    return folder / "model", folder / "copy"


def test_nothing_tells_of_a_code_of_few_patients(copied: tuple[Path, Path], data: Path) -> None:
    train = PatientDataset.load(data / "d_train.pt")
    tokens, codes = (
        np.array(train.info.vocabulary.tokens),
        [set(train[i]["input_ids"].tolist()) for i in range(len(train))],
    )
    counts = np.array([sum(token in of_one for of_one in codes) for token in range(len(tokens))])
    assert (patients_by_code(train) == counts).all()
    rare = {token for token in tokens[(counts < MIN_COUNT)] if token not in SPECIAL_TOKENS}
    model, form = read_pretrained(copied[1])
    assert set(form.vocabulary.tokens) == set(tokens) - rare
    assert {path.name for path in copied[1].iterdir()} == {path.name for path in copied[0].iterdir()}
    start = read_start_embeddings(copied[1], (len(form.vocabulary), 32))
    assert start is not None and torch.equal(torch.from_numpy(start), model.get_input_embeddings().weight)
    for path in copied[1].iterdir():
        content = path.read_bytes()
        assert not [token for token in rare if f'"{token}"'.encode() in content], path


def test_it_computes_the_same_for_patients_without_removed_codes(copied: tuple[Path, Path], data: Path) -> None:
    (model, form), (shared, smaller) = map(read_pretrained, copied)
    old = np.array([form.vocabulary.ids[token] for token in smaller.vocabulary.tokens])
    new_of = np.full(len(form.vocabulary), -1)
    new_of[old] = np.arange(len(old))
    train = PatientDataset.load(data / "d_train.pt")
    rows = [row for row in range(len(train)) if (new_of[train[row]["input_ids"]] >= 0).all()]
    assert len(rows) > 20
    batch = MaskedCodeCollator(train.info, True, validation=True, forecast_prob=0.5, seed=1)(train.batch(rows))
    batch["input_ids"][new_of[batch["input_ids"]] < 0] = 4  # a random replacement may be a removed code
    ids = {name: torch.from_numpy(new_of)[batch[name]] for name in ("input_ids",)}
    labels = batch.pop("code_labels")
    for name in ("query_positions", "observed_days", "target_ids", "target_days"):
        batch.pop(name)
    with torch.no_grad():
        before, after = model(**batch), shared(**batch | ids)
        hidden = [one.bert(**{k: v for k, v in given.items() if k != "plos_label"}).last_hidden_state
                  for one, given in ((model, batch), (shared, batch | ids))]  # fmt: skip
    assert torch.equal(*hidden)
    assert torch.equal(before.plos_logits, after.plos_logits)
    assert torch.equal(before.logits[..., torch.from_numpy(old)], after.logits) and (labels != -100).any()


def test_code_systems_that_are_gone_leave_their_embeddings_behind() -> None:
    vocabulary = CodeVocabulary.build([("atc", "A10BA02"), ("icd10cm", "I10"), ("cpt", "99213"), ("loinc", "8867-4")])
    model = model_of(vocabulary, number_of_codes=len(vocabulary.entity_names) + 1)
    kept = np.array(
        [
            *range(len(SPECIAL_TOKENS)),
            *(vocabulary.ids[token] for token in vocabulary.tokens[6:] if "99213" not in token),
        ]
    )
    smaller, shared = with_codes(model, vocabulary, kept)
    assert len(smaller.entity_names) == len(vocabulary.entity_names) - 1
    of = model.bert.embeddings.entity_embeddings.weight, shared.bert.embeddings.entity_embeddings.weight
    for place, name in enumerate(smaller.entity_names):
        assert torch.equal(of[0][vocabulary.entity_names.index(name)], of[1][place])
    assert torch.equal(of[0][-1], of[1][-1]) and shared.config.number_of_codes == len(vocabulary.entity_names)


def test_a_copy_is_converted_for_and_fine_tuned_and_analyzed(
    copied: tuple[Path, Path], data: Path, tmp_path: Path
) -> None:
    (tmp_path / "other.json").write_text((data / "patients.json").read_text() + "\n")
    for step in (
        "convert --input {d}/patients.json --output {o}/d.pt --vocab-from {m} --max-length 30",
        "finetune --model-dir {m} --input {o}/other.json --output-dir {o}/tuned --task plos --epochs 1 "
        "--baselines none",
        "analyze --model-dir {m} --dataset {o}/d_val.pt --output-dir {o}/novel --max-patients 20",
    ):
        result = run(step, d=data, o=tmp_path, m=copied[1])
        assert result.exit_code == 0, result.output
        other = f"Note: {copied[1]} was pretrained on another input than {tmp_path}/other.json holds now."
        assert (other in result.stdout) == step.startswith("finetune")
    assert (tmp_path / "tuned" / "report.html").exists() and (tmp_path / "novel" / "report.html").exists()


def test_what_cannot_be_shared_is_one_line(copied: tuple[Path, Path], data: Path, tmp_path: Path) -> None:
    model, train = copied[0], data / "d_train.pt"
    options = ["--model-dir", str(model), "--training-data", str(train)]
    (tmp_path / "notes.txt").touch()
    for more, problem in (
        (["--output-dir", str(model)], "is the model itself"),
        (["--output-dir", str(tmp_path)], "holds notes.txt, expected a new or empty folder"),
        (["--output-dir", str(tmp_path / "new"), "--min-count", "9999"], "no code is of 9,999 patients or more"),
    ):
        result = CliRunner().invoke(script(COMMANDS["share"]), options + more)
        assert result.exit_code in (1, 2) and problem in result.stderr and not (tmp_path / "new").exists()
    other = tmp_path / "other"
    shutil.copytree(copied[1], other)
    result = CliRunner().invoke(
        script(COMMANDS["share"]), ["--model-dir", str(other), *options[2:], "--output-dir", str(tmp_path / "new")]
    )
    assert "expected the dataset that the model was trained on" in result.stderr
    network, info = read_pretrained(model)[0], PatientDataset.load(train).info
    write_pretrained(tmp_path / "elsewhere", network, network.state_dict(), replace(info, input_fingerprint="0" * 32))
    result = CliRunner().invoke(
        script(COMMANDS["share"]),
        ["--model-dir", str(tmp_path / "elsewhere"), *options[2:], "--output-dir", str(tmp_path / "new")],
    )
    assert result.exit_code == 1 and "d_train.pt: was made of another input than" in result.stderr
