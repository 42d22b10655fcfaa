"""Compare 100,000 generated patients (seed 42) with published values, bounded and realistic ones.

    python benchmarks/population.py

Of the bounded population the metrics of the report, made and reported by the project's own scripts; the report itself,
with every cell, stays in output/population_report. Of the realistic one (`generate --realistic`) the three layers of
`fidelity.py`: margins, subgroups, dependence.
"""

import json
import tempfile
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import fidelity
from common import ROOT, Measurement, generate, load_average, options, report, run_quietly, script

PATIENTS = 100_000
LARGER = 5  # times as many patients; one in seven of them is observed for the whole five years
OUTPUT = ROOT / "output" / "population_report"


def main() -> None:
    """Generate, report, and print."""
    given = options(__doc__, repeats=1, patients=PATIENTS)
    load = load_average()
    with tempfile.TemporaryDirectory() as folder:
        patients = generate(Path(folder) / "patients.parquet", given.patients)
        run_quietly(script("report_synthetic_data.py", "--input", patients, "--output-dir", OUTPUT))
        layers = realistic_layers(Path(folder), given.patients)
    metrics = json.loads((OUTPUT / "report.json").read_text(encoding="utf-8"))["metrics"].values()
    bounded = [measured for metric in metrics if (measured := as_measurement(metric))]
    report("population", given, load, [*bounded, *(named(layer) for layer in layers)])


def realistic_layers(folder: Path, patients: int) -> list[Measurement]:
    """Generate realistic patients and measure them; five-year shares in a larger file, as few are observed throughout.

    The file's first patients are those of the smaller one.
    """
    small, large = (
        generate(folder / f"realistic_{n}.parquet", n, options=("--realistic",)) for n in (patients, LARGER * patients)
    )
    meta = json.loads(small.with_suffix(".meta.json").read_text(encoding="utf-8"))
    end_date = date.fromisoformat(meta["options"]["end_date"])
    cohort, larger = fidelity.read(small, end_date), fidelity.read(large, end_date, five_years_only=True)
    return list(fidelity.measurements(cohort, larger, meta["realistic"]))


def named(layer: Measurement) -> Measurement:
    """Return a figure of the realistic population, which says so."""
    return replace(layer, name=f"realistic, {layer.name}")


def as_measurement(metric: dict[str, Any]) -> Measurement | None:
    """Return one of the report's metrics, None where the file is too small for it."""
    if metric["value"] is None:
        return None
    limit = {"at_least" if metric["at_least"] else "at_most": metric["target"]}
    return Measurement(metric["name"], [metric["value"]], metric["kind"], **limit)


if __name__ == "__main__":
    main()
