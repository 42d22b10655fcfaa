"""What the patients have: conditions drawn together, so that comorbid ones meet in the same patient."""

import functools
from statistics import NormalDist

import numpy as np

from exmed_bert.synthetic.people import YEARS_OBSERVED, People
from exmed_bert.synthetic.tables import BAND_STARTS, Demographics, Diagnoses, Limits, Tables

_SMALLEST_EIGENVALUE = 1e-3


def draw_conditions(rng: np.random.Generator, people: People, tables: Tables) -> np.ndarray:
    """Return an (N, K) bool array: who has which diagnosis at least once within the window.

    A Gaussian copula: each patient has a normal score for each diagnosis, correlated between diagnoses, and has
    the diagnosis where the score lies below the quantile of its prevalence for the patient's age band and sex. So
    the prevalences hold exactly in expectation, whatever the correlations.
    """
    scores = rng.standard_normal((len(people), len(tables.diagnoses.codes))) @ _correlation_root(tables.diagnoses).T
    return scores < _thresholds(tables)[:, people.bands, people.sexes].T


def eligible_share(limits: Limits, demographics: Demographics) -> np.ndarray:
    """Return the share of each age band and sex that is of the right age at some time of the window, (C, 4, 2)."""
    ages = np.arange(len(demographics.people))
    old_enough = ages >= limits.min_age[:, None]
    young_enough = ages - YEARS_OBSERVED <= limits.max_age[:, None]
    eligible = (old_enough & young_enough)[:, :, None] * demographics.people  # (C, ages, 2)
    return np.add.reduceat(eligible, BAND_STARTS, axis=1) / np.add.reduceat(demographics.people, BAND_STARTS, axis=0)


@functools.cache
def _thresholds(tables: Tables) -> np.ndarray:
    """(K, 4, 2) normal quantiles. A prevalence is of the whole band; only those of the right age can have the code."""
    share = eligible_share(tables.diagnoses.limits, tables.demographics)
    prevalence = np.divide(tables.diagnoses.prevalence, share, out=np.zeros_like(share), where=share > 0).clip(0, 0.98)
    quantile = NormalDist().inv_cdf
    return np.reshape([quantile(p) if p > 0 else -np.inf for p in prevalence.flat], prevalence.shape)


@functools.cache
def _correlation_root(diagnoses: Diagnoses) -> np.ndarray:
    """(K, K) lower triangular matrix R with R @ R.T the correlation of the scores.

    A pair without an odds ratio of its own gets what a third condition brings about: the largest product of two
    named correlations, as if the pair were independent given that condition. Should the matrix still have an
    eigenvalue that is not positive, it is raised and the diagonal scaled back to one (Rebonato and Jaeckel 1999).
    """
    correlation = tetrachoric(diagnoses.odds_ratios, _typical_prevalence(diagnoses))
    named = correlation * (diagnoses.odds_ratios != 1)
    through_third = (named[:, :, None] * named[None, :, :]).max(axis=1)
    correlation = np.where(diagnoses.odds_ratios == 1, through_third, correlation)
    np.fill_diagonal(correlation, 1)

    values, vectors = np.linalg.eigh(correlation)
    correlation = (vectors * values.clip(_SMALLEST_EIGENVALUE)) @ vectors.T
    scale = np.sqrt(np.diag(correlation))
    return np.linalg.cholesky(correlation / np.outer(scale, scale))


def _typical_prevalence(diagnoses: Diagnoses) -> np.ndarray:
    """(K,) mean of the prevalences above zero."""
    above_zero = (diagnoses.prevalence > 0).sum(axis=(1, 2))
    return diagnoses.prevalence.sum(axis=(1, 2)) / above_zero


def tetrachoric(odds_ratios: np.ndarray, prevalence: np.ndarray) -> np.ndarray:
    """Return the (K, K) correlations of normal scores that give the odds ratios at the (K,) prevalences.

    The approximation of Bonett and Price (2005, J Educ Behav Stat 30:213): cos(pi / (1 + OR^c)) with
    c = (1 - |p1 - p2| / 5 - (1/2 - p_min)^2) / 2, p_min the smallest of the four margins.
    """
    rarest = np.minimum(prevalence, 1 - prevalence)
    smallest = np.minimum(rarest[:, None], rarest[None, :])
    exponent = (1 - np.abs(prevalence[:, None] - prevalence[None, :]) / 5 - (0.5 - smallest) ** 2) / 2
    correlation = np.cos(np.pi / (1 + odds_ratios**exponent))
    np.fill_diagonal(correlation, 1)
    return correlation
