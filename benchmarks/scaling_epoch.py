"""The part of `scaling` that trains: an epoch and its memory against patients, length and vocabulary.

Each figure is the second of three epochs with the demonstration's model, in batches of 16, through the real pipeline,
in a process of its own. Peak memory is that of the process: some 500 MiB of libraries, then data and model.
"""

import multiprocessing
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from common import Measurement
from runs import DEMO, Model, make_datasets, pretrain, save, with_vocabulary

BASE = {"patients": 2000, "max_length": 128, "vocabulary": None}
VARIED = {"patients": (500, 2000, 8000), "max_length": (32, 128, 512), "vocabulary": (None, 3000, 30_000)}


def epoch(paths: dict[str, Path]) -> tuple[float, float]:
    """Return the seconds of the second epoch and the peak memory of this process in MiB."""
    from transformers import TrainerCallback, trainer

    times = []

    class Clock(TrainerCallback):
        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            times.append(time.perf_counter())

    trainer.DEFAULT_CALLBACKS.append(Clock)
    with tempfile.TemporaryDirectory() as folder:
        pretrain(Model(**(vars(DEMO) | {"batch": 16})), Path(folder), **paths, epochs=3, eval_max_patients=1)
    return times[1] - times[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(folder: Path, repeats: int, patients: int, max_length: int, vocabulary: int | None) -> list[Measurement]:
    """Measure one point, each repetition in a new process."""
    train, val = make_datasets(folder, round(patients / 0.75), max_length)
    train, val = train.subset(range(min(patients, len(train)))), val.subset(range(20))
    if vocabulary:
        train, val = (with_vocabulary(dataset, vocabulary) for dataset in (train, val))
    paths = save(folder, train, val)
    samples = []
    for _ in range(repeats):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            samples.append(process.submit(epoch, paths).result())
    seconds, peaks = zip(*samples, strict=True)
    tokens = int(train.lengths.sum())
    name = f"{len(train):,} patients, length {max_length}, {len(train.info.vocabulary):,} codes"
    return [
        Measurement(f"{name}: epoch", seconds, "s"),
        Measurement(f"{name}: a token", [second / tokens * 1e6 for second in seconds], "µs"),
        Measurement(f"{name}: peak memory", peaks, "MiB"),
    ]


def figures_of_epochs(folder: Path, repeats: int) -> list[Measurement]:
    """Vary one thing at a time."""
    figures, done = [], []
    for what, values in VARIED.items():
        for value in values:
            point = BASE | {what: value}
            if point not in done:
                done.append(point)
                figures += measure(folder, repeats, **point)
    return figures
