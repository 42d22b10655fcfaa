"""Work out what 1, 10 and 100 million patients take, from rates in benchmarks/results, and rewrite docs/SCALE.md.

    python benchmarks/at_scale.py
    python benchmarks/at_scale.py --cores 64 --tokens-per-second 2000000 --core-hour 0.05 --accelerator-hour 3

Rates per core and per event are those of `generation_at_size`, `scaling` (conversion), `ingestion` (reading) and
`pretraining` (training on this machine's cores). What no benchmark knows is an option: cores, prices, and the rate of
an accelerator, which has not been measured.
"""

import argparse
import json
from collections.abc import Callable
from typing import Any

from common import RESULTS, ROOT

PAGE = ROOT / "docs" / "SCALE.md"
BEGIN, END = "<!-- at scale: begin -->", "<!-- at scale: end -->"
PATIENTS = (1_000_000, 10_000_000, 100_000_000)
GENERATED_EVENTS = 33.8  # per patient of `scaling`: 337,795,901 of 10,000,000


def given() -> argparse.Namespace:
    """Parse the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=float, default=50, help="per patient [default: 50]")
    parser.add_argument("--cores", type=int, default=32, help="for data [default: 32]")
    parser.add_argument("--tokens-per-second", type=float, default=1e6, help="of an accelerator [default: 1000000]")
    parser.add_argument("--epochs", type=float, default=10, help="of pretraining [default: 10]")
    parser.add_argument("--core-hour", type=float, default=0.05, help="price in dollars [default: 0.05]")
    parser.add_argument("--accelerator-hour", type=float, default=3, help="price in dollars [default: 3]")
    return parser.parse_args()


def measured(name: str) -> Callable[[str], float]:
    """Return a function that looks up the median of the first measurement whose name contains a text."""
    figures: list[dict[str, Any]] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["figures"]

    def of(text: str) -> float:
        return float(next(figure["median"] for figure in figures if text in figure["name"]))

    return of


def duration(seconds: float) -> str:
    """Return a duration with two significant digits.

    >>> duration(30), duration(400), duration(90_000), duration(900_000)
    ('30 s', '6.7 min', '25 h', '10 days')
    """
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= (2 if unit == "days" else 1) * size:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds:.2g} s"


def size(count: float) -> str:
    """Return a number of bytes with two significant digits.

    >>> size(2.5e9), size(4e8)
    ('2.5 GB', '400 MB')
    """
    scale, unit = (1e12, "TB") if count >= 1e12 else (1e9, "GB") if count >= 1e9 else (1e6, "MB")
    return f"{count / scale:.3g} {unit}"


def rows(options: argparse.Namespace) -> list[list[str]]:
    """Return the table."""
    scaling, ingestion, pretraining = measured("scaling"), measured("ingestion"), measured("pretraining")
    generation = measured("generation_at_size")
    events, cores = options.events, options.cores
    workers = 2  # of `scaling`
    generated = GENERATED_EVENTS * 1_000_000 / generation("to .parquet") / workers  # events per second and core
    converted = GENERATED_EVENTS * scaling("conversion: rate, fitted") / workers
    on_disk, dataset = scaling("on disk, population"), scaling("on disk, datasets")  # bytes per patient
    kept = scaling("tokens per patient")  # of those in the datasets
    omop = ingestion("omop: on disk") * 2**20 / 10_000_000
    cpu = pretraining("production, fp32: ExMed-BERT")

    def row(name: str, value: Callable[[float], str]) -> list[str]:
        return [name, *(value(patients) for patients in PATIENTS)]

    def cost(patients: float) -> str:
        core_hours = patients * events / converted / 3600 + patients * events / ingestion("omop: read") / 3600
        hours = patients * events * options.epochs / options.tokens_per_second / 3600
        return f"${core_hours * options.core_hour + hours * options.accelerator_hour:,.2f}"

    return [
        row("events", lambda n: f"{n * events / 1e6:,.0f} million"),
        row("OMOP tables as CSV, on disk", lambda n: size(n * events * omop)),
        row("our own record in Parquet, on disk", lambda n: size(n * on_disk * events / GENERATED_EVENTS)),
        row("datasets, on disk", lambda n: size(n * dataset * events / kept)),
        row(f"generating, {cores} cores", lambda n: duration(n * events / generated / cores)),
        row("reading OMOP, one process on one core", lambda n: duration(n * events / ingestion("omop: read"))),
        row("reading MEDS, one process on one core", lambda n: duration(n * events / ingestion("meds: read"))),
        row(f"converting our own record, {cores} cores", lambda n: duration(n * events / converted / cores)),
        row("an epoch of training, 2 cores, no accelerator", lambda n: duration(n * events / cpu)),
        row("an epoch on an accelerator (assumed)", lambda n: duration(n * events / options.tokens_per_second)),
        row(f"reading, converting and {options.epochs:g} epochs on it cost (assumed)", cost),
    ]


def main() -> None:
    """Rewrite the table."""
    options = given()
    header = ["", *(f"{patients / 1e6:,.0f} million" for patients in PATIENTS)]
    lines = [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows(options))]
    said = ", ".join(f"{name.replace('_', ' ')} {value:,g}" for name, value in vars(options).items())
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    table = "\n".join(lines)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table}\n\nWith {said}.\n\n{END}{rest.split(END)[1]}", encoding="utf-8")
    print(f"{table}\n\nWritten: {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
