"""Vocabularies: which integer stands for which code, age, sex and state. Ids 0-5 are the same special tokens in all."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from exmed_bert import codes

SPECIAL_TOKENS = ("PAD", "UNK", "CLS", "SEP", "MASK", "NA")
PAD, UNK, CLS, SEP, MASK, NA = range(6)

# Entity types, as the original numbers them; the special tokens are the default entity.
ENTITIES = ("default", "atc", "icd")
ENTITY_ID = {entity: i for i, entity in enumerate(ENTITIES)}

AgeUnit = Literal["years", "months"]
MAX_AGE_YEARS = 110

_SEXES = ("FEMALE", "MALE")
_SEX_SPELLINGS = {"F": "FEMALE", "W": "FEMALE", "M": "MALE"}
_STATES = (
    "AL AK AZ AR CA CO CT DE DC FL GA HI ID IL IN IA KS KY LA ME MD MA MI MN MS MO MT NE NV NH NJ NM NY NC ND OH OK OR "
    "PA RI SC SD TN TX UT VT VA WA WV WI WY AS GU MP PR VI"
)
SEX_TOKENS = SPECIAL_TOKENS + _SEXES
STATE_TOKENS = (*SPECIAL_TOKENS, *_STATES.split())  # 50 states, the District of Columbia and five territories (USPS)
_SEX_ID = {name: i for i, name in enumerate(SEX_TOKENS)} | {
    short: SEX_TOKENS.index(name) for short, name in _SEX_SPELLINGS.items()
}
_STATE_ID = {name: i for i, name in enumerate(STATE_TOKENS)}


def sex_id(sex: str | None) -> int:
    """Return the id of a sex; UNK when it is none of ours.

    >>> sex_id("female") == sex_id("F") == SEX_TOKENS.index("FEMALE"), sex_id(None) == sex_id("x") == UNK
    (True, True)
    """
    return _known(_SEX_ID, sex)


def state_id(state: str | None) -> int:
    """Return the id of a two-letter US state or territory; UNK when it is none."""
    return _known(_STATE_ID, state)


def _known(ids: dict[str, int], name: str | None) -> int:
    found = UNK if name is None else ids.get(name.strip().upper(), UNK)
    return found if found >= len(SPECIAL_TOKENS) else UNK


def age_ids(years: np.ndarray, months: np.ndarray, unit: AgeUnit) -> np.ndarray:
    """Return age ids for whole ages; ages over 110 years count as 110, ages before birth are UNK.

    Args:
        years: (n,) calendar year of the event minus birth year.
        months: (n,) month of the event, 0-11. Only the birth *year* is known, so a patient turns a year older each
            January and the months count from there.
        unit: which age is encoded.
    """
    age, limit = (years, MAX_AGE_YEARS) if unit == "years" else (years * 12 + months, MAX_AGE_YEARS * 12)
    return np.where(age < 0, UNK, np.minimum(age, limit) + len(SPECIAL_TOKENS))


def age_vocabulary_size(unit: AgeUnit) -> int:
    """Return the number of age ids: special tokens and 0 to 110 years."""
    return len(SPECIAL_TOKENS) + MAX_AGE_YEARS * (1 if unit == "years" else 12) + 1


def label(code: str, system: codes.CodeSystem) -> str:
    """Return the name of a code in the vocabulary, unlike that of any other code.

    A category of three characters is spelled alike in ICD-10-CM and ATC (``C10``), so ATC's carry their system.

    >>> label("C10", "icd"), label("C10", "atc"), label("C10AA05", "atc")
    ('C10', 'ATC:C10', 'C10AA05')
    """
    return f"ATC:{code}" if system == codes.ATC and len(code) == 3 else code


@dataclass(frozen=True)
class CodeVocabulary:
    """The codes a model knows, in the order of their ids: special tokens, ATC codes, ICD-10-CM codes.

    Attributes:
        tokens: a unique name for each id, `label` of its code.
        entities: (V,) uint8, the entity type of each id, an index into `ENTITIES`.
    """

    tokens: tuple[str, ...]
    entities: np.ndarray

    @classmethod
    def build(cls, atc: Sequence[str], icd: Sequence[str]) -> "CodeVocabulary":
        """Make the vocabulary of the given distinct codes, each system in alphabetical order."""
        tokens = (*SPECIAL_TOKENS, *(label(c, "atc") for c in sorted(atc)), *(label(c, "icd") for c in sorted(icd)))
        entities = np.repeat(np.arange(3, dtype=np.uint8), [len(SPECIAL_TOKENS), len(atc), len(icd)])
        return cls(tokens, entities)

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def ids(self) -> dict[str, int]:
        """Label to id."""
        return {name: i for i, name in enumerate(self.tokens)}

    def code(self, token: int) -> str:
        """Return the code behind an id, without the system that `label` may have added."""
        return self.tokens[token].removeprefix("ATC:")

    def systems(self) -> list[codes.CodeSystem | None]:
        """Return the code system of each id, None for special tokens."""
        return [None if entity == 0 else ENTITIES[entity] for entity in self.entities.tolist()]  # type: ignore[misc]

    def to_dict(self) -> dict[str, dict[str, int | str]]:
        """Return ``{code: {"id": n, "entity": "icd"}}``, the content of vocab.json."""
        return {
            name: {"id": i, "entity": ENTITIES[entity]}
            for i, (name, entity) in enumerate(zip(self.tokens, self.entities.tolist(), strict=True))
        }

    def to_json(self) -> str:
        """Return the vocabulary as one string: a dataset opens in the same time whatever its vocabulary."""
        return json.dumps([list(self.tokens), self.entities.tolist()])

    @classmethod
    def from_json(cls, text: str) -> "CodeVocabulary":
        """Read what `to_json` wrote."""
        tokens, entities = json.loads(text)
        return cls(tuple(tokens), np.array(entities, dtype=np.uint8))
