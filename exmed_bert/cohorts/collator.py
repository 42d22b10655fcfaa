"""Batches for fine-tuning: histories, their labels and, for an endpoint of codes, the question at their end."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from exmed_bert.cohorts.labeled import LabeledPatients
from exmed_bert.data.batches import as_tensors, model_fields
from exmed_bert.data.dataset import PaddedBatch
from exmed_bert.data.vocabulary import MASK, age_ids


@dataclass(frozen=True)
class LabeledBatch:
    """B patients: their histories, (B,) labels, and (B,) age ids at the index date."""

    histories: PaddedBatch
    labels: np.ndarray
    ages: np.ndarray


class LabeledRows(torch.utils.data.Dataset):
    """Some of the labeled patients, in the form that a loader takes."""

    def __init__(self, patients: LabeledPatients, rows: np.ndarray) -> None:
        """Take N patients and the indices of those that are meant, (n,)."""
        self.patients = patients
        self.rows = rows
        months = patients.index_days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
        years = months // 12 + 1970 - patients.dataset.columns["birth_years"].numpy()
        self._ages = age_ids(years, months % 12, patients.dataset.info.age_unit)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each history, (n,) int64."""
        return self.patients.dataset.lengths[self.rows]

    @property
    def labels(self) -> np.ndarray:
        """Their labels, (n,)."""
        return self.patients.labels[self.rows]

    def __getitems__(self, indices: Sequence[int]) -> LabeledBatch:
        """Return patients as one padded batch. torch's loader calls this with the indices of a whole batch."""
        rows = self.rows[np.asarray(indices, dtype=np.int64)]
        return LabeledBatch(self.patients.dataset.__getitems__(rows), self.patients.labels[rows], self._ages[rows])


class PromptCollator:
    """Turns a batch into what `ExMedBertForSequenceClassification` takes.

    The question is a MASK at the end of the history for each code system in question: a visit later than the last, at
    the age that the patient has at the index date.
    """

    def __init__(self, entities: Sequence[int], last_position: int) -> None:
        """Set the question.

        Args:
            entities: entity type of each MASK; none where nothing is asked.
            last_position: largest visit number that the model knows.
        """
        self.entities = list(entities)
        self.last_position = last_position

    def __call__(self, batch: LabeledBatch) -> dict[str, torch.Tensor]:
        """Return tensors, all int64: (B, L + questions) a token, (B, 1) for sex and state, (B,) ``labels``."""
        histories = batch.histories
        fields = model_fields(histories, histories.codes.astype(np.int64))
        n = len(histories.lengths)
        rows = np.arange(n)
        last = histories.positions[rows, np.maximum(histories.lengths - 1, 0)].astype(np.int64)
        for i, entity in enumerate(self.entities):
            asked = {
                "input_ids": MASK,
                "entity_ids": entity,
                "age_ids": batch.ages,
                "position_ids": np.minimum(last + 1, self.last_position),
                "attention_mask": 1,
            }
            for name, values in asked.items():
                longer = np.zeros((n, fields[name].shape[1] + 1), dtype=np.int64)
                longer[:, :-1] = fields[name]
                longer[rows, histories.lengths + i] = values
                fields[name] = longer
        return as_tensors(fields | {"labels": batch.labels})
