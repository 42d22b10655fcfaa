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
from functools import lru_cache
from pathlib import Path
from typing import Any

from exmed_bert import staging
from exmed_bert.console import one_line_errors
from exmed_bert.swap import settle

ENOSPC, EIO, KILL, SIGKILL = errno.ENOSPC, errno.EIO, -1, -signal.SIGKILL
ALL = "EXMED_BERT_ALL_FAULTS" in os.environ
DEFECT = 97  # exit code of an error that is no line for the user
_RANDOM = re.compile(r"(?<=being-written-)\d+|(?<=/old/)tmp\w+")  # in the names of what is begun, and of what is old
GONE = 2**22 + 1  # the number of no process
Content = dict[str, bytes | None]  # by path: the bytes of a file, None for a folder


class Killed(BaseException):
    """Stands for the end of a process that is killed: from here on it changes no file any more, in no clean-up."""


class Shim:
    """Counts the points of a process at which files below a folder change, and fails at one of them.

    Attributes:
        points: what was done so far, such as ``rename p.json``.
    """

    def __init__(self, root: Path, number: int = -1, fault: int = ENOSPC, volatile: str | None = None) -> None:
        """Take the folder, the point to fail at, and how.

        Args:
            root: the folder.
            number: of the point; -1 for none.
            fault: an errno; `KILL` stops all changes with `Killed`, `SIGKILL` kills the process.
            volatile: pattern of paths that are left alone.
        """
        self.points: list[str] = []
        self._root, self._number, self._fault = os.path.realpath(root), number, fault
        self._volatile = re.compile(volatile or "(?!)")

    def point(self, what: str, path: Any, folder: int | None = None) -> None:
        """Count a point, and fail if it is the one."""
        place = _place(path, folder)
        if place is None or not place.startswith(self._root + os.sep) or self._volatile.search(place):
            return
        number = len(self.points)
        self.points.append(f"{what} {os.path.relpath(place, self._root)}")
        if number == self._number and self._fault == SIGKILL:
            os.kill(os.getpid(), signal.SIGKILL)
        if self._fault == KILL and 0 <= self._number <= number:
            raise Killed
        if number == self._number:
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

        def fsync(number: int) -> None:
            self.point("fsync", number)  # and no more: only a power failure would tell

        patched: dict[str, Any] = {"fsync": fsync, "open": os_open}
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


_real = lru_cache(os.path.realpath)  # no folder becomes a link here


def _place(path: Any, folder: int | None = None) -> str | None:
    """Return the whole path of what was named by a path, perhaps within an open folder, or by an open file."""
    try:
        if isinstance(path, int):
            return os.readlink(f"/proc/self/fd/{path}")
        path = os.fspath(path)
        name = os.fsdecode(path)
        if folder is not None:
            name = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), name)
        return os.path.join(_real(os.path.dirname(name) or "."), os.path.basename(name))
    except (OSError, TypeError):
        return None


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        code: its exit code; `KILL` and `SIGKILL` where it was killed.
        errors: what it printed to standard error.
        points: what it did to files.
    """

    code: int
    errors: str = ""
    points: Sequence[str] = ()


def run(action: Callable[[], Any], shim: Shim, largest: int | None = None) -> Outcome:
    """Run an action as a command, with failures.

    Args:
        action: what the command does.
        shim: makes a point fail.
        largest: bytes that a file may have; larger ones fail with EFBIG, those that are written in C too.
    """
    code, printed, errors = 0, sys.stdout, sys.stderr
    sys.stdout, sys.stderr = io.StringIO(), io.StringIO()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    name = staging.worker_name
    try:
        staging.worker_name = lambda: name().replace(str(os.getpid()), str(GONE))
        if largest is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, limits[1]))
        with shim.installed(), one_line_errors():
            action()
    except SystemExit as error:
        code = int(error.code or 0)
    except Killed:
        code = KILL
    except Exception:
        traceback.print_exc()
        code = DEFECT
    finally:
        staging.worker_name = name
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        said, sys.stdout, sys.stderr = sys.stderr.getvalue(), printed, errors
    return Outcome(code, said, shim.points)


def run_forked(action: Callable[[], Any], shim: Shim, largest: int | None = None) -> Outcome:
    """Run an action as a command in a process of its own, which may really be killed; else as `run`."""
    told, tell = os.pipe()
    process = os.fork()
    if process == 0:
        code = DEFECT
        try:
            outcome = run(action, shim, largest)
            with open(tell, "w", encoding="utf-8") as pipe:
                json.dump([outcome.errors, outcome.points], pipe)
            code = outcome.code
        finally:
            os._exit(code)
    os.close(tell)
    with open(told, encoding="utf-8") as pipe:
        said = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return Outcome(code, *(json.loads(said) if said else ()))


class Command:
    """A command that changes what is below a folder, and what it finds there and leaves there.

    Attributes:
        points: number and name of those at which it is to fail.
        old, new: the content of the folder before and after.
    """

    def __init__(
        self,
        root: Path,
        action: Callable[[], Any],
        targets: Sequence[Path],
        volatile: str | None = None,
        passed_over: str = "(?!)",
    ) -> None:
        """Run it once to see what it does, and put everything back.

        Args:
            root: folder with all that it reads and writes, at present in the old state.
            action: its run; an `InputError` is an expected end.
            targets: what others would open, files or folders.
            volatile: pattern of paths that differ from run to run; they are left alone.
            passed_over: pattern of points at which it does not fail, since another command fails there just so.
        """
        self.root, self.action, self.targets = root, action, targets
        self._volatile = volatile
        self.old = self.content()
        outcome = run(action, self._shim())
        assert outcome.code == 0, outcome.errors
        self.new = self.content()
        self.points = [(n, point) for n, point in enumerate(outcome.points) if not re.search(passed_over, point)]
        assert visible(self.new) == self.new != self.old, "it leaves something hidden, or nothing"
        self.restore(self.old)

    def fails_at(self, number: int, fault: int = ENOSPC, largest: int | None = None) -> tuple[Outcome, Content]:
        """Run it from the old state with a fault; return how it ended and what is there then."""
        self.restore(self.old)
        if fault == SIGKILL:
            return run_forked(self.action, self._shim(number, fault)), self.content()
        return run(self.action, self._shim(number, fault), largest), self.content()

    def succeeds(self, why: str) -> None:
        """Run it from what is there; it leaves the new state and nothing else."""
        outcome = run(self.action, self._shim())
        assert outcome.code == 0, f"{why}: {outcome.errors}"
        assert differences(self.content(), self.new) == [], why

    def is_settled(self, why: str) -> None:
        """Assert that a reader finds all old or all new."""
        for target in self.targets:
            settle(target)
        self.is_old_or_new(self.content(), why)

    def is_old_or_new(self, found: Content, why: str) -> None:
        """Assert that all that is not hidden is as before or as after."""
        shown = visible(found)
        from_old, from_new = differences(shown, self.old), differences(shown, self.new)
        assert not from_old or not from_new, f"{why}: neither old ({from_old[:5]}) nor new ({from_new[:5]})"

    def restore(self, state: Content) -> None:
        """Put back what was below the folder."""
        now = content(self.root)
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

    def content(self) -> Content:
        """Return what is below the folder, but for what differs from run to run."""
        found = content(self.root)
        return {name: bytes_ for name, bytes_ in found.items() if not re.search(self._volatile or "(?!)", name)}

    def _shim(self, number: int = -1, fault: int = ENOSPC) -> Shim:
        return Shim(self.root, number, fault, self._volatile)


def check_errors(command: Command, faults: Sequence[int] = (ENOSPC, EIO)) -> None:
    """Let a command fail at each point in turn, with one fault after another; all or nothing is new.

    The user is told in one line. Hidden files stay only where the fault kept them from being removed.
    """
    for number, point in _in_turn(command.points, 0):
        why = f"{os.strerror(faults[number // 2 % len(faults)])} at point {number}, {point}"
        outcome, found = command.fails_at(number, faults[number // 2 % len(faults)])
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


def check_kills(command: Command, real: int = 4) -> None:
    """Kill a command at each point in turn; all or nothing is new, and the same command then succeeds.

    Args:
        command: the command.
        real: at so many points, too, a process of its own is really killed.
    """
    step = max(len(command.points) // max(real, 1), 1)
    kills = [(point, KILL) for point in _in_turn(command.points, 1)]
    kills += [(point, SIGKILL) for point in command.points[::step][:real]]
    seen: set[Any] = set()
    for (number, point), fault in kills:
        why = f"killed at point {number}, {point}"
        outcome, found = command.fails_at(number, fault)
        assert outcome.code == fault, f"{why}: {outcome.errors}"
        command.is_old_or_new(visible(found), why) if not _is_committed(found) else command.is_settled(why)
        if fault == SIGKILL or (state := _outline(found)) not in seen:  # what was begun and is removed is all the same
            seen.add(state) if fault == KILL else None
            command.restore(found)
            command.succeeds(why)
    command.restore(command.old)


def _in_turn(points: Sequence[tuple[int, str]], turn: int) -> list[tuple[int, str]]:
    """Return the points for one way to fail: in turn, both where files are moved."""
    return [one for one in points if ALL or one[0] % 2 == turn or one[1].startswith("rename")]


def _is_committed(found: Content) -> bool:
    return any(name.split("/")[-1] == ".committed" for name in found)


def _outline(found: Content) -> frozenset[Any]:
    """Return what tells a state from others: all that is shown, and names and sizes of what is hidden.

    What stands in folders that were begun is removed whatever it is, and JSON may say when it was written.
    """
    chosen = {name: bytes_ for name, bytes_ in found.items() if ".part/" not in name}
    shown = visible(chosen)
    return frozenset(
        (_RANDOM.sub("", name), bytes_ if name in shown else bytes_ and not name.endswith(".json") and len(bytes_))
        for name, bytes_ in chosen.items()
    )


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
