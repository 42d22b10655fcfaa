"""Writing files so that they appear whole or not at all, and reading paths with clear errors."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from exmed_bert.console import InputError

_STAGING = ".being-written"  # a folder within the one that the files belong to, so surely on the same disk


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
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def staged_files(folder: Path, *, last: str | None = None, obsolete: Collection[str] = ()) -> Iterator[Path]:
    """Yield an empty folder for files that belong together; move them into ``folder`` when the block ends.

    Files and folders in ``folder`` are replaced by those of the same name, others stay. An error inside the block, or
    a process that dies there, leaves ``folder`` as it was.

    Args:
        folder: where the files belong; made with its parents.
        last: name of the file that is moved after all others: where it is new, everything is.
        obsolete: names that an earlier run may have written; those that the block does not write are removed.

    Raises:
        InputError: the folder cannot be made or written, or a folder stands where a file belongs.
    """
    folder = Path(folder)
    is_new = not folder.exists()
    make_folder(folder)
    staging = folder / _STAGING
    try:
        try:
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir()
            yield staging
            _move_into(folder, staging, last, obsolete)
        except OSError as error:
            raise InputError(f"{folder}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if is_new and not any(folder.iterdir()):
            folder.rmdir()


@contextmanager
def staged_folder(folder: Path, check: Callable[[Path], None]) -> Iterator[Path]:
    """Yield an empty folder; put it in the place of ``folder`` when the block ends without an error.

    An error inside the block, or a process that dies there, leaves ``folder`` as it was.

    Args:
        folder: made with its parents, or replaced as a whole.
        check: called with ``folder`` where it is a file, or not empty; raises an InputError if it may not be replaced.

    Raises:
        InputError: the folder cannot be written or may not be replaced.
    """
    place = Path(os.path.realpath(folder))  # a link to a folder stays, and what it points to is replaced
    if place.is_file() or (place.is_dir() and any(place.iterdir())):
        check(folder)
    make_folder(place.parent)
    staging = place.with_name(f".{place.name}.{os.getpid()}.part")
    replaced = place.with_name(f".{place.name}.{os.getpid()}.replaced")
    try:
        try:
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir()
            yield staging
            for path in staging.rglob("*"):
                if path.is_file():
                    with open(path, "rb+") as file:
                        os.fsync(file.fileno())
            _swap(place, staging, replaced)
        except OSError as error:
            raise InputError(f"{folder}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _swap(place: Path, staging: Path, replaced: Path) -> None:
    """Move ``staging`` to ``place``, and remove what was there; an error leaves it there."""
    if not place.exists():
        os.replace(staging, place)
        return
    os.replace(place, replaced)
    try:
        os.replace(staging, place)
    except BaseException:
        os.replace(replaced, place)
        raise
    if replaced.is_file():
        replaced.unlink()
    shutil.rmtree(replaced, ignore_errors=True)


def _move_into(folder: Path, staging: Path, last: str | None, obsolete: Collection[str]) -> None:
    entries = sorted(staging.iterdir(), key=lambda entry: (entry.name == last, entry.name))
    for entry in entries:
        if entry.is_file():
            if (folder / entry.name).is_dir():
                raise InputError(f"{folder / entry.name}: is a folder, expected a file name to write")
            with open(entry, "rb+") as file:
                os.fsync(file.fileno())
    for name in set(obsolete) - {entry.name for entry in entries}:
        (folder / name).unlink(missing_ok=True)
    for entry in entries:
        target = folder / entry.name
        if entry.is_dir():
            shutil.rmtree(target, ignore_errors=True)
        os.replace(entry, target)


def make_folder(folder: Path) -> Path:
    """Make ``folder`` with its parents.

    Raises:
        InputError: it exists as a file, or cannot be made or written to.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise InputError(f"{folder}: is a file, expected a folder") from None
    except OSError as error:
        raise InputError(f"{folder}: cannot be made: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise InputError(f"{folder}: cannot be written to: permission denied")
    return folder


def check_writable(folder: Path) -> None:
    """Refuse a folder that `make_folder` could not make or write to; nothing is made.

    Raises:
        InputError: it or a folder above it is a file or cannot be written to.
    """
    there = Path(folder)
    while not there.exists():
        there = there.parent
    if not there.is_dir():
        raise InputError(f"{there}: is a file, expected a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"{there}: cannot be written to: permission denied")


def check_writable_file(path: Path) -> None:
    """Refuse a file that `atomic_write` could not write; nothing is made.

    Raises:
        InputError: it is a folder, or the folder that it belongs to cannot be made or written to.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder, expected a file name to write")
    check_writable(path.parent)


def existing_file(path: Path, hint: str = "") -> Path:
    """Return ``path`` when it is a readable file; ``hint`` says how to make it when it is not there.

    Raises:
        InputError: missing, a folder, or unreadable.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder, expected a file")
    if not path.exists():
        raise InputError(f"{path}: file not found" + (f"; {hint}" if hint else f" (looked in {Path.cwd()})"))
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: cannot be read: permission denied")
    return path


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


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: missing, unreadable or not JSON.
    """
    try:
        return json.loads(existing_file(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: is not JSON: {error}") from error


def fingerprint(path: Path) -> str:
    """Return the BLAKE2b-128 digest of a file's bytes as 32 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def digest(content: bytes) -> str:
    """Return the BLAKE2b-128 digest of bytes as 32 hexadecimal digits."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()
