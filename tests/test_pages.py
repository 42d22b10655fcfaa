"""Pages in a browser: what their script does, what they load, how they look, and whether everybody can read them."""

import io
import os
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from browser import Browser, browser, installed
from matplotlib.figure import Figure
from matplotlib.image import imread
from test_evaluation import evaluated, planted

from exmed_bert.evaluation.results_page import write_report
from exmed_bert.reporting.content import Branch, Caution, Interval, Report, ReportSection, Table, Tree, Verdict
from exmed_bert.reporting.folder import report_files
from exmed_bert.reporting.plotting import draw_plots, name_points, one_axes

LARGEST = 3_000_000  # bytes of a page
WIDE, NARROW = 1400, 420

VISIBLE = (
    "[...document.querySelectorAll('#table tbody tr')].filter(row => !row.hidden).map(row => row.cells[1].innerText)"
)


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if sys.platform != "linux":
        pytest.skip("the browser is driven over file descriptors that it inherits")
    if (program := installed()) is None:
        message = "pages cannot be tested: no Chromium found"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    with browser(program, tmp_path_factory.mktemp("profile")) as started:
        yield started


def dots(_: None) -> Figure:
    """Return a plot of three named points."""
    figure, axes = one_axes(3)
    axes.scatter([1, 2, 3], [1, 3, 2], color="#2f6f9f")
    name_points(axes, [1, 2, 3], [1, 3, 2], ["first", "second", "third"])
    return figure


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with everything: a table of 20 rows, a tree, a plot, a folded table."""
    verdicts = [Verdict("worse", "bad"), Verdict("better", "good")]
    values = [Interval(f"{'−' * (i % 3 == 0)}{i * 100:,}.5", "0 to 9") for i in range(20)]
    rows = [
        (verdicts[i % 2], f"code {i}", "a long text " * 4, values[i], "<11" if i == 4 else f"{i * 20}")
        for i in range(20)
    ]
    table = Table(("Verdict", "Code", "Text", "Value", "Count"), rows, {0: "word", 1: "code", 2: "text"})
    leaf = Branch("E11.95", "a novel code", Verdict("never in training", "none"), [("Parent", "E11.9")])
    tree = Tree(
        "Codes", [Branch("4 Endocrine", branches=[Branch("E11.9", "diabetes", branches=[leaf])]), Branch("I10")]
    )
    sections = [
        ReportSection("table", "A table", ["Text."], tables=[table], legend=[(Verdict("better", "good"), "good")]),
        ReportSection("tree", "A tree", trees=[tree]),
        ReportSection("plot", "A plot", ["Text."], plots=["dots"], folded=[Table(("A", "B"), [("1", "2")] * 2)]),
    ]
    plots = draw_plots({"dots": (dots, "Three dots.")}, None)
    notes = ["All is well.", Caution("Beware.")]
    folder = tmp_path_factory.mktemp("page")
    with report_files(folder, Report("A page", [("a", "b")], notes, sections, plots, "Found."), ["dots"]):
        pass
    return folder / "report.html"


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of an evaluation."""
    return write_report(tmp_path_factory.mktemp("evaluation"), evaluated(planted(300)).results)[0]


def test_a_page_loads_itself_alone_and_runs_no_other_script(tab: Browser, page: Path, evaluation: Path) -> None:
    for path in (page, evaluation):
        tab.open(path)
        assert [address for address in tab.requests if not address.startswith("data:")] == [path.as_uri()]
        assert tab.complaints == [] and path.stat().st_size < LARGEST
    tab.run("document.body.append(Object.assign(document.createElement('script'), {textContent: 'hit = 1'}))")
    tab.run("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=hit=1>')")
    assert tab.run("new Promise(done => setTimeout(() => done(typeof hit), 50))") == "undefined"
    assert any("Content Security Policy" in text for text in tab.complaints)


def test_a_table_is_sorted_by_a_click(tab: Browser, page: Path) -> None:
    tab.open(page)
    as_they_were = [f"code {i}" for i in range(20)]
    assert tab.run(VISIBLE) == as_they_were
    head = "document.querySelectorAll('#table thead th')[{}]"
    orders = []
    for column in (3, 3, 3, 1, 4):
        tab.run(head.format(column) + ".querySelector('button').click()")
        orders.append((tab.run(VISIBLE), tab.run(head.format(column) + ".ariaSort")))
    value = sorted(range(20), key=lambda i: -(i * 100 + 0.5) * (-1 if i % 3 == 0 else 1))
    assert orders[0] == ([f"code {i}" for i in value], "descending")
    assert orders[1] == ([f"code {i}" for i in value[::-1]], "ascending")
    assert orders[2] == (as_they_were, None)
    assert orders[3] == (as_they_were, "ascending"), "code 2 comes before code 10"
    count = sorted(range(20), key=lambda i: -(10.9 if i == 4 else i * 20))
    assert orders[4] == ([f"code {i}" for i in count], "descending"), "what is hidden is less than its limit"


def test_a_table_and_a_tree_are_searched(tab: Browser, page: Path) -> None:
    tab.open(page)

    def search(where: str, text: str) -> str:
        field = f"document.querySelector('{where} input')"
        tab.run(f"{field}.value = '{text}', {field}.dispatchEvent(new Event('input'))")
        return tab.run(f"document.querySelector('{where} output').textContent")

    assert search("#table", "19 Better") == "1 of 20 rows" and tab.run(VISIBLE) == ["code 19"]
    assert search("#table", "") == "" and len(tab.run(VISIBLE)) == 20
    opened = "[...document.querySelectorAll('#tree details')].map(folded => folded.open)"
    shown = "[...document.querySelectorAll('#tree li')].filter(item => !item.hidden).length"
    assert (tab.run(opened), tab.run(shown)) == ([False] * 3, 4)
    assert search("#tree", "novel e11.95") == "1 found"
    assert (tab.run(opened), tab.run(shown)) == ([True, True, False], 3)
    assert search("#tree", "nothing") == "0 found" and tab.run(shown) == 0


def test_a_point_says_its_name(tab: Browser, page: Path) -> None:
    for width in (WIDE, NARROW):
        tab.open(page, width)
        tab.run("document.querySelector('figure svg').scrollIntoView()")
        circle = "document.querySelectorAll('figure .points circle')[1].getBoundingClientRect()"
        x, y = tab.run(f"[{circle}.x + {circle}.width / 2, {circle}.y + {circle}.height / 2]")
        tip = "(tip => tip.hidden ? null : tip.textContent)(document.querySelector('.tip'))"
        assert tab.run(tip) is None
        tab.move(x + 4, y - 3)
        assert tab.run(tip) == "second"
        inside = (
            "(box => box.left >= 0 && box.right <= innerWidth)(document.querySelector('.tip').getBoundingClientRect())"
        )
        assert tab.run(inside) is True
        tab.move(x + 60, y + 60)
        assert tab.run(tip) is None
        tab.run("document.querySelector('figure svg').focus()")
        for name in ("third", "first"):
            tab.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowRight")
            assert tab.run(tip) == name


def brightness(png: bytes) -> float:
    """Return the mean brightness of a picture, 0 to 1."""
    return float(imread(io.BytesIO(png))[..., :3].mean())


def test_a_page_follows_the_colors_of_the_system_and_of_the_reader(tab: Browser, page: Path, tmp_path: Path) -> None:
    seen = {}
    for width in (WIDE, NARROW):
        for dark in (False, True):
            tab.open(page, width, dark=dark)
            seen[width, dark] = brightness(tab.screenshot(tmp_path / f"{width}_{dark}.png"))
    assert all(seen[width, False] > 0.85 and seen[width, True] < 0.25 for width in (WIDE, NARROW))
    button = "document.querySelector('.theme')"
    assert tab.run(f"{button}.textContent") == "Light"
    tab.run(f"{button}.click()")
    assert brightness(tab.screenshot(tmp_path / "chosen.png", whole=False)) > 0.85
    tab.open(page, dark=True)
    assert brightness(tab.screenshot(tmp_path / "kept.png", whole=False)) > 0.85, "a choice is kept"
    tab.run(f"{button}.click()")
    assert brightness(tab.screenshot(tmp_path / "dark.png", whole=False)) < 0.25
    tab.call("Emulation.setEmulatedMedia", media="print")
    assert tab.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.run("getComputedStyle(document.querySelector('.theme')).display") == "none"
    tab.run("localStorage.clear()")
    tab.call("Emulation.setEmulatedMedia", media="")


def test_nothing_is_cut_off_on_a_telephone(tab: Browser, page: Path, evaluation: Path) -> None:
    for path in (page, evaluation):
        tab.open(path, NARROW)
        assert tab.run("document.documentElement.scrollWidth") == NARROW
        cells = "[...document.querySelectorAll('.stacked :is(td, tbody th)')].filter(cell => cell.checkVisibility())"
        ends = tab.run(f"{cells}.map(cell => cell.getBoundingClientRect().right)")
        assert len(ends) > 20 and np.max(ends) <= NARROW
        boxes = "[...document.querySelectorAll('section > .table .scroll')]"
        wider = f"{boxes}.filter(box => box.scrollWidth > box.clientWidth).map(box => box.ariaLabel)"
        assert tab.run(wider) == []
    tab.open(page, NARROW)
    select = "document.querySelector('#table select')"
    assert tab.run(f"{select}.checkVisibility()") is True
    tab.run(f"{select}.value = 4, {select}.dispatchEvent(new Event('change'))")
    assert tab.run(VISIBLE)[0] == "code 19"


def test_contents_lead_to_sections_and_paper_has_everything_open(tab: Browser, page: Path) -> None:
    tab.open(page)
    links = tab.run("[...document.querySelectorAll('nav a')].map(link => [link.hash, link.textContent])")
    assert links == [["#table", "A table"], ["#tree", "A tree"], ["#plot", "A plot"]]
    assert tab.run("document.querySelector('nav details').open") is True
    folded = "document.querySelectorAll('main details:not([open])').length"
    assert tab.run(folded) == 5
    tab.run("dispatchEvent(new Event('beforeprint'))")
    assert tab.run(folded) == 0
    tab.run("dispatchEvent(new Event('afterprint'))")
    assert tab.run(folded) == 5


def test_pages_are_accessible(tab: Browser, page: Path, evaluation: Path) -> None:
    axe = files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    options = "{exclude: [['figure svg g']]}, {resultTypes: ['violations']}"  # a drawing is one picture with a name
    check = f"axe.run({options}).then(found => found.violations.map(one => `${{one.impact}} ${{one.id}}`))"
    for path, width, dark in ((page, NARROW, True), (evaluation, WIDE, False)):
        tab.open(path, width, dark=dark)
        tab.run(f"{axe}; 0")
        assert tab.run(check) == []
    tab.run("document.querySelector('main').append(document.createElement('img'))")
    assert tab.run(check) == ["critical image-alt"], "what is wrong is found"
