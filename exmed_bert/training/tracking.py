"""Where a run reports: log file, terminal, TensorBoard and MLflow.

Metrics are kept in memory and written in batches, at every evaluation and at the end.
"""

import contextlib
import json
import logging
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers import logging as transformers_logging

from exmed_bert import console
from exmed_bert.config import PACKAGE

LOGGER = logging.getLogger("exmed_bert")
PRETRAINING, FINETUNING = "exmed-bert-pretraining", "exmed-bert-finetuning"  # MLflow's experiments


# The process that writes to MLflow. -P: it imports nothing from the current folder.
WRITER = [sys.executable, "-P", "-m", "exmed_bert.training.mlflow_writer"]
# The terminal's Ctrl-C does not reach it: that is for the training, which then tells how the run ended.
_APART: dict[str, Any] = {"process_group": 0}
if sys.platform == "win32":
    _APART = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}


def open_log(path: Path) -> None:
    """Send the log, ours and transformers', to a file; an earlier part of the same run stays in front."""
    transformers_logging.disable_default_handler()  # its lines go to the file alone
    handler = logging.FileHandler(path, mode="a", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name in ("exmed_bert", "transformers"):
        logger = logging.getLogger(name)
        for earlier in [known for known in logger.handlers if isinstance(known, logging.FileHandler)]:
            logger.removeHandler(earlier)  # of another run in this process
            earlier.close()
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False


def log(message: str) -> None:
    """Say a line on the terminal and in the log."""
    console.echo(message)
    LOGGER.info(message)


def viewers(data_dir: Path, experiment: str) -> list[tuple[str, str]]:
    """Return the commands that show a run's curves and compare it with others, as rows of a table.

    Args:
        data_dir: folder of ``logs/`` and ``mlruns.db``.
        experiment: MLflow's.
    """
    database = data_dir / "mlruns.db"
    # MLflow's server sends usage data, unless it is told not to.
    offline = "set MLFLOW_DISABLE_TELEMETRY=true&&" if os.name == "nt" else "MLFLOW_DISABLE_TELEMETRY=true"
    mlflow = f"{offline} mlflow ui --backend-store-uri"
    if any(sign in database.as_posix() for sign in "%?#"):  # signs of a URI
        mlflow = f"cd {_quoted(str(data_dir))} && {mlflow} sqlite:///{database.name}"
    else:
        mlflow = f"{mlflow} {_quoted(f'sqlite:///{database.as_posix()}')}"
    return [
        ("TensorBoard", f"tensorboard --logdir {_quoted(str(data_dir / 'logs'))}"),
        ("MLflow", mlflow),
        ("  its runs", f"http://127.0.0.1:5000/#/experiments/{_experiment_id(database, experiment)}/runs"),
    ]


def _quoted(word: str) -> str:
    return f'"{word}"' if re.search(r"[\s?#&;()*]", word) else word


def _experiment_id(database: Path, experiment: str) -> int:
    """Return the number that MLflow gave an experiment; the first one's where it cannot be read."""
    try:
        with contextlib.closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as opened:
            row = opened.execute("SELECT experiment_id FROM experiments WHERE name = ?", (experiment,)).fetchone()
    except sqlite3.Error:
        row = None
    return int(row[0]) if row else 1


class MetricsWriter:
    """Collects metrics and sends them to TensorBoard and MLflow; a ``with`` block ends the MLflow run.

    MLflow is written by `mlflow_writer`, a process of its own: its import, its database and its writes would take
    seconds from the training.
    """

    def __init__(self, data_dir: Path, run_name: str, key: str, first_step: int, experiment: str = PRETRAINING) -> None:
        """Open both.

        Args:
            data_dir: folder of ``logs/`` and ``mlruns.db``.
            run_name: how MLflow shows the run.
            key: what a run that goes on is found by in MLflow.
            first_step: steps from here on that an earlier, killed process logged are dropped from TensorBoard.
            experiment: MLflow's.
        """
        from torch.utils.tensorboard import SummaryWriter

        self._board = SummaryWriter(str(data_dir / "logs"), purge_step=first_step or None)
        database, artifacts = (data_dir / "mlruns.db").resolve(), (data_dir / "mlartifacts").resolve()
        search_path = str(PACKAGE.parent), os.environ.get("PYTHONPATH")  # an empty part would be the current folder
        self._problems = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115  # closed with the writer
        self._process = subprocess.Popen(
            [*WRITER, database.name, artifacts.as_uri(), experiment, run_name, key],
            cwd=database.parent,  # whose name may hold what a URI takes for a sign of its own, such as %20 and ?
            stdin=subprocess.PIPE,
            stderr=self._problems,  # a pipe that nobody reads would fill up
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, search_path))},
            text=True,
            encoding="utf-8",
            **_APART,
        )
        self._waiting: list[tuple[str, float, int, int]] = []

    def parameters(self, values: dict[str, Any]) -> None:
        """Record the run's settings in MLflow."""
        self._send({"parameters": {name: str(value) for name, value in values.items()}})

    def add(self, metrics: dict[str, float], step: int) -> None:
        """Take metrics of a step; numbers only."""
        now = int(time.time() * 1000)
        for name, value in metrics.items():
            if isinstance(value, int | float):
                self._waiting.append((name, float(value), now, step))
                self._board.add_scalar(name, value, step)

    def flush(self) -> None:
        """Send what is waiting."""
        waiting, self._waiting = self._waiting, []
        self._send({"metrics": waiting})
        self._board.flush()

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except OSError:  # the writer has ended: it says why
            self._close()

    def _close(self) -> None:
        """Wait until MLflow has everything.

        Raises:
            OSError: it could not be written.
        """
        self._process.communicate()
        if self._process.returncode:
            self._problems.seek(0)
            lines = self._problems.read().strip().splitlines() or [f"exit code {self._process.returncode}"]
            raise OSError(f"MLflow's database cannot be written: {lines[-1]}")

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        """Send the rest and end the MLflow run as FINISHED, KILLED (by Ctrl-C) or FAILED."""
        self._board.close()
        if self._process.poll() is not None and kind is not None:
            return  # the writer's own failure is on its way already
        self.flush()
        status = "FINISHED" if kind is None else "KILLED" if issubclass(kind, KeyboardInterrupt) else "FAILED"
        self._send({"status": status})
        self._close()


class ReportCallback(TrainerCallback):
    """Passes the Trainer's metrics on, and shows progress on the terminal and in the log."""

    def __init__(
        self, writer: MetricsWriter, label: str, describe: Callable[[dict[str, float]], str], prefix: str = ""
    ) -> None:
        """Set where and how to report.

        Args:
            writer: takes the metrics.
            label: of the progress bar.
            describe: an evaluation's metrics in a line.
            prefix: of the metrics' names, where one writer serves several runs.
        """
        self._writer = writer
        self._label = label
        self._describe = describe
        self._prefix = prefix
        self._bar: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the progress bar."""
        self._bar = console.progress(total=state.max_steps, label=self._label, unit=" steps")
        self._bar.update(state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move the progress bar."""
        self._bar.update(1)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Keep the metrics; say a line where an evaluation is among them."""
        logs = dict(logs or {})
        evaluated = any(name.startswith("eval_") for name in logs)
        named = {
            name if name.startswith(("eval_", "train_")) else f"train_{name}": value for name, value in logs.items()
        }
        self._writer.add({f"{self._prefix}{name}": value for name, value in named.items()}, state.global_step)
        if not evaluated:
            if "loss" in logs:
                self._bar.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)
            LOGGER.info("step %d: %s", state.global_step, ", ".join(f"{k} {v:.6g}" for k, v in logs.items()))
            return
        self._writer.flush()
        line = (
            f"step {state.global_step:,} of {state.max_steps:,} (epoch {state.epoch or 0:.1f}): {self._describe(logs)}"
        )
        LOGGER.info(line)
        self._bar.clear()
        console.echo(line)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the progress bar."""
        self._bar.close()
