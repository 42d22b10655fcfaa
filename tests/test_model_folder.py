"""The folder of a model: what is written is read again, names of earlier releases too, and what is wrong is named."""

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, assert_one_line_error, run_here
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification

from exmed_bert.console import InputError
from exmed_bert.data.dataset import PatientDataset
from exmed_bert.data.dataset_info import DatasetInfo
from exmed_bert.data.splits import FROM_INPUT
from exmed_bert.data.static_columns import BUILT_IN, declared
from exmed_bert.data.vocabulary import SPECIAL_TOKENS
from exmed_bert.data.vocabulary_file import read_vocabulary
from exmed_bert.models import ExMedBertConfig, ExMedBertForMaskedLM, ExMedBertForSequenceClassification
from exmed_bert.models.folder import (
    check_fit,
    read_finetuned,
    read_pretrained,
    read_record,
    write_finetuned,
    write_pretrained,
)
from exmed_bert.models.saved import SavedConfig
from exmed_bert.settings import PretrainSettings
from exmed_bert.training.initial_model import new_model

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


@pytest.fixture(scope="module")
def info(small_datasets: Path) -> DatasetInfo:
    return PatientDataset.load(small_datasets / "small_train.pt").info


@pytest.fixture
def model(info: DatasetInfo) -> ExMedBertForMaskedLM:
    return new_model(PretrainSettings(**SMALL, forecast_prob=0.5), info, plos=True).model.eval()


@pytest.fixture
def folder(model: ExMedBertForMaskedLM, info: DatasetInfo, tmp_path: Path) -> Path:
    write_pretrained(tmp_path / "model", model, model.state_dict(), info)
    return tmp_path / "model"


def batch() -> dict[str, torch.Tensor]:
    """Two patients of four tokens, a MASK at the end of each."""
    codes = torch.tensor([[10, 11, 12, 4], [13, 14, 10, 4]])
    positions = torch.tensor([[1, 1, 2, 3], [1, 2, 3, 4]])
    fields = {"input_ids": codes, "entity_ids": torch.full_like(codes, 2), "age_ids": torch.full_like(codes, 40)}
    days = torch.tensor([[0, 0, 30, 40], [0, 5, 9, 9]])
    return fields | {"visit_ids": positions, "visit_days": days, "attention_mask": torch.ones_like(codes)}


def outcome_model(model: ExMedBertForMaskedLM) -> ExMedBertForSequenceClassification:
    """Return a classifier of the same sizes that answers a prompt."""
    torch.manual_seed(1)
    config = ExMedBertConfig(**model.config.to_dict() | {"target_codes": [11, 12], "prompt_scale": 0.5})
    classifier = ExMedBertForSequenceClassification(config).eval()
    torch.nn.init.normal_(classifier.classifier.weight)
    return classifier


# Written and read ----------------------------------------------------------------------------------------------------


def test_what_is_written_is_read(folder: Path, model: ExMedBertForMaskedLM, info: DatasetInfo) -> None:
    again, form = read_pretrained(folder)
    assert not again.training and form.vocabulary.tokens == info.vocabulary.tokens
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    assert (form.max_length, form.age_unit) == (info.max_length, info.age_unit)
    (rule,) = form.pretraining
    assert (rule.seed, rule.train_ratio) == (info.split_seed, info.train_ratio)
    assert not list(folder.glob(".*"))


def test_the_record_names_the_patients_of_every_pretraining(
    folder: Path, model: ExMedBertForMaskedLM, info: DatasetInfo, tmp_path: Path
) -> None:
    other = replace(info, split_seed=7)
    write_pretrained(tmp_path / "second", model, model.state_dict(), other, started_from=folder)
    assert [rule.seed for rule in read_record(tmp_path / "second").trained_on] == [info.split_seed, 7]
    (folder / "pretraining.json").unlink()
    write_pretrained(tmp_path / "third", model, model.state_dict(), other, started_from=folder)
    assert read_record(tmp_path / "third").trained_on is None, "those of the first are not known"


def test_the_record_says_that_the_splits_were_those_of_the_input(
    folder: Path, model: ExMedBertForMaskedLM, info: DatasetInfo, tmp_path: Path
) -> None:
    other = replace(info, split_from="input")
    for name, before in (("second", folder), ("third", tmp_path / "second")):
        write_pretrained(tmp_path / name, model, model.state_dict(), other, started_from=before)
        written = json.loads((tmp_path / name / "pretraining.json").read_text())["trained_on"]
        assert written == [{"seed": info.split_seed, "train_ratio": info.train_ratio}, {"from_input": True}]
        assert read_record(tmp_path / name).trained_on == (info.split_rule, FROM_INPUT)


def test_a_write_that_fails_leaves_the_folder_as_it_was(
    folder: Path, model: ExMedBertForMaskedLM, info: DatasetInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {file.name: file.read_bytes() for file in folder.iterdir()}

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ExMedBertForMaskedLM, "save_pretrained", fail)
    with pytest.raises(InputError, match="model: cannot be written: No space left on device"):
        write_pretrained(folder, model, model.state_dict(), replace(info, split_seed=3))
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


# What is wrong -------------------------------------------------------------------------------------------------------


def without_digests(folder: Path) -> Path:
    """Return a folder as an earlier release wrote it, or one that was changed on purpose."""
    (folder / "contents.json").unlink()
    return folder


def edit_config(folder: Path, **changes: Any) -> None:
    path = without_digests(folder) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_record(folder: Path, **changes: Any) -> None:
    path = without_digests(folder) / "pretraining.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def drop_weight(folder: Path) -> None:
    weights = load_file(without_digests(folder) / "model.safetensors")
    del weights["bert.embeddings.code_embeddings.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def put_a_pickle(folder: Path) -> None:
    (without_digests(folder) / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(ExMedBertConfig, protocol=2))


class _Runs:
    """Executes a function of a pickle's choice where it is loaded without care."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("executed",)


def put_a_torch_file_that_executes(folder: Path) -> None:
    (without_digests(folder) / "model.safetensors").unlink()
    torch.save(_Runs(), folder / "pytorch_model.bin")


def compress_weights(folder: Path) -> None:
    (without_digests(folder) / "model.safetensors").unlink()
    with zipfile.ZipFile(folder / "pytorch_model.bin") as plain:
        content = {entry.filename: plain.read(entry) for entry in plain.infolist()}
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, stored in content.items():
            archive.writestr(name, stored)


def tear(folder: Path, name: str) -> None:
    (folder / name).write_bytes((folder / name).read_bytes()[:-9])


def flip(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) * 2 // 3] ^= 1
    (folder / name).write_bytes(content)


NO_TENSORS = r"pytorch_model\.bin: cannot be read: holds something else than tensors, or is damaged; nothing of it was"


def remove_weights(folder: Path) -> None:
    for name in ("model.safetensors", "pytorch_model.bin"):
        (folder / name).unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "config.json").unlink(), r"model: --model-dir: holds no config\.json; .* a pretrained model"),
        (lambda f: (f / "vocab.json").unlink(), r"holds no vocab\.json; expected the folder of a pretrained model"),
        (remove_weights, r"holds no model\.safetensors or pytorch_model\.bin; expected"),
        (lambda f: (f / "config.json").write_text("{"), r"config\.json: is not JSON"),
        (lambda f: edit_config(f, model_type="bert"), r"config\.json: model_type: 'bert', expected 'exmedbert'"),
        (lambda f: edit_config(f, hidden_size="wide"), r"config\.json: is damaged: hidden_size: 'wide' is not allowed"),
        (lambda f: edit_config(f, hidden_size=2**40), r"hidden_size: 1099511627776 is not allowed, must be less than"),
        (
            lambda f: edit_config(f, num_hidden_layers=10**9),
            r"asks for [\d,]+ parameters or more, but model\.saf",
        ),
        (lambda f: edit_config(f, hidden_size=16.0), r"hidden_size: 16\.0 is not allowed"),
        (
            lambda f: edit_config(f, hidden_size=17),
            r"config\.json: is damaged: 2 attention heads do not divide hidden_",
        ),
        (lambda f: edit_config(f, hidden_dropout_prob=float("nan")), r"hidden_dropout_prob: nan is not allowed"),
        (lambda f: edit_config(f, hidden_act="magic"), r"hidden_act: 'magic' is not allowed, expected an activation"),
        (lambda f: edit_config(f, plos_weight=[1]), r"plos_weight: \[1\] is not allowed"),
        (lambda f: edit_config(f, static_columns=["a"]), r"static_columns: \['a'\] is not allowed"),
        (lambda f: edit_config(f, quantization_config=3), r"--model-dir: cannot be read: "),
        (lambda f: (f / "config.json").write_text("[]"), r"config\.json: is damaged: expected keys and values"),
        (lambda f: edit_config(f, intermediate_size=8), r"dense\.\w+ has shape \(16.*config\.json asks for \(8"),
        (lambda f: edit_config(f, num_hidden_layers=2), r"has no weights for bert\.encoder\.layer\.1\."),
        (
            lambda f: tear(f, "model.safetensors"),
            r"model\.safetensors: is damaged: has [\d,]+ bytes, expected [\d,]+; ",
        ),
        (
            lambda f: flip(f, "model.safetensors"),
            r"model\.safetensors: is damaged: does not match its digest; train",
        ),
        (lambda f: flip(f, "contents.json"), r": is damaged: "),
        (lambda f: tear(without_digests(f), "model.safetensors"), r"model\.safetensors: cannot be read: is damaged: "),
        (drop_weight, r"has no weights for bert\.embeddings\.code_embeddings\.weight; expected the folder of a pretr"),
        (put_a_pickle, NO_TENSORS),
        (put_a_torch_file_that_executes, NO_TENSORS),
        (compress_weights, NO_TENSORS),
        (lambda f: (f / "pretraining.json").write_text('{"max_length": 3}'), r"pretraining\.json: is damaged"),
        *(
            (lambda f, change=change: edit_record(f, **change), rf"pretraining\.json: is damaged: {where}")
            for change, where in (
                ({"max_length": 0}, "max_length: 0 is not allowed"),
                ({"max_length": "30"}, "max_length: '30' is not allowed"),
                ({"age_unit": "days"}, "age_unit: 'days' is not allowed"),
                ({"trained_on": {}}, r"trained_on: \{\} is not allowed"),
                ({"trained_on": [{"seed": 1}]}, r"holds no trained_on\.0"),
                ({"trained_on": [{"seed": 1, "train_ratio": 2}]}, r"trained_on\.0\.\w+\.train_ratio: 2 is not allowed"),
            )
        ),
    ],
)
def test_a_damaged_folder_is_refused_in_one_line(
    damage: Callable[[Path], Any], message: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    damage(folder)
    with pytest.raises(InputError, match=message) as error:
        read_pretrained(folder)
    assert "\n" not in str(error.value) and "weights_only" not in str(error.value)
    assert not (folder.parent / "executed").exists()


SPECIAL = {name: {"id": i, "entity": "default"} for i, name in enumerate(SPECIAL_TOKENS)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "is damaged"),
        (SPECIAL | {"I10": 6}, "is damaged"),
        (SPECIAL | {"I10": {"id": 6.0, "entity": "icd"}}, r"is damaged \(I10\.id: .* integer"),
        (SPECIAL | {"I10": {"id": 6, "entity": None}}, r"is damaged \(I10\.entity: .* string"),
        (SPECIAL | {"I10": {"id": 6, "entity": "x"}}, "code system"),
        (SPECIAL | {"I10": {"id": 7, "entity": "icd"}}, "expected each id from 0 to 6 once"),
        (SPECIAL | {"I10": {"id": 6, "entity": "default"}}, "ids 0 to 5 to be PAD UNK CLS SEP MASK NA, and all others"),
        ({"I10": {"id": 0, "entity": "icd"}}, "ids 0 to 5 to be PAD UNK CLS SEP MASK NA"),
    ],
)
def test_another_vocabulary_is_refused(content: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf"vocab\.json: .*{message}"):
        read_vocabulary(tmp_path / "vocab.json")


@pytest.mark.parametrize(
    ("sizes", "dataset", "problem", "remedy"),
    [
        ({}, {"visits": 50}, "knows 30 visits, the dataset needs 50", "convert again with --max-length 30, or leave"),
        ({}, {"age_unit": "months"}, "ages in years, the dataset has months", "again with --age-unit years, or leave"),
        ({"age_vocab_size": 1327}, {}, "ages in months, the dataset has years", "again with --age-unit months, or"),
        (
            {},
            {"age_unit": "months", "visits": 50},
            "the dataset has months; the model knows 30 visits",
            "convert again with --age-unit years --max-length 30, or leave out --model-dir",
        ),
        ({"age_vocab_size": 60}, {}, "has 60 age ids, the dataset needs 117; leave out", "leave out --model-dir"),
        ({"sex_vocab_size": 4}, {"visits": 50}, "has 4 sex ids, the dataset needs 8; leave", "leave out --model-dir"),
        ({"region_vocab_size": 12}, {}, "has 12 state ids, the dataset needs 62; leave", "leave out --model-dir"),
        (
            {"static_columns": {"insurance": ["PUBLIC", "PRIVATE"]}},
            {"static_columns": declared({"insurance": ["public", "none"]})},
            "the model's values of insurance are PUBLIC, PRIVATE, the dataset's PUBLIC, NONE; leave",
            "leave out --model-dir",
        ),
        (
            {},
            {"static_columns": declared({"insurance": ["public", "none"]})},
            "the model has 0 insurance ids, the dataset needs 8; leave",
            "leave out --model-dir",
        ),
    ],
)
def test_a_model_that_does_not_fit_names_the_remedy(
    sizes: dict[str, int], dataset: dict[str, Any], problem: str, remedy: str, tmp_path: Path
) -> None:
    config = ExMedBertConfig(max_position_embedding=31, **sizes)
    needs = {"age_unit": "years", "static_columns": BUILT_IN, "visits": 30} | dataset
    with pytest.raises(InputError) as error:
        check_fit(tmp_path, config, **needs, otherwise="leave out --model-dir")
    assert f"{tmp_path}: --model-dir: " in str(error.value)
    assert problem in str(error.value) and remedy in str(error.value)


def test_the_record_says_the_unit_of_ages(folder: Path, model: ExMedBertForMaskedLM) -> None:
    model.config.age_vocab_size = 2000
    check_fit(folder, model.config, "years", BUILT_IN, 30, "")
    with pytest.raises(InputError, match="takes ages in years"):
        check_fit(folder, model.config, "months", BUILT_IN, 30, "")


@pytest.mark.slow
def test_a_dataset_that_does_not_fit_is_refused_by_the_script(
    folder: Path, small_datasets: Path, tmp_path: Path
) -> None:
    longer = ["--input", small_datasets / "patients.json", "--output", tmp_path / "long.pt", "--max-length", 40]
    assert run_here("convert_synthetic_to_dataset.py", *longer, cwd=ROOT).returncode == 0
    data = ["--training-data", tmp_path / "long_train.pt", "--validation-data", tmp_path / "long_val.pt"]
    output = ["--output-dir", tmp_path / "out", "--output-data-dir", tmp_path / "out"]
    result = run_here("pretrain-exmed-bert-clinvec.py", *data, *output, "--model-dir", folder, cwd=ROOT)
    remedy = "convert again with --max-length 30, or leave out --model-dir"
    assert_one_line_error(result, 1, str(folder), "knows 30 visits, the dataset needs 40", remedy)
    assert not (tmp_path / "out").exists()


# Names of earlier releases -------------------------------------------------------------------------------------------

OLD_KEYS = {
    "predict_future_codes": "predict_ahead",
    "target_codes": "question_codes",
    "prompt_scale": "answer_scale",
    "prompt_bias": "answer_bias",
}
OLD_PARAMETERS = {"forecast_head.": "ahead_classifier.", "prompt_scale": "answer_scale"}


def give_old_names(folder: Path) -> None:
    """Rewrite a folder as an earlier release would have written it."""
    config = json.loads((without_digests(folder) / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({OLD_KEYS.get(key, key): value for key, value in config.items()}))
    weights = load_file(folder / "model.safetensors")
    renamed = {}
    for name, tensor in weights.items():
        for ours, old in OLD_PARAMETERS.items():
            name = name.replace(ours, old)
        renamed[name] = tensor
    assert set(renamed) != set(weights)
    save_file(renamed, folder / "model.safetensors", {"format": "pt"})


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**batch()).logits


def test_a_pretrained_model_with_old_names_is_the_same_model(
    folder: Path, model: ExMedBertForMaskedLM, tmp_path: Path
) -> None:
    give_old_names(folder)
    loaded, _ = read_pretrained(folder)
    assert loaded.config.predict_future_codes
    assert torch.equal(loaded.forecast_head.history.weight, model.forecast_head.history.weight)
    for other in (loaded, ExMedBertForMaskedLM.from_pretrained(folder), AutoModelForMaskedLM.from_pretrained(folder)):
        torch.testing.assert_close(logits(other), logits(model))
    loaded.save_pretrained(tmp_path / "again")
    saved = load_file(tmp_path / "again" / "model.safetensors")
    assert set(saved) == set(model.state_dict()) and "predict_ahead" not in json.loads(
        (tmp_path / "again" / "config.json").read_text()
    )


def test_a_fine_tuned_model_with_old_names_is_the_same_model(
    model: ExMedBertForMaskedLM, info: DatasetInfo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classifier = outcome_model(model)
    content: dict[str, Any] = {"title": "PLOS", "max_length": 20, "age_unit": "years", "task": "plos"}
    content |= {"min_history": 5, "temperature": 1.0, "bias": 0.0}
    write_finetuned(tmp_path, classifier, info.vocabulary, content | {"washout_days": 7})
    expected = logits(classifier)
    assert expected.std() > 0
    give_old_names(tmp_path)
    loaded, form, known = read_finetuned(tmp_path)
    assert known == content | {"gap_days": 7} and (form.max_length, form.age_unit) == (20, "years")
    assert form.vocabulary.tokens == info.vocabulary.tokens and list(loaded.config.target_codes) == [11, 12]
    for other in (loaded, AutoModelForSequenceClassification.from_pretrained(tmp_path)):
        torch.testing.assert_close(logits(other), expected)
    said = capsys.readouterr().err
    assert f"{tmp_path / 'finetuning.json'}: is of an earlier release; washout_days is now gap_days\n" in said
    assert "config.json: is of an earlier release; " in said and "question_codes is now target_codes" in said


def test_the_encoder_alone_loads_without_a_word_about_heads(
    folder: Path, model: ExMedBertForMaskedLM, info: DatasetInfo, tmp_path: Path
) -> None:
    write_finetuned(tmp_path / "fine-tuned", outcome_model(model), info.vocabulary, {})
    give_old_names(folder)
    for of in (folder, tmp_path / "fine-tuned"):
        encoder, report = AutoModel.from_pretrained(of, output_loading_info=True)
        assert not report["unexpected_keys"] and not report["missing_keys"]
        assert encoder.get_input_embeddings().weight.shape == model.get_input_embeddings().weight.shape


def test_what_a_configuration_lacks_is_checked_with_the_models_defaults() -> None:
    built = {name: getattr(ExMedBertConfig(), name) for name in SavedConfig.model_fields}
    scalars = {name: value for name, value in built.items() if not isinstance(value, tuple)}  # JSON has none
    assert scalars == {name: SavedConfig.model_fields[name].get_default() for name in scalars}
