"""MLflow's writer: a process that outlives the training by a moment."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from exmed_bert.training.tracking import MetricsWriter, viewers

pytestmark = pytest.mark.slow


def write(
    database: Path, *messages: dict[str, object], experiment: str = "experiment"
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "exmed_bert.training.mlflow_writer", str(database)]
    command += [(database.parent / "artifacts").as_uri(), experiment, "name", "key"]
    lines = "".join(json.dumps(message) + "\n" for message in messages)
    return subprocess.run(command, input=lines, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


def test_a_killed_run_is_marked_and_goes_on_as_the_same_run(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    database = tmp_path / "mlruns.db"
    first = [["loss", 3.0, 1000, 1]], [["loss", 2.0, 2000, 2]]
    assert write(database, {"parameters": {"lr": "0.1"}}, *({"metrics": m} for m in first)).returncode == 0
    client = MlflowClient(tracking_uri=f"sqlite:///{database}")
    (run,) = client.search_runs(["1"])
    assert run.info.status == "KILLED"

    again = {"parameters": {"lr": "0.2", "epochs": "3"}}, {"metrics": [["loss", float("nan"), 3000, 3]]}
    assert write(database, *again, {"status": "FINISHED"}).returncode == 0
    (run,) = client.search_runs(["1"])
    assert run.info.status == "FINISHED"
    assert run.data.params == {"lr": "0.1", "epochs": "3"}, "what was recorded first stays"
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "loss")] == [1, 2, 3]


def test_a_database_that_cannot_be_written_stops_the_run_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "mlruns.db").write_text("this is no database " * 100)
    refused = pytest.raises(OSError, match=r"MLflow's database cannot be written: MLflow: .*not a database")
    with refused, MetricsWriter(tmp_path, "name", "key", 0) as writer:
        writer.add({"loss": 1.0}, 1)


def test_the_runs_page_is_that_of_the_experiment(tmp_path: Path) -> None:
    database = tmp_path / "some runs" / "mlruns.db"
    database.parent.mkdir()
    assert viewers(database.parent, "experiment")[2][1].endswith("/#/experiments/1/runs"), "before there is a database"
    for experiment, number in (("other", 1), ("experiment", 2)):
        assert write(database, {"status": "FINISHED"}, experiment=experiment).returncode == 0
        assert viewers(database.parent, experiment)[2][1].endswith(f"/#/experiments/{number}/runs")
    (_, board), (_, mlflow), _ = viewers(database.parent, "experiment")
    assert board == f'tensorboard --logdir "{database.parent / "logs"}"'
    assert mlflow.endswith(f' mlflow ui --backend-store-uri "sqlite:///{database.as_posix()}"')
    assert "MLFLOW_DISABLE_TELEMETRY=true" in mlflow


def test_the_writer_needs_no_search_path_and_adds_no_folder_to_it(tmp_path: Path) -> None:
    """It finds this package; an empty part of PYTHONPATH would let it import what lies in the current folder."""
    (tmp_path / "mlflow.py").write_text("raise SystemExit('imported from the current folder')")
    code = "from pathlib import Path; from exmed_bert.training.tracking import MetricsWriter\n"
    code += "with MetricsWriter(Path('data'), 'name', 'key', 0) as writer: writer.add({'loss': 1.0}, 1)"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", f"import sys; sys.path.remove(''); sys.path.insert(0, {str(ROOT)!r}); {code}"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
