"""Checkpoints that are whole: written under another name, renamed when complete, and checked before they are used."""

import os
import shutil
from pathlib import Path

from exmed_bert.contents import damage, write_contents

PREFIX = "checkpoint-"
STAGING = ".checkpoint-being-written"


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


def last_whole(run: Path) -> tuple[Path | None, list[str]]:
    """Return the latest whole checkpoint, and a line for each damaged one that was passed over to reach it."""
    damaged: list[str] = []
    for folder in reversed(checkpoints(run)):
        problem = damage(folder)
        if problem is None:
            return folder, damaged
        damaged.append(f"{folder}: is damaged and passed over: {problem}")
    return None, damaged


def publish(run: Path, name: str, keep: int) -> None:
    """Move the staged checkpoint ``name`` into place and delete all but the latest ``keep``.

    Later ones are deleted, too: a run that wrote them went on from ``name`` or before, so they are damaged.
    """
    staged, final = run / STAGING / name, run / name
    write_contents(staged)
    shutil.rmtree(final, ignore_errors=True)  # a damaged one of the same step
    os.replace(staged, final)
    found = checkpoints(run)
    done = found.index(final) + 1
    for folder in found[: max(done - keep, 0)] + found[done:]:
        shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(run: Path) -> None:
    """Delete what a process that was killed while it wrote a checkpoint has left."""
    shutil.rmtree(run / STAGING, ignore_errors=True)
