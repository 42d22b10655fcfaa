"""Writing files of patients: JSON, JSON lines (also gzipped) and Parquet, as streams, each whole or not at all."""

import gzip
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from exmed_bert.data.formats import file_format
from exmed_bert.data.measured import FLAGS, NO_FLAG, nothing_measured
from exmed_bert.data.patient import LISTED, NO_DAY, PERIOD_FIELDS, EventColumns, PatientColumns
from exmed_bert.data.static_columns import SEX, STATE, StaticColumn
from exmed_bert.staging import atomic_write

_ROW_GROUP = 10_000  # patients in a row group of a Parquet file: another size would give other bytes


@dataclass(frozen=True)
class Fields:
    """What a file holds beside the fields that every record has; the columns of a Parquet file are settled by it.

    Attributes:
        static_columns: those beside sex and state.
        periods: the days of observation and death.
        events: events of further code systems.
        values: values of these.
    """

    static_columns: tuple[StaticColumn, ...] = ()
    periods: bool = False
    events: bool = False
    values: bool = False


BASIC = Fields()


@dataclass(frozen=True)
class Piece:
    """Some patients in the form in which they go into a file: the records' bytes (JSON), or columns (Parquet)."""

    patients: int
    content: Any


def prepare(columns: PatientColumns, extension: str, fields: Fields = BASIC) -> Piece:
    """Return patients as `write_pieces` takes them; all the work on JSON is done here, in any process.

    Args:
        columns: the patients.
        extension: of the file.
        fields: what the file holds beside the basic fields.

    Raises:
        ValueError: the patients have days of observation or events of further systems, and ``fields`` has none.

    >>> from exmed_bert.data.patient import no_events
    >>> static = {"sex": ["MALE"], "state": [None]}
    >>> patient = PatientColumns([7], np.array([1950]), static, np.array([-1]), no_events(1))
    >>> prepare(patient, ".jsonl").content[:36]
    b'{"patient_id":7,"birth_year":1950,"s'
    """
    others = any(system not in LISTED for system, _ in columns.events.table)
    values = columns.events.measured is not None
    if (others and not fields.events) or (columns.periods and not fields.periods) or (values and not fields.values):
        raise ValueError("the patients have fields that the file is not to hold")
    if extension == ".parquet":
        return Piece(len(columns), (columns, fields))
    records = columns.records(fields.static_columns)
    if extension == ".json":
        return Piece(len(columns), b",\n".join(map(orjson.dumps, records)))
    lines = (orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in records)
    return Piece(len(columns), b"".join(lines))


def write_patients(path: Path, chunks: Iterable[PatientColumns], fields: Fields = BASIC) -> int:
    """Write patients in the format of the file name, whole or not at all; return how many.

    Args:
        path: the file.
        chunks: the patients.
        fields: what the file holds beside the basic fields.

    Raises:
        InputError: unknown extension, or the file cannot be written.
    """
    extension = file_format(path)
    return write_pieces(path, (prepare(columns, extension, fields) for columns in chunks))


def write_pieces(path: Path, pieces: Iterable[Piece]) -> int:
    """Write patients that were prepared for the format of the file name, whole or not at all; return how many.

    The file depends on the patients alone, not on how they are cut into pieces.

    Raises:
        InputError: unknown extension, or the file cannot be written.
    """
    writers: dict[str, Callable[[Path, Iterator[Any]], None]] = {
        ".json": _write_json,
        ".jsonl": _write_json_lines,
        ".jsonl.gz": _write_gzip,
        ".parquet": _write_parquet,
    }
    write = writers[file_format(path)]
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


def _write_parquet(path: Path, pieces: Iterator[tuple[PatientColumns, Fields]]) -> None:
    import pyarrow.parquet

    writer = None
    try:
        for table in _row_groups(_arrow_table(columns, fields) for columns, fields in pieces):
            if writer is None:
                writer = pyarrow.parquet.ParquetWriter(path, table.schema, compression="zstd", write_page_checksum=True)
            writer.write_table(table, row_group_size=_ROW_GROUP)
    finally:
        if writer is not None:
            writer.close()


def _row_groups(tables: Iterable[Any]) -> Iterator[Any]:
    """Yield the rows of Arrow tables as tables of `_ROW_GROUP` rows each, wherever the given ones end."""
    import pyarrow

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


def _arrow_table(columns: PatientColumns, fields: Fields) -> Any:
    import pyarrow

    text = pyarrow.string()
    integers = all(isinstance(patient_id, int) for patient_id in columns.patient_ids)

    def lists(events: EventColumns) -> tuple[Any, Any, Any]:
        """Return offsets, codes and days."""
        spelled = pyarrow.array([code for _, code in events.table], text)
        codes = pyarrow.DictionaryArray.from_arrays(events.codes, spelled).cast(text)
        days = pyarrow.array(events.days, pyarrow.int32()).cast(pyarrow.date32())
        return pyarrow.array(events.offsets, pyarrow.int32()), codes, days

    content = {
        "patient_id": pyarrow.array(columns.patient_ids, pyarrow.int64() if integers else text),
        "birth_year": pyarrow.array(columns.birth_years, pyarrow.int32()),
        "sex": pyarrow.array(columns.static[SEX.name], text),
        "patient_state": pyarrow.array(columns.static[STATE.name], text),
    }
    for system, (codes_field, dates_field) in LISTED.items():
        offsets, codes, days = lists(columns.events.of_system(system))
        content[codes_field] = pyarrow.ListArray.from_arrays(offsets, codes)
        content[dates_field] = pyarrow.ListArray.from_arrays(offsets, days)
    content["had_plos"] = pyarrow.array(columns.plos == 1, mask=columns.plos < 0)
    for column in fields.static_columns:
        content[column.field] = pyarrow.array(columns.static[column.name], text)
    if fields.periods:
        for name in PERIOD_FIELDS:
            known = columns.period(name)
            content[name] = pyarrow.array(known, pyarrow.int32(), mask=known == NO_DAY).cast(pyarrow.date32())
    if fields.events:
        is_other = np.array([system not in LISTED for system, _ in columns.events.table], dtype=bool)
        others = columns.events.where(is_other[columns.events.codes] if len(is_other) else np.zeros(0, dtype=bool))
        offsets, codes, days = lists(others)
        names = pyarrow.array([system for system, _ in others.table], text)
        systems = pyarrow.DictionaryArray.from_arrays(others.codes, names).cast(text)
        parts = {"system": systems, "code": codes, "date": days}
        if fields.values:
            measured = others.measured or nothing_measured(len(others.codes))
            parts["value"] = pyarrow.array(measured.values, pyarrow.float32(), mask=np.isnan(measured.values))
            places = pyarrow.array(measured.flags, pyarrow.int8(), mask=measured.flags == NO_FLAG)
            parts["flag"] = pyarrow.DictionaryArray.from_arrays(places, pyarrow.array(FLAGS, text)).cast(text)
        events = pyarrow.StructArray.from_arrays(list(parts.values()), list(parts))
        content["events"] = pyarrow.ListArray.from_arrays(offsets, events)
    return pyarrow.table(content)
