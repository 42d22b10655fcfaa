"""From patients to the histories that a model reads: up to the prediction times, in the model's vocabulary."""

from collections.abc import Iterator

import numpy as np

from exmed_bert.cohorts.labeled import TEST, LabeledPatients, Timeline
from exmed_bert.cohorts.model_input import ModelInput
from exmed_bert.cohorts.tasks.base import Task
from exmed_bert.data.ages import ages_on
from exmed_bert.data.assembly import join_pieces, settled
from exmed_bert.data.dataset import PatientDataset
from exmed_bert.data.dataset_info import DatasetInfo
from exmed_bert.data.patient import BIRTH_DATE, NO_DAY, PatientColumns
from exmed_bert.data.pieces import ColumnKinds, select_piece
from exmed_bert.data.randomness import hash_patient_ids
from exmed_bert.data.tokenizer import Tokenizer
from exmed_bert.data.vocabulary import SPECIAL_TOKENS, CodeVocabulary
from exmed_bert.models.code_tree import TreeRows

AGE = "age"
AGES = ("under 20", "20 to 39", "40 to 59", "60 to 79", "80 and over")
_YEARS = 20  # of one of them


class HistoryBuilder:
    """Turns chunk after chunk of patients into histories at the prediction times of a task.

    A code that the model does not know is UNK, but with ``rows`` those that are sums of their ancestors: they have ids
    after the vocabulary's. A history reads the same whatever other patients are there.

    Attributes:
        task: gives the prediction times, and counts its exclusions.
        tokenizer: its summary counts what the histories hold.
        patients, selected, left: patients read, those of them with a prediction time, and those with a history.
        histories: how many there are; a patient may have several.
        placed: events whose code the model does not know, and which is the sum of its ancestors.
        hashes: of all patients read, a list of (n,) int64.
    """

    def __init__(
        self,
        form: ModelInput,
        task: Task,
        same_day: bool = True,
        min_history: int = 1,
        masks: bool = False,
        rows: TreeRows | None = None,
    ) -> None:
        """Set the form.

        Args:
            form: in which the model takes histories.
            task: gives the prediction times.
            same_day: whether events of the prediction day belong to the history.
            min_history: histories with fewer codes are left out.
            masks: whether the code MASK stands for the token.
            rows: what the model's codes are sums of; None: codes that it does not know are UNK.
        """
        self.form = form
        self.task = task
        self.same_day = same_day
        self.min_history = min_history
        self.tokenizer = Tokenizer(
            form.max_length,
            min_history,
            form.age_unit,
            form.vocabulary,
            form.static_columns,
            False if rows is None else rows.place,
            masks,
        )
        self.patients = self.selected = self.left = self.histories = self.placed = 0
        self.hashes: list[np.ndarray] = []

    def build(self, patients: PatientColumns) -> tuple[LabeledPatients, np.ndarray]:
        """Return N histories, and the (N,) indices of their patients. Labels are the task's; all are test patients."""
        hashes = hash_patient_ids(patients.patient_ids)
        chosen = self.task.select(patients, hashes)
        histories = patients.take(chosen.rows).up_to(chosen.days - (not self.same_day))
        tokens = self.tokenizer.encode(histories)
        piece = select_piece(histories, tokens, hashes[chosen.rows], np.ones(len(tokens.rows), dtype=bool))
        vocabulary, final = self.tokenizer.extended_vocabulary()
        kinds = ColumnKinds()
        kinds.note(piece)
        columns = join_pieces([settled(piece, final)], kinds, self.form.max_length, self.form.age_unit, len(vocabulary))
        rows = chosen.rows[tokens.rows]
        self.hashes.append(hashes)
        self.patients += len(patients)
        self.selected += len(np.unique(chosen.rows))
        self.left += len(np.unique(rows))
        self.histories += len(rows)
        self.placed += int((columns["codes"] >= len(self.form.vocabulary)).sum())
        found = LabeledPatients(
            dataset=PatientDataset(self._info(vocabulary), columns),
            labels=chosen.labels[tokens.rows],
            index_days=chosen.days[tokens.rows].astype(np.int32),
            splits=np.full(len(rows), TEST, dtype=np.int8),
            timeline=Timeline.unknown(len(rows)),
        )
        return found, rows

    @property
    def attrition(self) -> list[tuple[str, int]]:
        """The way from the patients read to those with a history, as `Cohort.attrition` has it."""
        when = "up to" if self.same_day else "before"
        too_few = f"no code {when} the prediction day" if self.min_history == 1 else "too few codes"
        return [
            ("patients read", self.patients),
            *((f"excluded: {reason}", count) for reason, count in self.task.exclusions.items() if count),
            (f"excluded: {too_few}", self.selected - self.left),
            ("patients left", self.left),
            *self.task.label_attrition(self.histories),
        ]

    def _info(self, vocabulary: CodeVocabulary) -> DatasetInfo:
        return DatasetInfo(
            split="all",
            max_length=self.form.max_length,
            age_unit=self.form.age_unit,
            masking=None,
            vocabulary=vocabulary,
            novel_codes=(),
            input_fingerprint="",
            split_seed=0,
            train_ratio=1.0,
            static_columns=self.form.static_columns,
        )


def descriptions(histories: LabeledPatients) -> Iterator[tuple[str, list[str | None]]]:
    """Yield by name what tells histories apart on a map, N values each: the age, one of `AGES`, and static columns."""
    columns = histories.dataset.arrays
    unknown = np.full(len(histories), NO_DAY, dtype=np.int32)
    ages = ages_on(histories.index_days, columns["birth_years"], columns.get(BIRTH_DATE, unknown), "years")
    years = ages - len(SPECIAL_TOKENS)
    yield AGE, [None if year < 0 else AGES[min(year // _YEARS, len(AGES) - 1)] for year in years.tolist()]
    for column in histories.dataset.info.static_columns:
        yield column.name, [column.value(token) for token in histories.dataset.static_ids(column.name).tolist()]
