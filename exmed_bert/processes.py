"""How the processes that this one starts come to their end: with it, and by it alone."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ignoring_interrupts() -> Iterator[None]:
    """Let processes that start now ignore Ctrl-C: a terminal sends it to all, and this process ends the others."""
    if threading.current_thread() is not threading.main_thread():  # the only one that may set this
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def end_with(parent: int) -> None:
    """End this process soon after ``parent``: one that is killed cannot stop its workers, and they would wait on.

    It is called as a worker starts, not with its first task: that never comes where the parent is killed before.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
