"""Training for a long time: memory, open files and the database of the demonstration's pretraining, and their slopes.

    python benchmarks/soak.py
    python benchmarks/soak.py --minutes 15

Pretraining of the demonstration's sizes runs in a process of its own, epoch after epoch, with an evaluation and a
checkpoint every 100 steps, until it is stopped by Ctrl-C. It is looked at every second. The first fifth, in which it
starts, does not count. MLflow's database grows with what is written to it, so its growth is that of a metric.
The patients are the bounded ones, so that figures compare with earlier ones.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from sqlite3 import connect

import numpy as np
from common import Measurement, at_least_one, generate, load_average, report, run_quietly, script

PATIENTS = 1000
SIZES = ("--hidden-size", 64, "--num-hidden-layers", 2)
OFTEN = ("--eval-steps", 100, "--save-steps", 100, "--logging-steps", 10)
SECONDS = 1.0  # from one look to the next


def memory(process: int) -> float:
    """Return the resident memory of a process in MiB."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def children(process: int) -> list[int]:
    """Return the processes that a process has started."""
    return list(map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split()))


def logged(database: Path) -> tuple[int, int]:
    """Return how many metrics a database holds, and the last step of them."""
    with closing(connect(f"file:{database}?mode=ro", uri=True)) as opened:
        return opened.execute("SELECT count(*), coalesce(max(step), 0) FROM metrics").fetchone()


def look(process: int, data: Path, start: float) -> list[float]:
    """Return hours, steps, MiB of training and of its writer, open files, KiB of the database, number of metrics."""
    database = data / "mlruns.db"
    metrics, step = logged(database)
    writers = children(process)
    return [
        (time.monotonic() - start) / 3600,
        step,
        memory(process),
        sum(map(memory, writers)),
        len(list(Path(f"/proc/{process}/fd").iterdir())),
        database.stat().st_size / 1024,
        metrics,
    ]


def soak(folder: Path, minutes: float) -> np.ndarray:
    """Train for some minutes, and return a row for each look."""
    patients = generate(folder / "patients.json", PATIENTS)
    run_quietly(script("convert_synthetic_to_dataset.py", "--input", patients, "--output", folder / "demo.pt"))
    data = ("--training-data", folder / "demo_train.pt", "--validation-data", folder / "demo_val.pt")
    output = ("--output-dir", folder / "model", "--output-data-dir", folder / "data")
    command = script("pretrain-exmed-bert-clinvec.py", *data, *output, *SIZES, *OFTEN, "--epochs", 1_000_000)
    rows = []
    with open(folder / "said.txt", "w+", encoding="utf-8") as said:
        training = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)
        try:
            while training.poll() is None and not (folder / "data" / "mlruns.db").exists():
                time.sleep(SECONDS)
            start = time.monotonic()
            while training.poll() is None and time.monotonic() - start < 60 * minutes:
                rows.append(look(training.pid, folder / "data", start))
                time.sleep(SECONDS)
        finally:
            training.terminate()  # a shell's background jobs are deaf to Ctrl-C
            code = training.wait(timeout=300)
        said.seek(0)
        if code != 128 + signal.SIGTERM:
            sys.exit(f"{said.read()}Error: exit code {code}, expected that of a stop")
    return np.array(rows)


def figures(rows: np.ndarray) -> list[Measurement]:
    """Return the level of each quantity, and how it rises per hour, after the first fifth."""
    rows = rows[len(rows) // 5 :]
    hours, steps, training, writer, files, database, metrics = rows.T
    half = len(rows) // 2

    def per_metric(part: slice) -> float:
        return float(1024 * np.polyfit(metrics[part], database[part], 1)[0])

    def quantity(name: str, values: np.ndarray, unit: str, most: float) -> Sequence[Measurement]:
        slope = float(np.polyfit(hours, values, 1)[0])
        return Measurement(name, values.tolist()[:: max(len(values) // 50, 1)], unit), Measurement(
            f"  its slope, of a level of {np.median(values):,.0f}", [slope], f"{unit}/h", at_most=most
        )

    return [
        Measurement("minutes after the start", [60 * float(hours[-1] - hours[0])], "min"),
        Measurement("steps", [float(steps[-1] - steps[0])], "steps"),
        *quantity("memory of training", training, "MiB", 20),
        *quantity("memory of MLflow's writer", writer, "MiB", 20),
        *quantity("open files of training", files, "files", 0.5),
        Measurement("database, of a metric, in the first half", [per_metric(slice(half))], "bytes"),
        Measurement(
            "database, of a metric, in the second half compared with the first",
            [per_metric(slice(half, None)) / per_metric(slice(half))],
            "",
            at_most=1.1,
        ),
    ]


def main() -> None:
    """Train, look, fit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=at_least_one, default=60, help="how long [default: 60]")
    given = parser.parse_args()
    load = load_average()
    with tempfile.TemporaryDirectory() as folder:
        rows = soak(Path(folder), given.minutes)
    report("soak", given, load, figures(rows))


if __name__ == "__main__":
    main()
