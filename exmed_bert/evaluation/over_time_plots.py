"""Plots of an evaluation of time to event, each a function from `OverTimeResults` to a figure."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from exmed_bert.evaluation.formatting import format_estimate
from exmed_bert.evaluation.over_time_results import AtHorizon, ModelOverTime, OverTimeResults
from exmed_bert.evaluation.results_plots import COLORS, attributions, draw_bins, forest, model_panels
from exmed_bert.reporting.plotting import INK, Drawing, name_points, one_axes

_DODGE = 0.011  # of the width of an axis, between the markers of models at one horizon


def incidence(results: OverTimeResults) -> Figure | None:
    """Cumulative incidence with its interval, and at the horizons the mean risk of each model."""
    curve = results.incidence
    if not curve or not results.models[0].horizons:
        return None
    figure, axes = one_axes(4.2)
    day = np.array([0.0, *(point.day for point in curve)])
    observed = np.array([0.0, *(100 * point.observed.value for point in curve)])
    axes.step(day, observed, where="post", color=INK, linewidth=1.5, label="observed")
    told = [f"observed by day {on:g}: {share:.1f} %" for on, share in zip(day, observed, strict=True)]
    name_points(axes, day, observed, told)
    known = [(point.day, *point.observed.interval) for point in curve if point.observed.interval is not None]
    if known:
        at, low, high = np.array(known).T
        axes.fill_between(at, 100 * low, 100 * high, step="post", color=INK, alpha=0.12, linewidth=0)
    died = np.array([0.0, *(100 * point.died for point in curve)])
    if died.any():
        axes.step(day, died, where="post", color="#8a8f98", linewidth=1.2, linestyle="--", label="death before it")
    for place, (model, color) in _dodged(results):
        step = place * _DODGE * day[-1]
        own = [(at.horizon + step, 100 * at.predicted) for at in model.horizons]
        axes.plot(*zip(*own, strict=True), "o", color=color, markersize=6, label=model.label, zorder=3)
        told = [f"{model.label}: mean risk {100 * at.predicted:.1f} % by {at.horizon:g} days" for at in model.horizons]
        name_points(axes, [x for x, _ in own], [y for _, y in own], told)
    axes.set(xlabel="days after the index date", ylabel="with the outcome, %", xlim=(0, 1.04 * day[-1]))
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper left")
    return figure


def auroc_over_time(results: OverTimeResults) -> Figure | None:
    """AUROC at each horizon with its interval, a color for each model."""
    if not any("auroc" in at.metrics for at in results.models[0].horizons):
        return None
    figure, axes = one_axes(4.0)
    longest = results.horizons[-1].horizon
    for place, (model, color) in _dodged(results):
        own = [(at.horizon, at.metrics["auroc"]) for at in model.horizons if "auroc" in at.metrics]
        if not own:
            continue
        at = np.array([horizon for horizon, _ in own]) + place * _DODGE * longest
        axes.plot(at, [found.value for _, found in own], "o", color=color, markersize=5.5, label=model.label, zorder=3)
        told = [f"{model.label}, {horizon:g} days: AUROC {format_estimate(found)}" for horizon, found in own]
        name_points(axes, at, [found.value for _, found in own], told)
        for x, (_, found) in zip(at, own, strict=True):
            if found.interval is not None:
                axes.vlines(x, *found.interval, color=color, linewidth=1.6, alpha=0.5)
    axes.set_xticks([one.horizon for one in results.horizons], [f"{one.horizon:g}" for one in results.horizons])
    axes.set(xlabel="horizon, days after the index date", ylabel="AUROC", xlim=(0, 1.1 * longest))
    axes.legend(loc="lower center", ncols=2, bbox_to_anchor=(0.5, 1.0))
    return figure


def calibration_over_time(results: OverTimeResults) -> Figure | None:
    """Observed against predicted risk in bins, a panel for each model and horizon."""
    shown = [(model, color, at) for model, color in _colored(results.models) for at in model.horizons if at.bins]
    if not shown:
        return None
    ends = [end for _, _, at in shown for own in at.bins for end in (own.predicted, own.observed)]
    titles = [f"{model.label}, {at.horizon:g} days" for model, _, at in shown]
    figure, panels = model_panels(titles, min(1.0, 1.12 * max(0.02, *ends)))
    for axes, (model, color, at) in zip(panels, shown, strict=True):
        predicted, observed = np.array([(own.predicted, own.observed) for own in at.bins]).T
        low = np.array([own.observed if own.low is None else own.low for own in at.bins])
        high = np.array([own.observed if own.high is None else own.high for own in at.bins])
        draw_bins(axes, color, predicted, observed, low, high, f"{model.label}, {at.horizon:g} days")
    figure.supxlabel("predicted risk", fontsize=10.5, color="#333333")
    figure.supylabel("with the outcome", fontsize=10.5, color="#333333")
    return figure


def groups(results: OverTimeResults) -> Figure | None:
    """Forest plot: concordance of the first model by subgroup, and of all patients as a line."""
    model = results.models[0]
    return forest(model.groups, "concordance", model.concordance, "concordance")


DRAWINGS: dict[str, Drawing[OverTimeResults]] = {
    "auroc_over_time": (auroc_over_time, "AUROC of each model at each horizon with 95 % intervals."),
    "incidence": (
        incidence,
        "Cumulative incidence of the outcome and of death before it by day, with a 95 % band, and the mean risk that "
        "each model predicts at the horizons.",
    ),
    "calibration_over_time": (
        calibration_over_time,
        "Calibration plots, one for each model and horizon: cumulative incidence against predicted risk in bins, with "
        "95 % intervals and the diagonal.",
    ),
    "groups": (groups, "Forest plot: concordance of the first model with 95 % intervals by sex, age and codes."),
    "attributions": (attributions, "Bar chart: the codes with the largest mean attribution to the log hazard."),
}


def _colored(models: Sequence[ModelOverTime]) -> list[tuple[ModelOverTime, str]]:
    return [(model, COLORS[i % len(COLORS)]) for i, model in enumerate(models)]


def _dodged(results: OverTimeResults) -> list[tuple[float, tuple[ModelOverTime, str]]]:
    """Return all models with their colors, and how many steps beside a horizon each stands."""
    shown = _colored(results.models)
    return [(i - (len(shown) - 1) / 2, own) for i, own in enumerate(shown)]


def _at(model: ModelOverTime, horizon: float) -> AtHorizon | None:
    return next((at for at in model.horizons if at.horizon == horizon), None)
