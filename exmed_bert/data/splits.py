"""Which patients a conversion trains on: decided by a hash of the patient's id, for good."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from exmed_bert.data.randomness import uniform

_TRAINING_STREAM = 1  # each decision draws from a stream of its own, apart from any others of the same seed


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
