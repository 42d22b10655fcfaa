"""Batches for fine-tuning: histories, labels and, for a task with target codes, the prompt at the end of a history."""

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
    """B histories, (B,) labels, and (B,) age ids at the index date."""

    histories: PaddedBatch
    labels: np.ndarray
    ages: np.ndarray


class LabeledRows(torch.utils.data.Dataset):
    """Rows of labeled patients, as a torch dataset."""

    def __init__(self, patients: LabeledPatients, rows: np.ndarray) -> None:
        """Take N patients and the indices of the rows to use, (n,)."""
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
        """Labels, (n,)."""
        return self.patients.labels[self.rows]

    def __getitems__(self, indices: Sequence[int]) -> LabeledBatch:
        """Return patients as one padded batch. torch's loader calls this with the indices of a whole batch."""
        rows = self.rows[np.asarray(indices, dtype=np.int64)]
        return LabeledBatch(self.patients.dataset.__getitems__(rows), self.patients.labels[rows], self._ages[rows])


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
        """Return tensors, all int64: (B, L + prompt) per token, (B, 1) for sex and state, (B,) ``labels``."""
        histories = batch.histories
        fields = model_fields(histories, histories.codes.astype(np.int64))
        n = len(histories.lengths)
        rows = np.arange(n)
        last = histories.positions[rows, np.maximum(histories.lengths - 1, 0)].astype(np.int64)
        for i, entity in enumerate(self.entities):
            query = {
                "input_ids": MASK,
                "entity_ids": entity,
                "age_ids": batch.ages,
                "position_ids": np.minimum(last + 1, self.last_position),
                "attention_mask": 1,
            }
            for name, values in query.items():
                longer = np.zeros((n, fields[name].shape[1] + 1), dtype=np.int64)
                longer[:, :-1] = fields[name]
                longer[rows, histories.lengths + i] = values
                fields[name] = longer
        return as_tensors(fields | {"labels": batch.labels})
