"""Measure how time and memory grow.

Of generation, conversion and opening with patients, workers and shards; of training with patients, length, vocabulary.

    python benchmarks/scaling.py                                # a quarter of an hour
    python benchmarks/scaling.py --patients 10000000            # half an hour, 10 GB; --population saves a third

`scaling_population` and `scaling_epoch` say what a figure is.
The patients are the bounded ones, so that figures compare with earlier ones.
"""

import argparse
import tempfile
from pathlib import Path

from common import Measurement, at_least_one, load_average, report
from scaling_epoch import figures_of_epochs
from scaling_population import (
    BLOCK,
    WORKERS,
    figures_of_conversions,
    figures_of_shards,
    figures_of_training,
    generated,
    on_disk,
)

FILES = 40


def given() -> argparse.Namespace:
    """Parse the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=at_least_one, default=1_000_000, help="to convert [default: 1000000]")
    parser.add_argument("--small", type=at_least_one, default=400_000, help="of the shards [default: 400000]")
    parser.add_argument("--repeats", type=at_least_one, default=3, help="of short measurements [default: 3]")
    parser.add_argument("--population", type=Path, help="folder of --patients that generate --shards has made before")
    parser.add_argument("--folder", type=Path, help="where to write and remove again [default: a temporary one]")
    return parser.parse_args()


def main() -> None:
    """Vary one thing at a time."""
    options = given()
    load = load_average()
    figures: list[Measurement] = []
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        population = options.population or folder / "population"
        if options.population is None:
            figures += generated(population, options.patients, min(FILES, options.patients // BLOCK), WORKERS[-1])
        files = sorted(population.glob("part-*"))
        figures += figures_of_conversions(files, options.patients, folder / "dataset.pt")
        figures += on_disk(files, options.patients, folder / "dataset.pt")
        figures += figures_of_training(folder / "dataset.pt", folder)
        figures += figures_of_shards(folder, options.small, options.repeats)
        figures += figures_of_epochs(folder, options.repeats)
    del options.folder, options.population  # they say nothing of the figures
    report("scaling", options, load, figures)


if __name__ == "__main__":
    main()
