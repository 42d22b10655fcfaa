"""Questions about what comes: a history is cut at a visit, and a MASK after the cut stands for a code that is new then.

Masked-code prediction hides codes in the middle of a history, where most stand elsewhere too; which code will come for
the first time is seldom asked. Here it is asked in the very form in which fine-tuning asks it.
"""

from dataclasses import dataclass

import numpy as np

from exmed_bert.data.dataset import PaddedBatch
from exmed_bert.data.randomness import mix, to_uniform
from exmed_bert.data.vocabulary import SPECIAL_TOKENS, AgeUnit

_STREAM = 5
_YEAR = {"years": 1, "months": 12}


@dataclass(frozen=True)
class Ahead:
    """The patients of a batch who are asked.

    Attributes:
        rows: (n,) which.
        cuts: (n,) the first column that is cut off, where the question is put; never 0.
        targets: (n,) the column of the code that is the answer.
    """

    rows: np.ndarray
    cuts: np.ndarray
    targets: np.ndarray


def ask_ahead(batch: PaddedBatch, share: float, seed: int, epoch: int, unit: AgeUnit) -> Ahead:
    """Draw patients, visits and codes as a function of seed, epoch and patient alone.

    A visit after the first is drawn; the answer is one of the codes that come for the first time at it or within a
    year of age later. Who has none is not asked.

    Args:
        batch: B patients.
        share: of the patients, as far as they can be asked.
        seed, epoch: what is drawn depends on.
        unit: of the ages.
    """
    n, width = batch.codes.shape
    draws = mix(seed, _STREAM, epoch, batch.keys)
    visits = np.where(batch.codes != 0, batch.positions, 0).astype(np.int64).max(axis=1, initial=0)
    visit = 2 + (to_uniform(mix(draws, 1)) * np.maximum(visits - 1, 1)).astype(np.int64)
    real = np.arange(width) < batch.lengths[:, None]
    cut = ((batch.positions < visit[:, None]) & real).sum(axis=1)  # tokens are in order of time

    earlier = np.tri(width, k=-1, dtype=bool)  # [j, i]: i before j
    same = batch.codes[:, :, None] == batch.codes[:, None, :]
    first = ~(same & earlier).any(axis=2) & real & (batch.codes >= len(SPECIAL_TOKENS))
    age = batch.ages[np.arange(n), np.maximum(cut - 1, 0)].astype(np.int64)
    soon = batch.ages <= age[:, None] + _YEAR[unit]
    candidate = first & soon & (np.arange(width) >= cut[:, None])
    asked = candidate.any(axis=1) & (cut > 0) & (to_uniform(mix(draws, 2)) < share)
    order = np.where(candidate, mix(draws[:, None], 3, np.arange(width)), np.uint64(0))
    rows = np.flatnonzero(asked)
    return Ahead(rows, cut[rows], order[rows].argmax(axis=1))
