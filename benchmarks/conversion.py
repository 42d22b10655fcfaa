"""Measure the conversion of synthetic patients, file to file, from a thousand to a million, and opening a dataset.

    python benchmarks/conversion.py      # three minutes, one of them to generate a million patients

The script is run once on each number of patients as .jsonl, start of Python included. The rate of each format is that
of the same conversion with its default settings, full validation included, timed inside a process that has imported
everything. Peak memory is that of the script, a process of its own.
The patients are the bounded ones, so that figures compare with earlier ones.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import ROOT, Measurement, generate, load_average, measure, options, report, script

SIZES = (1_000, 10_000, 100_000, 1_000_000)
FORMATS = (".json", ".jsonl", ".jsonl.gz", ".parquet")


def run_measured(command: list[str]) -> tuple[float, float]:
    """Return the seconds and the largest resident memory, in MiB, of a command."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, command)
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def peak_memory(command: list[str], repeats: int) -> list[float]:
    """Return the largest resident memory of a command in MiB, a sample for each repetition."""
    return [run_measured(command)[1] for _ in range(repeats)]


def size_figures(folder: Path) -> list[Measurement]:
    """Convert from a thousand to a million patients with the script."""
    figures = []
    for patients in SIZES:
        path, output = folder / "sized.jsonl", folder / "sized.pt"
        generate(path, patients)
        seconds, peak = run_measured(
            script("convert_synthetic_to_dataset.py", "--input", path, "--output", output, "--max-length", 50)
        )
        size = sum(file.stat().st_size for file in folder.glob("sized_*.pt"))
        goal = {"at_most": 40} if patients == 10**6 else {}
        limit = {"at_most": 1.5e9 / 2**20} if patients == 10**6 else {}
        figures += [
            Measurement(f"{patients:,} patients of .jsonl", [seconds], "s", **goal),
            Measurement(f"{patients:,} patients: rate", [patients / seconds], "patients/s"),
            Measurement(f"{patients:,} patients: peak memory", [peak], "MiB", **limit),
            Measurement(f"{patients:,} patients: datasets on disk", [size / 2**20], "MiB"),
        ]
        path.unlink()
    return figures


def memory_figures(folder: Path, inputs: dict[int, Path], repeats: int) -> list[Measurement]:
    """Measure the conversion script on each number of patients, and the imports that are part of it."""
    imports = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import exmed_bert.data.convert"
    figures = [Measurement("peak memory, imports alone", peak_memory([sys.executable, "-c", imports], repeats), "MiB")]
    for patients, path in inputs.items():
        command = script("convert_synthetic_to_dataset.py", "--input", path, "--output", folder / "memory.pt")
        kind = path.name.partition(".")[2]
        figures.append(Measurement(f"peak memory, {patients:,} of .{kind}", peak_memory(command, repeats), "MiB"))
    return figures


def speed_figures(folder: Path, inputs: list[Path], patients: int, repeats: int) -> list[Measurement]:
    """Convert each input file, and weigh what comes out."""
    from exmed_bert.data.convert import convert
    from exmed_bert.settings import ConvertSettings

    figures = []
    for path in inputs:
        settings = ConvertSettings(input=path, output=folder / "speed.pt")
        wall, processor = measure(lambda settings=settings: convert(settings), repeats)
        kind = path.name.partition(".")[2]
        goal = 25_000 if kind == "json" else None
        figures.append(Measurement(f"conversion of .{kind}", [patients / s for s in wall], "patients/s", at_least=goal))
        if kind == "json":
            figures.append(
                Measurement("the same a second of processor time", [patients / s for s in processor], "patients/s")
            )
            made = convert(settings)
            size = sum(file.stat().st_size for file in made.paths.values())
            size /= sum(len(dataset) for dataset in made.datasets.values())
            figures.append(Measurement("dataset on disk", [size], "bytes a patient", at_most=300))
    return figures


def opening_figures(folder: Path, inputs: dict[int, Path], repeats: int) -> list[Measurement]:
    """Open the training dataset of each number of patients."""
    from exmed_bert.data.convert import convert
    from exmed_bert.data.dataset import PatientDataset
    from exmed_bert.settings import ConvertSettings

    figures = []
    for patients, path in inputs.items():
        train = convert(ConvertSettings(input=path, output=folder / f"open_{patients}.pt")).paths["train"]
        wall, _ = measure(lambda train=train: PatientDataset.load(train), repeats)
        name = f"opening, of {patients:,} patients"
        figures.append(Measurement(name, [second * 1000 for second in wall], "ms", at_most=10))
    return figures


def main() -> None:
    """Run all, memory first: a process starts with the peak of the one that starts it, which is small so far."""
    given = options(__doc__, patients=10_000)
    load = load_average()
    fewer, more = max(given.patients // 10, 100), given.patients * 10
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inputs = [generate(folder / f"patients{kind}", given.patients) for kind in FORMATS]
        few, many = generate(folder / "few.json", fewer), generate(folder / "many.json", more)
        many_lines = generate(folder / "lines.jsonl", more)

        sizes = size_figures(folder)
        memory = memory_figures(folder, {given.patients: inputs[0], more: many_lines}, given.repeats)
        figures = speed_figures(folder, inputs, given.patients, given.repeats) + sizes + memory
        figures += opening_figures(folder, {fewer: few, given.patients: inputs[0], more: many}, given.repeats)
    report("conversion", given, load, figures)


if __name__ == "__main__":
    main()
