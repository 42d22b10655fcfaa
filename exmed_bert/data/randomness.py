"""Random numbers that are a pure function of what they are for: who, where, which epoch.

A hash of a counter in place of a generator's state: the split of a patient and the masks of a batch are the same
whatever the batch, the process or the order, and all of it is computed for whole arrays.
"""

import hashlib
from collections.abc import Iterable

import numpy as np

from exmed_bert.data.patient import PatientId

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def hash_patient_ids(patient_ids: Iterable[PatientId]) -> np.ndarray:
    """Return a stable 64-bit key for each id, (N,) int64. The id 7 and the id "7" are the same patient."""
    digests = b"".join(hashlib.blake2b(str(i).encode(), digest_size=8).digest() for i in patient_ids)
    return np.frombuffer(digests, dtype="<i8")


def mix(*parts: np.ndarray | int) -> np.ndarray:
    """Hash integers and arrays of integers, broadcast against each other, to uint64.

    Each part is added to the state and passed through the finalizer of splitmix64 (Steele, Lea and Flood,
    "Fast splittable pseudorandom number generators", OOPSLA 2014).
    """
    state = np.zeros((), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for part in parts:
            state = _splitmix64(state + np.asarray(part).astype(np.uint64))
    return state


def uniform(*parts: np.ndarray | int) -> np.ndarray:
    """Return float64 numbers in [0, 1) that depend on ``parts`` alone."""
    return to_uniform(mix(*parts))


def to_uniform(bits: np.ndarray) -> np.ndarray:
    """Turn uint64 into float64 in [0, 1), from the upper 53 bits."""
    return (bits >> np.uint64(11)) * 2.0**-53


def _splitmix64(state: np.ndarray) -> np.ndarray:
    state = state + _GOLDEN
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
