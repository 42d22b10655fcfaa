"""From records, looked at one by one, to columns: every wrong one is refused with its number, field and value."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from itertools import chain, count
from operator import itemgetter
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from exmed_bert.codes import CodeKey, code_system, code_systems
from exmed_bert.console import InputError, shown
from exmed_bert.data.measured import FLAGS, LARGEST, results
from exmed_bert.data.patient import (
    DAY_FIELDS,
    LISTED,
    NO_DAY,
    EventColumns,
    PatientColumns,
    day_number,
    merge_events,
)
from exmed_bert.data.static_columns import BUILT_IN, StaticColumn

YEARS = (-9999, 9999)  # years beyond are as implausible as these, and fit no column

_LIST_FIELDS = tuple(field for fields in LISTED.values() for field in fields)
_REQUIRED = ("patient_id", "birth_year", *(column.field for column in BUILT_IN), *_LIST_FIELDS)
_OPTIONAL = ("had_plos", *DAY_FIELDS, "events")
_required = itemgetter(*_REQUIRED)

Refuse = Callable[[int, str, str], NoReturn]
"""Called with the index of a record, a field, and what is wrong with it."""


class RecordFields:
    """The fields of a record that are read.

    Attributes:
        static_columns: those of the static columns.
        known: all that are ours.
        unused: fields that are not, added to while reading.
        repeated: how often a key stands a second time in its object, added to while reading.
    """

    def __init__(self, static_columns: Sequence[StaticColumn]) -> None:
        self.static_columns = tuple(static_columns)
        self.known = {*_REQUIRED, *_OPTIONAL, *(column.field for column in static_columns)}
        self.unused: set[str] = set()
        self.repeated: Counter[str] = Counter()


def columns_of(path: Path, records: list[Any], first: int, fields: RecordFields) -> PatientColumns:
    """Validate records and turn them into columns; ``first`` is the number of the first record in the file.

    Raises:
        InputError: a record is wrong.
    """

    def refuse(index: int, field: str, problem: str) -> NoReturn:
        patient_id = records[index].get("patient_id", "missing")
        raise InputError(f"{path}: record {first + index} (patient_id {shown(patient_id)}): {field}: {problem}")

    if set(map(type, records)) != {dict}:
        index = next(i for i, record in enumerate(records) if type(record) is not dict)
        raise InputError(f"{path}: record {first + index}: expected an object, got {kind_of(records[index])}")
    present = set().union(*records)
    fields.unused.update(present - fields.known)

    try:
        rows = list(map(_required, records))
    except KeyError as error:
        refuse(next(i for i, record in enumerate(records) if error.args[0] not in record), error.args[0], "is missing")
    column: dict[str, list[Any]] = dict(zip(_REQUIRED, map(list, zip(*rows, strict=True)), strict=True))
    further = [column.field for column in fields.static_columns if column.field not in _REQUIRED]
    for field in ("had_plos", *further):
        column[field] = [record.get(field) for record in records]

    text = (str, type(None))
    for field, allowed, wanted in (
        ("patient_id", (int, str), "a whole number or a string"),
        ("birth_year", (int,), "a year"),
        *((static.field, text, "a string or null") for static in fields.static_columns),
        ("had_plos", (bool, type(None)), "true, false or null"),
    ):
        _check_types(column[field], allowed, field, wanted, refuse)

    events = [_listed(column, system, *names, refuse) for system, names in LISTED.items()]
    if "events" in present:
        events.append(_other_events(records, refuse))
    return PatientColumns(
        patient_ids=column["patient_id"],
        birth_years=np.array([min(max(year, YEARS[0]), YEARS[1]) for year in column["birth_year"]], dtype=np.int32),
        static={static.name: column[static.field] for static in fields.static_columns},
        plos=np.array([-1 if value is None else int(value) for value in column["had_plos"]], dtype=np.int8),
        events=merge_events(events),
        periods={name: days for name in DAY_FIELDS if (days := _period(records, name, refuse)) is not None},
    )


def _period(records: list[Any], name: str, refuse: Refuse) -> np.ndarray | None:
    """Return the days of an optional field, (N,) int32; None where no record has it."""
    values = [record.get(name) for record in records]
    if not any(value is not None for value in values):
        return None
    days = [NO_DAY if value is None else parse_day(value) for value in values]
    if None in days:
        index = days.index(None)
        refuse(index, name, f"{shown(values[index])} is no date, expected YYYYMMDD")
    return np.array(days, dtype=np.int32)


def _listed(
    column: dict[str, list[Any]], system: str, code_field: str, date_field: str, refuse: Refuse
) -> EventColumns:
    """Return the events of the two lists of codes of one system and of their dates."""
    for field in (code_field, date_field):
        _check_types(column[field], (list,), field, "a list", refuse)
    lengths = np.fromiter(map(len, column[code_field]), dtype=np.int64, count=len(column[code_field]))
    date_lengths = np.fromiter(map(len, column[date_field]), dtype=np.int64, count=len(lengths))
    if (lengths != date_lengths).any():
        index = int((lengths != date_lengths).argmax())
        refuse(index, date_field, f"{date_lengths[index]} dates for {lengths[index]} {code_field}, expected one each")
    codes = list(chain.from_iterable(column[code_field]))
    dates = list(chain.from_iterable(column[date_field]))
    return _events([system] * len(codes), codes, dates, lengths, (code_field, date_field), refuse)


def _other_events(records: list[Any], refuse: Refuse) -> EventColumns:
    """Return the events of the field ``events``: objects with system, code and date."""
    lists = [record.get("events") or [] for record in records]
    _check_types(lists, (list,), "events", "a list", refuse)
    for index, events in enumerate(lists):
        for place, event in enumerate(events):
            field = f"events[{place}]"
            if type(event) is not dict or not {"system", "code", "date"} <= event.keys():
                refuse(index, field, f"{shown(event)}, expected an object with system, code and date")
            if _system_name(event["system"]) is None:
                known = ", ".join(system.name for system in code_systems())
                refuse(index, f"{field}.system", f"{shown(event['system'])}, expected one of {known}")
            if not _is_value(event.get("value")):
                refuse(index, f"{field}.value", f"{shown(event['value'])}, expected a number")
            if event.get("flag") not in (None, *FLAGS):
                refuse(index, f"{field}.flag", f"{shown(event['flag'])}, expected one of {', '.join(FLAGS)}")
    flat = list(chain.from_iterable(lists))
    systems = [code_system(event["system"]).name for event in flat]
    lengths = np.fromiter(map(len, lists), dtype=np.int64, count=len(lists))
    codes, dates = [event["code"] for event in flat], [event["date"] for event in flat]
    events = _events(systems, codes, dates, lengths, ("events", "events"), refuse)
    measured = results([event.get("value") for event in flat], [event.get("flag") for event in flat])
    return replace(events, measured=measured)


def _is_value(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and abs(value) <= LARGEST)


def _system_name(value: Any) -> str | None:
    try:
        return code_system(value).name if isinstance(value, str) else None
    except ValueError:
        return None


def _events(
    systems: list[str], codes: list[Any], dates: list[Any], lengths: np.ndarray, names: tuple[str, str], refuse: Refuse
) -> EventColumns:
    """Return events as columns; ``names`` are the fields of codes and dates, for refusals."""
    offsets = np.concatenate(([0], np.cumsum(lengths)))

    def refuse_event(event: int, field: str, problem: str) -> NoReturn:
        index = int(np.searchsorted(offsets, event, side="right")) - 1
        refuse(index, f"{field}[{event - int(offsets[index])}]", problem)

    keys: list[Any] = codes if len(set(systems)) == 1 else list(zip(systems, codes, strict=True))
    code_ids, table = _distinct(keys)
    if table is None or not all(type(code) is str for code in (table if keys is codes else (c for _, c in table))):
        event = next(i for i, code in enumerate(codes) if type(code) is not str)
        refuse_event(event, names[0], f"{shown(codes[event])}, expected a code as a string")
    date_ids, distinct_dates = _distinct(dates)
    if distinct_dates is None:
        event = next(i for i, value in enumerate(dates) if isinstance(value, list | dict))
        refuse_event(event, names[1], f"{shown(dates[event])}, expected a date as YYYYMMDD")
    days = [parse_day(value) for value in distinct_dates]
    if None in days:
        wrong = distinct_dates[days.index(None)]
        refuse_event(dates.index(wrong), names[1], f"{shown(wrong)} is no date, expected YYYYMMDD")
    distinct: list[CodeKey] = table if keys is not codes else [(systems[0], code) for code in table]
    return EventColumns(
        codes=code_ids,
        days=np.array(days, dtype=np.int32)[date_ids] if days else np.empty(0, dtype=np.int32),
        offsets=offsets,
        table=distinct,
    )


def _distinct(values: list[Any]) -> tuple[np.ndarray, list[Any] | None]:
    """Return (n,) int32 numbers of the values, equal ones alike, and the distinct values; None if one has no hash.

    One pass: types are then checked on the distinct values alone.
    """
    numbers: defaultdict[Any, int] = defaultdict(count().__next__)
    try:
        ids = np.fromiter(map(numbers.__getitem__, values), dtype=np.int32, count=len(values))
    except TypeError:  # a list or an object among the values
        return np.empty(0, dtype=np.int32), None
    return ids, list(numbers)


def parse_day(value: Any) -> int | None:
    """Return the day number of YYYYMMDD, YYYY-MM-DD or a date; None when it is no day of the calendar."""
    if isinstance(value, date):
        return day_number(date(value.year, value.month, value.day))
    if not isinstance(value, str):
        return None
    digits = value.replace("-", "") if len(value) == 10 and value[4] == value[7] == "-" else value
    if len(digits) != 8 or not (digits.isascii() and digits.isdigit()):
        return None
    try:
        return day_number(date(int(digits[:4]), int(digits[4:6]), int(digits[6:])))
    except ValueError:
        return None


def _check_types(values: list[Any], allowed: tuple[type, ...], field: str, wanted: str, refuse: Refuse) -> None:
    """Refuse the first value of a field whose type is not allowed. A bool is no int."""
    wrong = {kind for kind in set(map(type, values)) if kind not in allowed}
    if wrong:
        index = next(i for i, value in enumerate(values) if type(value) in wrong)
        refuse(index, field, f"{shown(values[index])}, expected {wanted}")


def kind_of(value: Any) -> str:
    """Return what a parsed JSON value is, for messages."""
    names = {dict: "an object", list: "a list", str: "a string", int: "a number", float: "a number", bool: "true/false"}
    return names.get(type(value), "null")
