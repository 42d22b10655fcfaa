"""Patients from ``.jsonl`` and ``.jsonl.gz`` files: a record on each line, read as a stream."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson

from exmed_bert.console import InputError
from exmed_bert.data.bounded import open_bounded
from exmed_bert.data.patient import PatientColumns
from exmed_bert.data.readers import arrow
from exmed_bert.data.readers.duplicate_keys import duplicate_keys
from exmed_bert.data.readers.records import RecordReader, from_table
from exmed_bert.data.readers.validation import RecordFields

_AT_ONCE = 2**26  # bytes of lines


class JsonLinesReader(RecordReader):
    """Reads lines of JSON; blank lines are skipped."""

    name = "jsonl"
    title = "our own records, one per line"
    extensions = (".jsonl", ".jsonl.gz")

    def parts(self, path: Path, fields: RecordFields, size: int) -> Iterator[PatientColumns | list[Any]]:
        """Yield ``size`` patients at a time."""
        before = 0
        with open_bounded(path) as lines:
            for batch in _batches(lines, size):
                columns = from_table(arrow.parse_json_lines(batch, fields), fields)
                yield _parsed(path, batch, before, fields) if columns is None else columns
                before += len(batch)


def _batches(lines: Iterable[bytes], size: int) -> Iterator[list[bytes]]:
    """Yield lines that are not blank, ``size`` at a time, or fewer that are long."""
    batch: list[bytes] = []
    held = 0
    for line in lines:
        if not line.isspace():
            batch.append(line)
            held += len(line)
            if len(batch) == size or held >= _AT_ONCE:
                yield batch
                batch, held = [], 0
    if batch:
        yield batch


def _parsed(path: Path, lines: list[bytes], before: int, fields: RecordFields) -> list[Any]:
    """Return the record of each line, all parsed at once; one by one only where an error has to be named."""
    try:
        content = b"[" + b",".join(lines) + b"]"
        records = orjson.loads(content)
        if len(records) == len(lines):
            fields.repeated.update(duplicate_keys(content, records, fields.known))
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
