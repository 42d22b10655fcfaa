"""Locks on what a command writes: one process at a time, and a second one is told who is at work there.

The system holds a lock for a process and drops it when the process ends, however it ends: none is ever stale.
"""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path

from exmed_bert.console import InputError
from exmed_bert.processes import is_alive

_RETRY_SECONDS = 0.5  # enough to open a lock file again that was removed meanwhile
_ENDING_SECONDS = 10.0  # in which the children of a killed process end, which hold what it has held


@contextmanager
def held(target: Path, command: str) -> Iterator[None]:
    """Keep other processes from writing the same file or folder until the block ends.

    The lock is a hidden file beside the target, or within a folder that alone can be written, and with it one that
    says who holds it. Both go with the end of the block, and what a killed process leaves of them with that of the
    next. Of the processes of a distributed run the first one holds it for all.

    Args:
        target: what is written; it need not exist.
        command: how the user calls what holds it, for others to be told.

    Raises:
        InputError: another process holds it, which the message names, or the lock cannot be made.
    """
    if os.environ.get("RANK", "0") != "0":  # as torchrun numbers them
        yield
        return
    place = Path(os.path.realpath(target))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        inside = place.is_dir() and not os.access(place.parent, os.W_OK)
        lock = place / ".lock" if inside else place.with_name(f".{place.name}.lock")
        holder = lock.with_name(f"{lock.name}.json")
        with ExitStack() as stack:
            _acquire(stack, lock, holder, target)
            stack.callback(_remove, holder)
            said = {"pid": os.getpid(), "host": socket.gethostname(), "command": command}
            said["since"] = datetime.now().isoformat(" ", "seconds")
            holder.write_text(json.dumps(said), encoding="utf-8")
            held_here = stack.pop_all()
    except OSError as error:
        raise InputError(f"{target}: cannot be locked: {error.strerror or error}") from error
    with held_here:
        yield


@contextmanager
def exclusive(lock: Path, seconds: float) -> Iterator[None]:
    """Hold a lock file, which is there for the block only.

    Args:
        lock: the file.
        seconds: to wait for another process that holds it.

    Raises:
        TimeoutError: another process holds it still.
        OSError: the file cannot be made.
    """
    import filelock  # takes some time

    found = filelock.FileLock(lock, thread_local=False)
    found.acquire(timeout=seconds)
    try:
        yield
    finally:
        try:
            if os.name == "posix":  # while it is held: who has opened it notices that it is gone, and makes a new one
                _remove(lock)
        finally:
            found.release()  # which removes it elsewhere


def _remove(file: Path) -> None:
    with suppress(OSError):  # the next one does
        file.unlink(missing_ok=True)


def _acquire(stack: ExitStack, lock: Path, holder: Path, target: Path) -> None:
    """Enter a lock.

    Raises:
        InputError: another process holds it.
    """
    end = time.monotonic() + _ENDING_SECONDS
    while True:
        try:
            stack.enter_context(exclusive(lock, _RETRY_SECONDS))
            return
        except TimeoutError:
            try:
                said = json.loads(holder.read_text(encoding="utf-8"))
                who = f"process {said['pid']} ({said['command']}, since {said['since']})"
                here = said["host"] == socket.gethostname()
                works = is_alive(said["pid"]) if here else True
                who += "" if here else f" on {said['host']}"
            except (OSError, ValueError, KeyError, TypeError):  # it has not said yet
                who, works = "another process", False
            if works or time.monotonic() > end:
                raise InputError(f"{target}: {who} is writing it; wait until it has ended, or stop it") from None
