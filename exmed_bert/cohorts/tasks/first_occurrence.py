"""The first occurrence of an endpoint: a code, codes that begin alike, or several of these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from exmed_bert.cohorts.endpoints import Endpoint
from exmed_bert.cohorts.index_dates import IndexRule, first_after, last_up_to
from exmed_bert.cohorts.labeled import UNLABELED, Cohort
from exmed_bert.cohorts.model_input import ModelInput
from exmed_bert.cohorts.observation import NEVER, Known, counting_events
from exmed_bert.cohorts.tasks.base import (
    TIME_TO_EVENT,
    GeneratedOutcome,
    Selection,
    Task,
    prediction_rule,
    unlabeled,
)
from exmed_bert.console import InputError, OptionError
from exmed_bert.data.patient import PatientColumns
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.data.vocabulary import CodeVocabulary
from exmed_bert.settings import FinetuneSettings


@dataclass
class FirstOccurrence(Task):
    """Whether an endpoint occurs for the first time in (index date + gap, index date + horizon].

    Who belongs to the cohort depends neither on the endpoint after index date and gap nor on what it adds to a record.

    Attributes:
        endpoint: its codes.
        index: how the index date is chosen.
        horizon, gap: days after the index date.
        outcomes: False where the outcomes are unknown: patients get no label, and none is censored.
        washout: days before the index date without the endpoint; 0: it has never occurred before.
        keep_censored: whether patients whose observation ends before the horizon stay in the cohort, without a label
            unless the endpoint or death comes first.
    """

    name: ClassVar[str] = "first-occurrence"
    option: ClassVar[str] = "--endpoint"

    endpoint: Endpoint
    index: IndexRule
    horizon: int
    gap: int
    outcomes: bool = True
    washout: int = 0
    keep_censored: bool = False

    @classmethod
    def requested(cls, settings: FinetuneSettings) -> bool:
        """Return whether --endpoint is given, and its time is not what is predicted."""
        return settings.endpoint is not None and settings.task != TIME_TO_EVENT

    @classmethod
    def from_settings(cls, settings: FinetuneSettings, outcomes: bool) -> Self:
        """Return the task that --endpoint, --index-date and the days before and after it describe."""
        if settings.gap_days >= settings.horizon_days:
            raise OptionError(
                f"--gap-days: {settings.gap_days} must be less than --horizon-days, {settings.horizon_days}"
            )
        endpoint = Endpoint(settings.endpoint or "", settings.endpoints)
        washout = settings.washout_days
        if not outcomes:
            return cls(endpoint, prediction_rule(settings), settings.horizon_days, 0, outcomes=False, washout=washout)
        rule, before = settings.index_date or "last-visit-before", settings.min_observation_days
        keep = settings.censored == "weight"
        after = settings.gap_days if keep else None
        index = IndexRule.parse(rule, settings.horizon_days, settings.seed, before, after)
        if index.kind == "last-visit":
            raise OptionError("--index-date: the last visit has no follow-up, expected last-visit-before to train")
        return cls(endpoint, index, settings.horizon_days, settings.gap_days, washout=washout, keep_censored=keep)

    def select(self, patients: PatientColumns, hashes: np.ndarray) -> Selection:
        """Return the index date of each patient without the endpoint by then, and whether it followed."""
        events, of_endpoint = patients.events, self.endpoint.among(patients.events.table)
        # Without outcomes the last visit is the last of all: who has the endpoint is not predicted for.
        apart = None if self.index.kind == "last-visit" else of_endpoint
        visits, observed = counting_events(patients, apart), self.observe(patients, apart)
        days = self.index.days(visits, hashes, observed)
        first_later = first_after(events, of_endpoint, days)
        until, seen = days + self.horizon, first_later <= observed.end

        included = self.exclude(self.with_events(patients, visits), days == NEVER, self.index.no_date)
        too_short = days < observed.start + self.index.before
        if not self.index.before:  # then the first event that is not of the endpoint need not come before
            too_short &= observed.start_known == Known.RECORD
        included = self.exclude(included, too_short, self._observed_too_short)
        last_before = last_up_to(events, of_endpoint, days)
        had_it = last_before > -NEVER if not self.washout else last_before >= days - self.washout
        included = self.exclude(included, had_it, self._had_it)
        if self.outcomes:
            included = self.exclude(included, first_later <= days + self.gap, "endpoint within the gap")
            least = self.gap if self.keep_censored else self.horizon
            included = self.exclude(included, observed.end < days + least, self._ends_early)
        rows = np.flatnonzero(included)
        case = seen & (first_later <= until)
        known = case | (observed.end >= until) | (observed.death <= observed.end)
        label = np.where(known, case, UNLABELED).astype(np.int8)[rows] if self.outcomes else unlabeled(len(rows))
        return Selection(rows, days[rows], label, np.where(seen, first_later, NEVER)[rows], observed)

    @property
    def _ends_early(self) -> str:
        if not self.keep_censored or self.index.needs_horizon:
            return "censored: observed for less than the horizon after the index date"
        return "no longer observed " + ("at the end of the gap" if self.gap else "on the index date")

    @property
    def _observed_too_short(self) -> str:
        before = self.index.before
        return f"observed for less than {before} days before the index date" if before else "not yet observed"

    @property
    def _had_it(self) -> str:
        within = f"within {self.washout} days before" if self.washout else "on or before"
        return f"endpoint {within} the index date"

    @property
    def title(self) -> str:
        """The endpoint as it was given, and the horizon."""
        what = "Occurrence" if self.washout else "First occurrence"
        return f"{what} of {self.endpoint.text} within {self.horizon} days"

    @property
    def description(self) -> list[tuple[str, str]]:
        """How the index date is chosen, and the days before and after it."""
        washout = f"{self.washout} days" if self.washout else "no endpoint at any time before"
        return [
            ("index date", str(self.index)),
            ("gap", f"{self.gap} days"),
            ("washout", washout),
            ("observation before the index date", f"at least {self.index.before} days"),
        ]

    @property
    def follow_up_days(self) -> tuple[int, int] | None:
        """The gap and the horizon where the censored are kept."""
        return (self.gap, self.horizon) if self.outcomes and self.keep_censored else None

    @property
    def censoring(self) -> str:
        """Whether there can be censored patients, and what becomes of them."""
        if self.index.needs_horizon:
            return (
                "Only a visit with the whole horizon of observation after it is an index date, so nobody is censored "
                "and nobody dies before its end: the risks are those of patients who stay."
            )
        if self.keep_censored:
            return (
                "Patients whose observation ends before the horizon are censored: those who are observed for so long "
                "count for them, by the inverse of the probability of being observed (Kaplan-Meier), in training, "
                "recalibration and every metric. Whoever dies first has not had the outcome."
            )
        return (
            "Patients whose observation ends before the horizon are excluded, those who die before it among them: the "
            "risks are those of patients who stay."
        )

    @property
    def generated_outcome(self) -> GeneratedOutcome | None:
        """The codes of the endpoint that the patients have, and the days in which they count."""
        codes = tuple(sorted(code for _, code in self.endpoint.found))
        return GeneratedOutcome(codes, self.gap, self.horizon) if codes else None

    def target_codes(self, vocabulary: CodeVocabulary) -> list[int]:
        """Return the ids of the endpoint's codes."""
        return self.endpoint.target_codes(vocabulary)

    @property
    def target_days(self) -> tuple[int, int]:
        """The gap and the horizon."""
        return self.gap, self.horizon

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
            "washout_days": self.washout,
            "min_observation_days": self.index.before,
            "index_date": str(self.index),
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any], settings: FinetuneSettings) -> Self:
        """Return the task for patients who have not had the endpoint."""
        endpoint, horizon = Endpoint(",".join(content["endpoint"])), int(content["horizon_days"])
        before, washout = int(content.get("min_observation_days", 0)), int(content.get("washout_days", 0))
        of_model = settings.model_copy(update={"horizon_days": horizon, "min_observation_days": before})
        return cls(endpoint, prediction_rule(of_model), horizon, 0, outcomes=False, washout=washout)
