"""Files that belong together appear together."""

from pathlib import Path

import pytest

from exmed_bert.console import InputError
from exmed_bert.files import staged_files


def content(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_staged_files_replace_what_they_name_and_leave_the_rest(tmp_path: Path) -> None:
    for name in ("page.html", "old.png", "plot.png", "notes.txt", "projector/a", "projector/b"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("old")
    with staged_files(tmp_path, last="page.html", obsolete=("old.png", "plot.png", "never.png")) as staged:
        for name in ("page.html", "plot.png", "projector/a"):
            (staged / name).parent.mkdir(exist_ok=True)
            (staged / name).write_text("new")
        assert set(content(tmp_path).values()) == {"old", "new"} and (tmp_path / "page.html").read_text() == "old"
    assert content(tmp_path) == {"page.html": "new", "plot.png": "new", "projector/a": "new", "notes.txt": "old"}


def test_an_error_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "page.html").write_text("old")
    for folder in (tmp_path / "old", tmp_path / "new" / "folder"):
        with pytest.raises(KeyboardInterrupt), staged_files(folder, obsolete=("page.html",)) as staged:
            (staged / "page.html").write_text("half")
            raise KeyboardInterrupt
    assert content(tmp_path) == {"old/page.html": "old"} and not (tmp_path / "new" / "folder").exists()


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    with staged_files(tmp_path) as staged:
        (staged / "whole.txt").write_text("new")
        name = staged.name
    (tmp_path / name).mkdir()
    (tmp_path / name / "half.txt").write_text("half")
    with staged_files(tmp_path) as staged:
        assert list(staged.iterdir()) == []
    assert content(tmp_path) == {"whole.txt": "new"}


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "page.html").mkdir()
    with pytest.raises(InputError, match=r"page\.html: is a folder"), staged_files(tmp_path) as staged:
        (staged / "a.txt").write_text("new")
        (staged / "page.html").write_text("new")
    assert content(tmp_path) == {}
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="expected a folder"), staged_files(tmp_path / "file"):
        pass
