"""Exports of a model: a folder for the Hub that loads as the model does, an ONNX file that computes the same."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import Result
from transformers import dynamic_module_utils
from typer.testing import CliRunner

from exmed_bert import PatientDataset, PatientModel, load_model
from exmed_bert.cli import script
from exmed_bert.commands import COMMANDS
from exmed_bert.models import ExMedBertConfig, ExMedBertForMaskedLM, ExMedBertForSequenceClassification
from exmed_bert.models.days import day_ids
from exmed_bert.models.folder import write_finetuned, write_pretrained
from exmed_bert.sharing import onnx_graph

pytestmark = pytest.mark.slow

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 16}


@pytest.fixture(scope="module")
def val(small_datasets: Path) -> PatientDataset:
    return PatientDataset.load(small_datasets / "small_val.pt")


@pytest.fixture(scope="module")
def folder(val: PatientDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a model with random weights that sees visits and days."""
    torch.manual_seed(5)
    sees = {"visit_days": True, "visit_distance_bias": True, "context_scale": 1.0}
    network = ExMedBertForMaskedLM(
        ExMedBertConfig(code_vocab_size=len(val.info.vocabulary), max_position_embedding=31, **sees, **SIZES)
    )
    place = tmp_path_factory.mktemp("export") / "model"
    write_pretrained(place, network, network.state_dict(), val.info)
    (place / "pytorch_model.bin").unlink()
    return place


def export(folder: Path, *words: object) -> Result:
    return CliRunner().invoke(script(COMMANDS["export"]), ["--model-dir", str(folder), *map(str, words)])


def refused(result: Result, code: int, message: str) -> None:
    assert result.exit_code == code and message in result.stderr, result.output


def test_an_onnx_file_computes_what_the_model_does(folder: Path, val: PatientDataset, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "model.onnx"
    result = export(folder, "--onnx", path)
    assert result.exit_code == 0 and "largest difference to the model" in result.output, result.output
    assert "torch.onnx" not in result.output
    model, session = load_model(folder), onnxruntime.InferenceSession(path)
    shapes = {one.name: one.shape for one in session.get_inputs()}
    per_token = ["input_ids", "entity_ids", "age_ids", "visit_ids", "attention_mask", "visit_days"]
    assert shapes == {name: ["batch", "length"] for name in per_token} | {
        "sex_ids": ["batch", 1],
        "state_ids": ["batch", 1],
    }
    rows = np.argsort(-val.lengths)[[0, -1, 5]]  # the longest and the shortest history among them
    batch = model.tokenizer.encode([val.patient(row) for row in rows.tolist()])
    feed = {name: ids.numpy() for name, ids in batch.items()}
    hidden, logits = session.run(list(onnx_graph.EncoderAndCodeHead.outputs), feed)
    with torch.inference_mode():
        expected = model.network(**batch).logits
        states = model.network.bert(**batch).last_hidden_state
    assert np.abs(logits - expected.numpy()).max() < 1e-4 and np.abs(hidden - states.numpy()).max() < 1e-4
    for name in ("visit_ids", "visit_days"):  # attention's distances are computed in the graph
        moved = session.run(["code_logits"], feed | {name: np.minimum(feed[name], 2)})[0]
        assert np.abs(moved - logits).max() > 1e-2, name
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["vocabulary"]) == val.info.vocabulary.to_dict()
    assert metadata["max_length"] == str(val.info.max_length) and metadata["age_unit"] == "years"


def test_a_fine_tuned_model_as_onnx_gives_its_probabilities(folder: Path, val: PatientDataset, tmp_path: Path) -> None:
    torch.manual_seed(6)
    of_time = {"outcome_bins": [30.0, 180.0], "outcome_causes": 2, "classifier_head": "gru"}
    asks = {"predict_future_codes": True, "hazard_bin_ends": [90.0], "target_codes": [10, 11], "prompt_scale": 0.5}
    network = ExMedBertForSequenceClassification(
        ExMedBertConfig(**load_model(folder).network.config.to_dict() | asks | of_time)
    )
    torch.nn.init.normal_(network.classifier.weight)
    torch.nn.init.constant_(network.rates, -7.0)
    task = {"name": "time-to-event", "label_type": "survival", "endpoint": ["Z99.9"], "horizons": [60, 365],
            "gap_days": 10, "washout_days": 0, "min_observation_days": 0, "index_date": "random"}  # fmt: skip
    content = {"title": "Z99.9", "task": task, "min_history": 1, "max_length": 30, "age_unit": "years"}
    write_finetuned(tmp_path / "tuned", network, val.info.vocabulary, content | {"temperature": 1.5, "bias": 0.2})
    path = tmp_path / "tuned.onnx"
    assert export(tmp_path / "tuned", "--onnx", path, "--hub-folder", tmp_path / "hub").exit_code == 0
    model, session = load_model(tmp_path / "hub"), onnxruntime.InferenceSession(path)
    patients = [val.patient(row) for row in range(20)]
    batch = model.tokenizer.encode(patients)
    feed = {one.name: batch[one.name].numpy() for one in session.get_inputs()}
    logits, probability = session.run(["logits", "probability"], feed)
    assert logits.shape == (20, 2, 3) and json.loads(session.get_modelmeta().custom_metadata_map["horizons"]) == [
        60,
        365,
    ]
    assert np.ptp(probability) > 0.05
    for i, horizon in enumerate(task["horizons"]):  # the model's own way: the prompt is put behind the history there
        np.testing.assert_allclose(probability[:, i], model.risk(patients, horizon_days=horizon), atol=1e-4)


def test_days_are_shown_alike_where_they_are_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    random = torch.Generator().manual_seed(3)
    days = torch.randint(0, 4000, (50, 9), generator=random) // torch.tensor([1, 7, 400, 4000, 900] * 10)[:, None]
    days = days.sort(dim=1).values * (torch.arange(9) <= torch.arange(50)[:, None] % 9)
    expected = day_ids(days)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    assert torch.equal(day_ids(days), expected)


def test_a_file_that_computes_something_else_is_not_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Program:
        class model:
            metadata_props: dict[str, str] = {}  # noqa: RUF012

        def save(self, path: Path, external_data: bool) -> None:
            path.touch()

    monkeypatch.setattr(torch.onnx, "export", lambda *args, **kwargs: Program())
    monkeypatch.setattr(onnx_graph, "largest_difference", lambda *args: float("nan"))
    refused(export(folder, "--onnx", tmp_path / "m.onnx"), 1, "m.onnx: onnxruntime and the model differ by nan")
    assert not list(tmp_path.iterdir())


def test_a_hub_folder_loads_as_the_model_does(
    folder: Path, val: PatientDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = tmp_path / "hub"
    (hub / ".git").mkdir(parents=True)  # a clone of the repository that it goes to
    assert export(folder, "--hub-folder", hub).exit_code == 0
    names = {"README.md", "config.json", "contents.json", "model.safetensors", "modeling_exmed_bert.py",
             "pretraining.json", "vocab.json", ".git"}  # fmt: skip
    assert {path.name for path in hub.iterdir()} == names
    own, exported = load_model(folder), load_model(hub)
    assert own.embed(val).equals(exported.embed(val))
    card = (hub / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n") and "None was recorded." in card
    (hub / "README.md").write_text(card.replace("license:", "license: mit"))
    result = export(folder, "--hub-folder", hub)  # once more, over the first
    assert "license: mit\n" in (hub / "README.md").read_text() and "without a license" not in result.output
    classes = json.loads((hub / "config.json").read_text())["auto_map"]
    assert set(classes) == {"AutoConfig", "AutoModel", "AutoModelForMaskedLM"}
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    found = dynamic_module_utils.get_class_from_dynamic_module(classes["AutoModelForMaskedLM"], hub)
    assert found is ExMedBertForMaskedLM
    (hub / "notes.txt").touch()
    refused(export(folder, "--hub-folder", hub), 1, "hub: holds notes.txt, expected a new or empty folder")


def test_a_fine_tuned_model_goes_to_the_hub_with_its_card_and_task(
    folder: Path, val: PatientDataset, tmp_path: Path
) -> None:
    tuned, hub = tmp_path / "tuned", tmp_path / "hub"
    network = ExMedBertForSequenceClassification(load_model(folder).network.config)
    task = {"title": "an outcome", "task": {}, "min_history": 5, "max_length": 30, "age_unit": "years"}
    write_finetuned(tuned, network, val.info.vocabulary, task | {"temperature": 1.0, "bias": 0.0})
    (tuned / "README.md").write_text("---\nlibrary_name: transformers\nlicense: cc0-1.0\n---\n\n# Tuned\n")
    assert export(tuned, "--hub-folder", hub).exit_code == 0
    assert (hub / "README.md").read_text() == (tuned / "README.md").read_text()
    model: PatientModel = load_model(hub)
    assert model.finetuning is not None and model.embed(val).equals(load_model(tuned).embed(val))


def test_what_cannot_be_exported_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(export(folder), 2, "--hub-folder, --onnx: none of them is given")
    refused(export(folder, "--hub-folder", folder), 2, "is the model itself")
    refused(export(folder, "--onnx", tmp_path / "model.pt"), 2, "expected a name that ends in .onnx")
    monkeypatch.setattr("exmed_bert.sharing.options._OF_ONNX", ("onnx", "no_such_package"))
    refused(export(folder, "--onnx", tmp_path / "m.onnx"), 2, "not installed; pip install no_such_package")
    monkeypatch.setattr(onnx_graph, "_MOST_BYTES", 10)
    monkeypatch.setattr("exmed_bert.sharing.options._OF_ONNX", ())
    refused(export(folder, "--onnx", tmp_path / "m.onnx"), 1, "m.onnx: the weights have")
