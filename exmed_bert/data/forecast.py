"""Forecast targets: a history is cut after a visit, and a MASK after the cut stands for the following year.

Masked-code prediction hides codes in the middle of a history, where most occur elsewhere too; it seldom shows which
code occurs for the first time, and never how likely any code is. A forecast does, for all codes at once, in the form of
the prompt that fine-tuning appends to a history.
"""

from dataclasses import dataclass

import numpy as np

from exmed_bert.data.dataset import PaddedBatch
from exmed_bert.data.randomness import mix, to_uniform
from exmed_bert.data.vocabulary import SPECIAL_TOKENS

YEAR = 365  # days
_STREAM = 5
_LAST_SHARE = 0.5  # of the forecasts is made at the last visit with a year of follow-up, where predictions are made


@dataclass(frozen=True)
class Forecasts:
    """The patients of a batch with a forecast.

    Attributes:
        rows: (n,) which patients.
        cuts: (n,) the first column that is cut off, the position of the query; never 0.
        entities: (n,) the entity type of the query, drawn: fine-tuning asks about any.
        future: (n, L) whether a column holds the first occurrence of a code within the following year.
    """

    rows: np.ndarray
    cuts: np.ndarray
    entities: np.ndarray
    future: np.ndarray


def draw_forecasts(batch: PaddedBatch, share: float, entity_types: int, seed: int, epoch: int) -> Forecasts:
    """Draw patients and prediction times as a function of seed, epoch and patient alone.

    The prediction time is one of the visits with a year of follow-up, so that a code that does not occur is known not
    to have occurred; half of the time it is the last of them, since early in a history much occurs for the first time
    that was there before. Future codes are those that occur for the first time in that year. Patients without such a
    visit get no forecast.

    Args:
        batch: B patients.
        share: fraction of the patients that get a forecast, as far as they have such a visit.
        entity_types: of the vocabulary, the default entity 0 included.
        seed, epoch: the draws depend on them.
    """
    width = batch.codes.shape[1]
    draws = mix(seed, _STREAM, epoch, batch.patient_hashes)
    real = np.arange(width) < batch.lengths[:, None]
    days = batch.days.astype(np.int64)
    last_day = np.where(real, days, np.iinfo(np.int64).min).max(axis=1, initial=np.iinfo(np.int64).min)
    followed = real & (days + YEAR <= last_day[:, None])
    visits = np.where(followed, batch.visit_ids, 0).astype(np.int64).max(axis=1, initial=0)
    any_visit = 1 + (to_uniform(mix(draws, 1)) * visits).astype(np.int64)
    visit = np.where(to_uniform(mix(draws, 4)) < _LAST_SHARE, np.maximum(visits, 1), any_visit)
    rows = np.flatnonzero((visits > 0) & (to_uniform(mix(draws, 2)) < share))

    real, codes, days = real[rows], batch.codes[rows], days[rows]
    cuts = ((batch.visit_ids[rows] <= visit[rows, None]) & real).sum(axis=1)  # tokens are in order of time
    earlier = np.tri(width, k=-1, dtype=bool)  # [j, i]: i before j
    first = ~((codes[:, :, None] == codes[:, None, :]) & earlier).any(axis=2) & (codes >= len(SPECIAL_TOKENS))
    soon = days <= days[np.arange(len(rows)), cuts - 1][:, None] + YEAR
    future = first & soon & real & (np.arange(width) >= cuts[:, None])
    kinds = np.arange(entity_types - 1, 0, -1)
    entities = kinds[(mix(draws[rows], 3) % np.uint64(len(kinds))).astype(np.int64)]
    return Forecasts(rows, cuts, entities, future)
