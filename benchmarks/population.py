"""Hold 100,000 generated patients (seed 42) against the published figures: the report's headline figures.

    python benchmarks/population.py

Made and reported by the project's own scripts. The report itself, with every cell, stays in output/population_report.
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
    headlines = json.loads((OUTPUT / "report.json").read_text(encoding="utf-8"))["metrics"].values()
    report("population", given, load, [figure for found in headlines if (figure := as_figure(found))])


def as_figure(headline: dict[str, Any]) -> Measurement | None:
    """Return one of the report's headline figures, None where the file does not hold what it takes."""
    if headline["value"] is None:
        return None
    limit = {"at_least" if headline["at_least"] else "at_most": headline["target"]}
    return Measurement(headline["name"], [headline["value"]], headline["kind"], **limit)


if __name__ == "__main__":
    main()
