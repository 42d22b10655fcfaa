"""Limits to what a small file may become in memory, whatever it says of itself.

Compressed text, Parquet and ``torch.save`` can hold in kilobytes what fills any memory. No data of patients comes near
these limits: text of records shrinks to a tenth, seldom to a thirtieth, and a patient of ten million codes is a line of
some 250 MB.
"""

import gzip
import io
import zipfile
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from exmed_bert.console import InputError
from exmed_bert.data.gzipped import NO_GZIP, check_unpacked
from exmed_bert.data.parquet_footer import rows_and_values

LONGEST_LINE = 2**29  # bytes
PARQUET_VALUES = 2**25  # that any Parquet file may hold; larger ones up to so many per byte:
_PER_BYTE = 100
OUT_OF_CORE = 1000  # the same for what DuckDB reads, within its memory
_AT_ONCE = 2**20  # bytes


def open_bounded(path: Path) -> io.BufferedReader:
    """Return a file of lines, unpacked where its name ends in .gz; reading it ends where a limit is passed.

    Raises:
        InputError: then, and where a .gz is damaged.
    """
    return io.BufferedReader(_Bounded(path), _AT_ONCE)


class _Bounded(io.RawIOBase):
    """The bytes of a file, looked at as they pass."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._packed = path.name.lower().endswith(".gz")
        opened: Callable[[Path], Any] = gzip.open if self._packed else partial(open, mode="rb", buffering=0)
        self._file = opened(path)
        self._size = path.stat().st_size
        self._read = self._line = 0  # bytes so far; of them, of the line that is being read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            count = self._file.readinto(buffer)
        except NO_GZIP as error:
            raise InputError(f"{self._path}: is no whole gzip file: {error}") from None
        self._read += count
        end = bytes(buffer[:count]).rfind(b"\n")
        self._line = self._line + count if end < 0 else count - end - 1
        if self._line > LONGEST_LINE:
            raise InputError(f"{self._path}: has a line of more than {LONGEST_LINE:,} bytes, expected a record on each")
        if self._packed:
            check_unpacked(self._path, self._read, self._size)
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def check_parquet(paths: Iterable[Path], per_byte: int = _PER_BYTE) -> None:
    """Refuse Parquet files that say to hold far more values than bytes; others, and damaged ones, pass.

    Args:
        paths: the files; those that are not named so pass.
        per_byte: values per byte, of a file with many.

    Raises:
        InputError: names the file.
    """
    for path in paths:
        if path.name.lower().endswith(".parquet"):
            found = path.stat()
            _check_parquet(path, found.st_size, found.st_mtime_ns, per_byte)


@lru_cache(maxsize=4096)
def _check_parquet(path: Path, size: int, changed: int, per_byte: int) -> None:
    try:
        held = rows_and_values(path)
    except OSError:
        held = None
    if held is None:
        return  # what is wrong with it is said where it is read
    most = max(PARQUET_VALUES, per_byte * size)
    if max(held) > most:
        raise InputError(f"{path}: says to hold {max(held):,} values in {size:,} bytes, expected at most {most:,}")


def check_archive(path: Path) -> None:
    """Refuse a file of ``torch.save`` whose parts are compressed, which it never writes; others pass.

    Raises:
        InputError: names the file.
    """
    try:
        with zipfile.ZipFile(path) as file:
            parts = file.infolist()
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return  # what is wrong with it is said where it is read
    if any(part.compress_type != zipfile.ZIP_STORED or part.file_size != part.compress_size for part in parts):
        raise InputError(f"{path}: holds compressed parts, expected a file as torch.save writes it")
