"""Page of a population report: the main metrics with their verdicts, then a section for each comparison."""

from collections.abc import Sequence
from typing import Any

from exmed_bert.reporting.content import Cell, Link, ReportSection, Statement, Style, Table, Verdict, capital
from exmed_bert.synthetic.report.findings import (
    BY_CHANCE,
    LEAST_EXPECTED,
    MET,
    MISSED,
    NO_REFERENCE,
    NO_TARGET,
    TOO_FEW,
    Column,
    Comparison,
    Metric,
)

SHOWN = 10  # rows of a table that is not shown whole

VERDICTS = {
    MET: Verdict(MET, "good"),
    BY_CHANCE: Verdict(BY_CHANCE, "near"),
    MISSED: Verdict(MISSED, "bad"),
    TOO_FEW: Verdict(TOO_FEW, "none"),
    NO_TARGET: Verdict(NO_TARGET, "none"),
    NO_REFERENCE: Verdict(NO_REFERENCE, "none"),
}
_MEANINGS = {
    MET: "the target is met",
    BY_CHANCE: "not met, but no further off than sampling alone allows: more patients would tell",
    MISSED: "further off than the size of the file explains",
    TOO_FEW: "the file is too small for this metric",
    NO_TARGET: "shown beside a published value, without a target",
    NO_REFERENCE: "there is no published value to compare it with",
}


def sections(comparisons: Sequence[Comparison]) -> list[ReportSection]:
    """Return the sections of the report: the summary, and one for each comparison with the plot of its key."""
    return [_summary(comparisons), *map(_section, comparisons)]


def shown(value: Any, kind: str) -> str:
    """Return a value as a reader sees it; the kinds are those of a `Column`.

    >>> shown(0.1234, "share"), shown(0.00123, "share"), shown(-0.021, "points"), shown(0.25, "relative")
    ('12.3 %', '0.12 %', '−2.10 pp', '+25.0 %')
    >>> shown(12345, "count"), shown(2.504, "number"), shown(0.01234, "number"), shown(92.6, "days")
    ('12,345', '2.50', '0.0123', '93')
    """
    if value is None:
        return "–"
    if kind == "text":
        return str(value)
    if kind in ("count", "days"):
        return f"{value:,.0f}"
    if kind in ("share", "points", "relative"):
        percent = 100 * value
        digits = 1 if abs(percent) >= 10 or percent == 0 else 2
        sign = "" if kind == "share" else "+"
        text = f"{percent:{sign},.{digits}f} {'pp' if kind == 'points' else '%'}"
    else:
        text = f"{value:,.{2 if abs(value) >= 1 or value == 0 else 3 if abs(value) >= 0.1 else 4}f}"
    return text.replace("-", "−")


def target(metric: Metric) -> str:
    """Return the target as a reader sees it."""
    if metric.target is None:
        return "–"
    if metric.target == 0:
        return "none"
    limit = f"{100 * metric.target:g} %" if metric.kind == "share" else f"{metric.target:g}"
    return f"{'≥' if metric.at_least else '≤'} {limit}"


def _summary(comparisons: Sequence[Comparison]) -> ReportSection:
    metrics = [(comparison.key, metric) for comparison in comparisons for metric in comparison.metrics]
    metrics.sort(key=lambda pair: pair[1].target is None)  # those with a target come first
    rows: list[tuple[Cell, ...]] = [
        (
            VERDICTS[metric.verdict],
            Link(capital(metric.name), key),
            shown(metric.value, metric.kind),
            target(metric),
            shown(metric.by_chance, metric.kind),
        )
        for key, metric in metrics
    ]
    found = {metric.verdict for _, metric in metrics}
    columns = ("Verdict", "Metric", "Value", "Target", "Sampling alone")
    return ReportSection(
        "summary",
        "Summary",
        tables=[Table(columns, rows, {0: "word", 1: "text"})],
        notes=[
            "Sampling alone: one in forty files of this size that follow the published values exactly would be further "
            "off than this."
        ],
        legend=[(VERDICTS[verdict], meaning) for verdict, meaning in _MEANINGS.items() if verdict in found],
    )


def _section(comparison: Comparison) -> ReportSection:
    telling = comparison.telling
    short, folded = _tables(telling)
    left_out = len(comparison.rows) - len(telling.rows)
    few = f"Rows that are expected to hold fewer than {LEAST_EXPECTED} cases are not listed here: {left_out:,}."
    return ReportSection(
        comparison.key,
        comparison.title,
        [comparison.text],
        source="" if comparison.source == "none" else comparison.source,
        statements=[_statement(metric) for metric in comparison.metrics],
        plots=[comparison.key],
        tables=short,
        notes=[few] if left_out else [],
        folded=folded,
    )


def _statement(metric: Metric) -> Statement:
    remarks = []
    if metric.target is not None:
        remarks.append(f"target {target(metric)}")
    if metric.by_chance is not None:
        remarks.append(f"sampling alone {shown(metric.by_chance, metric.kind)}")
    value = shown(metric.value, metric.kind)
    return Statement(VERDICTS[metric.verdict], capital(metric.name), value, ", ".join(remarks), metric.note)


def _tables(comparison: Comparison) -> tuple[list[Table], list[Table]]:
    """Return the table that stands open and the one that is folded."""
    rows = comparison.rows
    if not rows:
        return [], []
    if len(rows) <= SHOWN + 2:
        return [_table(comparison.columns, rows)], []
    caption = f"The {SHOWN} furthest off" if comparison.has_errors else f"The first {SHOWN}"
    worst = _table(comparison.columns, comparison.worst(SHOWN), caption)
    return [worst], [_table(comparison.columns, rows, f"All {len(rows):,} rows")]


def _table(columns: Sequence[Column], rows: Sequence[Sequence[Any]], caption: str = "") -> Table:
    order = sorted(range(len(columns)), key=lambda i: _rank(columns[i]))
    ordered = [columns[i] for i in order]
    return Table(
        [column.label for column in ordered],
        [[shown(row[i], columns[i].kind) for i in order] for row in rows],
        {place: _style(column, place) for place, column in enumerate(ordered)},
        caption,
    )


def _style(column: Column, place: int) -> Style:
    if column.kind != "text":
        return "number"
    if place == 0:
        return "code"
    return "text" if column.key in ("name", "names", "source") else "word"


def _rank(column: Column) -> int:
    """Return the place of a column: what a row is, then how far off, then counts, then the source."""
    if column.kind == "text":
        return 3 if column.key == "source" else 0
    return 1 if column.key.startswith(("generated", "published", "modeled", "error")) else 2
