"""Follow-up of patients: how long each was observed after the prediction time, and what ended it."""

from dataclasses import dataclass

import numpy as np

from exmed_bert.cohorts.labeled import Timeline
from exmed_bert.cohorts.observation import NEVER

CENSORED, OUTCOME, DEATH = 0, 1, 2  # what ended the follow-up; death without the outcome is a competing event


@dataclass(frozen=True)
class FollowUp:
    """Follow-up of N patients.

    On one and the same day the outcome comes before death, and both before censoring: who is censored on a day was
    observed for all of it.

    Attributes:
        days: (N,) from the prediction time to the outcome, death or the end of observation, whichever is first.
        events: (N,) int8, `CENSORED`, `OUTCOME` or `DEATH`.
    """

    days: np.ndarray
    events: np.ndarray

    def __post_init__(self) -> None:
        """Raise a ValueError where lengths differ, a time is negative or not finite, or an event is none of the three.

        At least one patient is expected.
        """
        days, events = np.asarray(self.days), np.asarray(self.events)
        if days.ndim != 1 or days.shape != events.shape or not len(days):
            raise ValueError(
                f"days and events have shapes {days.shape} and {events.shape}, expected one and the same length of at "
                "least 1"
            )
        wrong = ~(np.isfinite(days) & (days >= 0))
        if wrong.any():
            raise ValueError(f"follow-up of {days[wrong][0]} days, expected a number from 0 on")
        unknown = ~np.isin(events, (CENSORED, OUTCOME, DEATH))
        if unknown.any():
            raise ValueError(f"event {events[unknown][0]}, expected 0 (censored), 1 (outcome) or 2 (death)")
        object.__setattr__(self, "days", days)
        object.__setattr__(self, "events", events.astype(np.int8))

    def __len__(self) -> int:
        return len(self.days)

    @classmethod
    def between(cls, start: np.ndarray, outcome: np.ndarray, end: np.ndarray, death: np.ndarray) -> "FollowUp":
        """Return the follow-up from days of a calendar; a day that does not come is later than any ``end``.

        An outcome or a death after the end of observation is not seen: such a patient is censored at the end.

        Args:
            start: (N,) the prediction time, or the end of the gap after it.
            outcome: (N,) the first day of the outcome after ``start``.
            end: (N,) the last day of observation; whoever's death is known is observed until then.
            death: (N,) the day of death.

        Raises:
            ValueError: a day comes before ``start``.

        >>> never = 2**31 - 1
        >>> found = FollowUp.between(*np.array([[0, 0, 0], [30, never, never], [90, 40, 60], [never, 40, 80]]))
        >>> found.days.tolist(), found.events.tolist()
        ([30, 40, 60], [1, 2, 0])
        """
        first = np.minimum(np.minimum(outcome, death), end)
        events = np.where(outcome == first, OUTCOME, np.where(death == first, DEATH, CENSORED))
        return cls(np.asarray(first, dtype=np.int64) - start, events)

    @classmethod
    def of(cls, timeline: Timeline, start: np.ndarray) -> "FollowUp":
        """Return the follow-up of a cohort's rows.

        Args:
            timeline: what followed their index dates.
            start: (N,) the index dates, or the ends of the gap after them.

        Raises:
            ValueError: of some rows a label alone is known, or a day comes before ``start``.
        """
        if (timeline.observed_until == NEVER).any():
            raise ValueError("the end of observation is not known of every row, expected a task that knows it")
        return cls.between(start, timeline.outcome_days, timeline.observed_until, timeline.death_days)

    def take(self, rows: np.ndarray) -> "FollowUp":
        """Return the follow-up of some of the patients, by indices or as a mask."""
        return FollowUp(self.days[rows], self.events[rows])
