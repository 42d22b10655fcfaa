"""Plots of a patient: the risk over time, and a timeline of events by kind."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from exmed_bert.reporting.plotting import BLUE, ORANGE, Drawing, name_points, one_axes

_GRAY = "#8a8f98"
_LEAST, _MOST = 14.0, 90.0  # areas of points
_STEP = 0.09  # between events of a kind on a day


@dataclass(frozen=True)
class Event:
    """An event: its day since 1970-01-01, the kind and the code with its name, and what it adds, None for nothing."""

    day: int
    kind: str
    code: str
    name: str
    attribution: float | None


@dataclass(frozen=True)
class Drawn:
    """What the plots show: the events, and (n,) days with a risk."""

    events: list[Event]
    days: np.ndarray
    risks: np.ndarray


def risk(drawn: Drawn) -> Figure | None:
    """The risk from each visit to the next."""
    figure, axes = one_axes(2.8)
    days = drawn.days.astype("datetime64[D]")
    axes.step(days, drawn.risks, where="post", color=BLUE, linewidth=1.6)
    axes.scatter(days, drawn.risks, color=BLUE, s=16, zorder=3)
    axes.set_ylim(0, max(float(drawn.risks.max()) * 1.15, 0.001))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_title("risk")
    _dates(axes)
    codes: dict[int, list[str]] = {}
    for event in drawn.events:
        codes.setdefault(event.day, []).append(f"{event.code} {event.name}".rstrip())
    names = [
        f"{day}: {value:.1%}; {', '.join(dict.fromkeys(codes.get(number, [])))}"
        for number, day, value in zip(drawn.days.tolist(), days, drawn.risks.tolist(), strict=True)
    ]
    name_points(axes, drawn.days, drawn.risks, names)
    return figure


def timeline(drawn: Drawn) -> Figure | None:
    """Events by kind over time, larger the more they add to the risk or take from it."""
    kinds = sorted({event.kind for event in drawn.events})
    stacked: Counter[tuple[int, str]] = Counter()
    heights = []
    for event in drawn.events:
        heights.append(kinds.index(event.kind) + _STEP * stacked[event.day, event.kind])
        stacked[event.day, event.kind] += 1
    added = np.array([event.attribution or 0.0 for event in drawn.events])
    size = np.abs(added) / max(float(np.abs(added).max()), 1e-12)
    colors = np.where(added > 0, ORANGE, np.where(added < 0, BLUE, _GRAY))
    days = np.array([event.day for event in drawn.events])
    figure, axes = one_axes(0.9 + 0.7 * len(kinds))
    axes.scatter(days.astype("datetime64[D]"), heights, s=_LEAST + (_MOST - _LEAST) * size, c=colors, alpha=0.8)
    axes.set_yticks(range(len(kinds)), kinds)
    axes.set_ylim(-0.3, max(heights) + 0.4)
    _dates(axes)
    names = [
        f"{day}: {event.code} {event.name}".rstrip() + (f", {value:+.3f}" if event.attribution is not None else "")
        for event, day, value in zip(drawn.events, days.astype("datetime64[D]"), added.tolist(), strict=True)
    ]
    name_points(axes, days, heights, names)
    return figure


def _dates(axes: Axes) -> None:
    locator = AutoDateLocator(minticks=3, maxticks=12)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))


DRAWINGS: dict[str, Drawing[Drawn]] = {
    "risk": (risk, "The risk of the outcome at each visit"),
    "timeline": (timeline, "Events by kind over time, and what each adds to the risk"),
}
