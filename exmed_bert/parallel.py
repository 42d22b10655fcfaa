"""An ordered map over processes: results come in the order of their tasks, and few of them are in memory at once.

The processes are joblib's. Inside ``with joblib.parallel_config("dask")`` those of a Dask cluster take their place.
"""

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from itertools import chain, islice, repeat
from typing import TypeVar

from exmed_bert.console import InputError

T = TypeVar("T")
R = TypeVar("R")

RESULTS_PER_WORKER = 4


def ordered_map(
    function: Callable[[T], R], tasks: Iterable[T], workers: int, in_flight: int | None = None
) -> Iterator[R]:
    """Yield the function's result for each task, in order.

    With one worker or one task all happens in this process, each result when it is needed. An iterator that is closed
    early waits for the tasks that have begun.

    Args:
        function: called with one task; function, tasks and results can be pickled.
        tasks: read a round at a time, by this process.
        workers: number of processes; a Dask cluster takes as many as it has.
        in_flight: most tasks that have begun and whose results are not used yet, two or more;
            `RESULTS_PER_WORKER` for each worker if not given.

    Raises:
        InputError: a worker process was killed.
        Exception: what the function raises.

    >>> list(ordered_map(abs, [-1, 2, -3], workers=1))
    [1, 2, 3]
    """
    tasks = iter(tasks)
    first = list(islice(tasks, workers))
    tasks = chain(first, tasks)
    if len(first) < 2:
        yield from map(function, tasks)
        return

    from concurrent.futures.process import BrokenProcessPool

    import joblib

    call = joblib.delayed(function)
    size = max((in_flight or RESULTS_PER_WORKER * workers) // 2, 1)
    # All workers start with the first round.
    starting: Iterator[AbstractContextManager[None]] = chain([_ignoring_interrupts()], repeat(nullcontext()))
    try:
        # max_nbytes=None: arrays go through pipes, so that no folder of shared memory is left when a run is killed.
        # initializer: joblib's own processes call it; a Dask cluster, whose workers are not ours to end, does not.
        with joblib.Parallel(
            len(first),
            return_as="generator",
            batch_size=1,
            max_nbytes=None,
            initializer=_end_with,
            initargs=(os.getpid(),),
        ) as pool:

            def start(tasks: list[T]) -> Iterable[R]:
                with next(starting):
                    return pool(map(call, tasks))

            yield from _in_rounds(start, tasks, size)
    except BrokenProcessPool:
        raise InputError(
            "a worker process was killed, most often because memory ran out; use fewer --workers or a smaller "
            "--chunk-size"
        ) from None


def _in_rounds(start: Callable[[list[T]], Iterable[R]], tasks: Iterator[T], size: int) -> Iterator[R]:
    """Yield the results of tasks in order; while those of one round are used, those of the next are computed.

    A pool that runs ahead of a slow disk would fill the memory: here at most two rounds of ``size`` results exist.
    ``start`` begins to work on its tasks when it is called, and returns their results in order.
    """
    ready: deque[R] = deque()
    under_way: Iterable[R] = ()
    try:
        while round_ := list(islice(tasks, size)):
            under_way = start(round_)
            while ready:
                yield ready.popleft()
            ready.extend(under_way)
        while ready:
            yield ready.popleft()
    except GeneratorExit:  # the rest is not needed, as when the disk is full
        with suppress(Exception):
            deque(under_way, maxlen=0)  # seconds; a pool that is ended amid its work complains on standard error
        raise


@contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    """Let processes that start now ignore Ctrl-C: a terminal sends it to all, and this process ends the others."""
    if threading.current_thread() is not threading.main_thread():  # the only one that may set this
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end_with(parent: int) -> None:
    """End this process soon after ``parent``: one that is killed cannot stop its workers, and they would wait on.

    It is called as a worker starts, not with its first task: that never comes where the parent is killed before.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
