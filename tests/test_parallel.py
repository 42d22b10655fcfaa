"""The ordered map over processes: order, memory, errors, workers that are lost, and iterators that are not used up."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import joblib
import numpy as np
import pytest
from conftest import ROOT, is_gone, wait_for
from hypothesis import given
from hypothesis import strategies as st

from exmed_bert.console import InputError
from exmed_bert.parallel import _in_rounds, ordered_map, unordered_map

posix = pytest.mark.skipif(os.name != "posix", reason="signals as on Linux and macOS")


def slow_square(number: int) -> int:
    """Take longer for some tasks, so that later ones are done before earlier ones."""
    time.sleep(0.03 if number % 3 == 0 else 0)
    return number * number


def process(_: int) -> int:
    return os.getpid()


def refuse_five(number: int) -> int:
    if number == 5:
        raise InputError(f"record {number} is wrong")
    return number


def die_at_five(number: int) -> int:
    if number == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


# Results -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("in_flight", [None, 1, 5])
def test_results_come_in_the_order_of_the_tasks(workers: int, in_flight: int | None) -> None:
    found = ordered_map(slow_square, range(17), workers, in_flight)
    assert list(found) == [number * number for number in range(17)]


@pytest.mark.parametrize("tasks, workers", [(5, 1), (1, 4)])
def test_one_worker_or_one_task_is_this_process(tasks: int, workers: int) -> None:
    assert set(ordered_map(process, range(tasks), workers)) == {os.getpid()}


def test_no_task_gives_no_result() -> None:
    assert list(ordered_map(process, [], 4)) == []


def test_several_workers_are_other_processes() -> None:
    found = set(ordered_map(process, range(8), 2))
    assert os.getpid() not in found and 1 <= len(found) <= 2


def test_a_function_may_hold_values_of_its_own() -> None:
    added = np.arange(300_000)  # more than joblib would pass through a file
    total = list(ordered_map(lambda number: int((added + number).sum()), range(4), 2))
    assert total == [int((added + number).sum()) for number in range(4)]


def test_another_backend_takes_the_place_of_processes() -> None:
    """As a Dask cluster does; here threads of this process, of which nothing has to be installed."""
    with joblib.parallel_config("threading"):
        assert set(ordered_map(process, range(8), 2)) == {os.getpid()}
        assert list(ordered_map(slow_square, range(8), 2)) == [number * number for number in range(8)]
    assert threading.active_count() < 10, "workers that share this process do not watch it"


@pytest.mark.slow
def test_a_dask_cluster_takes_the_place_of_processes() -> None:
    import distributed

    local = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with local, distributed.Client(local) as client, joblib.parallel_config("dask"):
        assert set(ordered_map(process, range(8), 2)) <= set(client.run(os.getpid).values())
        assert list(ordered_map(slow_square, range(8), 2)) == [number * number for number in range(8)]
        with pytest.raises(InputError, match="record 5 is wrong"):
            list(ordered_map(refuse_five, range(20), 2))


# Memory --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers, in_flight, most", [(1, None, 1), (2, 4, 4), (2, None, 8)])
def test_tasks_are_read_as_they_are_needed(workers: int, in_flight: int | None, most: int) -> None:
    """There is no end of them, so reading all would take forever."""
    read = count()
    found = ordered_map(abs, read, workers, in_flight)
    assert next(found) == 0
    assert next(read) <= most
    found.close()


@given(tasks=st.integers(0, 40), size=st.integers(1, 7), wanted=st.integers(0, 40))
def test_at_most_two_rounds_are_held(tasks: int, size: int, wanted: int) -> None:
    """The worst of pools, which computes all that it is given at once, and a consumer that stops at any moment."""
    begun, fetched, used = 0, 0, []

    def start(numbers: list[int]) -> Iterator[int]:
        nonlocal begun
        begun += len(numbers)
        return fetch(numbers)

    def fetch(numbers: list[int]) -> Iterator[int]:
        nonlocal fetched
        for number in numbers:
            fetched += 1
            yield number

    results = _in_rounds(start, iter(range(tasks)), size)
    for number in results:
        assert begun - len(used) <= 2 * size
        used.append(number)
        if len(used) >= wanted:
            break
    results.close()
    assert used == list(range(min(tasks, max(wanted, 1))))
    assert fetched == begun, "no pool is left amid its work"


# Ends before the last result -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_the_function_is_raised_here(workers: int, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="record 5 is wrong"):
        list(ordered_map(refuse_five, range(40), workers))
    assert list(ordered_map(slow_square, range(4), workers)) == [0, 1, 4, 9], "workers are there for the next map"
    assert capfd.readouterr().err == ""


@posix
def test_a_killed_worker_is_one_clear_error() -> None:
    with pytest.raises(InputError, match=r"worker process was killed.*--workers"):
        list(ordered_map(die_at_five, range(40), 2))
    assert list(ordered_map(slow_square, range(4), 2)) == [0, 1, 4, 9]


@posix
def test_a_killed_worker_is_replaced_where_results_come_in_any_order(tmp_path: Path) -> None:
    def die_once(number: int) -> int:
        if number == 5 and not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    assert sorted(unordered_map(die_once, range(40), 2)) == [(number, number) for number in range(40)]
    assert (tmp_path / "died").exists()
    with pytest.raises(InputError, match=r"worker process was killed.*--workers"):
        list(unordered_map(die_at_five, range(40), 2))


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_results_in_any_order_have_the_numbers_of_their_tasks(workers: int) -> None:
    found = unordered_map(slow_square, range(17), workers)
    assert sorted(found) == [(number, number * number) for number in range(17)]
    assert list(unordered_map(process, [], workers)) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_is_raised_here_in_any_order_too(workers: int, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="record 5 is wrong"):
        list(unordered_map(refuse_five, range(40), workers))
    closed = unordered_map(slow_square, range(1000), workers)
    next(closed)
    closed.close()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("used", [0, 1, 11])
def test_an_iterator_may_be_closed_early(workers: int, used: int, capfd: pytest.CaptureFixture[str]) -> None:
    found = ordered_map(slow_square, range(1000), workers)
    assert [next(found) for _ in range(used)] == [number * number for number in range(used)]
    found.close()
    assert list(found) == []
    assert capfd.readouterr().err == ""


RUN = """
import sys, time
from exmed_bert.parallel import ordered_map
def note(number):
    open(f"{sys.argv[1]}/{number}", "w").close()
    time.sleep(0.05)
for _ in ordered_map(note, range(10_000), 2): pass
"""


@posix
@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_the_process_that_started_them(tmp_path: Path, end: signal.Signals) -> None:
    """Killed, a process can tell its workers nothing; Ctrl-C goes to all of them, and only this one says so."""
    run = subprocess.Popen(
        [sys.executable, "-c", RUN, str(tmp_path)], cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_for(lambda: any(tmp_path.iterdir()))
    send: Callable[[int, int], None] = os.kill if end == signal.SIGKILL else os.killpg
    send(run.pid, end)
    _, errors = run.communicate(timeout=60)
    assert errors.count("Traceback") == (0 if end == signal.SIGKILL else 1)
    wait_for(lambda: is_gone(run.pid))
