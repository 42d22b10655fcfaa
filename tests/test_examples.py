"""The examples: their READMEs' commands run as printed and print what is shown, and their files are what makes them.

The commands run in this process, as their scripts would run them, from a copy of the examples.
"""

import contextlib
import gzip
import io
import json
import runpy
import shlex
import shutil
import sys
import traceback
from collections import Counter
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from conftest import ROOT
from documents import Block, blocks, without_figures
from typer.testing import CliRunner

from exmed_bert import PatientDataset
from exmed_bert.cli import script
from exmed_bert.commands import COMMANDS
from exmed_bert.startup import SCRIPTS

EXAMPLES = sorted(path.stem for path in (ROOT / "examples" / "writers").glob("[a-z]*.py"))
YOUR_DATA = ROOT / "docs" / "YOUR_DATA.md"
STEPS = ("convert", "report", "pretrain", "finetune")
SHIFTED = "mimic"  # its dates are moved by some years per patient


def readme(example: str) -> Path:
    return ROOT / "examples" / example / "README.md"


def step_of(command: str) -> str:
    """Return the step whose script a command runs."""
    python, name, *_ = shlex.split(command)
    assert python == "python"
    return next(step for step, file in SCRIPTS.items() if f"scripts/{file}" == name)


class Project:
    """A copy of the project's examples, and what the commands of each README print there."""

    def __init__(self, root: Path) -> None:
        shutil.copytree(ROOT / "examples", root / "examples", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "config.yaml", root)
        self.root = root
        self.follow = cache(self._follow)

    def _follow(self, document: Path, steps: tuple[str, ...] = STEPS) -> list[tuple[Block, str]]:
        """Run a document's commands in their order; return its blocks with what the commands before had printed."""
        done, printed = [], ""
        for block in blocks(document, "bash", "text", ""):
            if block.language == "bash":
                commands = [command for command in block.commands if step_of(command) in steps]
                printed = "".join(map(self._run, commands))
            done.append((block, printed))
        return done

    def _run(self, command: str) -> str:
        with contextlib.chdir(self.root):
            result = CliRunner().invoke(script(COMMANDS[step_of(command)]), shlex.split(command)[2:])
        assert result.exit_code == 0, result.output + "".join(traceback.format_exception(*result.exc_info))
        assert "Error" not in result.stderr and "Traceback" not in result.stderr, result.stderr
        return result.output

    def datasets(self, example: str) -> dict[str, list[PatientDataset]]:
        """Return both datasets of each conversion of an example, by the name of the input."""
        self.follow(readme(example))
        folder = self.root / "output" / "examples" / example
        names = {path.name.removesuffix("_train.pt") for path in folder.glob("*_train.pt")}
        return {
            name: [PatientDataset.load(folder / f"{name}_{split}.pt") for split in ("train", "val")] for name in names
        }


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return the copy."""
    return Project(tmp_path_factory.mktemp("user") / "project")


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_prints_what_it_shows(example: str, project: Project) -> None:
    assert check_shown(project.follow(readme(example))) > 20


@pytest.mark.slow
def test_the_page_of_own_data_shows_what_is_printed(project: Project) -> None:
    """But for training, which has the original's sizes; the page's two patients are thirty of each."""
    (shown,) = blocks(YOUR_DATA, "json")
    patients = [
        patient | {"patient_id": f"{patient['patient_id']}-{i}"}
        for patient in json.loads(shown.text)
        for i in range(30)
    ]
    (project.root / "data").mkdir()
    (project.root / "data" / "my_patients.json").write_text(json.dumps(patients))
    assert check_shown(project.follow(YOUR_DATA, STEPS[:2])) > 8


def check_shown(done: list[tuple[Block, str]]) -> int:
    """Check each line of output that a document shows; return how many there are.

    What is read is shown to the letter; figures of a trained model have decimals and depend on the machine.
    """
    number = 0
    for block, printed in done:
        if block.language == "bash":
            continue
        exact = {" ".join(line.split()) for line in printed.splitlines()}
        shapes = {without_figures(line) for line in exact if "." in line}
        for line in map(str.strip, block.text.splitlines()):
            if line in ("", "...") or line.startswith("Error: "):  # tests/test_guide.py has these
                continue
            number += 1
            real = " ".join(line.split()) in exact or ("." in line and without_figures(line) in shapes)
            assert real, f"line {block.line} and below: {line!r} is not printed"
    return number


@pytest.mark.parametrize("example", EXAMPLES)
def test_each_example_shows_every_step(example: str) -> None:
    steps = [step_of(command) for block in blocks(readme(example), "bash") for command in block.commands]
    assert tuple(dict.fromkeys(steps)) == STEPS


@pytest.mark.slow
def test_all_formats_give_the_same_patients(project: Project) -> None:
    """Each holds the same 120, so that the datasets differ in nothing but ids and, by these, splits."""
    expected = profiles(project.datasets("csv")["patients"])
    assert expected.total() == 120
    for example in EXAMPLES:
        for name, datasets in project.datasets(example).items():
            if {key[0] for key in datasets[0].info.vocabulary.keys if key} != {"icd10cm", "atc"}:
                assert "--keep-systems" in readme(example).read_text()
            elif example == SHIFTED:
                assert profiles(datasets, shifted=True) == profiles(project.datasets("csv")["patients"], shifted=True)
            elif "input" in {dataset.info.split_from for dataset in datasets}:  # those held out are in neither
                assert not profiles(datasets) - expected
            else:
                assert profiles(datasets) == expected, (example, name)


def profiles(datasets: list[PatientDataset], shifted: bool = False) -> Counter[Any]:
    """Return all that the patients of datasets are told apart by, but for their ids; days count from the first one."""
    found: Counter[Any] = Counter()
    for dataset in datasets:
        for patient in (dataset.patient(i) for i in range(len(dataset))):
            first = min(event.day for event in patient.events) if shifted else date.min
            events = sorted(((event.day - first).days, event.system, event.code) for event in patient.events)
            known = (patient.birth_year, patient.static["state"])
            found[patient.static["sex"], *(() if shifted else known), *events] += 1
    return found


OTHERS = (".py", ".md", ".ipynb")  # that are written by hand, or run by tests/test_notebooks.py


@pytest.mark.slow
def test_the_files_are_what_makes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packed and Parquet files by their content, since a compressor's bytes depend on its release."""
    for name in ("scripts", "exmed_bert", "examples"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    made = tmp_path / "examples"
    files = {path.relative_to(made) for path in made.rglob("*") if path.is_file() and path.suffix not in OTHERS}
    assert len(files) > 30
    for file in files:
        (made / file).unlink()
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", ["make_examples.py"])
    for name in [name for name in sys.modules if name.split(".")[0] == "writers"]:
        monkeypatch.delitem(sys.modules, name)
    runpy.run_path(str(made / "make_examples.py"), run_name="__main__")
    again = {path.relative_to(made) for path in made.rglob("*") if path.is_file() and path.suffix not in OTHERS}
    assert again - {path for path in again if "__pycache__" in path.parts} == files
    assert not [file for file in sorted(files) if content(made / file) != content(ROOT / "examples" / file)]


def content(path: Path) -> Any:
    data = path.read_bytes()
    if path.suffix == ".parquet":
        return pyarrow.parquet.read_table(io.BytesIO(data))
    return gzip.decompress(data) if path.suffix == ".gz" else data
