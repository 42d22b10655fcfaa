"""Metrics of a binary prediction, each for many weightings of the patients at once.

A bootstrap resample is a weighting: how often each patient was drawn. The scores are sorted once, and every metric is
sums over weights, so a thousand resamples cost a few passes over an array.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

BINS = 10  # of equal numbers of patients, for the calibration error and the calibration plot
FALSE_POSITIVES = 0.2  # up to which the partial AUROC goes
SPECIFICITIES = (0.80, 0.90, 0.95)

# By key the name, in the order of the tables.
METRICS = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "partial_auroc": "partial AUROC, false positives up to 20 %",
    "brier": "Brier score",
    "calibration_slope": "calibration slope",
    "calibration_intercept": "calibration intercept",
    "calibration_error": "expected calibration error",
    **{f"sensitivity_at_{100 * s:.0f}": f"sensitivity at specificity {s:.2f}" for s in SPECIFICITIES},
}
SENSITIVITIES = tuple(name for name in METRICS if name.startswith("sensitivity"))
LOWER_IS_BETTER = ("brier", "calibration_error")
WITHOUT_DIRECTION = ("calibration_slope", "calibration_intercept")  # 1 and 0 are best; a difference says little
_RANKING = ("auroc", "auprc", "partial_auroc", *SENSITIVITIES)

_EDGE = 1e-6  # probabilities are kept so far from 0 and 1 where their logit is taken
_NEWTON_STEPS = 30
_CLOSE = 1e-4  # a step of Newton's so short ends within about its square of the solution
_STEEPEST = 50.0  # a calibration slope beyond is that of classes that the scores separate: it has no finite value


def logit(probabilities: np.ndarray) -> np.ndarray:
    """Return the log odds; probabilities of 0 and 1 count as 1e-6 and 1 - 1e-6."""
    p = np.clip(probabilities, _EDGE, 1 - _EDGE)
    return np.log(p / (1 - p))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Return the probabilities behind log odds."""
    return 0.5 * (1 + np.tanh(0.5 * np.asarray(logits, dtype=np.float64)))  # does not overflow


def measure(labels: np.ndarray, probabilities: np.ndarray, weights: np.ndarray | None = None) -> dict[str, float]:
    """Return the metrics of `METRICS`, leaving out those that are not defined.

    Where one class alone occurs, the Brier score and the calibration error are left. A calibration slope has no value
    where the scores separate the classes or are all the same.

    Args:
        labels: (N,) 0 or 1.
        probabilities: (N,) of label 1.
        weights: (N,) what each patient counts; None for each once.

    Raises:
        ValueError: lengths differ, nothing to measure, a label is not 0 or 1, or a probability not in [0, 1].
    """
    return Predictions(labels, probabilities).measure(weights)


@dataclass(frozen=True)
class Curve:
    """Sensitivity, false positives and precision at each threshold, strictest first, for R weightings.

    Attributes:
        hits, alarms: (R, T + 1) weight of label 1 and of label 0 at or above each of T distinct scores, from 0.
    """

    hits: np.ndarray
    alarms: np.ndarray

    @cached_property
    def sensitivity(self) -> np.ndarray:
        """(R, T + 1) share of label 1 that is found."""
        return _ratio(self.hits, self.hits[:, -1:])

    @cached_property
    def false_positives(self) -> np.ndarray:
        """(R, T + 1) share of label 0 that raises an alarm."""
        return _ratio(self.alarms, self.alarms[:, -1:])

    @cached_property
    def precision(self) -> np.ndarray:
        """(R, T) share of the alarms that are right, from the first threshold on; 0 where there is none."""
        all_alarms = self.hits[:, 1:] + self.alarms[:, 1:]
        return self.hits[:, 1:] / np.maximum(all_alarms, 1e-300)


class Predictions:
    """N patients with a label and a probability, prepared for `metrics`."""

    def __init__(self, labels: np.ndarray, probabilities: np.ndarray) -> None:
        """Check and sort; arguments and errors as in `measure`."""
        self.labels, self.probabilities = _checked(labels, probabilities)
        self._logits = logit(self.probabilities)
        self._order = np.argsort(-self.probabilities, kind="stable")
        in_order = self.probabilities[self._order]
        self._ends = np.flatnonzero(np.append(in_order[1:] != in_order[:-1], True))  # last of each distinct score
        self.bins = equal_bins(self.probabilities)

    def __len__(self) -> int:
        return len(self.labels)

    def measure(self, weights: np.ndarray | None = None) -> dict[str, float]:
        """Return the metrics with every patient counted once, or as ``weights`` (N,) say, where they are defined."""
        found = self.metrics(np.ones((1, len(self))) if weights is None else np.reshape(weights, (1, -1)))
        return {name: float(values[0]) for name, values in found.items() if np.isfinite(values[0])}

    def metrics(self, weights: np.ndarray, names: Iterable[str] = METRICS) -> dict[str, np.ndarray]:
        """Return metrics for R weightings of the patients, each (R,), NaN where one is not defined.

        Args:
            weights: (R, N), how often each patient counts; any numbers from 0 on.
            names: keys of `METRICS`.
        """
        names = tuple(names)
        weights = np.asarray(weights, dtype=np.float64)
        found: dict[str, np.ndarray] = {}
        if any(name in _RANKING for name in names):
            curve = self.curve(weights)
            found |= {name: _ranking(name, curve) for name in names if name in _RANKING}
        if "brier" in names:
            found["brier"] = weights @ (self.probabilities - self.labels) ** 2 / weights.sum(axis=1)
        if "calibration_slope" in names:
            found["calibration_slope"] = self._slope(weights)
        if "calibration_intercept" in names:
            found["calibration_intercept"] = self._intercept(weights)
        if "calibration_error" in names:
            found["calibration_error"] = self._calibration_error(weights)
        return {name: found[name] for name in names}

    def curve(self, weights: np.ndarray) -> Curve:
        """Return hits and false alarms at each distinct score as a threshold, for R weightings (R, N)."""
        ordered = weights[:, self._order]
        positive = self.labels[self._order]
        return Curve(
            *(
                np.concatenate((np.zeros((len(weights), 1)), np.cumsum(ordered * of, axis=1)[:, self._ends]), axis=1)
                for of in (positive, 1 - positive)
            )
        )

    @cached_property
    def _fitted(self) -> np.ndarray:
        """Intercept and slope with every patient once: where the resamples' searches start."""
        return _newton(self._logits, self.labels, np.ones((1, len(self))), np.array([[0.0, 1.0]]))[0]

    def _slope(self, weights: np.ndarray) -> np.ndarray:
        if np.ptp(self._logits) == 0:
            return np.full(len(weights), np.nan)
        start = self._fitted if np.isfinite(self._fitted).all() else np.array([0.0, 1.0])
        slope = _newton(self._logits, self.labels, weights, np.tile(start, (len(weights), 1)))[:, 1]
        return np.where(_both_classes(weights, self.labels) & (np.abs(slope) < _STEEPEST), slope, np.nan)

    def _intercept(self, weights: np.ndarray) -> np.ndarray:
        """Return the constant that, added to the logit, makes the expected events as many as the observed."""
        events, intercept = weights @ self.labels, np.zeros(len(weights))
        for _ in range(_NEWTON_STEPS):
            p = sigmoid(self._logits + intercept[:, None])
            slope = ((p * (1 - p)) * weights).sum(axis=1)
            step = np.divide(events - (p * weights).sum(axis=1), slope, out=np.zeros_like(slope), where=slope > 0)
            intercept += np.clip(step, -2, 2)
            if np.abs(step).max(initial=0) < _CLOSE:
                break
        return np.where(_both_classes(weights, self.labels), intercept, np.nan)

    def _calibration_error(self, weights: np.ndarray) -> np.ndarray:
        """Return the mean over patients of |observed share - mean probability| of their bin."""
        in_bin = self.bins[:, None] == np.arange(BINS)  # (N, bins)
        excess = weights @ (in_bin * (self.labels - self.probabilities)[:, None])
        return np.abs(excess).sum(axis=1) / weights.sum(axis=1)


def equal_bins(probabilities: np.ndarray) -> np.ndarray:
    """Return the bin of each patient, 0 to `BINS` - 1: equal numbers, ties together.

    >>> equal_bins(np.linspace(0, 1, 20)).tolist()
    [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9]
    """
    edges = np.quantile(probabilities, np.arange(1, BINS) / BINS)
    return np.searchsorted(edges, probabilities, side="right")


def _ranking(name: str, curve: Curve) -> np.ndarray:
    """Return a metric that depends on the order of the scores alone, (R,)."""
    x, y = curve.false_positives, curve.sensitivity
    if name == "auroc":
        value = np.vecdot(np.diff(x, axis=1), y[:, 1:] + y[:, :-1]) / 2
    elif name == "auprc":  # average precision: no interpolation between thresholds, which would be optimistic
        value = np.vecdot(np.diff(y, axis=1), curve.precision)
    elif name == "partial_auroc":
        value = _partial_area(x, y, FALSE_POSITIVES)
    else:
        specificity = int(name.removeprefix("sensitivity_at_")) / 100
        last = np.count_nonzero(x <= 1 - specificity + 1e-12, axis=1) - 1  # x and y never fall
        value = y[np.arange(len(y)), last]
    defined = (curve.hits[:, -1] > 0) & (curve.alarms[:, -1] > 0)
    return np.where(defined, value, np.nan)


def _partial_area(x: np.ndarray, y: np.ndarray, limit: float) -> np.ndarray:
    """Return the standardized area under ROC curves up to a false-positive rate: 0.5 by chance, 1 at best.

    McClish, "Analyzing a portion of the ROC curve", Medical Decision Making 9 (1989); as ``max_fpr`` of scikit-learn.
    """
    within = np.count_nonzero((x < limit).any(axis=0)) + 1  # columns with a part of any curve
    x, y = x[:, :within], y[:, :within]
    left, right = np.minimum(x[:, :-1], limit), np.minimum(x[:, 1:], limit)
    width = np.diff(x, axis=1)
    share = np.divide(right - x[:, :-1], width, out=np.zeros_like(width), where=width > 0)
    height = y[:, :-1] + share * np.diff(y, axis=1)  # at the right end, which may lie within a segment
    area = np.vecdot(right - left, y[:, :-1] + height) / 2
    lowest, highest = limit**2 / 2, limit
    return 0.5 * (1 + (area - lowest) / (highest - lowest))


def _newton(x: np.ndarray, labels: np.ndarray, weights: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Fit label ~ intercept + slope * x by unpenalized logistic regression for R weightings, (R, 2).

    NaN where it does not converge, as with classes that x separates.
    """
    fitted = start.copy()  # (R, 2)
    step = np.zeros_like(fitted)
    with np.errstate(divide="ignore", invalid="ignore"):
        for _ in range(_NEWTON_STEPS):
            p = sigmoid(fitted[:, :1] + fitted[:, 1:] * x)  # (R, N)
            residual, curvature = weights * (labels - p), weights * p * (1 - p)
            gradient = np.stack((residual.sum(axis=1), residual @ x), axis=1)
            c0, c1, c2 = curvature.sum(axis=1), curvature @ x, curvature @ (x * x)
            determinant = c0 * c2 - c1 * c1
            step[:, 0] = (c2 * gradient[:, 0] - c1 * gradient[:, 1]) / determinant
            step[:, 1] = (c0 * gradient[:, 1] - c1 * gradient[:, 0]) / determinant
            longest = np.abs(step).max(axis=1, keepdims=True)
            step *= np.minimum(1, 5 / np.maximum(longest, 1e-12))  # a far start may overshoot
            fitted += step
            if not (longest > _CLOSE).any():  # NaN has given up
                break
    return np.where(longest <= _CLOSE, fitted, np.nan)


def _both_classes(weights: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return (weights @ labels > 0) & (weights @ (1 - labels) > 0)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return part / whole, NaN of nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return part / whole


def _checked(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels, probabilities = np.asarray(labels, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
    if labels.ndim != 1 or labels.shape != probabilities.shape or not len(labels):
        raise ValueError(
            f"labels and probabilities have shapes {labels.shape} and {probabilities.shape}, expected one and the same "
            "length of at least 1"
        )
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(f"label {labels[~np.isin(labels, (0, 1))][0]:g}, expected 0 or 1")
    outside = ~((probabilities >= 0) & (probabilities <= 1))
    if outside.any():
        raise ValueError(f"probability {probabilities[outside][0]:g}, expected a number from 0 to 1")
    return labels, probabilities
