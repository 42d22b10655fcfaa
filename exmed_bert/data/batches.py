"""Batches: which patients go together, and the tensors that the models take."""

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import BatchSampler

from exmed_bert.data.dataset import DatasetInfo, PaddedBatch
from exmed_bert.data.forecast import Forecasts, draw_forecasts
from exmed_bert.data.masking import IGNORED, VALIDATION_EPOCH, mask_batch
from exmed_bert.data.vocabulary import MASK

# Patients are sorted by length within pools of this many batches: enough to leave little padding, few enough that
# which patients meet in a batch stays random.
_POOL_BATCHES = 64


class LengthGroupedBatchSampler(BatchSampler):
    """Draws batches of patients of similar length, in an order that depends on the seed and the epoch alone."""

    def __init__(self, lengths: np.ndarray, batch_size: int, seed: int) -> None:
        """Take the tokens of each patient, (N,)."""
        self.lengths = lengths
        self.batch_size = batch_size
        self.drop_last = False
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order, batches = self._arrangement()
        for batch in batches.tolist():
            yield order[batch * self.batch_size : (batch + 1) * self.batch_size].tolist()

    def padding_fraction(self) -> float:
        """Return the share of padding among all positions of an epoch, 0 to 1."""
        order, _ = self._arrangement()
        starts = np.arange(0, len(order), self.batch_size)
        patients = np.diff(starts, append=len(order))
        positions = int(np.maximum.reduceat(self.lengths[order], starts) @ patients) if len(order) else 0
        return 1 - int(self.lengths.sum()) / positions if positions else 0.0

    def _arrangement(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the patients, those of a batch next to each other, and the order in which the batches come."""
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(len(self.lengths))
        number_of_pool = np.arange(len(order)) // (self.batch_size * _POOL_BATCHES)
        order = order[np.lexsort((self.lengths[order], number_of_pool))]
        return order, rng.permutation(len(self))


class MaskedCodeCollator:
    """Turns a padded batch of columns into what `ExMedBertForMaskedLM` takes, codes masked."""

    def __init__(
        self, info: DatasetInfo, plos: bool, validation: bool = False, forecast_prob: float = 0.0, seed: int = 0
    ) -> None:
        """Set how to mask.

        Args:
            info: of the dataset: masking, vocabulary.
            plos: also give the length-of-stay labels.
            validation: use the fixed masks of validation.
            forecast_prob: share of the patients with a forecast (`forecast.draw_forecasts`) in place of what is hidden.
            seed: what these depend on.
        """
        self.forecast_prob = forecast_prob
        self.seed = seed
        self.masking = info.masking
        self.vocabulary_size = len(info.vocabulary)
        self.plos = plos
        self.epoch = VALIDATION_EPOCH if validation else 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose masks come next."""
        self.epoch = epoch

    def __call__(self, batch: PaddedBatch) -> dict[str, torch.Tensor]:
        """Return tensors, all int64: (B, L) a token, (B, 1) for sex and state, (B,) a patient."""
        if self.masking.mode == "static":
            inputs, labels = batch.shown_codes, np.where(batch.masked, batch.codes, IGNORED)
        else:
            inputs, labels = mask_batch(
                batch.codes, batch.lengths, batch.keys, self.masking, self.epoch, self.vocabulary_size
            )
        fields = model_fields(batch, inputs) | {"code_labels": labels}
        if self.forecast_prob:
            _insert_forecasts(fields, batch, draw_forecasts(batch, self.forecast_prob, self.seed, self.epoch))
        if self.plos:
            fields["plos_label"] = np.where(batch.plos < 0, IGNORED, batch.plos)
        return as_tensors(fields)


def _insert_forecasts(fields: dict[str, np.ndarray], batch: PaddedBatch, forecasts: Forecasts) -> None:
    """Cut histories and put the question after the cut, in place; add what is to be answered."""
    rows, cuts = forecasts.rows, forecasts.cuts
    seen = np.arange(batch.codes.shape[1]) < cuts[:, None]
    for name, column in (
        ("input_ids", batch.codes),
        ("entity_ids", batch.entities),
        ("age_ids", batch.ages),
        ("position_ids", batch.positions),
    ):
        fields[name] = fields[name].astype(np.int64)  # a copy
        fields[name][rows] = column[rows] * seen
    fields["attention_mask"][rows] = seen
    fields["code_labels"][rows] = IGNORED
    fields["input_ids"][rows, cuts] = MASK
    fields["entity_ids"][rows, cuts] = forecasts.entities
    fields["age_ids"][rows, cuts] = batch.ages[rows, cuts - 1]
    fields["position_ids"][rows, cuts] = batch.positions[rows, cuts - 1].astype(np.int64) + 1
    fields["attention_mask"][rows, cuts] = True
    fields["query_positions"] = np.full(len(batch.codes), IGNORED)
    fields["query_positions"][rows] = cuts
    fields["future_codes"] = np.full(batch.codes.shape, IGNORED)
    fields["future_codes"][rows] = np.where(forecasts.future, batch.codes[rows], IGNORED)


def model_fields(batch: PaddedBatch, codes: np.ndarray) -> dict[str, np.ndarray]:
    """Return what every model takes of a padded batch: (B, L) a token, (B, 1) for sex and state."""
    return {
        "input_ids": codes,
        "entity_ids": batch.entities,
        "age_ids": batch.ages,
        "sex_ids": batch.sexes[:, None],
        "state_ids": batch.states[:, None],
        "position_ids": batch.positions,
        "attention_mask": np.arange(batch.codes.shape[1]) < batch.lengths[:, None],
    }


def as_tensors(fields: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Return the same as int64 tensors."""
    return {name: torch.from_numpy(np.asarray(values, dtype=np.int64)) for name, values in fields.items()}
