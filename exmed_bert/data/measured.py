"""Results of events that were measured: a value, and where it lies against the reference range of its laboratory."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FLAGS = ("L", "N", "H")  # below, within and above the reference range; a flag is the index of one
NO_FLAG = -1
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Measured:
    """What was measured at N events.

    Attributes:
        values: (N,) float32, NaN where there is none.
        flags: (N,) int8, the place in `FLAGS`, `NO_FLAG` where it is not known.
    """

    values: np.ndarray
    flags: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    def at(self, index: np.ndarray) -> "Measured":
        """Return the results of some events, by their numbers or by which they are, (N,) bool."""
        return Measured(self.values[index], self.flags[index])

    @property
    def any(self) -> bool:
        """Whether anything is known of any event."""
        return bool((~np.isnan(self.values)).any() or (self.flags != NO_FLAG).any())

    def shown(self, event: int) -> dict[str, float | str]:
        """Return what a record says of an event: its value as the shortest decimal of 32 bits, and its flag."""
        found: dict[str, float | str] = {}
        if not np.isnan(self.values[event]):
            found["value"] = shortest(self.values[event])
        if self.flags[event] != NO_FLAG:
            found["flag"] = FLAGS[self.flags[event]]
        return found


def nothing_measured(events: int) -> Measured:
    """Return the results of N events that have none."""
    return Measured(np.full(events, np.nan, np.float32), np.full(events, NO_FLAG, np.int8))


def results(values: Sequence[float | None], flags: Sequence[str | None]) -> Measured | None:
    """Return the results of events, None where nothing is known of any.

    >>> results([7.2, None], [None, "H"]).flags.tolist()
    [-1, 2]
    """
    numbers = np.array([np.nan if value is None else value for value in values], dtype=np.float32)
    places = np.array([NO_FLAG if flag is None else FLAGS.index(flag) for flag in flags], dtype=np.int8)
    found = Measured(numbers, places)
    return found if found.any else None


def shortest(value: np.float32) -> float:
    """Return the shortest decimal that is this number of 32 bits.

    >>> shortest(np.float32(7.2))
    7.2
    """
    return float(str(value))
