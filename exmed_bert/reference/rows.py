"""Reading a reference table column by column; every refusal names file, line, column and value."""

import csv
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from exmed_bert import codes
from exmed_bert.console import InputError


def split(text: str) -> list[str]:
    """Return the parts of a value that is a list: ``a|b|c``, or nothing."""
    return text.split("|") if text else []


class Rows:
    """The rows of a CSV file, read column by column; every refusal names file, line, column and value."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with open(path, encoding="utf-8", newline="") as file:
            self.rows = list(csv.DictReader(file))

    def each(self, column: str, read: Callable[[str], Any]) -> list[Any]:
        """Return ``read`` of every value of a column."""
        values = []
        for line, row in enumerate(self.rows, start=2):
            self.where = f"{self.path}: line {line}: {column}: {row.get(column)!r}"
            try:
                values.append(read(row[column]))
            except (ValueError, KeyError):
                self.wrong("is not readable")
        return values

    def wrong(self, problem: str) -> NoReturn:
        """Refuse the value that is being read."""
        raise InputError(f"{self.where}, {problem}")

    def codes(self, column: str, system: str) -> tuple[str, ...]:
        """Return a column of codes of the system in its usual spelling."""
        spelling = codes.code_system(system)

        def read(text: str) -> str:
            return text if spelling.normalize(text) == text else self.wrong(f"is no {spelling.title} code")

        return tuple(self.each(column, read))

    def distinct_codes(self, system: str) -> tuple[str, ...]:
        """Return the column ``code``: codes of the system in its usual spelling, each once."""
        found = self.codes("code", system)
        if len(set(found)) < len(found):
            raise InputError(f"{self.path}: code: a code stands twice")
        return found

    def numbers(self, column: str) -> np.ndarray:
        """Return a column of numbers."""
        return np.array(self.each(column, float))

    def shares(self, column: str) -> np.ndarray:
        """Return a column of numbers from 0 to 1."""

        def read(text: str) -> float:
            return float(text) if 0 <= float(text) <= 1 else self.wrong("expected a share from 0 to 1")

        return np.array(self.each(column, read))

    def days(self, column: str, empty: date | None = None) -> np.ndarray:
        """Return a column of YYYY-MM-DD as days since 1970-01-01; an empty value stands for the day ``empty``."""

        def read(text: str) -> date:
            return empty if empty is not None and not text else date.fromisoformat(text)

        return np.array(self.each(column, read), dtype="datetime64[D]").astype(np.int64)

    def flags(self, column: str) -> np.ndarray:
        """Return a column of ``yes`` and ``no`` as bool."""
        return np.array(self.each(column, lambda text: {"yes": True, "no": False}[text]))

    def find(self, code: str, index: dict[str, int], table: str) -> int:
        """Return the index of a code that a row names and the file ``table`` lists."""
        return index[code] if code in index else self.wrong(f"{code} is not in {table}")

    def pairs(self, text: str, index: dict[str, int] | None, table: str = "") -> list[tuple[int, float]]:
        """Read ``key:value|key:value``; a key is a code of ``index``, which ``table`` lists, or a whole number."""
        pairs = [part.split(":") for part in split(text)]
        return [(self.find(key, index, table) if index else int(key), float(value)) for key, value in pairs]
