"""The notebooks: every cell runs, and gives what the notebook shows, but for the figures of a model."""

import runpy
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from documents import without_figures

pytestmark = pytest.mark.slow

NOTEBOOKS: dict[str, Any] = runpy.run_path(str(ROOT / "examples" / "run_notebooks.py"), run_name="notebooks")


def shown(outputs: list[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    """Return the kind of each output and its text, without figures; codes and guesses of a model are figures, too."""
    found = []
    for output in outputs:
        text = output.get("text") or output["data"]["text/plain"]
        lines = [without_figures(line).split() for line in text]
        found.append((output["output_type"], [line[0] for line in lines if line and len(lines) < 100]))
    return found


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "examples").glob("*.ipynb")))
def test_a_notebook_shows_what_it_gives(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = NOTEBOOKS["read"](name)
    assert notebook["nbformat"] == 4 and all(set(cell) >= {"id", "metadata", "source"} for cell in notebook["cells"])
    with NOTEBOOKS["folder"](tmp_path):
        found = [(shown(cell["outputs"]), shown(outputs)) for cell, outputs in NOTEBOOKS["run"](notebook)]
    assert len(found) > 5 and any(kept and kept[-1][0] == "display_data" for kept, _ in found)
    for kept, given in found:
        assert [kind for kind, _ in kept] == [kind for kind, _ in given]
        for (_, lines), (_, others) in zip(kept, given, strict=True):
            assert lines[:4] == others[:4]
