"""Differences of models with intervals over patients and seeds: both are resampled, for all endpoints at once."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from exmed_bert.evaluation.bootstrap import Estimate, estimate_of
from exmed_bert.evaluation.concordance import Concordance
from exmed_bert.evaluation.follow_up import FollowUp

RESAMPLES = 1000
_AT_ONCE = 20  # resamples


Weighted = Callable[[np.ndarray], np.ndarray]
"""A measure of a model's scores for R weightings of the patients, (R, n) -> (R,)."""


class Tested(Protocol):
    """The test patients of an endpoint, and what models that were trained with S seeds make of them."""

    @property
    def keys(self) -> np.ndarray:
        """(n,) the hash of each patient's id."""

    @property
    def scores(self) -> Mapping[str, np.ndarray]:
        """By model (S, n)."""

    def measure(self, scores: np.ndarray) -> Weighted:
        """Return the measure of scores (n,), prepared for many weightings."""


@dataclass(frozen=True)
class Draws:
    """Test patients with an outcome, measured by AUROC; ``keys`` and ``scores`` as of `Tested`.

    Attributes:
        labels: (n,) 0 or 1.
    """

    labels: np.ndarray
    keys: np.ndarray
    scores: Mapping[str, np.ndarray]

    def measure(self, scores: np.ndarray) -> Weighted:
        """Return the AUROC of scores."""
        return Ranked(self.labels, scores).auroc


@dataclass(frozen=True)
class FollowedDraws:
    """Test patients with follow-up, measured by Uno's concordance; ``keys`` and ``scores`` as of `Tested`.

    Attributes:
        follow_up: of n patients.
        horizon: in days.
    """

    follow_up: FollowUp
    horizon: float
    keys: np.ndarray
    scores: Mapping[str, np.ndarray]

    def measure(self, scores: np.ndarray) -> Weighted:
        """Return the concordance of scores."""
        return Concordance(self.follow_up, scores, self.horizon).values


class Ranked:
    """Scores of n patients, sorted once, whose AUROC is then quick for many weightings."""

    def __init__(self, labels: np.ndarray, scores: np.ndarray) -> None:
        """Sort; ``labels`` and ``scores`` are (n,)."""
        self._order = np.argsort(scores, kind="stable")
        ordered, positive = scores[self._order], labels[self._order] == 1
        self._negative = ~positive
        self._positive = np.flatnonzero(positive)
        self._below = np.searchsorted(ordered, ordered[positive], side="left")
        self._up_to = np.searchsorted(ordered, ordered[positive], side="right")

    def auroc(self, weights: np.ndarray) -> np.ndarray:
        """Return the AUROC for R weightings of the patients (R, n), (R,); ties are half right."""
        ordered = weights[:, self._order]
        negative = np.zeros((len(weights), ordered.shape[1] + 1))
        np.cumsum(ordered * self._negative, axis=1, out=negative[:, 1:])
        own = ordered[:, self._positive]
        worse = (negative[:, self._below] + negative[:, self._up_to]) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            return (own * worse).sum(axis=1) / (own.sum(axis=1) * negative[:, -1])


def differences(
    endpoints: Sequence[Tested], ours: str, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, tuple[float, Estimate]]:
    """Return of each other model its mean measure, and ours minus its own with the interval of both levels.

    In each resample patients are drawn with replacement, one who is drawn twice counting twice in every endpoint, and
    of each endpoint as many seeds as there are, the same for both models. Means are over endpoints and seeds.
    """
    measures = [
        {name: [one.measure(scores) for scores in drawn] for name, drawn in one.scores.items()} for one in endpoints
    ]
    others = [name for name in endpoints[0].scores if name != ours]
    everyone = [np.ones((1, len(one.keys))) for one in endpoints]
    mean = {
        name: float(np.mean([[m(once)[0] for m in own[name]] for own, once in zip(measures, everyone, strict=True)]))
        for name in endpoints[0].scores
    }
    gains: dict[str, list[np.ndarray]] = {name: [] for name in others}
    rng = np.random.default_rng(seed)
    for weights in _patients(endpoints, resamples, seed):
        of_chunk: dict[str, list[np.ndarray]] = {name: [] for name in others}
        for own, drawn in zip(measures, weights, strict=True):
            seeds = rng.integers(len(own[ours]), size=(len(drawn), len(own[ours])))
            found = {name: np.stack([m(drawn) for m in all_], axis=1) for name, all_ in own.items()}  # (R, S)
            for name in others:
                of_chunk[name].append(np.take_along_axis(found[ours] - found[name], seeds, axis=1).mean(axis=1))
        for name in others:
            gains[name].append(np.mean(of_chunk[name], axis=0))
    return {
        name: (mean[name], estimate_of(mean[ours] - mean[name], np.concatenate(gains[name]))) for name in others
    } | {ours: (mean[ours], Estimate(0.0))}


def _patients(endpoints: Sequence[Tested], resamples: int, seed: int) -> Iterator[list[np.ndarray]]:
    """Yield how often the patients of each endpoint are drawn, (a few resamples, n) each."""
    distinct = np.unique(np.concatenate([one.keys for one in endpoints]))
    rows = [np.searchsorted(distinct, one.keys) for one in endpoints]
    rng = np.random.default_rng([seed, 1])
    for start in range(0, resamples, _AT_ONCE):
        count = min(_AT_ONCE, resamples - start)
        drawn = rng.integers(len(distinct), size=(count, len(distinct)))
        counts = np.stack([np.bincount(one, minlength=len(distinct)) for one in drawn]).astype(np.float64)
        yield [counts[:, own] for own in rows]
