"""Conversion and generation on a Dask cluster, and what goes on after it was killed: the bytes of one process."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, assert_one_line_error, forked, is_gone, run_here, run_script, wait_for
from typer.testing import CliRunner

from exmed_bert import cluster, codes
from exmed_bert.cli import script
from exmed_bert.cluster import WorkersLost, connected
from exmed_bert.commands import COMMANDS
from exmed_bert.console import InputError, OptionError
from exmed_bert.data import convert as conversion
from exmed_bert.data import first_pass, second_pass
from exmed_bert.data.convert import convert
from exmed_bert.data.formats import POPULATION_META
from exmed_bert.data.patient_input import PatientInput, read_patients
from exmed_bert.parallel import engine, ordered_map, unordered_map
from exmed_bert.settings import ConvertSettings
from exmed_bert.synthetic import shards

pytest.importorskip("distributed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="signals as on Linux and macOS"),
]

PARTS, PATIENTS, SHARD = 6, 200, 150
GENERATE, CONVERT = "generate_synthetic_patients.py", "convert_synthetic_to_dataset.py"

# What workers run before their first task. The first that is about to write what a marker names dies instead.
PRELOAD = """
import os, signal
from pathlib import Path
from exmed_bert.data import first_pass, second_pass

def dying(write):
    def wrapper(path, *content):
        for marker in Path(os.environ["DEATHS"]).glob("*"):
            if marker.name == Path(path).name.removeprefix(".").split(".", 1)[0]:
                try:
                    marker.unlink()
                except FileNotFoundError:
                    continue
                os.kill(os.getpid(), signal.SIGKILL)
        return write(path, *content)
    return wrapper

first_pass.write_piece = dying(first_pass.write_piece)
second_pass.write_shard = dying(second_pass.write_shard)
"""


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with files of our own records."""
    folder = tmp_path_factory.mktemp("records")
    done = run_here(GENERATE, "-n", PARTS * PATIENTS, "-p", 0.05, "-o", "all.jsonl", cwd=folder)
    assert done.returncode == 0, done.stderr
    lines = (folder / "all.jsonl").read_text().splitlines(keepends=True)
    (folder / "parts").mkdir()
    for number in range(PARTS):
        part = lines[number * PATIENTS : (number + 1) * PATIENTS]
        (folder / "parts" / f"part-{number}.jsonl").write_text("".join(part))
    return folder / "parts"


def settings_for(records: Path, output: Path, **changes: object) -> ConvertSettings:
    return ConvertSettings(**({"input": records, "output": output / "d.pt", "shard_size": SHARD} | changes))


def content(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all files of the datasets in a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob("d_*.pt/*"))}


@pytest.fixture(scope="module")
def expected(records: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return the datasets that one process makes."""
    folder = tmp_path_factory.mktemp("expected")
    convert(settings_for(records, folder))
    found = content(folder)
    assert len([name for name in found if "_train.pt/shard-" in name]) > 3
    return found


def launch(*arguments: object, cwd: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )


@pytest.fixture(scope="module")
def deaths(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of markers: a file name there is one at which a worker dies."""
    return tmp_path_factory.mktemp("deaths")


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory, deaths: Path) -> Iterator[str]:
    """Start a scheduler and two workers, processes of their own that know each other over TCP; return its address."""
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "preload.py").write_text(PRELOAD)
    said = folder / "scheduler.json"
    environment = {"PYTHONPATH": str(ROOT), "DEATHS": str(deaths), "DASK_DISTRIBUTED__WORKER__DAEMON": "false"}
    started = [
        launch(
            "-m", "dask", "scheduler", "--host", "127.0.0.1", "--port", 0, "--no-dashboard", "--scheduler-file", said,
            cwd=folder, **environment,
        )
    ]  # fmt: skip
    started += [
        launch(
            "-m", "dask", "worker", "--scheduler-file", said, "--nthreads", 1, "--nworkers", 1, "--no-dashboard",
            "--memory-limit", 0, "--preload", folder / "preload.py", "--local-directory", folder,
            cwd=folder, **environment,
        )
        for _ in range(2)
    ]  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not said.is_file() or not said.read_text().strip():
            assert time.monotonic() < deadline and started[0].poll() is None
            time.sleep(0.05)
        address = json.loads(said.read_text())["address"]
        with connected(address, 1) as found:
            found._client.wait_for_workers(2, timeout=60)
        yield address
    finally:
        for process in started:  # all they have is in a temporary folder
            process.kill()
            process.wait()


def process_id(_: object) -> int:
    return os.getpid()


def slow_square(number: int) -> int:
    time.sleep(0.05 if number % 3 == 0 else 0)
    return number * number


def refuse_five(number: int) -> int:
    if number == 5:
        raise InputError(f"record {number} is wrong")
    return number


def always_die(_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# The engine ----------------------------------------------------------------------------------------------------------


def test_a_running_cluster_does_the_tasks(scheduler: str) -> None:
    def here(text: str) -> object:  # functions of this file are none that the workers could import
        return eval(text)

    with engine(scheduler, 1):
        processes = set(ordered_map(here, ["__import__('os').getpid()"] * 12, 1))
        assert os.getpid() not in processes and len(processes) == 2, "as many as the cluster has, not --workers"
        assert list(ordered_map(abs, range(-40, 0), 1)) == list(range(40, 0, -1))
        assert sorted(unordered_map(abs, range(-40, 0), 1)) == [(i, 40 - i) for i in range(40)]
    assert set(ordered_map(process_id, range(3), 1)) == {os.getpid()}


def test_a_cluster_of_its_own() -> None:
    with engine("local", 2):
        assert os.getpid() not in set(ordered_map(process_id, range(8), 1))
        assert list(ordered_map(slow_square, range(30), 1)) == [i * i for i in range(30)]
        assert sorted(unordered_map(slow_square, range(30), 1)) == [(i, i * i) for i in range(30)]
        for several in (ordered_map, unordered_map):
            with pytest.raises(InputError, match="record 5 is wrong"):
                list(several(refuse_five, range(40), 1))
            closed = several(slow_square, range(1000), 1)
            next(closed)
            closed.close()
        with pytest.raises(WorkersLost, match="a task ended 4 workers"):
            list(ordered_map(always_die, range(1), 1))


@pytest.mark.parametrize(
    ("scheduler", "part"),
    [("tcp://127.0.0.1:1", "nothing answers there"), ("127.0.0.1", "expected local or tcp://host:8786")],
)
def test_a_scheduler_that_is_not_there(scheduler: str, part: str) -> None:
    start = time.monotonic()
    with pytest.raises(OptionError, match=part), engine(scheduler, 1):
        pass
    assert time.monotonic() - start < 10


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(OptionError, match="pip install distributed"), engine("local", 1):
        pass


def test_workers_that_cannot_do_the_work_are_refused(scheduler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster.exmed_bert, "__version__", "99.0")
    problem = r"worker tcp://.* has exmed_bert .*; install exmed-bert 99.0"
    with pytest.raises(InputError, match=problem), engine(scheduler, 1):
        pass


def test_a_cluster_without_workers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import LocalCluster

    monkeypatch.setattr(cluster, "WORKER_SECONDS", 0.5)
    with (
        LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0", host="127.0.0.1") as empty,
        pytest.raises(InputError, match="has no worker after"),
        engine(empty.scheduler_address, 1),
    ):
        pass


# Conversion ----------------------------------------------------------------------------------------------------------


def test_two_processes_make_the_same(records: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    convert(settings_for(records, tmp_path, workers=2))
    assert content(tmp_path) == expected


def test_a_cluster_makes_the_same_though_workers_die(
    records: Path, expected: dict[str, bytes], scheduler: str, deaths: Path, tmp_path: Path
) -> None:
    """One dies amid a file, with half of its pieces written, one amid a shard; the paths are relative."""
    (deaths / "part-00003-00000-val").touch()
    (deaths / "shard-00001").touch()
    options = ["--input", os.path.relpath(records, tmp_path), "--output", "d.pt", "--shard-size", SHARD]
    done = run_script(CONVERT, *options, "--scheduler", scheduler, cwd=tmp_path)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert content(tmp_path) == expected
    assert not list(deaths.iterdir()), "both have died"
    assert not list(tmp_path.glob(".*"))


def test_an_error_on_a_cluster_is_one_line(scheduler: str, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text('{"patient_id": 1}\n')
    done = run_script(CONVERT, "--input", tmp_path, "--output", "d.pt", "--scheduler", scheduler, cwd=tmp_path)
    assert_one_line_error(done, 1, ".jsonl", "birth_year")


def kill_at(module: ModuleType, writer: str, at: int, records: Path, output: Path) -> None:
    """Convert with one process that is killed when it has written some times."""

    def killed() -> None:
        setattr(module, writer, dying(getattr(module, writer), at))
        convert(settings_for(records, output))

    assert forked(killed) == -signal.SIGKILL
    assert not list(output.glob("d_*"))


def dying(write: Callable[..., Any], at: int, begin: Callable[..., object] = lambda *given: None) -> Callable[..., Any]:
    """Return a function that writes some times and then, having begun once more, kills the process."""
    times = itertools.count(1)

    def dies(*given: Any) -> Any:
        if next(times) == at:
            begin(*given)
            os.kill(os.getpid(), signal.SIGKILL)
        return write(*given)

    return dies


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_conversion_goes_on_with_the_missing_files(
    records: Path, expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    kill_at(first_pass, "write_piece", 2 * 3, records, tmp_path)  # amid the third file
    done = sorted((tmp_path / ".d.converting").glob("part-*.json"))
    assert [path.name for path in done] == ["part-00000.json", "part-00001.json"]
    times = [path.stat().st_mtime_ns for path in (tmp_path / ".d.converting").glob("part-0000[01]*")]
    begun = []

    def noted(function, tasks, workers):  # type: ignore[no-untyped-def]
        if tasks and isinstance(tasks[0], first_pass.Part):
            begun.extend(part.number for part in tasks)
            assert times == [path.stat().st_mtime_ns for path in (tmp_path / ".d.converting").glob("part-0000[01]*")]
        return unordered_map(function, tasks, workers)

    monkeypatch.setattr(conversion, "unordered_map", noted)
    convert(settings_for(records, tmp_path, workers=workers))
    assert begun == [2, 3, 4, 5]
    assert content(tmp_path) == expected and not list(tmp_path.glob(".*"))


def test_a_killed_conversion_goes_on_with_the_missing_shards(
    records: Path, expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_at(second_pass, "write_shard", 3, records, tmp_path)
    assert len(list((tmp_path / ".d.converting" / "train").glob("shard-*.pt"))) == 2
    encoded = []
    encode = second_pass.encode
    monkeypatch.setattr(second_pass, "encode", lambda task: encoded.append(task.path.name) or encode(task))
    monkeypatch.setattr(conversion, "read_part", lambda part, progress=None: pytest.fail("was read before"))
    convert(settings_for(records, tmp_path))
    shards = [name for name in expected if "/shard-" in name]
    assert len(encoded) == len(shards) - 2
    assert content(tmp_path) == expected


def test_other_settings_start_anew(records: Path, tmp_path: Path) -> None:
    kill_at(second_pass, "write_shard", 3, records, tmp_path)
    convert(settings_for(records, tmp_path, max_length=20))
    (tmp_path / "other").mkdir()
    convert(settings_for(records, tmp_path / "other", max_length=20))
    assert content(tmp_path) == content(tmp_path / "other")


# Generation ----------------------------------------------------------------------------------------------------------

POPULATION = ["-n", 5300, "-p", 0.05, "--shards", 4, "-o", "population"]


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if "settings" not in path.name}


@pytest.fixture(scope="module")
def population(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a population in shards, and the same patients in one file."""
    folder = tmp_path_factory.mktemp("population")
    for arguments in (POPULATION, ["-n", 5300, "-p", 0.05, "-o", "single.parquet"]):
        done = run_here(GENERATE, *arguments, cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("shard_format", ["parquet", "jsonl", "jsonl.gz"])
def test_shards_hold_the_patients_of_the_file(population: Path, tmp_path: Path, shard_format: str) -> None:
    folder = population / "population"
    if shard_format != "parquet":
        done = run_script(GENERATE, *POPULATION, "--shard-format", shard_format, "--workers", 2, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        folder = tmp_path / "population"
    shards = sorted(folder.glob("part-*"))
    assert [path.name for path in shards] == [f"part-{number:05}.{shard_format}" for number in range(4)]
    found = [one for path in shards for part in read_patients(path) for one in part.records()]
    single = [one for part in read_patients(population / "single.parquet") for one in part.records()]
    assert found == single and len(found) == 5300
    meta = json.loads((folder / POPULATION_META).read_text())
    assert meta.pop("shards") == [path.name for path in shards]
    assert meta == json.loads((population / "single.meta.json").read_text())


def test_who_generated_the_shards_is_known(population: Path, tmp_path: Path) -> None:
    made = convert(settings_for(population / "population", tmp_path, workers=2))
    single = convert(ConvertSettings(input=population / "single.parquet", output=tmp_path / "single.pt"))
    assert made.source.generated and made.source.cells.limit == 0
    assert made.source.novel_codes == single.source.novel_codes != ()
    assert made.datasets["val"].info.novel_codes == single.datasets["val"].info.novel_codes
    others = tmp_path / "others"
    shutil.copytree(population / "population", others)
    (others / "part-00001.parquet").rename(others / "own.parquet")
    assert not PatientInput([others]).origin.generated, "another file is among them"
    some = PatientInput([others / "part-00000.parquet", others / "part-00002.parquet"])
    assert some.novel_codes and not some.generated


def test_a_cluster_and_processes_make_the_same_shards(population: Path, scheduler: str, tmp_path: Path) -> None:
    for number, options in enumerate((["--workers", 2], ["--scheduler", scheduler])):
        folder = tmp_path / str(number)
        folder.mkdir()
        done = run_script(GENERATE, *POPULATION, *options, cwd=folder)
        assert done.returncode == 0 and done.stderr == "", done.stderr
        assert files_of(folder / "population") == files_of(population / "population")
        assert not list(folder.glob(".*"))


def test_a_killed_generation_goes_on_with_the_missing_shards(
    population: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [*map(str, POPULATION[:-1]), str(tmp_path / "population")]
    write = shards.write_pieces

    def killed() -> None:
        shards.write_pieces = dying(write, 3, begin=lambda path, pieces: next(pieces))
        CliRunner().invoke(script(COMMANDS["generate"]), options)

    assert forked(killed) == -signal.SIGKILL and not (tmp_path / "population").exists()
    written = []
    monkeypatch.setattr(shards, "write_pieces", lambda path, pieces: written.append(path.name) or write(path, pieces))
    result = CliRunner().invoke(script(COMMANDS["generate"]), options)
    assert result.exit_code == 0, result.output
    assert written == ["part-00002.parquet", "part-00003.parquet"]
    assert files_of(tmp_path / "population") == files_of(population / "population")
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["-n", "3000", "--shards", "4", "-o", "p"], "expected at most 3"),
        (["--shards", "1", "-o", "p.jsonl"], "expected a folder such as"),
        (["--shards", "1", "-o", "{taken}"], "something else than a population"),
        (["--scheduler", "host", "-o", "p.jsonl"], "expected local or tcp://host:8786"),
    ],
)
def test_shards_that_cannot_be_made(options: list[str], part: str, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").touch()
    result = CliRunner().invoke(script(COMMANDS["generate"]), [o.format(taken=tmp_path / "taken") for o in options])
    assert result.exit_code in (1, 2) and part in result.stderr and result.stderr.count("Error") == 1


# Rare codes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("least", [5, 40])
@pytest.mark.parametrize("rare_codes", ["unk", "roll-up"])
def test_rare_codes_are_not_in_the_vocabulary(records: Path, tmp_path: Path, least: int, rare_codes: str) -> None:
    def counted(output: Path, **changes: object) -> tuple[Counter[codes.CodeKey], int]:
        """Return the tokens of each code in both splits, and of UNK."""
        output.mkdir()
        # Long enough that no history is cut, so that events are the tokens.
        made = convert(settings_for(records, output, max_length=2000, workers=2, **changes)).datasets
        vocabulary = made["train"].info.vocabulary
        counts = sum(part.code_counts for part in made.values())
        named = {key: int(n) for key, n in zip(vocabulary.keys, counts, strict=True) if key is not None}
        return Counter(named), int(counts[vocabulary.ids["UNK"]])

    every, unknown = counted(tmp_path / "all")
    assert not unknown
    found, unknown = counted(tmp_path / "rare", min_code_count=least, rare_codes=rare_codes)
    rare = {key for key, count in every.items() if count < least}
    assert rare and set(found) >= set(every) - rare
    if rare_codes == "unk":
        assert set(found) == set(every) - rare and min(found.values()) >= least
        assert found == Counter({key: count for key, count in every.items() if key not in rare})
        assert unknown == sum(every[key] for key in rare)
        return
    for key in rare:
        above = [(key[0], code) for code in codes.ancestors(key[1], key[0])]
        assert key not in found or found[key] >= least, "an ancestor of others may be frequent enough with them"
        assert key in found or not found.keys().isdisjoint(above) or unknown
    # Repetitions within a visit go when two codes become one, so a code may have fewer tokens than events.
    for key in found:
        below = [
            k for k in every if k == key or (k in rare and key in [(k[0], c) for c in codes.ancestors(k[1], k[0])])
        ]
        assert sum(every[k] for k in below) >= least and found[key] <= sum(every[k] for k in below)
    assert every.total() - (found.total() + unknown) >= 0
    assert unknown < sum(every[key] for key in rare), "some have an ancestor"
    assert np.isclose((found.total() + unknown) / every.total(), 1, atol=0.05), "hardly a repetition"


# Ends ----------------------------------------------------------------------------------------------------------------


def test_ctrl_c_ends_a_cluster_of_its_own(tmp_path: Path) -> None:
    """A terminal sends it to all processes, and one of them says so."""
    command = [sys.executable, ROOT / "scripts" / GENERATE, "-n", "500000", "--shards", "500", "-o", "population"]
    run = subprocess.Popen(
        [*map(str, command), "--scheduler", "local", "--workers", "2"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for(lambda: any(tmp_path.glob(".population.generating/summaries/*.json")), run)
    os.killpg(run.pid, signal.SIGINT)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 130 and errors.startswith("Error: stopped by the keyboard") and errors.count("\n") == 1
    wait_for(lambda: is_gone(run.pid))
    assert any(tmp_path.glob(".population.generating/shards/part-*.parquet")), "the same command goes on with these"


def test_a_lost_scheduler_is_one_line(tmp_path: Path) -> None:
    from distributed import LocalCluster

    command = [sys.executable, ROOT / "scripts" / GENERATE, "-n", "500000", "--shards", "500", "-o", "population"]
    with LocalCluster(n_workers=1, dashboard_address="127.0.0.1:0", host="127.0.0.1", silence_logs=50) as lost:
        run = subprocess.Popen(
            [*map(str, command), "--scheduler", lost.scheduler_address],
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for(lambda: any(tmp_path.glob(".population.generating/summaries/*.json")), run)
    _, errors = run.communicate(timeout=90)
    assert run.returncode == 1 and "the connection is lost" in errors and errors.count("\n") == 1, errors
    assert any(tmp_path.glob(".population.generating/shards/part-*.parquet"))
