"""Compare 100,000 generated patients (seed 42) with published values: the metrics of their report.

    python benchmarks/population.py

Made and reported by the project's own scripts; the report itself, with every cell, stays in output/population_report.
These are the patients of the guide. `fidelity.py` has the same metrics of realistic ones, and more.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from common import ROOT, Measurement, generate, load_average, options, report, run_quietly, script

PATIENTS = 100_000
OUTPUT = ROOT / "output" / "population_report"


def main() -> None:
    """Generate, report, and print."""
    given = options(__doc__, repeats=1, patients=PATIENTS)
    load = load_average()
    with tempfile.TemporaryDirectory() as folder:
        patients = generate(Path(folder) / "patients.parquet", given.patients)
        run_quietly(script("report_synthetic_data.py", "--input", patients, "--output-dir", OUTPUT))
    metrics = json.loads((OUTPUT / "report.json").read_text(encoding="utf-8"))["metrics"].values()
    report("population", given, load, [measured for metric in metrics if (measured := as_measurement(metric))])


def as_measurement(metric: dict[str, Any]) -> Measurement | None:
    """Return one of the report's metrics, None where the file is too small for it."""
    if metric["value"] is None:
        return None
    limit = {"at_least" if metric["at_least"] else "at_most": metric["target"]}
    return Measurement(metric["name"], [metric["value"]], metric["kind"], **limit)


if __name__ == "__main__":
    main()
