"""Static columns: what is said of a patient once, such as sex and state; each is declared here once.

A column is carried by its name through record, dataset, batch and model, where it has an embedding of its own.
Further columns are declared in config.yaml, under ``static_columns``.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from exmed_bert.console import InputError
from exmed_bert.data.vocabulary import SPECIAL_TOKENS, UNK

STATIC = "static_"  # what the name of a static column's ids begins with in datasets
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_MOST_GROUPS = 12  # values of a column that evaluations show as subgroups


@dataclass(frozen=True)
class StaticColumn:
    """One static column.

    Attributes:
        name: identifier: ``sex``. The model's input is ``sex_ids``, its embedding ``sex_embeddings``.
        field: of the record: ``patient_state`` for the column ``state``.
        values: what it can be, in capitals; anything else is unknown, the token UNK.
        spellings: other spellings of a value, in capitals.

    >>> SEX.ids(["female", "M", None, "x"]).tolist(), SEX.tokens[6:], SEX.value(6), SEX.value(UNK)
    ([6, 7, 1, 1], ('FEMALE', 'MALE'), 'FEMALE', None)
    >>> [STATE.value(token) for token in STATE.ids(["Massachusetts", "MA", "Bavaria"])]
    ['MA', 'MA', None]
    """

    name: str
    field: str
    values: tuple[str, ...]
    spellings: Mapping[str, str] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    @property
    def tokens(self) -> tuple[str, ...]:
        """The vocabulary: special tokens and values, in the order of their ids."""
        return (*SPECIAL_TOKENS, *self.values)

    @property
    def divides_groups(self) -> bool:
        """Whether the values are few enough for subgroups in an evaluation."""
        return len(self.values) <= _MOST_GROUPS

    def ids(self, values: Sequence[str | None]) -> np.ndarray:
        """Return the id of each value, (N,) uint8 or uint16; UNK where it is none of the column's.

        Case and surrounding blanks do not matter. Each distinct value is looked up once.
        """
        ids = {value: self._id(value) for value in set(values)}
        kind = np.uint8 if len(self.tokens) <= 2**8 else np.uint16
        return np.fromiter(map(ids.__getitem__, values), dtype=kind, count=len(values))

    def value(self, token: int) -> str | None:
        """Return the value behind an id, None for UNK and other special tokens."""
        return None if token < len(SPECIAL_TOKENS) else self.tokens[token]

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` takes, as plain values."""
        return {"name": self.name, "field": self.field, "values": list(self.values)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "StaticColumn":
        """Return the column that a file declares, one of ours where it is the same.

        Raises:
            KeyError, TypeError, ValueError: something is missing, or is no such thing.
        """
        column = cls(content["name"], content["field"], tuple(content["values"]))
        texts = (column.name, column.field, *column.values)
        if any(type(text) is not str for text in texts) or not is_name(column.name):
            raise ValueError(f"static column {column.name!r}: expected name, field and values as text")
        if len(set(column.tokens)) < len(column.tokens):
            raise ValueError(f"static column {column.name!r}: a value stands there twice")
        return next((known for known in BUILT_IN if known == column), column)

    @cached_property
    def _ids(self) -> dict[str, int]:
        ids = {value: len(SPECIAL_TOKENS) + i for i, value in enumerate(self.values)}
        return ids | {spelling: ids[value] for spelling, value in self.spellings.items()}

    def _id(self, value: str | None) -> int:
        return UNK if value is None else self._ids.get(value.strip().upper(), UNK)


SEX = StaticColumn("sex", "sex", ("FEMALE", "MALE"), {"F": "FEMALE", "W": "FEMALE", "M": "MALE"})
_STATES = {  # 50 states, the District of Columbia and five territories (USPS), and their names
    "AL": "Alabama", "AK": "Alaska", "AZ": "Arizona", "AR": "Arkansas", "CA": "California", "CO": "Colorado",
    "CT": "Connecticut", "DE": "Delaware", "DC": "District of Columbia", "FL": "Florida", "GA": "Georgia",
    "HI": "Hawaii", "ID": "Idaho", "IL": "Illinois", "IN": "Indiana", "IA": "Iowa", "KS": "Kansas", "KY": "Kentucky",
    "LA": "Louisiana", "ME": "Maine", "MD": "Maryland", "MA": "Massachusetts", "MI": "Michigan", "MN": "Minnesota",
    "MS": "Mississippi", "MO": "Missouri", "MT": "Montana", "NE": "Nebraska", "NV": "Nevada", "NH": "New Hampshire",
    "NJ": "New Jersey", "NM": "New Mexico", "NY": "New York", "NC": "North Carolina", "ND": "North Dakota",
    "OH": "Ohio", "OK": "Oklahoma", "OR": "Oregon", "PA": "Pennsylvania", "RI": "Rhode Island",
    "SC": "South Carolina", "SD": "South Dakota", "TN": "Tennessee", "TX": "Texas", "UT": "Utah", "VT": "Vermont",
    "VA": "Virginia", "WA": "Washington", "WV": "West Virginia", "WI": "Wisconsin", "WY": "Wyoming",
    "AS": "American Samoa", "GU": "Guam", "MP": "Northern Mariana Islands", "PR": "Puerto Rico",
    "VI": "Virgin Islands",
}  # fmt: skip
STATE = StaticColumn(
    "state",
    "patient_state",
    tuple(_STATES),
    {name.upper(): state for state, name in _STATES.items()} | {"U.S. VIRGIN ISLANDS": "VI"},
)
BUILT_IN = (SEX, STATE)  # the original model's

_RESERVED = {"input", "entity", "age", "visit", "position", "code"}  # the model's other inputs


def is_name(text: str) -> bool:
    """Tell whether a static column can be called so."""
    return _NAME.fullmatch(text) is not None


def declared(further: Mapping[str, Sequence[str]]) -> tuple[StaticColumn, ...]:
    """Return sex, state, and the columns that config.yaml declares; a further column's field has its name.

    >>> [column.name for column in declared({"insurance": ["public", "private"]})]
    ['sex', 'state', 'insurance']

    Raises:
        InputError: a name is taken or no identifier, or a column has no values or one of them twice.
    """
    columns = list(BUILT_IN)
    for name, values in further.items():
        where = f"config.yaml: static_columns.{name}"
        if not is_name(name):
            raise InputError(f"{where}: expected a name of lower-case letters, digits and _")
        if name in _RESERVED or any(name in (column.name, column.field) for column in columns):
            raise InputError(f"{where}: the name is taken, expected another one")
        spelled = tuple(str(value).strip().upper() for value in values)
        if not spelled or len(set(spelled)) < len(spelled) or "" in spelled or set(spelled) & set(SPECIAL_TOKENS):
            raise InputError(
                f"{where}: {list(values)}, expected distinct values, none of them {', '.join(SPECIAL_TOKENS)}"
            )
        columns.append(StaticColumn(name, name, spelled))
    return tuple(columns)
