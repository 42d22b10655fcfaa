"""The part of `scaling` that works on a population in files: generating, converting, opening, beginning an epoch.

One thing varies at a time: patients, worker processes, shards. Each step is a process of its own, start of Python
included. Memory is sampled, of the largest of a step's processes: what it has allocated, libraries included, and the
peak with the pages of mapped files, which the system takes back when it needs room.
"""

import shutil
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from common import Measurement, script
from generation_at_size import family
from loading import BATCH

SEED = 42
BLOCK = 1000  # fewest patients per file
FRACTIONS = (0.1, 0.3, 1)  # of the files
WORKERS = (1, 2)
SHARDS = (1, 40, 400)
STEPS = 100  # of the epoch that is begun
CONVERSION_LIMIT, TRAINING_LIMIT = 1.5e9 / 2**20, 2e9 / 2**20  # MiB


def memory(process: int) -> tuple[float, float]:
    """Return the peak resident memory of a process and what it has allocated now, in MiB; 0 when it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0, 0
    values = dict(line.split(":", 1) for line in lines)
    peak, allocated = (int(values.get(name, "0 kB").split()[0]) / 1024 for name in ("VmHWM", "RssAnon"))
    return peak, allocated


def run_once(command: list[str]) -> tuple[float, float, float]:
    """Return the seconds of a command, and the largest peak and the most allocated of one of its processes in MiB."""
    start = time.perf_counter()
    peaks: dict[int, float] = defaultdict(float)
    allocated: dict[int, float] = defaultdict(float)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while process.poll() is None:
        for one in family(process.pid):
            peak, now = memory(one)
            peaks[one], allocated[one] = max(peaks[one], peak), max(allocated[one], now)
        time.sleep(0.05)
    if process.returncode != 0:
        error = process.stderr.read() if process.stderr else ""
        sys.exit(f"{error}Error: exit code {process.returncode}: {' '.join(command)}")
    return time.perf_counter() - start, max(peaks.values()), max(allocated.values())


def step(name: str, patients: int, command: list[str], limit: float | None = None) -> tuple[float, list[Measurement]]:
    """Run a step; return its seconds and its figures."""
    seconds, peak, allocated = run_once(command)
    rate = patients / seconds
    print(
        f"{name}: {seconds:.1f} s, {rate:,.0f} patients/s, {allocated:,.0f} MiB, {peak:,.0f} with mapped files",
        flush=True,
    )
    return seconds, [
        Measurement(name, [seconds], "s"),
        Measurement("  the same", [rate], "patients/s"),
        Measurement("  most memory allocated by a process", [allocated], "MiB", at_most=limit),
        Measurement("  peak, with pages of mapped files", [peak], "MiB"),
    ]


def generated(folder: Path, patients: int, files: int, workers: int) -> list[Measurement]:
    """Generate the population."""
    flags = ["-n", patients, "-s", SEED, "--shards", files, "--workers", workers, "-o", folder]
    command = script("generate_synthetic_patients.py", *flags)
    return step(f"generation, {patients:,} patients in {files} files, {workers} workers", patients, command)[1]


def conversion(files: list[Path], output: Path, workers: int, shard_size: int = 250_000) -> list[str]:
    """Return the command that converts some files."""
    inputs = [word for file in files for word in ("--input", file)]
    flags = ["--output", output, "--workers", workers, "--shard-size", shard_size]
    return script("convert_synthetic_to_dataset.py", *inputs, *flags)


def figures_of_conversions(files: list[Path], patients: int, output: Path) -> list[Measurement]:
    """Convert a tenth, three tenths and all of the files, three tenths with any number of workers, too."""
    figures, seconds, sizes = [], [], []
    for fraction in FRACTIONS:
        some = files[: max(round(fraction * len(files)), 1)]
        size = round(patients * len(some) / len(files))
        for workers in WORKERS if fraction == FRACTIONS[1] else WORKERS[-1:]:
            name = f"conversion, {size:,} patients in {len(some)} files, {workers} workers"
            took, measured = step(name, size, conversion(some, output, workers), CONVERSION_LIMIT)
            figures += measured
        seconds.append(took)
        sizes.append(size)
    slope, start = np.polyfit(sizes, seconds, 1)
    left = np.array(seconds) - np.polyval([slope, start], sizes)
    explained = 1 - left.var() / np.var(seconds)
    print(f"conversion: {start:.1f} s + {slope * 1e6:.1f} s per million patients, R² {explained:.4f}", flush=True)
    return [
        *figures,
        Measurement("conversion: start, fitted", [start], "s"),
        Measurement("conversion: each further million patients, fitted", [slope * 1e6], "s"),
        Measurement("conversion: rate, fitted", [1 / slope], "patients/s", at_least=40_000),
        Measurement("conversion: R² of the line", [explained], "of the variance"),
    ]


def on_disk(files: list[Path], patients: int, output: Path) -> list[Measurement]:
    """Return how large the population and its datasets are."""
    from exmed_bert.data.shards import open_dataset

    datasets = [output.with_name(f"{output.stem}_{split}.pt") for split in ("train", "val")]
    opened = [open_dataset(path) for path in datasets]
    kept = sum(map(len, opened))
    of_datasets = [file for path in datasets for file in (path.iterdir() if path.is_dir() else [path])]
    tokens = sum(int(dataset.lengths.sum()) for dataset in opened)
    return [
        Measurement(
            "on disk, population", [sum(file.stat().st_size for file in files) / patients], "bytes per patient"
        ),
        Measurement(
            "on disk, datasets", [sum(file.stat().st_size for file in of_datasets) / kept], "bytes per patient"
        ),
        Measurement("tokens per patient", [tokens / kept], "tokens"),
    ]


def figures_of_training(output: Path, folder: Path) -> list[Measurement]:
    """Begin an epoch of the largest dataset with the demonstration's model."""
    train, val = (output.with_name(f"{output.stem}_{split}.pt") for split in ("train", "val"))
    flags = ["--training-data", train, "--validation-data", val, "--max-steps", STEPS, "--eval-max-patients", 1000]
    flags += ["--output-dir", folder / "model", "--output-data-dir", folder / "model_data", "--warmup-steps", 10]
    seconds, peak, allocated = run_once(script("pretrain-exmed-bert-clinvec.py", *flags))
    name = f"{STEPS} steps of the demonstration's model on all of them, and the evaluation"
    print(f"{name}: {seconds:.1f} s, {allocated:,.0f} MiB, {peak:,.0f} with mapped files", flush=True)
    return [
        Measurement(name, [seconds], "s"),
        Measurement("  most memory allocated by a process", [allocated], "MiB", at_most=TRAINING_LIMIT),
        Measurement("  peak, with pages of mapped files", [peak], "MiB"),
    ]


def figures_of_shards(folder: Path, patients: int, repeats: int) -> list[Measurement]:
    """Open datasets of the same patients in any number of shards, and take batches of patients at random."""
    from exmed_bert.data.dataset import PatientDataset
    from exmed_bert.data.shards import open_dataset

    population = folder / "small"
    generated(population, patients, patients // BLOCK, WORKERS[-1])  # a shard holds at least a file
    figures = []
    for shards in SHARDS:
        output = folder / f"in_{shards}.pt"
        # A shard is full with the file that fills it, and a file has some 800 training patients.
        size = patients if shards == 1 else patients * 3 // (4 * shards)
        run_once(conversion([population], output, WORKERS[-1], size))
        path = output.with_name(f"{output.stem}_train.pt")
        opening, rates = [], []
        for repeat in range(repeats + 1):
            start = time.perf_counter()
            dataset: PatientDataset = open_dataset(path)
            opening.append((time.perf_counter() - start) * 1000)
            order = np.random.default_rng(repeat).permutation(len(dataset))
            start = time.perf_counter()
            for first in range(0, len(order), BATCH):
                dataset.batch(order[first : first + BATCH])
            rates.append(len(order) / (time.perf_counter() - start))
        count = len(list(path.glob("shard-*"))) if path.is_dir() else 1
        name = f"{len(dataset):,} patients in {count} shards"
        figures.append(Measurement(f"opening {name}", opening[1:], "ms", at_most=100))
        figures.append(Measurement(f"batches of {BATCH} at random, {name}", rates[1:], "patients/s"))
        print(f"{name}: opened in {opening[-1]:.1f} ms, {rates[-1]:,.0f} patients/s", flush=True)
        shutil.rmtree(path, ignore_errors=True)
    return figures
