"""Training, validation and test patients of a cohort, decided by a hash of the patient's id or by the input."""

from collections.abc import Sequence

import numpy as np

from exmed_bert.cohorts.labeled import TEST, TRAIN, VALIDATION
from exmed_bert.data.randomness import uniform
from exmed_bert.data.splits import InputSplit, SplitRule

_HELD_OUT_STREAM = 2  # apart from any other draws of the same seed

_VALIDATION_SHARE = 1 / 3  # of the patients that no pretraining was trained on; the rest are test patients
_UNKNOWN_TRAINING, _UNKNOWN_VALIDATION = 0.7, 0.8  # where it is not known which patients the pretraining saw


def assign_splits(
    hashes: np.ndarray, pretraining: Sequence[SplitRule] | None, seed: int, of_input: np.ndarray | None = None
) -> np.ndarray:
    """Return the split of each patient, (N,) int8.

    A pretraining has seen the whole histories of its patients, the outcomes included. So they are all training
    patients; validation and test patients are drawn from the others or, where a pretraining took the splits of its
    input, are those in the tuning and held-out splits of the cohort's input.

    Args:
        hashes: (N,) `randomness.hash_patient_ids`; the rows of one patient come into one split.
        pretraining: which patients each pretraining of the model trained on; None where that is not known. Then seven
            tenths train, one tenth validates, and the test patients may have been seen.
        seed: divides validation from test patients.
        of_input: (N,) int8, `InputSplit`, none of them unknown; needed where a pretraining took its input's splits.
    """
    draw = uniform(seed, _HELD_OUT_STREAM, hashes)
    if pretraining is None:
        held_out = np.where(draw < _UNKNOWN_VALIDATION, VALIDATION, TEST)
        return np.where(draw < _UNKNOWN_TRAINING, TRAIN, held_out).astype(np.int8)
    seen = np.zeros(len(hashes), dtype=bool)
    for rule in pretraining:
        seen |= rule.trains_on(hashes, of_input)
    from_input = any(rule.from_input for rule in pretraining)
    validated = of_input == InputSplit.TUNING if from_input else draw < _VALIDATION_SHARE
    return np.where(seen, TRAIN, np.where(validated, VALIDATION, TEST)).astype(np.int8)
