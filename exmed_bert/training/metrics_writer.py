"""Sends a run's metrics to TensorBoard and MLflow; what fails there is given up with a warning, and the run goes on."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from exmed_bert import console
from exmed_bert.config import PACKAGE

PRETRAINING, FINETUNING = "exmed-bert-pretraining", "exmed-bert-finetuning"  # MLflow's experiments
DATABASE, BOARD = "mlruns.db", "logs"  # MLflow's and TensorBoard's, in a run's folder of metrics

Signature = dict[str, list[dict[str, Any]]]
"""Names, kinds and shapes of what a model takes and gives, as MLflow has them."""

# The process that writes to MLflow. -P: it imports nothing from the current folder.
WRITER = [sys.executable, "-P", "-m", "exmed_bert.training.mlflow_writer"]
# The terminal's Ctrl-C does not reach it: that is for the training, which then tells how the run ended.
_APART: dict[str, Any] = {"process_group": 0}
if sys.platform == "win32":
    _APART = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
_END_SECONDS = 120  # in which MLflow has written what was sent


@dataclass(frozen=True)
class TrackedDataset:
    """What MLflow is told of a dataset: its name, the digest of its content, where it lies, facts, what it is for."""

    name: str
    digest: str
    source: str
    profile: Mapping[str, Any]
    context: str


def grouped(name: str) -> str:
    """Return a metric's name with the slash by which TensorBoard groups.

    >>> grouped("eval_accuracy_top1"), grouped("train_loss"), grouped("scratch-7/eval_loss")
    ('eval/accuracy_top1', 'train/loss', 'scratch-7/eval/loss')
    """
    return re.sub(r"(^|/)(eval|train)_", r"\1\2/", name)


def signature_of(inputs: Mapping[str, Any], outputs: Mapping[str, Sequence[int]]) -> Signature:
    """Return a model's signature in MLflow's form.

    Args:
        inputs: tensors of a batch by name; labels among them are no inputs.
        outputs: shapes by name, -1 where a batch decides.
    """
    tensors = [
        {"name": name, "type": "tensor", "dtype": str(tensor.dtype).removeprefix("torch."), "shape": [-1, *more]}
        for name, tensor in inputs.items()
        if "label" not in name
        for more in [[-1 if size > 1 else size for size in tensor.shape[1:]]]
    ]
    found = [{"name": name, "type": "tensor", "dtype": "float32", "shape": list(s)} for name, s in outputs.items()]
    return {"inputs": tensors, "outputs": found}


class MetricsWriter:
    """Collects metrics and sends them to TensorBoard and MLflow; a ``with`` block ends the MLflow run.

    Neither keeps a run from its end: a full disk or a damaged database is a warning.
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

        database, artifacts = (data_dir / DATABASE).resolve(), (data_dir / "mlartifacts").resolve()
        arguments = [database.as_posix(), artifacts.as_uri(), experiment, run_name, key]
        self._board = _Guarded(
            f"TensorBoard's logs in {data_dir / BOARD}",
            lambda: SummaryWriter(str(data_dir / BOARD), purge_step=first_step or None),
        )
        self._mlflow = _Guarded(f"MLflow's database {data_dir / DATABASE}", lambda: _MLflow(arguments))
        self._waiting: list[tuple[str, float, int, int]] = []

    def describe(self, tags: Mapping[str, str], datasets: Sequence[TrackedDataset]) -> None:
        """Record in MLflow what tells a run from others, and what it is trained on."""
        named = {f"exmed_bert.{name}": value for name, value in tags.items()}
        self._send({"tags": named, "datasets": [asdict(dataset) for dataset in datasets]})

    def model(self, folder: Path, signature: Signature) -> None:
        """Record in MLflow the model that a run has written, by its folder; nothing is copied."""
        place = folder.resolve().as_posix()
        self._send({"model": {"name": folder.name, "folder": place, "signature": json.dumps(signature)}})

    def parameters(self, values: dict[str, Any]) -> None:
        """Record the run's settings in MLflow."""
        self._send({"parameters": {name: str(value) for name, value in values.items()}})

    def add(self, metrics: dict[str, float], step: int) -> None:
        """Take metrics of a step; numbers only."""
        now = int(time.time() * 1000)
        numbers = {name: float(value) for name, value in metrics.items() if isinstance(value, int | float)}
        self._waiting.extend((name, value, now, step) for name, value in numbers.items())

        def show(board: Any) -> None:
            for name, value in numbers.items():
                board.add_scalar(grouped(name), value, step)

        self._board.do(show)

    def flush(self) -> None:
        """Send what is waiting."""
        waiting, self._waiting = self._waiting, []
        self._send({"metrics": waiting})
        self._board.do(lambda board: board.flush())

    def _send(self, message: dict[str, Any]) -> None:
        self._mlflow.do(lambda mlflow: mlflow.send(message))

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        """Send the rest and end the MLflow run as FINISHED, KILLED (by Ctrl-C) or FAILED."""
        self.flush()
        self._board.do(lambda board: board.close())
        status = "FINISHED" if kind is None else "KILLED" if issubclass(kind, KeyboardInterrupt) else "FAILED"
        self._send({"status": status})
        self._mlflow.do(lambda mlflow: mlflow.close())


class _Guarded:
    """Something that a run can do without: its first failure is a warning, after which it is no longer used."""

    def __init__(self, name: str, make: Callable[[], Any]) -> None:
        self._name = name
        self._made: Any = None
        self.do(lambda _: setattr(self, "_made", make()), first=True)

    def do(self, work: Callable[[Any], object], first: bool = False) -> None:
        if self._made is None and not first:
            return
        try:
            work(self._made)
        except Exception as error:  # whatever a library makes of a full disk or of damaged files
            self._made = None
            reason = str(error).strip().splitlines()
            console.warn(
                f"{self._name} cannot be written, and the run goes on without: {reason[0][:300] if reason else error!r}"
            )


class _MLflow:
    """`mlflow_writer`, a process of its own: MLflow's import, database and writes would take seconds from training."""

    def __init__(self, arguments: list[str]) -> None:
        search_path = str(PACKAGE.parent), os.environ.get("PYTHONPATH")  # an empty part would be the current folder
        self._problems = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115  # closed with the writer
        self._process = subprocess.Popen(
            [*WRITER, *arguments],
            stdin=subprocess.PIPE,
            stderr=self._problems,  # a pipe that nobody reads would fill up
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, search_path))},
            text=True,
            encoding="utf-8",
            **_APART,
        )

    def send(self, message: dict[str, Any]) -> None:
        """Send a line.

        Raises:
            OSError: the writer has ended before.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except OSError:  # the writer has ended: it says why
            self.close()
            raise

    def close(self) -> None:
        """Wait until MLflow has everything, and pass its warnings on.

        Raises:
            OSError: it could not be written.
        """
        try:
            self._process.communicate(timeout=_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise OSError(f"MLflow has not written it within {_END_SECONDS} seconds") from None
        with self._problems:
            self._problems.seek(0)
            lines = self._problems.read().strip().splitlines()
        for line in lines:
            if line.startswith("Warning: "):
                console.warn(line.removeprefix("Warning: "))
        if self._process.returncode:
            raise OSError(lines[-1] if lines else f"its writer ended with exit code {self._process.returncode}")
