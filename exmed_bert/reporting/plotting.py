"""Plots of reports: their one style, and PNG files that are the same for the same data."""

import io
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from exmed_bert.reporting.content import Plot

BLUE, ORANGE, INK = "#2f6f9f", "#d9822b", "#222222"
WIDTH = 5.4  # inches: labels stay readable on a telephone

_DPI = 160
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a8f98",
    "axes.labelcolor": "#333333",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e8eb",
    "grid.linewidth": 0.8,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "legend.handletextpad": 0.4,
}


T = TypeVar("T")

Drawing = tuple[Callable[[T], Figure | None], str]
"""A function from results to a figure, None where they have nothing for it, and the text that stands for the plot."""


def draw_plots(drawings: Mapping[str, Drawing[T]], results: T) -> dict[str, Plot]:
    """Return by name the plots that the results have something for."""
    drawn = {}
    with matplotlib.rc_context(_STYLE):
        for name, (draw, alternative) in drawings.items():
            if (figure := draw(results)) is not None:
                drawn[name] = Plot(_png(figure), alternative)
    return drawn


def one_axes(height: float) -> tuple[Figure, Axes]:
    """Return a figure with one pair of axes; the height is in inches."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def _png(figure: Figure) -> bytes:
    """Return a figure as PNG; the same figure gives the same bytes."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=_DPI, metadata={"Software": None})
    return content.getvalue()
