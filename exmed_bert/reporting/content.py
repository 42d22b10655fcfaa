"""Content of a report: sections with paragraphs, verdicts, tables, trees and plots, as HTML and Markdown show them.

A report is built in four steps: `plotting.draw_plots` turns figures into plots, whose points `plotting.name_points`
names; `Report` holds these and sections of what is defined here; `folder.report_files` writes its page, with whatever
else belongs beside it; `markdown.markdown` is the same as text. The page makes tables sortable and searchable, stacks
their rows on narrow screens, and has a list of contents, two color schemes and a form for printing, without being told.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Tone = Literal["good", "near", "bad", "none"]
"""Color of a verdict."""

Style = Literal["number", "word", "code", "text"]
"""How a column is set: numbers to the right, words and codes on one line, text over several."""


class Plot(NamedTuple):
    """A picture.

    Attributes:
        png: goes beside the page, for Markdown.
        alternative: the text that stands for it where it cannot be seen.
        svg: what the page shows, as `svg.page_svg` makes it; "" where the PNG has to do.
    """

    png: bytes
    alternative: str
    svg: str = ""


class Caution(str):
    """A note that is a warning, and stands out as one; notes that are not are neutral."""

    __slots__ = ()


@dataclass(frozen=True)
class Verdict:
    """A few words in a color."""

    text: str
    tone: Tone

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Interval:
    """A value with its interval, which a page sets below it so that a table stays narrow."""

    value: str
    interval: str

    def __str__(self) -> str:
        return f"{self.value} ({self.interval})"


@dataclass(frozen=True)
class Link:
    """Text that leads to a section of the same report."""

    text: str
    section: str

    def __str__(self) -> str:
        return self.text


Cell = str | Verdict | Interval | Link


@dataclass(frozen=True)
class Table:
    """Rows of cells.

    Attributes:
        columns: C names.
        rows: each of C cells.
        styles: by column; those that are not named hold numbers.
        caption: stands above the table, or is what opens a folded one; "" where the title of the section says it all.
        stacked: whether a narrow screen shows each row of more than three columns as a block, its numbers with the
            names of their columns; if not, columns that do not fit are scrolled to.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    styles: Mapping[int, Style] = field(default_factory=lambda: {0: "word"})
    caption: str = ""
    stacked: bool = True

    @property
    def column_styles(self) -> list[Style]:
        """The style of every column."""
        return [self.styles.get(i, "number") for i in range(len(self.columns))]

    @property
    def heading(self) -> int:
        """The column that says what a row is: the first that is no verdict."""
        first = self.rows[0] if self.rows else ()
        return next((i for i, cell in enumerate(first) if not isinstance(cell, Verdict)), 0)


@dataclass(frozen=True)
class Branch:
    """A node of a tree that one unfolds.

    Attributes:
        name: in bold, such as a code.
        text: beside it, such as its name for people.
        verdict: a few words in a color after that.
        facts: names and values, shown where the branch is unfolded.
        branches: below it.
    """

    name: str
    text: str = ""
    verdict: Verdict | None = None
    facts: Sequence[tuple[str, str]] = ()
    branches: Sequence["Branch"] = ()


@dataclass(frozen=True)
class Tree:
    """Branches with a caption; folded at first, searched by what stands on the branches."""

    caption: str
    branches: Sequence[Branch]


@dataclass(frozen=True)
class FlowBox:
    """A box of a flow chart: what it counts, how many, and what they are made of."""

    title: str
    count: str
    lines: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class FlowStep:
    """A box, and who leaves the flow below it."""

    box: FlowBox
    leaving: FlowBox | None = None


@dataclass(frozen=True)
class Flow:
    """A flow chart of counts: steps one below another, and the boxes side by side that they end in."""

    steps: Sequence[FlowStep]
    ends: Sequence[FlowBox] = ()


@dataclass(frozen=True)
class Statement:
    """A metric with its verdict, as a sentence.

    Attributes:
        verdict, name, value: what was measured, and what to think of it.
        remarks: what the value is compared with.
        note: how it is computed, in small print.
    """

    verdict: Verdict
    name: str
    value: str
    remarks: str = ""
    note: str = ""


@dataclass(frozen=True)
class ReportSection:
    """A section of a report; its fields are shown in this order, plots beside the text where there is room.

    Attributes:
        key: unique in the report; links lead to it.
        title: heading.
        text: paragraphs.
        source: where the numbers come from, in small print.
        statements: metrics with verdicts.
        flow: a flow chart; what it counts stands in a table too, for Markdown has no charts.
        plots: names of plots; those that were not drawn are left out.
        tables: open ones.
        notes: paragraphs in small print.
        legend: what the verdicts mean.
        trees: below these.
        folded: tables that a click opens, each with a caption.
    """

    key: str
    title: str
    text: Sequence[str] = ()
    source: str = ""
    statements: Sequence[Statement] = ()
    flow: Flow | None = None
    plots: Sequence[str] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    legend: Sequence[tuple[Verdict, str]] = ()
    trees: Sequence[Tree] = ()
    folded: Sequence[Table] = ()


@dataclass(frozen=True)
class Report:
    """A report as a whole.

    Attributes:
        title: heading.
        facts: names and values that say what the report is about; folded where there is a lead.
        notes: what a reader has to know before the rest.
        sections: in their order.
        plots: by name.
        lead: what was found, in a sentence or two.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    notes: Sequence[str]
    sections: Sequence[ReportSection]
    plots: Mapping[str, Plot]
    lead: str = ""


def capital(text: str) -> str:
    """Return the text with a capital as its first letter and the others as they are.

    >>> capital("expected AUROC"), capital("")
    ('Expected AUROC', '')
    """
    return text[:1].upper() + text[1:]
