"""What stands after a failure of what all commands write through."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exmed_bert.staging import remove_abandoned, staged_files, staged_folder, write_json
from faults.shim import Command, check_errors, check_kills, check_sizes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and asks Linux for the names of open files")


OLD = ("a.json", "b.json", "notes", "old.png", "page/a.json", "page/mine", "page/old.png")


def one_file(root: Path) -> None:
    remove_abandoned(root)
    write_json(root / "a.json", "new")


def several_files(root: Path) -> None:
    with staged_files(root, obsolete=["old.png", "page/old.png"]) as staged:
        (staged / "page").mkdir()
        (staged / "held_out").mkdir()
        for name in ("a.json", "b.json", "page/a.json", "held_out/a.json"):
            write_json(staged / name, f"new {name}")


def one_folder(root: Path) -> None:
    with staged_folder(root / "page", lambda folder: None) as staged:
        (staged / "deep").mkdir()
        for name in ("a.json", "deep/c.json"):
            (staged / name).write_text("new")
        (staged.parent / "b.json").write_text("new")


@pytest.mark.parametrize(
    ("write", "names"), [(one_file, ()), (one_file, OLD), (several_files, OLD), (one_folder, ()), (one_folder, OLD)]
)
def test_each_point(write: Callable[[Path], Any], names: tuple[str, ...], root: Path) -> None:
    for name in names:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("old")
    command = Command(root, lambda: write(root), [root / "a.json", root / "page"])
    check_errors(command)
    check_kills(command)
    check_sizes(command)
