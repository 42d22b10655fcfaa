"""Files of patients: JSON, JSON lines (also gzipped) and Parquet, read with full validation and written whole.

JSON lines and Parquet are read and written as streams, so memory does not grow with the patients; a ``.json`` file
is one list and is read at once. Work is done on columns of a few thousand patients: JSON lines and Parquet come as
Arrow tables, and only what is unusual about them is looked at as records, to read it with care or to name it.
"""

import gc
import gzip
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from itertools import chain, count, islice
from operator import itemgetter
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import orjson

from exmed_bert.console import InputError, warn
from exmed_bert.data import arrow
from exmed_bert.data.patient import EventColumns, PatientColumns, day_number
from exmed_bert.files import atomic_write, existing_file

CHUNK = 10_000  # patients worked on at once: large enough for numpy, small enough for the memory
FORMATS = (".json", ".jsonl", ".jsonl.gz", ".parquet")

_FIELDS = (
    "patient_id",
    "birth_year",
    "sex",
    "patient_state",
    "diagnoses",
    "diagnosis_dates",
    "drugs",
    "prescription_dates",
)
_KNOWN = {*_FIELDS, "had_plos"}
_REQUIRED = itemgetter(*_FIELDS)
_BIRTH_YEARS = range(1850, 2101)

_ROW_GROUP = 10_000  # patients in a row group of a Parquet file: another size would give other bytes


def file_format(path: Path) -> str:
    """Return the format that a file name asks for.

    >>> file_format(Path("data/p.jsonl.gz"))
    '.jsonl.gz'

    Raises:
        InputError: the extension is none of ours.
    """
    name = Path(path).name.lower()
    for extension in sorted(FORMATS, key=len, reverse=True):
        if name.endswith(extension):
            return extension
    raise InputError(f"{path}: unknown kind of file, expected one of {', '.join(FORMATS)}")


def read_patients(path: Path, chunk: int = CHUNK) -> Iterator[PatientColumns]:
    """Yield the patients of a file as columns, ``chunk`` at a time.

    Codes, sexes and states are passed on as they stand; what they mean is decided where they are encoded. A field
    that is not ours is ignored and named once.

    Raises:
        InputError: the file is missing, broken or empty, or a record is wrong. Names record, field and value.
    """
    existing_file(path, "make it with: python scripts/generate_synthetic_patients.py")
    read = {".json": _json_records, ".parquet": _parquet_records}.get(file_format(path), _json_line_records)
    unknown: set[str] = set()
    chunks = read(path, chunk, unknown)
    first = 1
    while True:
        with _no_garbage_collection():
            patients = next(chunks, None)
            if patients is None:
                break
            if isinstance(patients, list):
                patients = _columns(path, patients, first, unknown)
            first += len(patients)
        yield patients
    if first == 1:
        raise InputError(f"{path}: holds no patients")
    if unknown:
        warn(f"{path}: fields that are not used: {', '.join(sorted(unknown))}")


@dataclass(frozen=True)
class Piece:
    """Some patients in the form in which they go into a file: the records' bytes (JSON), or columns (Parquet)."""

    patients: int
    content: bytes | PatientColumns


def prepare(columns: PatientColumns, extension: str) -> Piece:
    """Return patients as `write_pieces` takes them; all the work on JSON is done here, in any process.

    >>> nobody = EventColumns(np.empty(0, np.int32), np.empty(0, np.int32), np.zeros(2, np.int64), [])
    >>> patient = PatientColumns([7], np.array([1950]), ["MALE"], [None], np.array([-1]), nobody, nobody)
    >>> prepare(patient, ".jsonl").content[:36]
    b'{"patient_id":7,"birth_year":1950,"s'
    """
    if extension == ".parquet":
        return Piece(len(columns), columns)
    if extension == ".json":
        return Piece(len(columns), b",\n".join(map(orjson.dumps, columns.records())))
    lines = (orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in columns.records())
    return Piece(len(columns), b"".join(lines))


def write_patients(path: Path, chunks: Iterable[PatientColumns]) -> int:
    """Write patients in the format of the file name, whole or not at all; return how many.

    Raises:
        InputError: unknown extension, or the file cannot be written.
    """
    extension = file_format(path)
    return write_pieces(path, (prepare(columns, extension) for columns in chunks))


def write_pieces(path: Path, pieces: Iterable[Piece]) -> int:
    """Write patients that were prepared for the format of the file name, whole or not at all; return how many.

    The file depends on the patients alone, not on how they are cut into pieces.

    Raises:
        InputError: unknown extension, or the file cannot be written.
    """
    writer = {".json": _write_json, ".jsonl": _write_json_lines, ".jsonl.gz": _write_gzip, ".parquet": _write_parquet}
    write = writer[file_format(path)]
    count = 0

    def counted() -> Iterator[Any]:
        nonlocal count
        for piece in pieces:
            if piece.patients:
                count += piece.patients
                yield piece.content

    with atomic_write(path) as part:
        write(part, counted())
    return count


# Reading -------------------------------------------------------------------------------------------------------------

# Each reader yields columns, or a list of records that have to be looked at one by one; fields that are not ours are
# added to a set.


def _json_records(path: Path, chunk: int, unknown: set[str]) -> Iterator[list[Any]]:
    try:
        records = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise InputError(
            f"{path}: is not JSON, or is cut short: line {error.lineno}, column {error.colno}: {error.msg}"
        ) from None
    if not isinstance(records, list):
        raise InputError(f"{path}: expected a list of patients, got {_kind(records)}")
    for start in range(0, len(records), chunk):
        yield records[start : start + chunk]


def _json_line_records(path: Path, chunk: int, unknown: set[str]) -> Iterator[PatientColumns | list[Any]]:
    opened: Callable[..., Any] = gzip.open if file_format(path) == ".jsonl.gz" else open
    before = 0
    try:
        with opened(path, "rb") as lines:
            filled = (line for line in lines if not line.isspace())
            while batch := list(islice(filled, chunk)):
                columns = _from_table(arrow.parse_json_lines(batch), unknown)
                yield _parsed(path, batch, before) if columns is None else columns
                before += len(batch)
    except (gzip.BadGzipFile, EOFError) as error:
        raise InputError(f"{path}: is no whole gzip file: {error}") from None


def _from_table(table: Any | None, unknown: set[str]) -> PatientColumns | None:
    columns = None if table is None else arrow.patient_columns(table)
    if columns is None or not {columns.birth_years.min(), columns.birth_years.max()} <= set(_BIRTH_YEARS):
        return None
    unknown.update(set(table.column_names) - _KNOWN)
    return columns


def _parsed(path: Path, lines: list[bytes], before: int) -> list[Any]:
    """Return the record of each line, all parsed at once; one by one only where an error has to be named."""
    try:
        records = orjson.loads(b"[" + b",".join(lines) + b"]")
        if len(records) == len(lines):
            return records
    except orjson.JSONDecodeError:
        pass
    records = []
    for number, line in enumerate(lines, start=before + 1):
        try:
            records.append(orjson.loads(line))
        except orjson.JSONDecodeError as error:
            raise InputError(f"{path}: record {number}: is not JSON, or is cut short: {error.msg}") from None
    return records


def _parquet_records(path: Path, chunk: int, unknown: set[str]) -> Iterator[PatientColumns | list[Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=chunk):
                table = pyarrow.Table.from_batches([batch])
                columns = _from_table(table, unknown)
                yield table.to_pylist() if columns is None else columns
    except (pyarrow.ArrowInvalid, pyarrow.ArrowException) as error:
        raise InputError(f"{path}: is no Parquet file, or is cut short: {error}") from None


def _columns(path: Path, records: list[Any], first: int, unknown: set[str]) -> PatientColumns:
    """Validate records and turn them into columns; ``first`` is the number of the first record in the file."""

    def refuse(index: int, field: str, problem: str) -> NoReturn:
        patient_id = records[index].get("patient_id", "missing")
        raise InputError(f"{path}: record {first + index} (patient_id {patient_id!r}): {field}: {problem}")

    if set(map(type, records)) != {dict}:
        index = next(i for i, record in enumerate(records) if type(record) is not dict)
        raise InputError(f"{path}: record {first + index}: expected an object, got {_kind(records[index])}")
    unknown.update(set().union(*records) - _KNOWN)

    try:
        rows = list(map(_REQUIRED, records))
    except KeyError as error:
        refuse(next(i for i, record in enumerate(records) if error.args[0] not in record), error.args[0], "is missing")
    column: dict[str, list[Any]] = dict(zip(_FIELDS, map(list, zip(*rows, strict=True)), strict=True))
    column["had_plos"] = [record.get("had_plos") for record in records]

    text = (str, type(None))
    for field, allowed, wanted in (
        ("patient_id", (int, str), "a whole number or a string"),
        ("birth_year", (int,), "a year"),
        ("sex", text, "a string or null"),
        ("patient_state", text, "a string or null"),
        ("had_plos", (bool, type(None)), "true, false or null"),
    ):
        _check_types(
            column[field], allowed, lambda i, value, f=field, w=wanted: refuse(i, f, f"{value!r}, expected {w}")
        )
    for index, year in enumerate(column["birth_year"]):
        if year not in _BIRTH_YEARS:
            refuse(index, "birth_year", f"{year}, expected {_BIRTH_YEARS.start} to {_BIRTH_YEARS.stop - 1}")

    return PatientColumns(
        patient_ids=column["patient_id"],
        birth_years=np.array(column["birth_year"], dtype=np.int32),
        sexes=column["sex"],
        states=column["patient_state"],
        plos=np.array([-1 if value is None else int(value) for value in column["had_plos"]], dtype=np.int8),
        diagnoses=_events(column, "diagnoses", "diagnosis_dates", refuse),
        drugs=_events(column, "drugs", "prescription_dates", refuse),
    )


def _events(
    column: dict[str, list[Any]], code_field: str, date_field: str, refuse: Callable[[int, str, str], NoReturn]
) -> EventColumns:
    for field in (code_field, date_field):
        _check_types(column[field], (list,), lambda i, value, f=field: refuse(i, f, f"{value!r}, expected a list"))
    lengths = np.fromiter(map(len, column[code_field]), dtype=np.int64, count=len(column[code_field]))
    date_lengths = np.fromiter(map(len, column[date_field]), dtype=np.int64, count=len(lengths))
    if (lengths != date_lengths).any():
        index = int((lengths != date_lengths).argmax())
        refuse(index, date_field, f"{date_lengths[index]} dates for {lengths[index]} {code_field}, expected one each")
    offsets = np.concatenate(([0], np.cumsum(lengths)))

    def refuse_event(event: int, field: str, problem: str) -> NoReturn:
        index = int(np.searchsorted(offsets, event, side="right")) - 1
        refuse(index, f"{field}[{event - int(offsets[index])}]", problem)

    codes = list(chain.from_iterable(column[code_field]))
    code_ids, table = _distinct(codes)
    if table is None or not all(type(code) is str for code in table):
        event = next(i for i, code in enumerate(codes) if type(code) is not str)
        refuse_event(event, code_field, f"{codes[event]!r}, expected a code as a string")
    dates = list(chain.from_iterable(column[date_field]))
    date_ids, distinct_dates = _distinct(dates)
    if distinct_dates is None:
        event = next(i for i, value in enumerate(dates) if isinstance(value, list | dict))
        refuse_event(event, date_field, f"{dates[event]!r}, expected a date as YYYYMMDD")
    days = [_parse_day(value) for value in distinct_dates]
    if None in days:
        wrong = distinct_dates[days.index(None)]
        refuse_event(dates.index(wrong), date_field, f"{wrong!r} is no date, expected YYYYMMDD")
    return EventColumns(
        codes=code_ids,
        days=np.array(days, dtype=np.int32)[date_ids] if days else np.empty(0, dtype=np.int32),
        offsets=offsets,
        table=table,
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


def _parse_day(value: Any) -> int | None:
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


def _check_types(values: list[Any], allowed: tuple[type, ...], refuse: Callable[[int, Any], NoReturn]) -> None:
    """Call ``refuse`` with the first value whose type is not allowed. A bool is no int."""
    wrong = {kind for kind in set(map(type, values)) if kind not in allowed}
    if wrong:
        index = next(i for i, value in enumerate(values) if type(value) in wrong)
        refuse(index, values[index])


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Hold back the search for reference cycles: parsed JSON has none, and looking costs as much as parsing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", int: "a number", float: "a number", bool: "true/false"}
    return names.get(type(value), "null")


# Writing -------------------------------------------------------------------------------------------------------------


def _write_json(path: Path, pieces: Iterator[bytes]) -> None:
    with open(path, "wb") as file:
        file.write(b"[")
        separator = b"\n"
        for content in pieces:
            file.write(separator)
            file.write(content)
            separator = b",\n"
        file.write(b"]\n" if separator == b"\n" else b"\n]\n")


def _write_json_lines(path: Path, pieces: Iterator[bytes]) -> None:
    with open(path, "wb") as file:
        file.writelines(pieces)


def _write_gzip(path: Path, pieces: Iterator[bytes]) -> None:
    # No name and no time in the header, so that the same patients give the same bytes.
    with open(path, "wb") as raw, gzip.GzipFile("", "wb", compresslevel=5, fileobj=raw, mtime=0) as file:
        file.writelines(pieces)


def _write_parquet(path: Path, pieces: Iterator[PatientColumns]) -> None:
    import pyarrow
    import pyarrow.parquet

    writer = None
    try:
        for table in _row_groups(pyarrow, (_arrow_table(pyarrow, columns) for columns in pieces)):
            if writer is None:
                writer = pyarrow.parquet.ParquetWriter(path, table.schema, compression="zstd")
            writer.write_table(table, row_group_size=_ROW_GROUP)
    finally:
        if writer is not None:
            writer.close()


def _row_groups(pyarrow: Any, tables: Iterable[Any]) -> Iterator[Any]:
    """Yield the rows of Arrow tables as tables of `_ROW_GROUP` rows each, wherever the given ones end."""
    waiting, rows = [], 0
    for table in tables:
        waiting.append(table)
        rows += len(table)
        while rows >= _ROW_GROUP:
            joined = pyarrow.concat_tables(waiting)
            yield joined.slice(0, _ROW_GROUP).combine_chunks()
            waiting, rows = [joined.slice(_ROW_GROUP)], rows - _ROW_GROUP
    if rows:
        yield pyarrow.concat_tables(waiting).combine_chunks()


def _arrow_table(pyarrow: Any, columns: PatientColumns) -> Any:
    text = pyarrow.string()
    integers = all(isinstance(patient_id, int) for patient_id in columns.patient_ids)

    def lists(events: EventColumns) -> tuple[Any, Any]:
        offsets = pyarrow.array(events.offsets, pyarrow.int32())
        codes = pyarrow.DictionaryArray.from_arrays(events.codes, pyarrow.array(events.table, text)).cast(text)
        days = pyarrow.array(events.days, pyarrow.int32()).cast(pyarrow.date32())
        return pyarrow.ListArray.from_arrays(offsets, codes), pyarrow.ListArray.from_arrays(offsets, days)

    diagnoses, diagnosis_dates = lists(columns.diagnoses)
    drugs, prescription_dates = lists(columns.drugs)
    return pyarrow.table(
        {
            "patient_id": pyarrow.array(columns.patient_ids, pyarrow.int64() if integers else text),
            "birth_year": pyarrow.array(columns.birth_years, pyarrow.int32()),
            "sex": pyarrow.array(columns.sexes, text),
            "patient_state": pyarrow.array(columns.states, text),
            "diagnoses": diagnoses,
            "diagnosis_dates": diagnosis_dates,
            "drugs": drugs,
            "prescription_dates": prescription_dates,
            "had_plos": pyarrow.array(columns.plos == 1, mask=columns.plos < 0),
        }
    )
