"""Inverse-probability-of-censoring weights: patients who stay in sight stand for those like them who do not.

Dropping the censored makes every risk too high: who has the outcome early is kept, who would have been free of it is
not. Here a patient whose outcome at the horizon is known counts 1 / P(not censored until then), the others 0, where the
probability is the Kaplan-Meier estimate of the time to censoring, by strata where censoring differs between them
(Robins and Finkelstein, Biometrics 56, 2000; Graf et al., Statistics in Medicine 18, 1999). Whoever dies first is known
not to have the outcome (Blanche, Dartigues and Jacqmin-Gadda, Statistics in Medicine 32, 2013).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from exmed_bert.evaluation.follow_up import CENSORED, OUTCOME, FollowUp


class CensoringCurve:
    """Kaplan-Meier estimate of the probability of being observed still, for many weightings of N patients at once."""

    def __init__(self, follow_up: FollowUp, strata: np.ndarray | None = None) -> None:
        """Sort the patients.

        Args:
            follow_up: of N patients.
            strata: (N,) values within each of which a curve of its own is estimated; None for one curve.

        Raises:
            ValueError: not one stratum per patient.
        """
        n = len(follow_up)
        if strata is not None and np.shape(strata) != (n,):
            raise ValueError(f"strata have shape {np.shape(strata)}, expected ({n},)")
        self._stratum = np.zeros(n, dtype=np.int64) if strata is None else np.unique(strata, return_inverse=True)[1]
        # A cell is one day of one stratum; cells stand in order, a stratum after the other.
        days, day = np.unique(follow_up.days, return_inverse=True)
        cells, cell = np.unique(self._stratum * len(days) + day, return_inverse=True)
        self._days = days[cells % len(days)]
        self._starts = np.searchsorted(cells // len(days), np.arange(self._stratum.max() + 2))
        ones, rows = np.ones(n), np.arange(n)
        is_censored = (follow_up.events == CENSORED).astype(np.float64)
        shape = (n, len(cells))
        self._all = sparse.csr_array((ones, (rows, cell)), shape=shape)
        self._censored = sparse.csr_array((is_censored, (rows, cell)), shape=shape)

    @property
    def strata(self) -> int:
        """How many strata there are."""
        return len(self._starts) - 1

    def in_stratum(self, number: int) -> np.ndarray:
        """Return which patients are in a stratum, (N,) bool."""
        return self._stratum == number

    def places(self, days: np.ndarray, stratum: int | None = None) -> np.ndarray:
        """Return where `estimate` has the probability of being observed on a day, (N,).

        Args:
            days: (N,) a day for each patient.
            stratum: whose curve; None for each patient's own.
        """
        found = np.empty(len(days), dtype=np.int64)
        for number, (start, end) in enumerate(zip(self._starts[:-1], self._starts[1:], strict=True)):
            own = slice(None) if stratum == number else self.in_stratum(number)
            if stratum in (None, number):
                # One place more than cells in each stratum: before the first day, and after each.
                found[own] = start + number + np.searchsorted(self._days[start:end], days[own], side="left")
        return found

    def estimate(self, weights: np.ndarray) -> np.ndarray:
        """Return the probability of not being censored before a day, (R, places), for R weightings (R, N).

        Whoever has the outcome or dies on a day is not at risk of being censored on it.
        """
        everyone = (self._all.T @ weights.T).T  # (R, cells)
        censored = (self._censored.T @ weights.T).T
        parts = []
        for start, end in zip(self._starts[:-1], self._starts[1:], strict=True):
            own, lost = everyone[:, start:end], censored[:, start:end]
            later = np.cumsum(own[:, ::-1], axis=1)[:, ::-1] - own  # observed beyond the day
            at_risk = later + lost
            kept = np.divide(later, at_risk, out=np.ones_like(later), where=at_risk > 0)
            parts += [np.ones((len(weights), 1)), np.cumprod(kept, axis=1)]
        return np.concatenate(parts, axis=1)


@dataclass(frozen=True)
class HorizonOutcome:
    """Whether N patients have the outcome by a horizon, and what each counts where that is known.

    Attributes:
        follow_up: of the patients.
        horizon: days after the prediction time; an outcome of that very day is one.
        strata: (N,) as in `CensoringCurve`.
    """

    follow_up: FollowUp
    horizon: float
    strata: np.ndarray | None = None

    @cached_property
    def labels(self) -> np.ndarray:
        """(N,) int8, 1 where the outcome occurs by the horizon; 0 for all others, those among them who are censored."""
        return ((self.follow_up.events == OUTCOME) & (self.follow_up.days <= self.horizon)).astype(np.int8)

    @cached_property
    def known(self) -> np.ndarray:
        """(N,) bool, whether outcome, death or the whole horizon was observed."""
        return (self.follow_up.events != CENSORED) | (self.follow_up.days >= self.horizon)

    @cached_property
    def _curve(self) -> CensoringCurve:
        return CensoringCurve(self.follow_up, self.strata)

    @cached_property
    def _places(self) -> np.ndarray:
        return self._curve.places(np.minimum(self.follow_up.days, self.horizon))

    def weights(self, drawn: np.ndarray | None = None) -> np.ndarray:
        """Return what each patient counts, (R, N): how often drawn over the probability of not being censored.

        The censoring is estimated anew in each resample, so that intervals hold its uncertainty too.

        Args:
            drawn: (R, N) how often each patient is drawn; None for each once.
        """
        drawn = np.ones((1, len(self.follow_up))) if drawn is None else np.asarray(drawn, dtype=np.float64)
        observed = self._curve.estimate(drawn)[:, self._places]
        return np.divide(drawn, observed, out=np.zeros_like(observed), where=self.known & (drawn > 0))

    def take(self, rows: np.ndarray) -> "HorizonOutcome":
        """Return the same of some patients, by indices or as a mask; censoring is estimated among them alone."""
        return HorizonOutcome(
            self.follow_up.take(rows), self.horizon, None if self.strata is None else self.strata[rows]
        )

    @property
    def largest_weight(self) -> float:
        """The most that one patient counts; tens mean that few patients stand for many."""
        return float(self.weights().max())

    @property
    def effective_patients(self) -> float:
        """Patients of equal weight that would say as much (Kish)."""
        weights = self.weights()
        return float(weights.sum() ** 2 / (weights**2).sum()) if weights.any() else 0.0
