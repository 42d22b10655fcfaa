"""Plots of a population report, each a function from the rows of a comparison to a figure."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from exmed_bert.reporting.content import Plot
from exmed_bert.reporting.plotting import BLUE, INK, ORANGE, WIDTH, Drawing, draw_plots, name_points, one_axes
from exmed_bert.synthetic.report.findings import BANDS, Comparison
from exmed_bert.synthetic.report.histories import LONGEST_GAP

GENERATED, SECOND, PUBLISHED = BLUE, ORANGE, INK
BAND_COLORS = ("#e3a52c", "#3a9d7c", "#2f6f9f", "#8a4f9e")
_THERAPIES = 6  # long-term drugs whose refills are drawn


def draw(comparisons: Sequence[Comparison]) -> dict[str, Plot]:
    """Return by key the plot of each comparison that has one."""
    of_key = {comparison.key: comparison for comparison in comparisons if comparison.rows}
    drawings = {key: (partial(_drawn, key=key), alternative) for key, (_, alternative) in DRAWINGS.items()}
    return draw_plots(drawings, of_key)


def _drawn(of_key: Mapping[str, Comparison], key: str) -> Figure | None:
    draw_one, _ = DRAWINGS[key]
    return draw_one(of_key[key]) if key in of_key else None


def pyramid(comparison: Comparison) -> Figure:
    """Age brackets upwards, men to the left, women to the right; published shares as outlines."""
    figure, axes = one_axes(4.6)
    for sex, side, color in (("male", -1, GENERATED), ("female", 1, SECOND)):
        rows = np.array(comparison.column("sex")) == sex
        level = np.arange(rows.sum())
        generated, published = (100 * side * comparison.numbers(key)[rows] for key in ("generated", "published"))
        axes.barh(level, generated, height=0.8, color=color, alpha=0.75, label=sex)
        brackets = np.array(comparison.column("bracket"))[rows]
        told = [
            f"{sex} {age}: {abs(own):.2f} % here, {abs(other):.2f} % published"
            for age, own, other in zip(brackets, generated, published, strict=True)
        ]
        name_points(axes, generated, level, told)
        edges = np.append(level, len(level)) - 0.5
        axes.stairs(
            published,
            edges,
            orientation="horizontal",
            baseline=0,
            color=PUBLISHED,
            linewidth=1.3,
            label="published" if sex == "female" else None,
        )
    axes.set_yticks(np.arange(len(level))[::2], np.array(comparison.column("bracket"))[rows][::2])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{abs(value):g}"))
    axes.axvline(0, color="#ffffff", linewidth=1)
    axes.grid(axis="y", visible=False)
    axes.set(xlabel="share of all patients, %", ylabel="age")
    axes.legend(loc="upper right")
    return figure


def states(comparison: Comparison) -> Figure:
    """Published against generated share, one point per state."""
    figure, axes = one_axes(4.4)
    published, generated = (100 * comparison.numbers(key) for key in ("published", "generated"))
    axes.scatter(published, generated, s=24, color=GENERATED, alpha=0.85, linewidths=0)
    _diagonal(axes, published, generated, log=True)
    names = comparison.column("state")
    name_points(axes, published, generated, _told(names, generated, published))
    for i in np.argsort(-published)[:5]:
        axes.annotate(names[i], (published[i], generated[i]), textcoords="offset points", xytext=(5, -11), fontsize=9)
    axes.set(xlabel="published share, %", ylabel="share in this file, %")
    return figure


def prevalence(comparison: Comparison) -> Figure:
    """Published against generated prevalence by age band; cells with few expected cases are pale."""
    figure, axes = one_axes(4.8)
    published, generated, expected = (comparison.numbers(key) for key in ("published", "generated", "expected"))
    band, shown = np.array(comparison.column("band")), (published > 0) & (generated > 0)
    for name, color in zip(BANDS, BAND_COLORS, strict=True):
        for enough, alpha in ((False, 0.25), (True, 0.9)):
            rows = shown & (band == name) & ((expected >= 200) == enough)
            axes.scatter(100 * published[rows], 100 * generated[rows], s=18, color=color, alpha=alpha, linewidths=0)
        axes.scatter([], [], s=24, color=color, label=name)
    cells = zip(*(np.array(comparison.column(key))[shown] for key in ("name", "band", "sex")), strict=True)
    generated, published = 100 * generated[shown], 100 * published[shown]
    name_points(axes, published, generated, _told(map(", ".join, cells), generated, published))
    _diagonal(axes, published, generated, log=True)
    axes.set(xlabel="published prevalence, %", ylabel="prevalence in this file, %")
    axes.legend(title="age", loc="lower right")
    return figure


def comorbidity(comparison: Comparison) -> Figure:
    """Published against generated odds ratio of each pair, with one standard error."""
    figure, axes = one_axes(4.6)
    published, generated, deviation = (comparison.numbers(key) for key in ("published", "generated", "deviation"))
    shown = (generated > 0) & np.isfinite(deviation)
    published, generated, deviation = published[shown], generated[shown], deviation[shown]
    if len(published):
        reach = [generated - generated * np.exp(-deviation), generated * np.exp(deviation) - generated]
        axes.errorbar(published, generated, yerr=reach, fmt="none", ecolor=GENERATED, alpha=0.35, linewidth=1)
    axes.scatter(published, generated, s=20, color=GENERATED, linewidths=0, zorder=3)
    told = [
        f"{names}: {own:.2f} here, {other:.2f} published"
        for names, own, other in zip(np.array(comparison.column("names"))[shown], generated, published, strict=True)
    ]
    name_points(axes, published, generated, told)
    _diagonal(axes, published, generated, log=True)
    axes.set(xlabel="published odds ratio", ylabel="odds ratio in this file")
    return figure


def drugs_given_diagnoses(comparison: Comparison) -> Figure:
    """Published against generated P(drug | diagnosis); the area of a point grows with the patients."""
    figure, axes = one_axes(4.6)
    published, generated = (100 * comparison.numbers(key) for key in ("published", "generated"))
    shown = np.isfinite(generated)
    patients = comparison.numbers("patients")[shown]
    area = 8 + 90 * patients / max(patients.max(initial=0), 1)
    axes.scatter(published[shown], generated[shown], s=area, color=GENERATED, alpha=0.6, linewidths=0)
    pairs = zip(*(np.array(comparison.column(key))[shown] for key in ("name", "diagnosis")), strict=True)
    names = [f"{drug} given {diagnosis}" for drug, diagnosis in pairs]
    name_points(axes, published[shown], generated[shown], _told(names, generated[shown], published[shown]))
    _diagonal(axes, published[shown], generated[shown], log=False)
    axes.set(xlabel="published share, %", ylabel="share in this file, %")
    return figure


def drug_users(comparison: Comparison) -> Figure:
    """Published against generated share of users, within five years and within one."""
    figure, axes = one_axes(4.6)
    everything = []
    for label, suffix, color in (("five years", "", GENERATED), ("one year", "_1yr", SECOND)):
        published, generated = (100 * comparison.numbers(key + suffix) for key in ("published", "generated"))
        shown = (published > 0) & (generated > 0)
        axes.scatter(published[shown], generated[shown], s=22, color=color, alpha=0.8, linewidths=0, label=label)
        names = [f"{name}, {label}" for name in np.array(comparison.column("name"))[shown]]
        name_points(axes, published[shown], generated[shown], _told(names, generated[shown], published[shown]))
        everything += [published[shown], generated[shown]]
    _diagonal(axes, np.concatenate(everything[::2]), np.concatenate(everything[1::2]), log=True)
    axes.set(xlabel="published users, % of all patients", ylabel="users in this file, %")
    axes.legend(loc="lower right")
    return figure


def refills(comparison: Comparison) -> Figure:
    """Histograms of the days between fills of the most used long-term drugs."""
    histograms = comparison.series["histograms"]
    rows = [row for row in comparison.rows if row[2] == "long-term" and any(histograms[row[0]])][:_THERAPIES]
    columns = 2
    lines = max(1, -(-len(rows) // columns))
    figure = Figure(figsize=(WIDTH, 0.5 + 1.45 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, sharex=True, squeeze=False).ravel()
    keys = [column.key for column in comparison.columns]
    for axes, row in zip(panels, rows, strict=False):
        values = dict(zip(keys, row, strict=True))
        histogram = np.array(histograms[values["code"]], dtype=float)
        five = np.add.reduceat(histogram, np.arange(0, LONGEST_GAP, 5)) / histogram.sum() * 100
        axes.stairs(five, np.append(np.arange(0, LONGEST_GAP, 5), LONGEST_GAP), fill=True, color=GENERATED, alpha=0.8)
        for supply in (30, 90):
            axes.axvline(supply, color=PUBLISHED, linewidth=0.9, linestyle=":")
        axes.axvline(values["implied"], color=SECOND, linewidth=1.6)
        axes.set_title(f"{values['name']}", fontsize=10)
        axes.set(xlim=(0, 240), xticks=(30, 90, 180))
        axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    for axes in panels[len(rows) :]:
        axes.set_visible(False)
    figure.supxlabel("days between fills; dotted 30 and 90, orange implied", fontsize=10, color="#333333")
    figure.supylabel("% of the gaps", fontsize=10, color="#333333")
    return figure


def visits(comparison: Comparison) -> Figure:
    """Visits per person-year by age and sex, the published ones as marks."""
    figure, axes = one_axes(3.8)
    sex, age = np.array(comparison.column("sex")), comparison.column("age")
    groups = list(dict.fromkeys(age))
    place = np.array([groups.index(name) for name in age])
    generated, published = comparison.numbers("generated"), comparison.numbers("published")
    for name, shift, color in (("male", -0.2, GENERATED), ("female", 0.2, SECOND)):
        rows = sex == name
        axes.bar(place[rows] + shift, np.nan_to_num(generated[rows]), width=0.38, color=color, alpha=0.8, label=name)
        told = [
            f"{name}, {groups[i]}: {value:.2f} per year" for i, value in zip(place[rows], generated[rows], strict=True)
        ]
        name_points(axes, place[rows] + shift, generated[rows], told)
        axes.hlines(
            published[rows], place[rows] + shift - 0.19, place[rows] + shift + 0.19, color=PUBLISHED, linewidth=2
        )
    if np.isfinite(published).any():
        axes.hlines([], 0, 0, color=PUBLISHED, linewidth=2, label="published")
    axes.set_xticks(np.arange(len(groups)), groups)
    axes.grid(axis="x", visible=False)
    axes.set(xlabel="age", ylabel="days with a diagnosis per year")
    axes.legend(loc="upper left")
    return figure


def seasons(comparison: Comparison) -> Figure:
    """Events by calendar month of a code of an epidemic and of codes with a season."""
    months, events = comparison.series["months"], comparison.series["events"]
    figure = Figure(figsize=(WIDTH, 0.5 + 1.5 * max(1, len(events))), layout="constrained")
    panels = figure.subplots(max(1, len(events)), 1, sharex=True, squeeze=False).ravel()
    code, label, published = comparison.column("code"), comparison.column("month"), comparison.numbers("published")
    for axes, (name, counts) in zip(panels, events.items(), strict=False):
        axes.bar(np.arange(len(months)), counts, width=1, color=GENERATED, alpha=0.8, label="this file")
        # A season is named by the month alone and stands in each year, an epidemic by year and month.
        shares = {label[i]: published[i] for i in range(len(code)) if code[i] == name}
        of_year = list(shares.values()) if len(shares) == 12 and "January" in shares else None
        repeats = len(months) / 12
        expected = [of_year[i % 12] / repeats if of_year else shares.get(at, np.nan) for i, at in enumerate(months)]
        expected = np.array(expected) * (
            sum(counts) if of_year else sum(count for at, count in zip(months, counts, strict=True) if at in shares)
        )
        axes.step(np.arange(len(months)), expected, where="mid", color=PUBLISHED, linewidth=1.3, label="published")
        axes.set_title(name, fontsize=10)
        axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        axes.set_ylim(bottom=0)
    panels[0].legend(loc="upper right")
    januaries = [i for i, month in enumerate(months) if month.endswith("-01")]
    panels[-1].set_xticks(januaries, [months[i][:4] for i in januaries])
    figure.supylabel("events per month", fontsize=10, color="#333333")
    return figure


def lengths(comparison: Comparison) -> Figure:
    """Histograms of the codes per visit and of the visits, diagnoses and prescriptions per patient."""
    figure = Figure(figsize=(WIDTH, 4.0), layout="constrained")
    panels = figure.subplots(2, 2).ravel()
    for axes, (name, counts) in zip(panels, comparison.series["histograms"].items(), strict=True):
        share = 100 * np.array(counts, dtype=float) / max(sum(counts), 1)
        most = max(1, int(np.searchsorted(np.cumsum(share), 99.9)) + 1)  # a few long ones would hide the rest
        axes.stairs(share[:most], np.arange(len(share[:most]) + 1) - 0.5, fill=True, color=GENERATED, alpha=0.8)
        axes.set_title(name if name == "codes per visit" else f"{name} per patient", fontsize=10)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
    figure.supylabel("%", fontsize=10, color="#333333")
    return figure


def prolonged_stay(comparison: Comparison) -> Figure:
    """Share with a prolonged stay by age band beside what the log odds imply."""
    figure, axes = one_axes(3.4)
    bands = comparison.column("band")
    generated, modeled = (100 * comparison.numbers(key) for key in ("generated", "modeled"))
    place = np.arange(len(bands))
    axes.bar(place, np.nan_to_num(generated), width=0.6, color=GENERATED, alpha=0.8, label="this file")
    told = [
        f"{band}: {own:.1f} % here, {other:.1f} % by the log odds"
        for band, own, other in zip(bands, generated, modeled, strict=True)
    ]
    name_points(axes, place, generated, told)
    axes.hlines(modeled, place - 0.3, place + 0.3, color=PUBLISHED, linewidth=2, label="by the log odds")
    axes.set_xticks(place, bands)
    axes.grid(axis="x", visible=False)
    axes.set(xlabel="age", ylabel="prolonged stay, % of labeled")
    axes.legend(loc="upper left")
    return figure


DRAWINGS: dict[str, Drawing[Comparison]] = {
    "age_and_sex": (
        pyramid,
        "Population pyramid: this file's shares by age and sex as bars, published ones as outlines.",
    ),
    "states": (states, "Scatter plot: share of each state, published against this file, with the line of equality."),
    "prevalence": (
        prevalence,
        "Scatter plot on logarithmic axes: prevalence of each diagnosis by age and sex, published against this file, "
        "colored by age band, with the line of equality. Cells expected to hold fewer than 200 cases are pale.",
    ),
    "comorbidity": (
        comorbidity,
        "Scatter plot on logarithmic axes: odds ratio of each pair of diagnoses, published against this file, with "
        "standard errors and the line of equality.",
    ),
    "drugs_given_diagnoses": (
        drugs_given_diagnoses,
        "Scatter plot: share of patients with a diagnosis who have the drug, published against this file. Larger "
        "points stand for more patients.",
    ),
    "drug_users": (
        drug_users,
        "Scatter plot on logarithmic axes: users of each drug, published against this file, within five years "
        "and within one year.",
    ),
    "refills": (
        refills,
        "Histograms of the days between fills of the most used long-term drugs, with marks at 30 and 90 days and at "
        "the gap that the published fills per year imply.",
    ),
    "visits": (visits, "Bar chart: days with a diagnosis per person-year by age and sex, published rates as marks."),
    "seasons": (seasons, "Events of U07.1, J06.9 and Z23 by calendar month as bars, published shares as lines."),
    "lengths": (
        lengths,
        "Histograms of the codes per visit and of the visits, diagnoses and prescriptions per patient.",
    ),
    "prolonged_stay": (
        prolonged_stay,
        "Bar chart: share of the labeled patients with a prolonged stay by age band, with what log odds imply.",
    ),
}


def _told(names: Iterable[str], generated: np.ndarray, published: np.ndarray) -> list[str]:
    """Return what a point says: its name and both shares in percent."""
    return [
        f"{name}: {own:.2f} % here, {other:.2f} % published"
        for name, own, other in zip(names, generated, published, strict=True)
    ]


def _diagonal(axes: Axes, x: np.ndarray, y: np.ndarray, log: bool) -> None:
    """Give both axes one range and draw the line on which the two are equal."""
    values = np.concatenate([x, y])
    values = values[np.isfinite(values) & ((values > 0) | (not log))]
    if not len(values):
        values = np.array([1.0, 10.0])
    low, high = (values.min() / 1.3, values.max() * 1.3) if log else (0, values.max() * 1.05 or 1)
    if log:
        axes.set(xscale="log", yscale="log")
        steps = (1, 2, 5) if high / low < 300 else (1,)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=steps))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    axes.plot([low, high], [low, high], color=PUBLISHED, linewidth=1, linestyle="--", zorder=1)
    axes.set(xlim=(low, high), ylim=(low, high))
