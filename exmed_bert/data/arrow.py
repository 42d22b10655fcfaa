"""Patients from Arrow tables: the quick way to read JSON lines and Parquet.

Only what is surely right is read this way. Anything else, whether wrong or merely unusual, gives None, and the records
are then looked at one by one (`exmed_bert.data.io`), which finds what to say about them.
"""

from functools import cache
from typing import Any

import numpy as np

from exmed_bert.data.patient import EPOCH, EventColumns, PatientColumns

_DIGITS = 8  # of a date, YYYYMMDD
_TEXT = ("sex", "patient_state")
_EVENTS = (("diagnoses", "diagnosis_dates"), ("drugs", "prescription_dates"))


def parse_json_lines(lines: list[bytes]) -> Any | None:
    """Return the table of the given JSON objects, one a line; None where that is not what they are."""
    import pyarrow
    from pyarrow import json

    text = pyarrow.string()
    fields = dict.fromkeys(_TEXT, text) | {name: pyarrow.list_(text) for pair in _EVENTS for name in pair}
    fields |= {"birth_year": pyarrow.int64(), "had_plos": pyarrow.bool_()}
    content = b"".join(lines)
    try:
        table = json.read_json(
            pyarrow.BufferReader(content),
            json.ReadOptions(use_threads=False, block_size=len(content) + 1),
            json.ParseOptions(explicit_schema=pyarrow.schema(fields.items())),
        )
        table.validate(full=True)  # that text is UTF-8, for one
    except pyarrow.ArrowException:
        return None
    # Neither a record that is missing, nor a field: a null may stand for both.
    complete = len(table) == len(lines) and not any(table[name].null_count for name in _TEXT)
    return table if complete else None


def patient_columns(table: Any) -> PatientColumns | None:
    """Return the patients of a table, None where a field is missing, or has an unusual type or an impossible value."""
    import pyarrow
    from pyarrow import types

    try:
        ids, years, sexes, states, plos = (
            table[name].combine_chunks() for name in ("patient_id", "birth_year", *_TEXT, "had_plos")
        )
        events = [_events(*(table[name].combine_chunks() for name in pair)) for pair in _EVENTS]
    except KeyError:
        return None
    if ids.null_count or years.null_count or None in events:
        return None
    if not (types.is_integer(ids.type) or types.is_string(ids.type)) or not types.is_integer(years.type):
        return None
    if not all(types.is_string(column.type) for column in (sexes, states)) or not types.is_boolean(plos.type):
        return None
    return PatientColumns(
        patient_ids=ids.to_pylist(),
        birth_years=years.to_numpy(),
        sexes=sexes.to_pylist(),
        states=states.to_pylist(),
        plos=plos.cast(pyarrow.int8()).fill_null(-1).to_numpy(),
        diagnoses=events[0],
        drugs=events[1],
    )


def _events(codes: Any, dates: Any) -> EventColumns | None:
    """Return codes and days of all patients; each argument holds a list a patient."""
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
    offsets = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
    return EventColumns(encoded.indices.to_numpy(), days, offsets, encoded.dictionary.to_pylist())


def _days(dates: Any) -> np.ndarray | None:
    """Return days since 1970-01-01 of dates or of text YYYYMMDD, (n,) int32; None where one is something else."""
    import pyarrow
    from pyarrow import types

    if types.is_date32(dates.type):
        return dates.cast(pyarrow.int32()).to_numpy()
    if not types.is_string(dates.type):
        return None
    _, offsets, content = dates.buffers()
    ends = np.frombuffer(offsets, dtype=np.int32)[dates.offset : dates.offset + len(dates) + 1] if offsets else None
    if len(dates) == 0:
        return np.empty(0, dtype=np.int32)
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
