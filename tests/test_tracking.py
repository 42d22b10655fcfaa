"""MLflow's writer: a process that outlives the training by a moment."""

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import pytest
from conftest import ROOT, mlflow

from exmed_bert.console import OptionError
from exmed_bert.training import other_trackers
from exmed_bert.training.metrics_writer import MetricsWriter, TrackedDataset
from exmed_bert.training.other_trackers import tracker_callbacks
from exmed_bert.training.tracking import viewers

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="processes are forked")]


def write(
    database: Path, *messages: dict[str, object], experiment: str = "experiment"
) -> subprocess.CompletedProcess[str]:
    """Have the writer write messages, as a process of its own that need not import MLflow again."""
    from exmed_bert.training import mlflow_writer

    with tempfile.TemporaryFile("w+") as lines, tempfile.TemporaryFile("w+") as said:
        lines.write("".join(json.dumps(message) + "\n" for message in messages))
        lines.seek(0)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                sys.stdin, sys.stderr = lines, said
                artifacts = (database.parent / "artifacts").as_uri()
                mlflow_writer.main(str(database), artifacts, experiment, "name", "key")
                code = 0
            except SystemExit as end:
                print(end.code, file=sys.stderr)
            finally:
                sys.stderr.flush()
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said.seek(0)
        return subprocess.CompletedProcess([], code, "", said.read())


def test_a_killed_run_is_marked_and_goes_on_as_the_same_run(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    database = tmp_path / "mlruns.db"
    told = TrackedDataset("d_train.pt", "ab" * 20, "in/d_train.pt", {"patients": "<11"}, "training")
    described = {"tags": {"exmed_bert.step": "pretraining"}, "datasets": [asdict(told)]}
    tensor = {"name": "input_ids", "type": "tensor", "dtype": "int64", "shape": [-1, -1]}
    model = {"name": "a.model", "folder": "/in/a.model", "signature": json.dumps({"inputs": [tensor], "outputs": []})}
    first = described, {"metrics": [["loss", 3.0, 1000, 1]]}, {"metrics": [["loss", 2.0, 2000, 2]]}, {"model": model}
    assert write(database, {"parameters": {"lr": "0.1"}}, *first).returncode == 0
    client = MlflowClient(tracking_uri=f"sqlite:///{database}")
    (run,) = client.search_runs(["1"])
    assert run.info.status == "KILLED"

    again = {"parameters": {"lr": "0.2", "epochs": "3"}}, {"metrics": [["loss", float("nan"), 3000, 3]]}
    assert write(database, described, *again, {"model": model}, {"status": "FINISHED"}).returncode == 0
    (run,) = client.search_runs(["1"])
    assert run.info.status == "FINISHED"
    assert run.data.params == {"lr": "0.1", "epochs": "3"}, "what was recorded first stays"
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "loss")] == [1, 2, 3]

    (data,), (found,) = run.inputs.dataset_inputs, client.search_logged_models(["1"])  # each once
    assert run.info.run_name == "name" and run.data.tags["exmed_bert.step"] == "pretraining"
    assert (data.dataset.name, data.dataset.digest, data.tags[0].value) == ("d_train.pt", "ab" * 18, "training")
    assert found.name == "a_model" and found.source_run_id == run.info.run_id and found.status == "READY"
    assert json.loads(found.tags["exmed_bert.signature"])["inputs"] == [tensor]
    assert not list((tmp_path / "artifacts").rglob("*")), "what is recorded of a model is where it lies"


def test_other_trackers_are_transformers_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.integrations import integration_utils

    assert tracker_callbacks("none") == []
    with pytest.raises(OptionError, match=r"--report-to: 'board', expected clearml, comet_ml, .* or none"):
        tracker_callbacks("board")
    monkeypatch.setattr(other_trackers, "find_spec", lambda name: None)
    with pytest.raises(OptionError, match=r"wandb is not installed; install it with: python -m pip install wandb"):
        tracker_callbacks("wandb")
    monkeypatch.setattr(other_trackers, "find_spec", lambda name: name)
    assert tracker_callbacks("wandb, trackio") == [integration_utils.WandbCallback, integration_utils.TrackioCallback]


def metrics_of(database: Path) -> list[float]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{database}")
    (run,) = client.search_runs(["1"])
    return [metric.value for metric in client.get_metric_history(run.info.run_id, "loss")]


@pytest.mark.parametrize("damage", ["no database", "half made", "garbled"])
def test_a_database_that_cannot_be_opened_is_archived(damage: str, tmp_path: Path, whole_database: Path) -> None:
    database = tmp_path / "mlruns.db"
    if damage == "no database":
        database.write_text("this is no database " * 100)
    elif damage == "half made":
        with contextlib.closing(sqlite3.connect(database)) as opened:
            opened.execute("CREATE TABLE model_versions (name VARCHAR(256))")
    else:
        whole = whole_database.read_bytes()
        database.write_bytes(whole[:8192] + b"garbled" * 2000 + whole[8192 + 14000 :])
    before = database.read_bytes()

    done = write(database, {"metrics": [["loss", 3.0, 1000, 1]]}, {"status": "FINISHED"})
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"Warning: {database}: cannot be opened and is archived as mlruns.db.20"), line
    assert metrics_of(database) == [3.0]
    (archive,) = tmp_path.glob("mlruns.db.*")
    assert archive.read_bytes() == before or damage == "half made"
    assert not list(tmp_path.glob(".*"))


@pytest.fixture(scope="module")
def whole_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    database = tmp_path_factory.mktemp("whole # 100%25?") / "mlruns.db"  # characters that mean something in addresses
    done = write(database, {"metrics": [["loss", 2.0, 1000, 1]]}, {"status": "FINISHED"})
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert [path.name for path in database.parent.iterdir()] == ["mlruns.db"]
    return database


def test_a_database_that_is_in_use_is_not_archived(whole_database: Path, tmp_path: Path) -> None:
    database = Path(shutil.copy(whole_database, tmp_path))
    with contextlib.closing(sqlite3.connect(database)) as other:
        other.execute("BEGIN EXCLUSIVE")
        done = write(database, {"status": "FINISHED"})
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == "database is locked"
    assert [path.name for path in tmp_path.iterdir()] == ["mlruns.db"]


def test_what_cannot_be_written_is_a_warning_and_the_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mlruns.db").mkdir()
    (tmp_path / "logs").write_text("no folder")
    with mlflow(), MetricsWriter(tmp_path, "name", "key", 0) as writer:
        for step in range(3):
            writer.add({"loss": 1.0}, step)
            writer.flush()
    board, database = capsys.readouterr().err.splitlines()
    goes_on = "cannot be written, and the run goes on without: "
    assert board.startswith(f"Warning: TensorBoard's logs in {tmp_path / 'logs'} {goes_on}")
    assert database.startswith(f"Warning: MLflow's database {tmp_path / 'mlruns.db'} {goes_on}")


def test_the_runs_page_is_that_of_the_experiment(tmp_path: Path) -> None:
    database = tmp_path / "some runs" / "mlruns.db"
    database.parent.mkdir()
    assert viewers(database.parent, "experiment")[2][1].endswith("/#/experiments/1/runs"), "before there is a database"
    for experiment, number in (("other", 1), ("experiment", 2)):
        assert write(database, {"status": "FINISHED"}, experiment=experiment).returncode == 0
        assert viewers(database.parent, experiment)[2][1].endswith(f"/#/experiments/{number}/runs")
    (_, board), (_, server), _ = viewers(database.parent, "experiment")
    assert board == f'tensorboard --logdir "{database.parent / "logs"}"'
    assert server.endswith(f' mlflow ui --backend-store-uri "sqlite:///{database.as_posix()}"')
    assert "MLFLOW_DISABLE_TELEMETRY=true" in server


def test_the_writer_needs_no_search_path_and_adds_no_folder_to_it(tmp_path: Path) -> None:
    """It finds this package; an empty part of PYTHONPATH would let it import what lies in the current folder."""
    (tmp_path / "mlflow.py").write_text("raise SystemExit('imported from the current folder')")
    code = "from pathlib import Path; from exmed_bert.training.metrics_writer import MetricsWriter\n"
    code += "with MetricsWriter(Path('data'), 'name', 'key', 0) as writer: writer.add({'loss': 1.0}, 1)"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", f"import sys; sys.path.remove(''); sys.path.insert(0, {str(ROOT)!r}); {code}"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
