"""Index dates, the prediction times of an endpoint, and what is known before and after them, for many patients at once.

An index date must not depend on the outcome, so neither visits nor observation count what is of the endpoint
(`observation`). Where the censored are excluded, only a visit that has the whole horizon of observation after it can be
one.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

import numpy as np

from exmed_bert.cohorts.observation import NEVER, Observation
from exmed_bert.console import OptionError
from exmed_bert.data.patient import EPOCH, NO_DAY, EventColumns, day_number
from exmed_bert.data.randomness import mix

Kind = Literal["last-visit-before", "first-visit", "random", "fixed", "last-visit"]

_RANDOM_STREAM = 3
_WITHOUT_DAY: tuple[Kind, ...] = ("last-visit-before", "first-visit", "random", "last-visit")


@dataclass(frozen=True)
class IndexRule:
    """How the index date is chosen.

    Attributes:
        kind: ``last-visit-before`` (the last visit with the horizon of observation after it), ``first-visit`` (the
            first of these), ``random`` (any of these, by a hash of seed, patient and day), ``fixed`` (one day for
            all), or ``last-visit`` (to predict unknown outcomes).
        horizon: days of observation after it that the first three need.
        seed: of random index dates.
        day: of a fixed date, since 1970-01-01.
        before: days of observation before it that all need.
        after: days of observation after it that ``first-visit`` and ``random`` need; None: the horizon.
    """

    kind: Kind
    horizon: int = 0
    seed: int = 0
    day: int = 0
    before: int = 0
    after: int | None = None

    @classmethod
    def parse(cls, text: str, horizon: int, seed: int, before: int = 0, after: int | None = None) -> "IndexRule":
        """Read what --index-date takes; the other arguments are as in the attributes.

        >>> rule = IndexRule.parse("fixed:1970-01-31", 365, 42)
        >>> rule.day, str(rule)
        (30, 'fixed:1970-01-31')

        Raises:
            OptionError: it is no such rule.
        """
        for kind in _WITHOUT_DAY:
            if text == kind:
                return cls(kind, horizon, seed, before=before, after=after)
        if text.startswith("fixed:"):
            try:
                day = day_number(date.fromisoformat(text.removeprefix("fixed:")))
                return cls("fixed", horizon, seed, day, before, after)
            except ValueError:
                pass
        raise OptionError(f"--index-date: {text!r}, expected {', '.join(_WITHOUT_DAY)} or fixed:YYYY-MM-DD")

    def __str__(self) -> str:
        return f"fixed:{EPOCH + timedelta(days=self.day)}" if self.kind == "fixed" else self.kind

    @property
    def no_date(self) -> str:
        """Why a patient has no index date."""
        parts = [f"{self.before} days of observation before it"] if self.before else []
        if self.needs_horizon:
            parts.append("the horizon of follow-up after it")
        elif self.after:
            parts.append(f"{self.after} day{'s' if self.after > 1 else ''} of follow-up after it")
        return f"no visit with {' and '.join(parts)}" if parts else "no visit while observed"

    @property
    def needs_horizon(self) -> bool:
        """Whether every index date has the whole horizon of observation after it, so that none is censored."""
        return self.kind == "last-visit-before" or (self.after is None and self.kind in ("first-visit", "random"))

    def days(self, visits: EventColumns, hashes: np.ndarray, observed: Observation) -> np.ndarray:
        """Return the index date of each patient, (N,) int64; `NEVER` where no visit can be one.

        Args:
            visits: events of N patients whose days can be index dates, `observation.counting_events`.
            hashes: (N,) int64, `randomness.hash_patient_ids` of their ids.
            observed: their observation.
        """
        n = len(hashes)
        if self.kind == "fixed":
            return np.full(n, self.day, dtype=np.int64)
        if self.kind == "last-visit":
            last = visits.span()[1].astype(np.int64)
            return np.where(last == NO_DAY, NEVER, last)
        owner, day = visits.patients(), visits.days.astype(np.int64)
        after = self.horizon if self.needs_horizon or self.after is None else self.after
        can_be = (day <= observed.end[owner] - after) & (day >= observed.start[owner] + self.before)
        owner, day = owner[can_be], day[can_be]
        # Each patient's visit with the largest number is taken: the latest, the first, or one drawn at random.
        number = day
        if self.kind != "last-visit-before":
            number = -day if self.kind == "first-visit" else mix(self.seed, _RANDOM_STREAM, hashes[owner], day) >> 1
        order = np.lexsort((number.astype(np.int64), owner))
        chosen = np.full(n, NEVER, dtype=np.int64)
        chosen[owner[order]] = day[order]  # of several for one patient the last one stays
        return chosen


LAST_VISIT = IndexRule("last-visit")


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


def last_up_to(events: EventColumns, of_endpoint: np.ndarray, until: np.ndarray) -> np.ndarray:
    """Return the day of each patient's last event of an endpoint up to a day, (N,) int64, or -`NEVER`.

    Args:
        events: of N patients.
        of_endpoint: (table,) which of the codes belong to the endpoint.
        until: (N,) the day; events of that very day count.
    """
    owner = events.patients()
    counts = of_endpoint[events.codes] & (events.days <= until[owner]) if len(events.codes) else slice(0, 0)
    last = np.full(len(until), -NEVER, dtype=np.int64)
    np.maximum.at(last, owner[counts], events.days[counts])
    return last
