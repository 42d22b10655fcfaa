"""The cohort of a prediction: from a file of patients to histories, outcomes and splits, and who was left out and why.

Nothing that happened after the index date is in a history: events are cut off before they are encoded, and what was
encoded is checked again.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from exmed_bert import console
from exmed_bert.cohorts.endpoints import Endpoint
from exmed_bert.cohorts.index_dates import NEVER, IndexRule, first_after, last_days, take, up_to
from exmed_bert.cohorts.label_file import LabelFile
from exmed_bert.cohorts.labeled import LabeledPatients
from exmed_bert.cohorts.splits import assign_splits
from exmed_bert.console import InputError
from exmed_bert.data.assembly import join_pieces, refuse_duplicates, select_piece
from exmed_bert.data.dataset import DatasetInfo, PatientDataset
from exmed_bert.data.io import read_patients
from exmed_bert.data.masking import Masking
from exmed_bert.data.patient import PatientColumns
from exmed_bert.data.randomness import hash_patient_ids
from exmed_bert.data.splits import SplitRule
from exmed_bert.data.tokenizer import Encoder
from exmed_bert.data.vocabulary import AgeUnit, CodeVocabulary
from exmed_bert.files import fingerprint

UNLABELED = -1  # the label of patients whose outcome is to be predicted


@dataclass(frozen=True)
class Selection:
    """Those of a chunk of patients who have an index date and a label.

    Attributes:
        rows: (n,) indices of the patients; one may come several times.
        days: (n,) index dates, since 1970-01-01.
        labels: (n,) int8, 0, 1 or `UNLABELED`.
    """

    rows: np.ndarray
    days: np.ndarray
    labels: np.ndarray


class Task(Protocol):
    """What is predicted: chooses patients, index dates and labels, and counts whom it leaves out."""

    exclusions: Counter[str]

    def select(self, patients: PatientColumns, keys: np.ndarray) -> Selection:
        """Return whom to predict; ``keys`` says who each patient is, (N,)."""
        ...


@dataclass
class FirstOccurrence:
    """Whether an endpoint occurs for the first time in (index + washout, index + horizon].

    Attributes:
        endpoint: its codes.
        index: how the index date is chosen.
        horizon, washout: days.
        seed: of random index dates.
        outcomes: False where nobody knows what came after: patients get no label, and none is censored.
        exclusions: how many patients, by reason.
    """

    endpoint: Endpoint
    index: IndexRule
    horizon: int
    washout: int
    seed: int
    outcomes: bool = True
    exclusions: Counter[str] = field(default_factory=Counter)

    def select(self, patients: PatientColumns, keys: np.ndarray) -> Selection:
        """Return whom to predict."""
        n = len(patients)
        days = self.index.days(patients, keys, self.horizon, self.seed)
        nobody_before = np.full(n, -NEVER)
        first, event = np.full(n, NEVER, dtype=np.int64), np.full(n, NEVER, dtype=np.int64)
        for events, system in ((patients.diagnoses, "icd"), (patients.drugs, "atc")):
            of_endpoint = self.endpoint.among(events.table, system)  # type: ignore[arg-type]
            first = np.minimum(first, first_after(events, of_endpoint, nobody_before))
            event = np.minimum(event, first_after(events, of_endpoint, days))
        no_index = days == NEVER
        before = ~no_index & (first <= days)
        in_washout = ~no_index & ~before & self.outcomes & (event <= days + self.washout)
        case = event <= days + self.horizon
        censored = ~case & (last_days(patients) < days + self.horizon) & self.outcomes
        censored &= ~(no_index | before | in_washout)
        self.exclusions["no visit has the horizon behind it"] += int(no_index.sum())
        self.exclusions["had the endpoint by the index date"] += int(before.sum())
        if self.outcomes:
            self.exclusions["the endpoint came within the washout"] += int(in_washout.sum())
            self.exclusions["censored: observed for less than the horizon, without the endpoint"] += int(censored.sum())
        rows = np.flatnonzero(~(no_index | before | in_washout | censored))
        labels = case[rows].astype(np.int8) if self.outcomes else np.full(len(rows), UNLABELED, dtype=np.int8)
        return Selection(rows, days[rows], labels)


@dataclass
class ProlongedStay:
    """Whether the length of stay was prolonged (``had_plos``), from the whole history."""

    outcomes: bool = True
    exclusions: Counter[str] = field(default_factory=Counter)

    def select(self, patients: PatientColumns, keys: np.ndarray) -> Selection:
        """Return whom to predict."""
        days = last_days(patients)
        known = (patients.plos >= 0) | (not self.outcomes)
        self.exclusions["length of stay not recorded"] += int((~known).sum())
        rows = np.flatnonzero(known & (days > -NEVER))
        labels = patients.plos[rows] if self.outcomes else np.full(len(rows), UNLABELED, dtype=np.int8)
        return Selection(rows, days[rows], labels)


@dataclass
class GivenLabels:
    """Labels and index dates of the user's own."""

    file: LabelFile
    exclusions: Counter[str] = field(default_factory=Counter)
    found: int = 0

    def select(self, patients: PatientColumns, keys: np.ndarray) -> Selection:
        """Return whom to predict."""
        rows, of_file = self.file.rows_of(keys)
        self.exclusions["patients without a label"] += len(patients) - len(np.unique(rows))
        self.found += len(rows)
        return Selection(rows, self.file.days[of_file].astype(np.int64), self.file.labels[of_file])


@dataclass(frozen=True)
class Cohort:
    """Labeled patients and how they were come by.

    Attributes:
        patients: with their splits; labels may be `UNLABELED`.
        attrition: what was counted, how many: from all patients read to those that are left.
        new_codes: names of codes that the model's vocabulary did not hold; they stand at the end of the new one.
    """

    patients: LabeledPatients
    attrition: list[tuple[str, int]]
    new_codes: tuple[str, ...]


@dataclass(frozen=True)
class ModelInput:
    """What a model takes: the form that histories are brought into.

    Attributes:
        vocabulary: its codes; ids 0-5 are our special tokens.
        max_length: most codes of a history; the latest visits that fit.
        age_unit: of the ages.
        pretraining: whom each pretraining trained on; None where that is not known.
    """

    vocabulary: CodeVocabulary
    max_length: int
    age_unit: AgeUnit
    pretraining: Sequence[SplitRule] | None


def build(path: Path, task: Task, model: ModelInput, min_history: int, seed: int) -> Cohort:
    """Read a file of patients and return those whom the task is asked about.

    Args:
        path: the file of patients.
        task: whom, when, and the labels.
        model: how to encode.
        min_history: patients with fewer codes up to the index date are left out.
        seed: divides validation from test patients.

    Raises:
        InputError: the file is wrong, or nobody is left.
    """
    encoder = Encoder(model.max_length, min_history, model.age_unit, model.vocabulary)
    pieces: list[dict[str, np.ndarray]] = []
    labels: list[np.ndarray] = []
    days: list[np.ndarray] = []
    keys_seen: list[np.ndarray] = []
    bar = console.progress(label="Building the cohort", unit=" patients")
    for patients in read_patients(path):
        keys = hash_patient_ids(patients.patient_ids)
        keys_seen.append(keys)
        chosen = task.select(patients, keys)
        histories = up_to(take(patients, chosen.rows), chosen.days)
        tokens = encoder.encode(histories)
        everyone = np.ones(len(tokens.rows), dtype=bool)
        pieces.append(select_piece(histories, tokens, keys[chosen.rows], everyone))
        labels.append(chosen.labels[tokens.rows])
        days.append(chosen.days[tokens.rows])
        bar.update(len(patients))
    bar.close()
    refuse_duplicates(path, np.concatenate(keys_seen))
    attrition = [("patients read", sum(map(len, keys_seen)))]
    attrition += [(f"left out: {reason}", count) for reason, count in task.exclusions.items()]
    attrition.append((f"left out: fewer than {min_history} codes by the index date", encoder.summary.too_short))
    if not sum(map(len, labels)):
        raise InputError(f"{path}: nobody is left: {'; '.join(f'{count:,} {what}' for what, count in attrition)}")

    vocabulary, final_id = encoder.extended_vocabulary()
    columns = join_pieces(pieces, final_id, model.max_length, model.age_unit, len(vocabulary))
    info = DatasetInfo(
        split="all",
        max_length=model.max_length,
        age_unit=model.age_unit,
        masking=Masking("dynamic", 0.15, 20, seed),  # nothing is masked; a dataset has to say
        vocabulary=vocabulary,
        novel_codes=(),
        input_fingerprint=fingerprint(path),
        split_seed=seed,
        train_ratio=1.0,
    )
    dataset = PatientDataset(info, columns)
    label = np.concatenate(labels)
    found = LabeledPatients(
        dataset=dataset,
        labels=label,
        index_days=np.concatenate(days).astype(np.int32),
        splits=assign_splits(columns["keys"].numpy(), model.pretraining, seed),
    )
    check_nothing_after_index(found)
    attrition.append(("patients left", len(found)))
    if (label != UNLABELED).any():
        attrition.append(("  with the outcome", int((label == 1).sum())))
    return Cohort(found, attrition, vocabulary.tokens[len(model.vocabulary) :])


def check_nothing_after_index(patients: LabeledPatients) -> None:
    """Raise a ValueError where a history reaches beyond its index date."""
    columns = patients.dataset.columns
    owner = np.repeat(np.arange(len(patients)), np.diff(columns["visit_offsets"].numpy()))
    late = columns["visit_days"].numpy() > patients.index_days[owner]
    if late.any():
        row = int(owner[late.argmax()])
        raise ValueError(f"patient {patients.dataset.patient_id(row)!r}: the history reaches beyond the index date")


def subset(patients: LabeledPatients, rows: np.ndarray) -> LabeledPatients:
    """Return the given patients, in that order."""
    return replace(
        patients,
        dataset=patients.dataset.subset(rows),
        labels=patients.labels[rows],
        index_days=patients.index_days[rows],
        splits=patients.splits[rows],
    )
