"""Measure how time and memory of generating and converting a population in shards grow: with patients, shards, workers.

    python benchmarks/conversion_at_size.py                                   # minutes
    python benchmarks/conversion_at_size.py --patients 300000 --workers 1,2 --formats parquet,jsonl

One thing varies at a time, and the largest or last value of each stands where another varies. Each step is a process of
its own, start of Python included. Peak memory is that of the largest of a step's processes, libraries of some 500 MiB
included; that of all workers and of the process that they work for is reported apart. At the end stands the line that
fits the seconds against the patients.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import Measurement, at_least_one, load_average, report, script
from generation_at_size import family

FRACTIONS = (0.1, 0.3, 1)  # of --patients
SEED = 42


def several(kind: Callable[[str], object]) -> Callable[[str], list[object]]:
    """Return the parser of a list that is separated by commas."""
    return lambda text: [kind(part) for part in text.split(",")]


def given() -> argparse.Namespace:
    """Parse the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=at_least_one, default=1_000_000, help="most patients [default: 1000000]")
    parser.add_argument("--shards", type=several(at_least_one), default=[4, 16], help="[default: 4,16]")
    parser.add_argument("--workers", type=several(at_least_one), default=[1, 2], help="[default: 1,2]")
    parser.add_argument("--formats", type=several(str), default=["parquet"], help="of the shards [default: parquet]")
    parser.add_argument("--scheduler", help="Dask cluster, as of the conversion; its workers' memory is not measured")
    parser.add_argument("--folder", type=Path, help="where to write and remove again [default: a temporary one]")
    return parser.parse_args()


def peak(process: int) -> float:
    """Return the largest resident memory that a process has had in MiB, 0 when it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def run_once(command: list[str]) -> tuple[float, float, float]:
    """Return the seconds of a command, and the peak memory in MiB of its process and of the largest that it started."""
    start = time.perf_counter()
    peaks: dict[int, float] = {}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        for one in family(process.pid):
            peaks[one] = max(peaks.get(one, 0), peak(one))
        time.sleep(0.05)
    if process.returncode != 0:
        sys.exit(f"Error: exit code {process.returncode}: {' '.join(command)}")
    own = peaks.pop(process.pid)
    return time.perf_counter() - start, own, max(peaks.values(), default=0)


class Runs:
    """Generates and converts, each combination once.

    Attributes:
        figures: what was measured.
        seconds: of each step, by (step, patients, shards, workers, format).
    """

    def __init__(self, folder: Path, scheduler: str | None) -> None:
        self.folder = folder
        self.engine = [] if scheduler is None else ["--scheduler", scheduler]
        self.figures: list[Measurement] = []
        self.seconds: dict[tuple[str, int, int, int, str], float] = {}

    def add(self, patients: int, shards: int, workers: int, kind: str) -> None:
        """Measure both steps; what was measured before is not repeated."""
        if ("conversion", patients, shards, workers, kind) in self.seconds:
            return
        population, output = self.folder / "population", self.folder / "dataset.pt"
        common = ["--workers", workers, *self.engine]
        generate = script(
            "generate_synthetic_patients.py", "-n", patients, "-s", SEED, "--shards", shards, "--shard-format", kind,
            "-o", population, *common,
        )  # fmt: skip
        # As many shards of the dataset as of the population.
        size = -(-patients // shards)
        convert = script(
            "convert_synthetic_to_dataset.py", "--input", population, "--output", output, "--shard-size", size, *common
        )
        for step, command in (("generation", generate), ("conversion", convert)):
            seconds, own, worker = run_once(command)
            self.seconds[step, patients, shards, workers, kind] = seconds
            name = f"{step}, {patients:,} patients, {shards} shards .{kind}, {workers} workers"
            limit = 1.5e9 / 2**20 if step == "conversion" else None
            self.figures += [
                Measurement(name, [seconds], "s"),
                Measurement("  the same", [patients / seconds], "patients/s"),
                Measurement("  peak memory of its process", [own], "MiB", at_most=limit),
            ]
            if worker and not self.engine:
                self.figures.append(Measurement("  peak memory of a worker", [worker], "MiB", at_most=limit))
            print(f"{name}: {seconds:.1f} s, {patients / seconds:,.0f} patients/s, {own:.0f} and {worker:.0f} MiB")


def fit(runs: Runs, sizes: list[int], shards: int, workers: int, kind: str) -> list[Measurement]:
    """Return the line that fits the seconds against the patients, and how much of their variance it explains."""
    figures = []
    for step in ("generation", "conversion"):
        seconds = np.array([runs.seconds[step, size, shards, workers, kind] for size in sizes])
        slope, start = np.polyfit(sizes, seconds, 1)
        explained = (
            1 - ((seconds - np.polyval([slope, start], sizes)) ** 2).sum() / ((seconds - seconds.mean()) ** 2).sum()
        )
        print(f"{step} of .{kind}: {start:.1f} s + {slope * 1e6:.1f} s per million patients, R² {explained:.4f}")
        figures += [
            Measurement(f"{step} of .{kind}: start, fitted", [start], "s"),
            Measurement(f"{step} of .{kind}: a million more, fitted", [slope * 1e6], "s"),
            Measurement(f"{step} of .{kind}: rate, fitted", [1 / slope], "patients/s"),
            Measurement(f"{step} of .{kind}: explained by the line", [explained], "of the variance"),
        ]
    return figures


def main() -> None:
    """Vary one thing at a time."""
    options = given()
    load = load_average()
    sizes = sorted(
        {max(round(options.patients * fraction / 1000), max(options.shards)) * 1000 for fraction in FRACTIONS}
    )
    figures = []
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        runs = Runs(Path(name), options.scheduler)
        shards, workers = options.shards[-1], options.workers[-1]
        for kind in options.formats:
            for size in sizes:
                runs.add(size, shards, workers, kind)
            for other in options.workers:
                runs.add(sizes[len(sizes) // 2], shards, other, kind)
            for other in options.shards:
                runs.add(sizes[len(sizes) // 2], other, workers, kind)
            if len(sizes) > 1:
                figures += fit(runs, sizes, shards, workers, kind)
    options.folder = None  # says nothing of the figures
    report("conversion_at_size", options, load, runs.figures + figures)


if __name__ == "__main__":
    main()
