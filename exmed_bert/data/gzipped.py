"""Files that are compressed by gzip, looked through before a library reads them that checks no checksum: DuckDB."""

import gzip
import zlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from exmed_bert.console import InputError

NO_GZIP = (gzip.BadGzipFile, EOFError, zlib.error)  # what damage raises
_PIECE = 1 << 20  # bytes
UNPACKED = 2**28  # bytes that any file may unpack to; larger ones up to this multiple of their size:
_TIMES = 200


def check_gzip(paths: Iterable[Path]) -> None:
    """Refuse a file that is cut short, unpacks to far too much, or has another checksum than its end says.

    Raises:
        InputError: names the file.
    """
    for path in paths:
        if path.name.lower().endswith(".gz"):
            found = path.stat()
            _check(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=4096)
def _check(path: Path, size: int, changed: int) -> None:
    """Read a file; once, as long as its size and the time of its last change stay."""
    unpacked = 0
    try:
        with gzip.open(path, "rb") as file:
            while piece := file.read(_PIECE):
                unpacked += len(piece)
                check_unpacked(path, unpacked, size)
    except (*NO_GZIP, OSError) as error:
        raise InputError(f"{path}: is no whole gzip file: {error}") from None


def check_unpacked(path: Path, unpacked: int, size: int) -> None:
    """Refuse a file that shrinks as no data of patients do: text of records to a tenth, seldom to a thirtieth.

    Args:
        path: of the file.
        unpacked: bytes that were read of it so far.
        size: of the file.

    Raises:
        InputError: it does.
    """
    if unpacked > max(UNPACKED, _TIMES * size):
        raise InputError(
            f"{path}: unpacks to more than {_TIMES} times its size, as no data of patients do; unpack it if it is sound"
        )
