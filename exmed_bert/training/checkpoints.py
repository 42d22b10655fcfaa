"""Checkpoints that are whole: written under another name, renamed when complete, and checked before they are used."""

import json
import os
import shutil
from pathlib import Path

PREFIX = "checkpoint-"
STAGING = ".checkpoint-being-written"
_CONTENTS = "contents.json"  # name and size of each file, written last


def seal(folder: Path) -> None:
    """Record the files of a finished checkpoint, so that a damaged one is recognized later."""
    sizes = {file.name: file.stat().st_size for file in sorted(folder.iterdir()) if file.is_file()}
    with open(folder / _CONTENTS, "w", encoding="utf-8") as file:
        json.dump(sizes, file, indent=2)
        file.flush()
        os.fsync(file.fileno())


def is_whole(folder: Path) -> bool:
    """Tell whether every file that `seal` recorded is there at its full size."""
    try:
        sizes = json.loads((folder / _CONTENTS).read_text(encoding="utf-8"))
        return bool(sizes) and all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


def step_of(folder: Path) -> int:
    """Return the optimizer step of a checkpoint's folder, -1 when the name is no checkpoint's.

    >>> step_of(Path("checkpoint-40")), step_of(Path("checkpoint-old"))
    (40, -1)
    """
    number = folder.name.removeprefix(PREFIX)
    return int(number) if folder.name.startswith(PREFIX) and number.isdecimal() else -1


def checkpoints(run: Path) -> list[Path]:
    """Return the checkpoints of a run, oldest first, whole or not."""
    found = [folder for folder in run.glob(f"{PREFIX}*") if folder.is_dir() and step_of(folder) >= 0]
    return sorted(found, key=step_of)


def last_whole(run: Path) -> tuple[Path | None, list[Path]]:
    """Return the latest whole checkpoint, and the damaged ones that were passed over to reach it."""
    damaged: list[Path] = []
    for folder in reversed(checkpoints(run)):
        if is_whole(folder):
            return folder, damaged
        damaged.append(folder)
    return None, damaged


def publish(run: Path, name: str, keep: int) -> None:
    """Move the staged checkpoint ``name`` into place and delete all but the latest ``keep``."""
    staged, final = run / STAGING / name, run / name
    seal(staged)
    shutil.rmtree(final, ignore_errors=True)  # a damaged one of the same step
    os.replace(staged, final)
    for folder in checkpoints(run)[:-keep]:
        shutil.rmtree(folder, ignore_errors=True)
