"""Coded events of many patients as three flat arrays, and operations on them."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

_CODE_BITS, _DAY_BITS = 16, 24
_DAY_SHIFT = 1 << (_DAY_BITS - 1)  # days before 1970 are negative


@dataclass(frozen=True)
class Events:
    """E events; ``patients`` and ``codes`` are indices, ``days`` count from 1970-01-01, all (E,) int64."""

    patients: np.ndarray
    codes: np.ndarray
    days: np.ndarray

    def __len__(self) -> int:
        return len(self.patients)

    def __getitem__(self, which: np.ndarray) -> "Events":
        return Events(self.patients[which], self.codes[which], self.days[which])

    def per_patient(self, n: int) -> np.ndarray:
        """Return the number of events of each of n patients, (n,) int64."""
        return np.bincount(self.patients, minlength=n)


def merge(parts: Iterable[Events]) -> Events:
    """Return all events in order of patient, day and code, without duplicates within a visit."""
    key = np.concatenate(
        [(((part.patients << _DAY_BITS) + part.days + _DAY_SHIFT) << _CODE_BITS) + part.codes for part in parts]
    )
    key.sort()
    key = key[first_of_run(key)]
    visit = key >> _CODE_BITS
    return Events(visit >> _DAY_BITS, key & ((1 << _CODE_BITS) - 1), (visit & ((1 << _DAY_BITS) - 1)) - _DAY_SHIFT)


def among(rng: np.random.Generator, counts: np.ndarray) -> np.ndarray:
    """Return for each count one of 0 .. count - 1, evenly; 0 where the count is 0."""
    return np.minimum((rng.random(np.shape(counts)) * counts).astype(np.int64), np.maximum(counts - 1, 0))


def day_between(rng: np.random.Generator, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Return for each pair of days one day from first to last, evenly, both included."""
    return first + among(rng, last - first + 1)


def one_each(rng: np.random.Generator, patients: np.ndarray) -> np.ndarray:
    """Return the index of one random entry for each patient that ``patients`` holds, in order of patient."""
    order = np.argsort(patients + rng.random(len(patients)))  # by patient, then at random
    return order[first_of_run(patients[order])]


def first_of_run(values: np.ndarray) -> np.ndarray:
    """Return a bool array, true where a value differs from the one before.

    >>> first_of_run(np.array([4, 4, 7, 7, 7, 4])).tolist()
    [True, False, True, False, False, True]
    """
    first = np.ones(len(values), dtype=bool)
    first[1:] = values[1:] != values[:-1]
    return first
