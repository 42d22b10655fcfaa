"""Measure the generation of a million patients: seconds, and the memory of all its processes together.

    python benchmarks/generation_at_size.py                       # minutes
    python benchmarks/generation_at_size.py --patients 100000

The script runs as a process of its own with two workers. Memory is sampled: the sum of what each of its processes has
resident, so that what they share counts more than once.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import Measurement, load_average, options, report, script

PATIENTS, WORKERS = 1_000_000, 2
MINUTES, GIB = 10, 2  # for a million patients, on two cores


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


def resident(process: int) -> float:
    """Return the resident memory of a process in MiB, 0 when it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


def run_once(command: list[str]) -> tuple[float, float]:
    """Return the seconds that a command takes and the largest memory of all its processes together in MiB."""
    start, peak = time.perf_counter(), 0.0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, sum(map(resident, family(process.pid))))
        time.sleep(0.1)
    if process.returncode != 0:
        sys.exit(f"Error: exit code {process.returncode}: {' '.join(command)}")
    return time.perf_counter() - start, peak


def main() -> None:
    """Generate to JSON lines and to Parquet."""
    given = options(__doc__, repeats=1, patients=PATIENTS)
    load = load_average()
    whole = given.patients == PATIENTS
    figures = []
    for extension in (".jsonl.gz", ".parquet"):
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / f"patients{extension}"
            command = script(
                "generate_synthetic_patients.py", "-n", given.patients, "--workers", WORKERS, "-s", 42, "-o", output
            )
            seconds, memory = zip(*(run_once(command) for _ in range(given.repeats)), strict=True)
            size = output.stat().st_size / given.patients
        name = f"{given.patients:,} to {extension}"
        figures += [
            Measurement(f"{name}, {WORKERS} workers", seconds, "s", at_most=60 * MINUTES if whole else None),
            Measurement("  the same", [given.patients / s for s in seconds], "patients/s"),
            Measurement("  peak memory of all processes", memory, "MiB", at_most=1024 * GIB),
            Measurement("  on disk", [size], "bytes a patient"),
        ]
    report("generation_at_size", given, load, figures)


if __name__ == "__main__":
    main()
