"""Proportional hazards: Cox's regression with a ridge penalty, and risks with death as a competing event.

The matrix may be sparse and wide, as a bag of codes is, which the libraries for survival analysis do not take.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize

from exmed_bert.evaluation.follow_up import OUTCOME, FollowUp

_STEPS = 200  # of L-BFGS at the most
_CELLS = 5_000_000  # patients times days at a time


@dataclass(frozen=True)
class Baseline:
    """The hazard of a patient whose score is 0: Breslow's estimate.

    Attributes:
        days: (U,) on which it is not 0, rising.
        hazard: (U,) on each of them.
    """

    days: np.ndarray
    hazard: np.ndarray

    @classmethod
    def of(cls, follow_up: FollowUp, scores: np.ndarray, event: int = OUTCOME) -> "Baseline":
        """Estimate it; ``scores`` (N,) are log hazard ratios."""
        days, day = np.unique(follow_up.days, return_inverse=True)
        happened = np.bincount(day, weights=follow_up.events == event, minlength=len(days))
        at_risk = np.cumsum(np.bincount(day, weights=np.exp(scores), minlength=len(days))[::-1])[::-1]
        some = happened > 0
        return cls(days[some], happened[some] / at_risk[some])

    def cumulative(self, days: np.ndarray) -> np.ndarray:
        """Return the hazard up to the end of each day, summed, (N,)."""
        return np.concatenate(([0.0], np.cumsum(self.hazard)))[np.searchsorted(self.days, days, side="right")]


class PartialLikelihood:
    """Cox's partial likelihood of N patients, with Efron's treatment of ties."""

    def __init__(self, follow_up: FollowUp, event: int = OUTCOME) -> None:
        """Sort the patients; follow-up that ends otherwise than by ``event`` counts as censored."""
        self._happened = (follow_up.events == event).astype(np.float64)
        days, self._day = np.unique(follow_up.days, return_inverse=True)
        self._n_days = len(days)
        self._of_event = np.sort(self._day[follow_up.events == event])  # (events,) the day of each
        _, first, counts = np.unique(self._of_event, return_index=True, return_counts=True)
        place = np.arange(len(self._of_event)) - np.repeat(first, counts)
        self._share = place / np.repeat(counts, counts)  # of the tied events that have left when an event happens

    def loss(self, scores: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the negative log of the partial likelihood and its gradient, (N,), by log hazard ratio."""
        top = scores.max()
        ratio = np.exp(scores - top)
        sums = np.bincount(self._day, weights=ratio, minlength=self._n_days)
        tied = np.bincount(self._day, weights=ratio * self._happened, minlength=self._n_days)
        at_risk = np.cumsum(sums[::-1])[::-1]
        among = at_risk[self._of_event] - self._share * tied[self._of_event]
        value = float((np.log(among) + top).sum() - scores @ self._happened)
        every = np.cumsum(np.bincount(self._of_event, weights=1 / among, minlength=self._n_days))
        left = np.bincount(self._of_event, weights=self._share / among, minlength=self._n_days)
        return value, ratio * (every[self._day] - self._happened * left[self._day]) - self._happened


def fit_cox(
    x: Any, follow_up: FollowUp, strength: float, event: int = OUTCOME, start: np.ndarray | None = None
) -> np.ndarray:
    """Return the coefficients of Cox's regression, (C,): log hazard ratios are ``x @ coefficients``.

    Args:
        x: (N, C) columns, dense or sparse.
        follow_up: of N patients, one at least with the event.
        strength: inverse of the ridge penalty, as ``C`` of scikit-learn's logistic regression.
        event: `OUTCOME`, or `DEATH`.
        start: (C,) where the search begins.
    """
    likelihood = PartialLikelihood(follow_up, event)
    scale = 1 / (strength * len(follow_up))

    def loss(coefficients: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = likelihood.loss(x @ coefficients)
        return (
            value / len(follow_up) + scale * float(coefficients @ coefficients) / 2,
            (x.T @ gradient) / len(follow_up) + scale * coefficients,
        )

    begin = np.zeros(x.shape[1]) if start is None else start
    return minimize(loss, begin, jac=True, method="L-BFGS-B", options={"maxiter": _STEPS}).x


@dataclass(frozen=True)
class Hazards:
    """Log hazard ratios of N patients for one event, and the baseline that they multiply."""

    scores: np.ndarray
    baseline: Baseline


def risks(outcome: Hazards, death: Hazards | None, horizons: Sequence[float]) -> np.ndarray:
    """Return the probability of the outcome by each horizon, (N, H): whoever dies first does not have it.

    Args:
        outcome, death: cause-specific hazards; no ``death`` where nobody dies.
        horizons: days, rising.
    """
    causes = [outcome] if death is None else [outcome, death]
    days = np.unique(np.concatenate([cause.baseline.days for cause in causes]))
    days = days[days <= max(horizons)]
    steps = []
    for cause in causes:
        own = np.zeros(len(days))
        known = cause.baseline.days <= max(horizons)
        own[np.searchsorted(days, cause.baseline.days[known])] = cause.baseline.hazard[known]
        steps.append(own)
    place = np.searchsorted(days, horizons, side="right")
    n = len(outcome.scores)
    found = np.zeros((n, len(horizons)))
    for start in range(0, n, max(1, _CELLS // max(len(days), 1))):
        rows = slice(start, start + max(1, _CELLS // max(len(days), 1)))
        own = np.exp(outcome.scores[rows, None]) * steps[0]  # (n, U) the outcome's hazard on each day
        either = own.copy()
        if death is not None:
            either += np.exp(death.scores[rows, None]) * steps[1]
        free = np.exp(-np.cumsum(either, axis=1) + either)  # of both until the day
        share = np.divide(own, either, out=np.zeros_like(own), where=either > 0)
        by_day = np.cumsum(free * -np.expm1(-either) * share, axis=1)
        found[rows] = np.concatenate((np.zeros((len(by_day), 1)), by_day), axis=1)[:, place]
    return found
