"""Plots of an evaluation, each a function from `Results` to a figure."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from exmed_bert.evaluation.bootstrap import Estimate
from exmed_bert.evaluation.groups import GroupMetrics
from exmed_bert.evaluation.results import CurvePoint, ModelResults, PlotSeries, Reported, Results
from exmed_bert.reporting.plotting import BLUE, INK, ORANGE, WIDTH, Drawing, one_axes
from exmed_bert.reporting.small_cells import as_count

COLORS = (BLUE, ORANGE, "#3a9d7c", "#8a4f9e", "#e3a52c", "#7a7f87")  # the first is the model's own
AGAINST = "#b5493b"  # codes that lower the risk
TOP_CODES = 25


def roc(results: Results) -> Figure | None:
    """Sensitivity against false positives."""
    if not (models := _drawable(results)):
        return None
    figure, axes = one_axes(4.6)
    for model, series, color in models:
        x, y = np.array(series.roc).T
        label = f"{model.label}, {model.metrics['auroc'].value:.3f}"
        axes.plot(x, y, color=color, linewidth=1.7, label=label, zorder=3 if color == COLORS[0] else 2)
    axes.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle="--", zorder=1)
    axes.set(xlabel="false-positive rate", ylabel="sensitivity", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.legend(title="area under the curve", loc="lower right")
    return figure


def precision_recall(results: Results) -> Figure | None:
    """Precision against recall."""
    if not (models := _drawable(results)):
        return None
    figure, axes = one_axes(4.6)
    for model, series, color in models:
        x, y = np.array(series.precision_recall).T
        label = f"{model.label}, {model.metrics['auprc'].value:.3f}"
        axes.step(x, y, where="pre", color=color, linewidth=1.5, label=label, zorder=3 if color == COLORS[0] else 2)
    share = _prevalence(results)
    axes.axhline(share, color=INK, linewidth=1, linestyle="--", zorder=1)
    axes.set(xlabel="recall (sensitivity)", ylabel="precision", xlim=(0, 1), ylim=(0, 1))
    axes.legend(title="average precision", loc="upper right")
    return figure


def calibration(results: Results) -> Figure | None:
    """Observed share against mean probability by bin, and below it where the probabilities of the first model lie."""
    if not (models := _drawable(results)):
        return None
    figure = Figure(figsize=(WIDTH, 5.6), layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    furthest = 0.05
    for model, series, color in models:
        predicted, observed, patients = np.array([(b.predicted, b.observed, b.patients) for b in series.bins]).T
        own = color == COLORS[0]
        axes.plot(predicted, observed, color=color, marker="o", markersize=4.5, linewidth=1.3, label=model.label)
        if own:
            low, high = _wilson(observed, patients)
            low = np.array([end if b.low is None else b.low for b, end in zip(series.bins, low, strict=True)])
            high = np.array([end if b.high is None else b.high for b, end in zip(series.bins, high, strict=True)])
            axes.vlines(predicted, low, high, color=color, alpha=0.45, linewidth=1.4)
        furthest = max(furthest, predicted.max(), observed.max())
    limit = min(1.0, 1.12 * furthest)
    axes.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle="--", zorder=1)
    axes.set(ylabel="share with the outcome", xlim=(0, limit), ylim=(0, limit))
    axes.legend(loc="upper left")
    ends, patients = zip(*models[0][1].histogram, strict=True)
    below.stairs(patients, (0, *ends), fill=True, color=COLORS[0], alpha=0.8)
    below.set(xlabel="predicted probability", ylabel="patients")
    return figure


def decision_curve(results: Results) -> Figure | None:
    """Net benefit by threshold probability, beside treating all and none."""
    if not (models := _drawable(results)):
        return None
    figure, axes = one_axes(4.2)
    share = _prevalence(results)
    limit = float(np.clip(4 * share, 0.1, 0.99))
    for model, series, color in models:
        x, y = np.array(series.net_benefit).reshape(-1, 2).T
        axes.plot(x, y, color=color, linewidth=1.7, label=model.label, zorder=3 if color == COLORS[0] else 2)
    threshold = np.linspace(0, limit, 200, endpoint=False)
    axes.plot(threshold, share - (1 - share) * threshold / (1 - threshold), color=INK, linewidth=1, label="all")
    axes.axhline(0, color=INK, linewidth=1, linestyle=":", label="none")
    axes.set(xlabel="threshold probability", ylabel="net benefit", xlim=(0, limit))
    axes.set_ylim(-0.12 * share, 1.05 * share)
    axes.legend(loc="upper right")
    return figure


def label_efficiency(results: Results) -> Figure | None:
    """Test AUROC by number of labels: the mean over seeds as a line, each seed as a point."""
    if not results.label_efficiency:
        return None
    figure, axes = one_axes(4.0)
    sizes = sorted({point.labels for point in results.label_efficiency})
    names = {model.name: model.label for model in results.models}
    drawn = dict.fromkeys(point.model for point in results.label_efficiency)
    order = dict.fromkeys([*(name for name in names if name in drawn), *drawn])  # so that colors are those of all plots
    for name, color in zip(order, _colors(), strict=False):
        own = [point for point in results.label_efficiency if point.model == name]
        axes.scatter([p.labels for p in own], [p.auroc for p in own], s=14, color=color, alpha=0.45, linewidths=0)
        means = [(size, mean) for size in sizes if (mean := _mean_auroc(own, size)) is not None]
        axes.plot(*zip(*means, strict=True), color=color, linewidth=1.7, marker="o", label=names.get(name, name))
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="patients with a label, to train and validate on", ylabel="test AUROC")
    axes.legend(loc="best")
    return figure


def groups(results: Results) -> Figure | None:
    """Forest plot: AUROC of the first model by subgroup, and of all patients as a line."""
    model = results.models[0]
    return forest(model.groups, "auroc", model.metrics.get("auroc"), "AUROC")


def forest(groups: Sequence[GroupMetrics], key: str, whole: Estimate | None, label: str) -> Figure | None:
    """Draw a metric by subgroup, and that of all patients as a line; None where no subgroup has it.

    Args:
        groups: in order.
        key: of the metric in each of them.
        whole: of all test patients.
        label: of the axis.
    """
    rows = [group for group in groups if key in group.metrics]
    if not rows or whole is None:
        return None
    figure, axes = one_axes(0.9 + 0.34 * len(rows))
    kinds = list(dict.fromkeys(group.kind for group in rows))
    level = np.arange(len(rows)) + 0.5 * np.array([kinds.index(group.kind) for group in rows])
    for place, group in zip(level, rows, strict=True):
        found = group.metrics[key]
        if found.interval is not None:
            axes.hlines(place, *found.interval, color=COLORS[0], linewidth=1.6, alpha=0.6)
        axes.plot(found.value, place, "o", color=COLORS[0], markersize=5.5)
    axes.axvline(whole.value, color=INK, linewidth=1, linestyle="--", zorder=1)
    axes.set_yticks(level, [f"{group.kind}: {group.name}  ({group.events:,}/{group.patients:,})" for group in rows])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set(xlabel=f"{label}; dashed: all test patients")
    return figure


def attributions(results: Reported) -> Figure | None:
    """Bars: the codes with the largest mean attribution."""
    if not results.attributions:
        return None
    shown = results.attributions[:TOP_CODES]
    figure, axes = one_axes(0.8 + 0.24 * len(shown))
    mean = np.array([code.mean for code in shown])
    axes.barh(np.arange(len(shown)), mean, color=np.where(mean >= 0, COLORS[0], AGAINST), alpha=0.85, height=0.75)
    axes.set_yticks(np.arange(len(shown)), [f"{code.code}  (n = {code.patients:,})" for code in shown], fontsize=9)
    axes.invert_yaxis()
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.grid(axis="y", visible=False)
    axes.set(xlabel="mean attribution to the log odds")
    return figure


DRAWINGS: dict[str, Drawing[Results]] = {
    "roc": (roc, "ROC curves of the models, with the diagonal of chance."),
    "precision_recall": (precision_recall, "Precision-recall curves; the dashed line is the share with the outcome."),
    "calibration": (
        calibration,
        "Calibration plot: share with the outcome against predicted probability in ten bins, with the diagonal; bars "
        "are 95 % intervals of the first model. Below, the histogram of its probabilities.",
    ),
    "decision_curve": (
        decision_curve,
        "Decision curve: net benefit of each model, of treating all and of treating none.",
    ),
    "label_efficiency": (
        label_efficiency,
        "AUROC on the test patients by number of labels, one line per model.",
    ),
    "groups": (groups, "Forest plot: AUROC of the first model with 95 % intervals by sex, age and codes."),
    "attributions": (attributions, "Bar chart: the codes with the largest mean attribution to the log odds."),
}


def _colors() -> list[str]:
    return [*COLORS, *(["#b0b4ba"] * 20)]


def _drawable(results: Results) -> list[tuple[ModelResults, PlotSeries, str]]:
    """Return the models that have curves, each with these and its color."""
    colored = zip(results.models, _colors(), strict=False)
    return [(model, model.series, color) for model, color in colored if model.series is not None]


def _prevalence(results: Results) -> float:
    test = results.splits[-1]
    return test.risk if test.risk is not None else as_count(test.events).middle / as_count(test.patients).middle


def _mean_auroc(points: list[CurvePoint], size: int) -> float | None:
    values = [point.auroc for point in points if point.labels == size]
    return float(np.mean(values)) if values else None


def _wilson(share: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the 95 % interval of shares of n (Wilson, "Probable inference", JASA 22, 1927)."""
    z = 1.96
    center = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return center - reach, center + reach
