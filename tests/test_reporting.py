"""What all reports share: a page that escapes everything and loads nothing, Markdown, files that appear together."""

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from exmed_bert.reporting.content import (
    Flow,
    FlowBox,
    FlowStep,
    Interval,
    Link,
    Plot,
    Report,
    ReportSection,
    Statement,
    Table,
    Verdict,
)
from exmed_bert.reporting.folder import PAGE, report_files
from exmed_bert.reporting.html import html
from exmed_bert.reporting.markdown import markdown

GOOD, BAD = Verdict("better", "good"), Verdict("worse", "bad")


def report(text: str = "text") -> Report:
    """Return a report that has everything, each field ending in ``text``."""
    table = Table(
        (f"metric {text}", "value", "verdict", "code", "note"),
        [(Link(f"to {text}", "second"), Interval(f"0.5 {text}", f"0.4 to {text}"), GOOD, f"E11.9 {text}", f"a {text}")]
        * 2,
        {0: "word", 2: "word", 3: "code", 4: "text"},
        f"caption {text}",
        stacked=True,
    )
    statement = Statement(
        replace(BAD, text=f"worse {text}"), f"name {text}", f"1 {text}", f"remark {text}", f"how {text}"
    )
    parts = [(f"part {text}", f"3 {text}")]
    boxes = [FlowBox(f"{name} {text}", f"10 {text}", parts) for name in ("all", "out", "end")]
    chart = Flow([FlowStep(boxes[0], boxes[1]), FlowStep(boxes[0])], [boxes[2]])
    first = ReportSection(
        "first", f"title {text}", [f"paragraph {text}"], f"source {text}", [statement], chart, ["drawn", "not_drawn"],
        [table], [f"small print {text}"], [(GOOD, f"means {text}")], [replace(table, caption=f"folded {text}")],
    )  # fmt: skip
    second = ReportSection("second", f"other {text}", plots=["drawn", "other"])
    plots = {"drawn": Plot(b"png", f"picture {text}"), "other": Plot(b"png", "other picture")}
    return Report(f"report {text}", [(f"fact {text}", f"is {text}")], [f"know {text}"], [first, second], plots)


class Page(HTMLParser):
    """Collects the text, the tags with their attributes, and which tags are not closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.tags, self.open = "", [], []
        self.feed(page)

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_page_shows_everything_and_closes_what_it_opens() -> None:
    page = Page(html(report("<&\"'>")))
    assert page.open == []
    before = ("report", "fact", "is", "know", "title", "paragraph", "source", "worse", "name", "1", "remark", "how")
    before += ("all", "out", "end", "10", "part", "3")
    before += ("small print", "means", "caption", "metric", "to", "0.5", "0.4 to", "E11.9", "a", "folded", "other")
    assert [words for words in before if f"{words} <&\"'>" not in page.text] == []
    assert [attrs["alt"] for tag, attrs in page.tags if tag == "img"] == ["picture <&\"'>"] * 2 + ["other picture"]
    assert {attrs["href"] for tag, attrs in page.tags if tag == "a"} == {"#second"}
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe"})
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_numbers_of_a_stacked_table_carry_the_names_of_their_columns() -> None:
    cells = [attrs for tag, attrs in Page(html(report())).tags if tag == "td"]
    assert [attrs.get("class") for attrs in cells[:5]] == ["word", None, "word", "code", "text"]
    assert [attrs.get("data-label") for attrs in cells[:5]] == [None, "value", None, None, None]


def test_markdown_has_the_same_content() -> None:
    text = markdown(report("|"))
    assert "| metric \\| | value | verdict | code | note |\n| --- | ---: | --- | --- | --- |" in text
    assert "| to \\| | 0.5 \\| (0.4 to \\|) | better | E11.9 \\| | a \\| |" in text
    assert "- **worse |** name |: 1 | (remark |). how |" in text and "![picture |](drawn.png)" in text
    assert "not_drawn" not in text and "- **better**: means |" in text


def test_the_files_of_a_report_appear_together(tmp_path: Path) -> None:
    old = replace(report(), plots={"gone": Plot(b"png", "gone")})
    with report_files(tmp_path, old, ("drawn", "other", "gone")) as staged:
        (staged / "results.json").write_text("old")
    with pytest.raises(KeyboardInterrupt), report_files(tmp_path, report(), ("drawn", "other", "gone")) as staged:
        (staged / "results.json").write_text("new")
        raise KeyboardInterrupt
    assert {path.name for path in tmp_path.iterdir()} == {PAGE, "gone.png", "results.json"}
    assert (tmp_path / "results.json").read_text() == "old" and (tmp_path / PAGE).read_text() == html(old)
    with report_files(tmp_path, report(), ("drawn", "other", "gone")) as staged:
        (staged / "results.json").write_text("new")
    assert {path.name for path in tmp_path.iterdir()} == {PAGE, "drawn.png", "other.png", "results.json"}
