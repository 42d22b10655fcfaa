"""Files of text, plain or gzipped, and tables in them."""

import csv
import gzip
import io
from pathlib import Path
from typing import Any


def write_table(path: Path, rows: list[list[Any]]) -> None:
    """Write rows as .csv or .csv.gz."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())


def write_text(path: Path, text: str) -> None:
    """Write a file, gzipped if it ends in .gz; no time and no name within, so that the same text is the same bytes."""
    content = text.encode()
    if path.suffix == ".gz":
        with open(path, "wb") as raw, gzip.GzipFile("", "wb", compresslevel=9, fileobj=raw, mtime=0) as file:
            file.write(content)
    else:
        path.write_bytes(content)


def write_map(folder: Path, rows: list[list[Any]]) -> None:
    """Write code_map.csv, as --code-map reads it."""
    write_table(folder / "code_map.csv", [["source_system", "source_code", "target_system", "target_code"], *rows])
