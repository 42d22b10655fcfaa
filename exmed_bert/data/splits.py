"""Who is trained on, who is validated on, who is tested on: decided by a hash of the patient's id, for good."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from exmed_bert.data.labelled import TEST, TRAIN, VALIDATION
from exmed_bert.data.randomness import uniform

# Each decision draws from a stream of its own, apart from any others of the same seed.
_TRAINING_STREAM, _HELD_OUT_STREAM = 1, 2

_VALIDATION_SHARE = 1 / 3  # of the patients that nothing was trained on; the rest are test patients
_UNKNOWN_TRAINING, _UNKNOWN_VALIDATION = 0.7, 0.8  # where nobody knows whom the pretraining saw


@dataclass(frozen=True)
class SplitRule:
    """Which patients a conversion puts into the training split.

    Attributes:
        seed: of the conversion.
        train_ratio: share of the training split.
    """

    seed: int
    train_ratio: float

    def trains_on(self, keys: np.ndarray) -> np.ndarray:
        """Return for each patient's key, (N,), whether the patient is trained on, (N,) bool."""
        return uniform(self.seed, _TRAINING_STREAM, keys) < self.train_ratio

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a plain dict."""
        return asdict(self)


def assign_splits(keys: np.ndarray, pretraining: Sequence[SplitRule] | None, seed: int) -> np.ndarray:
    """Return the split of each patient, (N,) int8.

    A pretraining has seen the whole histories of its patients, and so what is to be predicted of them. So they are
    all training patients; validation and test patients are drawn from the others.

    Args:
        keys: (N,) `randomness.patient_keys`; the rows of one patient come into one split.
        pretraining: whom each pretraining of the model trained on; None where that is not known. Then seven tenths
            train, one tenth validates, and the test patients may have been seen.
        seed: divides validation from test patients.
    """
    draw = uniform(seed, _HELD_OUT_STREAM, keys)
    if pretraining is None:
        held_out = np.where(draw < _UNKNOWN_VALIDATION, VALIDATION, TEST)
        return np.where(draw < _UNKNOWN_TRAINING, TRAIN, held_out).astype(np.int8)
    seen = np.zeros(len(keys), dtype=bool)
    for rule in pretraining:
        seen |= rule.trains_on(keys)
    return np.where(seen, TRAIN, np.where(draw < _VALIDATION_SHARE, VALIDATION, TEST)).astype(np.int8)
