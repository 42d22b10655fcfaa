"""Conditions of the patients, drawn jointly, so that comorbid ones occur in the same patient.

A Gaussian copula whose correlations are those of a Gaussian graphical model: an edge for each pair with a published
odds ratio; conditions without an edge are independent given the others (covariance selection, Dempster 1972). Margins
are those of the tables whatever the correlations, which multiplying odds would not give.
"""

import functools

import numpy as np

from exmed_bert.console import InputError
from exmed_bert.reference.tables import BAND_STARTS, OLDEST, Limits, Tables
from exmed_bert.synthetic.fitted import Fitted
from exmed_bert.synthetic.people import YEARS_OBSERVED, People, Window

RECURRING = ("episodic", "pregnancy")  # kinds that occur at a rate: the shorter the observation, the fewer patients
UNCODED = 0.3  # conditions that are treated but not recorded, relative to those that are; estimate
_MOST = 0.98  # largest share of people of one age with a condition
_SMOOTHING = 100  # rounds of a mean over three years of age


def draw_conditions(
    rng: np.random.Generator, people: People, window: Window, tables: Tables, fitted: Fitted
) -> tuple[np.ndarray, np.ndarray]:
    """Return two (N, K) bool arrays: who has which diagnosis at least once while observed, and who has it uncoded.

    Each patient has a normal score for each diagnosis, correlated between diagnoses, and has the diagnosis where the
    score lies below the quantile of its prevalence at the patient's age and sex. Recurring conditions have a constant
    hazard, so a patient who is observed for part of the window has them less often. Patients with the next higher
    scores have the condition and are treated for it, but it is not coded.
    """
    from scipy.special import ndtr  # imported here to keep --help fast

    scores = rng.standard_normal((len(people), len(tables.diagnoses.codes))) @ correlation_root(fitted).T
    prevalence = prevalence_by_age(tables, fitted)[people.ages, people.sexes]
    exposure = np.where(np.isin(tables.diagnoses.kinds, RECURRING), people.observed_share(window)[:, None], 1)
    share = -np.expm1(exposure * np.log1p(-prevalence))
    rank = ndtr(scores)
    has = rank < share
    return has, ~has & (rank < share * (1 + UNCODED))


@functools.lru_cache(maxsize=4)
def correlation_root(fitted: Fitted) -> np.ndarray:
    """Return the (K, K) lower triangular matrix R with R @ R.T the correlation of the scores.

    Raises:
        InputError: the partial correlations fit no correlation matrix.
    """
    precision = np.eye(len(fitted.partial_correlations)) - fitted.partial_correlations
    if np.linalg.eigvalsh(precision)[0] <= 0:
        raise InputError("the partial correlations of the conditions contradict each other: fit them again")
    covariance = np.linalg.inv(precision)
    scale = np.sqrt(np.diag(covariance))
    return np.linalg.cholesky(covariance / np.outer(scale, scale))


@functools.lru_cache(maxsize=4)
def prevalence_by_age(tables: Tables, fitted: Fitted) -> np.ndarray:
    """Return the prevalence at each age in years on the window's last day, (ages, 2, K).

    It is smooth in age: its logarithm is averaged over neighboring ages repeatedly, and each band rescaled to its mean
    (the mean-preserving interpolation of Rymes and Myers 2001, Solar Energy 71:225). A band's prevalence refers to all
    its people; those who are eligible for part of the window have that part of it.
    """
    eligible = eligible_share(tables.diagnoses.limits)  # (K, ages)
    weight = eligible[:, :, None] * tables.demographics.people  # (K, ages, 2)
    everyone = np.add.reduceat(tables.demographics.people, BAND_STARTS, axis=0)  # (4, 2)
    of_eligible = np.add.reduceat(weight, BAND_STARTS, axis=1)
    wanted = np.divide(fitted.prevalence * everyone, of_eligible, out=np.zeros_like(of_eligible), where=of_eligible > 0)

    lengths = np.diff([*BAND_STARTS, eligible.shape[1]])
    there = wanted > 0
    level = np.log(np.where(there, wanted, 1))
    for code, sex in zip(*np.nonzero(there.any(axis=1)), strict=True):
        # A band with prevalence 0 takes the level of its neighbors, so that it does not affect them.
        known = np.flatnonzero(there[code, :, sex])
        level[code, :, sex] = np.interp(np.arange(len(lengths)), known, level[code, known, sex])
    smooth = np.repeat(level, lengths, axis=1)
    for _ in range(_SMOOTHING):
        padded = np.concatenate([smooth[:, :1], smooth, smooth[:, -1:]], axis=1)
        smooth = (padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]) / 3
        mean = np.add.reduceat(weight * np.exp(smooth), BAND_STARTS, axis=1) / of_eligible.clip(1e-9)
        correction = np.where(there, np.log(wanted.clip(1e-12) / mean.clip(1e-12)), 0)
        smooth += np.repeat(correction, lengths, axis=1)
    prevalence = np.exp(smooth) * eligible[:, :, None] * np.repeat(there, lengths, axis=1)
    return np.moveaxis(prevalence, 0, 2).clip(0, _MOST)


def eligible_share(limits: Limits) -> np.ndarray:
    """Return the share of the window in which a person of each final age is within a code's age limits, (C, ages)."""
    oldest = np.arange(OLDEST + 1) + 0.5  # mean age on the last day of those of an age in whole years
    youngest = oldest - YEARS_OBSERVED
    years = np.minimum(oldest, limits.max_age[:, None] + 1) - np.maximum(youngest.clip(0), limits.min_age[:, None])
    return (years / (oldest - youngest.clip(0))).clip(0, 1)
