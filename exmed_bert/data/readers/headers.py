"""The names of a table's columns, from the first line of a text file or the schema of a Parquet file."""

import csv
import gzip
import io
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from exmed_bert.console import InputError

_SEPARATORS = (",", ";", "\t", "|")  # of columns; the first is that of a single column
UTF_8 = "utf-8-sig"  # without the mark that Excel puts before it
SAVE_AS_UTF_8 = "save it as UTF-8, or, if it is a table of your own, say encoding=latin-1 in --columns"
_LONGEST = 1_000_000  # characters of a header


def text_header(path: Path, encoding: str = UTF_8) -> tuple[str, ...]:
    """Return what separates the columns of a .csv or .tsv, which may be gzipped, and then their names.

    Args:
        path: the file.
        encoding: of its text, a name of Python's.

    Raises:
        InputError: the file is damaged, has no header, or one with a name twice.
    """
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        # Of what stands behind the header nothing is said here.
        with opened(path, "rb") as file, io.TextIOWrapper(file, encoding, "surrogateescape", newline="") as text:
            line = text.readline(_LONGEST)
        line.encode()
    except UnicodeError:
        expected = "UTF-8" if encoding == UTF_8 else encoding
        raise InputError(f"{path}: is not {expected} text; {SAVE_AS_UTF_8}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: is no whole gzip file, or cannot be read: {error}") from None
    separator = max(_SEPARATORS, key=line.count)
    try:
        columns = next(csv.reader([line.rstrip("\r\n")], delimiter=separator), [])
    except csv.Error as error:
        raise InputError(f"{path}: line 1: {error}, expected a line with the names of the columns") from None
    if not any(map(str.strip, columns)) or "\x00" in line:
        raise InputError(f"{path}: has no header, expected a line with the names of the columns")
    # Columns without a name are of no use, but have to be passed over.
    columns = [column.strip() or f"column {number}" for number, column in enumerate(columns, start=1)]
    counts = Counter(column.lower() for column in columns)
    twice = {column for column in columns if counts[column.lower()] > 1}
    if twice:
        raise InputError(f"{path}: the column {min(twice)!r} is there twice, expected each name once")
    return (separator, *columns)


def column_names(path: Path) -> frozenset[str]:
    """Return the names of the columns of a .parquet, .csv or .tsv, the last two also .gz, in lower case.

    To recognize formats: a file that is no such table has none, and what is wrong with it is said where it is read.
    """
    if not path.name.lower().endswith(".parquet"):
        try:
            return frozenset(column.lower() for column in text_header(path)[1:])
        except InputError:
            return frozenset()
    import pyarrow
    import pyarrow.parquet

    try:
        return frozenset(column.strip().lower() for column in pyarrow.parquet.read_schema(path).names)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError):
        return frozenset()


def time_zone(paths: Sequence[Path], column: str) -> str:
    """Return the time zone of a column of Parquet files: ``UTC``, a name or an offset.

    Raises:
        InputError: the files name different ones.
    """
    import pyarrow.parquet

    found: dict[str, Path] = {}
    for path in paths:
        for field in pyarrow.parquet.read_schema(path):
            if field.name.strip().lower() == column.lower():
                found.setdefault(getattr(field.type, "tz", None) or "UTC", path)
    if len(found) > 1:
        zones = " and ".join(f"{zone} in {path.name}" for zone, path in found.items())
        raise InputError(f"{paths[0].parent}: {column} has time zones that differ, {zones}; expected one")
    return next(iter(found), "UTC")
