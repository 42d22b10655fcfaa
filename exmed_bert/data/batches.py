"""Batches: which patients go together, and the tensors that the models take."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler

from exmed_bert.data.ages import ages_on
from exmed_bert.data.code_groups import CodeGroups
from exmed_bert.data.dataset import PaddedBatch
from exmed_bert.data.dataset_info import DatasetInfo
from exmed_bert.data.forecast import Forecasts, draw_forecasts
from exmed_bert.data.masking import IGNORED, VALIDATION_EPOCH, mask_batch
from exmed_bert.data.patient import BIRTH_DATE, NO_DAY
from exmed_bert.data.vocabulary import DEFAULT_ENTITY, MASK, ORIGINAL_ENTITIES

_PER_TOKEN = ("input_ids", "entity_ids", "age_ids", "visit_ids", "visit_days", "attention_mask", "code_labels")
QUERY_ENTITY = ORIGINAL_ENTITIES.index(DEFAULT_ENTITY)  # of a forecast, which is of all code systems at once

# Patients are sorted by length within pools of this many batches: enough to leave little padding, few enough that
# which patients meet in a batch stays random.
_POOL_BATCHES = 64
_WORKED_ON_AT_ONCE = 2**18  # patients, for the memory of what is computed of them


class LengthGroupedBatchSampler(BatchSampler):
    """Draws batches of patients of similar length, in an order that depends on the seed and the epoch alone.

    An epoch's order takes four bytes per patient, and four per batch.
    """

    def __init__(self, lengths: np.ndarray, batch_size: int, seed: int) -> None:
        """Take the tokens of each patient, (N,) integers; those of two bytes are kept as they are."""
        self.lengths = lengths if lengths.itemsize <= 2 else lengths.astype(np.int32)
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
        for batch in map(int, batches):
            yield order[batch * self.batch_size : (batch + 1) * self.batch_size].tolist()

    def padding_fraction(self) -> float:
        """Return the share of padding among all positions of an epoch, 0 to 1."""
        order, _ = self._arrangement()
        positions = tokens = 0
        for start, end in self._blocks():
            lengths = self.lengths[order[start:end]].astype(np.int64)
            starts = np.arange(0, len(lengths), self.batch_size)
            positions += int(np.maximum.reduceat(lengths, starts) @ np.diff(starts, append=len(lengths)))
            tokens += int(lengths.sum())
        return 1 - tokens / positions if positions else 0.0

    def _arrangement(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the patients, those of a batch next to each other, and the order in which the batches come."""
        rng = np.random.default_rng([self.seed, self.epoch])
        order = _permutation(rng, len(self.lengths))
        pool = self.batch_size * _POOL_BATCHES
        for start, end in self._blocks():
            block = order[start:end]
            whole = len(block) // pool * pool
            for pools in (block[:whole].reshape(-1, pool), block[None, whole:]):
                by_length = np.argsort(self.lengths[pools], axis=1, kind="stable")
                pools[...] = np.take_along_axis(pools, by_length, axis=1)
        return order, _permutation(rng, len(self))

    def _blocks(self) -> Iterator[tuple[int, int]]:
        """Yield the first and the last place, exclusive, of so many pools as are worked on at once."""
        pool = self.batch_size * _POOL_BATCHES
        block = max(_WORKED_ON_AT_ONCE // pool, 1) * pool
        for start in range(0, len(self.lengths), block):
            yield start, min(start + block, len(self.lengths))


def _permutation(rng: np.random.Generator, count: int) -> np.ndarray:
    """Return what ``rng.permutation(count)`` returns, in the smallest type that holds it."""
    order = np.arange(count, dtype=np.int32 if count <= np.iinfo(np.int32).max else np.int64)
    rng.shuffle(order)
    return order


class BatchedRows(torch.utils.data.Dataset):
    """A view of patients for torch's loader that fetches a batch as columns, with the dataset's ``batch``."""

    def __init__(self, patients: Any) -> None:
        """Take a dataset with ``batch(rows)``, such as `PatientDataset`."""
        self.patients = patients

    def __len__(self) -> int:
        return len(self.patients)

    def __getitems__(self, rows: Sequence[int]) -> Any:
        """Return a batch of columns; torch's loader asks for it by this name."""
        return self.patients.batch(rows)


class MaskedCodeCollator:
    """Turns a padded batch of columns into what `ExMedBertForMaskedLM` takes, codes masked."""

    def __init__(
        self,
        info: DatasetInfo,
        plos: bool,
        validation: bool = False,
        forecast_prob: float = 0.0,
        seed: int = 0,
        groups: CodeGroups | None = None,
        same_fields: bool = False,
    ) -> None:
        """Set how to mask.

        Args:
            info: of the dataset: masking, vocabulary.
            plos: also give the length-of-stay labels.
            validation: use the fixed masks of validation.
            forecast_prob: share of the patients with a forecast (`forecast.draw_forecasts`).
            seed: the forecasts depend on it.
            groups: of codes, in the forecasts; None: none.
            same_fields: give those of forecasts also where a batch has none, and the model would compute for nothing:
                for processes that train together, which all need gradients of the same parameters.

        Raises:
            ValueError: the dataset is not for masked-code prediction.
        """
        self.forecast_prob = forecast_prob
        self.same_fields = same_fields
        self.seed = seed
        self.masking = info.needed_masking
        self.vocabulary_size = len(info.vocabulary)
        self.groups = CodeGroups.of(info.vocabulary, ()) if groups is None else groups
        self.info = info
        self.plos = plos
        self.epoch = VALIDATION_EPOCH if validation else 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose masks come next."""
        self.epoch = epoch

    def __call__(self, batch: PaddedBatch) -> dict[str, torch.Tensor]:
        """Return tensors, all int64: (B, L) per token, (B, 1) for static columns, (B,) per patient."""
        if self.masking.mode == "static":
            assert batch.shown_codes is not None and batch.masked is not None
            inputs, labels = batch.shown_codes, np.where(batch.masked, batch.codes, IGNORED)
        else:
            inputs, labels = mask_batch(
                batch.codes, batch.lengths, batch.patient_hashes, self.masking, self.epoch, self.vocabulary_size
            )
        fields = model_fields(batch, inputs) | {"code_labels": labels}
        if self.forecast_prob:
            drawn = draw_forecasts(batch, self.forecast_prob, self.groups, self.seed, self.epoch)
            if len(drawn.rows) or self.same_fields:
                fields = _with_forecasts(fields, batch, drawn, self.info)
        if self.plos:
            fields["plos_label"] = np.where(batch.plos < 0, IGNORED, batch.plos)
        return as_tensors(fields)


def _with_forecasts(
    fields: dict[str, np.ndarray], batch: PaddedBatch, forecasts: Forecasts, info: DatasetInfo
) -> dict[str, np.ndarray]:
    """Return the fields with histories cut, a query after each cut, and the targets of the forecasts.

    Codes that are masked in a history stay so: it serves both objectives.
    """
    rows, cuts = forecasts.rows, forecasts.cuts
    width = max(batch.codes.shape[1], int(cuts.max(initial=0)) + 1)
    unseen = np.zeros((len(batch.codes), width), dtype=bool)
    unseen[rows] = np.arange(width) >= cuts[:, None]
    cut = {}
    for name, values in fields.items():
        if name in _PER_TOKEN:
            nothing = IGNORED if name == "code_labels" else 0
            cut[name] = np.full(unseen.shape, nothing, dtype=np.int64)
            cut[name][:, : values.shape[1]] = values
            cut[name][unseen] = nothing
        else:
            cut[name] = values
    born = batch.periods.get(BIRTH_DATE, np.full(len(unseen), NO_DAY))
    ages = ages_on(forecasts.days, batch.birth_years[rows], born[rows], info.age_unit)
    since_first = forecasts.days - batch.days[rows, 0]
    put_query(cut, rows, cuts, QUERY_ENTITY, ages, since_first, batch.visit_ids[rows, cuts - 1], info.max_length)
    targets, days = (np.full((len(unseen), forecasts.targets.shape[1]), IGNORED) for _ in range(2))
    targets[rows], days[rows] = forecasts.targets, forecasts.target_days
    cut["query_positions"] = np.full(len(unseen), IGNORED)
    cut["query_positions"][rows] = cuts
    cut["observed_days"] = np.full(len(unseen), IGNORED)
    cut["observed_days"][rows] = forecasts.observed
    return cut | {"target_ids": targets, "target_days": days}


def put_query(
    fields: dict[str, np.ndarray],
    rows: np.ndarray,
    columns: np.ndarray,
    entities: np.ndarray | int,
    ages: np.ndarray,
    days: np.ndarray,
    last_visits: np.ndarray,
    most_visits: int | None = None,
) -> None:
    """Write a query behind histories, in place: a MASK at the prediction time, one visit after the last.

    Args:
        fields: (B, L) inputs of the model by name, all but ``attention_mask`` of int64.
        rows, columns: (n,) where the queries go.
        entities: (n,) their entity types, or one for all.
        ages: (n,) age ids at the prediction time.
        days: (n,) the prediction times, in days since the patients' first visits.
        last_visits: (n,) number of the last visit before.
        most_visits: largest visit number that the model knows; None where the histories leave room for one.
    """
    visits = last_visits.astype(np.int64) + 1
    fields["input_ids"][rows, columns] = MASK
    fields["entity_ids"][rows, columns] = entities
    fields["age_ids"][rows, columns] = ages
    fields["visit_days"][rows, columns] = days
    fields["visit_ids"][rows, columns] = visits if most_visits is None else np.minimum(visits, most_visits)
    fields["attention_mask"][rows, columns] = True


def model_fields(batch: PaddedBatch, codes: np.ndarray) -> dict[str, np.ndarray]:
    """Return what every model takes of a padded batch: (B, L) per token, (B, 1) for static columns."""
    return {
        "input_ids": codes,
        "entity_ids": batch.entities,
        "age_ids": batch.ages,
        **{f"{name}_ids": ids[:, None] for name, ids in batch.static.items()},
        "visit_ids": batch.visit_ids,
        "visit_days": batch.days_since_first(),
        "attention_mask": np.arange(batch.codes.shape[1]) < batch.lengths[:, None],
    }


def as_tensors(fields: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Return the same as int64 tensors."""
    return {name: torch.from_numpy(np.asarray(values, dtype=np.int64)) for name, values in fields.items()}
