"""Shared helpers: a few patients, written, converted and trained on in seconds."""

import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

# Nothing in the tests reaches for the network but what installs the tools of others; and small models are fastest on
# one thread, which numpy reads on import.
os.environ.update(HF_HUB_OFFLINE="1", MLFLOW_DISABLE_TELEMETRY="true", OMP_NUM_THREADS="1")

import numpy as np

from exmed_bert.data.patient import EventColumns, PatientColumns, PatientId
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.data.readers.base import CHUNK
from exmed_bert.startup import SCRIPTS
from exmed_bert.training import metrics_writer

WithSplits = Callable[[Callable[[PatientId], int]], None]

ROOT = Path(__file__).resolve().parent.parent


def record(patient_id: int | str = 0, **changes: Any) -> dict[str, Any]:
    """Return a valid patient record; keyword arguments replace fields."""
    return {
        "patient_id": patient_id,
        "birth_year": 1965,
        "sex": "FEMALE",
        "patient_state": "CA",
        "diagnoses": ["I10", "E11.9", "E11.95"],
        "diagnosis_dates": ["20220315", "20220315", "20231215"],
        "drugs": ["C10AA05", "A10BA02"],
        "prescription_dates": ["20220320", "20231215"],
        "had_plos": False,
    } | changes


def write_records(path: Path, records: list[Any]) -> Path:
    """Write records as the JSON list that step 2 reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(records))
    return path


def diagnoses_of(patients: PatientColumns) -> EventColumns:
    """Return the ICD-10-CM events of patients, their table holding the codes alone."""
    events = patients.events.of_system("icd10cm")
    return replace(events, table=[code for _, code in events.table])


def drugs_of(patients: PatientColumns) -> EventColumns:
    """Return the ATC events of patients, their table holding the codes alone."""
    events = patients.events.of_system("atc")
    return replace(events, table=[code for _, code in events.table])


# What stands in for the process that writes to MLflow, whose import and new database take three seconds per training.
_READER = [sys.executable, "-I", "-S", "-c", "import sys; sys.stdin.read()"]
_MLFLOW = metrics_writer.WRITER
WITHOUT_MLFLOW = str(ROOT / "tests" / "without_mlflow")  # in PYTHONPATH: the same for other processes


@pytest.fixture(scope="session", autouse=True)
def without_mlflow() -> Iterator[None]:
    """Let trainings of this process write to TensorBoard alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics_writer, "WRITER", _READER)
        yield


@contextmanager
def mlflow() -> Iterator[None]:
    """Let trainings of this process write to MLflow, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics_writer, "WRITER", _MLFLOW)
        yield


def run_script(name: str, *arguments: Any, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script of the project as a user would, but without MLflow, and return what it printed."""
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / name), *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": WITHOUT_MLFLOW} | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def run_here(name: str, *arguments: Any, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a script's command in this process, and return what it printed, as `run_script`.

    A process of its own takes seconds to import what this one has.
    """
    from typer.testing import CliRunner

    from exmed_bert.cli import script
    from exmed_bert.commands import COMMANDS

    words = list(map(str, arguments))
    (command,) = [command for command, file in SCRIPTS.items() if file == name]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd)
        done = CliRunner().invoke(script(COMMANDS[command]), words)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return subprocess.CompletedProcess([name, *words], done.exit_code, done.stdout, done.stderr)


def forked(action: Callable[[], object]) -> int:
    """Run an action in a copy of this process, which may be killed; return the exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            action()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run_forked(
    name: str, *arguments: Any, cwd: Path, before: Callable[[], object] = lambda: None
) -> subprocess.CompletedProcess[str]:
    """Run a script's command in a copy of this process, which may be killed; what it printed is lost then.

    Args:
        before: what the copy does first, such as to arrange that it is killed.
    """
    with tempfile.TemporaryFile("w+") as said:

        def run() -> None:
            before()
            done = run_here(name, *arguments, cwd=cwd)
            json.dump([done.stdout, done.stderr], said)
            said.flush()
            raise SystemExit(done.returncode)

        code = forked(run)
        said.seek(0)
        stdout, stderr = json.loads(said.read() or '["", ""]')
    return subprocess.CompletedProcess([name, *map(str, arguments)], code, stdout, stderr)


def assert_one_line_error(result: subprocess.CompletedProcess[str], code: int, *parts: str) -> None:
    """Assert that a program ended with one line on standard error that holds every part."""
    assert result.returncode == code, result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1 and "Traceback" not in result.stderr, result.stderr
    for part in parts:
        assert part in errors[0], (part, errors[0])


@pytest.fixture(autouse=True)
def on_test_device(request: pytest.FixtureRequest) -> Iterator[None]:
    """Put the models of their own tests on the device that EXMED_BERT_TEST_DEVICE names; benchmarks/gpu.sh does so."""
    device = os.environ.get("EXMED_BERT_TEST_DEVICE")
    if device is None or request.path.stem not in ("test_model", "test_optimizer"):
        yield
        return
    import torch

    with torch.device(device):
        yield


@pytest.fixture
def with_splits(monkeypatch: pytest.MonkeyPatch) -> WithSplits:
    """Function that lets every input put its patients into splits: a patient's id to `InputSplit`."""
    plain = PatientInput.raw_chunks

    def patch(split_of: Callable[[PatientId], int]) -> None:
        def chunks(source: PatientInput, size: int = CHUNK) -> Iterator[PatientColumns]:
            for patients in plain(source, size):
                yield replace(patients, splits=np.array([split_of(i) for i in patients.patient_ids], dtype=np.int8))

        monkeypatch.setattr(PatientInput, "raw_chunks", chunks)

    return patch


@pytest.fixture(scope="session")
def small_datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with ``small_train.pt`` and ``small_val.pt`` of 200 synthetic patients, at most 30 codes each."""
    folder = tmp_path_factory.mktemp("datasets")
    for script, arguments in (
        ("generate_synthetic_patients.py", ["-n", 200, "-p", 0.05, "-o", "patients.json"]),
        ("convert_synthetic_to_dataset.py", ["--input", "patients.json", "--output", "small.pt", "--max-length", 30]),
    ):
        result = run_here(script, *arguments, cwd=folder)
        assert result.returncode == 0, result.stderr
    return folder


def wait_for(condition: Callable[[], bool], run: subprocess.Popen[str] | None = None) -> None:
    """Wait until a condition holds; fail after a minute, or where the run that should bring it about has ended."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline and (run is None or run.poll() is None)
        time.sleep(0.02)


def is_gone(group: int) -> bool:
    """Tell whether no process of a group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False
