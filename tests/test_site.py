"""The site of the documents: it builds without a warning, asks nothing of the network, and its search finds."""

import re
import runpy
from pathlib import Path
from typing import Any

import browser
import pytest
from conftest import ROOT, wait_for
from documents import blocks
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import Files

pytestmark = pytest.mark.slow

HOOK: dict[str, Any] = runpy.run_path(str(ROOT / "docs" / "site_pages.py"))


def built(folder: Path, **changes: Any) -> Path:
    """Build the site into a folder; mkdocs checks links and anchors, and a warning is an error."""
    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), **changes)
    assert config.strict
    config.plugins.on_startup(command="build", dirty=False)
    build(config)
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("site"))


def test_every_page_of_the_documents_is_there(site: Path) -> None:
    documents = [path.relative_to(ROOT) for path in (ROOT / "docs").rglob("*.md")]
    assert not [path for path in documents if not (site / path.with_suffix(".html")).is_file()]
    settings = (site / "config.yaml.html").read_text()
    assert "num_patients" in settings and 'href="config.yaml.html"' in (site / "index.html").read_text()
    assert (site / "examples" / "omop" / "index.html").is_file()
    assert "data:image/png" in (site / "examples" / "quickstart.ipynb.html").read_text()
    assert 'id="exmed_bert.interface.model.PatientModel.embed"' in (site / "docs" / "API.html").read_text()


def test_nothing_comes_from_the_network(site: Path) -> None:
    fetched = re.compile(r"<(?:script|img|iframe)[^>]+src=\"?https?:|<link[^>]+href=\"?https?:(?![^>]*canonical)")
    assert not [path for path in site.rglob("*.html") if fetched.search(path.read_text())]


def test_a_link_that_leads_nowhere_stops_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "site_worker.js").touch()
    (tmp_path / "README.md").write_text("# A\n\n[b](docs/b.md#c)\n\n```text\n[x](no.md)\n```\n")
    (tmp_path / "docs" / "b.md").write_text("# B\n\n[a](../data)\n")
    monkeypatch.setitem(HOOK["on_files"].__globals__, "ROOT", tmp_path)
    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path / "site"), nav=["README.md"])
    with pytest.raises(PluginError, match="data: is not there, and the navigation or a page links to it"):
        HOOK["on_files"](Files([]), config=config)


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "how_do_i").glob("*.md")), ids=lambda path: path.stem)
def test_the_python_of_the_recipes_prints_what_is_shown(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for block in blocks(path, "python"):
        exec(block.text, {"__name__": "recipe"})
    assert capsys.readouterr().out == "".join(f"{block.text}\n" for block in blocks(path, "txt"))


def test_a_notebook_becomes_a_page_with_its_outputs() -> None:
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": ["1 < 2\n"]},
        {"output_type": "execute_result", "data": {"text/plain": ["x"], "text/html": ["<table></table>"]}},
        {"output_type": "display_data", "data": {"text/plain": ["<Figure>"], "image/png": "aGk=\n"}},
    ]
    parts = list(HOOK["cell_parts"]({"cell_type": "code", "source": ["a = 1\n", "a"], "outputs": outputs}))
    image = '<img alt="" src="data:image/png;base64,aGk=">'
    assert parts == ["```python\na = 1\na\n```", "<pre><code>1 &lt; 2</code></pre>", "<table></table>", image]


@pytest.mark.skipif(browser.installed() is None, reason="needs Chromium")
def test_the_search_finds_in_pages_opened_from_files(site: Path, tmp_path: Path) -> None:
    program = browser.installed()
    assert program is not None
    with browser.browser(program, tmp_path) as tab:
        tab.open(site / "docs" / "PYTHON.html")
        tab.run("document.querySelector('.md-search__input').focus()")
        said = "document.querySelector('.md-search-result__meta').innerText"
        wait_for(lambda: tab.run(said) == "Type to start searching")
        tab.call("Input.insertText", text="censoring")
        tab.call("Input.dispatchKeyEvent", type="keyUp", key="g")
        wait_for(lambda: re.match(r"\d+ matching", tab.run(said)) is not None)
        assert not [url for url in tab.requests if not url.startswith(("file:", "data:"))] and not tab.complaints
