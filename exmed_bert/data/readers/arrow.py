"""Patients from Arrow tables: the quick way to read JSON lines and Parquet.

Only what is surely right is read this way. Anything else, whether wrong or merely unusual, gives None, and the records
are then looked at one by one (`exmed_bert.data.readers.validation`), which finds what to say about them.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from operator import methodcaller
from typing import Any

import numpy as np

from exmed_bert.codes import CodeKey, code_system
from exmed_bert.data.measured import FLAGS, LARGEST, NO_FLAG, Measured, nothing_measured
from exmed_bert.data.patient import DAY_FIELDS, EPOCH, LISTED, NO_DAY, EventColumns, PatientColumns, merge_events
from exmed_bert.data.readers.validation import YEARS, RecordFields
from exmed_bert.data.static_columns import BUILT_IN

_DIGITS = 8  # of a date, YYYYMMDD
_LEVELS = 64
_LISTS, _OBJECTS = methodcaller("count", b"["), methodcaller("count", b"{")
_NULL = re.compile(rb"\}\s*n")  # null in the place of a record ends Arrow and the program with it; so does no object
_TEXT = tuple(column.field for column in BUILT_IN)  # every record has these


def parse_json_lines(lines: list[bytes], fields: RecordFields) -> Any | None:
    """Return the table of the given JSON objects, one on each line; None where that is not what they are."""
    import pyarrow
    from pyarrow import json

    text = pyarrow.string()
    event = pyarrow.struct(
        [("system", text), ("code", text), ("date", text), ("value", pyarrow.float64()), ("flag", text)]
    )
    schema = dict.fromkeys((*(column.field for column in fields.static_columns), *DAY_FIELDS), text)
    schema |= {name: pyarrow.list_(text) for pair in LISTED.values() for name in pair}
    schema |= {"birth_year": pyarrow.int64(), "had_plos": pyarrow.bool_(), "events": pyarrow.list_(event)}
    if (max(map(_LISTS, lines)) > _LEVELS or max(map(_OBJECTS, lines)) > _LEVELS) and any(map(_may_be_deep, lines)):
        return None
    content = b"".join(lines)
    if not lines[0].lstrip().startswith(b"{") or _NULL.search(content):
        return None
    try:
        table = json.read_json(
            pyarrow.BufferReader(content),
            json.ReadOptions(use_threads=False, block_size=len(content) + 1),
            json.ParseOptions(explicit_schema=pyarrow.schema(schema.items())),
        )
        table.validate(full=True)  # that text is UTF-8, for one
        table.column_names  # noqa: B018  # which are not validated
    except (pyarrow.ArrowException, UnicodeDecodeError):
        return None
    # Neither a record that is missing, nor a field: a null may stand for both.
    complete = len(table) == len(lines) and not any(table[name].null_count for name in _TEXT)
    return table if complete else None


def _may_be_deep(line: bytes) -> bool:
    """Tell whether values may stand in each other over many levels, which would end Arrow and the program with it.

    An object within another stands behind a colon or in a list, so objects behind a bracket or a comma, as events are,
    are no deeper than the lists are. Brackets within text count too, which does no harm: it is looked at as a record.
    """
    lists, objects = _LISTS(line), _OBJECTS(line)
    if lists <= _LEVELS and objects > _LEVELS:
        objects -= sum(map(line.count, (b"[{", b",{", b"[ {", b", {")))
    return lists > _LEVELS or objects > _LEVELS


def patient_columns(table: Any, fields: RecordFields) -> PatientColumns | None:
    """Return the patients of a table, None where a field is missing, or has an unusual type or an impossible value."""
    import pyarrow
    from pyarrow import types

    try:
        ids, years, plos = (table[name].combine_chunks() for name in ("patient_id", "birth_year", "had_plos"))
        texts = [table[name].combine_chunks() for name in _TEXT]
        events = [_listed(system, *(table[name].combine_chunks() for name in pair)) for system, pair in LISTED.items()]
    except KeyError:
        return None
    if "events" in table.column_names:
        events.append(_other_events(table["events"].combine_chunks()))
    periods = {name: _period(table[name].combine_chunks()) for name in DAY_FIELDS if name in table.column_names}
    if ids.null_count or years.null_count or any(part is None for part in (*events, *periods.values())):
        return None
    if not (types.is_integer(ids.type) or types.is_string(ids.type)) or not types.is_integer(years.type):
        return None
    further = [column for column in fields.static_columns if column not in BUILT_IN]
    texts += [
        table[column.field].combine_chunks()
        if column.field in table.column_names
        else pyarrow.nulls(len(ids), "string")
        for column in further
    ]
    if not all(types.is_string(column.type) for column in texts) or not types.is_boolean(plos.type):
        return None
    return PatientColumns(
        patient_ids=ids.to_pylist(),
        birth_years=years.to_numpy().clip(*YEARS),
        static={column.name: text.to_pylist() for column, text in zip((*BUILT_IN, *further), texts, strict=True)},
        plos=plos.cast(pyarrow.int8()).fill_null(-1).to_numpy(),
        events=merge_events([part for part in events if part is not None]),
        periods={name: days for name, days in periods.items() if days is not None and (days != NO_DAY).any()},
    )


def _listed(system: str, codes: Any, dates: Any) -> EventColumns | None:
    """Return the events of all patients; each argument holds a list for each patient."""
    from pyarrow import types

    if not all(types.is_list(column.type) and not column.null_count for column in (codes, dates)):
        return None
    lengths = codes.value_lengths().to_numpy()
    flat_codes, flat_dates = codes.flatten(), dates.flatten()
    if flat_codes.null_count or flat_dates.null_count or not types.is_string(flat_codes.type):
        return None
    if (lengths != dates.value_lengths().to_numpy()).any():
        return None
    days = _days(flat_dates)
    if days is None:
        return None
    encoded = flat_codes.dictionary_encode()
    table: list[CodeKey] = [(system, code) for code in encoded.dictionary.to_pylist()]
    return EventColumns(encoded.indices.to_numpy(), days, _offsets(lengths), table)


def _other_events(events: Any) -> EventColumns | None:
    """Return the events that name their code system; a patient may have none."""
    from pyarrow import types

    lengths = events.value_lengths().fill_null(0).to_numpy() if types.is_list(events.type) else None
    if lengths is None:
        return None
    flat = events.flatten()
    if not len(flat):
        return EventColumns(np.empty(0, np.int32), np.empty(0, np.int32), _offsets(lengths), [])
    if not types.is_struct(flat.type) or flat.null_count:
        return None
    names = [flat.type.field(i).name for i in range(flat.type.num_fields)]
    if not {"system", "code", "date"} <= set(names):
        return None
    children = dict(zip(names, flat.flatten(), strict=True))
    systems, codes, dates = (children[name] for name in ("system", "code", "date"))
    if any(part.null_count for part in (systems, codes, dates)):
        return None
    if not all(types.is_string(part.type) for part in (systems, codes)):
        return None
    days, of_system, of_code = _days(dates), systems.dictionary_encode(), codes.dictionary_encode()
    if days is None:
        return None
    try:
        own = [code_system(name).name for name in of_system.dictionary.to_pylist()]
    except ValueError:
        return None
    texts = of_code.dictionary.to_pylist()
    pairs = of_system.indices.to_numpy().astype(np.int64) * len(texts) + of_code.indices.to_numpy()
    distinct, place = np.unique(pairs, return_inverse=True)
    table: list[CodeKey] = [(own[pair // len(texts)], texts[pair % len(texts)]) for pair in distinct.tolist()]
    measured = _measured(children, len(flat))
    if measured is None:
        return None
    found = EventColumns(place.astype(np.int32), days, _offsets(lengths), table)
    return replace(found, measured=measured) if measured.any else found


def _measured(children: dict[str, Any], n: int) -> Measured | None:
    """Return the results of N events; None where one is no number of 32 bits, or no flag."""
    from pyarrow import compute, types

    found = nothing_measured(n)
    values, flags = children.get("value"), children.get("flag")
    if values is not None and values.null_count < n:
        if not (types.is_floating(values.type) or types.is_integer(values.type)):
            return None
        known = values.is_valid().to_numpy(zero_copy_only=False)
        numbers = values.drop_null().to_numpy().astype(np.float64)
        if not (np.abs(numbers) <= LARGEST).all():
            return None
        found.values[known] = numbers
    if flags is not None and flags.null_count < n:
        places = compute.index_in(flags, value_set=_texts(FLAGS)) if types.is_string(flags.type) else None
        if places is None or places.null_count > flags.null_count:
            return None
        found.flags[:] = places.fill_null(NO_FLAG).to_numpy()
    return found


def _texts(texts: Sequence[str]) -> Any:
    import pyarrow

    return pyarrow.array(texts, pyarrow.string())


def _period(dates: Any) -> np.ndarray | None:
    """Return the days of an optional field, (N,) int32, `NO_DAY` where it is null; None where one is no day."""
    from pyarrow import types

    if types.is_null(dates.type):
        return np.full(len(dates), NO_DAY, dtype=np.int32)
    days = np.full(len(dates), NO_DAY, dtype=np.int32)
    known = _days(dates.drop_null())
    if known is None:
        return None
    days[dates.is_valid().to_numpy(zero_copy_only=False)] = known
    return days


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))


def _days(dates: Any) -> np.ndarray | None:
    """Return days since 1970-01-01 of dates or of text YYYYMMDD, (n,) int32; None where one is something else."""
    import pyarrow
    from pyarrow import types

    if types.is_date32(dates.type):
        days = dates.cast(pyarrow.int32()).to_numpy()
        starts = _month_starts()
        return None if ((days < starts[0]) | (days >= starts[-1])).any() else days
    if not types.is_string(dates.type):
        return None
    if len(dates) == 0:
        return np.empty(0, dtype=np.int32)
    _, offsets, content = dates.buffers()
    ends = np.frombuffer(offsets, dtype=np.int32)[dates.offset : dates.offset + len(dates) + 1]
    if (np.diff(ends) != _DIGITS).any():
        return None
    digits = np.frombuffer(content, dtype=np.uint8)[ends[0] : ends[-1]].reshape(-1, _DIGITS) - np.uint8(ord("0"))
    if (digits > 9).any():
        return None
    number = digits @ (10 ** np.arange(_DIGITS - 1, -1, -1, dtype=np.int32))
    year, month, day = number // 10_000, number // 100 % 100, number % 100
    if (year < 1).any() or (month < 1).any() or (month > 12).any():
        return None
    starts = _month_starts()
    at = (year - 1) * 12 + month - 1
    if (day < 1).any() or (day > starts[at + 1] - starts[at]).any():
        return None
    return starts[at] + day - np.int32(1)


@cache
def _month_starts() -> np.ndarray:
    """Return the first day of each month of the years 1 to 9999 and of the month after, since `EPOCH`, int32."""
    months = np.arange("0001-01", "10000-02", dtype="datetime64[M]").astype("datetime64[D]")
    return (months - np.datetime64(EPOCH)).astype(np.int32)
