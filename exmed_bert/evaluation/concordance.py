"""Uno's concordance: of two patients, does the one who has the outcome first have the higher risk?

Uno et al., "On the C-statistics for evaluating overall adequacy of risk prediction procedures with censored survival
data", Statistics in Medicine 30 (2011), with pairs weighted so that the estimate does not depend on the censoring. Who
dies without the outcome never has it, and is later than everybody who has: Wolbers et al., "Concordance for prognostic
models with competing risks", Biostatistics 15 (2014).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from exmed_bert.evaluation.censoring import CensoringCurve
from exmed_bert.evaluation.follow_up import DEATH, OUTCOME, FollowUp


@dataclass(frozen=True)
class _Pairs:
    """Pairs of a case and a patient who has the outcome later or never, the latter sorted by part and score.

    Attributes:
        later: (m,) indices of those patients.
        cases: (k,) indices of the cases.
        first, below, same, end: (k,) of each case, where in ``later`` its part begins, its own score begins and ends,
            and its part ends.
    """

    later: np.ndarray
    cases: np.ndarray
    first: np.ndarray
    below: np.ndarray
    same: np.ndarray
    end: np.ndarray

    @classmethod
    def of(cls, later: np.ndarray, cases: np.ndarray, part: np.ndarray, rank: np.ndarray) -> "_Pairs":
        """Sort; ``part`` and ``rank`` are of all N patients, (N,)."""
        ranks = int(rank.max()) + 1
        key = part[later] * ranks + rank[later]
        order = np.argsort(key, kind="stable")
        key, own = key[order], part[cases] * ranks
        ends = (own, own + rank[cases], own + rank[cases] + 1, own + ranks)
        return cls(later[order], cases, *(np.searchsorted(key, end) for end in ends))

    def count(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the weight of the patients with a lower score, ties half, and of all, each (R, k)."""
        sums = np.zeros((len(weights), len(self.later) + 1))
        np.cumsum(weights.take(self.later, axis=1), axis=1, out=sums[:, 1:])
        first = sums.take(self.first, axis=1)
        return (sums.take(self.below, axis=1) + sums.take(self.same, axis=1)) / 2 - first, sums.take(
            self.end, axis=1
        ) - first


class Concordance:
    """N patients with follow-up and a score, prepared for `values`.

    The pairs of a case and a later patient are counted in O(N log D) for D days with an outcome: the days are halved
    again and again, and each halving counts the pairs of the earlier with the later half of a part.
    """

    def __init__(
        self, follow_up: FollowUp, scores: np.ndarray, horizon: float, strata: np.ndarray | None = None
    ) -> None:
        """Sort the patients.

        Args:
            follow_up: of N patients.
            scores: (N,) higher for an earlier outcome.
            horizon: days; outcomes after it are not cases.
            strata: (N,) as in `CensoringCurve`.

        Raises:
            ValueError: a score is not finite, or there is not one per patient.
        """
        if np.shape(scores) != (len(follow_up),) or not np.isfinite(scores).all():
            raise ValueError(f"scores of shape {np.shape(scores)}, expected {len(follow_up)} finite numbers")
        days, events = follow_up.days, follow_up.events
        self._case = (events == OUTCOME) & (days <= horizon)
        self._censoring = CensoringCurve(follow_up, strata)
        until = np.minimum(days, horizon)
        self._places = self._censoring.places(until)
        self._rank = np.unique(scores, return_inverse=True)[1]
        self._by_stratum = [
            (self._censoring.places(until, number), list(self._halvings(days, self._censoring.in_stratum(number))))
            for number in range(self._censoring.strata)
        ]
        dead, cases = np.flatnonzero((events == DEATH) & (days <= horizon)), np.flatnonzero(self._case)
        self._dead = np.isin(np.arange(len(days)), dead)
        self._all_dead = _Pairs.of(dead, cases, np.zeros(len(days), dtype=np.int64), self._rank)

    def _halvings(self, days: np.ndarray, stratum: np.ndarray) -> Iterator[_Pairs]:
        """Yield all pairs of a case and a patient of a stratum who leaves later, or that day without the outcome."""
        case_days = np.unique(days[self._case])
        passed = np.searchsorted(case_days, days, side="right")  # days with a case up to the patient's own
        # By time: 2 k - 2 has the outcome on the k-th day with one, 2 k - 1 leaves later but before the next.
        time = 2 * passed - np.where(self._case, 2, 1)
        cases, whole = np.flatnonzero(self._case), np.zeros(len(days), dtype=np.int64)
        last = (passed == len(case_days)) & ~self._case  # later than every case
        yield _Pairs.of(np.flatnonzero(stratum & last), cases, whole, self._rank)
        within = stratum & (time >= 0) & ~last
        for level in range(int(2 * len(case_days)).bit_length()):
            part, is_later = time >> (level + 1), (time >> level) & 1 == 1
            later = np.flatnonzero(within & is_later)
            cases = np.flatnonzero(self._case & ~is_later)
            yield _Pairs.of(later, cases[np.isin(part[cases], part[later])], part, self._rank)

    def values(self, drawn: np.ndarray) -> np.ndarray:
        """Return the concordance for R weightings of the patients, (R,); NaN without a pair.

        Args:
            drawn: (R, N) how often each patient counts; the censoring is estimated anew for each.
        """
        drawn = np.asarray(drawn, dtype=np.float64)
        curves = self._censoring.estimate(drawn)
        observed = curves.take(self._places, axis=1)
        known = np.divide(drawn, observed, out=np.zeros_like(observed), where=drawn > 0)
        # A pair with a later patient is seen if neither is censored by the day of the case, one with a patient who died
        # before if the case is not by that day nor the other by the day of death.
        deaths = known * self._dead
        anyone_died = deaths.any()
        right, total = np.zeros(len(drawn)), np.zeros(len(drawn))

        def add(pairs: _Pairs, cases: np.ndarray, others: np.ndarray, sign: int = 1) -> None:
            nonlocal right, total
            own = cases.take(pairs.cases, axis=1)
            below, everyone = pairs.count(others)
            right += sign * np.einsum("rk,rk->r", own, below)
            total += sign * np.einsum("rk,rk->r", own, everyone)

        for places, halvings in self._by_stratum:
            later = curves.take(places, axis=1)  # that a patient of the stratum is observed on the day of each case
            case = np.divide(known, later, out=np.zeros_like(known), where=later > 0)
            for pairs in halvings:
                add(pairs, case, drawn)
                if anyone_died:  # all who died before the case: all deaths less the later ones
                    add(pairs, known, deaths, -1)
        if anyone_died:
            add(self._all_dead, known, deaths)
        return np.divide(right, total, out=np.full(len(drawn), np.nan), where=total > 0)


def concordance(
    follow_up: FollowUp, scores: np.ndarray, horizon: float, strata: np.ndarray | None = None
) -> float | None:
    """Return Uno's concordance with every patient once, None without a pair; arguments as in `Concordance`."""
    value = float(Concordance(follow_up, scores, horizon, strata).values(np.ones((1, len(follow_up))))[0])
    return None if np.isnan(value) else value
