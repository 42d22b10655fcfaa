"""Where a run reports: log file, terminal, TensorBoard and MLflow.

Metrics are kept in memory and written in batches, at every evaluation and at the end: a write to MLflow's database
costs as much as several training steps.
"""

import logging
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers import logging as transformers_logging

from exmed_bert import console

LOGGER = logging.getLogger("exmed_bert")
_EXPERIMENT = "exmed-bert-pretraining"


def open_log(path: Path) -> None:
    """Send the log, ours and transformers', to a file; an earlier part of the same run stays in front."""
    transformers_logging.disable_default_handler()  # its lines go to the file alone
    handler = logging.FileHandler(path, mode="a", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name in ("exmed_bert", "transformers"):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False


def announce(message: str) -> None:
    """Say a line on the terminal and in the log."""
    console.say(message)
    LOGGER.info(message)


class MetricsWriter:
    """Collects metrics and writes them to TensorBoard and MLflow; a ``with`` block ends the MLflow run."""

    def __init__(self, data_dir: Path, run_name: str, mlflow_run: str | None, first_step: int) -> None:
        """Open both.

        Args:
            data_dir: folder of ``logs/`` and ``mlruns.db``.
            run_name: how MLflow shows the run.
            mlflow_run: id of the run to go on with; None starts one.
            first_step: steps from here on that an earlier, killed process logged are dropped from TensorBoard.
        """
        from mlflow import MlflowClient
        from torch.utils.tensorboard import SummaryWriter

        for name in ("mlflow", "alembic"):  # after the import, which sets its own levels
            logging.getLogger(name).setLevel(logging.WARNING)

        self._board = SummaryWriter(str(data_dir / "logs"), purge_step=first_step or None)
        self._client = MlflowClient(tracking_uri=f"sqlite:///{(data_dir / 'mlruns.db').resolve().as_posix()}")
        self.mlflow_run = mlflow_run or self._start_run(data_dir, run_name)
        self._client.update_run(self.mlflow_run, status="RUNNING")
        self._waiting: list[tuple[str, float, int, int]] = []

    def _start_run(self, data_dir: Path, run_name: str) -> str:
        found = self._client.get_experiment_by_name(_EXPERIMENT)
        if found is None:
            artifacts = (data_dir / "mlartifacts").resolve().as_uri()
            experiment = self._client.create_experiment(_EXPERIMENT, artifact_location=artifacts)
        else:
            experiment = found.experiment_id
        return self._client.create_run(experiment, run_name=run_name).info.run_id

    def parameters(self, values: dict[str, Any]) -> None:
        """Record the run's settings in MLflow. A prolonged run keeps what it recorded first."""
        from mlflow.entities import Param

        known = self._client.get_run(self.mlflow_run).data.params
        new = [Param(name, str(value)) for name, value in values.items() if name not in known]
        self._client.log_batch(self.mlflow_run, params=new)

    def add(self, metrics: dict[str, float], step: int) -> None:
        """Take metrics of a step; numbers only."""
        now = int(time.time() * 1000)
        for name, value in metrics.items():
            if isinstance(value, int | float):
                self._waiting.append((name, float(value), now, step))
                self._board.add_scalar(name, value, step)

    def flush(self) -> None:
        """Write what is waiting."""
        from mlflow.entities import Metric

        waiting, self._waiting = self._waiting, []
        for start in range(0, len(waiting), 1000):  # MLflow takes at most 1,000 metrics a call
            metrics = [
                Metric(name, value, timestamp, step) for name, value, timestamp, step in waiting[start : start + 1000]
            ]
            self._client.log_batch(self.mlflow_run, metrics=metrics)
        self._board.flush()

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        """Write the rest and end the MLflow run as FINISHED, KILLED (by Ctrl-C) or FAILED."""
        self.flush()
        self._board.close()
        status = "FINISHED" if kind is None else "KILLED" if issubclass(kind, KeyboardInterrupt) else "FAILED"
        self._client.set_terminated(self.mlflow_run, status=status)


class ReportCallback(TrainerCallback):
    """Passes the Trainer's metrics on, and shows progress on the terminal and in the log."""

    def __init__(self, writer: MetricsWriter) -> None:
        self._writer = writer
        self._bar: Any = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the progress bar."""
        self._bar = console.progress(total=state.max_steps, label="Pretraining", unit=" steps")
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
        self._writer.add(named, state.global_step)
        if not evaluated:
            if "loss" in logs:
                self._bar.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)
            LOGGER.info("step %d: %s", state.global_step, ", ".join(f"{k} {v:.6g}" for k, v in logs.items()))
            return
        self._writer.flush()
        line = (
            f"step {state.global_step:,} of {state.max_steps:,} (epoch {state.epoch:.1f}): "
            f"validation loss {logs['eval_loss']:.3f}, accuracy top 1 {logs.get('eval_accuracy_top1', 0.0):.3f}, "
            f"top 10 {logs.get('eval_accuracy_top10', 0.0):.3f}"
        )
        LOGGER.info(line)
        self._bar.clear()
        console.say(line)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the progress bar."""
        self._bar.close()
