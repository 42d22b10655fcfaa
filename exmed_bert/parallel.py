"""Maps over processes: results in the order of their tasks, few of them in memory at once, or small ones as they come.

The processes are joblib's. Inside ``with engine("tcp://host:8786", 1)`` the workers of a Dask cluster take their place.
"""

import os
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from itertools import chain, count, islice, repeat, takewhile
from typing import Any, Generic, TypeVar

from exmed_bert.cluster import Cluster, WorkersLost, connected
from exmed_bert.processes import end_with, ignoring_interrupts

T = TypeVar("T")
R = TypeVar("R")

RESULTS_PER_WORKER = 4
MOST_LOSSES = 3  # of processes that were killed, as on a Dask cluster

_cluster: Cluster | None = None  # that of `engine`


@contextmanager
def engine(scheduler: str | None, workers: int) -> Iterator[None]:
    """Let a Dask cluster do the tasks of the maps inside the block; nothing changes without a scheduler.

    Args:
        scheduler: address of a running one, such as ``tcp://host:8786``, or ``local`` for a new one on this machine.
        workers: processes of a new one.

    Raises:
        InputError: as `cluster.connected` does.
    """
    global _cluster
    if scheduler is None:
        yield
        return
    with connected(scheduler, workers) as _cluster:
        try:
            yield
        finally:
            _cluster = None


def ordered_map(
    function: Callable[[T], R], tasks: Iterable[T], workers: int, in_flight: int | None = None
) -> Iterator[R]:
    """Yield the function's result for each task, in order.

    With one worker or one task all happens in this process, each result when it is needed, unless there is a cluster.
    An iterator that is closed early waits for the tasks that processes of this machine have begun.

    Args:
        function: called with one task; function, tasks and results can be pickled.
        tasks: read a round at a time, by this process.
        workers: number of processes; a cluster takes as many tasks as it has workers for.
        in_flight: most tasks that have begun and whose results are not used yet, two or more;
            `RESULTS_PER_WORKER` for each worker if not given.

    Raises:
        WorkersLost: a worker process was killed.
        Exception: what the function raises.

    >>> list(ordered_map(abs, [-1, 2, -3], workers=1))
    [1, 2, 3]
    """
    if _cluster is not None:
        yield from _cluster.ordered(function, tasks, in_flight)
        return
    tasks = iter(tasks)
    first = list(islice(tasks, workers))
    tasks = chain(first, tasks)
    if len(first) < 2:
        yield from map(function, tasks)
        return

    import joblib

    call = joblib.delayed(function)
    size = max((in_flight or RESULTS_PER_WORKER * workers) // 2, 1)
    # All workers start with the first round.
    starting: Iterator[AbstractContextManager[None]] = chain([ignoring_interrupts()], repeat(nullcontext()))
    with _processes(len(first), "generator") as pool:

        def start(tasks: list[T]) -> Iterable[R]:
            with next(starting):
                return pool(map(call, tasks))

        yield from _in_rounds(start, tasks, size)


def unordered_map(function: Callable[[T], R], tasks: Iterable[T], workers: int) -> Iterator[tuple[int, R]]:
    """Yield the number of each task and the function's result, as soon as it is there.

    For results so small that all may wait in memory; no process ever waits for another, then. A process that is killed
    is replaced, and what was not done is done again. Otherwise as `ordered_map`.

    Raises:
        WorkersLost: processes were killed again and again.
        Exception: what the function raises.

    >>> sorted(unordered_map(abs, [-1, 2, -3], workers=1))
    [(0, 1), (1, 2), (2, 3)]
    """
    numbered, numbers = _Numbered(function), enumerate(tasks)
    if _cluster is not None:
        yield from _cluster.unordered(numbered, numbers)
        return
    first = list(islice(numbers, workers))
    if len(first) < 2:
        yield from map(numbered, chain(first, numbers))
        return
    missing = dict(chain(first, numbers))
    for losses in count():
        try:
            for number, result in _in_processes(numbered, list(missing.items()), len(first)):
                del missing[number]
                yield number, result
            return
        except WorkersLost:
            if losses == MOST_LOSSES:
                raise


def _in_processes(function: Callable[[T], R], tasks: Iterable[T], workers: int) -> Iterator[R]:
    """Yield the results of tasks as they come."""
    import joblib

    wanted = True
    with _processes(workers, "generator_unordered") as pool:
        with ignoring_interrupts():
            results = pool(joblib.delayed(function)(task) for task in takewhile(lambda _: wanted, tasks))
        try:
            for result in results:  # noqa: UP028 - `yield from` would close them before they are used up
                yield result
        except GeneratorExit:  # as in `_in_rounds`
            wanted = False
            with suppress(Exception):
                deque(results, maxlen=0)
            raise


class _Numbered(Generic[T, R]):
    """A function of one task as one of its number and the task, which returns the number and the result."""

    def __init__(self, function: Callable[[T], R]) -> None:
        self.function = function

    def __call__(self, numbered: tuple[int, T]) -> tuple[int, R]:
        return numbered[0], self.function(numbered[1])


@contextmanager
def _processes(workers: int, return_as: str) -> Iterator[Any]:
    """Yield joblib's pool; a worker that is killed is one clear error."""
    from concurrent.futures.process import BrokenProcessPool

    import joblib

    # joblib replaces a process that has grown: that is its business, and nothing is lost.
    warnings.filterwarnings("ignore", "A worker stopped while some jobs were given", UserWarning)
    try:
        # max_nbytes=None: arrays go through pipes, so that no folder of shared memory is left when a run is killed.
        # initializer: joblib's own processes call it; those of another backend, which are not ours to end, do not.
        with joblib.Parallel(
            workers,
            return_as=return_as,
            batch_size=1,
            max_nbytes=None,
            initializer=end_with,
            initargs=(os.getpid(),),
        ) as pool:
            yield pool
    except BrokenProcessPool:
        raise WorkersLost(
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


class Pace:
    """How fast workers are, for progress bars."""

    def __init__(self) -> None:
        self._patients: Counter[str] = Counter()
        self._seconds: dict[str, float] = {}

    def note(self, worker: str, patients: int, seconds: float) -> None:
        """Count in what a worker has done."""
        self._patients[worker] += patients
        self._seconds[worker] = self._seconds.get(worker, 0.0) + seconds

    def __str__(self) -> str:
        """Return the pace of the slowest of several workers."""
        if len(self._patients) < 2:
            return ""
        slowest = min(done / max(self._seconds[worker], 1e-9) for worker, done in self._patients.items())
        return f", slowest of {len(self._patients)} workers {slowest:,.0f} patients/s"
