"""Cumulative incidence with death as a competing event, and the calibration of predicted risks by it.

One minus the Kaplan-Meier estimate of the outcome answers what would be if nobody died; Aalen and Johansen's estimate
(Scandinavian Journal of Statistics 5, 1978) says how many have the outcome.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from exmed_bert.evaluation.follow_up import CENSORED, DEATH, OUTCOME, FollowUp
from exmed_bert.evaluation.metrics import equal_bins
from exmed_bert.evaluation.results import CalibrationBin

_NORMAL = 1.959964  # of both sides of a 95 % interval


@dataclass(frozen=True)
class Incidence:
    """Aalen-Johansen estimates for R weightings of the patients.

    Attributes:
        days: (U,) distinct days of follow-up, rising.
        outcome, death: (R, U) probability of the outcome, and of death without it, by the end of each day.
        variance: (R, U) of ``outcome``, where the weights are counts of patients.
    """

    days: np.ndarray
    outcome: np.ndarray
    death: np.ndarray
    variance: np.ndarray

    def by(self, days: np.ndarray | float) -> np.ndarray:
        """Return the probability of the outcome by the end of given days, (R, D); beyond the last day it is the last.

        Args:
            days: (D,) or one.
        """
        return _stepped(self.outcome, self.days, days)

    def death_by(self, days: np.ndarray | float) -> np.ndarray:
        """Return the same of death without the outcome."""
        return _stepped(self.death, self.days, days)

    def interval(self, days: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
        """Return the ends of 95 % intervals of `by`, each (R, D), on the scale of log(-log(1 - risk)).

        NaN where nobody, or everybody, has the outcome.
        """
        risk = self.by(days)
        error = np.sqrt(_stepped(self.variance, self.days, days))
        with np.errstate(divide="ignore", invalid="ignore"):
            free = np.where((risk > 0) & (risk < 1), 1 - risk, np.nan)
            width = np.exp(_NORMAL * error / (free * -np.log(free)))
        return 1 - free ** (1 / width), 1 - free**width


def cumulative_incidence(follow_up: FollowUp, weights: np.ndarray | None = None) -> Incidence:
    """Return the cumulative incidence of outcome and death.

    Args:
        follow_up: of N patients.
        weights: (R, N) how often each patient counts; None for each once.
    """
    n = len(follow_up)
    weights = np.ones((1, n)) if weights is None else np.asarray(weights, dtype=np.float64)
    days, day = np.unique(follow_up.days, return_inverse=True)

    def on_each_day(event: int) -> np.ndarray:  # (R, U)
        own = (follow_up.events == event).astype(np.float64)
        return (sparse.csr_array((own, (np.arange(n), day)), shape=(n, len(days))).T @ weights.T).T

    outcome, death, censored = on_each_day(OUTCOME), on_each_day(DEATH), on_each_day(CENSORED)
    either = outcome + death
    at_risk = np.cumsum((either + censored)[:, ::-1], axis=1)[:, ::-1]
    left = np.cumprod(1 - _over(either, at_risk), axis=1)
    before = np.concatenate((np.ones((len(weights), 1)), left[:, :-1]), axis=1)  # free of both until the day
    incidence = np.cumsum(before * _over(outcome, at_risk), axis=1)
    # Marubini and Valsecchi, "Analysing survival data from clinical trials", 1995, 10.1: the square is multiplied out,
    # so that a cumulative sum over days does for every day.
    either_part = _over(either, at_risk * (at_risk - either))
    own_part = before**2 * _over(outcome * (at_risk - outcome), at_risk**3)
    mixed_part = before * _over(outcome, at_risk**2)
    variance = (
        incidence**2 * np.cumsum(either_part, axis=1)
        - 2 * incidence * np.cumsum(incidence * either_part + mixed_part, axis=1)
        + np.cumsum(incidence**2 * either_part + 2 * incidence * mixed_part + own_part, axis=1)
    )
    return Incidence(days, incidence, np.cumsum(before * _over(death, at_risk), axis=1), np.maximum(variance, 0))


def calibration_bins(follow_up: FollowUp, risks: np.ndarray, horizon: float) -> list[CalibrationBin]:
    """Return predicted and observed risk by a horizon, in bins of equal numbers of patients by rising risk.

    Args:
        follow_up: of N patients.
        risks: (N,) predicted probability of the outcome by the horizon.
        horizon: days.
    """
    bins = equal_bins(risks)
    return [calibration_bin(follow_up.take(bins == i), risks[bins == i], horizon) for i in np.unique(bins)]


def calibration_bin(follow_up: FollowUp, risks: np.ndarray, horizon: float) -> CalibrationBin:
    """Return the mean predicted risk of patients, and their cumulative incidence by the horizon with its interval."""
    incidence = cumulative_incidence(follow_up)
    low, high = (float(end[0, 0]) for end in incidence.interval(horizon))
    return CalibrationBin(
        patients=len(follow_up),
        predicted=float(risks.mean()),
        observed=float(incidence.by(horizon)[0, 0]),
        low=None if np.isnan(low) else low,
        high=None if np.isnan(high) else high,
    )


def _stepped(values: np.ndarray, at: np.ndarray, days: np.ndarray | float) -> np.ndarray:
    """Return the values of a step function that is 0 before its first step, (R, D)."""
    place = np.searchsorted(at, np.atleast_1d(days), side="right")
    return np.concatenate((np.zeros((len(values), 1)), values), axis=1)[:, place]


def _over(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return part / whole, 0 of nothing."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
