"""The readers there are, and which of them a path is for."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from exmed_bert.console import InputError
from exmed_bert.data.formats import file_format
from exmed_bert.data.patient import PatientColumns
from exmed_bert.data.readers.base import CHUNK, Reader
from exmed_bert.data.readers.json import JsonReader
from exmed_bert.data.readers.jsonl import JsonLinesReader
from exmed_bert.data.readers.parquet import ParquetReader
from exmed_bert.data.static_columns import BUILT_IN, StaticColumn
from exmed_bert.files import existing_file
from exmed_bert.startup import called

READERS: tuple[Reader, ...] = (JsonReader(), JsonLinesReader(), ParquetReader())


def reader_of(path: Path) -> Reader:
    """Return the reader of a path.

    Raises:
        InputError: there is none.
    """
    for reader in READERS:
        if reader.recognizes(path):
            return reader
    file_format(path)  # names the formats
    raise InputError(f"{path}: no reader knows this kind of file")


def read_patients(
    path: Path, static_columns: Sequence[StaticColumn] = BUILT_IN, size: int = CHUNK
) -> Iterator[PatientColumns]:
    """Yield the patients of a file as columns, ``size`` at a time.

    A field that is not ours is ignored and named once.

    Args:
        path: the file.
        static_columns: those that are read.
        size: patients in a chunk.

    Raises:
        InputError: the file is missing, broken or empty, or a record is wrong. Names record, field and value.
    """
    existing_file(path, f"make it with: {called('generate')}")
    found = False
    for patients in reader_of(path).chunks(path, static_columns, size):
        found = True
        yield patients
    if not found:
        raise InputError(f"{path}: holds no patients")


def fingerprint(path: Path) -> str:
    """Return a digest of the patients' file or files, 32 hexadecimal digits."""
    return reader_of(path).fingerprint(path)
