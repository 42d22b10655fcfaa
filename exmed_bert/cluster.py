"""A Dask cluster, one that runs or one that is started here, whose workers do the tasks of `parallel`'s maps."""

import importlib.util
import logging
import pkgutil
import re
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from typing import Any, TypeVar

import exmed_bert
from exmed_bert.console import InputError, OptionError
from exmed_bert.processes import ignoring_interrupts

T = TypeVar("T")
R = TypeVar("R")

LOCAL = "local"
TASKS_PER_CORE = 4  # begun and not used yet; asked for again and again, as clusters grow and shrink
CONNECT_SECONDS = 5.0  # a client gives up after some more
WORKER_SECONDS = 30.0  # in which a cluster that starts workers on demand has its first


class WorkersLost(InputError):
    """Those who do the work are gone; what they have done so far is kept, and the same command goes on."""


class Cluster:
    """A cluster with a worker at least, each of which has this release of the package."""

    def __init__(self, client: Any, name: str) -> None:
        """Take a connected ``distributed.Client``, and how the user calls the cluster."""
        self._client, self._name = client, name

    def ordered(self, function: Callable[[T], R], tasks: Iterable[T], in_flight: int | None = None) -> Iterator[R]:
        """Yield results in the order of their tasks; see `parallel.ordered_map`."""
        tasks, begun = iter(tasks), deque[Any]()
        try:
            while True:
                room = (in_flight or self._room()) - len(begun)
                begun.extend(self._begin(function, task) for task in islice(tasks, max(room, 0)))
                if not begun:
                    return
                yield self._result(begun[0])
                begun.popleft()
        finally:
            self._forget(begun)

    def unordered(self, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
        """Yield results as they come; see `parallel.unordered_map`."""
        from distributed import as_completed

        tasks, begun = iter(tasks), set[Any]()
        done = as_completed(loop=self._client.loop)
        try:
            while True:
                for task in islice(tasks, max(self._room() - len(begun), 0)):
                    future = self._begin(function, task)
                    begun.add(future)
                    done.add(future)
                if not begun:
                    return
                future = next(done)
                yield self._result(future)
                begun.discard(future)
        finally:
            self._forget(begun)

    def _room(self) -> int:
        """Return how many tasks the cluster takes at present."""
        try:
            return TASKS_PER_CORE * max(sum(self._client.ncores().values()), 1)
        except OSError:
            raise self._lost() from None

    def _begin(self, function: Callable[[T], R], task: T) -> Any:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sending large graph")  # a vocabulary; there is no smaller way
            return self._client.submit(function, task, pure=False)

    def _result(self, future: Any) -> Any:
        from distributed import CancelledError, KilledWorker
        from distributed.comm import CommClosedError

        try:
            return future.result()
        except KilledWorker as error:
            raise WorkersLost(
                f"--scheduler {self._name}: a task ended {error.allowed_failures + 1} workers one after another, most "
                "often because their memory ran out; run the same command again to go on"
            ) from None
        except (CancelledError, CommClosedError):
            raise self._lost() from None

    def _lost(self) -> WorkersLost:
        return WorkersLost(f"--scheduler {self._name}: the connection is lost; run the same command again to go on")

    def _forget(self, futures: Iterable[Any]) -> None:
        with suppress(Exception):  # of a cluster that is gone
            self._client.cancel(list(futures))


def check(scheduler: str | None) -> None:
    """Refuse what is no scheduler, or cannot be used for want of a package.

    Raises:
        OptionError: so it is.
    """
    if scheduler is None:
        return
    if scheduler != LOCAL and not re.fullmatch(r"[a-z]+://\S+:\d+", scheduler):
        raise OptionError(f"--scheduler: {scheduler!r} is not allowed, expected {LOCAL} or tcp://host:8786")
    if importlib.util.find_spec("distributed") is None:
        raise OptionError("--scheduler: needs a package that is not installed; pip install distributed")


@contextmanager
def connected(scheduler: str, workers: int) -> Iterator[Cluster]:
    """Yield the cluster at an address, or a new one on this machine that ends with the block.

    Args:
        scheduler: its address, as in ``tcp://host:8786``, or `LOCAL`.
        workers: processes of a new one.

    Raises:
        OptionError: as `check` does, or nothing answers at the address.
        InputError: the cluster has no worker, or one without this release of the package.
    """
    check(scheduler)
    import distributed

    # What workers and connections report of themselves; what matters of it comes as an error of ours.
    for name in [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "distributed"]:
        logging.getLogger(name).setLevel(logging.CRITICAL)  # each has a level of its own
    with ExitStack() as stack:
        address: Any = scheduler
        if scheduler == LOCAL:
            with ignoring_interrupts():
                local = distributed.LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    processes=True,
                    dashboard_address="127.0.0.1:0",  # of what is served beside it; any free port
                    scheduler_kwargs={"dashboard": False},
                    memory_limit=0,  # tasks hold what they need; to pause a worker would help nobody
                    silence_logs=logging.CRITICAL,
                )
            address = stack.enter_context(local)
        try:
            client = stack.enter_context(distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False))
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise OptionError(
                f"--scheduler {scheduler}: nothing answers there ({reason}); start a scheduler with: dask scheduler"
            ) from None
        _check_workers(client, scheduler)
        yield Cluster(client, scheduler)


def _check_workers(client: Any, scheduler: str) -> None:
    """Wait for a worker, and refuse workers that would not do what this process does."""
    try:
        client.submit(abs, 1, pure=False).result(timeout=WORKER_SECONDS)
    except TimeoutError:
        raise InputError(
            f"--scheduler {scheduler}: has no worker after {WORKER_SECONDS:.0f} seconds; start some with: "
            f"dask worker {scheduler}"
        ) from None
    found = client.run(pkgutil.resolve_name, "exmed_bert:__version__", on_error="return")
    for worker, version in found.items():
        if version != exmed_bert.__version__:
            what = "cannot import exmed_bert" if isinstance(version, Exception) else f"has exmed_bert {version}"
            raise InputError(
                f"--scheduler {scheduler}: worker {worker} {what}; install exmed-bert {exmed_bert.__version__} for it, "
                "or name the folder of the package in its PYTHONPATH"
            )
