"""Plots of a conversion: events by calendar year, and the lengths of the histories."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from exmed_bert.reporting.plotting import BLUE, Drawing, name_points, one_axes
from exmed_bert.reporting.small_cells import MinCell

_COLORS = (BLUE, "#7db0d5", "#e3a52c", "#b5493b", "#8a4f9e", "#3a9d7c", "#b0b4ba")
_LINES = 6  # code systems with a color of their own
_BARS = 25  # of the histogram


@dataclass(frozen=True)
class Drawn:
    """What the plots show; bars of so few that they are hidden are 0.

    Attributes:
        outcomes, systems: events by outcome and by code system, each by calendar year.
        lengths: patients by number of tokens, first and last of each bar's.
    """

    outcomes: Mapping[str, Mapping[int, int]]
    systems: Mapping[str, Mapping[int, int]]
    lengths: Mapping[tuple[int, int], int]


def by_year(events: Mapping[tuple[str, int], int], names: Sequence[str], cells: MinCell) -> dict[str, dict[int, int]]:
    """Return events by name and year as they are drawn.

    Bars end at multiples of the limit, so that their lengths do not give away what the hidden counts add to a total.

    Args:
        events: by name and year, without hidden counts.
        names: in the order of drawing; further ones are drawn together.
        cells: which counts are hidden.
    """
    drawn = [*names[:_LINES], *(["other"] if len(names) > _LINES else [])]
    sums: Counter[tuple[str, int]] = Counter()
    for (name, year), count in events.items():
        sums[name if name in drawn else "other", year] += count
    years = sorted({year for (_, year), count in sums.items() if count})
    return {name: {year: cells.drawn(sums[name, year]) for year in years} for name in drawn}


def by_length(lengths: np.ndarray, cells: MinCell) -> dict[tuple[int, int], int]:
    """Return the patients by number of tokens, in bars of equal width: few bars where those of few are left out.

    >>> by_length(np.array([5, 5, 6, 50]), MinCell(0))[5, 6]
    3
    """
    if not len(lengths):
        return {}
    low, high = int(lengths.min()), int(lengths.max())
    bars = max(min(_BARS, len(lengths) // (2 * cells.limit)), 1) if cells.limit else _BARS
    width = -(-(high - low + 1) // bars)
    counts = np.bincount((lengths - low) // width).tolist()
    ends = [(low + i * width, low + (i + 1) * width - 1) for i in range(len(counts))]
    return {end: cells.drawn(count) for end, count in zip(ends, counts, strict=True)}


def outcomes(drawn: Drawn) -> Figure | None:
    """Events by year, stacked by what became of them."""
    return _stacked(drawn.outcomes, "")


def systems(drawn: Drawn) -> Figure | None:
    """Events by year, stacked by the system that they were declared in."""
    return _stacked(drawn.systems, "declared system")


def lengths(drawn: Drawn) -> Figure | None:
    """Histogram of the tokens per patient."""
    if not any(drawn.lengths.values()):
        return None
    figure, axes = one_axes(3.2)
    starts, ends = zip(*drawn.lengths, strict=True)
    axes.stairs(list(drawn.lengths.values()), [*starts, ends[-1] + 1], fill=True, color=BLUE, alpha=0.85)
    middles = [(start + end + 1) / 2 for start, end in drawn.lengths]
    told = [f"{start} to {end} tokens: about {count:,} patients" for (start, end), count in drawn.lengths.items()]
    name_points(axes, middles, list(drawn.lengths.values()), told)
    axes.set(xlabel="tokens per patient in the datasets", ylabel="patients")
    _count_axis(axes)
    return figure


def _stacked(series: Mapping[str, Mapping[int, int]], legend: str) -> Figure | None:
    shown = {name: counts for name, counts in series.items() if any(counts.values())}
    if not shown:
        return None
    years = sorted(next(iter(shown.values())))
    place = np.array(years)
    figure, axes = one_axes(3.6)
    below = np.zeros(len(years))
    for name, color in zip(shown, _COLORS, strict=False):
        height = np.array([shown[name][year] for year in years], dtype=float)
        axes.bar(place, height, bottom=below, width=0.85, color=color, label=name)
        below += height
        told = [
            f"{name}, {year}: about {count:,.0f} events" for year, count in zip(years, height, strict=True) if count
        ]
        name_points(axes, place[height > 0], (below - height / 2)[height > 0], told)
    axes.xaxis.set_major_locator(MaxNLocator(9, integer=True, min_n_ticks=1))
    axes.grid(axis="x", visible=False)
    axes.set(xlabel="calendar year", ylabel="events", xlim=(years[0] - 0.7, years[-1] + 0.7))
    axes.set_ylim(0, 1.02 * below.max())
    figure.legend(title=legend or None, loc="outside upper left", ncols=3)
    _count_axis(axes)
    return figure


def _count_axis(axes: Axes) -> None:
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))


DRAWINGS: dict[str, Drawing[Drawn]] = {
    "outcomes": (outcomes, "Stacked bars: events by calendar year, kept, mapped, unknown and left out."),
    "systems": (systems, "Stacked bars: events by calendar year and code system as declared."),
    "lengths": (lengths, "Histogram: patients by number of tokens in the datasets."),
}
