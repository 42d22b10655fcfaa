"""Groups of codes: the codes above those of a vocabulary, each of which occurs when any code below it does."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from exmed_bert.codes import ancestors
from exmed_bert.data.vocabulary import CodeVocabulary


@dataclass(frozen=True)
class CodeGroups:
    """A groups over a vocabulary of V codes.

    Attributes:
        names: of the groups, code system and code: ``icd10cm:N18``.
        members: (A,) of each group the ids of the codes in it.
        vocabulary_size: V.
    """

    names: tuple[str, ...]
    members: tuple[frozenset[int], ...]
    vocabulary_size: int

    @classmethod
    def of(cls, vocabulary: CodeVocabulary, names: Sequence[str] | None = None) -> "CodeGroups":
        """Return the groups of a vocabulary.

        Args:
            vocabulary: V codes.
            names: of the groups; None: of all codes that stand above two of the vocabulary's or more, or are one of
                them themselves, one for each set of codes.
        """
        below: dict[str, set[int]] = defaultdict(set)
        for token, key in enumerate(vocabulary.keys):
            if key is not None:
                system, code = key
                for above in (code, *ancestors(code, system)):
                    below[f"{system}:{above}"].add(token)
        if names is None:
            sets = {frozenset(below[name]): name for name in sorted(below, reverse=True) if len(below[name]) > 1}
            names = sorted(sets.values())
        return cls(tuple(names), tuple(frozenset(below.get(name, ())) for name in names), len(vocabulary))

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def of_codes(self) -> np.ndarray:
        """The places of the groups of each code, (V, D) int64, -1 beyond the last."""
        of_code: list[list[int]] = [[] for _ in range(self.vocabulary_size)]
        for place, codes in enumerate(self.members):
            for token in codes:
                of_code[token].append(place)
        table = np.full((len(of_code), max(map(len, of_code), default=0)), -1, dtype=np.int64)
        for token, places in enumerate(of_code):
            table[token, : len(places)] = places
        return table

    def cover(self, codes: Collection[int]) -> tuple[list[int], list[int]]:
        """Return codes and places of groups that stand for a set of codes, none of them twice.

        The largest groups that hold no other code come first, so that what occurs together is counted once.

        >>> groups = CodeGroups(("a", "b"), (frozenset({6, 7}), frozenset({6, 7, 8})), 10)
        >>> groups.cover([6, 7, 9]), groups.cover([8, 7, 6])
        (([9], [0]), ([], [1]))
        """
        left, wanted, chosen = set(codes), frozenset(codes), []
        for place in sorted(range(len(self)), key=lambda place: -len(self.members[place])):
            members = self.members[place]
            if members and members <= wanted and members & left:
                chosen.append(place)
                left -= members
        return sorted(left), sorted(chosen)
