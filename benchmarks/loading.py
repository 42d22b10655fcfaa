"""Measure how fast batches for training are made: 256 patients from the dataset, padded, masked anew, as tensors.

    python benchmarks/loading.py

A repetition is an epoch of the training data in a new order with new masks, in one process; choosing the order itself
is not counted. "In training" are the sampler's batches of similar length, "at random" any 256 patients together.
The start of an epoch is opening a dataset of a million patients (those of the first one, repeated), deciding the order
and making the first batch.
The patients are the bounded ones, so that figures compare with earlier ones.
"""

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from common import Measurement, generate, load_average, options, report

if TYPE_CHECKING:
    from exmed_bert.data.dataset import PatientDataset

BATCH = 256
MILLION = 1_000_000


def rates(dataset: "PatientDataset", grouped: bool, repeats: int) -> list[float]:
    """Return patients a second for each of ``repeats`` epochs, after one that does not count."""
    from exmed_bert.data.batches import LengthGroupedBatchSampler, MaskedCodeCollator

    sampler = LengthGroupedBatchSampler(dataset.lengths, BATCH, seed=42)
    collate = MaskedCodeCollator(dataset.info, plos=True)
    samples = []
    for epoch in range(repeats + 1):
        sampler.set_epoch(epoch)
        collate.set_epoch(epoch)
        order = np.random.default_rng(epoch).permutation(len(dataset))
        at_random = [order[start : start + BATCH].tolist() for start in range(0, len(order), BATCH)]
        batches = list(sampler) if grouped else at_random
        start = time.perf_counter()
        for batch in batches:
            collate(dataset.batch(batch))
        samples.append(len(dataset) / (time.perf_counter() - start))
    return samples[1:]


def of_full_length(dataset: "PatientDataset") -> "PatientDataset":
    """Return the same codes cut anew into patients who all have ``max_length``, the most that a batch can hold."""
    import torch

    from exmed_bert.data.dataset import PatientDataset

    offsets = torch.arange(0, len(dataset.columns["codes"]) + 1, dataset.info.max_length)
    return PatientDataset(dataset.info, dataset.columns | {"offsets": offsets})


def starts(dataset: "PatientDataset", folder: Path, batch_size: int, repeats: int) -> list[float]:
    """Return the seconds until the first batch of an epoch over a million patients."""
    from exmed_bert.data.batches import LengthGroupedBatchSampler, MaskedCodeCollator
    from exmed_bert.data.dataset import PatientDataset

    path = folder / "million.pt"
    if not path.exists():
        dataset.subset(np.resize(np.arange(len(dataset)), MILLION)).save(path)
    samples = []
    for _ in range(repeats):
        start = time.perf_counter()
        million = PatientDataset.load(path)
        order = iter(LengthGroupedBatchSampler(million.lengths, batch_size, seed=42))
        MaskedCodeCollator(million.info, plos=True)(million.batch(next(order)))
        samples.append(time.perf_counter() - start)
    return samples


def main() -> None:
    """Convert the same patients at both lengths and read them."""
    given = options(__doc__, patients=10_000)
    load = load_average()
    from exmed_bert.data.convert import convert
    from exmed_bert.data.dataset import PatientDataset
    from exmed_bert.settings import ConvertSettings

    figures = []
    with tempfile.TemporaryDirectory() as folder:
        patients = generate(Path(folder) / "patients.json", given.patients)
        for max_length in (50, 512):
            output = Path(folder) / f"dataset_{max_length}.pt"
            made = convert(ConvertSettings(input=patients, output=output, max_length=max_length))
            dataset = PatientDataset.load(made.paths["train"])
            codes = f"max_length {max_length} ({dataset.lengths.mean():.0f} codes each)"
            for order, grouped in (("in training", True), ("at random", False)):
                samples = rates(dataset, grouped, given.repeats)
                figures.append(Measurement(f"batches {order}, {codes}", samples, "patients/s", at_least=200_000))
                figures.append(Measurement("  in batches", [rate / BATCH for rate in samples], "batches/s"))
        full = of_full_length(dataset)
        samples = rates(full, True, given.repeats)
        figures.append(Measurement(f"batches of patients with {max_length} codes each", samples, "patients/s"))
        for batch_size in (2, 16, BATCH):
            samples = starts(dataset, Path(folder), batch_size, given.repeats)
            name = f"start of an epoch, {MILLION:,} patients, batches of {batch_size}"
            figures.append(Measurement(name, samples, "s", at_most=2))
    report("loading", given, load, figures)


if __name__ == "__main__":
    main()
