"""Demographics of the patients: birth day, sex, state, time observed, and the days on which each code is possible."""

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np

from exmed_bert.data.patient import EPOCH, day_number
from exmed_bert.reference.tables import BAND_STARTS, Demographics, Limits

YEAR = 365.25  # days
YEARS_OBSERVED = 5
YOUNGEST = 60  # days old on the last day: time enough for three diagnoses and a refill
LEAST_OBSERVED = 180  # days: shorter enrollments are left out of a cohort; estimate


@dataclass(frozen=True)
class Window:
    """The days on which events can lie, both included, as days since 1970-01-01."""

    start: int
    end: int

    @classmethod
    def until(cls, end: date) -> "Window":
        """Return the five years that end with ``end``.

        >>> EPOCH + timedelta(days=Window.until(date(2025, 12, 31)).start)
        datetime.date(2021, 1, 1)
        """
        last_day = min(end.day, 28) if end.month == 2 else end.day
        before = date(end.year - YEARS_OBSERVED, end.month, last_day)
        return cls(day_number(before + timedelta(days=1)), day_number(end))


@dataclass(frozen=True)
class People:
    """N patients. All arrays are (N,) int: days since 1970-01-01, whole years on the window's last day, indices.

    ``last_days`` is the last day each is observed: that of the window, or of death or of leaving the plan before it.
    """

    birth_days: np.ndarray
    ages: np.ndarray
    sexes: np.ndarray
    states: np.ndarray
    last_days: np.ndarray

    def __len__(self) -> int:
        return len(self.ages)

    @property
    def bands(self) -> np.ndarray:
        """(N,) index of the age band on the window's last day."""
        return age_bands(self.ages)

    def observed_share(self, window: "Window") -> np.ndarray:
        """(N,) share of the window's days on which the patient is born and observed."""
        days = self.last_days - np.maximum(self.birth_days, window.start) + 1
        return days / (window.end - window.start + 1)

    @property
    def birth_years(self) -> np.ndarray:
        """(N,) calendar year of birth."""
        return self.birth_days.astype("datetime64[D]").astype("datetime64[Y]").astype(np.int64) + EPOCH.year


def age_bands(ages: np.ndarray) -> np.ndarray:
    """Return the index of the age band of each age in years."""
    return np.searchsorted(BAND_STARTS, ages, side="right") - 1


def draw_people(rng: np.random.Generator, n: int, demographics: Demographics, window: Window) -> People:
    """Draw n patients: age and sex together by the census, the state by its population in the age band.

    Both are quota samples: n patients are spread over the census cells as evenly as n allows.
    """
    cumulated = np.cumsum(demographics.people.ravel())
    cell = np.searchsorted(cumulated, _evenly(rng, n) * cumulated[-1], side="right")
    ages, sexes = np.divmod(cell, 2)
    states = np.empty(n, dtype=np.int64)
    for band, shares in enumerate(demographics.state_given_band):
        who = np.flatnonzero(age_bands(ages) == band)
        cumulated = np.cumsum(shares)
        states[who] = np.searchsorted(cumulated, _evenly(rng, len(who)) * cumulated[-1], side="right")

    birthdays = window.end - np.ceil(ages * YEAR).astype(np.int64)  # the latest birth that gives the age
    birth_days = np.minimum(birthdays - rng.integers(0, 365, n), window.end - YOUNGEST)
    staying = rng.exponential(YEAR / demographics.departures[(ages - YEARS_OBSERVED // 2).clip(0), sexes])
    last_days = window.start + LEAST_OBSERVED + staying.clip(max=window.end - window.start).astype(np.int64)
    last_days = np.minimum(np.maximum(last_days, birth_days + YOUNGEST), window.end)
    return People(birth_days, ages, sexes, states, last_days)


def _evenly(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return n numbers from 0 to 1 in random order, one in each n-th."""
    return (rng.permutation(n) + rng.random(n)) / max(n, 1)


def possible_days(people: People, limits: Limits, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and the last day on which each patient can have each code, two (N, C) int arrays.

    Where the first lies after the last, the patient cannot have the code: wrong sex, outside the age limits while
    observed, or the code not yet valid.
    """
    birth = people.birth_days[:, None]
    first = birth + np.ceil(limits.min_age * YEAR).astype(np.int64)
    first = np.maximum(np.maximum(first, limits.valid_from), window.start)
    last = birth + np.floor((limits.max_age + 1) * YEAR).astype(np.int64) - 1
    last = np.where(limits.sexes[:, people.sexes].T, np.minimum(last, people.last_days[:, None]), first - 1)
    return first, last
