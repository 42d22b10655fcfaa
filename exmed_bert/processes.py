"""Whether a process is there, and how those that this one starts come to their end: with it, and by it alone."""

import ctypes
import os
import signal
import socket
import sys
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


def worker_name() -> str:
    """Return what tells this process from others, those on other machines included."""
    return f"{socket.gethostname()}-{os.getpid()}"


def is_alive(pid: int) -> bool:
    """Tell whether there is a process of this number on this machine."""
    if sys.platform == "win32":  # where os.kill would end it
        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        kernel.OpenProcess.restype = ctypes.c_void_p
        kernel.WaitForSingleObject.argtypes = [ctypes.c_void_p, ctypes.c_ulong]
        kernel.CloseHandle.argtypes = [ctypes.c_void_p]
        handle = kernel.OpenProcess(0x0010_0000, False, pid)  # SYNCHRONIZE
        if not handle:
            return ctypes.get_last_error() == 5  # ERROR_ACCESS_DENIED: it is another user's
        try:
            return kernel.WaitForSingleObject(handle, 0) != 0
        finally:
            kernel.CloseHandle(handle)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True
