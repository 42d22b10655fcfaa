"""What a dataset says of itself besides its columns."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from exmed_bert.console import shown
from exmed_bert.data.masking import Masking
from exmed_bert.data.splits import FROM_INPUT, SplitRule
from exmed_bert.data.static_columns import BUILT_IN, StaticColumn
from exmed_bert.data.vocabulary import AgeUnit, CodeVocabulary, age_vocabulary_size
from exmed_bert.reporting.small_cells import DEFAULT_LIMIT, MinCell

FORMAT = "exmed_bert.PatientDataset"
VERSION = 2

_WHOLE = range(-(2**63), 2**63)  # numbers of 64 bits
_LONGEST = 32_767  # codes per patient


def is_format(value: object) -> bool:
    """Tell whether a file that says this of its format is one of ours."""
    return type(value) is str and value == FORMAT


def is_version(value: object) -> bool:
    """Tell whether a file that says this of its version is one of this release."""
    return type(value) is int and value == VERSION


@dataclass(frozen=True)
class DatasetInfo:
    """What a dataset says of itself besides its columns.

    Attributes:
        split: ``train``, ``val`` or ``all``.
        max_length: most tokens per patient.
        age_unit: unit of the ages.
        masking: how codes are masked in pretraining; None for a dataset that is not for it.
        vocabulary: the codes; both splits share it.
        static_columns: sex, state and others that were declared.
        novel_codes: tokens of the codes that the generator made.
        input_fingerprint: digest of the file of patients.
        split_seed, train_ratio: with a patient's id they decide its split, unless ``split_from`` says otherwise.
        min_cell: counts of patients below it are hidden in reports; None for patients that our generator made.
    """

    split: str
    max_length: int
    age_unit: AgeUnit
    masking: Masking | None
    vocabulary: CodeVocabulary
    novel_codes: tuple[str, ...]
    input_fingerprint: str
    split_seed: int
    train_ratio: float
    static_columns: tuple[StaticColumn, ...] = BUILT_IN
    split_from: Literal["hash", "input"] = "hash"
    min_cell: int | None = None

    @property
    def split_rule(self) -> SplitRule:
        """Which patients are in the training split."""
        return FROM_INPUT if self.split_from == "input" else SplitRule(self.split_seed, self.train_ratio)

    def cells(self, min_cell: int | None = None) -> MinCell:
        """Return which counts of these patients reports hide; ``min_cell`` is what the user asks for.

        A file that does not say it is one of generated patients or of an earlier release: the novel codes tell.
        """
        limits = (min_cell, self.min_cell, 0 if self.novel_codes else DEFAULT_LIMIT)
        return MinCell(next(limit for limit in limits if limit is not None))

    @property
    def generated(self) -> bool:
        """Whether it is known that our generator made the patients: the novel codes tell, as in `cells`."""
        return self.min_cell is None and bool(self.novel_codes)

    @property
    def needed_masking(self) -> Masking:
        """How codes are masked; a ValueError where the dataset is not for masked-code prediction."""
        if self.masking is None:
            raise ValueError("this dataset is not for masked-code prediction")
        return self.masking

    def to_dict(self) -> dict[str, Any]:
        """Return what a file or a manifest holds, as strings, numbers and dicts of these."""
        return {
            "split": self.split,
            "max_length": self.max_length,
            "age_unit": self.age_unit,
            "masking": None if self.masking is None else self.masking.to_dict(),
            "vocabulary": self.vocabulary.to_json(),
            "static_columns": json.dumps([column.to_dict() for column in self.static_columns]),
            "novel_codes": json.dumps(list(self.novel_codes)),
            "input_fingerprint": self.input_fingerprint,
            "split_seed": self.split_seed,
            "train_ratio": self.train_ratio,
            **({} if self.split_from == "hash" else {"split_from": self.split_from}),
            **({} if self.min_cell is None else {"min_cell": self.min_cell}),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "DatasetInfo":
        """Return what `to_dict` wrote.

        Raises:
            KeyError, TypeError, ValueError: something is missing, or is no such thing.
        """
        static_columns = tuple(map(StaticColumn.from_dict, _list_of(dict, content, "static_columns")))
        if len({column.name for column in static_columns}) < len(static_columns):
            raise ValueError("static_columns: a name stands there twice")
        vocabulary = CodeVocabulary.from_json(_checked(content, "vocabulary", str))
        vocabulary.entity_systems  # noqa: B018  # refuses a code system that nobody has registered
        return cls(
            split=_checked(content, "split", str, ("train", "val", "all").__contains__),
            max_length=_checked(content, "max_length", int, range(1, _LONGEST + 1).__contains__),
            age_unit=_checked(content, "age_unit", str, ("years", "months").__contains__),
            masking=None if content["masking"] is None else Masking.from_dict(content["masking"]),
            vocabulary=vocabulary,
            static_columns=static_columns,
            novel_codes=tuple(_list_of(str, content, "novel_codes")),
            input_fingerprint=_checked(content, "input_fingerprint", str),
            split_seed=_checked(content, "split_seed", int, _WHOLE.__contains__),
            train_ratio=_checked(content, "train_ratio", float, lambda ratio: 0 <= ratio <= 1),
            split_from=_checked({"split_from": "hash", **content}, "split_from", str, ("hash", "input").__contains__),
            min_cell=None
            if content.get("min_cell") is None
            else _checked(content, "min_cell", int, _WHOLE.__contains__),
        )

    @property
    def age_vocabulary_size(self) -> int:
        """Number of age ids."""
        return age_vocabulary_size(self.age_unit)


def _checked(
    content: Mapping[str, Any], name: str, kind: type, fits: Callable[[Any], bool] = lambda value: True
) -> Any:
    """Return what stands under a name; a ValueError where it is of another kind, or does not fit."""
    value = content[name]
    if type(value) is not kind or not fits(value):
        raise ValueError(f"{name}: {shown(value)} is none")
    return value


def _list_of(kind: type, content: Mapping[str, Any], name: str) -> list[Any]:
    """Return a list that stands under a name as JSON; a ValueError where it is none of such values."""
    values = json.loads(_checked(content, name, str))
    if type(values) is not list or any(type(value) is not kind for value in values):
        raise ValueError(f"{name}: expected a list")
    return values
