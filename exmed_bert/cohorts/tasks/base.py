"""What a prediction task is: the patients it selects, their prediction times and labels, its name and its facts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Self

import numpy as np

from exmed_bert.cohorts.index_dates import IndexRule
from exmed_bert.cohorts.labeled import UNLABELED, Cohort
from exmed_bert.cohorts.model_input import ModelInput
from exmed_bert.cohorts.observation import Observation, observe
from exmed_bert.data.patient import EventColumns, PatientColumns
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.data.vocabulary import CodeVocabulary
from exmed_bert.settings import FinetuneSettings

TIME_TO_EVENT = "time-to-event"  # the name of a task that has an endpoint, as another has


class LabelType(StrEnum):
    """What a label says."""

    BOOLEAN = "boolean"  # whether the outcome occurred
    TIME_TO_EVENT = "time_to_event"  # whether it was seen to occur; the timeline says when


@dataclass(frozen=True)
class Selection:
    """The patients of a chunk that have a prediction time, and their labels.

    Attributes:
        rows: (n,) indices of the patients; a patient with several prediction times stands here several times.
        days: (n,) prediction times, in days since 1970-01-01. Whether events of that day belong to the history,
            --same-day says.
        labels: (n,) int8, 0, 1 or, where the outcome is not known, `UNLABELED`.
        outcome_days: (n,) the first day of the outcome after the prediction time, `NEVER` for none; None where only
            labels are known.
        observed: of all patients of the chunk; None: as their records and events say.
    """

    rows: np.ndarray
    days: np.ndarray
    labels: np.ndarray
    outcome_days: np.ndarray | None = None
    observed: Observation | None = None


@dataclass(frozen=True)
class GeneratedOutcome:
    """An outcome as the generator of our patients knows it.

    Attributes:
        codes: the first of any of them is the outcome; None: the prolonged stay of the record.
        after, until: days after the prediction time between which it counts; ``codes`` alone have them.
    """

    codes: tuple[str, ...] | None = None
    after: int = 0
    until: int = 0


@dataclass
class Task(ABC):
    """A prediction task, for one cohort.

    A new one is a subclass in a module of its own and an entry in `registry`.

    Attributes:
        name: in finetuning.json, and after --task.
        option: the option that requests it: --task with the name, or one of its own.
        label_type: of its labels.
        exclusions: how many patients `select` has excluded so far, by reason.
        extract_end: last day that the data cover, since 1970-01-01; None where it is not known. The building of the
            cohort sets it.
    """

    name: ClassVar[str]
    option: ClassVar[str] = "--task"
    label_type: ClassVar[LabelType] = LabelType.BOOLEAN

    exclusions: Counter[str] = field(default_factory=Counter, init=False)
    extract_end: int | None = field(default=None, init=False)

    @classmethod
    def requested(cls, settings: FinetuneSettings) -> bool:
        """Return whether the settings ask for this task."""
        return settings.task == cls.name

    @classmethod
    @abstractmethod
    def from_settings(cls, settings: FinetuneSettings, outcomes: bool) -> Self:
        """Return the task that the settings describe.

        Args:
            settings: of fine-tuning.
            outcomes: whether labels are known; if not, they are all `UNLABELED`, and no patient is excluded for what
                follows the prediction time.

        Raises:
            InputError, OptionError: a setting is wrong.
        """

    @abstractmethod
    def select(self, patients: PatientColumns, hashes: np.ndarray) -> Selection:
        """Return prediction times and labels, and count every patient who gets none.

        Args:
            patients: N patients.
            hashes: (N,) int64, `randomness.hash_patient_ids` of their ids.
        """

    @property
    @abstractmethod
    def title(self) -> str:
        """What is predicted, for a heading."""

    @property
    def description(self) -> list[tuple[str, str]]:
        """Names and values for the report."""
        return []

    @property
    def follow_up_days(self) -> tuple[int, int] | None:
        """Days after the prediction time from which, and up to which, the outcome counts where some are censored.

        None where only labels are known, or where the censored are excluded.
        """
        return None

    @property
    def censoring(self) -> str:
        """What becomes of patients whose observation ends early, as a sentence; "" where only labels are known."""
        return ""

    @property
    def hint(self) -> str:
        """What the user should know where no patient is left; "" for nothing."""
        return ""

    @property
    def generated_outcome(self) -> GeneratedOutcome | None:
        """The outcome as the generator of our patients knows it, once the cohort is built; None where it does not."""
        return None

    def target_codes(self, vocabulary: CodeVocabulary) -> list[int]:
        """Return the ids of the codes whose occurrence is the outcome, for the prompt; none for other outcomes."""
        return []

    @property
    def target_days(self) -> tuple[int, int]:
        """The days after the prediction time from which and until which a target code counts."""
        return 0, 365

    def check(self, source: PatientInput, cohort: Cohort) -> None:  # noqa: B027, most tasks have nothing to check
        """Refuse or warn of what shows only once the cohort is built from ``source``.

        Raises:
            InputError, OptionError: nothing can be learned or predicted from such a cohort.
        """

    def label_attrition(self, left: int) -> list[tuple[str, int]]:
        """Return the attrition of labels, where it is another one than that of patients; ``left`` of them are left."""
        return []

    def notes(self, model: ModelInput) -> list[str]:
        """Return what a reader has to know before the results."""
        return []

    def identity(self) -> dict[str, Any]:
        """Return what decides the labels besides the settings, as plain JSON values."""
        return {}

    def to_dict(self) -> dict[str, Any]:
        """Return what finetuning.json holds of the task, as plain JSON values."""
        return {"name": self.name, "label_type": str(self.label_type)}

    @classmethod
    def from_dict(cls, content: dict[str, Any], settings: FinetuneSettings) -> Self:
        """Return the task of a fine-tuned model, to predict unknown outcomes with.

        Args:
            content: what `to_dict` returned.
            settings: of the prediction.

        Raises:
            KeyError, TypeError, ValueError: the content is damaged.
        """
        return cls.from_settings(settings, outcomes=False)

    def observe(self, patients: PatientColumns, of_endpoint: np.ndarray | None = None) -> Observation:
        """Return the observation of N patients; ``of_endpoint``, (table,) bool: codes that it does not depend on."""
        return observe(patients, of_endpoint, self.extract_end)

    def with_events(self, patients: PatientColumns, events: EventColumns | None = None) -> np.ndarray:
        """Return which patients have any event, or any of those given, (N,) bool; count the others as excluded."""
        everyone = np.ones(len(patients), dtype=bool)
        return self.exclude(everyone, (events or patients.events).counts() == 0, "no event")

    def exclude(self, included: np.ndarray, where: np.ndarray, reason: str) -> np.ndarray:
        """Count the included patients that a reason excludes; return the patients still included, (N,) bool each."""
        self.exclusions[reason] += int((included & where).sum())
        return included & ~where


def prediction_rule(settings: FinetuneSettings) -> IndexRule:
    """Return the rule for the prediction times of unknown outcomes: the last visit unless --index-date says otherwise.

    Raises:
        OptionError: --index-date is no rule.
    """
    before = settings.min_observation_days
    return IndexRule.parse(settings.index_date or "last-visit", settings.horizon_days, settings.seed, before)


def unlabeled(n: int) -> np.ndarray:
    """Return the labels of patients whose outcome is to be predicted, (n,) int8."""
    return np.full(n, UNLABELED, dtype=np.int8)
