"""Index dates, the prediction times of an endpoint, and what is known before and after them, for many patients at once.

An index date must not depend on the outcome. So only a visit that has the whole horizon of follow-up after it can be
one; follow-up ends with the last event.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

import numpy as np

from exmed_bert.console import OptionError
from exmed_bert.data.patient import EPOCH, EventColumns, PatientColumns, day_number
from exmed_bert.data.randomness import mix

Kind = Literal["last-visit-before", "random", "fixed", "last-visit"]

NEVER = int(np.iinfo(np.int32).max)  # the day of what does not happen
_RANDOM_STREAM = 3
_WITHOUT_DAY: tuple[Kind, ...] = ("last-visit-before", "random", "last-visit")


@dataclass(frozen=True)
class IndexRule:
    """How the index date is chosen.

    Attributes:
        kind: ``last-visit-before`` (the last visit with the horizon of follow-up after it), ``random`` (any of these,
            by a hash of seed, patient and day), ``fixed`` (one day for all), or ``last-visit`` (to predict unknown
            outcomes).
        horizon: days of follow-up that the first two need.
        seed: of random index dates.
        day: of a fixed date, since 1970-01-01.
    """

    kind: Kind
    horizon: int = 0
    seed: int = 0
    day: int = 0

    @classmethod
    def parse(cls, text: str, horizon: int, seed: int) -> "IndexRule":
        """Read what --index-date takes.

        >>> rule = IndexRule.parse("fixed:1970-01-31", 365, 42)
        >>> rule.day, str(rule)
        (30, 'fixed:1970-01-31')

        Raises:
            OptionError: it is no such rule.
        """
        for kind in _WITHOUT_DAY:
            if text == kind:
                return cls(kind, horizon, seed)
        if text.startswith("fixed:"):
            try:
                day = day_number(date.fromisoformat(text.removeprefix("fixed:")))
                return cls("fixed", horizon, seed, day)
            except ValueError:
                pass
        raise OptionError(f"--index-date: {text!r}, expected last-visit-before, last-visit, random or fixed:YYYY-MM-DD")

    def __str__(self) -> str:
        return f"fixed:{EPOCH + timedelta(days=self.day)}" if self.kind == "fixed" else self.kind

    def days(self, patients: PatientColumns, hashes: np.ndarray) -> np.ndarray:
        """Return the index date of each patient, (N,) int64; `NEVER` where no visit can be one.

        Args:
            patients: N patients.
            hashes: (N,) int64, `randomness.hash_patient_ids` of their ids.
        """
        n = len(patients)
        if self.kind == "fixed":
            return np.full(n, self.day, dtype=np.int64)
        owner, day = patients.events.patients(), patients.events.days.astype(np.int64)
        last = last_days(patients)
        if self.kind == "last-visit":
            return np.where(last == -NEVER, NEVER, last)
        can_be = day <= last[owner] - self.horizon
        owner, day = owner[can_be], day[can_be]
        # Each patient's visit with the largest number is taken: the latest, or one drawn at random.
        number = day if self.kind == "last-visit-before" else (mix(self.seed, _RANDOM_STREAM, hashes[owner], day) >> 1)
        order = np.lexsort((number.astype(np.int64), owner))
        chosen = np.full(n, NEVER, dtype=np.int64)
        chosen[owner[order]] = day[order]  # of several for one patient the last one stays
        return chosen


LAST_VISIT = IndexRule("last-visit")


def last_days(patients: PatientColumns) -> np.ndarray:
    """Return the day of each patient's last event, (N,) int64; -`NEVER` for patients without events."""
    last = np.full(len(patients), -NEVER, dtype=np.int64)
    np.maximum.at(last, patients.events.patients(), patients.events.days)
    return last


def first_after(events: EventColumns, of_endpoint: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return the day of each patient's first event of an endpoint that is later than a day, (N,) int64, or `NEVER`.

    Args:
        events: of N patients.
        of_endpoint: (table,) which of the codes belong to the endpoint.
        after: (N,) the day; events of that very day do not count.
    """
    owner = events.patients()
    counts = of_endpoint[events.codes] & (events.days > after[owner]) if len(events.codes) else slice(0, 0)
    first = np.full(len(after), NEVER, dtype=np.int64)
    np.minimum.at(first, owner[counts], events.days[counts])
    return first
