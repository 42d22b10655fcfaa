"""DuckDB as the readers of tables and of vocabularies use it: within a gigabyte of memory, without a network."""

import os
import tempfile
import weakref
from collections.abc import Iterable
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

MEMORY = "1GB"  # beyond it DuckDB goes on in temporary files


def connect(threads: int | None = None) -> "duckdb.DuckDBPyConnection":
    """Return a connection to an empty database in memory.

    Extensions are neither installed nor loaded, times stand in UTC, and rows keep the order of their files. What does
    not fit into the memory goes to a temporary folder that only the user may read; it is removed with the connection.

    Args:
        threads: number of threads; not given: one per core that this process may use.
    """
    import duckdb

    folder = tempfile.mkdtemp(prefix="exmed_bert_")
    connection = duckdb.connect(
        ":memory:",
        config={
            "memory_limit": MEMORY,
            "threads": threads or _cores(),
            "temp_directory": folder,
            "preserve_insertion_order": True,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        },
    )
    weakref.finalize(connection, rmtree, folder, ignore_errors=True)
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def quoted(value: object) -> str:
    """Return an SQL string literal.

    >>> quoted("the patient's.csv")
    "'the patient''s.csv'"
    """
    return "'" + str(value).replace("'", "''") + "'"


def name(value: str) -> str:
    """Return an SQL identifier.

    >>> name('the "code" as written')
    '"the ""code"" as written"'
    """
    return '"' + value.replace('"', '""') + '"'


def file_list(paths: Iterable[Path | str]) -> str:
    """Return an SQL list of the paths; DuckDB would take ``*``, ``?`` and ``[`` in them for patterns.

    >>> file_list(["a[1].csv", "b.csv"])
    "['a[[]1].csv', 'b.csv']"
    """
    escaped = ("".join(f"[{c}]" if c in "*?[" else c for c in str(path)) for path in paths)
    return f"[{', '.join(map(quoted, escaped))}]"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
