"""Prolonged length of stay, as the record of a patient says."""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from exmed_bert.cohorts.index_dates import LAST_VISIT, IndexRule
from exmed_bert.cohorts.observation import NEVER, counting_events
from exmed_bert.cohorts.tasks.base import GeneratedOutcome, Selection, Task, prediction_rule, unlabeled
from exmed_bert.data.patient import PatientColumns
from exmed_bert.settings import FinetuneSettings


@dataclass
class ProlongedStay(Task):
    """Whether a patient had a prolonged length of stay (``had_plos``), from the whole history.

    Attributes:
        index: prediction times; labels are of the whole history, so training takes the last visit.
        outcomes: False where labels are unknown.
    """

    name: ClassVar[str] = "plos"

    index: IndexRule = LAST_VISIT
    outcomes: bool = True

    @classmethod
    def from_settings(cls, settings: FinetuneSettings, outcomes: bool) -> Self:
        """Return the task; --index-date counts only where the outcome is unknown."""
        return cls() if outcomes else cls(prediction_rule(settings), outcomes=False)

    def select(self, patients: PatientColumns, hashes: np.ndarray) -> Selection:
        """Return the patients whose length of stay is recorded."""
        days = self.index.days(counting_events(patients), hashes, self.observe(patients))
        included = self.with_events(patients)
        if self.outcomes:
            included = self.exclude(included, patients.plos < 0, "length of stay not recorded")
        included = self.exclude(included, days == NEVER, self.index.no_date)
        rows = np.flatnonzero(included)
        return Selection(rows, days[rows], patients.plos[rows] if self.outcomes else unlabeled(len(rows)))

    @property
    def generated_outcome(self) -> GeneratedOutcome | None:
        """The prolonged stay of the record."""
        return GeneratedOutcome()

    @property
    def title(self) -> str:
        """The outcome."""
        return "Prolonged length of stay"
