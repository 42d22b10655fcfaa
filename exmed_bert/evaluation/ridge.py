"""Logistic regression with a ridge of its own for each column, and what it is worth by cross-validation."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from exmed_bert.evaluation.metrics import sigmoid

_FOLDS, _REPEATS, _MANY = 5, 3, 2000  # so many patients are divided into folds once
_STEPS = 30
_TOLERANCE = 1e-8


@dataclass(frozen=True)
class Prior:
    """What is believed of C coefficients before labels: normal, independent.

    Attributes:
        means: (C,).
        variances: (C,), above 0.
    """

    means: np.ndarray
    variances: np.ndarray


def fit(inputs: np.ndarray, labels: np.ndarray, weights: np.ndarray | None, prior: Prior) -> np.ndarray:
    """Return the intercept, which has no prior, and the likeliest coefficients after the labels, (1 + C,) float64.

    Newton's method with steps that are halved until the objective falls: the objective is convex, so there is one
    answer.

    Args:
        inputs: (n, C).
        labels: (n,) 0 or 1, both among them.
        weights: (n,) what each patient counts; None for each once.
        prior: of the coefficients.
    """
    table = np.column_stack((np.ones(len(inputs)), inputs))
    ridge, means = np.append(0.0, 1 / prior.variances), np.append(0.0, prior.means)
    share = np.ones(len(labels)) if weights is None else np.asarray(weights, dtype=np.float64)

    def loss(guess: np.ndarray) -> float:
        logits = table @ guess
        return float(share @ (np.logaddexp(0, logits) - labels * logits) + ridge @ (guess - means) ** 2 / 2)

    rate = float(share @ labels / share.sum())
    found = means.copy()
    found[0] = np.log(rate / (1 - rate)) - float(np.mean(table @ means))
    best = loss(found)
    for _ in range(_STEPS):
        risks = sigmoid(table @ found)
        gradient = table.T @ (share * (risks - labels)) + ridge * (found - means)
        curvature = (table * (share * risks * (1 - risks))[:, None]).T @ table + np.diag(ridge + 1e-9)
        step = np.linalg.solve(curvature, gradient)
        while (value := loss(found - step)) > best and np.abs(step).max() > _TOLERANCE:
            step /= 2
        if value >= best - _TOLERANCE:
            break
        found, best = found - step, value
    return found


def cross_validated(
    inputs: np.ndarray, labels: np.ndarray, weights: np.ndarray | None, priors: Sequence[Prior], seed: int
) -> np.ndarray:
    """Return how well each prior predicts patients who were not fitted to, (P,) nats a patient, in repeated folds.

    Args:
        inputs, labels, weights: as `fit` takes them.
        priors: P of them.
        seed: of the folds, each of which has its part of both labels.

    Raises:
        ValueError: fewer than two patients have the one label or the other.
    """
    folds = min(_FOLDS, int(labels.sum()), int((1 - labels).sum()))
    if folds < 2:
        raise ValueError("folds take two patients of either label")
    share = np.ones(len(labels)) if weights is None else np.asarray(weights, dtype=np.float64)
    losses = np.zeros((len(priors), len(labels)))
    rng = np.random.default_rng(seed)
    repeats = _REPEATS if len(labels) < _MANY else 1
    for _ in range(repeats):
        order = rng.permutation(len(labels))
        place = np.empty(len(labels), dtype=np.int64)
        place[order[np.argsort(labels[order], kind="stable")]] = np.arange(len(labels)) % folds
        for fold in range(folds):
            own, others = place == fold, place != fold
            for i, prior in enumerate(priors):
                found = fit(inputs[others], labels[others], None if weights is None else share[others], prior)
                logits = found[0] + inputs[own] @ found[1:]
                losses[i, own] += np.logaddexp(0, logits) - labels[own] * logits
    return losses @ share / (repeats * share.sum())
