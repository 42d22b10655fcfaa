"""Parts of a report: paragraphs, plots and tables as a reader sees them, and their HTML."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from exmed_bert.evaluation.bootstrap import Estimate
from exmed_bert.files import atomic_write
from exmed_bert.reporting.page import image, pill

Plots = Mapping[str, tuple[bytes, str]]
"""By name the PNG, and the text that stands for it."""


@dataclass(frozen=True)
class Table:
    """Cells as a reader sees them; ``words`` are the columns that hold no numbers, ``wide`` those that may wrap."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Sequence[int] = (0,)
    wide: Sequence[int] = ()


@dataclass(frozen=True)
class Part:
    """A part of the report: paragraphs, then plots by name, then tables. ``folded`` tables come last and shut.

    ``notes`` stand below the tables that are open, in small print.
    """

    key: str
    title: str
    text: Sequence[str]
    plots: Sequence[str] = ()
    tables: Sequence[Table] = ()
    folded: Sequence[tuple[str, Table]] = ()
    notes: Sequence[str] = ()


def shown(figure: Estimate | None, sign: bool = False) -> str:
    """Return a figure with its interval.

    >>> shown(Estimate(0.8123, 0.79, 0.8351)), shown(Estimate(-0.02, -0.031, 0.004), sign=True), shown(None)
    ('0.812 (0.790 to 0.835)', '−0.020 (−0.031 to +0.004)', '–')
    """
    if figure is None:
        return "–"
    form = "+.3f" if sign else ".3f"
    text = f"{figure.value:{form}}"
    if figure.low is not None:
        text += f" ({figure.low:{form}} to {figure.high:{form}})"
    return text.replace("-0.000", "0.000").replace("-", "−")


def section(part: Part, plots: Plots, pills: Mapping[str, str] | None = None) -> str:
    """Return a part as HTML. Plots that were not drawn are left out.

    Args:
        part: what to show.
        plots: the pictures by name.
        pills: cells that are verdicts, and their colors (`exmed_bert.reporting.page.pill`).
    """
    words = "\n".join(f"<p>{escape(paragraph)}</p>" for paragraph in part.text)
    pictures = [image(*plots[name]) for name in part.plots if name in plots]
    if len(pictures) == 1:
        words = f'<div class="pair"><div>\n{words}\n</div>\n{pictures[0]}</div>'
    elif pictures:
        words += f'\n<div class="pair even">{"".join(pictures)}</div>'
    tables = [_table(table, pills or {}) for table in part.tables]
    tables += [f'<p class="soft">{escape(note)}</p>' for note in part.notes]
    tables += [
        f"<details><summary>{escape(name)}</summary>\n{_table(table, pills or {})}\n</details>"
        for name, table in part.folded
    ]
    return (
        f'<section id="{escape(part.key, quote=True)}">\n<h2>{escape(part.title)}</h2>\n{words}\n'
        + "\n".join(tables)
        + "\n</section>"
    )


def write_plots(folder: Path, plots: Plots) -> list[Path]:
    """Write each plot as ``<name>.png`` and return the files.

    Raises:
        InputError: the folder cannot be written.
    """
    paths = []
    for name, (png, _) in plots.items():
        paths.append(folder / f"{name}.png")
        with atomic_write(paths[-1]) as part:
            part.write_bytes(png)
    return paths


def _table(table: Table, pills: Mapping[str, str]) -> str:
    names = ["wide" if i in table.wide else "short" if i in table.words else "n" for i in range(len(table.columns))]
    classes = [f' class="{name}"' for name in names]
    head = "".join(f"<th{style}>{escape(name)}</th>" for name, style in zip(table.columns, classes, strict=True))
    body = "\n".join(
        "<tr>"
        + "".join(f"<td{style}>{_cell(cell, pills)}</td>" for cell, style in zip(row, classes, strict=True))
        + "</tr>"
        for row in table.rows
    )
    return f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'


def _cell(text: str, pills: Mapping[str, str]) -> str:
    if text in pills:
        return pill(text, pills[text])
    value, bracket, interval = text.partition(" (")
    if bracket and " to " in interval:  # the interval under its figure keeps a table of models narrow
        return f'{escape(value)}<br><span class="soft">{escape(bracket[1:] + interval)}</span>'
    return escape(text)
