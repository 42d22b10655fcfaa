"""What a pretrained model's folder says of itself beside the weights: its form of input, and whom it was trained on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exmed_bert.cohorts.model_input import ModelInput
from exmed_bert.console import InputError
from exmed_bert.data.dataset import DatasetInfo
from exmed_bert.data.splits import SplitRule
from exmed_bert.data.static_columns import declared
from exmed_bert.data.vocabulary import DEFAULT_ENTITY, SPECIAL_TOKENS, AgeUnit, CodeVocabulary, age_vocabulary_size
from exmed_bert.files import read_json, write_json
from exmed_bert.models import ExMedBertConfig

ORIGIN = "pretraining.json"


@dataclass(frozen=True)
class Origin:
    """What pretraining leaves in the folder of its model.

    Attributes:
        max_length, age_unit: of the datasets.
        trained_on: whom this pretraining, and each one that it started from, trained on; None where one is unknown.
    """

    max_length: int
    age_unit: AgeUnit
    trained_on: tuple[SplitRule, ...] | None


def write_origin(folder: Path, info: DatasetInfo, started_from: Path | None) -> None:
    """Write the origin of a model that was just pretrained.

    Args:
        folder: of the model.
        info: of its training dataset.
        started_from: folder of the model whose weights it started from.
    """
    before: tuple[SplitRule, ...] | None = ()
    if started_from is not None:
        earlier = read_origin(started_from)
        before = None if earlier is None else earlier.trained_on
    rule = SplitRule(info.split_seed, info.train_ratio)
    content: dict[str, Any] = {
        "max_length": info.max_length,
        "age_unit": info.age_unit,
        "masking": info.masking.to_dict(),
        "input_fingerprint": info.input_fingerprint,
        "trained_on": None if before is None else [known.to_dict() for known in dict.fromkeys((*before, rule))],
    }
    write_json(folder / ORIGIN, content)


def read_origin(folder: Path) -> Origin | None:
    """Read what `write_origin` wrote; None for a model that came without it.

    Raises:
        InputError: the file is there and damaged.
    """
    if not (folder / ORIGIN).is_file():
        return None
    content = read_json(folder / ORIGIN)
    try:
        rules = content["trained_on"]
        known = None if rules is None else tuple(SplitRule(**rule) for rule in rules)
        return Origin(int(content["max_length"]), content["age_unit"], known)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder / ORIGIN}: is damaged: {error}") from None


def model_input(folder: Path, config: ExMedBertConfig) -> ModelInput:
    """Return the form in which a model takes histories.

    Raises:
        InputError: its vocabulary is missing, or numbers the special tokens unlike ours.
    """
    origin = read_origin(folder)
    unit: AgeUnit = "months" if config.age_vocab_size >= age_vocabulary_size("months") else "years"
    vocabulary = read_vocabulary(folder)
    if len(vocabulary) != config.code_vocab_size:
        raise InputError(
            f"{folder / 'vocab.json'}: has {len(vocabulary):,} codes, the model {config.code_vocab_size:,}"
        )
    return ModelInput(
        vocabulary=vocabulary,
        max_length=origin.max_length if origin else config.max_position_embedding - 1,
        age_unit=origin.age_unit if origin else unit,
        pretraining=origin.trained_on if origin else None,
        static_columns=declared(config.static_columns or {}),
    )


def read_vocabulary(folder: Path) -> CodeVocabulary:
    """Read ``vocab.json``, ``{"code": {"id": number, "entity": "icd"}}``.

    Raises:
        InputError: it is missing or damaged, ids are not 0, 1, 2 and so on, or the first six are not ours.
    """
    path = folder / "vocab.json"
    if not path.is_file():
        raise InputError(f"{folder}: --model-dir: holds no vocab.json, expected the folder of a pretrained model")
    content = read_json(path)
    try:
        entries = sorted(content.items(), key=lambda item: item[1]["id"])
        ids = [entry["id"] for _, entry in entries]
        entities = [str(entry["entity"]) for _, entry in entries]
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f'{path}: is damaged ({error}), expected {{"code": {{"id": 6, "entity": "icd"}}}}') from None
    labels = tuple(name for name, _ in entries)
    special = len(SPECIAL_TOKENS)
    are_default = [entity == DEFAULT_ENTITY for entity in entities]
    if labels[:special] != SPECIAL_TOKENS or not all(are_default[:special]) or any(are_default[special:]):
        raise InputError(f"{path}: expected ids 0 to 5 to be {' '.join(SPECIAL_TOKENS)}, and all others to be codes")
    if ids != list(range(len(ids))):
        raise InputError(f"{path}: expected each id from 0 to {len(ids) - 1} once")
    vocabulary = CodeVocabulary.of_tokens(list(zip(labels, entities, strict=True))[special:])
    try:
        vocabulary.entity_systems  # noqa: B018  # refuses a code system that nobody has registered
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    return vocabulary
