"""Forecast targets: a history is cut, and a MASK after the cut stands for the time from then on.

Masked-code prediction hides codes in the middle of a history, where most occur elsewhere too; it seldom shows which
code occurs for the first time, and never when, or how likely any code is. A forecast does, for all codes, groups of
codes and death at once, in the form of the prompt that fine-tuning appends to a history.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from exmed_bert.data.code_groups import CodeGroups
from exmed_bert.data.dataset import PaddedBatch
from exmed_bert.data.masking import IGNORED
from exmed_bert.data.patient import NO_DAY
from exmed_bert.data.randomness import mix, to_uniform
from exmed_bert.data.vocabulary import SPECIAL_TOKENS, UNK

_STREAM = 5
_AT_VISITS = 0.5  # of the forecasts is made on the day of a visit, the others on any day of the observation


@dataclass(frozen=True)
class Forecasts:
    """The patients of a batch with a forecast, n of them.

    Attributes:
        rows: (n,) which patients.
        cuts: (n,) the first column that is cut off, the position of the query; never 0.
        days: (n,) the prediction times, in days since 1970-01-01.
        observed: (n,) days of observation after them, at least 1.
        targets: (n, J) what has occurred by then, and what occurs for the first time in the days observed, each once:
            ids of codes, of groups after these, and of death after the groups; -100 beyond the last.
        target_days: (n, J) days from the prediction time to the first occurrence; 0 of what has occurred by then.
    """

    rows: np.ndarray
    cuts: np.ndarray
    days: np.ndarray
    observed: np.ndarray
    targets: np.ndarray
    target_days: np.ndarray


_NOBODY = np.empty(0, dtype=np.int64)
_NONE = Forecasts(_NOBODY, _NOBODY, _NOBODY, _NOBODY, _NOBODY[:, None], _NOBODY[:, None])


def draw_forecasts(batch: PaddedBatch, share: float, groups: CodeGroups, seed: int, epoch: int) -> Forecasts:
    """Draw patients and prediction times as a function of seed, epoch and patient alone.

    Half of the prediction times are days of visits, half are any days of the observation: whether a patient is seen on
    a day says something about what follows. Patients who are observed on one day alone get no forecast.

    Args:
        batch: B patients.
        share: fraction of the patients that get a forecast.
        groups: of the vocabulary.
        seed, epoch: the draws depend on them.
    """
    draws = mix(seed, _STREAM, epoch, batch.patient_hashes)
    drawn = np.flatnonzero(to_uniform(mix(draws, 2)) < share)
    if not len(drawn):  # as in most small batches
        return _NONE
    real = np.arange(batch.codes.shape[1]) < batch.lengths[drawn, None]
    days = batch.days[drawn].astype(np.int64)
    plausible = real & (batch.ages[drawn] != UNK)
    first = days.min(axis=1, initial=np.iinfo(np.int64).max, where=plausible)
    periods = {name: values[drawn] for name, values in batch.periods.items()}
    until = observed_until(periods, days.max(axis=1, initial=NO_DAY, where=plausible))
    kept = until > first
    if not kept.any():
        return _NONE
    rows = drawn[kept]
    draws = draws[rows]
    real, days, plausible, first, until = (of[kept] for of in (real, days, plausible, first, until))

    visits = batch.visit_ids[rows].astype(np.int64)
    before = visits.max(axis=1, initial=0, where=plausible & (days < until[:, None]))  # number of the last one
    visit = 1 + (to_uniform(mix(draws, 1)) * before).astype(np.int64)
    of_drawn = days.max(axis=1, initial=NO_DAY, where=real & (visits <= visit[:, None]))
    any_day = first + (to_uniform(mix(draws, 3)) * (until - first)).astype(np.int64)
    at_visit = (to_uniform(mix(draws, 4)) < _AT_VISITS) & (of_drawn >= first)
    day = np.where(at_visit, of_drawn, any_day)
    cuts = (real & (days <= day[:, None])).sum(axis=1)  # tokens are in order of time

    after = np.where(np.arange(days.shape[1]) < cuts[:, None], 0, days - day[:, None])
    counts = real & (days <= until[:, None]) & ((after == 0) | plausible)
    targets, target_days = _first_occurrences(batch.codes[rows], after, counts, groups)
    death = batch.periods.get("death_date")
    if death is None:  # nobody is at risk of what is never recorded
        dies = np.zeros(len(rows), dtype=np.int64)
    else:
        died = death[rows].astype(np.int64)
        dies = np.where((died > day) & (died <= until), died - day, IGNORED)
    of_death = np.where(dies == IGNORED, IGNORED, groups.vocabulary_size + len(groups))
    return Forecasts(
        rows,
        cuts,
        day,
        until - day,
        np.column_stack((of_death, targets)),
        np.column_stack((dies, target_days)),
    )


def observed_until(periods: Mapping[str, np.ndarray], last: np.ndarray) -> np.ndarray:
    """Return the last day whose events count, (B,).

    Where a record does not say how long the patient was observed, the last visit tells; it is no event of the time that
    it ends, or all observation would end with one.

    Args:
        periods: by name of a period field (B,) days.
        last: (B,) days of the last visits.
    """
    end = periods.get("observation_end", np.full(len(last), NO_DAY)).astype(np.int64)
    death = periods.get("death_date", np.full(len(last), NO_DAY)).astype(np.int64)
    known, died = end != NO_DAY, death != NO_DAY
    until = np.where(known, end, np.where(died, death, last - 1))
    return np.where(died, np.minimum(until, death), until)


def _first_occurrences(
    codes: np.ndarray, after: np.ndarray, counts: np.ndarray, groups: CodeGroups
) -> tuple[np.ndarray, np.ndarray]:
    """Return (n, J) codes and groups and (n, J) the days of their first occurrence, -100 and 0 beyond the last.

    Args:
        codes: (n, L).
        after: (n, L) days after the prediction time, 0 up to it.
        counts: (n, L) which of them are looked at.
        groups: of the vocabulary.
    """
    size = groups.vocabulary_size + len(groups)
    row, column = np.nonzero(counts & (codes >= len(SPECIAL_TOKENS)))
    code, day = codes[row, column].astype(np.int64), after[row, column]
    of_codes = groups.of_codes[code]  # (m, D)
    in_group, place = np.nonzero(of_codes >= 0)
    target = np.concatenate((code, groups.vocabulary_size + of_codes[in_group, place]))
    row, day = np.concatenate((row, row[in_group])), np.concatenate((day, day[in_group]))
    key = row * size + target
    order = np.lexsort((day, key))
    key, day = key[order], day[order]
    once = np.diff(key, prepend=-1) != 0  # the earliest of each
    key, day = key[once], day[once]
    row = key // size
    number = np.arange(len(row)) - np.searchsorted(row, np.arange(len(codes)))[row]
    shape = (len(codes), int(number.max(initial=-1)) + 1)
    targets, days = np.full(shape, IGNORED, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    targets[row, number], days[row, number] = key % size, day
    return targets, days
