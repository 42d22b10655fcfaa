"""Which patients a conversion trains on: decided by a hash of the patient's id, for good."""

from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any

import numpy as np

from exmed_bert.data.randomness import uniform

_TRAINING_STREAM = 1  # each decision draws from a stream of its own, apart from any others of the same seed


class InputSplit(IntEnum):
    """The splits that an input can put its patients into, named as in MEDS.

    >>> InputSplit["HELD_OUT"], "tuning".upper() in InputSplit.__members__
    (<InputSplit.HELD_OUT: 2>, True)
    """

    UNKNOWN = -1  # in none
    TRAIN = 0
    TUNING = 1  # to validate on
    HELD_OUT = 2  # for the last test alone


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
