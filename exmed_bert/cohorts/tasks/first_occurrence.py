"""The first occurrence of an endpoint: a code, codes that begin alike, or several of these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from exmed_bert.cohorts.endpoints import Endpoint
from exmed_bert.cohorts.index_dates import NEVER, IndexRule, first_after, last_days
from exmed_bert.cohorts.labeled import Cohort
from exmed_bert.cohorts.model_input import ModelInput
from exmed_bert.cohorts.tasks.base import Selection, Task, prediction_rule, unlabeled
from exmed_bert.console import InputError, OptionError
from exmed_bert.data.patient import PatientColumns
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.data.vocabulary import CodeVocabulary
from exmed_bert.settings import FinetuneSettings


@dataclass
class FirstOccurrence(Task):
    """Whether an endpoint occurs for the first time in (index date + gap, index date + horizon].

    Attributes:
        endpoint: its codes.
        index: how the index date is chosen.
        horizon, gap: days after the index date.
        outcomes: False where the outcomes are unknown: patients get no label, and none is censored.
    """

    name: ClassVar[str] = "first-occurrence"
    option: ClassVar[str] = "--endpoint"

    endpoint: Endpoint
    index: IndexRule
    horizon: int
    gap: int
    outcomes: bool = True

    @classmethod
    def requested(cls, settings: FinetuneSettings) -> bool:
        """Return whether --endpoint is given."""
        return settings.endpoint is not None

    @classmethod
    def from_settings(cls, settings: FinetuneSettings, outcomes: bool) -> Self:
        """Return the task that --endpoint, --index-date, --horizon-days and --gap-days describe."""
        if settings.gap_days >= settings.horizon_days:
            raise OptionError(
                f"--gap-days: {settings.gap_days} must be less than --horizon-days, {settings.horizon_days}"
            )
        endpoint = Endpoint(settings.endpoint or "", settings.endpoints)
        if not outcomes:
            return cls(endpoint, prediction_rule(settings), settings.horizon_days, 0, outcomes=False)
        index = IndexRule.parse(settings.index_date or "last-visit-before", settings.horizon_days, settings.seed)
        if index.kind == "last-visit":
            raise OptionError("--index-date: the last visit has no follow-up, expected last-visit-before to train")
        return cls(endpoint, index, settings.horizon_days, settings.gap_days)

    def select(self, patients: PatientColumns, hashes: np.ndarray) -> Selection:
        """Return the index date of each patient without the endpoint by then, and whether it followed."""
        days = self.index.days(patients, hashes)
        first = _first_day(patients, self.endpoint, np.full(len(patients), -NEVER))
        first_later = _first_day(patients, self.endpoint, days)
        case = first_later <= days + self.horizon
        followed = last_days(patients) >= days + self.horizon
        included = self.with_events(patients)
        included = self.exclude(included, days == NEVER, "no visit with the horizon of follow-up after it")
        included = self.exclude(included, first <= days, "endpoint on or before the index date")
        if self.outcomes:
            included = self.exclude(included, first_later <= days + self.gap, "endpoint within the gap")
            censored = "censored: follow-up shorter than the horizon, without the endpoint"
            included = self.exclude(included, ~case & ~followed, censored)
        rows = np.flatnonzero(included)
        return Selection(rows, days[rows], case[rows].astype(np.int8) if self.outcomes else unlabeled(len(rows)))

    @property
    def title(self) -> str:
        """The endpoint as it was given, and the horizon."""
        return f"First occurrence of {self.endpoint.text} within {self.horizon} days"

    @property
    def description(self) -> list[tuple[str, str]]:
        """How the index date is chosen, and the gap after it."""
        return [("index date", str(self.index)), ("gap", f"{self.gap} days")]

    def target_codes(self, vocabulary: CodeVocabulary) -> list[int]:
        """Return the ids of the endpoint's codes."""
        return self.endpoint.target_codes(vocabulary)

    def check(self, source: PatientInput, cohort: Cohort) -> None:
        """Refuse an endpoint that no patient has, or whose code system is not clear."""
        if not self.outcomes:
            return
        self.endpoint.resolve()
        if not self.endpoint.found:
            raise InputError(f"{source}: --endpoint {self.endpoint.text}: no patient has such a code")

    def notes(self, model: ModelInput) -> list[str]:
        """Say what pretraining has seen of the endpoint."""
        if model.pretraining is None:
            return []
        return [
            "The pretraining saw the whole histories of the training patients, so the endpoint's codes among them, "
            "whether or not a label was given."
        ]

    def identity(self) -> dict[str, Any]:
        """Return the endpoint's codes and prefixes: the settings hold only the name of a named set."""
        return {"codes": self.endpoint.texts}

    def to_dict(self) -> dict[str, Any]:
        """Return the endpoint, index date, horizon and gap."""
        return super().to_dict() | {
            "endpoint": self.endpoint.texts,
            "horizon_days": self.horizon,
            "gap_days": self.gap,
            "index_date": str(self.index),
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any], settings: FinetuneSettings) -> Self:
        """Return the task for patients who have not had the endpoint."""
        endpoint, horizon = Endpoint(",".join(content["endpoint"])), int(content["horizon_days"])
        index = prediction_rule(settings.model_copy(update={"horizon_days": horizon}))
        return cls(endpoint, index, horizon, 0, outcomes=False)


def _first_day(patients: PatientColumns, endpoint: Endpoint, after: np.ndarray) -> np.ndarray:
    """Return the day of each patient's first event of the endpoint later than a day, (N,) int64, or `NEVER`."""
    return first_after(patients.events, endpoint.among(patients.events.table), after)
