"""Seasonality: the density of a code over the window's days, from seasons and epidemic waves."""

import functools

import numpy as np

from exmed_bert.data.patient import EPOCH
from exmed_bert.reference.tables import Schedule
from exmed_bert.synthetic.people import Window

_FLOOR = 1e-3  # of the mean: no day is impossible


class Calendar:
    """Draws days by season and epidemic wave."""

    def __init__(self, schedule: Schedule, window: Window) -> None:
        self.start = window.start
        months = np.arange(window.start, window.end + 1).astype("datetime64[D]").astype("datetime64[M]").astype(int)
        years, month = months // 12 + EPOCH.year, months % 12
        density = schedule.seasons[:, month]
        for code, weights in schedule.epidemics.items():
            density[code] = [_wave(weights, year, of_year + 1) for year, of_year in zip(years, month, strict=True)]
        density = density.clip(_FLOOR * density.mean(axis=1, keepdims=True).clip(1e-9))
        cumulated = np.cumsum(density, axis=1)
        self._weight = density / density.mean(axis=1, keepdims=True)
        # The rows one after another are one increasing sequence, so that a single search serves all codes.
        self._days = density.shape[1]
        self._line = (cumulated / cumulated[:, -1:] + np.arange(len(density))[:, None]).ravel()

    def draw(self, rng: np.random.Generator, codes: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        """Return for each code a day from first to last, both included; first where there is none."""
        codes = np.broadcast_to(codes, first.shape)
        row = codes * self._days
        low = np.where(first > self.start, self._line[row + (first - self.start - 1).clip(0)], codes)
        high = self._line[row + (last - self.start).clip(0)]
        found = np.searchsorted(self._line, low + rng.random(first.shape) * (high - low), side="right")
        return np.clip(found - row + self.start, first, np.maximum(first, last))

    def weight(self, code: int, days: np.ndarray) -> np.ndarray:
        """Return the density of a code on each day relative to the mean of all days; 0 before the window."""
        return np.where(days >= self.start, self._weight[code, np.maximum(days, self.start) - self.start], 0)


def _wave(weights: dict[tuple[int, int], float], year: int, month: int) -> float:
    """Return the weight of a month: 0 before the first, after the last the mean of the two latest such months."""
    first, last = min(weights), max(weights)
    if (year, month) <= last:
        return weights.get((year, month), 0) if (year, month) >= first else 0
    recent = [weights[at] for at in sorted(weights) if at[1] == month][-2:]
    return sum(recent) / len(recent)


@functools.lru_cache(maxsize=4)
def calendar(schedule: Schedule, window: Window) -> Calendar:
    """Return the calendar of a window."""
    return Calendar(schedule, window)
