"""The page of a report: one HTML file that needs no network, no script and no other file."""

import base64
from collections.abc import Sequence
from html import escape
from typing import Any

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
_STYLE = """
:root{color-scheme:light;--line:#dfe3e8;--soft:#5c6570;--ink:#1d2329}
*{box-sizing:border-box}
body{margin:0;font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
color:var(--ink);background:#f5f6f8}
main{max-width:1180px;margin:0 auto;padding:1.2rem 1rem 3rem}
h1{font-size:1.6rem;line-height:1.25;margin:.4rem 0 1rem;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:0 0 .5rem}
section,header{background:#fff;border:1px solid var(--line);border-radius:8px;padding:1rem 1.1rem;margin:0 0 1rem}
p{margin:.3rem 0 .7rem;max-width:75ch;overflow-wrap:anywhere}
.soft{color:var(--soft);font-size:.9rem}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.15rem 1rem;margin:0 0 .6rem}
dt{color:var(--soft)}
dd{margin:0;overflow-wrap:anywhere}
.note{border-left:4px solid #d9822b;padding:.3rem .8rem;background:#fdf6ec}
.scroll{overflow-x:auto;max-width:100%;border:1px solid var(--line);border-radius:6px;margin:.4rem 0 .8rem}
.tall{max-height:70vh;overflow-y:auto}
table{border-collapse:collapse;width:100%;font-size:.875rem;font-variant-numeric:tabular-nums}
th,td{padding:.34rem .6rem;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
tr:last-child td{border-bottom:0}
thead th{position:sticky;top:0;background:#eef1f4;font-weight:600;vertical-align:bottom}
td.n{white-space:nowrap}
.n{text-align:right}
td.code,td.short{white-space:nowrap}
td.code{font-weight:600}
td.wide{min-width:9rem}
th.n{min-width:5rem}
td.wide:last-child{min-width:14rem}
.pill{display:inline-block;padding:.05rem .55rem;border-radius:1rem;font-size:.8rem;font-weight:600;white-space:nowrap}
.met{background:#dcf1e3;color:#14532d}
.chance{background:#e1ecf7;color:#1c4a76}
.missed{background:#fbe0dd;color:#8c1d13}
.none{background:#eceef1;color:#4b5560}
figure{margin:0}
img{display:block;width:100%;max-width:620px;height:auto}
summary{cursor:pointer;color:#1c4a76;padding:.2rem 0}
a{color:#1c4a76}
@media(min-width:960px){.pair{display:grid;grid-template-columns:minmax(0,5fr) minmax(0,6fr);gap:1.6rem}}
@media(max-width:520px){body{font-size:15px}main{padding:.6rem .5rem 2rem}section,header{padding:.8rem .7rem}
th,td{padding:.3rem .45rem}dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:.35rem}
td.wide{min-width:7rem}
.headlines thead{display:none}
.headlines tr{display:grid;grid-template-columns:repeat(3,1fr);padding:.4rem .5rem;border-bottom:1px solid var(--line)}
.headlines td{border:0;padding:.1rem 0;text-align:left}
.headlines td:nth-child(-n+2){grid-column:1/-1}
.headlines td[data-label]::before{content:attr(data-label);display:block;color:var(--soft);font-size:.75rem}}
@media print{body{background:#fff}.scroll{overflow:visible}.tall{max-height:none}}
"""


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
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>",
        f"<h1>{escape(title)}</h1>\n<header>\n<dl>",
        *(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts),
        "</dl>",
        *(f'<p class="note">{escape(note)}</p>' for note in notes),
        "</header>",
        _summary(sections),
        *(_section(section, plots.get(section.key)) for section in sections),
        "</main>\n</body>\n</html>\n",
    ]
    return "\n".join(parts)


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
        image = f"data:image/png;base64,{base64.b64encode(content).decode()}"
        figure = f'<figure><img src="{image}" alt="{escape(alternative, quote=True)}"></figure>'
        text = f'<div class="pair"><div>\n{text}\n</div>\n{figure}</div>'
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
    return 1 if column.key.startswith(("generated", "published", "modelled", "error")) else 2


def _pill(verdict: str) -> str:
    return f'<span class="pill {_CLASSES[verdict]}">{escape(verdict)}</span>'


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
