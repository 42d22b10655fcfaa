"""What all reports share: a page that escapes everything and loads nothing, Markdown, files that appear together."""

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure

from exmed_bert.reporting.content import (
    Branch,
    Caution,
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
    Tree,
    Verdict,
)
from exmed_bert.reporting.folder import PAGE, report_files
from exmed_bert.reporting.html import html
from exmed_bert.reporting.markdown import markdown
from exmed_bert.reporting.plotting import BLUE, draw_plots, name_points, one_axes
from exmed_bert.reporting.svg import page_svg

GOOD, BAD = Verdict("better", "good"), Verdict("worse", "bad")


def report(text: str = "text") -> Report:
    """Return a report that has everything, each field ending in ``text``."""
    table = Table(
        (f"metric {text}", "value", "verdict", "code", "note"),
        [(Link(f"to {text}", "second"), Interval(f"0.5 {text}", f"0.4 to {text}"), GOOD, f"E11.9 {text}", f"a {text}")]
        * 2,
        {0: "word", 2: "word", 3: "code", 4: "text"},
        f"caption {text}",
    )
    statement = Statement(
        replace(BAD, text=f"worse {text}"), f"name {text}", f"1 {text}", f"remark {text}", f"how {text}"
    )
    parts = [(f"part {text}", f"3 {text}")]
    boxes = [FlowBox(f"{name} {text}", f"10 {text}", parts) for name in ("all", "out", "end")]
    chart = Flow([FlowStep(boxes[0], boxes[1]), FlowStep(boxes[0])], [boxes[2]])
    twig = Branch(f"code {text}", f"called {text}", BAD, [(f"cosine {text}", f"0.9 {text}")])
    tree = Tree(f"tree {text}", [Branch(f"chapter {text}", branches=[twig])])
    first = ReportSection(
        "first", f"title {text}", [f"paragraph {text}"], f"source {text}", [statement], chart, ["drawn", "not_drawn"],
        [table], [f"small print {text}"], [(GOOD, f"means {text}")], [tree],
        [replace(table, caption=f"folded {text}")],
    )  # fmt: skip
    second = ReportSection("second", f"other {text}", plots=["drawn", "other"])
    plots = {"drawn": Plot(b"png", f"picture {text}"), "other": Plot(b"png", "other picture")}
    notes = [f"know {text}", Caution(f"beware {text}")]
    third = ReportSection("third", f"last {text}")
    facts = [(f"fact {text}", f"is {text}")]
    return Report(f"report {text}", facts, notes, [first, second, third], plots, f"found {text}")


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
        if tag not in ("meta", "img", "br", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_page_shows_everything_and_closes_what_it_opens() -> None:
    page = Page(html(report("<&\"'>")))
    assert page.open == []
    before = ("report", "fact", "is", "know", "title", "paragraph", "source", "worse", "name", "1", "remark", "how")
    before += ("all", "out", "end", "10", "part", "3")
    before += ("found", "know", "beware", "tree", "chapter", "code", "called", "cosine", "0.9", "last")
    before += ("small print", "means", "caption", "metric", "to", "0.5", "0.4 to", "E11.9", "a", "folded", "other")
    assert [words for words in before if f"{words} <&\"'>" not in page.text] == []
    assert [attrs["alt"] for tag, attrs in page.tags if tag == "img"] == ["picture <&\"'>"] * 2 + ["other picture"]
    assert {attrs["href"] for tag, attrs in page.tags if tag == "a"} == {"#first", "#second", "#third"}


def test_a_page_may_load_nothing_and_runs_its_own_script_alone() -> None:
    text = html(report("<script>alert(1)</script>"))
    page = Page(text)
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    hashes = []
    for tag in ("style", "script"):
        (part,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        hashes.append(f"'sha256-{base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()}'")
    allowed = "default-src 'none'; img-src data:; style-src {}; script-src {}; base-uri 'none'; form-action 'none'"
    assert policy == allowed.format(*hashes)
    tags = [tag for tag, _ in page.tags]
    assert (tags.count("script"), tags.count("style")) == (1, 1) and not {"link", "iframe", "base", "form"} & set(tags)
    assert [name for _, attrs in page.tags for name in attrs if name == "style" or name.startswith("on")] == []


def test_markdown_takes_no_name_for_html() -> None:
    text = markdown(report("<img src=x onerror=y>\nbelow"))
    assert "<img" not in text and "&lt;img src=x onerror=y> below" in text and "\nbelow" not in text


def test_tables_have_captions_and_say_what_heads_what() -> None:
    tags = Page(html(report())).tags
    cells = [(tag, attrs) for tag, attrs in tags if tag == "td" or attrs.get("scope") == "row"][:5]
    assert [(tag, attrs.get("class"), attrs.get("data-label")) for tag, attrs in cells] == [
        ("th", "word", None), ("td", None, "value"), ("td", "word", None), ("td", "code", None), ("td", "text", None),
    ]  # fmt: skip
    assert {attrs["scope"] for tag, attrs in tags if tag == "th"} == {"col", "row"}
    assert sum(tag == "caption" for tag, _ in tags) == sum(tag == "table" for tag, _ in tags) == 2


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("name", ["from $5 to $10", r"$\frac$", "a\x01b", "</script><img src=x onerror=y>"])
def test_a_name_in_a_plot_is_shown_as_it_is(name: str) -> None:
    def draw(_: None) -> Figure:
        figure, axes = one_axes(3)
        axes.set_yticks([0], [name])
        name_points(axes, [0], [0], [name])
        return figure

    svg = draw_plots({"a": (draw, "picture")}, None)["a"].svg
    shown = name.replace("\x01", "�").replace("<", "&lt;").replace(">", "&gt;")
    assert f">{shown}</text>" in svg and f"<title>{shown}</title>" in svg


def test_a_plot_is_drawn_for_the_page_and_its_points_have_names() -> None:
    def draw(values: list[float]) -> Figure:
        figure, axes = one_axes(3)
        axes.scatter([1, 2, 3], values, color=BLUE)
        name_points(axes, [1, 2, 3], values, ["one", "<two>", "three"])
        return figure

    plots = [draw_plots({"drawn": (draw, 'A "plot".')}, [1.0, 2.0, float("nan")])["drawn"] for _ in range(2)]
    assert plots[0] == plots[1] and plots[0].png.startswith(b"\x89PNG")
    root = ElementTree.fromstring(plots[0].svg)
    assert root.attrib["role"] == "img" and root.attrib["aria-label"] == 'A "plot".'
    assert [title.text for title in root.iter("title")] == ["one", "<two>"]
    (one, two) = [float(circle.attrib["cx"]) for circle in root.iter("circle")]
    width = float(root.attrib["viewBox"].split()[2])
    assert 0 < one < two < width and not any("style" in element.attrib for element in root.iter())
    as_picture = page_svg(plots[0].svg, "", [], image="data:image/png;base64,AA")
    assert "<image " in as_picture and "<path" not in as_picture and "<image " not in plots[0].svg


def test_markdown_has_the_same_content() -> None:
    text = markdown(report("|"))
    assert "| metric \\| | value | verdict | code | note |\n| --- | ---: | --- | --- | --- |" in text
    assert "| to \\| | 0.5 \\| (0.4 to \\|) | better | E11.9 \\| | a \\| |" in text
    assert "- **worse |** name |: 1 | (remark |). how |" in text and "![picture |](drawn.png)" in text
    assert "- chapter |\n  - code | called | **worse** (cosine |: 0.9 |)" in text and "> beware |" in text
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
