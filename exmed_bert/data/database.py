"""DuckDB as the readers of tables and of vocabularies use it: within a gigabyte of memory, and shut in.

It reaches for no network, and for no file but those that it is opened for.
"""

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


def connect(files: Iterable[Path], threads: int | None = None) -> "duckdb.DuckDBPyConnection":
    """Return a connection to an empty database in memory, which can read the given files and no others.

    Whatever stands in a file or in the name of a column, SQL can neither reach another file, nor install or load an
    extension, nor give itself these rights again. Times stand in UTC, and rows keep the order of their files. What does
    not fit into the memory goes to a temporary folder that only the user may read; it is removed with the connection.

    Args:
        files: what may be read, beside the temporary folder.
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
            "python_enable_replacements": False,
        },
    )
    weakref.finalize(connection, rmtree, folder, ignore_errors=True)
    connection.execute("SET TimeZone = 'UTC'")
    places = list(files)
    # Both as they are and as `file_list` spells them: DuckDB looks at the pattern, and then at what it has found.
    allowed = ", ".join(map(quoted, dict.fromkeys((*map(str, places), *map(_pattern, places)))))
    connection.execute(f"SET allowed_paths = [{allowed}]")
    connection.execute("SET enable_external_access = false")
    return connection


def temporary_folder(connection: "duckdb.DuckDBPyConnection") -> Path:
    """Return the connection's folder for temporary files, which it can also read."""
    return Path(connection.sql("SELECT current_setting('temp_directory')").fetchall()[0][0])


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
    return f"[{', '.join(quoted(_pattern(path)) for path in paths)}]"


def _pattern(path: Path | str) -> str:
    """Return the pattern that matches a path and nothing else."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in str(path))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
