"""Plots of reports: their one style, and files that are the same for the same data."""

import base64
import io
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from exmed_bert.reporting.content import Plot
from exmed_bert.reporting.svg import NamedPoint, page_svg

BLUE, ORANGE, INK = "#2f6f9f", "#d9822b", "#222222"  # the page has others for each of them in the dark
WIDTH = 5.4  # inches: labels stay readable on a telephone

_DPI = 160
_POINTS = 72  # units of an SVG per inch
_SMALL = 200_000  # characters of an SVG; of larger ones the page shows the PNG where that is smaller
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
    "svg.fonttype": "none",
    "text.parse_math": False,  # a dollar sign in a name is one
}

_named: "WeakKeyDictionary[Figure, list[tuple[Axes, np.ndarray, list[str]]]]" = WeakKeyDictionary()

T = TypeVar("T")

Drawing = tuple[Callable[[T], Figure | None], str]
"""A function from results to a figure, None where they have nothing for it, and the text that stands for the plot."""


def draw_plots(drawings: Mapping[str, Drawing[T]], results: T) -> dict[str, Plot]:
    """Return by name the plots that the results have something for."""
    drawn = {}
    for name, (draw, alternative) in drawings.items():
        with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):  # ids of one page's plots differ
            if (figure := draw(results)) is not None:
                drawn[name] = _plot(figure, alternative)
    return drawn


def one_axes(height: float) -> tuple[Figure, Axes]:
    """Return a figure with one pair of axes; the height is in inches."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def name_points(axes: Axes, x: ArrayLike, y: ArrayLike, names: Iterable[str]) -> None:
    """Name n points of a plot, which the page shows under the pointer; those that are not finite are left out.

    Args:
        axes: where they are drawn.
        x, y: (n,) in the units of the axes.
        names: n, each what a reader wants to know of the point.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    places = np.column_stack([np.asarray(x, dtype=float), np.asarray(y, dtype=float)])
    _named.setdefault(figure, []).append((axes, places, list(names)))


def _plot(figure: Figure, alternative: str) -> Plot:
    """Return a figure as PNG and SVG; the same figure gives the same bytes."""
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=_DPI, metadata={"Software": None})
    figure.set_layout_engine("none")  # as it was laid out for the PNG
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    points, image = _points(figure), f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"
    of_page = page_svg(drawn.getvalue(), alternative, points)
    if len(of_page) > _SMALL:
        of_page = min(of_page, page_svg(drawn.getvalue(), alternative, points, image), key=len)
    return Plot(png.getvalue(), alternative, of_page)


def _points(figure: Figure) -> list[NamedPoint]:
    """Return the named points of a figure that has been drawn."""
    found = []
    _, _, width, height = figure.bbox.bounds
    for axes, places, names in _named.pop(figure, []):
        x, y = axes.transData.transform(places).T / figure.dpi * _POINTS
        top = height / figure.dpi * _POINTS
        right = width / figure.dpi * _POINTS
        for at, down, name in zip(x.tolist(), (top - y).tolist(), names, strict=True):
            if 0 <= at <= right and 0 <= down <= top:  # which no NaN is
                found.append(NamedPoint(at, down, name))
    return found
