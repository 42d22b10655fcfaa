"""Several files that take the place of others together, with a journal to go on by where the process is killed.

    folder/.committed/journal.json   what is moved where, and what goes
    folder/.committed/new/           what has not been moved yet
    folder/.committed/old/           what stood in its place

With its new name ``.committed`` the folder of the new files counts: a process that is killed before leaves the old
state, and after that whoever comes next, to read or to write, moves the rest (`settle`).
"""

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path, PurePosixPath

from exmed_bert.console import InputError
from exmed_bert.locks import exclusive

NEW = "new"
_COMMITTED, _LOCK = ".committed", ".committed.lock"
_JOURNAL, _OLD = "journal.json", "old"
_WAIT_SECONDS = 60.0  # moves take milliseconds, the old files of a large dataset some seconds to remove


def swap_in(staging: Path, folder: Path, whole: Collection[str] = (), obsolete: Collection[str] = ()) -> None:
    """Move the files in ``staging/new`` to the same places in a folder, all of them or, where that fails, none.

    Args:
        staging: in that folder, so surely on the same disk.
        folder: where the files belong.
        whole: names of folders that are replaced as a whole; others get the new files beside those that they hold.
        obsolete: names of files that go unless there are new ones, such as the plots of an earlier report.

    Raises:
        InputError: a folder stands where a file belongs.
        OSError: something cannot be written or moved.
    """
    moved = list(_entries(staging / NEW, PurePosixPath(), whole))
    for name in moved:
        if name not in whole and (folder / name).is_dir():
            raise InputError(f"{folder / name}: is a folder, expected a file name to write")
    for path in staging.rglob("*"):
        fsync(path)
    with open(staging / _JOURNAL, "w", encoding="utf-8") as file:
        json.dump({"moved": moved, "removed": sorted(set(obsolete) - set(moved))}, file, indent=1)
    fsync(staging / _JOURNAL)
    fsync(staging)
    with _only_one(folder):
        _go_on(folder)
        os.replace(staging, folder / _COMMITTED)
        undo: list[Callable[[], object]] = []
        try:
            fsync(folder)
            _move(folder, undo)
        except BaseException:
            for step in reversed(undo):  # where that fails, `settle` does what is left of the moves
                step()
            fsync(folder)
            _clean_up(folder)
            raise
        _clean_up(folder)


def settle(path: Path) -> None:
    """Finish what a killed process has begun to put in the place of a file or a folder, or into a folder.

    Raises:
        InputError: that fails.
    """
    try:
        path = Path(os.path.realpath(path))
    except ValueError:  # a name that no file has
        return
    for folder in (path, path.parent, path.parent.parent):
        if os.path.lexists(folder / _COMMITTED):
            try:
                with _only_one(folder):
                    _go_on(folder)
            except OSError as error:
                raise InputError(
                    f"{folder}: a killed process has left files to be moved into place, which fails: "
                    f"{error.strerror or error}"
                ) from error


def remove_lock(folder: Path) -> None:
    """Remove what a process leaves that is killed just before it frees a folder; a lock that is held stays."""
    if os.path.lexists(folder / _LOCK):
        with suppress(OSError), exclusive(folder / _LOCK, 0.0):
            pass


def fsync(path: Path) -> None:
    """Make the disk hold the bytes of a file, or the names in a folder."""
    if not path.is_dir():
        with open(path, "rb+") as file:
            os.fsync(file.fileno())
    elif os.name == "posix":  # elsewhere folders cannot be opened
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _entries(place: Path, name: PurePosixPath, whole: Collection[str]) -> Iterator[str]:
    """Yield the names of the files in a folder, and of the folders that are moved as a whole."""
    for entry in sorted(place.iterdir()):
        inside = name / entry.name
        if entry.is_dir() and inside.as_posix() not in whole:
            yield from _entries(entry, inside, whole)
        else:
            yield inside.as_posix()


def _only_one(folder: Path) -> AbstractContextManager[None]:
    """Keep other processes from moving files into a folder."""
    return exclusive(folder / _LOCK, _WAIT_SECONDS)


def _go_on(folder: Path) -> None:
    """Finish what a process has begun that is gone."""
    committed = folder / _COMMITTED
    try:
        found = committed.lstat()
    except FileNotFoundError:
        return
    ours = os.name != "posix" or found.st_uid in (os.geteuid(), folder.stat().st_uid)
    if not stat.S_ISDIR(found.st_mode) or not ours:
        raise InputError(f"{committed}: is of another user, or no folder; expected files of a killed process to move")
    if (committed / _JOURNAL).is_file():
        _move(folder, [])
    _clean_up(folder)


def _move(folder: Path, undo: list[Callable[[], object]]) -> None:
    """Move what has not been moved yet, and add what undoes each step."""
    committed = folder / _COMMITTED
    moved, removed = _journal(committed / _JOURNAL)
    (committed / _OLD).mkdir(exist_ok=True)

    def move(source: Path, target: Path) -> None:
        os.replace(source, target)
        undo.append(partial(os.replace, target, source))

    for name in (*moved, *removed):
        source, target = committed / NEW / name, folder / name
        if name in moved and not os.path.lexists(source):
            continue
        for path in (source, target):
            if not Path(os.path.realpath(path.parent)).is_relative_to(os.path.realpath(folder)):
                raise InputError(f"{path}: a link leads out of {folder}, expected a place within it")
        if os.path.lexists(target):
            move(target, Path(tempfile.mkdtemp(dir=committed / _OLD)) / target.name)
        if name in moved:
            for place in reversed([place for place in target.parents if not place.exists()]):
                place.mkdir()
                undo.append(place.rmdir)
            move(source, target)
    for place in {folder, *((folder / name).parent for name in moved)}:
        fsync(place)


def _clean_up(folder: Path) -> None:
    """Remove the journal, and what is needed no more without it."""
    with suppress(OSError):  # or else next time
        (folder / _COMMITTED / _JOURNAL).unlink(missing_ok=True)
        shutil.rmtree(folder / _COMMITTED, ignore_errors=True)


def _journal(path: Path) -> tuple[list[str], list[str]]:
    """Return what is moved into place, and what goes.

    Raises:
        InputError: that is not what the file says.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        moved, removed = content["moved"], content["removed"]
        for name in (*moved, *removed):
            if PurePosixPath(name).is_absolute() or Path(name).is_absolute() or ".." in Path(name).parts:
                raise ValueError(name)
        return moved, removed
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: is damaged: {error}; move {path.parent} away") from None
