"""The patient record, as one object and as columns.

`Patient` is what a person reads; `PatientColumns` is what the code works on: a few arrays for thousands of patients.
Both hold the same fields as a record in a file. Events are one table, whatever their code system.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Any, NamedTuple

import numpy as np

from exmed_bert.codes import CodeKey
from exmed_bert.data.measured import Measured, nothing_measured, results
from exmed_bert.data.static_columns import SEX, STATE, StaticColumn

PatientId = int | str
EPOCH = date(1970, 1, 1)  # days are counted from here
NO_DAY = int(np.iinfo(np.int32).min)  # the day of what is not known to have happened

# The two lists of a record, by the code system that each declares: field of the codes, field of the dates.
LISTED: dict[str, tuple[str, str]] = {
    "icd10cm": ("diagnoses", "diagnosis_dates"),
    "atc": ("drugs", "prescription_dates"),
}
# When a patient was observed, and the day of death; a record need not have these.
PERIOD_FIELDS = ("observation_start", "observation_end", "death_date")
BIRTH_DATE = "birth_date"
DAY_FIELDS = (*PERIOD_FIELDS, BIRTH_DATE)  # all days that a record need not have


class Event(NamedTuple):
    """A code on a day; ``system`` is the name of its code system.

    What was measured has a ``value``, or a ``flag``, one of `measured.FLAGS`, or both.
    """

    system: str
    code: str
    day: date
    value: float | None = None
    flag: str | None = None

    def to_record(self) -> dict[str, Any]:
        """Return what the list ``events`` of a record holds."""
        record: dict[str, Any] = {"system": self.system, "code": self.code, "date": _digits(self.day)}
        found = results([self.value], [self.flag])
        return record if found is None else record | found.shown(0)


@dataclass(frozen=True)
class Patient:
    """One patient: coded events, and static columns such as sex and state.

    Attributes:
        patient_id: a whole number or text.
        birth_year: calendar year.
        static: value of each static column by its name, None where it is unknown.
        events: in the order of the record.
        had_plos: whether there was a prolonged length of stay; None where it is not recorded.
        observation_start, observation_end, death_date, birth_date: None where they are not known.
    """

    patient_id: PatientId
    birth_year: int
    static: Mapping[str, str | None] = field(default_factory=dict)
    events: Sequence[Event] = ()
    had_plos: bool | None = None
    observation_start: date | None = None
    observation_end: date | None = None
    death_date: date | None = None
    birth_date: date | None = None

    @property
    def sex(self) -> str | None:
        """The static column ``sex``."""
        return self.static.get(SEX.name)

    @property
    def patient_state(self) -> str | None:
        """The static column ``state``."""
        return self.static.get(STATE.name)

    @property
    def diagnoses(self) -> list[str]:
        """The ICD-10-CM codes, in the order of the record."""
        return [event.code for event in self._listed("diagnoses")]

    @property
    def diagnosis_dates(self) -> list[date]:
        """The days of `diagnoses`."""
        return [event.day for event in self._listed("diagnoses")]

    @property
    def drugs(self) -> list[str]:
        """The ATC codes, in the order of the record."""
        return [event.code for event in self._listed("drugs")]

    @property
    def prescription_dates(self) -> list[date]:
        """The days of `drugs`."""
        return [event.day for event in self._listed("drugs")]

    def _listed(self, codes_field: str) -> list[Event]:
        system = next(system for system, (listed, _) in LISTED.items() if listed == codes_field)
        return [event for event in self.events if event.system == system]

    def visits(self) -> list[tuple[date, list[str]]]:
        """Return the visits in order of time, each a date and its codes in the order of the record."""
        by_day: dict[date, list[str]] = {}
        for event in self.events:
            by_day.setdefault(event.day, []).append(event.code)
        return sorted(by_day.items())

    def to_record(self) -> dict[str, Any]:
        """Return the record that a file of patients holds."""
        record: dict[str, Any] = {
            "patient_id": self.patient_id,
            "birth_year": self.birth_year,
            "sex": self.sex,
            "patient_state": self.patient_state,
            "diagnoses": self.diagnoses,
            "diagnosis_dates": [_digits(day) for day in self.diagnosis_dates],
            "drugs": self.drugs,
            "prescription_dates": [_digits(day) for day in self.prescription_dates],
        }
        if self.had_plos is not None:
            record["had_plos"] = self.had_plos
        record |= {name: value for name, value in self.static.items() if name not in (SEX.name, STATE.name)}
        for name in DAY_FIELDS:
            if (day := getattr(self, name)) is not None:
                record[name] = _digits(day)
        others = [event for event in self.events if event.system not in LISTED]
        if others:
            record["events"] = [event.to_record() for event in others]
        return record


@dataclass(frozen=True)
class EventColumns:
    """Coded events of N patients, one patient after another.

    Attributes:
        codes: (events,) int32, an index into ``table``.
        days: (events,) int32, days since 1970-01-01.
        offsets: (N + 1,) int64; patient i has the events ``offsets[i]:offsets[i + 1]``.
        table: the distinct codes as they are written, each with the name of its code system.
        doubtful: (events,) bool, which days cannot be; None where all can.
        measured: values of the events; None where none has one.
    """

    codes: np.ndarray
    days: np.ndarray
    offsets: np.ndarray
    table: Sequence[CodeKey]
    doubtful: np.ndarray | None = None
    measured: Measured | None = None

    def counts(self) -> np.ndarray:
        """Return the number of events of each patient, (N,) int64."""
        return np.diff(self.offsets)

    def patients(self) -> np.ndarray:
        """Return the patient of each event, (events,) int64."""
        return np.repeat(np.arange(len(self.offsets) - 1), self.counts())

    def where(self, kept: np.ndarray) -> "EventColumns":
        """Return the events that are kept, (events,) bool."""
        counts = np.bincount(self.patients()[kept], minlength=len(self.offsets) - 1)
        return self._at(kept, _offsets(counts))

    def span(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the first and the last day of each patient, (N,) int32 each; without events the last is `NO_DAY`."""
        n = len(self.offsets) - 1
        first, last = np.full(n, np.iinfo(np.int32).max, dtype=np.int32), np.full(n, NO_DAY, dtype=np.int32)
        some = np.flatnonzero(self.counts())
        if len(some):
            starts = self.offsets[some]
            first[some] = np.minimum.reduceat(self.days, starts)
            last[some] = np.maximum.reduceat(self.days, starts)
        return first, last

    def of_system(self, system: str) -> "EventColumns":
        """Return the events of one code system; the table keeps its own codes alone."""
        own = [i for i, (name, _) in enumerate(self.table) if name == system]
        if len(own) == len(self.table):
            return self
        place = np.full(len(self.table), -1, dtype=np.int32)
        place[own] = np.arange(len(own))
        codes = place[self.codes] if len(self.table) else self.codes
        found = replace(self, codes=codes, table=[self.table[i] for i in own])
        return found.where(codes >= 0)

    def take(self, rows: np.ndarray) -> "EventColumns":
        """Return the events of the given patients, in that order; a patient may be given several times."""
        counts = self.counts()[rows]
        offsets = _offsets(counts)
        at = np.repeat(self.offsets[rows] - offsets[:-1], counts) + np.arange(offsets[-1])
        return self._at(at, offsets)

    def _at(self, index: np.ndarray, offsets: np.ndarray) -> "EventColumns":
        doubtful = None if self.doubtful is None else self.doubtful[index]
        measured = None if self.measured is None else self.measured.at(index)
        return EventColumns(self.codes[index], self.days[index], offsets, self.table, doubtful, measured)


def no_events(patients: int) -> EventColumns:
    """Return the columns of N patients without events."""
    return EventColumns(np.empty(0, np.int32), np.empty(0, np.int32), np.zeros(patients + 1, np.int64), [])


def merge_events(parts: Sequence[EventColumns]) -> EventColumns:
    """Join several tables of events of the same N patients: each patient's events of the first, of the second, ...

    >>> one = EventColumns(np.array([0, 0]), np.array([5, 6]), np.array([0, 1, 2]), [("atc", "A10BA02")])
    >>> two = EventColumns(np.array([0]), np.array([7]), np.array([0, 1, 1]), [("icd10cm", "I10")])
    >>> merged = merge_events([one, two])
    >>> merged.codes.tolist(), merged.days.tolist(), merged.offsets.tolist()
    ([0, 1, 0], [5, 7, 6], [0, 2, 3])
    """
    parts = [part for part in parts if len(part.codes)] or list(parts[:1])
    if len(parts) == 1:
        return parts[0]
    counts = [part.counts() for part in parts]
    offsets = _offsets(np.sum(counts, axis=0))
    codes, days = np.empty(offsets[-1], dtype=np.int32), np.empty(offsets[-1], dtype=np.int32)
    starts, table = offsets[:-1].copy(), list[CodeKey]()
    measured = nothing_measured(int(offsets[-1])) if any(part.measured is not None for part in parts) else None
    for part, count in zip(parts, counts, strict=True):
        at = np.repeat(starts - part.offsets[:-1], count) + np.arange(part.offsets[0], part.offsets[-1])
        codes[at], days[at] = part.codes + len(table), part.days
        if measured is not None and part.measured is not None:
            measured.values[at], measured.flags[at] = part.measured.values, part.measured.flags
        starts += count
        table.extend(part.table)
    return EventColumns(codes, days, offsets, table, measured=measured)


@dataclass(frozen=True)
class PatientColumns:
    """N patients as columns.

    Attributes:
        patient_ids: N integers or strings.
        birth_years: (N,) int32.
        static: by name of a static column N strings or None.
        plos: (N,) int8: 1 had a prolonged stay, 0 had none, -1 not recorded.
        events: their coded events.
        periods: by name of one of `DAY_FIELDS`, (N,) int32 days since 1970-01-01, `NO_DAY` where it is not known;
            fields that no patient has may be missing.
        splits: (N,) int8, `splits.InputSplit`, the split that the input itself puts each patient into; None where it
            knows no splits.
    """

    patient_ids: list[PatientId]
    birth_years: np.ndarray
    static: dict[str, list[str | None]]
    plos: np.ndarray
    events: EventColumns
    periods: dict[str, np.ndarray] = field(default_factory=dict)
    splits: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.patient_ids)

    def period(self, name: str) -> np.ndarray:
        """Return the days of one of `DAY_FIELDS`, (N,) int32, `NO_DAY` where it is not known."""
        return self.periods.get(name, np.full(len(self), NO_DAY, dtype=np.int32))

    def take(self, rows: np.ndarray) -> "PatientColumns":
        """Return the given patients, in that order; a patient may be given several times."""
        listed = rows.tolist()
        return PatientColumns(
            patient_ids=[self.patient_ids[i] for i in listed],
            birth_years=self.birth_years[rows],
            static={name: [values[i] for i in listed] for name, values in self.static.items()},
            plos=self.plos[rows],
            events=self.events.take(rows),
            periods={name: days[rows] for name, days in self.periods.items()},
            splits=None if self.splits is None else self.splits[rows],
        )

    def up_to(self, days: np.ndarray) -> "PatientColumns":
        """Return the patients with their events up to a day each, that day included: all that a prediction may see.

        Args:
            days: (N,) since 1970-01-01.
        """
        return replace(self, events=self.events.where(self.events.days <= days[self.events.patients()]))

    def records(self, static_columns: Sequence[StaticColumn] = ()) -> Iterator[dict[str, Any]]:
        """Yield the record of each patient, as a file of patients holds it.

        Args:
            static_columns: those beside sex and state that a record holds.
        """
        listed = {fields: _decoded(self.events.of_system(system)) for system, fields in LISTED.items()}
        others = self._other_events()
        periods = {name: self.periods[name].tolist() for name in DAY_FIELDS if name in self.periods}
        birth_years, plos = self.birth_years.tolist(), self.plos.tolist()
        sexes, states = self.static[SEX.name], self.static[STATE.name]
        for i, patient_id in enumerate(self.patient_ids):
            record = {
                "patient_id": patient_id,
                "birth_year": birth_years[i],
                "sex": sexes[i],
                "patient_state": states[i],
            }
            for (codes_field, dates_field), (codes, dates, offsets) in listed.items():
                record[codes_field] = codes[offsets[i] : offsets[i + 1]]
                record[dates_field] = dates[offsets[i] : offsets[i + 1]]
            if plos[i] >= 0:
                record["had_plos"] = bool(plos[i])
            for column in static_columns:
                record[column.field] = self.static[column.name][i]
            for name, days in periods.items():
                if days[i] != NO_DAY:
                    record[name] = _digits(EPOCH + timedelta(days=days[i]))
            if i in others:
                record["events"] = others[i]
            yield record

    def _other_events(self) -> dict[int, list[dict[str, Any]]]:
        """Return by patient the events that are in neither of the two lists of a record."""
        is_other = np.array([system not in LISTED for system, _ in self.events.table], dtype=bool)
        if not is_other.any():
            return {}
        kept = is_other[self.events.codes]
        events = self.events.where(kept)
        found: dict[int, list[dict[str, Any]]] = {}
        rows = zip(events.patients().tolist(), events.codes.tolist(), events.days.tolist(), strict=True)
        for place, (patient, code, day) in enumerate(rows):
            system, text = events.table[code]
            event: dict[str, Any] = {"system": system, "code": text, "date": _digits(EPOCH + timedelta(days=day))}
            if events.measured is not None:
                event |= events.measured.shown(place)
            found.setdefault(patient, []).append(event)
        return found


def day_number(day: date) -> int:
    """Return the days from 1970-01-01 to ``day``.

    >>> day_number(date(1970, 1, 31))
    30
    """
    return (day - EPOCH).days


def _digits(day: date) -> str:
    """Return YYYYMMDD; ``strftime`` leaves out the zeros of years before 1000, which real data holds as fillers."""
    return day.isoformat().replace("-", "")


def _offsets(counts: np.ndarray) -> np.ndarray:
    return np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))


def _decoded(events: EventColumns) -> tuple[list[str], list[str], list[int]]:
    """Return codes and dates (YYYYMMDD) of all events as strings, and where each patient's begin."""
    table = np.array([code for _, code in events.table], dtype=object) if len(events.table) else np.empty(0, object)
    days, where = np.unique(events.days, return_inverse=True)
    dates = np.asarray([_digits(EPOCH + timedelta(days=int(day))) for day in days], dtype=object)
    return table[events.codes].tolist(), dates[where].tolist(), events.offsets.tolist()
