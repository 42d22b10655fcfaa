"""Measure what our own optimizer and MLflow's own process save, each against what a Trainer does without them.

    python benchmarks/step_parts.py
    python benchmarks/step_parts.py --rounds 9

Both are the demonstration's model and patients, through the real Trainer, in pairs that follow each other: ours, then
the plain one.

- Optimizer: ``FusedAdamW`` against ``torch.optim.AdamW(fused=True)`` and ``clip_grad_norm_``. The median of a run's
  steps, without those of the first epoch.
- MLflow: the process that tracking starts against the same calls of ``MlflowClient`` from the training's process. The
  seconds of a whole run with its twenty evaluations, in a process of its own, since MLflow's import belongs to it.

Where other processes take part, the seconds on the processor say more than those on the clock.

What saves less than a twentieth is not worth its code.
The patients are the bounded ones, so that figures compare with earlier ones.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, Measurement, at_least_one, load_average, report
from runs import DEMO, make_datasets, pretrain, save

PATIENTS, MAX_LENGTH = 1000, 50
EPOCHS = {"optimizer": 3, "mlflow": 10}  # of a run
UNITS = {"optimizer": "ms per step", "mlflow": "s"}
EVALUATIONS = 20
WORTH = 5.0  # %


def use_torchs_optimizer() -> None:
    """Have the trainer take torch's AdamW and clip with torch's function."""
    import torch

    from exmed_bert.training import trainer

    class Plain(torch.optim.AdamW):
        def __init__(self, params: Any, **options: Any) -> None:
            super().__init__(params, fused=True, **options)

        def clip(self, max_norm: float) -> torch.Tensor:
            parameters = [parameter for group in self.param_groups for parameter in group["params"]]
            return torch.nn.utils.clip_grad_norm_(parameters, max_norm)

    trainer.FusedAdamW = Plain  # type: ignore[assignment,misc]


def use_mlflow_in_this_process() -> None:
    """Have tracking write to MLflow's database by itself, where it would start a process."""
    from exmed_bert.training import metrics_writer

    class Writer:
        """Stands in for the process: what is written to it is recorded at once."""

        returncode = 0

        def __init__(self, command: list[str], **__: Any) -> None:
            from exmed_bert.training import mlflow_writer

            *_, database, artifacts, experiment, name, key = command
            self._client = mlflow_writer.open_database(Path(database), artifacts)
            self._run = mlflow_writer.open_run(self._client, artifacts, experiment, name, key)
            self._write = mlflow_writer.write
            self.stdin = self

        def write(self, line: str) -> None:
            message = json.loads(line)
            self._write(self._client, self._run, message)
            if "status" in message:
                self._client.set_terminated(self._run, status=message["status"])

        def flush(self) -> None:
            pass

        def communicate(self, timeout: float | None = None) -> None:
            pass

    metrics_writer.subprocess = types.SimpleNamespace(  # type: ignore[assignment]
        Popen=Writer, PIPE=subprocess.PIPE, TimeoutExpired=subprocess.TimeoutExpired
    )


def now() -> np.ndarray:
    """Return the seconds on the clock, and those of this process on a processor."""
    return np.array([time.perf_counter(), time.process_time()])


def run_once(part: str, plain: bool, folder: Path) -> np.ndarray:
    """Pretrain in this process; return ms per step, or seconds of the run: on the clock, and on a processor."""
    from transformers import TrainerCallback, trainer

    from exmed_bert.data.dataset import PatientDataset

    paths = {"training_data": folder / "train.pt", "validation_data": folder / "val.pt"}
    epochs = EPOCHS[part]
    ends: list[np.ndarray] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(now())

    trainer.DEFAULT_CALLBACKS.append(Clock)
    if plain:
        {"optimizer": use_torchs_optimizer, "mlflow": use_mlflow_in_this_process}[part]()
    steps = epochs * -(-len(PatientDataset.load(paths["training_data"])) // DEMO.batch)
    often = {"eval_steps": steps // EVALUATIONS, "save_steps": steps // EVALUATIONS} if part == "mlflow" else {}
    start = now()
    with tempfile.TemporaryDirectory() as output:
        pretrain(DEMO, Path(output), **paths, epochs=epochs, **often)
    if part == "mlflow":
        return now() - start
    return 1000 * np.median(np.diff(ends[steps // epochs :], axis=0), axis=0)


def in_a_process(part: str, plain: bool, folder: Path) -> list[float]:
    """Return what `run_once` returns, from a process of its own."""
    command = [sys.executable, __file__, "--part", part, "--folder", str(folder), *(["--plain"] if plain else [])]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return [float(seconds) for seconds in done.stdout.split()[-2:]]


def figures_of(part: str, names: tuple[str, str], rounds: int, folder: Path) -> list[Measurement]:
    """Measure pairs of runs; what a pair saves is a share of the plain run's seconds."""
    pairs = []
    for i in range(rounds):
        order = (False, True) if i % 2 == 0 else (True, False)
        found = {plain: in_a_process(part, plain, folder) for plain in order}
        pairs.append((found[False], found[True]))
        print(f"  {part}, pair {i + 1}: {found[False][0]:.3f}, {found[True][0]:.3f} {UNITS[part]}", flush=True)
    clock, processor = ([100 * (1 - ours[i] / plain[i]) for ours, plain in pairs] for i in range(2))
    return [
        *(Measurement(f"{part}: {name}", [pair[i][0] for pair in pairs], UNITS[part]) for i, name in enumerate(names)),
        Measurement(f"{part}: saved", clock, "% of the time", at_least=WORTH),
        Measurement(f"{part}: saved on the training's processor", processor, "% of the time"),
    ]


def main() -> None:
    """Measure both, or do the one run that a process of its own is for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=at_least_one, default=7, help="pairs of each [default: 7]")
    parser.add_argument("--part", choices=EPOCHS, help=argparse.SUPPRESS)
    parser.add_argument("--plain", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        print(*run_once(given.part, given.plain, given.folder))
        return
    load = load_average()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save(folder, *make_datasets(folder, PATIENTS, MAX_LENGTH))
        figures = figures_of("optimizer", ("FusedAdamW", "torch's AdamW and clipping"), given.rounds, folder)
        figures += figures_of("mlflow", ("a process of its own", "from the training's process"), given.rounds, folder)
    report("step_parts", argparse.Namespace(rounds=given.rounds), load, figures)


if __name__ == "__main__":
    main()
