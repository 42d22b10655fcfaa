"""Patients as a user of Python has them: records, a table of events, a dataset, or files of any format."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np

from exmed_bert.codes import code_system, code_systems
from exmed_bert.console import InputError, shown
from exmed_bert.data.dataset import PatientDataset
from exmed_bert.data.decoding import decoded_chunks
from exmed_bert.data.measured import FLAGS, LARGEST, Measured, results
from exmed_bert.data.origin import Origin
from exmed_bert.data.patient import LISTED, EventColumns, Patient, PatientColumns, PatientId, day_number
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.data.readers.base import CHUNK
from exmed_bert.data.readers.json import JsonReader
from exmed_bert.data.readers.summary import ReadingSummary
from exmed_bert.data.readers.validation import RecordFields, columns_of, parse_day
from exmed_bert.data.shards import open_dataset
from exmed_bert.data.static_columns import StaticColumn
from exmed_bert.embedding.options import is_dataset
from exmed_bert.settings import ReadingSettings

if TYPE_CHECKING:
    import pandas

Patients: TypeAlias = Union[
    "pandas.DataFrame", PatientDataset, Mapping[str, Any], Patient, Sequence[Any], np.ndarray, str, os.PathLike[str]
]
"""What stands for patients: see `as_input`."""

EVENT_COLUMNS = ("patient_id", "date", "system", "code")
_BIRTH_YEAR = "birth_year"
_UNBORN = 9999  # the birth year of those of whom none is known: their age is UNK at every event
_PLACE = Path("patients")  # in place of a file, in messages


def as_input(patients: Patients, static_columns: Sequence[StaticColumn]) -> PatientInput:
    """Return patients as the steps read them.

    Args:
        patients: one of

            - a record, or several: dicts as a file of patients holds them, or `Patient`; of the fields all but
              ``birth_year`` may be missing, a missing ``patient_id`` is the number of the record from 0;
            - a DataFrame of events with ``patient_id, date, system, code``, and where they are known ``birth_year``,
              ``sex``, ``patient_state`` and further static columns, which are the same in all rows of a patient;
            - a `PatientDataset`;
            - the path of a file or folder of any format, or of a dataset.
        static_columns: those of the model.

    Raises:
        InputError: they are none of these, a record or a row is wrong, or an id stands there twice.
    """
    if isinstance(patients, str | os.PathLike):
        path = Path(patients)
        if not is_dataset(path):
            return PatientInput([path], static_columns=static_columns)
        patients = open_dataset(path)
    if isinstance(patients, PatientDataset):
        return GivenPatients(partial(decoded_chunks, patients), static_columns)
    if hasattr(patients, "columns") and hasattr(patients, "iloc"):
        columns = columns_of_events(patients, static_columns)
    else:
        columns = _columns_of_records(patients, static_columns)
    if len(set(columns.patient_ids)) < len(columns):
        twice = next(i for n, i in enumerate(columns.patient_ids) if i in columns.patient_ids[:n])
        raise InputError(f"patients: patient_id {shown(twice)}: stands there twice, expected each patient once")
    return GivenPatients(partial(_pieces, columns), static_columns, columns.patient_ids)


class GivenPatients(PatientInput):
    """Patients in memory, read as those of files are: implausible days are dropped, codes are translated.

    Attributes:
        ids: of all patients, also of those who are left out; None where these are not known beforehand.
    """

    def __init__(
        self,
        chunks: Callable[[int], Iterator[PatientColumns]],
        static_columns: Sequence[StaticColumn],
        ids: list[PatientId] | None = None,
    ) -> None:
        """Take a function that yields the patients, so many at a time, and their ids."""
        self.ids = ids
        self.settings = ReadingSettings()
        self.static_columns = tuple(static_columns)
        self.today = date.today()
        self.summary = ReadingSummary()
        self.read = (0, 0)
        self.reader = JsonReader()  # whose record they are like
        self.origin = Origin("", own_record=True)
        self._translator = None
        self._given = chunks
        self._unborn: set[PatientId] = set()  # of those read so far, whose birth year is not known

    def __str__(self) -> str:
        return str(_PLACE)

    @property
    def read_as(self) -> str:
        """What they are."""
        return "patients given in Python"

    def announce(self) -> None:
        """Say nothing: who gives them knows."""

    def raw_chunks(self, size: int = CHUNK) -> Iterator[PatientColumns]:
        """Yield the patients as they are given; without a known birth year, with that of their first event."""
        for patients in self._given(size):
            unknown = patients.birth_years == _UNBORN
            if unknown.any():
                self._unborn.update(patients.patient_ids[i] for i in np.flatnonzero(unknown).tolist())
                first = patients.events.span()[0].astype("datetime64[D]").astype("datetime64[Y]").astype(np.int64)
                born = np.where(patients.events.counts() > 0, first + 1970, self.today.year)
                patients = replace(patients, birth_years=np.where(unknown, born, patients.birth_years).astype(np.int32))
            yield patients

    def quiet_chunks(self, size: int = CHUNK, as_written: bool = False) -> Iterator[PatientColumns]:
        """Yield the patients as `PatientInput` does, those without a known birth year of unknown age."""
        for patients in super().quiet_chunks(size, as_written):
            if self._unborn:
                unknown = np.array([i in self._unborn for i in patients.patient_ids], dtype=bool)
                patients = replace(
                    patients, birth_years=np.where(unknown, _UNBORN, patients.birth_years).astype(np.int32)
                )
            yield patients


def _pieces(columns: PatientColumns, size: int) -> Iterator[PatientColumns]:
    for first in range(0, len(columns), size):
        yield columns if len(columns) <= size else columns.take(np.arange(first, min(first + size, len(columns))))


def _columns_of_records(patients: Any, static_columns: Sequence[StaticColumn]) -> PatientColumns:
    """Return records as columns; what may be missing is filled in."""
    listed = [patients] if isinstance(patients, Mapping | Patient) else patients
    if not isinstance(listed, Iterable) or isinstance(listed, bytes):
        raise InputError(
            f"patients: got {shown(patients)}, expected records, a DataFrame of events, a dataset or a path"
        )
    columns = {column.field: None for column in static_columns}
    lists: dict[str, list[Any]] = {field: [] for fields in LISTED.values() for field in fields}
    records = []
    for number, patient in enumerate(listed):
        record = patient.to_record() if isinstance(patient, Patient) else patient
        if not isinstance(record, Mapping):
            raise InputError(
                f"patients: record {number + 1}: got {shown(record)}, expected a dict with {_BIRTH_YEAR}, "
                f"{', '.join(lists)}"
            )
        filled: dict[str, Any] = {"patient_id": number, **columns, **lists, **record}
        records.append({name: _plain(value) for name, value in filled.items()})
    return columns_of(_PLACE, records, 1, RecordFields(static_columns))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def columns_of_events(events: "pandas.DataFrame", static_columns: Sequence[StaticColumn]) -> PatientColumns:
    """Return a table of events as patients, in the order in which they come first.

    Raises:
        InputError: a column is missing, or a value is wrong.
    """
    import pandas

    if missing := [name for name in EVENT_COLUMNS if name not in events.columns]:
        there = ", ".join(map(str, events.columns))
        raise InputError(f"events: column {missing[0]} is missing, expected {', '.join(EVENT_COLUMNS)}; it has {there}")

    def refuse(column: str, value: Any, expected: str) -> InputError:
        where = events.index[events[column].map(lambda one: one is value or one == value)]
        row = f"row {where[0]}: " if len(where) else ""
        return InputError(f"events: {row}{column}: {shown(value)}, expected {expected}")

    for name in EVENT_COLUMNS:
        if (empty := events[name].isna()).any():
            raise InputError(f"events: row {events.index[empty.argmax()]}: {name}: is missing")
    owner, found = pandas.factorize(events["patient_id"])
    ids: list[PatientId] = []
    for value in found.tolist():
        if type(value) not in (int, str):
            raise refuse("patient_id", value, "a whole number or a string")
        ids.append(value)
    day_of, dates = pandas.factorize(events["date"])
    days = [_day(value) for value in dates]
    if None in days:
        raise refuse("date", dates[days.index(None)], "a date, or YYYY-MM-DD or YYYYMMDD")
    system_of, systems = pandas.factorize(events["system"])
    names = []
    for system in systems:
        try:
            names.append(code_system(str(system)).name)
        except ValueError:
            known = ", ".join(one.name for one in code_systems())
            raise refuse("system", system, f"one of {known}") from None
    code_of, codes = pandas.factorize(events["code"])
    for code in codes:
        if not isinstance(code, str):
            raise refuse("code", code, "a code as a string")
    pairs, table_of = np.unique(system_of.astype(np.int64) * max(len(codes), 1) + code_of, return_inverse=True)
    order = np.argsort(owner, kind="stable")
    firsts = events[~events["patient_id"].duplicated()]
    fields = {column: column.field if column.field in events.columns else column.name for column in static_columns}
    for field in [field for field in fields.values() if field in events.columns]:
        for value in firsts[field].dropna():
            if not isinstance(value, str):
                raise refuse(field, value, "a string")
    return PatientColumns(
        patient_ids=ids,
        birth_years=_birth_years(firsts, len(ids)),
        static={
            column.name: [value if isinstance(value, str) else None for value in firsts[field]]
            if field in events.columns
            else [None] * len(ids)
            for column, field in fields.items()
        },
        plos=np.full(len(ids), -1, dtype=np.int8),
        events=EventColumns(
            codes=table_of[order].astype(np.int32),
            days=np.array(days, dtype=np.int32)[day_of][order],
            offsets=np.concatenate(([0], np.cumsum(np.bincount(owner, minlength=len(ids))))).astype(np.int64),
            table=[(names[pair // max(len(codes), 1)], codes[pair % max(len(codes), 1)]) for pair in pairs.tolist()],
            measured=_measured(events.iloc[order], refuse),
        ),
    )


def _measured(events: "pandas.DataFrame", refuse: Callable[[str, Any, str], InputError]) -> Measured | None:
    """Return the values and flags of events, None where the table has none."""
    n = len(events)
    values = events["value"].tolist() if "value" in events.columns else [None] * n
    flags = events["flag"].tolist() if "flag" in events.columns else [None] * n
    values = [None if value is None or value != value else value for value in values]  # NaN is not itself
    flags = [flag if isinstance(flag, str) else None for flag in flags]
    for value in values:
        if value is not None and (not isinstance(value, int | float) or abs(value) > LARGEST):
            raise refuse("value", value, "a number")
    if wrong := next((flag for flag in flags if flag is not None and flag not in FLAGS), None):
        raise refuse("flag", wrong, f"one of {', '.join(FLAGS)}")
    return results(values, flags)


def _birth_years(firsts: "pandas.DataFrame", n: int) -> np.ndarray:
    if _BIRTH_YEAR not in firsts.columns:
        return np.full(n, _UNBORN, dtype=np.int32)
    try:
        years = firsts[_BIRTH_YEAR].astype("float64").to_numpy()
    except (TypeError, ValueError) as error:
        raise InputError(f"events: {_BIRTH_YEAR}: expected a year: {error}") from None
    return np.where(np.isnan(years), _UNBORN, np.nan_to_num(years)).astype(np.int32)


def _day(value: Any) -> int | None:
    """Return the day of a date, a time or its spelling; None where it is none."""
    if hasattr(value, "year"):
        return day_number(date(value.year, value.month, value.day))
    return parse_day(str(value)) if isinstance(value, str | int | np.integer) else None
