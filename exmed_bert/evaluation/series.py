"""Series behind the plots: curves with few enough points, bins, net benefit, and the calibration error by chance."""

import numpy as np

from exmed_bert.evaluation.metrics import BINS, Predictions, equal_bins
from exmed_bert.evaluation.results import CalibrationBin, PlotSeries

_POINTS = 300  # of a drawn curve
_SIMULATED = 200  # sets of labels behind the calibration error by chance
_STEPS = 25  # of a histogram
_THRESHOLDS = np.arange(1, 200) / 200


def calibration_error_by_chance(probabilities: np.ndarray, seed: int = 0) -> float:
    """Return the mean expected calibration error where labels are drawn with exactly these probabilities.

    With few patients per bin there is an error even then; one of this size is no miscalibration.
    """
    in_bin = equal_bins(probabilities)[:, None] == np.arange(BINS)
    drawn = np.random.default_rng(seed).random((_SIMULATED, len(probabilities))) < probabilities
    excess = (drawn - probabilities) @ in_bin  # (simulated, bins)
    return float(np.abs(excess).sum(axis=1).mean() / len(probabilities))


def plot_series(labels: np.ndarray, probabilities: np.ndarray) -> PlotSeries:
    """Return the series of the plots of a model; both classes must occur."""
    predictions = Predictions(labels, probabilities)
    curve = predictions.curve(np.ones((1, len(predictions))))
    x, y, precision = curve.false_positives[0], curve.sensitivity[0], curve.precision[0]
    counts, edges = np.histogram(probabilities, bins=_STEPS, range=(0, max(probabilities.max(), 1e-6)))
    members = (predictions.bins == b for b in range(BINS))
    return PlotSeries(
        roc=_thinned(x, y),
        precision_recall=_thinned(y[1:], precision),
        bins=tuple(
            CalibrationBin(int(own.sum()), float(probabilities[own].mean()), float(labels[own].mean()))
            for own in members
            if own.any()
        ),
        histogram=tuple(zip(edges[1:].tolist(), counts.tolist(), strict=True)),
        net_benefit=tuple(
            (float(t), float(value)) for t, value in zip(_THRESHOLDS, net_benefit(labels, probabilities), strict=True)
        ),
    )


def net_benefit(labels: np.ndarray, probabilities: np.ndarray, thresholds: np.ndarray = _THRESHOLDS) -> np.ndarray:
    """Return the net benefit of treating the patients at or above each threshold, (T,).

    True positives minus false positives times the odds of the threshold, both as shares of all patients: Vickers and
    Elkin, "Decision curve analysis", Medical Decision Making 26 (2006).
    """
    treated = probabilities[:, None] >= thresholds  # (N, T)
    hits, alarms = (treated & (labels == 1)[:, None]).mean(axis=0), (treated & (labels == 0)[:, None]).mean(axis=0)
    return hits - alarms * thresholds / (1 - thresholds)


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[tuple[float, float], ...]:
    """Return the points of a curve, of many so many that a plot cannot tell, the ends among them."""
    chosen = np.unique(np.linspace(0, len(x) - 1, min(len(x), _POINTS)).round().astype(int))
    return tuple(zip(x[chosen].tolist(), y[chosen].tolist(), strict=True))
