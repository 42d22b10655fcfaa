"""Files that belong together appear together."""

import json
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from exmed_bert import locks, swap
from exmed_bert.console import InputError
from exmed_bert.files import read_json
from exmed_bert.staging import staged_files, staged_folder


def content(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_staged_files_replace_what_they_name_and_leave_the_rest(tmp_path: Path) -> None:
    for name in ("page.html", "old.png", "plot.png", "notes.txt", "projector/a", "projector/b"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("old")
    with staged_files(tmp_path, whole=["projector"], obsolete=("old.png", "plot.png", "never.png")) as staged:
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


def test_blocks_that_nest_are_one(tmp_path: Path) -> None:
    for name in ("page.html", "old.png", "projector/a", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("old")
    before = content(tmp_path)

    def report(folder: Path) -> None:
        with staged_files(folder, whole=["projector"], obsolete=["old.png"]) as staged:
            (staged / "page.html").write_text("new")
            (staged / "projector").mkdir()
            (staged / "projector" / "b").write_text("new")

    with pytest.raises(InputError, match="cannot be written: full"), staged_files(tmp_path) as staged:
        report(staged)
        raise OSError("full")
    assert content(tmp_path) == before
    with staged_files(tmp_path) as staged:
        report(staged)
        assert content(tmp_path).items() >= before.items(), "nothing is moved before the outer block ends"
        (staged / "weights").write_text("new")
    new = dict.fromkeys(("page.html", "projector/b", "weights"), "new")
    assert content(tmp_path) == new | {"notes.txt": "old"}


class Windows:
    """The module ``os`` as far as Windows differs here: folders cannot be opened, and users have no numbers."""

    name = "nt"

    def __getattr__(self, name: str) -> Any:
        if name == "geteuid":
            raise AttributeError(name)
        return getattr(os, name)

    @staticmethod
    def open(path: Path, *rest: Any) -> int:
        if Path(path).is_dir():
            raise PermissionError(13, "Permission denied")
        return os.open(path, *rest)


def test_files_change_places_where_folders_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (swap, locks):
        monkeypatch.setattr(module, "os", Windows())
    for text in ("old", "new"):
        with staged_files(tmp_path) as staged:
            (staged / "page.html").write_text(text)
    commit(tmp_path, ["p.json"], **{"p.json": '"killed"'})
    assert read_json(tmp_path / "p.json") == "killed"
    (tmp_path / ".committed.lock").unlink(missing_ok=True)  # on Windows it goes with its release
    assert content(tmp_path) == {"page.html": "new", "p.json": '"killed"'}


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    host, old = socket.gethostname(), time.time() - 2 * 86400
    names = {
        f".page.html.{host}-{gone.pid}.part": False,
        f".being-written-0.{host}-{gone.pid}.part": False,
        f".page.html.{host}-{os.getppid()}.part": True,  # its process works on
        f".page.html.else-where.org-{gone.pid}.part": True,  # another host's may work on
        f".old.else-where.org-{gone.pid}.part": False,  # a day later it does not
        ".page.html.4711.part": True,  # of an earlier release
        ".old.4711.part": False,
        ".user's.part": True,
        ".committed.lock": False,
        "part": True,
    }
    for name in names:
        path = tmp_path / name / "half" if name.startswith(".being") else tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("half")
        if name.startswith(".old"):
            os.utime(path, (old, old))
    with staged_files(tmp_path) as staged:
        assert list(staged.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {name for name, stays in names.items() if stays}


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "page.html").mkdir()
    with pytest.raises(InputError, match=r"page\.html: is a folder"), staged_files(tmp_path) as staged:
        (staged / "a.txt").write_text("new")
        (staged / "page.html").write_text("new")
    assert content(tmp_path) == {}
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="expected a folder"), staged_files(tmp_path / "file"):
        pass


def refuse(folder: Path) -> None:
    raise InputError(f"{folder}: holds something else")


def replace_any(folder: Path) -> None:
    """Let any folder be replaced."""


def test_a_staged_folder_is_new_or_replaces_what_it_may(tmp_path: Path) -> None:
    for text in ("first", "second"):
        with staged_folder(tmp_path / "sub" / "whole", replace_any) as staged:
            (staged / "deep").mkdir()
            (staged / "deep" / text).write_text(text)
    (tmp_path / "empty").mkdir()
    with staged_folder(tmp_path / "empty", refuse) as staged:
        (staged / "a").write_text("new")
    assert content(tmp_path) == {"sub/whole/deep/second": "second", "empty/a": "new"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "sub"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, InputError, OSError])
def test_a_staged_folder_that_fails_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "a").write_text("old")
    for name in ("old", "new"):
        with (
            pytest.raises(InputError if error is OSError else error),
            staged_folder(tmp_path / name, replace_any) as staged,
        ):
            (staged / "a").write_text("half")
            raise error
    assert content(tmp_path) == {"old/a": "old"} and [path.name for path in tmp_path.iterdir()] == ["old"]


def test_a_staged_folder_that_cannot_be_moved_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "a").write_text("old")
    move, moves = os.replace, []

    def second_fails(source: Path, target: Path) -> None:
        moves.append(target)
        if len(moves) == 2:
            raise PermissionError(13, "Permission denied")
        move(source, target)

    monkeypatch.setattr(os, "replace", second_fails)
    with pytest.raises(InputError, match=r"old: cannot be written"), staged_folder(tmp_path / "old", replace_any):
        pass
    assert content(tmp_path) == {"old/a": "old"} and [path.name for path in tmp_path.iterdir()] == ["old"]


def test_a_staged_folder_replaces_nothing_that_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "a").write_text("old")
    with pytest.raises(InputError, match=r"file: holds something else"), staged_folder(tmp_path / "file", refuse):
        pass
    with pytest.raises(InputError, match=r"old: holds something else"), staged_folder(tmp_path / "old", refuse):
        pass
    assert content(tmp_path) == {"file": "old", "old/a": "old"}
    with staged_folder(tmp_path / "file", replace_any) as staged:
        (staged / "b").write_text("new")
    assert content(tmp_path) == {"file/b": "new", "old/a": "old"}


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_to_a_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    with staged_folder(tmp_path / "link", refuse) as staged:
        (staged / "a").write_text("new")
    assert (tmp_path / "link").is_symlink() and content(tmp_path / "disk") == {"a": "new"}


def commit(folder: Path, moved: list[str], **files: str) -> None:
    """Leave what a process leaves that is killed before it moves the first file."""
    for name, text in files.items():
        path = folder / ".committed" / "new" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / ".committed" / "journal.json").write_text(json.dumps({"moved": moved, "removed": []}))


def test_a_reader_finishes_what_a_killed_process_has_begun(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "p.json").write_text('"old"')
    commit(tmp_path / "data", ["p.json", "q.json"], **{"p.json": '"new"', "q.json": '"new"'})
    assert read_json(tmp_path / "data" / "p.json") == "new"
    assert content(tmp_path / "data") == {"p.json": '"new"', "q.json": '"new"'}


@pytest.mark.parametrize("name", ["../p.json", "/p.json", "link/p.json"])
@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_nothing_is_moved_out_of_the_folder(name: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (tmp_path / "p.json").write_text("mine")
    (data / "link").symlink_to(tmp_path)
    (data / "q.json").write_text("1")
    commit(data, [name], **{"link/p.json": "planted"})
    with pytest.raises(InputError, match=r"is damaged|leads out of"):
        read_json(data / "q.json")
    assert (tmp_path / "p.json").read_text() == "mine"


def test_a_damaged_journal_is_named(tmp_path: Path) -> None:
    (tmp_path / "q.json").write_text("1")
    (tmp_path / ".committed").mkdir()
    (tmp_path / ".committed" / "journal.json").write_text("[")
    with pytest.raises(InputError, match=r"journal\.json: is damaged"):
        read_json(tmp_path / "q.json")
