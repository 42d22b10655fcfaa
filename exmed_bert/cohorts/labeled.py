"""Labeled patients, histories up to an index date and whether the outcome occurred after it, and cohorts of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from exmed_bert.cohorts.observation import NEVER
from exmed_bert.reporting.small_cells import ALL, MinCell

if TYPE_CHECKING:
    from exmed_bert.data.dataset import PatientDataset

TRAIN, VALIDATION, TEST = 0, 1, 2
SPLITS = ("train", "validation", "test")  # by number
UNLABELED = -1  # the label of patients whose outcome is not known: censored, or to be predicted


@dataclass(frozen=True)
class Timeline:
    """What followed N index dates, (N,) int32 days since 1970-01-01 each, `NEVER` for what is not known to have.

    Attributes:
        outcome_days: the first day of the outcome after the index date, as far as it was observed; none for outcomes
            of which only a label is known.
        observed_until: the day on which observation ends, with death at the latest.
        death_days: the day of death.
    """

    outcome_days: np.ndarray
    observed_until: np.ndarray
    death_days: np.ndarray

    @classmethod
    def unknown(cls, n: int) -> Timeline:
        """Return that of N index dates of which only the labels are known."""
        return cls(*(np.full(n, NEVER, dtype=np.int32) for _ in range(3)))

    @classmethod
    def joined(cls, parts: Sequence[Timeline]) -> Timeline:
        """Return that of all rows of several parts."""
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in cls.__annotations__})

    def take(self, rows: np.ndarray) -> Timeline:
        """Return that of the given rows, in that order."""
        return Timeline(**{name: days[rows] for name, days in vars(self).items()})


@dataclass(frozen=True)
class LabeledPatients:
    """N histories and their labels; a patient with several index dates has as many rows.

    Attributes:
        dataset: the histories, N patients; nothing in them is later than the index date.
        labels: (N,) int8, 1 the outcome occurred, 0 it did not, `UNLABELED` where it is not known.
        index_days: (N,) int32, the index date of each in days since 1970-01-01.
        splits: (N,) int8, TRAIN, VALIDATION or TEST.
        timeline: what followed the index dates.
        weights: (N,) what each patient counts where some are censored, None where all count the same.
    """

    dataset: PatientDataset
    labels: np.ndarray
    index_days: np.ndarray
    splits: np.ndarray
    timeline: Timeline
    weights: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, split: int) -> np.ndarray:
        """Return the indices of the rows of a split, (n,) int64."""
        return np.flatnonzero(self.splits == split)

    def known_rows(self, split: int) -> np.ndarray:
        """Return those of a split whose outcome is known."""
        return np.flatnonzero((self.splits == split) & (self.labels != UNLABELED))

    def weights_of(self, rows: np.ndarray) -> np.ndarray | None:
        """Return what each of some rows counts, 1 on average; None where all count the same."""
        if self.weights is None:
            return None
        own = self.weights[rows]
        return own / own.mean()


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
        observation: rows by what begins and what ends their observation.
        same_day: whether histories hold the events of the prediction day.
        meta: what our generator says of the patients, {} of others.
    """

    patients: LabeledPatients
    attrition: list[tuple[str, int]]
    new_codes: tuple[str, ...]
    cells: MinCell = ALL
    generated: bool = False
    observation: Counter[tuple[str, str]] = field(default_factory=Counter)
    same_day: bool = True
    meta: Mapping[str, Any] = field(default_factory=dict)
