"""Tables of text, plain or gzipped."""

import csv
import gzip
import io
from pathlib import Path
from typing import Any


def write_table(path: Path, rows: list[list[Any]]) -> None:
    """Write rows as .csv or .csv.gz; no time and no name of a file within, so that the same rows are the same bytes."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    content = text.getvalue().encode()
    if path.suffix == ".gz":
        with open(path, "wb") as raw, gzip.GzipFile("", "wb", compresslevel=9, fileobj=raw, mtime=0) as file:
            file.write(content)
    else:
        path.write_bytes(content)


def write_map(folder: Path, rows: list[list[Any]]) -> None:
    """Write code_map.csv, as --code-map reads it."""
    write_table(folder / "code_map.csv", [["source_system", "source_code", "target_system", "target_code"], *rows])
