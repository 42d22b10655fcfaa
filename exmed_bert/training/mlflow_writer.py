"""The process that writes a run's parameters and metrics to MLflow's database, so that training never waits for it.

    python -m exmed_bert.training.mlflow_writer DATABASE ARTIFACTS EXPERIMENT RUN_NAME RUN_KEY

Reads a JSON object a line: ``{"parameters": {name: value}}``, ``{"metrics": [[name, value, milliseconds, step], ...]}``
and at last ``{"status": "FINISHED"}``. Where the input ends without a status, whoever sent it was killed, and so was
the run.
"""

import json
import logging
import os
import signal
import sys
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before the import: no network at run time

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

_KEY = "exmed_bert.run"  # tag that finds the MLflow run of a run folder
_AT_ONCE = 1000  # metrics that MLflow takes in a call


def open_run(client: MlflowClient, artifacts: str, experiment: str, name: str, key: str) -> str:
    """Return the id of the MLflow run with this key, made anew where there is none, and mark it as running."""
    known = client.get_experiment_by_name(experiment)
    number = known.experiment_id if known else client.create_experiment(experiment, artifact_location=artifacts)
    found = client.search_runs([number], f"tags.`{_KEY}` = '{key}'", max_results=1)
    run = found[0] if found else client.create_run(number, run_name=name, tags={_KEY: key})
    client.update_run(run.info.run_id, status="RUNNING")
    return run.info.run_id


def write(client: MlflowClient, run: str, message: dict[str, Any]) -> None:
    """Record a message. Parameters that a prolonged run recorded first stay as they were."""
    if "parameters" in message:
        known = client.get_run(run).data.params
        new = [Param(name, value) for name, value in message["parameters"].items() if name not in known]
        client.log_batch(run, params=new)
    metrics = [Metric(*fields) for fields in message.get("metrics", ())]
    for start in range(0, len(metrics), _AT_ONCE):
        client.log_batch(run, metrics=metrics[start : start + _AT_ONCE])


def main(database: str, artifacts: str, experiment: str, name: str, key: str) -> None:
    """Write what comes on standard input until it ends; a failure is one line on standard error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the training, which then sends its status
    for library in ("mlflow", "alembic"):
        logging.getLogger(library).setLevel(logging.WARNING)
    status = "KILLED"
    try:
        client = MlflowClient(tracking_uri=f"sqlite:///{database}")
        run = open_run(client, artifacts, experiment, name, key)
        for line in sys.stdin:
            message = json.loads(line)
            write(client, run, message)
            status = message.get("status", status)
        client.set_terminated(run, status=status)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        sys.exit(f"MLflow: {error}".splitlines()[0])


if __name__ == "__main__":
    main(*sys.argv[1:])
    os._exit(0)  # everything is committed, and taking the imports down takes a second, for which the training waits
