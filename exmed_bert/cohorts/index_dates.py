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

NEVER = int(np.iinfo(np.int32).max)  # the day of what does not happen
_RANDOM_STREAM = 3


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

    kind: Literal["last-visit-before", "random", "fixed", "last-visit"]
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
        if text in ("last-visit-before", "random", "last-visit"):
            return cls(text, horizon, seed)  # type: ignore[arg-type]
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
        owner, day = _events(patients)
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
    owner, day = _events(patients)
    last = np.full(len(patients), -NEVER, dtype=np.int64)
    np.maximum.at(last, owner, day)
    return last


def first_after(events: EventColumns, of_endpoint: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return the day of each patient's first event of an endpoint that is later than a day, (N,) int64, or `NEVER`.

    Args:
        events: of N patients.
        of_endpoint: (table,) which of the codes belong to the endpoint.
        after: (N,) the day; events of that very day do not count.
    """
    owner = np.repeat(np.arange(len(after)), events.counts())
    counts = of_endpoint[events.codes] & (events.days > after[owner]) if len(events.codes) else slice(0, 0)
    first = np.full(len(after), NEVER, dtype=np.int64)
    np.minimum.at(first, owner[counts], events.days[counts])
    return first


def take(patients: PatientColumns, rows: np.ndarray) -> PatientColumns:
    """Return the given patients in that order; one may come several times."""
    return PatientColumns(
        patient_ids=[patients.patient_ids[i] for i in rows.tolist()],
        birth_years=patients.birth_years[rows],
        sexes=[patients.sexes[i] for i in rows.tolist()],
        states=[patients.states[i] for i in rows.tolist()],
        plos=patients.plos[rows],
        diagnoses=_take_events(patients.diagnoses, rows),
        drugs=_take_events(patients.drugs, rows),
    )


def up_to(patients: PatientColumns, days: np.ndarray) -> PatientColumns:
    """Return the patients with what happened up to a day each, that day included: all that a prediction may see.

    Args:
        patients: N patients.
        days: (N,) since 1970-01-01.
    """
    return PatientColumns(
        patients.patient_ids,
        patients.birth_years,
        patients.sexes,
        patients.states,
        patients.plos,
        _events_up_to(patients.diagnoses, days),
        _events_up_to(patients.drugs, days),
    )


def _events(patients: PatientColumns) -> tuple[np.ndarray, np.ndarray]:
    """Return the patient and the day of every event, (events,) each."""
    n = np.arange(len(patients))
    kinds = (patients.diagnoses, patients.drugs)
    owners = [np.repeat(n, events.counts()) for events in kinds]
    return np.concatenate(owners), np.concatenate([events.days for events in kinds]).astype(np.int64)


def _take_events(events: EventColumns, rows: np.ndarray) -> EventColumns:
    counts = events.counts()[rows]
    offsets = np.concatenate(([0], np.cumsum(counts)))
    where = np.repeat(events.offsets[rows] - offsets[:-1], counts) + np.arange(offsets[-1])
    return EventColumns(events.codes[where], events.days[where], offsets, events.table)


def _events_up_to(events: EventColumns, days: np.ndarray) -> EventColumns:
    owner = np.repeat(np.arange(len(days)), events.counts())
    kept = events.days <= days[owner]
    counts = np.bincount(owner[kept], minlength=len(days))
    offsets = np.concatenate(([0], np.cumsum(counts)))
    return EventColumns(events.codes[kept], events.days[kept], offsets, events.table)
