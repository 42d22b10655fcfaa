"""Fuzzing: whatever is done to a file that a user passes in, it is read, or refused in one line that leaves no output.

python -m pytest tests/fuzz                               2,000 inputs, the same ones each time
bash scripts/fuzz.sh [inputs] [seed]                      as many as one likes, others with each seed
"""

import contextlib
import io
import os
import resource
import shutil
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import pytest
from corpus import TARGETS, Target
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from mutations import mutations_of

from exmed_bert.console import InputError

INPUTS = int(os.environ.get("EXMED_BERT_FUZZ_INPUTS", "2000"))
SEED = os.environ.get("EXMED_BERT_FUZZ_SEED")
SECONDS = 10  # of processor time, that reading a small file may take at most
MEGABYTES = 1024  # that all readings of a target may add to the memory
_TOTAL = sum(target.weight for target in TARGETS)

pytestmark = pytest.mark.slow
_NUMBER = st.integers(0, 2**20)
_MUTATION = st.tuples(_NUMBER, _NUMBER, _NUMBER, _NUMBER, _NUMBER, _NUMBER)


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def make(target: Target, folder: Path) -> dict[Path, bytes]:
    """Write a target's files, read them as they are, and return what each holds."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        target.make(folder)
        contents = {path.relative_to(folder): path.read_bytes() for path in files_of(folder)}
        target.read(folder)
    return contents


def damaged(contents: dict[Path, bytes], mutations: list[tuple[int, ...]]) -> dict[Path, bytes]:
    """Return the files after some mutations: which file, how, and four numbers each."""
    contents, names = dict(contents), list(contents)
    for which, how, *numbers in mutations:
        name = names[which % len(names)]
        kinds = mutations_of(name)
        # What an earlier mutation has left may be no JSON, no gzip file: then bytes alone can be changed.
        for change in (kinds[how % len(kinds)], kinds[0]):
            try:
                contents[name] = change(contents[name], numbers)
                break
            except Exception:  # of the mutation, not of what is tested
                continue
    return contents


def read_damaged(target: Target, folder: Path, contents: dict[Path, bytes]) -> str:
    """Read the files, and tell whether they were ``read`` or ``refused``; anything else fails."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    (folder / "out").mkdir()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    start, outcome = time.process_time(), "read"
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        try:
            target.read(folder)
        except InputError as error:
            outcome, message = "refused", str(error)
            assert 10 < len(message) <= 2000 and "Traceback" not in message, message
            left = [path for path in files_of(folder / "out") if not path.parent.name.startswith(".")]
            assert not left, left
    seconds = time.process_time() - start
    assert seconds < SECONDS, f"{seconds:.1f} s"
    return outcome


def in_own_process(action: Callable[[], None]) -> None:
    """Run an action in a fork, where what C code does to the memory harms no later test; fail as it fails."""
    fork = get_context("fork")
    told, tell = fork.Pipe(duplex=False)

    def run() -> None:
        try:
            action()
            tell.send("")
        except BaseException:
            tell.send(traceback.format_exc())

    process = fork.Process(target=run)
    process.start()
    tell.close()
    try:
        failure = told.recv()
    except EOFError:
        failure = "it ended without a word"
    process.join()
    assert process.exitcode == 0 and not failure, f"exit code {process.exitcode}: {failure}"


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name.replace(" ", "_"))
def test_damage_is_refused_in_one_line(target: Target, tmp_path: Path) -> None:
    in_own_process(lambda: fuzz(target, tmp_path))


def fuzz(target: Target, folder: Path) -> None:
    """Read a target's files after each of many mutations."""
    contents = make(target, folder)
    seen: Counter[str] = Counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def check(mutations: list[tuple[int, ...]]) -> None:
        seen[read_damaged(target, folder, damaged(contents, mutations))] += 1

    count = max(INPUTS * target.weight // _TOTAL, 5)
    budget = settings(
        max_examples=count,
        derandomize=SEED is None,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    run = budget(given(st.lists(_MUTATION, min_size=1, max_size=3))(check))
    if SEED is not None:
        run = seed(int(SEED))(run)
    run()
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert more < MEGABYTES, f"{more:.0f} MB"
    assert seen.total() >= count // 2, seen
