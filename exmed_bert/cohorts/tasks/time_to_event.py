"""The time to the first occurrence of an endpoint, with death as a competing event and the censored kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from exmed_bert.cohorts.endpoints import Endpoint
from exmed_bert.cohorts.index_dates import IndexRule
from exmed_bert.cohorts.tasks.base import TIME_TO_EVENT, LabelType, Task, prediction_rule
from exmed_bert.cohorts.tasks.first_occurrence import FirstOccurrence
from exmed_bert.console import OptionError
from exmed_bert.settings import FinetuneSettings

_WITHOUT_END = 10**6  # days: longer than anybody is observed
# Of the risk that the prompt is of. Beyond, forecasts know one hazard for all time, and in the end a risk without end
# tells who dies last instead of who has the outcome first.
_PROMPT_DAYS = 730


def horizons(text: str) -> tuple[int, ...]:
    """Read --horizons.

    >>> horizons("180, 365,730")
    (180, 365, 730)

    Raises:
        OptionError: these are no numbers of days that rise.
    """
    parts = [part.strip() for part in text.split(",")]
    days = tuple(int(part) for part in parts if part.isdecimal())
    if len(days) < len(parts) or any(day <= before for before, day in zip((0, *days), days, strict=False)):
        raise OptionError(f"--horizons: {text!r}, expected days from 1 on that rise, such as 180,365,730")
    return days


@dataclass
class TimeToEvent(FirstOccurrence):
    """When an endpoint occurs for the first time after index date + gap.

    Whoever is at risk then belongs to the cohort, however long the follow-up is: it ends with the endpoint, with death
    or with the observation. A label says whether the endpoint was seen; those who neither had it nor died have none.

    Attributes:
        horizons: days after the index date at which risks are reported; they decide nothing about the cohort.
    """

    name: ClassVar[str] = TIME_TO_EVENT
    option: ClassVar[str] = Task.option
    label_type: ClassVar[LabelType] = LabelType.TIME_TO_EVENT

    horizons: tuple[int, ...] = ()

    @classmethod
    def requested(cls, settings: FinetuneSettings) -> bool:
        """Return whether --task names it."""
        return settings.task == cls.name

    @classmethod
    def from_settings(cls, settings: FinetuneSettings, outcomes: bool) -> Self:
        """Return the task that --endpoint, --index-date, --horizons and the days before and after it describe."""
        if settings.endpoint is None:
            raise OptionError(f"--task {cls.name}: --endpoint is missing, expected the codes whose time is predicted")
        gap, days = settings.gap_days, horizons(settings.horizons)
        if gap >= days[0]:
            raise OptionError(f"--gap-days: {gap} must be less than the first of --horizons, {days[0]}")
        endpoint, before = Endpoint(settings.endpoint, settings.endpoints), settings.min_observation_days
        rule = settings.index_date or "random"
        # A day of follow-up after the gap is all that is asked for.
        index = IndexRule.parse(rule, _WITHOUT_END, settings.seed, before, after=gap + 1)
        if outcomes and index.kind in ("last-visit", "last-visit-before"):
            raise OptionError(
                f"--index-date: {index.kind} chooses by the follow-up, which time to event has of any length; expected "
                "random, first-visit or fixed:YYYY-MM-DD to train"
            )
        if not outcomes:
            index = prediction_rule(settings)
        return cls(
            endpoint,
            index,
            _WITHOUT_END,
            gap,
            outcomes,
            washout=settings.washout_days,
            keep_censored=True,
            horizons=days,
        )

    @property
    def title(self) -> str:
        """The endpoint as it was given."""
        what = "occurrence" if self.washout else "first occurrence"
        return f"Time to the {what} of {self.endpoint.text}"

    @property
    def description(self) -> list[tuple[str, str]]:
        """How the index date is chosen, the days before and after it, and the horizons."""
        return [*super().description, ("horizons", f"{', '.join(map(str, self.horizons))} days")]

    @property
    def follow_up_days(self) -> None:
        """None: the censored need no weights to be learned from."""
        return None

    @property
    def censoring(self) -> str:
        """What becomes of patients whose observation ends early, and of those who die."""
        return (
            "Follow-up ends with the outcome, with death, which competes with it, or with the observation. Training "
            "uses all of it, and metrics at a horizon weigh those who are known by the inverse of the probability of "
            "being observed so long."
        )

    @property
    def target_days(self) -> tuple[int, int]:
        """The gap, and two years after it, whatever the horizons: they decide nothing about the weights."""
        return self.gap, self.gap + _PROMPT_DAYS

    def identity(self) -> dict[str, Any]:
        """Return the endpoint's codes and the days that the prompt is of, which in earlier releases had no end."""
        return super().identity() | {"prompt_days": list(self.target_days)}

    def to_dict(self) -> dict[str, Any]:
        """Return the endpoint, index date, gap and horizons."""
        content = super().to_dict() | {"horizons": list(self.horizons)}
        del content["horizon_days"]
        return content

    @classmethod
    def from_dict(cls, content: dict[str, Any], settings: FinetuneSettings) -> Self:
        """Return the task for patients who have not had the endpoint."""
        days = ",".join(map(str, content["horizons"]))
        of_model: dict[str, Any] = {"endpoint": ",".join(content["endpoint"]), "endpoints": {}, "horizons": days}
        of_model |= {name: int(content[name]) for name in ("gap_days", "washout_days", "min_observation_days")}
        return cls.from_settings(settings.model_copy(update=of_model), outcomes=False)
