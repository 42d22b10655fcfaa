"""Makes what a process does to the files of a folder fail at a chosen point; see the package."""

import builtins
import errno
import io
import json
import os
import re
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock  # noqa: F401  # once, not in each process that is forked

from exmed_bert.console import one_line_errors
from exmed_bert.swap import settle

ENOSPC, EIO, KILL = errno.ENOSPC, errno.EIO, -signal.SIGKILL
UNFINISHED = 97  # exit code of an error that is no line for the user
Content = dict[str, bytes | None]  # by path: the bytes of a file, None for a folder


class Shim:
    """Counts the points of a process at which files below a folder change, and fails at one of them.

    Attributes:
        points: what was done so far, such as ``rename p.json``.
    """

    def __init__(self, root: Path, number: int = -1, fault: int = ENOSPC) -> None:
        """Take the folder, the point to fail at, and how: an errno, or `KILL`."""
        self.points: list[str] = []
        self._root, self._number, self._fault = os.path.realpath(root), number, fault

    def point(self, what: str, path: Any, folder: int | None = None) -> None:
        """Count a point, and fail if it is the one."""
        place = _place(path, folder)
        if place is None or not place.startswith(self._root + os.sep):
            return
        self.points.append(f"{what} {os.path.relpath(place, self._root)}")
        if len(self.points) - 1 != self._number:
            return
        if self._fault == KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(self._fault, os.strerror(self._fault), place)

    @contextmanager
    def installed(self) -> Iterator["Shim"]:
        """Watch this process for the time of the block."""
        real = {name: getattr(os, name) for name in ("fsync", "open", *_ONE_PATH, *_TWO_PATHS)}
        real_open = io.open

        def opened(file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **options: Any) -> Any:
            """Stand for `open`: a file to be written counts each write of its buffer."""
            written = not isinstance(file, int) and not set(mode).isdisjoint("wxa+")
            if not written or options.get("opener") or _place(file) is None:
                return real_open(file, mode, buffering, *rest, **options)
            if set(mode) & set("wxa"):
                self.point("open", file)
            raw = _CountedFile(file, mode.replace("b", "").replace("t", ""))
            raw.shim = self
            if buffering == 0:
                return raw
            buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            return buffered if "b" in mode else io.TextIOWrapper(buffered, *rest, **options)

        def one_path(name: str) -> Callable[..., Any]:
            def call(path: Any, *rest: Any, **options: Any) -> Any:
                self.point(name, path, options.get("dir_fd"))
                return real[name](path, *rest, **options)

            return call

        def two_paths(name: str) -> Callable[..., Any]:
            def call(source: Any, target: Any, **options: Any) -> Any:
                self.point("rename", target)
                return real[name](source, target, **options)

            return call

        def os_open(path: Any, flags: int, *rest: Any, **options: Any) -> int:
            if flags & os.O_CREAT:
                self.point("open", path, options.get("dir_fd"))
            return real["open"](path, flags, *rest, **options)

        patched: dict[str, Any] = {"fsync": one_path("fsync"), "open": os_open}
        patched |= {name: one_path(name) for name in _ONE_PATH} | {name: two_paths(name) for name in _TWO_PATHS}
        try:
            for name, call in patched.items():
                setattr(os, name, call)
            builtins.open = io.open = opened  # type: ignore[assignment]
            yield self
        finally:
            builtins.open = io.open = real_open
            for name, call in real.items():
                setattr(os, name, call)


_ONE_PATH = ("mkdir", "unlink", "remove", "rmdir")
_TWO_PATHS = ("rename", "replace")


class _CountedFile(io.FileIO):
    """A file whose writes are points."""

    shim: Shim

    def write(self, content: Any) -> int:
        self.shim.point("write", self.fileno())
        return super().write(content)


def _place(path: Any, folder: int | None = None) -> str | None:
    """Return the whole path of what was named by a path, perhaps within an open folder, or by an open file."""
    try:
        if isinstance(path, int):
            return os.readlink(f"/proc/self/fd/{path}")
        path = os.fspath(path)
        name = os.fsdecode(path)
        if folder is not None:
            name = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), name)
        return os.path.join(os.path.realpath(os.path.dirname(name) or "."), os.path.basename(name))
    except (OSError, TypeError):
        return None


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        code: its exit code, negative for the signal that killed it.
        errors: what it printed to standard error.
        points: what it did to files, as far as it has lived to tell.
    """

    code: int
    errors: str = ""
    points: Sequence[str] = ()


def run(
    action: Callable[[], Any], root: Path, number: int = -1, fault: int = ENOSPC, largest: int | None = None
) -> Outcome:
    """Run an action as a command in a forked process, and fail at a point.

    Args:
        action: what the command does.
        root: folder whose files count.
        number: of the point; -1 for none.
        fault: an errno, or `KILL`.
        largest: bytes that a file may have; larger ones fail with EFBIG, those that are written in C too.
    """
    told, tell = os.pipe()
    process = os.fork()
    if process == 0:
        code = UNFINISHED
        try:
            os.close(told)
            code = _run_here(action, Shim(root, number, fault), largest, tell)
        finally:
            os._exit(code)
    os.close(tell)
    with open(told, encoding="utf-8") as pipe:
        said = pipe.read()
    _, status = os.waitpid(process, 0)
    return Outcome(os.waitstatus_to_exitcode(status), *(json.loads(said) if said else ()))


def _run_here(action: Callable[[], Any], shim: Shim, largest: int | None, tell: int) -> int:
    sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
    if largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))
    code = 0
    try:
        with shim.installed(), one_line_errors():
            action()
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException:
        traceback.print_exc()
        code = UNFINISHED
    with open(tell, "w", encoding="utf-8") as pipe:
        json.dump([sys.stderr.getvalue(), shim.points], pipe)
    return code


class Command:
    """A command that changes what is below a folder, and what it finds there and leaves there.

    Attributes:
        points: at which it can fail.
        old, new: the content of the folder before and after.
    """

    def __init__(
        self, root: Path, action: Callable[[], Any], targets: Sequence[Path], volatile: str | None = None
    ) -> None:
        """Run it once to see what it does, and put everything back.

        Args:
            root: folder with all that it reads and writes, at present in the old state.
            action: its run; an `InputError` is an expected end.
            targets: what others would open, files or folders.
            volatile: pattern of paths whose content and, in what the pattern's first group matches, name changes from
                run to run.
        """
        self.root, self.action, self.targets = root, action, targets
        self._volatile = re.compile(volatile) if volatile else None
        self.old = self._content()
        outcome = run(action, root)
        assert outcome.code == 0, outcome.errors
        self.new, self.points = self._content(), outcome.points
        assert visible(self.new) == self.new != self.old, "it leaves something hidden, or nothing"
        self.restore(self.old)

    def fails_at(self, number: int, fault: int = ENOSPC, largest: int | None = None) -> tuple[Outcome, Content]:
        """Run it from the old state with a fault; return how it ended and what is there then."""
        self.restore(self.old)
        return run(self.action, self.root, number, fault, largest), self._content()

    def succeeds(self, why: str) -> None:
        """Run it from what is there; it leaves the new state and nothing else."""
        outcome = run(self.action, self.root)
        assert outcome.code == 0, f"{why}: {outcome.errors}"
        assert differences(self._content(), self.new) == [], why

    def is_settled(self, why: str) -> None:
        """Assert that a reader finds all old or all new."""
        for target in self.targets:
            settle(target)
        self.is_old_or_new(self._content(), why)

    def is_old_or_new(self, found: Content, why: str) -> None:
        """Assert that all that is not hidden is as before or as after."""
        shown = visible(found)
        from_old, from_new = differences(shown, self.old), differences(shown, self.new)
        assert not from_old or not from_new, f"{why}: neither old ({from_old[:5]}) nor new ({from_new[:5]})"

    def restore(self, state: Content) -> None:
        """Put back what was below the folder."""
        now = self._content()
        for name in sorted(now, reverse=True):
            path = self.root / name
            if name not in state or (state[name] is None) != (now[name] is None):
                path.rmdir() if now[name] is None else path.unlink()
        for name, bytes_ in state.items():
            path = self.root / name
            if bytes_ is None:
                path.mkdir(exist_ok=True)
            elif name not in now or now[name] != bytes_:
                path.write_bytes(bytes_)

    def _content(self) -> Content:
        found = content(self.root)
        if self._volatile is None:
            return found
        return {name: bytes_ for name, bytes_ in found.items() if not self._volatile.search(name)}


def check_errors(command: Command, faults: Sequence[int] = (ENOSPC, EIO)) -> None:
    """Let a command fail at each point in turn, with one fault after another; all or nothing is new.

    The user is told in one line. Hidden files stay only where the fault kept them from being removed.
    """
    for number, point in enumerate(command.points):
        why = f"{os.strerror(faults[number % len(faults)])} at point {number}, {point}"
        outcome, found = command.fails_at(number, faults[number % len(faults)])
        command.is_old_or_new(found, why)
        if outcome.code == 0:
            assert differences(visible(found), command.new) == [], f"{why}: the command has not failed"
        else:
            assert outcome.code == 1, f"{why}: {outcome.errors}"
            assert outcome.errors.startswith("Error: ") and outcome.errors.count("\n") == 1, f"{why}: {outcome.errors}"
        if visible(found) != found:
            left = set(found) - set(visible(found))
            assert point.split()[0] in ("unlink", "remove", "rmdir"), f"{why}: leaves {left}"
            command.is_settled(why)
            command.succeeds(why)
    command.restore(command.old)


def check_kills(command: Command) -> None:
    """Kill a command at each point in turn; all or nothing is new, and the same command then succeeds."""
    for number, point in enumerate(command.points):
        why = f"killed at point {number}, {point}"
        outcome, found = command.fails_at(number, KILL)
        assert outcome.code == KILL, f"{why}: {outcome.errors}"
        command.is_settled(why)
        command.restore(found)
        command.succeeds(why)
    command.restore(command.old)


def check_sizes(command: Command) -> int:
    """Let each file, also those that are written in C, be too large by a byte and by half; nothing is new.

    Returns:
        How many limits were tried.
    """
    sizes = {len(bytes_) for name, bytes_ in command.new.items() if bytes_ and bytes_ != command.old.get(name)}
    limits = sorted({0, *(size - 1 for size in sizes), *(size // 2 for size in sizes)})
    for limit in limits:
        why = f"files of at most {limit} bytes"
        outcome, found = command.fails_at(-1, largest=limit)
        assert outcome.code == 1, f"{why}: {outcome.errors}"
        assert outcome.errors.startswith("Error: ") and outcome.errors.count("\n") == 1, f"{why}: {outcome.errors}"
        assert differences(found, command.old) == [], why
    command.restore(command.old)
    return len(limits)


def content(root: Path) -> Content:
    """Return all that a folder holds, hidden files too."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(root.rglob("*"))
    }


def visible(found: Content) -> Content:
    """Return what is not hidden, nor in a hidden folder."""
    return {name: bytes_ for name, bytes_ in found.items() if not any(part[0] == "." for part in name.split("/"))}


def differences(one: Content, other: Content) -> list[str]:
    """Return the names of the files and folders that are not the same in two contents."""
    missing = object()
    return sorted(name for name in one.keys() | other.keys() if one.get(name, missing) != other.get(name, missing))
