"""The cohort of a task: from patients to histories, labels and splits, with the attrition on the way.

Nothing that happened after the prediction time is in a history: events are cut off before they are encoded, and what
was encoded is checked again.
"""

from collections import Counter
from dataclasses import replace

import numpy as np

from exmed_bert import console
from exmed_bert.cohorts.labeled import UNLABELED, Cohort, LabeledPatients, Timeline
from exmed_bert.cohorts.model_input import ModelInput
from exmed_bert.cohorts.observation import NEVER, Observation
from exmed_bert.cohorts.splits import assign_splits
from exmed_bert.cohorts.tasks.base import Selection, Task
from exmed_bert.console import InputError
from exmed_bert.data.assembly import join_pieces, refuse_duplicates, settled
from exmed_bert.data.dataset import PatientDataset
from exmed_bert.data.dataset_info import DatasetInfo
from exmed_bert.data.patient import PatientColumns, day_number
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.data.pieces import ColumnKinds, select_piece
from exmed_bert.data.randomness import hash_patient_ids
from exmed_bert.data.splits import InputSplit, needed_splits
from exmed_bert.data.tokenizer import Tokenizer


class NoPatientLeft(InputError):
    """A cohort would be empty.

    Attributes:
        excluded: how many patients are excluded by reason.
    """

    def __init__(self, message: str, excluded: dict[str, int]) -> None:
        """Take the message and the counts."""
        super().__init__(message)
        self.excluded = excluded


def build(
    source: PatientInput, task: Task, model: ModelInput, min_history: int, seed: int, same_day: bool = True
) -> Cohort:
    """Read patients and return those that a task selects, with their histories up to the prediction time.

    Args:
        source: the patients.
        task: gives prediction times and labels.
        model: how to encode.
        min_history: patients with fewer codes up to the prediction time are excluded.
        seed: divides validation from test patients.
        same_day: whether events of the prediction day belong to the history.

    Raises:
        InputError: a file is wrong.
        NoPatientLeft: so it is.
    """
    extract_end = source.settings.extract_end
    task.extract_end = None if extract_end is None else day_number(extract_end)
    tokenizer = Tokenizer(model.max_length, min_history, model.age_unit, model.vocabulary, model.static_columns)
    pieces: list[dict[str, np.ndarray]] = []
    labels: list[np.ndarray] = []
    days: list[np.ndarray] = []
    followed: list[Timeline] = []
    hashes_seen: list[np.ndarray] = []
    observation = Counter[tuple[str, str]]()
    of_input: list[np.ndarray] = []  # splits
    from_input = any(rule.from_input for rule in model.pretraining or ())
    selected = left = 0  # patients, whatever the number of their prediction times
    bar = console.progress(label="Building the cohort", unit=" patients")
    for patients in source.chunks():
        hashes = hash_patient_ids(patients.patient_ids)
        hashes_seen.append(hashes)
        if from_input:
            patients, hashes = _in_a_split(patients, hashes, source, task)
        chosen = task.select(patients, hashes)
        histories = patients.take(chosen.rows).up_to(chosen.days - (not same_day))
        tokens = tokenizer.encode(histories)
        everyone = np.ones(len(tokens.rows), dtype=bool)
        pieces.append(select_piece(histories, tokens, hashes[chosen.rows], everyone))
        labels.append(chosen.labels[tokens.rows])
        days.append(chosen.days[tokens.rows])
        observed = task.observe(patients) if chosen.observed is None else chosen.observed
        observed = observed.take(chosen.rows[tokens.rows])
        observation += observed.sources()
        followed.append(_timeline(chosen, observed, tokens.rows))
        if from_input and histories.splits is not None:
            of_input.append(histories.splits[tokens.rows])
        selected += len(np.unique(chosen.rows))
        left += len(np.unique(chosen.rows[tokens.rows]))
        bar.update(len(patients))
    bar.close()
    refuse_duplicates(source, np.concatenate(hashes_seen))
    label = np.concatenate(labels)
    too_few = f"fewer than {min_history} codes by the index date"
    attrition = _attrition(task, sum(map(len, hashes_seen)), selected, too_few, left)
    if not left:
        counts = [f"{count:,} {what}" for what, count in attrition]
        excluded = {what.removeprefix("excluded: "): n for what, n in attrition if n and what.startswith("excluded: ")}
        hint = [task.hint] if task.hint else []
        raise NoPatientLeft(f"{source}: no patient is left: {'; '.join([*counts, *hint])}", excluded)
    attrition += task.label_attrition(len(label))
    if (label != UNLABELED).any():
        attrition.append(("  with the outcome", int((label == 1).sum())))
        if censored := int((label == UNLABELED).sum()):
            attrition.append(("  censored before the end of the horizon, not excluded", censored))

    vocabulary, final = tokenizer.extended_vocabulary()
    kinds = ColumnKinds()
    for piece in pieces:
        kinds.note(piece)
    pieces = [settled(piece, final) for piece in pieces]
    columns = join_pieces(pieces, kinds, model.max_length, model.age_unit, len(vocabulary))
    info = DatasetInfo(
        split="all",
        max_length=model.max_length,
        age_unit=model.age_unit,
        masking=None,
        vocabulary=vocabulary,
        novel_codes=(),
        input_fingerprint=source.origin.fingerprint,
        split_seed=seed,
        train_ratio=1.0,
        static_columns=model.static_columns,
    )
    found = LabeledPatients(
        dataset=PatientDataset(info, columns),
        labels=label,
        index_days=np.concatenate(days).astype(np.int32),
        splits=assign_splits(
            columns["patient_hashes"].numpy(), model.pretraining, seed, np.concatenate(of_input) if of_input else None
        ),
        timeline=Timeline.joined(followed),
    )
    check_nothing_after_index(found, same_day)
    new_codes = vocabulary.tokens[len(model.vocabulary) :]
    meta = source.origin.meta if source.generated else {}
    return Cohort(found, attrition, new_codes, source.cells, source.generated, observation, same_day, meta)


def _timeline(chosen: Selection, observed: Observation, kept: np.ndarray) -> Timeline:
    """Return what followed the prediction times that are kept, indices into those selected."""
    outcome = np.full(len(kept), NEVER) if chosen.outcome_days is None else chosen.outcome_days[kept]
    return Timeline(*(days.astype(np.int32) for days in (outcome, observed.end, observed.death)))


def _in_a_split(
    patients: PatientColumns, hashes: np.ndarray, source: PatientInput, task: Task
) -> tuple[PatientColumns, np.ndarray]:
    """Return the patients that the input puts into a split, and their hashes; the others are excluded."""
    splits = needed_splits(source, patients.splits, "a model that was pretrained with --split-from input")
    everyone = np.ones(len(patients), dtype=bool)
    rows = np.flatnonzero(task.exclude(everyone, splits == InputSplit.UNKNOWN, "in no split of the input"))
    return patients.take(rows), hashes[rows]


def _attrition(task: Task, read: int, selected: int, too_few: str, left: int) -> list[tuple[str, int]]:
    """Return the attrition of patients, and raise a ValueError where a task has not counted all that it excluded."""
    if read - task.exclusions.total() != selected:
        raise ValueError(
            f"task {task.name}: {task.exclusions.total()} exclusions of {read} patients, but {selected} were selected"
        )
    exclusions = [*task.exclusions.items(), (too_few, selected - left)]
    return [
        ("patients read", read),
        *((f"excluded: {reason}", count) for reason, count in exclusions),
        ("patients left", left),
    ]


def check_nothing_after_index(patients: LabeledPatients, same_day: bool = True) -> None:
    """Raise a ValueError where a history reaches beyond its index date, or to it where that day is excluded."""
    columns = patients.dataset.columns
    owner = np.repeat(np.arange(len(patients)), np.diff(columns["visit_offsets"].numpy()))
    late = columns["visit_days"].numpy() > patients.index_days[owner] - (not same_day)
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
        timeline=patients.timeline.take(rows),
        weights=None if patients.weights is None else patients.weights[rows],
    )
