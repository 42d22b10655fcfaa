"""Files and folders that are there, or may be written: what is wrong with one is said in a line; digests of files."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from exmed_bert.console import InputError
from exmed_bert.swap import settle


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
    """Refuse a file that `staging.atomic_write` could not write; nothing is made.

    Raises:
        InputError: it is a folder, or the folder that it belongs to cannot be made or written to.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder, expected a file name to write")
    check_writable(path.parent)


def existing_file(path: Path, hint: str = "") -> Path:
    """Return ``path`` when it is a readable file; ``hint`` says how to make it when it is not there.

    What a killed process was about to put in its place is there first.

    Raises:
        InputError: missing, a folder, or unreadable.
    """
    path = Path(path)
    settle(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder, expected a file")
    if not path.exists():
        raise InputError(f"{path}: file not found" + (f"; {hint}" if hint else f" (looked in {Path.cwd()})"))
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: cannot be read: permission denied")
    return path


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: missing, unreadable or not JSON.
    """
    try:
        return json.loads(existing_file(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: is not JSON: {error}") from error
    except RecursionError:
        raise InputError(f"{path}: is nested too deeply, expected a few levels") from None


def fingerprint(path: Path) -> str:
    """Return the BLAKE2b-128 digest of a file's bytes as 32 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def digest(content: bytes) -> str:
    """Return the BLAKE2b-128 digest of bytes as 32 hexadecimal digits."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()
