"""What the benchmarks share: repetitions, figures with their targets, the machine, the table and the JSON file."""

import argparse
import importlib.metadata
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"

sys.path.insert(0, str(ROOT))


@dataclass(frozen=True)
class Measurement:
    """One measured quantity: a sample for each repetition and, where one is set, the target of their median."""

    name: str
    samples: Sequence[float]
    unit: str
    at_least: float | None = None
    at_most: float | None = None

    @property
    def median(self) -> float:
        """The figure itself."""
        return statistics.median(self.samples)

    @property
    def target(self) -> str:
        """The target in words, empty where there is none."""
        if self.at_least is not None:
            return f"at least {shown(self.at_least)}"
        return "" if self.at_most is None else f"at most {shown(self.at_most)}"

    @property
    def met(self) -> bool | None:
        """Whether the median meets the target; None where there is none."""
        if self.at_least is not None:
            return bool(self.median >= self.at_least)
        return None if self.at_most is None else bool(self.median <= self.at_most)

    def row(self) -> tuple[str, str, str, str, str, str]:
        """Return the cells of the figure under `HEADER`."""
        met = {True: "met", False: "not met", None: ""}[self.met]
        spread = f"{shown(min(self.samples))} to {shown(max(self.samples))}"
        return self.name, shown(self.median), self.unit, spread, self.target, met


HEADER = ("figure", "median", "unit", "lowest to highest", "target", "")


def shown(value: float) -> str:
    """Return a number with four significant digits, whole and with separators from 1,000 on.

    >>> shown(23456.7), shown(0.43219), shown(300)
    ('23,457', '0.4322', '300')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def in_one_line(error: Exception) -> str:
    """Return an error's type and the first line of its message."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:300]}"


def options(doc: str, repeats: int = 5, patients: int | None = None) -> argparse.Namespace:
    """Parse --repeats and, where the benchmark has a default for it, --patients."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=at_least_one, default=repeats, help=f"repetitions [default: {repeats}]")
    if patients:
        parser.add_argument("--patients", type=at_least_one, default=patients, help=f"how many [default: {patients}]")
    return parser.parse_args()


def at_least_one(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected at least 1")
    return int(text)


def measure(work: Callable[[], Any], repeats: int) -> tuple[list[float], list[float]]:
    """Return the wall seconds and the processor seconds of each repetition, after one that does not count."""
    work()
    wall, processor = [], []
    for _ in range(repeats):
        start, start_processor = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - start_processor)
    return wall, processor


def script(name: str, *arguments: object) -> list[str]:
    """Return the command that runs one of the project's scripts with the Python of this process."""
    return [sys.executable, str(ROOT / "scripts" / name), *map(str, arguments)]


def run_quietly(command: Sequence[str]) -> None:
    """Run a command without its output; what it says is shown only when it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{done.stderr}Error: exit code {done.returncode}: {' '.join(command)}")


def generate(path: Path, patients: int, seed: int = 42, options: Sequence[str] = ()) -> Path:
    """Write synthetic patients to ``path``, in a process of its own."""
    run_quietly(script("generate_synthetic_patients.py", "-n", patients, "-o", path, "-s", seed, *options))
    return path


def load_average() -> float:
    """Return how many processes wanted a core during the last minute; well above 0 disturbs what is measured."""
    return round(os.getloadavg()[0], 2)


def machine() -> dict[str, Any]:
    """Describe what the figures were measured on."""
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    models = [line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "ram_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in ("torch", "numpy")},
    }


def print_figures(figures: Sequence[Measurement]) -> None:
    """Print a table of figures."""
    rows = [HEADER, *(figure.row() for figure in figures)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def report(
    name: str,
    given: argparse.Namespace,
    load: float | list[float],
    figures: Sequence[Measurement],
    command: str | None = None,
) -> None:
    """Print the figures and write benchmarks/results/<name>.json.

    Args:
        name: of the benchmark.
        given: its options.
        load: `load_average` before the measurements.
        figures: what was measured.
        command: that measured them; not given: the script of that name.
    """
    from exmed_bert.staging import write_json

    print_figures(figures)
    content = {
        "benchmark": name,
        "command": command or f"python benchmarks/{name}.py",
        "options": vars(given),
        "date": date.today().isoformat(),
        "machine": machine(),
        "load_average_before": load,
        "figures": [asdict(figure) | {"median": figure.median, "met": figure.met} for figure in figures],
    }
    path = RESULTS / f"{name}.json"
    write_json(path, content)
    print(f"\nWritten: {path.relative_to(ROOT)}")
