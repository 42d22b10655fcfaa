"""The population's blocks, ready to be written: made in this process, or in worker processes side by side."""

import functools
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from itertools import chain, repeat
from typing import NamedTuple, TypeVar

from exmed_bert.config import GenerateSettings
from exmed_bert.console import InputError
from exmed_bert.data.io import Piece, file_format, prepare
from exmed_bert.synthetic.population import BLOCK, generate_blocks
from exmed_bert.synthetic.summary import Summary

ROUND = 2  # chunks a worker makes while those of the round before are written

T = TypeVar("T")
R = TypeVar("R")


class Made(NamedTuple):
    """A block as it goes into the file, and what it holds."""

    piece: Piece
    summary: Summary


def make(settings: GenerateSettings) -> Iterator[Made]:
    """Yield all blocks in order, made by ``settings.workers`` processes a chunk at a time.

    What is yielded does not depend on the number of workers or on the chunk size. One worker is this process.

    Raises:
        InputError: a worker died.
    """
    blocks, step = -(-settings.num_patients // BLOCK), -(-settings.chunk_size // BLOCK)
    chunks = [range(first, min(first + step, blocks)) for first in range(0, blocks, step)]
    workers = min(settings.workers, len(chunks))
    if workers == 1:
        for chunk in chunks:
            for number in chunk:
                yield from _make_chunk(settings, range(number, number + 1))
        return

    from concurrent.futures.process import BrokenProcessPool

    import joblib

    work = joblib.delayed(functools.partial(_work, os.getpid(), settings))
    try:
        # max_nbytes=None: nothing that a worker is given is large, so that no folder for shared memory is needed.
        with joblib.Parallel(workers, "loky", return_as="generator", batch_size=1, max_nbytes=None) as pool:
            around = chain([_deaf_to_interrupts()], repeat(nullcontext()))  # all workers start with the first round

            def start(chunks: Sequence[range]) -> Iterable[list[Made]]:
                with next(around):
                    return pool(map(work, chunks))

            for chunk in in_rounds(start, chunks, ROUND * workers):
                yield from chunk
    except BrokenProcessPool:
        raise InputError(
            "a worker process was killed, most often for want of memory; use fewer --workers or a smaller --chunk-size"
        ) from None


def in_rounds(start: Callable[[Sequence[T]], Iterable[R]], tasks: Sequence[T], size: int) -> Iterator[R]:
    """Yield the results of tasks in order; while those of one round are used, those of the next are made.

    A pool that runs ahead of a slow disk would fill the memory: here at most two rounds of ``size`` results exist.
    ``start`` begins to work on its tasks when it is called, and returns their results in order.
    """
    ready: deque[R] = deque()
    under_way: Iterable[R] = ()
    try:
        for first in range(0, len(tasks), size):
            under_way = start(tasks[first : first + size])
            while ready:
                yield ready.popleft()
            ready.extend(under_way)
        while ready:
            yield ready.popleft()
    except GeneratorExit:  # nobody wants the rest, as when the disk is full
        with suppress(Exception):
            deque(under_way, maxlen=0)  # seconds; a pool that is ended amid its work complains on standard error
        raise


def _make_chunk(settings: GenerateSettings, numbers: range) -> list[Made]:
    """Make the blocks of these numbers."""
    made = []
    for block in generate_blocks(settings, numbers):
        summary = Summary()
        summary.add(block)
        made.append(Made(prepare(block.patients, file_format(settings.output)), summary))
    return made


def _work(parent: int, settings: GenerateSettings, numbers: range) -> list[Made]:
    """Make a chunk in a worker process of ``parent``, or in ``parent`` itself where there can be none."""
    if os.getpid() != parent:
        _end_with(parent)
    return _make_chunk(settings, numbers)


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Let processes that start now ignore Ctrl-C: a terminal sends it to all, and this process ends the others."""
    if threading.current_thread() is not threading.main_thread():  # the only one that may set this
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@functools.cache
def _end_with(parent: int) -> None:
    """End this process soon after ``parent``: one that is killed cannot stop its workers, and they would wait on."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
