"""Writing files so that they appear whole or not at all, one or several together, and after a kill too.

What is being made is hidden beside its place, as ``.name.host-pid.part``: of a process that is gone, it is removed by
the next one that writes several files there (`remove_abandoned`). `swap` puts it in place.
"""

import errno
import itertools
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from exmed_bert.console import InputError
from exmed_bert.files import make_folder
from exmed_bert.processes import is_alive, worker_name
from exmed_bert.swap import NEW, fsync, remove_lock, settle, swap_in

_PART = re.compile(r"\..+?(?P<host>\.[^.].*-|\.)(?P<pid>\d+)\.part")
_ABANDONED_SECONDS = 86400.0  # of a process that cannot be looked for, as on another host of a shared disk
_numbers = itertools.count()
_being_staged: dict[Path, tuple[set[str], set[str]]] = {}  # folders yielded here: what is replaced whole, what goes


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it into place when the block ends without an error.

    A process that dies inside the block leaves ``path`` as it was. The temporary file is removed on any error,
    a full disk and Ctrl-C included.

    Raises:
        InputError: the folder cannot be made or written, or ``path`` is a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder, expected a file name to write")
    make_folder(path.parent)
    settle(path)
    temporary = part_path(path)
    try:
        try:
            yield temporary
            fsync(temporary)
            os.replace(temporary, path)
            fsync(path.parent)
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def staged_files(folder: Path, *, whole: Collection[str] = (), obsolete: Collection[str] = ()) -> Iterator[Path]:
    """Yield an empty folder for files that belong together; move them into ``folder`` when the block ends.

    Files in ``folder`` are replaced by those of the same name, in folders too; others stay. An error inside the block
    or after it leaves ``folder`` as it was. Of a process that dies either nothing is new, or everything once the next
    process looks (`swap`).

    Blocks nest: for a folder that was itself yielded here, that folder is yielded again, and all is moved when the
    outermost block ends. So whatever writes several files can be part of what writes more.

    Args:
        folder: where the files belong; made with its parents.
        whole: names of folders that are replaced as a whole.
        obsolete: names of files that an earlier run may have written; those that the block does not write are removed.
            It is looked at when the block ends.

    Raises:
        InputError: the folder cannot be made or written, or a folder stands where a file belongs.
    """
    with _staged(Path(folder), Path(folder), whole, obsolete) as staged:
        yield staged


@contextmanager
def _staged(folder: Path, shown: Path, whole: Collection[str], obsolete: Collection[str]) -> Iterator[Path]:
    """See `staged_files`; ``shown`` is named where something cannot be written."""
    if folder in _being_staged:
        for known, more in zip(_being_staged[folder], (whole, obsolete), strict=True):
            known.update(more)
        yield folder
        return
    is_new = not folder.exists()
    make_folder(folder)
    settle(folder)
    remove_abandoned(folder)
    staging = part_path(folder / f"being-written-{next(_numbers)}")
    names = _being_staged[staging / NEW] = (set(whole), set(obsolete))
    try:
        try:
            shutil.rmtree(staging, ignore_errors=True)
            (staging / NEW).mkdir(parents=True)
            yield staging / NEW
            swap_in(staging, folder, *names)
        except OSError as error:
            raise InputError(f"{shown}: cannot be written: {error.strerror or error}") from error
        except InputError as error:  # the user knows the place of the file
            error.args = (Exception.__str__(error).replace(str(staging / NEW), str(folder)),)
            raise
    finally:
        del _being_staged[staging / NEW]
        shutil.rmtree(staging, ignore_errors=True)
        if is_new and not any(folder.iterdir()):
            folder.rmdir()


@contextmanager
def staged_folder(folder: Path, check: Callable[[Path], None]) -> Iterator[Path]:
    """Yield an empty folder; put it in the place of ``folder`` when the block ends without an error.

    What the block writes beside it goes beside ``folder``, in the same moment.

    Args:
        folder: made with its parents, or replaced as a whole.
        check: called with ``folder`` where it is a file, or not empty; raises an InputError if it may not be replaced.

    Raises:
        InputError: the folder cannot be written or may not be replaced.
    """
    place = Path(os.path.realpath(folder))  # a link to a folder stays, and what it points to is replaced
    settle(place)
    if place.is_file() or (place.is_dir() and any(place.iterdir())):
        check(folder)
    with _staged(place.parent, Path(folder), (place.name,), ()) as staged:
        (staged / place.name).mkdir()
        yield staged / place.name


def part_path(path: Path) -> Path:
    """Return where this process makes what is to stand at a path."""
    return path.with_name(f".{path.name}.{worker_name()}.part")


def remove_abandoned(folder: Path) -> None:
    """Remove what processes that are gone were making in a folder.

    Of this host's processes the system knows which are gone. What another host's process makes, or one of an earlier
    release, is taken for abandoned when it is a day old.
    """
    remove_lock(folder)
    for name in os.listdir(folder):
        if not (found := _PART.fullmatch(name)):
            continue
        path = folder / name
        with suppress(OSError):  # it may be another user's, or go at this moment
            if found["host"].endswith(f".{socket.gethostname()}-"):
                abandoned = not is_alive(int(found["pid"]))
            else:
                ages = [file.stat().st_mtime for file in (path, *path.rglob("*"))]
                abandoned = time.time() - max(ages) > _ABANDONED_SECONDS
            if abandoned:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as indented UTF-8 JSON, whole or not at all."""
    with atomic_write(path) as part:
        part.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_tensors(path: Path, content: Any) -> None:
    """Write a dict of tensors as ``torch.save`` does, whole or not at all; the same content gives the same bytes."""
    with atomic_write(path) as part:
        save_tensors(part, content)


def save_tensors(path: Path, content: Any) -> None:
    """Write a dict of tensors to a file that the caller renames into place.

    Raises:
        OSError: the file cannot be written, a full disk included.
    """
    import torch

    # An open file, since torch puts the name of a path that it is given into the file.
    with open(path, "wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # what torch makes of a write that failed
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
