"""Measure whole processes as a user starts them: generating 10,000 patients, and the answer to --help.

python benchmarks/generation.py

The patients are the bounded ones, so that the time compares with earlier ones; `generation_at_size` has both kinds.
"""

import tempfile
from pathlib import Path

from common import Measurement, generate, load_average, measure, options, report, run_quietly, script

PATIENTS = 10_000


def main() -> None:
    """Start each process several times."""
    given = options(__doc__)
    load = load_average()
    with tempfile.TemporaryDirectory() as name:
        output = Path(name) / "patients.json"
        wall, _ = measure(lambda: generate(output, PATIENTS), given.repeats)
    figures = [Measurement(f"generating {PATIENTS:,} patients", wall, "s", at_most=5)]
    for program in ("generate_synthetic_patients.py", "convert_synthetic_to_dataset.py"):
        wall, _ = measure(lambda program=program: run_quietly(script(program, "--help")), given.repeats)
        figures.append(Measurement(f"{program} --help", wall, "s", at_most=1))
    report("generation", given, load, figures)


if __name__ == "__main__":
    main()
