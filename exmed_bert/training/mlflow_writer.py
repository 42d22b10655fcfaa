"""The process that writes a run's parameters and metrics to MLflow's database, so that training never waits for it.

    python -m exmed_bert.training.mlflow_writer DATABASE ARTIFACTS EXPERIMENT RUN_NAME RUN_KEY

Reads a JSON object a line: ``{"parameters": {name: value}}``, ``{"tags": {name: value}, "datasets": [...]}``,
``{"metrics": [[name, value, milliseconds, step], ...]}``, ``{"model": {...}}`` and at last ``{"status": "FINISHED"}``.
Where the input ends without a status, whoever sent it was killed, and so was the run.
"""

import json
import logging
import os
import re
import signal
import sqlite3
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before the import: no network at run time

from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModelOutput,
    LoggedModelStatus,
    Metric,
    Param,
    RunTag,
)
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT
from sqlalchemy.exc import SQLAlchemyError

from exmed_bert import console
from exmed_bert.console import InputError
from exmed_bert.staging import staged_files

_KEY = "exmed_bert.run"  # tag that finds the MLflow run of a run folder
_AT_ONCE = 1000  # metrics that MLflow takes in a call
_DIGEST = 36  # characters of a dataset's digest that MLflow keeps
_NOT_ITS_CONTENT = {  # SQLite's codes for what has nothing to do with what stands in a database
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
}


def open_database(database: Path, artifacts: str) -> MlflowClient:
    """Return a client of a database, made whole or not at all where there is none.

    One that cannot be used, such as one whose making was interrupted, is archived, and a new one takes its place.

    Raises:
        InputError, MlflowException, SQLAlchemyError, sqlite3.Error, OSError: it cannot be made or written.
    """
    os.chdir(database.parent)  # the name alone stands in addresses, where a path's ? or # would mean something else
    if database.exists():
        try:
            _check(database.name)
        except (MlflowException, SQLAlchemyError, sqlite3.Error) as error:
            if not _NOT_ITS_CONTENT.isdisjoint(_codes(error)):
                raise
            archive = database.with_name(f"{database.name}.{datetime.now():%Y%m%d-%H%M%S}")
            os.replace(database, archive)
            for suffix in ("-journal", "-wal", "-shm"):  # SQLite's own, which belong to it
                if (beside := Path(f"{database}{suffix}")).exists():
                    os.replace(beside, f"{archive}{suffix}")
            console.warn(f"{database}: cannot be opened and is archived as {archive.name}: {_line(error)}")
    if not database.exists():
        with staged_files(database.parent) as staged:
            made = staged.relative_to(database.parent) / database.name
            SqlAlchemyStore(f"sqlite:///{made.as_posix()}", artifacts).engine.dispose()
    return MlflowClient(tracking_uri=f"sqlite:///{database.name}")


def _check(name: str) -> None:
    """Raise an error where SQLite or MLflow cannot open a database of the current folder."""
    opened = sqlite3.connect(name)
    try:
        found = opened.execute("PRAGMA quick_check(1)").fetchone()[0]
    finally:
        opened.close()
    if found != "ok":
        raise sqlite3.DatabaseError(found)
    # Another spelling than that of the client, since MLflow keeps connections by it.
    SqlAlchemyStore(f"sqlite:///./{name}", "").engine.dispose()


def _codes(error: BaseException | None) -> Iterator[int]:
    """Yield SQLite's primary codes of an error and of those that it came from."""
    while error is not None:
        if isinstance(error, sqlite3.Error):
            yield getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        error = error.__cause__ or error.__context__


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


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
    if tags := message.get("tags"):
        client.log_batch(run, tags=[RunTag(name, value) for name, value in tags.items()])
    if datasets := message.get("datasets"):
        client.log_inputs(run, [_input(**dataset) for dataset in datasets])
    if "model" in message:
        _log_model(client, run, **message["model"])
    metrics = [Metric(*fields) for fields in message.get("metrics", ())]
    for start in range(0, len(metrics), _AT_ONCE):
        client.log_batch(run, metrics=metrics[start : start + _AT_ONCE])


def _input(name: str, digest: str, source: str, profile: dict[str, Any], context: str) -> DatasetInput:
    told = Dataset(name, digest[:_DIGEST], "local", json.dumps({"uri": source}), profile=json.dumps(profile))
    return DatasetInput(told, [InputTag(MLFLOW_DATASET_CONTEXT, context)])


def _log_model(client: MlflowClient, run: str, name: str, folder: str, signature: str) -> None:
    """Record a model by its folder: its weights stay there, since MLflow's files are shared with more people."""
    known = client.get_run(run)
    if known.outputs is not None and known.outputs.model_outputs:  # of an earlier end of a run that was prolonged
        return
    tags = {"exmed_bert.folder": folder, "exmed_bert.signature": signature}
    made = client.create_logged_model(known.info.experiment_id, re.sub(r"[/:.%\"']", "_", name), run, tags)
    client.finalize_logged_model(made.model_id, LoggedModelStatus.READY)
    client.log_outputs(run, [LoggedModelOutput(made.model_id, step=0)])


def main(database: str, artifacts: str, experiment: str, name: str, key: str) -> None:
    """Write what comes on standard input until it ends; a failure is one line on standard error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the training, which then sends its status
    for library in ("mlflow", "alembic"):
        logging.getLogger(library).setLevel(logging.WARNING)
    status = "KILLED"
    try:
        client = open_database(Path(database), artifacts)
        run = open_run(client, artifacts, experiment, name, key)
        for line in sys.stdin:
            message = json.loads(line)
            write(client, run, message)
            status = message.get("status", status)
        client.set_terminated(run, status=status)
    except (InputError, MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
        sys.exit(_line(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
    os._exit(0)  # everything is committed, and taking the imports down takes a second, for which the training waits
