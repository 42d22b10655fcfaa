"""From values to codes: a measurement becomes one whose code says in which quantile of the training patients it lies.

``4548-4`` with the value 8.1 is read as ``4548-4|Q5`` where 8.1 is above the last of four cut points, or as
``4548-4|H`` where reference ranges decide. Cut points are those of the training patients of a conversion; they travel
with the vocabulary, so that whatever reads patients for a model codes them as its training data were coded.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from exmed_bert.codes import CodeKey, code_system
from exmed_bert.codes.system import VALUE
from exmed_bert.data.measured import FLAGS
from exmed_bert.data.patient import EventColumns

Cuts = Mapping[CodeKey, tuple[float, ...]]
"""Ascending cut points of the values of a code, each the largest value of its bin."""
ValueCounts = Counter[tuple[str, str, float]]
"""How often a code, with its system, has a value."""

_DIGITS = 3  # of values: as many as laboratories report, so that counts of values stay small
LEAST = 100  # values of a code in training; of fewer, cut points would tell of single patients


@dataclass(frozen=True)
class ValueCoding:
    """What becomes of the values of measurements; without cut points and ranges their codes stay as they are.

    Attributes:
        cuts: cut points by code.
        by_range: whether the reference range decides, and no cut point.
    """

    cuts: Cuts = field(default_factory=dict)
    by_range: bool = False

    @classmethod
    def of(cls, cuts: Cuts, keys: Iterable[CodeKey | None]) -> "ValueCoding":
        """Return the coding of a vocabulary, by its cut points and its codes."""
        ends = tuple(f"{VALUE}{flag}" for flag in FLAGS)
        return cls(
            cuts, not cuts and any(key is not None and _is_measured(key) and key[1].endswith(ends) for key in keys)
        )

    def apply(self, events: EventColumns) -> EventColumns:
        """Return the events without values, codes of measurements with what their values are."""
        measured, table = events.measured, events.table
        if measured is None:
            return events
        if not (self.cuts or self.by_range):
            return replace(events, measured=None)
        level = np.zeros(len(events.codes), dtype=np.int64)  # 0: the code stays as it is
        names = [f"{VALUE}{flag}" for flag in FLAGS]
        if self.by_range:
            own = np.array([_is_measured(key) for key in table], dtype=bool)[events.codes]
            level[own] = measured.flags[own].astype(np.int64) + 1
        else:
            names = [f"{VALUE}Q{i + 1}" for i in range(max(map(len, self.cuts.values())) + 1)]
            with_value = np.flatnonzero(~np.isnan(measured.values))
            values = rounded(measured.values[with_value])
            by_code = np.argsort(events.codes[with_value], kind="stable")
            ends = np.cumsum(np.bincount(events.codes[with_value], minlength=len(table)))
            for code, (key, end) in enumerate(zip(table, ends.tolist(), strict=True)):
                start = int(ends[code - 1]) if code else 0
                if start < end and key in self.cuts:
                    of_code = by_code[start:end]
                    level[with_value[of_code]] = np.searchsorted(self.cuts[key], values[of_code]) + 1
        width = len(names) + 1
        pairs = events.codes * np.int64(width) + level
        used = np.flatnonzero(np.bincount(pairs, minlength=len(table) * width))
        place = np.zeros(len(table) * width, dtype=np.int32)
        place[used] = np.arange(len(used))
        suffixes = ["", *names]
        new = [(table[pair // width][0], table[pair // width][1] + suffixes[pair % width]) for pair in used.tolist()]
        return replace(events, codes=place[pairs], table=new, measured=None)


def _is_measured(key: CodeKey) -> bool:
    return code_system(key[0]).measured


def rounded(values: np.ndarray) -> np.ndarray:
    """Return values of 32 bits rounded to three digits, float64.

    >>> rounded(np.array([0.07123, 7.2, 1234, -5, 0], dtype=np.float32)).tolist()
    [0.0712, 7.2, 1230.0, -5.0, 0.0]
    """
    values = values.astype(np.float64)
    size = np.where(values == 0, 1, np.abs(values))
    digits = np.clip(_DIGITS - 1 - np.floor(np.log10(size)).astype(np.int64), -38, 45)  # the range of 32 bits
    scale = 10.0 ** np.abs(digits)
    return np.where(digits >= 0, np.rint(values * scale) / scale, np.rint(values / scale) * scale)


def value_counts(events: EventColumns, chosen: np.ndarray) -> ValueCounts:
    """Count the values of measurements.

    Args:
        events: of N patients.
        chosen: whose values count, (N,) bool.
    """
    measured = events.measured
    if measured is None:
        return Counter()
    own = np.array([_is_measured(key) for key in events.table], dtype=bool)
    counted = np.flatnonzero(own[events.codes] & chosen[events.patients()] & np.isfinite(measured.values))
    values, of_value = np.unique(rounded(measured.values[counted]), return_inverse=True)
    pairs = events.codes[counted] * np.int64(max(len(values), 1)) + of_value
    found, counts = np.unique(pairs, return_counts=True)
    known: ValueCounts = Counter()
    for pair, count in zip(found.tolist(), counts.tolist(), strict=True):
        code, value = divmod(pair, len(values))
        known[(*events.table[code], float(values[value]))] += count
    return known


def cut_points(counts: ValueCounts, bins: int) -> dict[CodeKey, tuple[float, ...]]:
    """Return the cut points of each code that has values enough; no bin is empty.

    Args:
        counts: of the training patients.
        bins: as many as possible have each the same share of the values.

    >>> cut_points(Counter({("loinc", "4548-4", 5.0 + i / 10): 10 for i in range(20)}), 4)
    {('loinc', '4548-4'): (5.4, 5.9, 6.4)}
    >>> cut_points(Counter({("loinc", "4548-4", 5.0): 1000, ("loinc", "718-7", 13.5): 10}), 4)
    {}
    """
    by_code: dict[CodeKey, list[tuple[float, int]]] = defaultdict(list)
    for (system, code, value), count in counts.items():
        by_code[system, code].append((value, count))
    found: dict[CodeKey, tuple[float, ...]] = {}
    for key, pairs in sorted(by_code.items()):
        values, numbers = map(np.array, zip(*sorted(pairs), strict=True))
        below = np.cumsum(numbers)
        if below[-1] < LEAST:
            continue
        at = np.unique(np.searchsorted(below * bins, below[-1] * np.arange(1, bins)))
        cuts = tuple(values[at[at < len(values) - 1]].tolist())
        if cuts:
            found[key] = cuts
    return found
