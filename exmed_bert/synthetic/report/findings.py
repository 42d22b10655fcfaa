"""Content of a population report: the counts of a file, comparisons, and metrics with a verdict on each."""

import csv
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from exmed_bert.reference.tables import FOLDER, Tables
from exmed_bert.reporting.small_cells import ALL, Count, MinCell
from exmed_bert.synthetic.report.histories import Histories
from exmed_bert.synthetic.report.measures import Measures

MET, BY_CHANCE, MISSED = "met", "too few to tell", "missed"
TOO_FEW, NO_TARGET, NO_REFERENCE = "too few patients", "no target set", "no published value"

BANDS = ("0-17", "18-44", "45-64", "65+")  # the names of the tables' age bands
DRAWS = 400  # simulated files of the same size behind each statement on sampling error
LIMIT = 0.975  # quantile of their metric up to which sampling error explains a file's
LEAST_EXPECTED = 5  # cases of a row from which its error is told
_SEED = 0

SAMPLES = f"Sampling error: the same distance in {DRAWS} random samples of this size from the published shares."
BINOMIAL = f"Sampling error: the same metric in {DRAWS} files whose counts are binomial with the published shares."


@dataclass(frozen=True)
class Findings:
    """Counts of patients, the tables they are compared with, what the generator says of them ({} of others), and which
    counts are hidden."""

    source: str
    measures: Measures
    histories: Histories
    meta: Mapping[str, Any]
    cells: MinCell = ALL

    @property
    def tables(self) -> Tables:
        """The reference tables."""
        return self.measures.tables


@dataclass(frozen=True)
class Metric:
    """A metric of a comparison, with a verdict.

    Attributes:
        key: stable name in report.json.
        name: for people.
        value: None when there is nothing to compute it from.
        kind: how it is shown, one of the kinds of a `Column`.
        verdict: one of the constants above.
        target: the value to reach; ``at_least`` tells which side of it is good.
        by_chance: the value that sampling alone, under the published values, passes in one file of forty.
        note: how it is computed.
    """

    key: str
    name: str
    value: float | Count | None
    kind: str
    verdict: str
    target: float | None = None
    at_least: bool = False
    by_chance: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Column:
    """A column of a comparison; ``kind`` says how it is shown.

    Kinds: text, count (whole number), share (percent), points (signed percentage points), relative (signed
    percent), days, number.
    """

    key: str
    label: str
    kind: str = "text"


@dataclass(frozen=True)
class Comparison:
    """One comparison: rows side by side, worst first where ``ranked``, and in ``series`` what only a plot needs.

    A column ``error`` says by how much a row is off.
    """

    key: str
    title: str
    text: str
    source: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    metrics: Sequence[Metric] = ()
    ranked: bool = False
    series: dict[str, Any] = field(default_factory=dict)

    def column(self, key: str) -> list[Any]:
        """Return the values of a column."""
        index = [column.key for column in self.columns].index(key)
        return [row[index] for row in self.rows]

    @property
    def telling(self) -> "Comparison":
        """The comparison without the rows that are expected to hold so few cases that their error says nothing."""
        if not any(column.key == "expected" for column in self.columns):
            return self
        enough = self.numbers("expected") >= LEAST_EXPECTED
        return replace(self, rows=[row for row, tells in zip(self.rows, enough, strict=True) if tells])

    @property
    def has_errors(self) -> bool:
        """Whether the rows say by how much they are off."""
        return any(column.key == "error" for column in self.columns)

    def worst(self, n: int) -> list[Sequence[Any]]:
        """Return the n rows that are furthest off, or the first ones where no error is known."""
        if self.ranked or not self.has_errors:
            return list(self.rows[:n])
        order = np.argsort(-np.nan_to_num(np.abs(self.numbers("error"))), kind="stable")
        return [self.rows[i] for i in order[:n]]

    def numbers(self, key: str) -> np.ndarray:
        """Return the values of a column as floats, NaN where there is none."""
        return np.array([np.nan if value is None else float(value) for value in self.column(key)])


def judged(
    key: str,
    name: str,
    value: float,
    kind: str,
    target: float,
    chance: np.ndarray,
    note: str,
    at_least: bool = False,
) -> Metric:
    """Return a metric with its verdict.

    Args:
        key, name, value, kind, target, note, at_least: as in `Metric`.
        chance: the same metric in simulated files of this size that follow the published values exactly.
    """
    if not np.isfinite(value) or not np.isfinite(chance).any():
        return Metric(key, name, None, kind, TOO_FEW, target, at_least, None, note)
    limit = float(np.nanquantile(chance, 1 - LIMIT if at_least else LIMIT))
    if value >= target if at_least else value <= target:
        verdict = MET
    elif value >= limit if at_least else value <= limit:
        verdict = BY_CHANCE
    else:
        verdict = MISSED
    return Metric(key, name, float(value), kind, verdict, target, at_least, limit, note)


def simulation() -> np.random.Generator:
    """Return the generator behind the simulated files: the same file gives the same report."""
    return np.random.default_rng(_SEED)


def total_variation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return half the sum of absolute differences of shares along the last axis.

    >>> float(total_variation(np.array([0.5, 0.5]), np.array([0.75, 0.25])))
    0.25
    """
    return np.abs(first - second).sum(axis=-1) / 2


@functools.cache
def table_rows(name: str, folder: Path = FOLDER) -> tuple[dict[str, str], ...]:
    """Return the rows of a CSV table as they stand; none when there is no such table."""
    if not (folder / name).exists():
        return ()
    with open(folder / name, encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(file))


@functools.cache
def source_rows(name: str, folder: Path = FOLDER) -> dict[str, dict[str, str]]:
    """Return the rows of a CSV table by code, for the ``source*`` columns that they hold."""
    return {row["code"]: row for row in table_rows(name, folder)}


def source_of(name: str, code: str, *columns: str, folder: Path = FOLDER) -> str:
    """Return the sources of a row's values in one line; each that differs is named once."""
    row = source_rows(name, folder).get(code, {})
    return "; ".join(dict.fromkeys(text for column in columns if (text := row.get(column))))


def demographic_source(part: str, folder: Path = FOLDER) -> str:
    """Return the source of a part of us_demographics.json."""
    return json.loads((folder / "us_demographics.json").read_text(encoding="utf-8"))[part]["source"]


def estimates(sources: Sequence[str]) -> str:
    """Return a sentence on how many of the values are no published ones."""
    estimated = sum(source.startswith("estimate") for source in sources)
    if not estimated:
        return ""
    return f" {estimated:,} of the {len(sources):,} values are estimates of our own, as their source says."


def relative_error(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return found / expected - 1, NaN where nothing is expected."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(expected > 0, found / expected - 1, np.nan)


def part_of(count: float | None, of: float) -> float | None:
    """Return a share; None of nothing.

    >>> part_of(1, 4), part_of(0, 0)
    (0.25, None)
    """
    return float(count / of) if of and count is not None else None


def finite(value: float) -> float | None:
    """Return a float that JSON can hold: None in place of NaN and infinity."""
    return float(value) if np.isfinite(value) else None
