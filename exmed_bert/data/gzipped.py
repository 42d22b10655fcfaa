"""Files that are compressed by gzip, looked through before a library reads them that checks no checksum: DuckDB."""

import gzip
import zlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from exmed_bert.console import InputError

NO_GZIP = (gzip.BadGzipFile, EOFError, zlib.error)  # what damage raises
_PIECE = 1 << 20  # bytes


def check_gzip(paths: Iterable[Path]) -> None:
    """Refuse a file that is cut short, or whose content has another checksum than its end says; others pass.

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
    try:
        with gzip.open(path, "rb") as file:
            while file.read(_PIECE):
                pass
    except (*NO_GZIP, OSError) as error:
        raise InputError(f"{path}: is no whole gzip file: {error}") from None
