"""What the user sees: messages, progress bars, and the one place where an expected error becomes one line."""

import errno
import os
import re
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn, TypeVar
from weakref import WeakSet

T = TypeVar("T")

_BARS: "WeakSet[Any]" = WeakSet()  # those of `progress`

_LONGEST_VALUE, _LONGEST_MESSAGE = 200, 2000  # characters
_VALUE = re.compile(rf"[^\s/\\]{{{_LONGEST_VALUE + 1},}}")  # a path may be longer than the names in it

EXIT_BAD_INPUT = 1
EXIT_BAD_OPTION = 2


class InputError(Exception):
    """Something the user gave is wrong; the message names file, record or field, value, and what was expected."""

    exit_code = EXIT_BAD_INPUT

    def __str__(self) -> str:
        """Return the message, without the middle of values that are long."""
        return shortened(super().__str__())


class Terminated(KeyboardInterrupt):
    """Someone asks this process to end (SIGTERM), as a batch system does; what Ctrl-C does, it does."""


class OptionError(InputError):
    """A command-line option is wrong."""

    exit_code = EXIT_BAD_OPTION


def shortened(message: str) -> str:
    """Return a message without the middle of what is too long to be read in it.

    >>> shortened(f"p.json: record 1 (patient_id '{'x' * 100_000}'): sex: is missing")  # doctest: +ELLIPSIS
    "p.json: record 1 (patient_id 'xxx...xxx'): sex: is missing"
    >>> len(shortened("a list of words " * 1_000)), shortened("short")
    (2000, 'short')
    """
    if len(message) <= _LONGEST_VALUE:
        return message
    return _cut(_VALUE.sub(lambda found: _cut(found[0], _LONGEST_VALUE), message), _LONGEST_MESSAGE)


def shown(value: object) -> str:
    """Return a value as Python writes it, for a message, without the middle of one that is long.

    >>> shown("I10"), len(shown(["x"] * 1000))
    ("'I10'", 200)
    """
    try:
        return _cut(repr(value), _LONGEST_VALUE)
    except RecursionError:
        return f"a deeply nested {type(value).__name__}"


def _cut(text: str, longest: int) -> str:
    end = longest // 3
    return text if len(text) <= longest else f"{text[: longest - end - 3]}...{text[-end:]}"


def echo(message: str = "") -> None:
    """Print a message to standard output."""
    print(message, flush=True)


def warn(message: str) -> None:
    """Print one line to standard error; the run goes on."""
    print(f"Warning: {shortened(message)}", file=sys.stderr, flush=True)


def table(title: str, rows: Iterable[tuple[str, Any]]) -> None:
    """Print a title and two aligned columns. Whole numbers get thousands separators."""
    shown = [
        (shortened(str(name)), f"{value:,}" if isinstance(value, int) else shortened(str(value)))
        for name, value in rows
    ]
    width = max((len(name) for name, _ in shown), default=0)
    echo(f"\n{title}")
    for name, value in shown:
        echo(f"  {name.ljust(width)}  {value}")


def progress(
    items: Iterable[T] | None = None, *, total: int | None = None, label: str = "", unit: str = "it", initial: int = 0
) -> Any:
    """Return a tqdm bar on standard error, silent where that is no terminal; what was done before has no rate."""
    from tqdm import tqdm

    bar = tqdm(
        items,
        total=total,
        desc=label,
        unit=unit,
        unit_scale=True,
        dynamic_ncols=True,
        disable=None,
        initial=initial,
    )
    _BARS.add(bar)
    return bar


def close_bars() -> None:
    """End the line of every bar that is still open, so that a message starts on a line of its own."""
    for bar in list(_BARS):
        bar.close()


@contextmanager
def one_line_errors(debug: bool = False) -> Iterator[None]:
    """Turn an expected error inside the block into one line on standard error and an exit code.

    Expected are `InputError`, the operating system's refusals (a full disk, missing rights), too little memory, Ctrl-C
    and SIGTERM. Anything else is a defect and keeps its traceback. ``debug`` keeps every traceback.
    """
    try:
        with _terminable():
            yield
    except (InputError, OSError, MemoryError, KeyboardInterrupt) as error:
        close_bars()
        if debug:
            raise
        message, code = _explain(error)
        if isinstance(error, KeyboardInterrupt) and not isinstance(error, Terminated) and sys.stderr.isatty():
            print(file=sys.stderr)  # the terminal has shown ^C
        print(f"Error: {' '.join(message.split())}", file=sys.stderr, flush=True)
        if isinstance(error, BrokenPipeError):  # keeps the interpreter from failing again on its last flush
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(code) from None


@contextmanager
def _terminable() -> Iterator[None]:
    """Raise `Terminated` at SIGTERM, as Python raises KeyboardInterrupt at Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():  # the only one that may set this
        yield
        return

    def terminate(number: int, frame: FrameType | None) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the clean-up is not to be interrupted by the next one
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _explain(error: InputError | OSError | MemoryError | KeyboardInterrupt) -> tuple[str, int]:
    if isinstance(error, InputError):
        return str(error), error.exit_code
    if isinstance(error, Terminated):
        return "stopped by SIGTERM; run the same command again to go on", 128 + signal.SIGTERM
    if isinstance(error, KeyboardInterrupt):
        return "stopped by the keyboard; run the same command again to go on", 130
    if isinstance(error, MemoryError):
        return "not enough memory; use fewer patients or a smaller batch", EXIT_BAD_INPUT
    where = f"{error.filename}: " if getattr(error, "filename", None) else ""
    if error.errno == errno.ENOSPC:
        return f"{where}the disk is full", EXIT_BAD_INPUT
    return shortened(f"{where}{error.strerror or error}"), EXIT_BAD_INPUT
