"""Which patients a conversion trains on: decided by a hash of the patient's id, or by the input, for good."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

from exmed_bert.console import InputError
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
    """Which patients a conversion puts into the training split, and which into the validation split.

    Attributes:
        seed: of the conversion.
        train_ratio: share of the training split.
        from_input: the splits are those of the input; seed and share decide nothing. See `FROM_INPUT`.
    """

    seed: int
    train_ratio: float
    from_input: bool = False

    def splits(self, hashes: np.ndarray, of_input: np.ndarray | None = None) -> np.ndarray:
        """Return the split of each patient, (N,) int8, `InputSplit`.

        Args:
            hashes: (N,) int64, `randomness.hash_patient_ids`.
            of_input: (N,) int8, the splits of the input; a rule by hash needs none.

        >>> SplitRule(42, 0.8).splits(np.arange(4)).tolist()
        [0, 0, 1, 0]
        >>> FROM_INPUT.splits(np.arange(4), np.array([2, 0, 1, -1])).tolist()
        [2, 0, 1, -1]
        """
        if self.from_input:
            if of_input is None:
                raise ValueError("the splits of the input are needed")
            return of_input
        trained_on = uniform(self.seed, _TRAINING_STREAM, hashes) < self.train_ratio
        return np.where(trained_on, InputSplit.TRAIN, InputSplit.TUNING).astype(np.int8)

    def trains_on(self, hashes: np.ndarray, of_input: np.ndarray | None = None) -> np.ndarray:
        """Return for each patient whether it is trained on, (N,) bool; the arguments are those of `splits`."""
        return self.splits(hashes, of_input) == InputSplit.TRAIN

    def to_dict(self) -> dict[str, Any]:
        """Return what decides the splits as a plain dict."""
        return {"from_input": True} if self.from_input else {"seed": self.seed, "train_ratio": self.train_ratio}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "SplitRule":
        """Read what `to_dict` returned.

        Raises:
            TypeError: it is something else.
        """
        return FROM_INPUT if dict(content) == {"from_input": True} else cls(**content)


FROM_INPUT = SplitRule(seed=0, train_ratio=0.0, from_input=True)


def needed_splits(where: object, splits: np.ndarray | None, needed_by: str) -> np.ndarray:
    """Return the splits of an input.

    Args:
        where: the input.
        splits: of its patients, None where it knows none.
        needed_by: who needs them, for the error.

    Raises:
        InputError: the input knows no splits.
    """
    if splits is None:
        expected = ", ".join(split.name.lower() for split in InputSplit if split >= 0)
        raise InputError(f"{where}: puts no patient into a split, expected {expected}, which {needed_by} needs")
    return splits
