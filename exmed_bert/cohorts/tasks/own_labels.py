"""Prediction times and labels from a file of the user's own."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from exmed_bert import console
from exmed_bert.cohorts.index_dates import LAST_VISIT, IndexRule
from exmed_bert.cohorts.label_file import LabelFile, are_whole_numbers, label_source, read_labels
from exmed_bert.cohorts.labeled import Cohort
from exmed_bert.cohorts.observation import NEVER, counting_events
from exmed_bert.cohorts.tasks.base import Selection, Task, prediction_rule, unlabeled
from exmed_bert.data.patient import PatientColumns
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.settings import FinetuneSettings


@dataclass
class OwnLabels(Task):
    """Labels at prediction times from a file; without a file unknown outcomes, at a visit of each patient.

    Attributes:
        path: of the file or of the folder with its shards, None without one.
        index: prediction times without a file.
        file: the labels, once the first patients are there: how an id is read depends on theirs.
        found: labels of patients among those read so far.
        without_events: of these, labels of patients who have no event.
    """

    name: ClassVar[str] = "own-labels"
    option: ClassVar[str] = "--labels"

    path: Path | None
    index: IndexRule = LAST_VISIT
    file: LabelFile | None = field(default=None, init=False)
    found: int = field(default=0, init=False)
    without_events: int = field(default=0, init=False)
    _patients: tuple[str, ...] = field(default=(), init=False)  # ids of the first ones, as examples

    @classmethod
    def requested(cls, settings: FinetuneSettings) -> bool:
        """Return whether --labels is given."""
        return settings.labels is not None

    @classmethod
    def from_settings(cls, settings: FinetuneSettings, outcomes: bool) -> Self:
        """Return the task with the labels of --labels, which are read when they are first needed."""
        if settings.labels is None:
            return cls(None, prediction_rule(settings))
        label_source(settings.labels)
        return cls(settings.labels)

    def select(self, patients: PatientColumns, hashes: np.ndarray) -> Selection:
        """Return every label of a patient who has an event.

        Raises:
            InputError: the labels cannot be read.
        """
        if self.path is not None and self.file is None:
            self.file = read_labels(self.path, are_whole_numbers(patients.patient_ids))
            self._patients = tuple(repr(i) for i in patients.patient_ids[:3])
        included = self.with_events(patients)
        if self.file is None:
            days = self.index.days(counting_events(patients), hashes, self.observe(patients))
            included = self.exclude(included, days == NEVER, self.index.no_date)
            rows = np.flatnonzero(included)
            return Selection(rows, days[rows], unlabeled(len(rows)))
        rows, of_file = self.file.rows_of(hashes)
        self.exclude(included, np.bincount(rows, minlength=len(patients)) == 0, "no label")
        has_events = included[rows]
        self.found += len(rows)
        self.without_events += int((~has_events).sum())
        of_file = of_file[has_events]
        return Selection(rows[has_events], self.file.days[of_file].astype(np.int64), self.file.labels[of_file])

    @property
    def hint(self) -> str:
        """Ids of labels and of patients, where no label is of any patient."""
        if self.file is None or self.found:
            return ""
        labels = ", ".join(map(repr, self.file.examples))
        return (
            f"none of the {len(self.file.labels):,} labels of {self.path} is of one of them, whose ids are such as "
            f"{', '.join(self._patients)}; those of the labels are such as {labels}"
        )

    @property
    def title(self) -> str:
        """The file of labels."""
        return "Outcome of the labels" if self.path is None else f"Outcome of {self.path.name}"

    def check(self, source: PatientInput, cohort: Cohort) -> None:
        """Warn of labels of patients who are not in the file of patients."""
        if self._unknown:
            console.warn(f"{self._unknown:,} labels are of patients who are not in {source}")

    def label_attrition(self, left: int) -> list[tuple[str, int]]:
        """Return the way from all labels to those that are left: a patient may have several."""
        if self.file is None:
            return []
        return [
            ("labels read", len(self.file.labels)),
            ("labels excluded: patient not in the input", self._unknown),
            ("labels excluded: no event", self.without_events),
            ("labels excluded: too few codes by the prediction time", self.found - self.without_events - left),
            ("labels left", left),
        ]

    def identity(self) -> dict[str, Any]:
        """Return the fingerprint of the labels."""
        return {} if self.path is None else {"labels": label_source(self.path).fingerprint()}

    @classmethod
    def from_dict(cls, content: dict[str, Any], settings: FinetuneSettings) -> Self:
        """Return the task for unknown outcomes."""
        return cls(None, prediction_rule(settings))

    @property
    def _unknown(self) -> int:
        return 0 if self.file is None else len(self.file.labels) - self.found
