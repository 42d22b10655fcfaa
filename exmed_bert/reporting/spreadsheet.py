"""Tables for people as CSV, of which a spreadsheet takes no cell for a formula.

What begins with ``= + - @``, a tab or the end of a line is a formula to a spreadsheet, whatever wrote it: a code in a
hospital's export will do. Such text gets an apostrophe in front, which `original` takes off again. Numbers stay as
they are, negative ones too.
"""

import csv
import re
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")  # the last four are the signs in full width
_NUMBER = re.compile(r"[+-]?[0-9]+([.][0-9]+)?([eE][+-]?[0-9]+)?")


def cell(value: Any) -> Any:
    """Return what a cell of a CSV file holds for a value.

    >>> [cell(value) for value in ("E11.9", "=1+1", "-0.5", -0.5, "-1-2", "'=1+1")]
    ['E11.9', "'=1+1", '-0.5', -0.5, "'-1-2", "''=1+1"]
    """
    is_formula = isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value)
    return f"'{value}" if is_formula else value


def original(text: str) -> str:
    """Return the text for which `cell` wrote a cell.

    >>> [original(text) for text in ("E11.9", "'=1+1", "-0.5", "'quoted'")]
    ['E11.9', '=1+1', '-0.5', "'quoted'"]
    """
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def write_csv(file: TextIO, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table to a file that was opened with ``newline=""``; None is an empty cell."""
    table = csv.writer(file)
    table.writerow(map(cell, header))
    table.writerows(map(cell, row) for row in rows)
