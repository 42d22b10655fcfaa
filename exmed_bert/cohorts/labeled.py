"""Labeled patients, histories up to an index date and whether the outcome occurred after it, and cohorts of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from exmed_bert.reporting.small_cells import ALL, MinCell

if TYPE_CHECKING:
    from exmed_bert.data.dataset import PatientDataset

TRAIN, VALIDATION, TEST = 0, 1, 2
SPLITS = ("train", "validation", "test")  # by number


@dataclass(frozen=True)
class LabeledPatients:
    """N histories and their labels; a patient with several index dates has as many rows.

    Attributes:
        dataset: the histories, N patients; nothing in them is later than the index date.
        labels: (N,) int8, 1 the outcome occurred, 0 it did not.
        index_days: (N,) int32, the index date of each in days since 1970-01-01.
        splits: (N,) int8, TRAIN, VALIDATION or TEST.
    """

    dataset: PatientDataset
    labels: np.ndarray
    index_days: np.ndarray
    splits: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, split: int) -> np.ndarray:
        """Return the indices of the rows of a split, (n,) int64."""
        return np.flatnonzero(self.splits == split)


@dataclass(frozen=True)
class Cohort:
    """Labeled patients, and the attrition on the way to them.

    Attributes:
        patients: a row per prediction time, with its split; labels may be `UNLABELED`.
        attrition: what was counted, how many. The patients read, less those of all rows ``excluded: reason``, are the
            patients left.
        new_codes: tokens of codes that the model's vocabulary does not hold; they stand at the end of the new one.
        cells: which counts of these patients are hidden in reports; ``attrition`` has them all.
        generated: whether our generator made the patients.
    """

    patients: LabeledPatients
    attrition: list[tuple[str, int]]
    new_codes: tuple[str, ...]
    cells: MinCell = ALL
    generated: bool = False
