"""results.json, results.md, report.html and the plots of an evaluation."""

from collections.abc import Sequence
from pathlib import Path

from exmed_bert.evaluation.parts import Part, Table, section, write_plots
from exmed_bert.evaluation.results import Results
from exmed_bert.evaluation.results_plots import draw
from exmed_bert.evaluation.results_text import BETTER, UNCLEAR, WORSE, parts
from exmed_bert.files import atomic_write, make_folder, write_json
from exmed_bert.reporting.page import document

_PILLS = {BETTER: "met", WORSE: "missed", UNCLEAR: "none"}  # the page's classes of verdicts


def write_report(folder: Path, results: Results) -> list[Path]:
    """Write an evaluation; each file whole or not at all, the page last.

    Returns:
        The page, results.md, results.json and the plots.

    Raises:
        InputError: the folder cannot be made or written.
    """
    make_folder(folder)
    content, plots = parts(results), draw(results)
    page, text, figures = folder / "report.html", folder / "results.md", folder / "results.json"
    page.unlink(missing_ok=True)  # where there is a page, the rest belongs to it
    pictures = write_plots(folder, plots)
    write_json(figures, results.to_dict())
    for path, written in ((text, markdown(results, content, plots)), (page, html(results, content, plots))):
        with atomic_write(path) as part:
            part.write_text(written, encoding="utf-8")
    return [page, text, figures, *pictures]


def html(results: Results, content: Sequence[Part], plots: dict[str, tuple[bytes, str]]) -> str:
    """Return the page: one file that loads nothing but what it holds."""
    return document(results.title, results.facts, results.notes, [section(part, plots, _PILLS) for part in content])


def markdown(results: Results, content: Sequence[Part], plots: dict[str, tuple[bytes, str]]) -> str:
    """Return the same as text; plots are linked as the files beside it."""
    lines = [f"# {results.title}", ""]
    lines += [f"- {name}: {value}" for name, value in results.facts]
    lines += [f"\n> {note}" for note in results.notes]
    for part in content:
        lines += ["", f"## {part.title}"]
        lines += [f"\n{paragraph}" for paragraph in part.text]
        lines += [f"\n![{plots[name][1]}]({name}.png)" for name in part.plots if name in plots]
        for table in part.tables:
            lines += ["", *_markdown_rows(table)]
        for caption, table in part.folded:
            lines += ["", f"{caption}:", "", *_markdown_rows(table)]
    return "\n".join(lines) + "\n"


def _markdown_rows(table: Table) -> list[str]:
    def row(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    rule = ["---" if i in table.words else "---:" for i in range(len(table.columns))]
    return [row(table.columns), row(rule), *map(row, table.rows)]
