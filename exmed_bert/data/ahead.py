"""Questions about what comes: a history is cut after a visit, and a MASK after the cut stands for the year after.

Masked-code prediction hides codes in the middle of a history, where most stand elsewhere too; which code will come for
the first time is seldom asked, and how likely any is to come, never. Here it is asked in the very form in which
fine-tuning asks it, of all codes at once.
"""

from dataclasses import dataclass

import numpy as np

from exmed_bert.data.dataset import PaddedBatch
from exmed_bert.data.randomness import mix, to_uniform
from exmed_bert.data.vocabulary import ENTITY_ID, SPECIAL_TOKENS

YEAR = 365  # days
_STREAM = 5
_LAST_SHARE = 0.5  # of the questions is put at the last visit with a year behind it, where predictions are made
_ENTITIES = np.array([ENTITY_ID["icd"], ENTITY_ID["atc"]])


@dataclass(frozen=True)
class Ahead:
    """The patients of a batch who are asked.

    Attributes:
        rows: (n,) which.
        cuts: (n,) the first column that is cut off, where the question is put; never 0.
        entities: (n,) the entity type that the question shows, drawn: fine-tuning asks about either.
        coming: (n, L) whether a column holds the first of a code that comes within a year.
    """

    rows: np.ndarray
    cuts: np.ndarray
    entities: np.ndarray
    coming: np.ndarray


def ask_ahead(batch: PaddedBatch, share: float, seed: int, epoch: int) -> Ahead:
    """Draw patients and visits as a function of seed, epoch and patient alone.

    One of the visits is drawn that have a year of the patient's own observation behind them, so that what did not come
    is known not to have come; half of the time the last of these, since early in a history much comes for the first
    time that was there before. What comes are the codes that stand for the first time in that year. Who has no such
    visit is not asked.

    Args:
        batch: B patients.
        share: of the patients, as far as they can be asked.
        seed, epoch: what is drawn depends on.
    """
    width = batch.codes.shape[1]
    draws = mix(seed, _STREAM, epoch, batch.keys)
    real = np.arange(width) < batch.lengths[:, None]
    days = batch.days.astype(np.int64)
    last_day = np.where(real, days, np.iinfo(np.int64).min).max(axis=1, initial=np.iinfo(np.int64).min)
    followed = real & (days + YEAR <= last_day[:, None])
    visits = np.where(followed, batch.positions, 0).astype(np.int64).max(axis=1, initial=0)
    any_visit = 1 + (to_uniform(mix(draws, 1)) * visits).astype(np.int64)
    visit = np.where(to_uniform(mix(draws, 4)) < _LAST_SHARE, np.maximum(visits, 1), any_visit)
    rows = np.flatnonzero((visits > 0) & (to_uniform(mix(draws, 2)) < share))

    real, codes, days = real[rows], batch.codes[rows], days[rows]
    cuts = ((batch.positions[rows] <= visit[rows, None]) & real).sum(axis=1)  # tokens are in order of time
    earlier = np.tri(width, k=-1, dtype=bool)  # [j, i]: i before j
    first = ~((codes[:, :, None] == codes[:, None, :]) & earlier).any(axis=2) & (codes >= len(SPECIAL_TOKENS))
    soon = days <= days[np.arange(len(rows)), cuts - 1][:, None] + YEAR
    coming = first & soon & real & (np.arange(width) >= cuts[:, None])
    entities = _ENTITIES[(mix(draws[rows], 3) % np.uint64(len(_ENTITIES))).astype(np.int64)]
    return Ahead(rows, cuts, entities, coming)
