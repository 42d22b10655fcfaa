"""Plots of an evaluation, each a function from `Results` to a figure."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from exmed_bert.evaluation.bootstrap import Estimate
from exmed_bert.evaluation.formatting import format_estimate, format_number
from exmed_bert.evaluation.groups import GroupMetrics
from exmed_bert.evaluation.results import CurvePoint, ModelResults, PlotSeries, Reported, Results
from exmed_bert.reporting.plotting import BLUE, INK, ORANGE, WIDTH, Drawing, name_points, one_axes
from exmed_bert.reporting.small_cells import as_count

COLORS = (BLUE, ORANGE, "#3a9d7c", "#8a4f9e", "#e3a52c", "#7a7f87")  # the first is the model's own
AGAINST = "#b5493b"  # codes that lower the risk
TOP_CODES = 25

_NAMED_PER_CURVE = 60


def roc(results: Results) -> Figure | None:
    """Sensitivity against false positives."""
    if not (models := _drawable(results)):
        return None
    figure, axes = one_axes(4.6)
    for model, series, color in models:
        x, y = np.array(series.roc).T
        label = f"{model.label}, {model.metrics['auroc'].value:.3f}"
        axes.plot(x, y, color=color, linewidth=1.7, label=label, zorder=3 if color == COLORS[0] else 2)
        _name_curve(axes, x, y, f"{model.label}: sensitivity {{y}} at a false-positive rate of {{x}}")
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
        _name_curve(axes, x, y, f"{model.label}: precision {{y}} at a recall of {{x}}")
    share = _prevalence(results)
    axes.axhline(share, color=INK, linewidth=1, linestyle="--", zorder=1)
    axes.set(xlabel="recall (sensitivity)", ylabel="precision", xlim=(0, 1), ylim=(0, 1))
    axes.legend(title="average precision", loc="upper right")
    return figure


def calibration(results: Results) -> Figure | None:
    """Observed share against mean probability by bin, a panel for each model with the histogram of probabilities."""
    if not (models := _drawable(results)):
        return None
    ends = [end for _, series, _ in models for b in series.bins for end in (b.predicted, b.observed)]
    limit = min(1.0, 1.12 * max(0.05, *ends))
    figure, panels = model_panels([model.label for model, *_ in models], limit)
    for axes, (model, series, color) in zip(panels, models, strict=True):
        steps, patients = zip(*series.histogram, strict=True)
        scale = 0.2 * limit / max(max(patients), 1)
        axes.stairs([scale * n for n in patients], (0, *steps), fill=True, color=color, alpha=0.2)
        predicted, observed, patients = np.array([(b.predicted, b.observed, b.patients) for b in series.bins]).T
        low, high = _wilson(observed, patients)
        low = np.array([end if b.low is None else b.low for b, end in zip(series.bins, low, strict=True)])
        high = np.array([end if b.high is None else b.high for b, end in zip(series.bins, high, strict=True)])
        draw_bins(axes, color, predicted, observed, low, high, model.label)
    figure.supxlabel("predicted probability", fontsize=10.5, color="#333333")
    figure.supylabel("share with the outcome", fontsize=10.5, color="#333333")
    return figure


def model_panels(titles: Sequence[str], limit: float) -> tuple[Figure, list[Axes]]:
    """Return square panels with a diagonal, two beside each other, whose axes end at a limit."""
    columns = min(len(titles), 2)
    lines = -(-len(titles) // columns)
    figure = Figure(figsize=(WIDTH, 0.5 + lines * (2.8 if columns == 2 else 4.6)), layout="constrained")
    panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel().tolist()
    for axes, title in zip(panels, titles, strict=False):
        axes.plot([0, limit], [0, limit], color=INK, linewidth=1, linestyle="--", zorder=1)
        axes.set(title=title, xlim=(0, limit), ylim=(0, limit))
    for axes in panels[len(titles) :]:
        axes.set_visible(False)
    for axes in panels[len(titles) - columns : len(titles)]:  # the lowest that is seen of each column
        axes.tick_params(labelbottom=True)
    return figure, panels[: len(titles)]


def draw_bins(
    axes: Axes, color: str, predicted: np.ndarray, observed: np.ndarray, low: np.ndarray, high: np.ndarray, name: str
) -> None:
    """Draw bins of calibration with their intervals, (n,) shares each, and name them."""
    axes.plot(predicted, observed, color=color, marker="o", markersize=4, linewidth=1.3)
    axes.vlines(predicted, low, high, color=color, alpha=0.45, linewidth=1.4)
    names = [
        f"{name}: predicted {100 * p:.1f} %, observed {100 * o:.1f} % ({100 * a:.1f} to {100 * b:.1f} %)"
        for p, o, a, b in zip(predicted, observed, low, high, strict=True)
    ]
    name_points(axes, predicted, observed, names)


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
        _name_curve(axes, x, y, f"{model.label}: net benefit {{y}} at a threshold of {{x}}")
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
        told = [f"{names.get(name, name)}: {p.labels:,} labels, seed {p.seed}, AUROC {p.auroc:.3f}" for p in own]
        name_points(axes, [p.labels for p in own], [p.auroc for p in own], told)
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
    told = [f"{group.kind}: {group.name}, {label} {format_estimate(group.metrics[key])}" for group in rows]
    name_points(axes, [group.metrics[key].value for group in rows], level, told)
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
    told = [f"{code.code}: {format_number(code.mean, sign=True)}, {code.patients:,} patients" for code in shown]
    name_points(axes, mean, np.arange(len(shown)), told)
    axes.set_yticks(np.arange(len(shown)), [f"{code.code}  (n = {code.patients:,})" for code in shown], fontsize=9)
    axes.invert_yaxis()
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.grid(axis="y", visible=False)
    axes.set(xlabel=f"mean attribution to the {results.explained}")
    return figure


DRAWINGS: dict[str, Drawing[Results]] = {
    "roc": (roc, "ROC curves of the models, with the diagonal of chance."),
    "precision_recall": (precision_recall, "Precision-recall curves; the dashed line is the share with the outcome."),
    "calibration": (
        calibration,
        "Calibration plots, one for each model: share with the outcome against predicted probability in ten bins, with "
        "95 % intervals and the diagonal, above the histogram of the probabilities.",
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


def _name_curve(axes: Axes, x: np.ndarray, y: np.ndarray, text: str) -> None:
    """Name points of a curve, a text with places for ``x`` and ``y``: so many that a pointer is always near one."""
    steps = np.hypot(np.diff(x, prepend=x[:1]) / max(np.ptp(x), 1e-9), np.diff(y, prepend=y[:1]) / max(np.ptp(y), 1e-9))
    chosen = np.unique(np.floor(np.cumsum(steps) * _NAMED_PER_CURVE / 2), return_index=True)[1]
    name_points(axes, x[chosen], y[chosen], [text.format(x=f"{x[i]:.3f}", y=f"{y[i]:.3f}") for i in chosen.tolist()])


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
