"""Patients from a ``.json`` file: one list of records, read at once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from exmed_bert.console import InputError
from exmed_bert.data.patient import PatientColumns
from exmed_bert.data.readers.duplicate_keys import duplicate_keys
from exmed_bert.data.readers.records import RecordReader
from exmed_bert.data.readers.validation import RecordFields, kind_of


class JsonReader(RecordReader):
    """Reads a list of records."""

    name = "json"
    title = "our own records, one list"
    extensions = (".json",)

    def parts(self, path: Path, fields: RecordFields, size: int) -> Iterator[PatientColumns | list[Any]]:
        """Yield records, ``size`` at a time."""
        try:
            content = path.read_bytes()
            records = orjson.loads(content)
        except orjson.JSONDecodeError as error:
            raise InputError(
                f"{path}: is not JSON, or is cut short: line {error.lineno}, column {error.colno}: {error.msg}"
            ) from None
        if not isinstance(records, list):
            raise InputError(f"{path}: expected a list of patients, got {kind_of(records)}")
        fields.repeated.update(duplicate_keys(content, records, fields.known))
        del content
        for start in range(0, len(records), size):
            yield records[start : start + size]
