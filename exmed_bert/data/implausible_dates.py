"""Days that cannot be: events on them are dropped or marked, and they begin and end no observation.

A stage between the readers and everything else, the same for all formats.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, timedelta

import numpy as np

from exmed_bert.data.patient import BIRTH_DATE, EPOCH, NO_DAY, EventColumns, PatientColumns, day_number
from exmed_bert.data.readers.summary import IMPLAUSIBLE_AGE, ReadingSummary
from exmed_bert.settings import ReadingSettings

OLDEST = 120  # years at the first event; nobody has been much older
SHIFTED = "Patients all of whose events are after today have shifted dates, as MIMIC's are: today does not bound them."
PLACEHOLDER, BEFORE_BIRTH, AFTER_TODAY = "on a placeholder day", "before the year of birth", "after today"

_FIRST = day_number(date(1900, 1, 2))  # earlier days stand for unknown ones
_UNIX = 0  # 1970-01-01, a placeholder unless the patient's record goes back so far
_YEAR = 365
_LAST = day_number(date(9999, 12, 31))
_EVER = int(np.iinfo(np.int32).max)


@dataclass(frozen=True)
class _Bound:
    """The last day that events can have, and what it is."""

    day: int
    what: str

    def __str__(self) -> str:
        return f"after {self.what}, {EPOCH + timedelta(self.day)}"


class DateCheck:
    """Looks at the days of patients, chunk after chunk; what becomes of a patient depends on that patient alone."""

    def __init__(self, settings: ReadingSettings, today: date, generated_until: Callable[[], date | None]) -> None:
        """Set the limits.

        Args:
            settings: of the reading.
            today: no event is later, unless the settings name the end of the extract.
            generated_until: returns the last day of generated patients, None for others; called once, if at all.
        """
        self._settings = settings
        self._placeholders = {_LAST, *(day_number(day) for day in settings.placeholder_days)}
        self._after_death = f"more than {settings.days_after_death} days after death"
        self._generated_until: Callable[[], date | None] | None = generated_until
        self._bound = _Bound(day_number(today), "today")
        if settings.extract_end is not None:
            self._bound, self._generated_until = _Bound(day_number(settings.extract_end), "the extract's end"), None

    def apply(self, patients: PatientColumns, summary: ReadingSummary) -> PatientColumns:
        """Return the patients whose age can be, with the events whose day can be; the same object where all can.

        Args:
            patients: N patients as they are read.
            summary: takes the counts.
        """
        first, last = patients.events.span()
        born = _first_days(patients.birth_years)
        end = self._ends(patients, first, last, born, summary)
        patients = self._with_known_periods(patients, born, end, summary)
        death = patients.periods.get("death_date")
        limit = None if death is None else np.where(death == NO_DAY, _EVER, death.astype(np.int64) + self._grace)
        cannot_be = (first < np.maximum(born, _FIRST)) | (last > (end if limit is None else np.minimum(end, limit)))
        if (cannot_be & (last != NO_DAY)).any() or self._any_placeholder(patients.events.days, first):
            patients = self._without_doubtful(patients, born, end, limit, summary)
            first = _first_plausible(patients.events)
        return self._of_plausible_age(patients, first, summary)

    @property
    def _grace(self) -> int:
        return self._settings.days_after_death

    def _ends(
        self, patients: PatientColumns, first: np.ndarray, last: np.ndarray, born: np.ndarray, summary: ReadingSummary
    ) -> np.ndarray:
        """Return the last day that events of each patient can have, (N,) int64 or a scalar array."""
        latest = max((int(days.max()) for days in (last, *patients.periods.values()) if len(days)), default=NO_DAY)
        if latest > self._bound.day and self._generated_until is not None:
            until, self._generated_until = self._generated_until(), None
            if until is not None:
                self._bound = _Bound(day_number(until), "the end of the generated data")
        end = np.array(self._bound.day, dtype=np.int64)
        if self._bound.what != "today" or not (last > end).any():
            return end
        if (first <= end).any():  # among them may be fillers
            owner, days = patients.events.patients(), patients.events.days
            real = ~self._is_placeholder(owner, days) & (days >= born[owner])
            first = np.full(len(patients), _EVER, dtype=np.int32)
            np.minimum.at(first, owner[real], days[real])
        shifted = (first > end) & (first != _EVER) & (_years(first) - patients.birth_years <= OLDEST)
        if shifted.any() and SHIFTED not in summary.notes:
            summary.notes.append(SHIFTED)
        return np.where(shifted, _LAST - 1, end)

    def _any_placeholder(self, days: np.ndarray, first: np.ndarray) -> bool:
        """Return whether an event lies on one of the placeholder days within the range of plausible ones."""
        within = self._placeholders - {_LAST}  # which is later than any last day
        if len(first) and first.min() <= _UNIX:
            within.add(_UNIX)
        return any(bool((days == day).any()) for day in within)

    def _is_placeholder(self, owner: np.ndarray, days: np.ndarray) -> np.ndarray:
        """Return which days of events stand for unknown ones, (events,) bool."""
        found = days < _FIRST
        for day in self._placeholders:
            found |= days == day
        at_epoch = days == _UNIX
        if at_epoch.any():
            early = ~found & ~at_epoch & (days < _UNIX + _YEAR)
            found |= at_epoch & ~np.isin(owner, owner[early])
        return found

    def _with_known_periods(
        self, patients: PatientColumns, born: np.ndarray, end: np.ndarray, summary: ReadingSummary
    ) -> PatientColumns:
        """Return the patients with those days of observation, death and birth that can be; others are unknown."""
        if not patients.periods:
            return patients
        periods = {name: days.astype(np.int64) for name, days in patients.periods.items()}
        wrong: dict[str, np.ndarray] = {}
        for name, days in periods.items():
            known = days != NO_DAY
            if name == "observation_end" and self._settings.extract_end is not None:
                days = np.where(known, np.minimum(days, end), days)  # open or planned: the data end earlier
            elif name == "observation_start":
                days = np.where(known & (days >= _FIRST), np.maximum(days, born), days)
            if name == BIRTH_DATE:
                wrong[name] = known & (_years(days) != patients.birth_years)
            else:
                placeholder = (days < _FIRST) | np.isin(days, [_UNIX, *self._placeholders])
                wrong[name] = known & (placeholder | (days > end) | (days < born))
            periods[name] = np.where(wrong[name], NO_DAY, days)
        if {"observation_start", "observation_end"} <= periods.keys():
            start, stop = periods["observation_start"], periods["observation_end"]
            reversed_ = (stop < start) & (stop != NO_DAY)
            for name in ("observation_start", "observation_end"):
                wrong[name] |= reversed_
                periods[name] = np.where(reversed_, NO_DAY, periods[name])
        for name, where in wrong.items():
            if count := int(where.sum()):
                summary.implausible_periods[name] += count
        return replace(patients, periods={name: days.astype(np.int32) for name, days in periods.items()})

    def _without_doubtful(
        self,
        patients: PatientColumns,
        born: np.ndarray,
        end: np.ndarray,
        limit: np.ndarray | None,
        summary: ReadingSummary,
    ) -> PatientColumns:
        """Return the patients without the events on days that cannot be, or with these marked; each counts once."""
        events = patients.events
        owner, days = events.patients(), events.days
        reasons = [
            (PLACEHOLDER, self._is_placeholder(owner, days)),
            (BEFORE_BIRTH, days < born[owner]),
            (str(self._bound), days > (end[owner] if end.ndim else end)),
        ]
        if limit is not None:
            reasons.append((self._after_death, days > limit[owner]))
        doubtful = np.zeros(len(days), dtype=bool)
        for reason, where in reasons:
            if count := int((where & ~doubtful).sum()):
                summary.implausible_events[reason] += count
                doubtful |= where
        if not doubtful.any():
            return patients
        kept = replace(events, doubtful=doubtful) if self._settings.keep_implausible_dates else events.where(~doubtful)
        return replace(patients, events=kept)

    def _of_plausible_age(self, patients: PatientColumns, first: np.ndarray, summary: ReadingSummary) -> PatientColumns:
        """Return the patients who are not too old at their first event, or with the age that the settings give them."""
        most = OLDEST if self._settings.max_age is None else self._settings.max_age
        year = _years(first)
        too_old = (first != _EVER) & (year - patients.birth_years > most)
        if not too_old.any():
            return patients
        if self._settings.max_age is None:
            summary.excluded[IMPLAUSIBLE_AGE] += int(too_old.sum())
            return patients.take(np.flatnonzero(~too_old))
        birth_years = np.where(too_old, year - most, patients.birth_years).astype(np.int32)
        periods = dict(patients.periods)
        if BIRTH_DATE in periods:
            periods[BIRTH_DATE] = np.where(too_old, NO_DAY, periods[BIRTH_DATE]).astype(np.int32)
        return replace(patients, birth_years=birth_years, periods=periods)


def _first_plausible(events: EventColumns) -> np.ndarray:
    """Return the first day of each patient that can be, (N,) int32; the largest int32 where there is none."""
    return (events if events.doubtful is None else events.where(~events.doubtful)).span()[0]


def _first_days(years: np.ndarray) -> np.ndarray:
    """Return 1 January of calendar years, (N,) int64 since 1970-01-01."""
    return (years.astype(np.int64) - 1970).astype("datetime64[Y]").astype("datetime64[D]").astype(np.int64)


def _years(days: np.ndarray) -> np.ndarray:
    """Return the calendar years of days, (N,) int64."""
    return days.astype("datetime64[D]").astype("datetime64[Y]").astype(np.int64) + 1970
