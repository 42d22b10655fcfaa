"""A sample of embeddings to look at: a picture in two dimensions, and files for TensorBoard's Embedding Projector.

Neither names a patient; in the picture values that few patients have are one group.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.figure import Figure

from exmed_bert.analysis.novel_codes import projector
from exmed_bert.analysis.novel_codes.projections import principal_components, tsne
from exmed_bert.embedding.histories import AGE, AGES
from exmed_bert.embedding.parts import Sample
from exmed_bert.reporting.plotting import INK, draw_plots, one_axes
from exmed_bert.reporting.small_cells import MinCell
from exmed_bert.staging import atomic_write, staged_files

UNKNOWN, OTHER = "unknown", "other"
_COLORS = ("#2f6f9f", "#d9822b", "#4c9a6a", "#9b5fa8", "#b84a4a", "#7d8a2e", "#3aa0a8", "#8c6d52")
_OF_AGES = ("#f0b43c", "#e0793f", "#b8456b", "#6f3c89", "#27306b")  # from light to dark
_GROUPS = len(_COLORS)  # further ones are together
_TITLES = {"pca": "principal component", "tsne": "t-SNE"}


def draw_map(
    path: Path, sample: Sample, kind: Literal["pca", "tsne"], color_by: str, cells: MinCell, seed: int
) -> None:
    """Draw the sample in two dimensions.

    Args:
        path: of the PNG file.
        sample: the embeddings.
        kind: how they are projected.
        color_by: the static column, or ``age``, that colors the points.
        cells: values of fewer patients are one group.
        seed: of t-SNE.
    """
    places = principal_components(sample.vectors) if kind == "pca" else tsne(sample.vectors, seed)
    groups = grouped(sample.described[color_by], sample.patients, cells)
    if color_by == AGE:
        colors = dict(zip((*AGES, OTHER, UNKNOWN), (*_OF_AGES, INK, "#9aa0a6"), strict=True))
        names = [name for name in colors if name in groups.names]  # the oldest last
    else:
        names, colors = groups.names, dict(zip(groups.names, (*_COLORS, INK), strict=False))

    size = 14 if len(places) <= 2000 else 5

    def draw(_: None) -> Figure:
        figure, axes = one_axes(4.6)
        for name in names:
            own = places[groups.of_point == name]
            axes.scatter(own[:, 0], own[:, 1], s=size, color=colors[name], alpha=0.6, linewidths=0, label=name)
        axes.set_xlabel(f"{_TITLES[kind]} 1")
        axes.set_ylabel(f"{_TITLES[kind]} 2")
        axes.set_title(f"{cells.show(len(places))} embeddings by {color_by}")
        axes.legend(markerscale=6 / size**0.5, loc="center left", bbox_to_anchor=(1, 0.5))  # beside, not on, the points
        return figure

    plot = draw_plots({"map": (draw, "")}, None)["map"]
    with atomic_write(path) as part:
        part.write_bytes(plot.png)


@dataclass(frozen=True)
class Groups:
    """The groups of N points, and their names, the largest group first."""

    of_point: np.ndarray
    names: list[str]


def grouped(values: Sequence[str | None], patients: np.ndarray, cells: MinCell) -> Groups:
    """Return the groups of points by their values; values of few, or beyond those that have a color, are one group.

    That has enough patients, too, or the smallest of the others joins it: points can be counted.

    Args:
        values: of n points.
        patients: (n,) numbers that tell the patients from each other.
        cells: values of fewer patients are one group.

    >>> values = ["F"] * 12 + ["M"] * 11 + ["X"] * 2 + [None] * 20
    >>> found = grouped(values, np.array([*range(25), *[25] * 20]), MinCell(11))  # the unknown are one patient
    >>> found.names, found.of_point[[0, 12, -1]].tolist()
    (['other', 'F'], ['F', 'other', 'other'])
    """
    named = np.array([UNKNOWN if value is None else value for value in values], dtype=object)
    counts = Counter(name for name, _ in dict.fromkeys(zip(named.tolist(), patients.tolist(), strict=True)))
    shown = [name for name, count in counts.most_common()[:_GROUPS] if not cells.hides(count)]

    def others() -> int:
        return len(set(patients[~np.isin(named, shown)].tolist()))

    while shown and cells.hides(others()):
        shown.pop()
    of_point = np.where(np.isin(named, shown), named, OTHER)
    return Groups(of_point, [name for name, _ in Counter(of_point.tolist()).most_common()])


def write_projector(folder: Path, sample: Sample) -> None:
    """Write the sample for ``tensorboard --logdir``, ages and static columns beside each vector."""
    header = list(sample.described)
    rows = [[value or UNKNOWN for value in values] for values in zip(*sample.described.values(), strict=True)]
    with staged_files(folder.parent, whole=(folder.name,)) as staged:
        made = projector.write_projector(staged, {"patients": sample.vectors}, header, rows)
        made.rename(staged / folder.name)
