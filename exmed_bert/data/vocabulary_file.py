"""Vocabularies in files: vocab.json, which lies in a model's folder, and that of a dataset."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import StrictFloat, StrictInt, StrictStr, TypeAdapter, ValidationError

from exmed_bert.console import InputError
from exmed_bert.data.formats import MANIFEST
from exmed_bert.data.vocabulary import DEFAULT_ENTITY, SPECIAL_TOKENS, CodeVocabulary, checked_cuts
from exmed_bert.files import existing_file, read_json

VOCABULARY = "vocab.json"
DATASET = ".pt"


@dataclass
class _Entry:
    id: StrictInt
    entity: StrictStr
    cuts: list[StrictFloat] | None = None  # of the values of a measurement, where the code is a bin of them


_ENTRIES = TypeAdapter(dict[str, _Entry])


def check_source(path: Path) -> None:
    """Refuse a path that `vocabulary_from` cannot read, as far as its name says so.

    Raises:
        InputError: it is missing, or neither a model's folder nor its vocab.json nor a dataset.
    """
    if path.is_dir():
        if not any((path / name).is_file() for name in (VOCABULARY, MANIFEST)):
            raise InputError(
                f"{path}: --vocab-from: holds neither {VOCABULARY} nor {MANIFEST}, expected the folder of a model or "
                "of a dataset"
            )
        return
    existing_file(path)
    if path.suffix not in (DATASET, ".json"):
        raise InputError(f"{path}: --vocab-from: expected the folder of a model, its {VOCABULARY}, or a dataset (.pt)")


def vocabulary_from(path: Path) -> CodeVocabulary:
    """Return the vocabulary of a model's folder, of a vocab.json, or of a dataset.

    Raises:
        InputError: as `check_source`, or the file is damaged.
    """
    check_source(path)
    if (path / VOCABULARY).is_file():
        return read_vocabulary(path / VOCABULARY)
    if path.suffix == ".json":
        return read_vocabulary(path)
    from exmed_bert.data.shards import open_dataset  # imports torch

    return open_dataset(path).info.vocabulary


def read_vocabulary(path: Path) -> CodeVocabulary:
    """Read a vocab.json, whose ids are 0, 1, 2 and so on, the first six of them our special tokens.

    Raises:
        InputError: the file is missing, damaged, or another vocabulary.
    """
    try:
        content = _ENTRIES.validate_python(read_json(path))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = f"{'.'.join(map(str, problem['loc']))[:100]}: " if problem["loc"] else ""
        expected = '{"code": {"id": 6, "entity": "..."}}'
        raise InputError(f"{path}: is damaged ({where}{problem['msg']}), expected {expected}") from None
    entries = sorted(content.items(), key=lambda item: item[1].id)
    ids = [entry.id for _, entry in entries]
    entities = [entry.entity for _, entry in entries]
    tokens = tuple(name for name, _ in entries)
    special = len(SPECIAL_TOKENS)
    are_default = [entity == DEFAULT_ENTITY for entity in entities]
    if tokens[:special] != SPECIAL_TOKENS or not all(are_default[:special]) or any(are_default[special:]):
        raise InputError(f"{path}: expected ids 0 to 5 to be {' '.join(SPECIAL_TOKENS)}, and all others to be codes")
    if ids != list(range(len(ids))):
        raise InputError(f"{path}: expected each id from 0 to {len(ids) - 1} once")
    vocabulary = CodeVocabulary.of_tokens(list(zip(tokens, entities, strict=True))[special:])
    cuts = {i: entry.cuts for i, (_, entry) in enumerate(entries) if entry.cuts is not None}
    try:
        vocabulary.entity_systems  # noqa: B018  # refuses a code system that nobody has registered
        if not cuts:
            return vocabulary
        return vocabulary.with_cuts({vocabulary.binned[i]: checked_cuts(points) for i, points in cuts.items()})
    except KeyError as error:
        raise InputError(f"{path}: {vocabulary.tokens[error.args[0]]}: has cuts, and is no bin of values") from None
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
