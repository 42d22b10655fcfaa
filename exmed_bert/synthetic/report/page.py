"""The page of a report: headline figures with their verdicts, then a section for each comparison."""

from collections.abc import Sequence
from html import escape
from typing import Any

from exmed_bert.reporting.page import document, image, pill
from exmed_bert.synthetic.report.findings import (
    BY_CHANCE,
    MET,
    MISSED,
    NO_FIGURE,
    NO_TARGET,
    TOO_FEW,
    Column,
    Headline,
    Section,
)

SHOWN = 10  # rows of a table that stand open

_CLASSES = {MET: "met", BY_CHANCE: "chance", MISSED: "missed", TOO_FEW: "none", NO_TARGET: "none", NO_FIGURE: "none"}
_LEGEND = {
    MET: "the target is met",
    BY_CHANCE: "no further off than sampling alone allows",
    MISSED: "further off than the size of the file explains",
    TOO_FEW: "the file is too small for this figure",
    NO_TARGET: "shown beside a published figure, nothing was asked for",
    NO_FIGURE: "there is nothing to hold it against",
}


def page(
    title: str,
    facts: Sequence[tuple[str, str]],
    notes: Sequence[str],
    sections: Sequence[Section],
    plots: dict[str, tuple[bytes, str]],
) -> str:
    """Return the page. Whatever comes from the file is escaped, and the page may load nothing but what it holds.

    Args:
        title: the heading.
        facts: names and values: the file, its patients, the tables.
        notes: what a reader has to know before the verdicts.
        sections: the comparisons, in their order.
        plots: for a section's key the PNG and the text that stands for it.
    """
    content = [_summary(sections), *(_section(section, plots.get(section.key)) for section in sections)]
    return document(title, facts, notes, content)


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
    if kind == "count":
        return f"{value:,.0f}"
    if kind == "days":
        return f"{value:,.0f}"
    if kind in ("share", "points", "relative"):
        percent = 100 * value
        digits = 1 if abs(percent) >= 10 or percent == 0 else 2
        sign = "" if kind == "share" else "+"
        text = f"{percent:{sign},.{digits}f} {'pp' if kind == 'points' else '%'}"
    else:
        text = f"{value:,.{2 if abs(value) >= 1 or value == 0 else 3 if abs(value) >= 0.1 else 4}f}"
    return text.replace("-", "−")


def target(headline: Headline) -> str:
    """Return what was asked for, as a reader sees it."""
    if headline.target is None:
        return "–"
    if headline.target == 0:
        return "none"
    asked = f"{100 * headline.target:g} %" if headline.kind == "share" else f"{headline.target:g}"
    return f"{'≥' if headline.at_least else '≤'} {asked}"


def _summary(sections: Sequence[Section]) -> str:
    rows = [(section.key, headline) for section in sections for headline in section.headlines]
    rows.sort(key=lambda row: row[1].target is None)  # what was asked for comes first
    used = [verdict for verdict in _LEGEND if any(headline.verdict == verdict for _, headline in rows)]
    body = "\n".join(
        f"<tr><td>{_pill(headline.verdict)}</td>"
        f'<td><a href="#{escape(key, quote=True)}">{escape(_capital(headline.name))}</a></td>'
        f'<td class="n" data-label="Value">{escape(shown(headline.value, headline.kind))}</td>'
        f'<td class="n" data-label="Target">{escape(target(headline))}</td>'
        f'<td class="n" data-label="Sampling alone">{escape(shown(headline.by_chance, headline.kind))}</td></tr>'
        for key, headline in rows
    )
    legend = (
        '<p class="soft">Sampling alone: one in forty files of this size that follow the published figures exactly '
        "would be further off than this.</p>"
    )
    legend += "".join(f"<p class='soft'>{_pill(verdict)} {escape(_LEGEND[verdict])}</p>" for verdict in used)
    return (
        '<section id="verdicts">\n<h2>Headline figures</h2>\n<div class="scroll headlines"><table>\n<thead><tr>'
        '<th>Verdict</th><th>Figure</th><th class="n">Value</th><th class="n">Target</th>'
        f'<th class="n">Sampling alone</th></tr></thead>\n<tbody>\n{body}\n</tbody></table></div>\n{legend}\n</section>'
    )


def _section(section: Section, plot: tuple[bytes, str] | None) -> str:
    words = [f"<p>{escape(section.text)}</p>"]
    if section.source != "none":
        words.append(f'<p class="soft">Source: {escape(section.source)}</p>')
    for headline in section.headlines:
        asked = f", target {target(headline)}" if headline.target is not None else ""
        chance = (
            f" Sampling alone: {shown(headline.by_chance, headline.kind)}." if headline.by_chance is not None else ""
        )
        words.append(
            f"<p>{_pill(headline.verdict)} {escape(_capital(headline.name))}: "
            f"<strong>{escape(shown(headline.value, headline.kind))}</strong>{escape(asked)}.{escape(chance)}"
            + (f' <span class="soft">{escape(headline.note)}</span>' if headline.note else "")
            + "</p>"
        )
    text = "\n".join(words)
    if plot is not None:
        content, alternative = plot
        text = f'<div class="pair"><div>\n{text}\n</div>\n{image(content, alternative)}</div>'
    return (
        f'<section id="{escape(section.key, quote=True)}">\n<h2>{escape(section.title)}</h2>\n{text}\n'
        f"{_tables(section)}\n</section>"
    )


def _tables(section: Section) -> str:
    if not section.rows:
        return ""
    if len(section.rows) <= SHOWN + 2:
        return _table(section.columns, section.rows)
    first = f"The {SHOWN} furthest off:" if section.has_errors else f"The first {SHOWN}:"
    return (
        f'<p class="soft">{first}</p>\n{_table(section.columns, section.worst(SHOWN))}\n'
        f"<details><summary>All {len(section.rows):,} rows</summary>\n"
        f"{_table(section.columns, section.rows, 'scroll tall')}\n</details>"
    )


def _table(columns: Sequence[Column], rows: Sequence[Sequence[Any]], style: str = "scroll") -> str:
    order = sorted(range(len(columns)), key=lambda i: _rank(columns[i]))
    columns, rows = [columns[i] for i in order], [[row[i] for i in order] for row in rows]
    head = "".join(f"<th{_class(column, i)}>{escape(column.label)}</th>" for i, column in enumerate(columns))
    classes = [_class(column, i) for i, column in enumerate(columns)]
    body = "\n".join(
        "<tr>"
        + "".join(
            f"<td{style_of}>{escape(shown(value, column.kind))}</td>"
            for value, column, style_of in zip(row, columns, classes, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return f'<div class="{style}"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'


def _class(column: Column, place: int) -> str:
    if column.kind != "text":
        return ' class="n"'
    if place == 0:
        return ' class="code"'
    return ' class="wide"' if column.key in ("name", "names", "source") else ' class="short"'


def _rank(column: Column) -> int:
    """Return where a column stands: what a row is, then how far off, then counts, then the source."""
    if column.kind == "text":
        return 3 if column.key == "source" else 0
    return 1 if column.key.startswith(("generated", "published", "modeled", "error")) else 2


def _pill(verdict: str) -> str:
    return pill(verdict, _CLASSES[verdict])


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
