"""Where a run reports: log file, terminal, and the callback that passes metrics on, at every evaluation and the end."""

import contextlib
import logging
import os
import re
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers import logging as transformers_logging

from exmed_bert import console
from exmed_bert.training.metrics_writer import BOARD, DATABASE, MetricsWriter

LOGGER = logging.getLogger("exmed_bert")


def open_log(path: Path) -> None:
    """Send the log, ours and transformers', to a file; an earlier part of the same run stays in front.

    A log that cannot be written is a warning.
    """
    transformers_logging.disable_default_handler()  # its lines go to the file alone
    handler: logging.Handler
    try:
        handler = _LogFile(path, mode="a", encoding="utf-8")
    except OSError as error:
        console.warn(f"{path}: cannot be written, and the run goes on without: {error.strerror or error}")
        handler = logging.NullHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name in ("exmed_bert", "transformers"):
        logger = logging.getLogger(name)
        for earlier in [known for known in logger.handlers if isinstance(known, logging.FileHandler)]:
            logger.removeHandler(earlier)  # of another run in this process
            earlier.close()
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False


class _LogFile(logging.FileHandler):
    """Gives up with one warning where a line cannot be written, as on a full disk."""

    _failed = False

    def emit(self, record: logging.LogRecord) -> None:
        if not self._failed:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        self._failed = True
        console.warn(f"{self.baseFilename}: cannot be written, and the run goes on without: {sys.exc_info()[1]}")


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
    database = data_dir / DATABASE
    # MLflow's server sends usage data, unless it is told not to.
    offline = "set MLFLOW_DISABLE_TELEMETRY=true&&" if os.name == "nt" else "MLFLOW_DISABLE_TELEMETRY=true"
    mlflow = f"{offline} mlflow ui --backend-store-uri"
    if any(sign in database.as_posix() for sign in "%?#"):  # signs of a URI
        mlflow = f"cd {_quoted(str(data_dir))} && {mlflow} sqlite:///{database.name}"
    else:
        mlflow = f"{mlflow} {_quoted(f'sqlite:///{database.as_posix()}')}"
    return [
        ("TensorBoard", f"tensorboard --logdir {_quoted(str(data_dir / BOARD))}"),
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
