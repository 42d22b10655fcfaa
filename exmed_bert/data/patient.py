"""The patient record, as one object and as columns.

`Patient` is what a person reads; `PatientColumns` is what the code works on: a few arrays for thousands of patients.
Both hold the same fields as a record in a file.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np

PatientId = int | str
EPOCH = date(1970, 1, 1)  # days are counted from here


@dataclass(frozen=True)
class Patient:
    """One patient: coded diagnoses and prescriptions with their dates, and who the patient is.

    Codes are strings in their system's usual spelling, dates are `datetime.date`. ``sex`` and ``patient_state`` may
    be unknown (None), ``had_plos`` (prolonged length of stay) may be unrecorded (None).
    """

    patient_id: PatientId
    birth_year: int
    sex: str | None
    patient_state: str | None
    diagnoses: Sequence[str]
    diagnosis_dates: Sequence[date]
    drugs: Sequence[str]
    prescription_dates: Sequence[date]
    had_plos: bool | None = None

    def visits(self) -> list[tuple[date, list[str]]]:
        """Return the visits in order of time, each a date and its codes, diagnoses before drugs."""
        by_day: dict[date, list[str]] = {}
        for code, day in zip(self.diagnoses, self.diagnosis_dates, strict=True):
            by_day.setdefault(day, []).append(code)
        for code, day in zip(self.drugs, self.prescription_dates, strict=True):
            by_day.setdefault(day, []).append(code)
        return sorted(by_day.items())

    def to_record(self) -> dict[str, Any]:
        """Return the record that a file of patients holds."""
        record: dict[str, Any] = {
            "patient_id": self.patient_id,
            "birth_year": self.birth_year,
            "sex": self.sex,
            "patient_state": self.patient_state,
            "diagnoses": list(self.diagnoses),
            "diagnosis_dates": [_digits(day) for day in self.diagnosis_dates],
            "drugs": list(self.drugs),
            "prescription_dates": [_digits(day) for day in self.prescription_dates],
        }
        if self.had_plos is not None:
            record["had_plos"] = self.had_plos
        return record


@dataclass(frozen=True)
class EventColumns:
    """Coded events of N patients, one patient after another.

    Attributes:
        codes: (events,) int32, an index into ``table``.
        days: (events,) int32, days since 1970-01-01.
        offsets: (N + 1,) int64; patient i has the events ``offsets[i]:offsets[i + 1]``.
        table: the distinct codes.
    """

    codes: np.ndarray
    days: np.ndarray
    offsets: np.ndarray
    table: Sequence[str]

    def counts(self) -> np.ndarray:
        """Return the number of events a patient, (N,) int64."""
        return np.diff(self.offsets)


@dataclass(frozen=True)
class PatientColumns:
    """N patients as columns.

    Attributes:
        patient_ids: N integers or strings.
        birth_years: (N,) int32.
        sexes, states: N strings or None.
        plos: (N,) int8: 1 had a prolonged stay, 0 had none, -1 not recorded.
        diagnoses, drugs: the events of each kind.
    """

    patient_ids: list[PatientId]
    birth_years: np.ndarray
    sexes: list[str | None]
    states: list[str | None]
    plos: np.ndarray
    diagnoses: EventColumns
    drugs: EventColumns

    def __len__(self) -> int:
        return len(self.patient_ids)

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield the record of each patient, as a file of patients holds it."""
        diagnoses, diagnosis_dates = _decoded(self.diagnoses)
        drugs, prescription_dates = _decoded(self.drugs)
        dx, rx = self.diagnoses.offsets.tolist(), self.drugs.offsets.tolist()
        birth_years, plos = self.birth_years.tolist(), self.plos.tolist()
        for i, patient_id in enumerate(self.patient_ids):
            record = {
                "patient_id": patient_id,
                "birth_year": birth_years[i],
                "sex": self.sexes[i],
                "patient_state": self.states[i],
                "diagnoses": diagnoses[dx[i] : dx[i + 1]],
                "diagnosis_dates": diagnosis_dates[dx[i] : dx[i + 1]],
                "drugs": drugs[rx[i] : rx[i + 1]],
                "prescription_dates": prescription_dates[rx[i] : rx[i + 1]],
            }
            if plos[i] >= 0:
                record["had_plos"] = bool(plos[i])
            yield record


def day_number(day: date) -> int:
    """Return the days from 1970-01-01 to ``day``.

    >>> day_number(date(1970, 1, 31))
    30
    """
    return (day - EPOCH).days


def _digits(day: date) -> str:
    """Return YYYYMMDD; ``strftime`` leaves out the zeros of years before 1000, which real data holds as fillers."""
    return day.isoformat().replace("-", "")


def _decoded(events: EventColumns) -> tuple[list[str], list[str]]:
    """Return codes and dates (YYYYMMDD) of all events as strings."""
    table = np.asarray(events.table, dtype=object) if len(events.table) else np.empty(0, dtype=object)
    days, where = np.unique(events.days, return_inverse=True)
    dates = np.asarray([_digits(EPOCH + timedelta(days=int(day))) for day in days], dtype=object)
    return table[events.codes].tolist(), dates[where].tolist()
