"""Batches for fine-tuning: histories, labels and, for a task with target codes, the prompt at the end of a history."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from exmed_bert.cohorts.labeled import LabeledPatients
from exmed_bert.data.ages import ages_on
from exmed_bert.data.batches import as_tensors, model_fields, put_query
from exmed_bert.data.dataset import PaddedBatch
from exmed_bert.data.patient import BIRTH_DATE, NO_DAY


@dataclass(frozen=True)
class LabeledBatch:
    """B histories, the targets of a loss, and of the index dates age ids and days since 1970-01-01, (B, ...) each.

    ``weights``, (B,), say what each counts, None where all count the same.
    """

    histories: PaddedBatch
    targets: np.ndarray
    ages: np.ndarray
    days: np.ndarray
    weights: np.ndarray | None = None


class LabeledRows(torch.utils.data.Dataset):
    """Rows of labeled patients, as a torch dataset."""

    def __init__(self, patients: LabeledPatients, rows: np.ndarray, targets: np.ndarray | None = None) -> None:
        """Choose rows.

        Args:
            patients: N of them.
            rows: (n,) indices of the rows to use.
            targets: (N, ...) what a loss compares with; None: the labels.
        """
        self.patients = patients
        self.rows = rows
        self.weights = patients.weights_of(rows)
        self._targets = patients.labels if targets is None else targets
        columns = patients.dataset.arrays
        born = columns.get(BIRTH_DATE, np.full(len(patients), NO_DAY, dtype=np.int32))
        self._ages = ages_on(patients.index_days, columns["birth_years"], born, patients.dataset.info.age_unit)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each history, (n,) int64."""
        return self.patients.dataset.lengths[self.rows]

    @property
    def labels(self) -> np.ndarray:
        """Labels, (n,)."""
        return self.patients.labels[self.rows]

    @property
    def targets(self) -> np.ndarray:
        """What a loss compares with, (n, ...)."""
        return self._targets[self.rows]

    def batch(self, indices: Sequence[int] | np.ndarray) -> LabeledBatch:
        """Return patients as one padded batch."""
        chosen = np.asarray(indices, dtype=np.int64)
        patients, rows = self.patients, self.rows[chosen]
        return LabeledBatch(
            patients.dataset.batch(rows),
            self._targets[rows],
            self._ages[rows],
            patients.index_days[rows],
            None if self.weights is None else self.weights[chosen],
        )


class PromptCollator:
    """Turns a batch into what `ExMedBertForSequenceClassification` takes.

    The prompt is a MASK at the end of the history for each entity of the target codes: a visit later than the last, at
    the patient's age at the index date.
    """

    def __init__(self, entities: Sequence[int], last_position: int) -> None:
        """Set the prompt.

        Args:
            entities: entity type of each MASK; none without a prompt.
            last_position: largest visit number that the model knows.
        """
        self.entities = list(entities)
        self.last_position = last_position

    def __call__(self, batch: LabeledBatch) -> dict[str, torch.Tensor]:
        """Return int64 tensors: (B, L + prompt) per token, (B, 1) for static columns, the targets as ``labels``.

        Where patients do not count the same there are ``weights`` too, (B,) float32.
        """
        histories = batch.histories
        fields = model_fields(histories, histories.codes)
        n = len(histories.lengths)
        rows = np.arange(n)
        last = histories.visit_ids[rows, np.maximum(histories.lengths - 1, 0)]
        for name in ("input_ids", "entity_ids", "age_ids", "visit_ids", "visit_days", "attention_mask"):
            fields[name] = np.pad(fields[name].astype(np.int64), ((0, 0), (0, len(self.entities))))
        days = histories.days_since_first(batch.days)
        for i, entity in enumerate(self.entities):
            put_query(fields, rows, histories.lengths + i, entity, batch.ages, days, last, self.last_position)
        tensors = as_tensors(fields | {"labels": batch.targets})
        if batch.weights is not None:
            tensors["weights"] = torch.from_numpy(batch.weights.astype(np.float32))
        return tensors
