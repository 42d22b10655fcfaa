"""Vocabularies: which integer stands for which code, entity and age. Ids 0-5 are the same special tokens in all."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from exmed_bert.codes import CodeKey, CodeSystem, code_system

SPECIAL_TOKENS = ("PAD", "UNK", "CLS", "SEP", "MASK", "NA")
PAD, UNK, CLS, SEP, MASK, NA = range(6)

# Entity types: the original's three keep their numbers, whether or not they are in use; the special tokens are the
# default entity. Other code systems follow as they are used.
DEFAULT_ENTITY = "default"
ORIGINAL_ENTITIES = (DEFAULT_ENTITY, "atc", "icd")

MOST_CUTS = 98  # one less than the bins that a code can name
AgeUnit = Literal["years", "months"]
MAX_AGE_YEARS = 110


def age_vocabulary_size(unit: AgeUnit) -> int:
    """Return the number of age ids: special tokens and 0 to 110 years."""
    return len(SPECIAL_TOKENS) + MAX_AGE_YEARS * (1 if unit == "years" else 12) + 1


@dataclass(frozen=True)
class CodeVocabulary:
    """The codes a model knows, in the order of their ids: special tokens, then system by system.

    Attributes:
        tokens: a unique name for each id, `CodeSystem.token` of its code.
        entities: (V,) uint8, the entity type of each id, an index into ``entity_names``.
        entity_names: the original's three, then those of further code systems in the order of their first id.
        cuts: by code of a measurement, the cut points of its values (`value_coding`).
    """

    tokens: tuple[str, ...]
    entities: np.ndarray
    entity_names: tuple[str, ...] = ORIGINAL_ENTITIES
    cuts: Mapping[CodeKey, tuple[float, ...]] = field(default_factory=dict)

    @classmethod
    def build(cls, keys: Iterable[CodeKey]) -> "CodeVocabulary":
        """Make the vocabulary of the given distinct codes: ATC, ICD-10-CM, other systems by name, each in order."""
        return cls.of_tokens(()).extended(in_order(keys))

    def extended(self, keys: Iterable[CodeKey]) -> "CodeVocabulary":
        """Return this vocabulary with further codes at its end, in the given order."""
        old = [(token, self.entity_names[e]) for token, e in zip(self.tokens, self.entities.tolist(), strict=True)]
        new = [(code_system(system).token(code), code_system(system).entity) for system, code in keys]
        return self.of_tokens([*old[len(SPECIAL_TOKENS) :], *new]).with_cuts(self.cuts)

    def with_cuts(self, cuts: Mapping[CodeKey, tuple[float, ...]]) -> "CodeVocabulary":
        """Return the vocabulary with those cut points that any of its codes is made by."""
        bare = set(self.binned.values()) if cuts else set()
        return replace(self, cuts={key: points for key, points in cuts.items() if key in bare})

    @cached_property
    def binned(self) -> dict[int, CodeKey]:
        """By the id of a code that says what a value is, the code of the measurement."""
        parted = [(i, key[0], code_system(key[0]).parts(key[1])) for i, key in enumerate(self.keys) if key is not None]
        return {i: (system, code) for i, system, (code, value) in parted if value}

    @classmethod
    def of_tokens(cls, tokens: Sequence[tuple[str, str]]) -> "CodeVocabulary":
        """Return the vocabulary of special tokens and then the given (token, entity), in the order of their ids."""
        names = list(dict.fromkeys((*ORIGINAL_ENTITIES, *(entity for _, entity in tokens))))
        number = {name: i for i, name in enumerate(names)}
        entities = [0] * len(SPECIAL_TOKENS) + [number[entity] for _, entity in tokens]
        return cls((*SPECIAL_TOKENS, *(token for token, _ in tokens)), np.array(entities, dtype=np.uint8), tuple(names))

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def ids(self) -> dict[str, int]:
        """Token to id."""
        return {name: i for i, name in enumerate(self.tokens)}

    @cached_property
    def keys(self) -> list[CodeKey | None]:
        """(code system, code) of each id, None for special tokens."""
        systems = [self.entity_systems[entity] for entity in self.entities.tolist()]
        return [
            None if system is None else (system.name, system.code_of(token))
            for system, token in zip(systems, self.tokens, strict=True)
        ]

    def code(self, token: int) -> str:
        """Return the code behind an id, without the system that its token may name; a special token is itself."""
        key = self.keys[token]
        return self.tokens[token] if key is None else key[1]

    @cached_property
    def entity_systems(self) -> list[CodeSystem | None]:
        """The code system of each entity type, None for the default entity."""
        return [None if name == DEFAULT_ENTITY else code_system(name) for name in self.entity_names]

    @cached_property
    def entities_by_events(self) -> dict[str, np.ndarray]:
        """By what events are called, such as drugs, the entity types of which they are; in alphabetical order."""
        found: dict[str, list[int]] = {}
        for entity, system in enumerate(self.entity_systems):
            if system is not None:
                found.setdefault(system.events, []).append(entity)
        return {events: np.array(found[events]) for events in sorted(found)}

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return ``{token: {"id": n, "entity": "icd"}}``, the content of vocab.json; bins of values have ``cuts``."""
        content: dict[str, dict[str, Any]] = {
            name: {"id": i, "entity": self.entity_names[entity]}
            for i, (name, entity) in enumerate(zip(self.tokens, self.entities.tolist(), strict=True))
        }
        for i, key in self.binned.items() if self.cuts else ():
            if key in self.cuts:
                content[self.tokens[i]]["cuts"] = list(self.cuts[key])
        return content

    def to_json(self) -> str:
        """Return the vocabulary as one string: a dataset opens in the same time whatever its vocabulary."""
        content: list[Any] = [list(self.tokens), self.entities.tolist(), list(self.entity_names)]
        if self.cuts:
            content.append([[system, code, list(points)] for (system, code), points in self.cuts.items()])
        return json.dumps(content)

    @classmethod
    def from_json(cls, text: str) -> "CodeVocabulary":
        """Read what `to_json` wrote.

        Raises:
            TypeError, ValueError: it is something else.
        """
        tokens, entities, names, *further = json.loads(text)
        if any(set(map(type, texts)) != {str} or len(set(texts)) < len(texts) for texts in (tokens, names)):
            raise ValueError("vocabulary: expected distinct texts")
        special = len(SPECIAL_TOKENS)
        if tuple(tokens[:special]) != SPECIAL_TOKENS or tuple(names[: len(ORIGINAL_ENTITIES)]) != ORIGINAL_ENTITIES:
            raise ValueError(f"vocabulary: expected the ids 0 to {special - 1} to be {' '.join(SPECIAL_TOKENS)}")
        if set(map(type, entities)) != {int} or len(entities) != len(tokens):
            raise ValueError("vocabulary: expected an entity type for each token")
        if (
            any(entities[:special])
            or (len(tokens) > special and min(entities[special:]) < 1)
            or max(entities) >= len(names)
        ):
            raise ValueError(f"vocabulary: an entity type is none of {', '.join(names)}")
        cuts = (
            {(str(system), str(code)): checked_cuts(points) for system, code, points in further[0]} if further else {}
        )
        return cls(tuple(tokens), np.array(entities, dtype=np.uint8), tuple(names), cuts)


def checked_cuts(points: Any) -> tuple[float, ...]:
    """Return cut points of values that stand in a file; a ValueError where they are none."""
    if type(points) is not list or not points or len(points) > MOST_CUTS:
        raise ValueError("vocabulary: cuts: expected a list of numbers")
    if not all(type(point) is float and abs(point) < float("inf") for point in points):
        raise ValueError("vocabulary: cuts: expected numbers")
    if any(one >= other for one, other in pairwise(points)):
        raise ValueError("vocabulary: cuts: expected ascending numbers")
    return tuple(points)


def in_order(keys: Iterable[CodeKey]) -> list[CodeKey]:
    """Return codes in the order that a vocabulary gives them: ATC, ICD-10-CM, other systems by name, each in order.

    >>> in_order([("icd9cm", "250.00"), ("icd10cm", "I10"), ("atc", "C10AA05"), ("atc", "A10BA02")])
    [('atc', 'A10BA02'), ('atc', 'C10AA05'), ('icd10cm', 'I10'), ('icd9cm', '250.00')]
    """
    return sorted(keys, key=_place)


def _place(key: CodeKey) -> tuple[int, str, str]:
    """Return where a code comes in a vocabulary: those of the original's systems before all others."""
    system, code = key
    entity = code_system(system).entity
    known = ORIGINAL_ENTITIES.index(entity) if entity in ORIGINAL_ENTITIES else len(ORIGINAL_ENTITIES)
    return known, system, code
