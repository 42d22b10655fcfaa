"""Series behind the plots: curves with few enough points, bins, net benefit, and the calibration error by chance."""

import numpy as np

from exmed_bert.evaluation.censoring import HorizonOutcome
from exmed_bert.evaluation.incidence import calibration_bin
from exmed_bert.evaluation.metrics import BINS, Predictions, equal_bins
from exmed_bert.evaluation.results import CalibrationBin, PlotSeries
from exmed_bert.reporting.small_cells import ALL, MinCell

_POINTS = 300  # of a drawn curve
_SIMULATED = 200  # sets of labels behind the calibration error by chance
_STEPS = 25  # of a histogram
_THRESHOLDS = np.arange(1, 200) / 200


def calibration_error_by_chance(probabilities: np.ndarray, seed: int = 0, weights: np.ndarray | None = None) -> float:
    """Return the mean expected calibration error where labels are drawn with exactly these probabilities.

    With few patients per bin there is an error even then; one of this size is no miscalibration.

    Args:
        probabilities: (N,) of label 1.
        seed: of the draws.
        weights: (N,) what each patient counts; None for each once.
    """
    share = np.ones(len(probabilities)) if weights is None else weights
    in_bin = equal_bins(probabilities)[:, None] == np.arange(BINS)
    drawn = np.random.default_rng(seed).random((_SIMULATED, len(probabilities))) < probabilities
    excess = (share * (drawn - probabilities)) @ in_bin  # (simulated, bins)
    return float(np.abs(excess).sum(axis=1).mean() / share.sum())


def plot_series(
    labels: np.ndarray, probabilities: np.ndarray, cells: MinCell = ALL, outcome: HorizonOutcome | None = None
) -> PlotSeries:
    """Return the series of the plots of a model; both classes must occur.

    Where counts are hidden, the points of a curve are so many patients apart, and no bin holds fewer.

    Args:
        labels, probabilities: (N,) 0 or 1, and of label 1.
        cells: which counts are hidden.
        outcome: of the same patients, with weights for censoring; None where all labels are known.
    """
    predictions = Predictions(labels, probabilities)
    weights = np.ones(len(predictions)) if outcome is None else outcome.weights()[0]
    known = weights > 0
    curve = predictions.curve(weights[None])
    x, y, precision = curve.false_positives[0], curve.sensitivity[0], curve.precision[0]
    counts, edges = np.histogram(probabilities, bins=_STEPS, range=(0, max(probabilities.max(), 1e-6)))
    points = min(_POINTS, int(known.sum()) // cells.limit + 1) if cells.limit else _POINTS
    thresholds, benefit = _net_benefit(labels, probabilities, cells, weights)
    return PlotSeries(
        roc=_thinned(x, y, points),
        precision_recall=_thinned(y[1:], precision, points),
        bins=tuple(
            CalibrationBin(int(own.sum()), float(probabilities[own].mean()), float(labels[own].mean()))
            if outcome is None
            else calibration_bin(outcome.follow_up.take(own), probabilities[own], outcome.horizon)
            for own in merged_bins(predictions.bins, labels, known, cells)
        ),
        histogram=tuple(zip(edges[1:].tolist(), map(cells.drawn, counts.tolist()), strict=True)),
        net_benefit=tuple(zip(thresholds.tolist(), benefit.tolist(), strict=True)),
    )


def net_benefit(
    labels: np.ndarray,
    probabilities: np.ndarray,
    thresholds: np.ndarray = _THRESHOLDS,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Return the net benefit of treating the patients at or above each threshold, (T,).

    True positives minus false positives times the odds of the threshold, both as shares of all patients: Vickers and
    Elkin, "Decision curve analysis", Medical Decision Making 26 (2006). ``weights`` (N,) say what each patient counts.
    """
    treated = probabilities[:, None] >= thresholds  # (N, T)
    hits, alarms = (np.average(treated & (labels == label)[:, None], axis=0, weights=weights) for label in (1, 0))
    return hits - alarms * thresholds / (1 - thresholds)


def _net_benefit(
    labels: np.ndarray, probabilities: np.ndarray, cells: MinCell, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the thresholds at which neither right nor false alarms are too few to be told, and the net benefit."""
    treated = (probabilities[:, None] >= _THRESHOLDS) & (weights > 0)[:, None]
    alarms = [(treated & (labels == label)[:, None]).sum(axis=0).tolist() for label in (1, 0)]
    told = np.array([not cells.hides(*counts) for counts in zip(*alarms, strict=True)])
    return _THRESHOLDS[told], net_benefit(labels, probabilities, _THRESHOLDS[told], weights)


def merged_bins(bins: np.ndarray, labels: np.ndarray, known: np.ndarray, cells: MinCell) -> list[np.ndarray]:
    """Return the members of each bin that has some, (N,) bool; neighbors are one bin where their labels are too few.

    A label counts where it is ``known``, (N,) bool.
    """
    found: list[np.ndarray] = []
    waiting = np.zeros(len(bins), dtype=bool)
    for number in range(BINS):
        waiting = waiting | (bins == number)
        if waiting.any() and np.bincount(labels[waiting & known], minlength=2).min() >= cells.limit:
            found.append(waiting)
            waiting = np.zeros(len(bins), dtype=bool)
    if waiting.any():
        found[-1:] = [np.logical_or.reduce([waiting, *found[-1:]])]
    return found


def _thinned(x: np.ndarray, y: np.ndarray, points: int) -> tuple[tuple[float, float], ...]:
    """Return the points of a curve, of many so many that a plot cannot tell, the ends among them."""
    chosen = np.unique(np.linspace(0, len(x) - 1, max(2, min(len(x), points))).round().astype(int))
    return tuple(zip(x[chosen].tolist(), y[chosen].tolist(), strict=True))
