"""Makes what a process does to the files of a folder fail at a chosen point; see the package."""

import builtins
import errno
import io
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exmed_bert.console import one_line_errors

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
            text = not isinstance(file, int) and not set(mode).isdisjoint("wxa+")
            if not text or options.get("opener") or _place(file) is None:
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
        points: what it did to files, where it lived to tell.
    """

    code: int
    errors: str
    points: list[str]


def run(
    action: Callable[[], Any], root: Path, number: int = -1, fault: int = ENOSPC, largest: int | None = None
) -> Outcome:
    """Run an action as a command in a forked process, and fail at a point.

    Args:
        action: what the command does.
        root: folder whose files count.
        number: of the point; -1 for none.
        fault: an errno, or `KILL`.
        largest: bytes that a file may have; larger ones fail with EFBIG, also those that are written in C.
    """
    with tempfile.TemporaryFile("w+") as errors, tempfile.TemporaryFile("w+") as points:
        process = os.fork()
        if process == 0:
            code = UNFINISHED
            try:
                with open(os.devnull, "w") as nothing:
                    os.dup2(nothing.fileno(), 1)
                os.dup2(errors.fileno(), 2)
                code = _run_here(action, Shim(root, number, fault), largest, errors, points)
            finally:
                os._exit(code)
        _, status = os.waitpid(process, 0)
        for file in (errors, points):
            file.seek(0)
        return Outcome(os.waitstatus_to_exitcode(status), errors.read(), points.read().splitlines())


def _run_here(action: Callable[[], Any], shim: Shim, largest: int | None, errors: Any, points: Any) -> int:
    sys.stdout, sys.stderr = io.StringIO(), errors
    if largest is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))
    try:
        with shim.installed(), one_line_errors():
            action()
        code = 0
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException:
        traceback.print_exc(file=errors)
        code = UNFINISHED
    if largest is None:
        points.write("\n".join(shim.points))
        points.flush()
    errors.flush()
    return code


def content(root: Path) -> Content:
    """Return all that a folder holds, hidden files too."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(root.rglob("*"))
    }
