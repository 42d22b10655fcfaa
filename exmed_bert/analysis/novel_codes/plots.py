"""Plots of an analysis of novel codes, each a function from `NovelResults` to a figure."""

from functools import partial

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from exmed_bert.analysis.novel_codes.code_list import chapter_order, short_name
from exmed_bert.analysis.novel_codes.inputs import AFTER, BEFORE
from exmed_bert.analysis.novel_codes.masked_codes import BandMetrics
from exmed_bert.analysis.novel_codes.neighbors import RELATIONS
from exmed_bert.analysis.novel_codes.results import CodeTable, NovelResults
from exmed_bert.analysis.novel_codes.summary import percent
from exmed_bert.codes import code_system
from exmed_bert.evaluation.formatting import format_estimate
from exmed_bert.reporting.plotting import BLUE, INK, ORANGE, WIDTH, Drawing, name_points, one_axes

GREY = "#a9afb8"

_COLORS = {BEFORE: GREY, AFTER: BLUE}
_LABELS = {BEFORE: "before training", AFTER: "after training"}
_MAPS = {"tsne": "t-SNE", "pca": "principal components"}
_FURTHEST_RANK = 100
_MOST_NAMED = 600  # codes of a system on a map, novel ones first, so that the page stays small


def cosines(results: NovelResults) -> Figure:
    """Mean cosine to each kind of relative, a panel for each group of codes."""
    groups = results.groups
    figure = Figure(figsize=(WIDTH, 0.7 + 1.25 * len(groups)), layout="constrained")
    panels = figure.subplots(len(groups), 1, sharex=True, squeeze=False).ravel()
    names = ["parent", "siblings", "chapter", "any code"]
    for axes, group in zip(panels, groups, strict=True):
        for time, shift in zip(results.times, (-0.13, 0.13) if len(results.times) == 2 else (0.0,), strict=True):
            cosines = [(y + shift, group.cosines[time][relation][1]) for y, relation in enumerate(RELATIONS)]
            found = [(y, cosine) for y, cosine in cosines if cosine is not None]
            for y, cosine in found:
                if cosine.interval is not None:
                    axes.hlines(y, *cosine.interval, color=_COLORS[time], linewidth=2, alpha=0.6)
            x_of, y_of = [cosine.value for _, cosine in found], [y for y, _ in found]
            axes.scatter(x_of, y_of, s=28, color=_COLORS[time], zorder=3, label=_LABELS[time])
            told = [f"{names[round(y)]}, {_LABELS[time]}: {format_estimate(cosine)}" for y, cosine in found]
            name_points(axes, x_of, y_of, told)
        axes.set_title(f"{group.name} ({group.codes:,})")
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.grid(axis="y", visible=False)
    panels[-1].set_xlabel("mean cosine")
    if len(results.times) > 1:
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return figure


def ranks(results: NovelResults) -> Figure | None:
    """Share of the first group's codes whose parent or nearest sibling has at most a rank."""
    table = results.table
    member = table.novel if table.novel.any() else np.ones(len(table.novel), dtype=bool)
    siblings = np.array([len(found) for found in table.families.siblings])
    panels = []
    for title, field, relatives in (
        ("parent", "parent_ranks", np.ones(len(member), dtype=int)),
        ("nearest sibling", "sibling_ranks", siblings),
    ):
        has = member & (getattr(table.nearness[AFTER], field) > 0)
        if has.any():
            panels.append((title, field, has, relatives))
    if not panels:
        return None
    most = min(_FURTHEST_RANK, len(member) - 1)
    at = np.arange(1, most + 1)
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    for axes, (title, field, has, relatives) in zip(
        figure.subplots(1, len(panels), sharey=True, squeeze=False).ravel(), panels, strict=True
    ):
        for time in results.times:
            of_codes = getattr(table.nearness[time], field)[has]
            share = (of_codes[:, None] <= at).mean(axis=0)
            axes.step(at, 100 * share, where="post", color=_COLORS[time], linewidth=1.8, label=_LABELS[time])
        others = len(member) - 1
        none_yet = np.cumprod(np.clip(1 - relatives[has][:, None] / (others - at + 1), 0, 1), axis=1)
        axes.plot(at, 100 * (1 - none_yet.mean(axis=0)), color=INK, linewidth=1, linestyle="--", label="by chance")
        axes.set(xscale="log", xlabel="rank up to", ylim=(0, 101), xlim=(1, most))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_title(f"{title}, {has.sum():,} codes")
    figure.axes[0].set_ylabel("% of the codes")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=3)
    return figure


def masked(results: NovelResults) -> Figure | None:
    """Top-10 accuracy by frequency in training, novel codes and others, with the number of positions."""
    bands = [band for band in results.masked.bands if band.metrics]
    if not bands:
        return None
    figure, axes = one_axes(3.6)
    kinds = [("novel", -0.12, ORANGE), ("other", 0.12, BLUE)]
    for kind, shift, color in kinds:
        found = [(x + shift, band) for x, band in enumerate(bands) if kind in band.metrics]
        for x, band in found:
            _interval(axes, x, band, kind, color)
        x_of, y_of = [x for x, _ in found], [100 * band.metrics[kind]["top10"].value for _, band in found]
        axes.scatter(x_of, y_of, s=34, color=color, zorder=3, label=f"{kind} codes")
        told = [
            f"{kind} codes, {band.band} in training: {percent(band.metrics[kind]['top10'])} of "
            f"{band.positions[kind]:,} positions"
            for _, band in found
        ]
        name_points(axes, x_of, y_of, told)
    names = [f"{band.band}\n{band.positions['novel']:,}\n{band.positions['other']:,}" for band in bands]
    axes.set_xticks(range(len(bands)), names)
    axes.set_xlim(-0.5, len(bands) - 0.5)
    axes.set_ylim(bottom=0)
    axes.grid(axis="x", visible=False)
    axes.set(ylabel="in the top 10 predictions, %", xlabel="occurrences in training; masked positions, novel and other")
    axes.legend(loc="upper left")
    return figure


def _interval(axes: Axes, x: float, band: BandMetrics, kind: str, color: str) -> None:
    found = band.metrics[kind]["top10"]
    if found.interval is not None:
        low, high = found.interval
        axes.vlines(x, 100 * low, 100 * high, color=color, linewidth=2, alpha=0.6)


def distances(results: NovelResults) -> Figure | None:
    """Quartiles of the cosine of two codes at each distance in the tree."""
    spread = results.table.cosine_quartiles
    if not any(len(found) for found in spread.values()):
        return None
    figure, axes = one_axes(3.8)
    for time, shift in zip(results.times, (-0.13, 0.13) if len(results.times) == 2 else (0.0,), strict=True):
        steps, low, middle, high = spread[time].T
        axes.vlines(steps + shift, low, high, color=_COLORS[time], linewidth=5, alpha=0.5)
        axes.scatter(steps + shift, middle, s=26, color=_COLORS[time], zorder=3, label=_LABELS[time])
        told = [
            f"{step:g} steps, {_LABELS[time]}: {low:.2f} / {middle:.2f} / {high:.2f} (quartiles)"
            for step, low, middle, high in spread[time]
        ]
        name_points(axes, steps + shift, middle, told)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set(xlabel="steps in the tree", ylabel="cosine of two codes")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return figure


def silhouettes(results: NovelResults) -> Figure | None:
    """Mean silhouette of each chapter."""
    families = results.table.families
    names = [key for key in families.chapter_names if results.silhouettes[AFTER].mean_of(*key).codes]
    if not names:
        return None
    names.sort(key=lambda name: (name[0], chapter_order(name[1])))
    figure, axes = one_axes(0.9 + 0.21 * len(names))
    at = np.arange(len(names))
    for time in results.times:
        means = [results.silhouettes[time].mean_of(*key).mean for key in names]
        x = [np.nan if mean is None else mean.value for mean in means]
        axes.scatter(x, at, s=26, color=_COLORS[time], zorder=3, label=_LABELS[time])
        told = [
            f"{chapter}, {_LABELS[time]}: {format_estimate(mean)}"
            for (_, chapter), mean in zip(names, means, strict=True)
        ]
        name_points(axes, x, at, told)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(at, [name for _, name in names], fontsize=8)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel("mean silhouette")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return figure


def map_of(results: NovelResults, kind: str, time: str) -> Figure | None:
    """Two dimensions of the embeddings, a panel for each code system; the other systems' codes are pale."""
    if time not in results.times:
        return None
    table, rows = results.table, results.table.on_map
    families = table.families
    at = table.maps[kind][time]
    place = {row: i for i, row in enumerate(rows.tolist())}
    unseen = np.zeros(len(rows), dtype=bool) if table.in_training is None else table.in_training[rows] == 0
    systems = [families.system_names[i] for i in np.argsort(-np.bincount(families.systems), kind="stable")]
    figure = Figure(figsize=(WIDTH, 4.4 * len(systems)), layout="constrained")
    for axes, system in zip(figure.subplots(len(systems), 1, squeeze=False).ravel(), systems, strict=True):
        own = families.systems[rows] == families.system_names.index(system)
        axes.scatter(*at[~own].T, s=4, color="#e3e5e9", linewidths=0)
        chapters = [i for i in range(len(families.chapter_names)) if families.chapter_names[i][0] == system]
        colors = colormaps["turbo"](np.linspace(0.05, 0.95, max(len(chapters), 2)))
        novel = own & table.novel[rows]
        lines = [
            (at[place[row]], at[place[parent]])
            for row in rows[novel].tolist()
            if (parent := int(families.parents[row])) in place
        ]
        axes.add_collection(LineCollection(lines, colors=INK, linewidths=0.5, alpha=0.3, zorder=2))
        for color, chapter in zip(colors[: len(chapters)], chapters, strict=True):
            member = np.flatnonzero(own & (families.chapters[rows] == chapter))
            if not len(member):
                continue
            axes.scatter(*at[member].T, s=13, color=color, linewidths=0, alpha=0.85, zorder=3)
            away = np.linalg.norm(at[member] - np.median(at[member], axis=0), axis=1)
            label = _map_label(families.chapter_names[chapter][1])
            box = {"boxstyle": "round,pad=0.12", "fc": "white", "ec": color, "alpha": 0.85}
            axes.annotate(
                label,
                at[member[away.argmin()]],
                textcoords="offset points",
                xytext=(7, 6),
                fontsize=7,
                zorder=5,
                bbox=box,
            )
        ring = {"s": 30, "edgecolors": INK, "linewidths": 0.7, "zorder": 4}
        axes.scatter(*at[novel & ~unseen].T, facecolors="none", **ring, label="novel")
        if (novel & unseen).any():
            axes.scatter(*at[novel & unseen].T, facecolors=INK, alpha=0.55, **ring, label="novel, never in training")
        named = np.concatenate([np.flatnonzero(novel), np.flatnonzero(own & ~novel)])
        named = named[~np.isin(rows[named], list(table.hidden))][:_MOST_NAMED]
        name_points(axes, at[named, 0], at[named, 1], [_named(table, row) for row in rows[named].tolist()])
        axes.set_title(f"{code_system(system).title}, {_MAPS[kind]} {_LABELS[time]}")
        axes.set(xticks=[], yticks=[])
        axes.margins(0.04)
    if table.novel.any():
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return figure


def _map_label(chapter: str) -> str:
    """Return a chapter's name, shortened, without its number.

    >>> _map_label("4 Endocrine and metabolic"), _map_label("C Cardiovascular system"), _map_label("17 Congenital")
    ('Endocrine …', 'C Cardiovascular …', 'Congenital')
    """
    first, *rest = chapter.split()
    words, most = (rest, 1) if first.isdecimal() else ([first, *rest], 2)
    return " ".join(words[:most]) + (" …" if len(words) > most else "")


def _named(table: CodeTable, row: int) -> str:
    """Return what a map tells of a code."""
    (_, code), chapter = table.families.keys[row], table.families.chapter_names[table.families.chapters[row]][1]
    unseen = table.in_training is not None and table.in_training[row] == 0
    kinds = ["novel"] * bool(table.novel[row]) + ["never in training"] * bool(unseen)
    return f"{code} {short_name(table.names[row], 40)} ({', '.join([chapter, *kinds])})"


DRAWINGS: dict[str, Drawing[NovelResults]] = {
    "cosines": (
        cosines,
        "Mean cosine of codes to their parent, siblings, chapter and any code, before and after training.",
    ),
    "ranks": (ranks, "Share of the codes whose parent, or nearest sibling, has at most a rank, beside chance."),
    "masked": (
        masked,
        "Share of masked codes in the top 10 predictions by occurrences in training, novel and other codes.",
    ),
    "distances": (distances, "Quartiles of the cosine of two codes at each distance in the tree."),
    "silhouettes": (silhouettes, "Mean silhouette of each chapter before and after training."),
}
DRAWINGS |= {
    f"map_{kind}_{time}": (
        partial(map_of, kind=kind, time=time),
        f"Map by {name} of the codes' embeddings {_LABELS[time]}, colored by chapter, novel codes ringed.",
    )
    for kind, name in _MAPS.items()
    for time in (BEFORE, AFTER)
}
