"""Markdown of a report, with its plots as files beside it."""

import re
from collections.abc import Iterator, Sequence

from exmed_bert.reporting.content import Branch, Cell, Report, ReportSection, Table

_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_INNER_LINE_END = re.compile(r"(?<=[^\n])\s*\n\s*(?=[^\s])")


def markdown(report: Report) -> str:
    """Return the report as Markdown; folded tables stand open."""
    lines = [f"# {report.title}", ""]
    lines += [report.lead, ""] if report.lead else []
    lines += [f"- {name}: {value}" for name, value in report.facts]
    lines += [f"\n> {note}" for note in report.notes]
    for section in report.sections:
        lines += ["", f"## {section.title}", *_section(section, report)]
    return "\n".join(map(as_text, lines)) + "\n"


def as_text(line: str) -> str:
    """Return a line of Markdown, with empty ones around it, in which no name is taken for HTML or goes on below.

    >>> as_text("\\n<img src=x>\\nfew: <11 <b>")
    '\\n&lt;img src=x> few: <11 &lt;b>'
    """
    return _TAG.sub("&lt;", _INNER_LINE_END.sub(" ", line))


def _section(section: ReportSection, report: Report) -> Iterator[str]:
    yield from (f"\n{paragraph}" for paragraph in section.text)
    if section.source:
        yield f"\nSource: {section.source}"
    for found in section.statements:
        remarks = f" ({found.remarks})" if found.remarks else ""
        yield f"\n- **{found.verdict}** {found.name}: {found.value}{remarks}. {found.note}".rstrip()
    yield from (f"\n![{report.plots[name].alternative}]({name}.png)" for name in section.plots if name in report.plots)
    for table in section.tables:
        yield from _table(table)
    yield from (f"\n{note}" for note in section.notes)
    yield from (f"\n- **{verdict}**: {meaning}" for verdict, meaning in section.legend)
    for tree in section.trees:
        yield f"\n{tree.caption}:\n"
        for branch in tree.branches:
            yield from _branch(branch, 0)
    for table in section.folded:
        yield from _table(table)


def _branch(branch: Branch, depth: int) -> Iterator[str]:
    verdict = f" **{branch.verdict}**" if branch.verdict else ""
    facts = "; ".join(f"{name}: {value}" for name, value in branch.facts)
    yield f"{'  ' * depth}- {branch.name} {branch.text}".rstrip() + verdict + (f" ({facts})" if facts else "")
    for below in branch.branches:
        yield from _branch(below, depth + 1)


def _table(table: Table) -> Iterator[str]:
    if table.caption:
        yield f"\n{table.caption}:"
    yield ""
    yield _row(table.columns)
    yield _row(["---:" if style == "number" else "---" for style in table.column_styles])
    yield from map(_row, table.rows)


def _row(cells: Sequence[Cell]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"
