"""When realistic patients are observed: they enter the plan and leave it all the time, and some die while in it."""

from dataclasses import dataclass, replace

import numpy as np

from exmed_bert.data.patient import NO_DAY
from exmed_bert.reference.realistic import Realistic
from exmed_bert.synthetic.events import Events
from exmed_bert.synthetic.life import NEVER, Life, Stays, early_deaths, first_events
from exmed_bert.synthetic.people import YEAR, YEARS_OBSERVED, YOUNGEST, People, Window


@dataclass(frozen=True)
class Observation:
    """The first and the last day on which each of N patients is observed, and the day of death, `NEVER` without one."""

    start: np.ndarray
    end: np.ndarray
    death: np.ndarray

    def covers(self, events: Events) -> np.ndarray:
        """Return which events are observed, bool."""
        return (events.days >= self.start[events.patients]) & (events.days <= self.end[events.patients])

    def stays(self, stays: Stays) -> Stays:
        """Return the stays that begin while the patient is observed."""
        return stays[(stays.days >= self.start[stays.patients]) & (stays.days <= self.end[stays.patients])]

    @property
    def years(self) -> np.ndarray:
        """(N,) years observed."""
        return (self.end - self.start + 1) / YEAR

    def periods(self) -> dict[str, np.ndarray]:
        """Return the period fields of a record, (N,) int32 each."""
        died = np.where(self.death < NEVER, self.death, NO_DAY)
        values = {"observation_start": self.start, "observation_end": self.end, "death_date": died}
        return {name: days.astype(np.int32) for name, days in values.items()}


def draw_observation(
    rng: np.random.Generator, people: People, life: Life, window: Window, figures: Realistic, leaving: bool = True
) -> Observation:
    """Draw entry, leaving and death of N patients.

    A plan keeps its size: whoever leaves is replaced. So of all who are ever members within the five years the share
    1 / (1 + 5 r), with r the rate of leaving per year, is there at the beginning, and the others enter evenly. Whoever
    is born within the window enters on the day of birth in place of its beginning. The hazards of death count from
    entry on: nobody enters dead. A death after leaving is not known.

    Args:
        leaving: without it all are observed from the beginning to the end or to their death, as the fit needs them.
    """
    n, born = len(people), np.maximum(people.birth_days, window.start)
    rate = -np.log1p(-figures.rates["leaving_a_year"]) if leaving else 0.0
    late = rng.random(n) >= 1 / (1 + YEARS_OBSERVED * rate)
    latest = np.maximum(window.end - YOUNGEST, born)
    start = np.where(late, born + (rng.random(n) * (latest - born)).astype(np.int64), born)
    leaves = rng.standard_exponential(n) * (YEAR / rate if rate else np.inf)
    end = np.minimum(start + leaves.clip(max=window.end - window.start), window.end).astype(np.int64)
    death = first_events(rng, life.death_hazard, life.starts, start)
    death = np.minimum(death, early_deaths(rng, life.early, start))
    death = np.where(death <= end, death, NEVER)
    return Observation(start, np.minimum(end, death), death)


def observed(events: Events, observation: Observation) -> Events:
    """Return the events that are observed."""
    return events[observation.covers(events)]


def last_day_everyone(people: People, window: Window) -> People:
    """Return the people as if all were observed to the last day: lives are drawn whole, and cut afterward."""
    return replace(people, last_days=np.full(len(people), window.end))
