"""Measure the generation of a million patients: seconds, and the memory of all its processes together.

    python benchmarks/generation_at_size.py                       # minutes
    python benchmarks/generation_at_size.py --patients 100000
    python benchmarks/generation_at_size.py --realistic           # realistic patients alone; keeps no results

The script runs as a process of its own with two workers. Memory is sampled: the sum over its processes of what each
holds, where a page that several share counts a part for each (PSS). Processor time is that of all of them: on a busy
machine it says more than the seconds.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import Measurement, at_least_one, load_average, print_figures, report, script

PATIENTS, WORKERS = 1_000_000, 2
BOUNDED, REALISTIC = (10, 2), (2, 1)  # minutes and GiB for a million patients, on two cores
CASES = ((".jsonl.gz", False), (".parquet", False), (".parquet", True))  # extension, realistic


def family(process: int) -> list[int]:
    """Return a process and all that it has started, and they in turn."""
    found = [process]
    for parent in found:
        try:
            for thread in Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (thread / "children").read_text().split())
        except OSError:  # it has ended
            continue
    return found


def held(process: int) -> float:
    """Return the memory of a process in MiB, shared pages in proportion; 0 when it has ended."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def run_once(command: list[str]) -> tuple[float, float, float]:
    """Return seconds, processor seconds and the largest memory of all processes of a command together in MiB."""
    start, used, peak = time.perf_counter(), processor_seconds(), 0.0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, sum(map(held, family(process.pid))))
        time.sleep(0.1)
    if process.returncode != 0:
        sys.exit(f"Error: exit code {process.returncode}: {' '.join(command)}")
    return time.perf_counter() - start, processor_seconds() - used, peak


def processor_seconds() -> float:
    """Return the processor time of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Generate to JSON lines and to Parquet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=at_least_one, default=1, help="repetitions [default: 1]")
    parser.add_argument("--patients", type=at_least_one, default=PATIENTS, help=f"how many [default: {PATIENTS}]")
    parser.add_argument("--realistic", action="store_true", help="realistic patients alone; keeps no results")
    given = parser.parse_args()
    alone = given.realistic
    del given.realistic
    load, figures = load_average(), []
    for extension, realistic in CASES:
        if realistic or not alone:
            figures += figures_of(given, extension, realistic)
    if alone:
        print_figures(figures)
    else:
        report("generation_at_size", given, load, figures)


def figures_of(given: argparse.Namespace, extension: str, realistic: bool) -> list[Measurement]:
    """Generate patients of a kind; return the figures."""
    minutes, gib = REALISTIC if realistic else BOUNDED
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / f"patients{extension}"
        options = ("-n", given.patients, "--workers", WORKERS, "-s", 42, "-o", output, *["--realistic"] * realistic)
        command = script("generate_synthetic_patients.py", *options)
        seconds, processor, memory = zip(*(run_once(command) for _ in range(given.repeats)), strict=True)
        size = output.stat().st_size / given.patients
    name = f"{given.patients:,}{' realistic ones' * realistic} to {extension}"
    most = 60 * minutes if given.patients == PATIENTS else None
    return [
        Measurement(f"{name}, {WORKERS} workers", seconds, "s", at_most=most),
        Measurement("  the same", [given.patients / s for s in seconds], "patients/s"),
        Measurement("  processor time", processor, "s"),
        Measurement("  peak memory of all processes", memory, "MiB", at_most=1024 * gib),
        Measurement("  on disk", [size], "bytes a patient"),
    ]


if __name__ == "__main__":
    main()
