"""The folder of a model: the one place where it is written, read and checked.

config.json, model.safetensors   the network
pytorch_model.bin                a pretrained model: the same weights once more
contents.json                    size and digest of each of these files
vocab.json                       {"code": {"id": 6, "entity": "..."}}
pretraining.json                 a pretrained model: the form of its input, and the patients it was trained on
start_embeddings.safetensors     a pretrained model: its code embeddings before training
code_tree.safetensors            what the nodes above its codes have learned, where the codes are sums over the trees
finetuning.json                  a fine-tuned model: what it predicts, and how its logits become probabilities
"""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from exmed_bert import console
from exmed_bert.cohorts.model_input import ModelInput
from exmed_bert.console import InputError
from exmed_bert.contents import CONTENTS, damage, write_contents
from exmed_bert.data.dataset_info import DatasetInfo
from exmed_bert.data.splits import SplitRule
from exmed_bert.data.static_columns import StaticColumn, declared
from exmed_bert.data.vocabulary import AgeUnit, CodeVocabulary, age_vocabulary_size
from exmed_bert.data.vocabulary_file import VOCABULARY, read_vocabulary
from exmed_bert.files import read_json
from exmed_bert.models import ExMedBertConfig, ExMedBertForMaskedLM, ExMedBertForSequenceClassification
from exmed_bert.models.code_tree import TreeRows
from exmed_bert.models.legacy import CONFIG_KEYS, FINETUNING_KEYS, with_current_names
from exmed_bert.models.model import ExMedBertPreTrainedModel
from exmed_bert.models.saved import (
    SavedConfig,
    SavedFinetuning,
    SavedPretraining,
    SavedTimeToEvent,
    checked,
)
from exmed_bert.staging import atomic_write, save_tensors, staged_files, write_json
from exmed_bert.swap import settle

CONFIG, SAFETENSORS, PYTORCH = "config.json", "model.safetensors", "pytorch_model.bin"
PRETRAINING, FINETUNING = "pretraining.json", "finetuning.json"
START_EMBEDDINGS, CODE_TREE = "start_embeddings.safetensors", "code_tree.safetensors"
_WEIGHTS = (SAFETENSORS, f"{SAFETENSORS}.index.json", PYTORCH, f"{PYTORCH}.index.json")  # the first that is there

Model = TypeVar("Model", bound=ExMedBertPreTrainedModel)


# Writing -------------------------------------------------------------------------------------------------------------


def write_pretrained(
    folder: Path,
    model: ExMedBertForMaskedLM,
    state: dict[str, Tensor],
    info: DatasetInfo,
    started_from: Path | None = None,
    start_embeddings: Path | None = None,
) -> None:
    """Write a pretrained model with its vocabulary and the record of its pretraining; all files or none.

    Args:
        folder: of the model.
        model: gives the configuration.
        state: parameters and buffers.
        info: of the training dataset.
        started_from: folder of the model whose weights the training started from.
        start_embeddings: file of the code embeddings before training, which stands in the folder already.
    """
    record = _record(info, started_from)
    with staged_files(folder) as staged:
        save_tensors(staged / PYTORCH, state)
        _write_model(staged, model, info.vocabulary, state)
        write_json(staged / PRETRAINING, record)
        write_contents(staged, [*staged.iterdir(), *([start_embeddings] if start_embeddings else ())])


def write_finetuned(
    folder: Path, model: ExMedBertForSequenceClassification, vocabulary: CodeVocabulary, task: Mapping[str, Any]
) -> None:
    """Write a fine-tuned model with its vocabulary and the account of its task; all files or none.

    Args:
        folder: of the model.
        model: with the weights that are kept.
        vocabulary: of its code embeddings.
        task: the content of finetuning.json.
    """
    with staged_files(folder) as staged:
        _write_model(staged, model, vocabulary)
        write_json(staged / FINETUNING, task)
        write_contents(staged)


def write_copy(
    folder: Path,
    model: ExMedBertForMaskedLM,
    vocabulary: CodeVocabulary,
    source: Path,
    start_embeddings: np.ndarray | None,
) -> None:
    """Write a pretrained model that was made of another, with what that one says of its pretraining; all or none.

    Args:
        folder: of the copy.
        model: the weights.
        vocabulary: of its code embeddings.
        source: folder of the other model.
        start_embeddings: (V, hidden_size) the code embeddings before training, where they are known.
    """
    check_copy_place(folder)
    with staged_files(folder) as staged:
        save_tensors(staged / PYTORCH, model.state_dict())
        _write_model(staged, model, vocabulary)
        if (source / PRETRAINING).is_file():
            write_json(staged / PRETRAINING, read_json(source / PRETRAINING))
        if start_embeddings is not None:
            write_start_embeddings(staged, torch.from_numpy(start_embeddings))
        if model.tree_rows is None:
            (folder / CODE_TREE).unlink(missing_ok=True)  # of an earlier copy
        write_contents(staged)


def check_copy_place(folder: Path) -> None:
    """Refuse a folder that holds anything but a copy of a model: it is to be given away as it is.

    Raises:
        InputError: so it is.
    """
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if others := names - {CONFIG, SAFETENSORS, PYTORCH, VOCABULARY, PRETRAINING, START_EMBEDDINGS, CODE_TREE, CONTENTS}:
        raise InputError(f"{folder}: holds {min(others)}, expected a new or empty folder, or one of an earlier copy")


def _write_model(
    folder: Path, model: ExMedBertPreTrainedModel, vocabulary: CodeVocabulary, state: dict[str, Tensor] | None = None
) -> None:
    model.save_pretrained(folder, state_dict=state)
    write_json(folder / VOCABULARY, vocabulary.to_dict())
    if model.tree_rows is not None:
        model.tree_rows.write(folder / CODE_TREE)


def write_start_embeddings(folder: Path, embeddings: Tensor) -> None:
    """Write the code embeddings before training, (V, hidden_size), for looking back at them after it."""
    with atomic_write(folder / START_EMBEDDINGS) as part:
        save_file({"code_embeddings": embeddings.detach().cpu().contiguous()}, part)


# Reading -------------------------------------------------------------------------------------------------------------


def read_pretrained(folder: Path) -> tuple[ExMedBertForMaskedLM, ModelInput]:
    """Read a pretrained model, in evaluation mode, and the form in which it takes histories.

    Raises:
        InputError: a file is missing or damaged, a weight is missing, or the files do not fit each other.
    """
    model, vocabulary = _read(ExMedBertForMaskedLM, folder, "a pretrained model")
    record = read_record(folder)
    if record is None:
        record = _unrecorded(model.config)
    return model, _form(folder, model.config, vocabulary, record)


def read_finetuned(folder: Path) -> tuple[ExMedBertForSequenceClassification, ModelInput, dict[str, Any]]:
    """Read a fine-tuned model, in evaluation mode, the form in which it takes histories, and its finetuning.json.

    Raises:
        InputError: as `read_pretrained`.
    """
    settle(folder)
    path = folder / FINETUNING
    if not path.is_file():
        raise InputError(f"{folder}: --model-dir: holds no {FINETUNING}, expected the --output-dir of a fine-tuning")
    content = _current(path, FINETUNING_KEYS)
    saved = checked(path, content, SavedFinetuning)
    model, vocabulary = _read(ExMedBertForSequenceClassification, folder, "a fine-tuned model")
    if model.bins is not None:
        checked(path, content["task"], SavedTimeToEvent)
    record = PretrainingRecord(saved.max_length, saved.age_unit, None)
    return model, _form(folder, model.config, vocabulary, record), content


def read_form(folder: Path) -> ModelInput:
    """Read the form in which the model of a folder takes histories, without its weights.

    Raises:
        InputError: a file is missing or damaged.
    """
    settle(folder)
    content = _current(folder / CONFIG, CONFIG_KEYS)
    checked(folder / CONFIG, content, SavedConfig)
    config, vocabulary = ExMedBertConfig.from_dict(content), read_vocabulary(folder / VOCABULARY)
    if (folder / FINETUNING).is_file():
        tuned = checked(folder / FINETUNING, _current(folder / FINETUNING, FINETUNING_KEYS), SavedFinetuning)
        record = PretrainingRecord(tuned.max_length, tuned.age_unit, None)
    else:
        record = read_record(folder) or _unrecorded(config)
    return _form(folder, config, vocabulary, record)


def _unrecorded(config: ExMedBertConfig) -> "PretrainingRecord":
    """Return the record of a model from elsewhere: it is given as much as it can take."""
    return PretrainingRecord(config.max_position_embedding - 1, _age_unit(config), None)


def _form(folder: Path, config: ExMedBertConfig, vocabulary: CodeVocabulary, record: "PretrainingRecord") -> ModelInput:
    try:
        columns = declared(config.static_columns or {})
    except InputError as error:
        raise InputError(f"{folder / CONFIG}: is damaged: {str(error).removeprefix('config.yaml: ')}") from None
    return ModelInput(
        vocabulary=vocabulary,
        max_length=record.max_length,
        age_unit=record.age_unit,
        pretraining=record.trained_on,
        static_columns=columns,
    )


def _read(kind: type[Model], folder: Path, expected: str) -> tuple[Model, CodeVocabulary]:
    settle(folder)
    where = f"{folder}: --model-dir"
    lacks = [name for name in (CONFIG, VOCABULARY) if not (folder / name).is_file()]
    if not any((folder / name).is_file() for name in _WEIGHTS):
        lacks.append(f"{SAFETENSORS} or {PYTORCH}")
    if lacks:
        raise InputError(f"{where}: holds no {', no '.join(lacks)}; expected the folder of {expected}")
    content = _current(folder / CONFIG, CONFIG_KEYS)
    if (found := content.get("model_type", ExMedBertConfig.model_type)) != ExMedBertConfig.model_type:
        raise InputError(f"{folder / CONFIG}: model_type: {found!r}, expected {ExMedBertConfig.model_type!r}")
    config = checked(folder / CONFIG, content, SavedConfig)
    vocabulary = read_vocabulary(folder / VOCABULARY)
    for have, what, known in (
        (len(vocabulary), "codes", config.code_vocab_size),
        (len(vocabulary.entity_names), "entity types", config.number_of_codes),
    ):
        if have > known or (what == "codes" and have < known):
            raise InputError(f"{folder / VOCABULARY}: has {have:,} {what}, the model {known:,}")
    weights = next(folder / name for name in _WEIGHTS if (folder / name).is_file())
    _check_digests(folder, (CONFIG, VOCABULARY, PRETRAINING, FINETUNING, weights.name))
    _check_weights(weights, folder / CONFIG, config)
    try:
        model, report = kind.from_pretrained(
            folder, local_files_only=True, output_loading_info=True, ignore_mismatched_sizes=True
        )
    except Exception as error:  # whatever the libraries make of what the checks do not know
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{where}: cannot be read: {reason[:300]}") from error
    if report["mismatched_keys"]:
        name, shape, wanted = sorted(report["mismatched_keys"])[0]
        raise InputError(f"{where}: {name} has shape {tuple(shape)}, {CONFIG} asks for {tuple(wanted)}")
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise InputError(f"{where}: has no weights for {missing[0]}; expected the folder of {expected}")
    if (folder / CODE_TREE).is_file():
        _check_digests(folder, (CODE_TREE,))
        model.tree_rows = TreeRows.read(folder / CODE_TREE, model.config.hidden_size)
    return model, vocabulary


def _current(path: Path, names: Mapping[str, str]) -> dict[str, Any]:
    """Read a JSON file with keys and values; of those of an earlier release, return the present names."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: is damaged: expected keys and values")
    if renamed := [f"{old} is now {new}" for old, new in names.items() if old in content]:
        console.warn(f"{path}: is of an earlier release; {', '.join(renamed)}")
    return with_current_names(content, names)


def _check_digests(folder: Path, names: Sequence[str]) -> None:
    """Refuse files that are not as they were written; a folder from elsewhere may not say how that was."""
    if (folder / CONTENTS).exists() and (problem := damage(folder, names)):
        name, _, what = problem.partition(" ")
        raise InputError(
            f"{folder / name}: is damaged: {what}; train or copy the model again, or remove {CONTENTS} if it was "
            "changed on purpose"
        )


def _check_weights(path: Path, config_path: Path, config: SavedConfig) -> None:
    """Refuse weights that are damaged, hold more than tensors, or are too few for what config.json would allocate."""
    if path.suffix == ".json":  # names further files, whose sizes are not known here
        parts = _current(path, {}).get("weight_map")
        if not isinstance(parts, dict) or any(Path(str(name)).name != name for name in parts.values()):
            raise InputError(f"{path}: weight_map: expected names of files in this folder")
        return
    try:
        if path.name == SAFETENSORS:
            with safe_open(path, "pt") as file:
                file.keys()
        else:
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as archive:
                    if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                        raise ValueError("its content is compressed")
            torch.load(path, map_location="meta", weights_only=True)
    except Exception as error:  # torch's text advises to load it unsafely
        reason = "holds something else than tensors, or is damaged; nothing of it was executed"
        if path.name == SAFETENSORS:
            reason = f"is damaged: {(str(error).strip().splitlines() or [''])[0]}"
        raise InputError(f"{path}: cannot be read: {reason}; expected the weights of a model") from error
    if config.parameters > (size := path.stat().st_size):
        raise InputError(
            f"{config_path}: asks for {config.parameters:,} parameters or more, but {path.name} has {size:,} bytes"
        )


def read_start_embeddings(folder: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return the code embeddings before training, (V, hidden_size) float32; None where the folder has none.

    Raises:
        InputError: the file is damaged, or has another shape than ``shape``.
    """
    path = folder / START_EMBEDDINGS
    if not path.is_file():
        return None
    _check_digests(folder, (START_EMBEDDINGS,))
    try:
        table = load_file(path)["code_embeddings"].float().numpy()
    except (OSError, SafetensorError, KeyError) as error:
        raise InputError(f"{path}: is damaged ({error}), expected a tensor 'code_embeddings'") from None
    if table.shape != shape:
        raise InputError(f"{path}: has shape {table.shape}, the model's code embeddings {shape}")
    return table


def weight_files(folder: Path) -> list[Path]:
    """Return the files that decide what a model says: its weights and its vocabulary, as far as they are there."""
    return [folder / name for name in (SAFETENSORS, PYTORCH, VOCABULARY, CODE_TREE) if (folder / name).is_file()]


# What it was pretrained on, and whether it fits ---------------------------------------------------------------------


@dataclass(frozen=True)
class PretrainingRecord:
    """What pretraining.json says.

    Attributes:
        max_length, age_unit: of the datasets.
        trained_on: which patients this pretraining, and each that it started from, trained on; None where one is
            unknown.
        input_fingerprint: digest of the patients' files (`Origin.fingerprint`) that the datasets were made of; None
            where it is not known.
    """

    max_length: int
    age_unit: AgeUnit
    trained_on: tuple[SplitRule, ...] | None
    input_fingerprint: str | None = None


def _record(info: DatasetInfo, started_from: Path | None) -> dict[str, Any]:
    before: tuple[SplitRule, ...] | None = ()
    if started_from is not None:
        earlier = read_record(started_from)
        before = None if earlier is None else earlier.trained_on
    rules = None if before is None else dict.fromkeys((*before, info.split_rule))
    return {
        "max_length": info.max_length,
        "age_unit": info.age_unit,
        "masking": None if info.masking is None else info.masking.to_dict(),
        "input_fingerprint": info.input_fingerprint,
        "trained_on": None if rules is None else [rule.to_dict() for rule in rules],
    }


def read_record(folder: Path) -> PretrainingRecord | None:
    """Return what a model's pretraining.json says; None for a model without one.

    Raises:
        InputError: the file is there and damaged.
    """
    settle(folder)
    path = folder / PRETRAINING
    if not path.is_file():
        return None
    content = read_json(path)
    saved = checked(path, content, SavedPretraining)
    known = None if saved.trained_on is None else tuple(map(SplitRule.from_dict, content["trained_on"]))
    return PretrainingRecord(saved.max_length, saved.age_unit, known, saved.input_fingerprint)


def is_of_other_input(folder: Path, fingerprint: str) -> bool:
    """Tell whether a model is known to be pretrained on another input than the one with this digest.

    Raises:
        InputError: its pretraining.json is damaged.
    """
    record = read_record(folder)
    return record is not None and record.input_fingerprint not in (None, fingerprint)


def check_fit(
    folder: Path,
    config: ExMedBertConfig,
    age_unit: AgeUnit,
    static_columns: Sequence[StaticColumn],
    visits: int,
    otherwise: str,
) -> None:
    """Raise an InputError that names the remedy where a model cannot take patients.

    Args:
        folder: of the model.
        config: its configuration.
        age_unit, static_columns: of the patients.
        visits: the largest number that a visit has.
        otherwise: what helps where the patients cannot be converted to what the model takes.
    """
    record = read_record(folder)
    own_unit = record.age_unit if record else _age_unit(config)
    problems, flags = [], []
    if own_unit != age_unit:
        problems.append(f"the model takes ages in {own_unit}, the dataset has {age_unit}")
        flags.append(f"--age-unit {own_unit}")
    longest = config.max_position_embedding - 1
    if longest < visits:
        problems.append(f"the model knows {longest:,} visits, the dataset needs {visits:,}")
        flags.append(f"--max-length {longest}")
    sizes = [("age", config.age_vocab_size, age_vocabulary_size(own_unit))]
    sizes += [(c.name, config.static_vocab_sizes.get(c.name, 0), len(c.tokens)) for c in static_columns]
    impossible = [
        f"the model has {have:,} {name} ids, the dataset needs {need:,}" for name, have, need in sizes if have < need
    ]
    for column in static_columns:
        own = (config.static_columns or {}).get(column.name)
        if own is not None and tuple(own) != column.values:
            impossible.append(
                f"the model's values of {column.name} are {', '.join(own)}, the dataset's {', '.join(column.values)}"
            )
    if problems or impossible:
        again = "" if impossible else f"convert again with {' '.join(flags)}, or "
        raise InputError(f"{folder}: --model-dir: {'; '.join(problems + impossible)}; {again}{otherwise}")


def _age_unit(config: ExMedBertConfig) -> AgeUnit:
    """Return the unit that a model without a record takes ages in: more ages than there are years are months."""
    return "months" if config.age_vocab_size > age_vocabulary_size("years") else "years"
