"""The tokenizer of a model: patients to what the network takes, and back."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch

from exmed_bert.cohorts.collator import LabeledRows, PromptCollator
from exmed_bert.cohorts.labeled import LabeledPatients
from exmed_bert.cohorts.model_input import ModelInput
from exmed_bert.cohorts.tasks.own_labels import OwnLabels
from exmed_bert.console import InputError
from exmed_bert.embedding.histories import HistoryBuilder
from exmed_bert.interface.given import Patients, as_input
from exmed_bert.models.code_tree import TreeRows
from exmed_bert.models.folder import read_form


class PatientTokenizer:
    """Turns patients into what a model takes.

    A model's folder holds all that it needs: the vocabulary, the unit of ages, the length of histories and the static
    columns.

    Attributes:
        form: in which the model takes histories.
    """

    def __init__(self, form: ModelInput) -> None:
        """Take the form."""
        self.form = form

    def __repr__(self) -> str:
        form = self.form
        return (
            f"PatientTokenizer({len(form.vocabulary):,} codes, at most {form.max_length} per patient, "
            f"ages in {form.age_unit})"
        )

    def __len__(self) -> int:
        return len(self.form.vocabulary)

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> Self:
        """Read the tokenizer of a model's folder.

        Raises:
            InputError: a file is missing or damaged.
        """
        return cls(read_form(Path(folder)))

    def encode(self, patients: Patients) -> dict[str, torch.Tensor]:
        """Return what the network takes of patients: `input_ids`, `entity_ids` and so on, padded, a row per patient.

        A code ``MASK`` is the token MASK. All of the patients have a code that can be read.

        Args:
            patients: as `given.as_input` takes them.

        Raises:
            InputError: as `given.as_input`, or a patient has no event.
        """
        histories = self.histories(patients)
        collate = PromptCollator([], self.form.max_length)
        batch = collate(LabeledRows(histories, np.arange(len(histories))).batch(range(len(histories))))
        del batch["labels"]
        return batch

    def histories(self, patients: Patients, tree_rows: TreeRows | None = None) -> LabeledPatients:
        """Return the tokenized histories of patients, all in memory.

        Args:
            patients: as `given.as_input` takes them.
            tree_rows: what the model's codes are sums of, to give codes that it does not know but can place ids after
                the vocabulary's; None: they are UNK.

        Raises:
            InputError: as `encode`.
        """
        builder = HistoryBuilder(self.form, OwnLabels(None), masks=True, rows=tree_rows)
        chunks = list(as_input(patients, self.form.static_columns).quiet_chunks(2**30))
        if len(chunks) != 1:
            raise InputError("patients: there is none, or no event of any that can be read")
        histories, rows = builder.build(chunks[0])
        if len(rows) < len(chunks[0]):
            without = sorted(set(range(len(chunks[0]))) - set(rows.tolist()))[0]
            raise InputError(f"patients: patient_id {chunks[0].patient_ids[without]!r}: has no event")
        return histories

    def decode(self, ids: Sequence[int] | np.ndarray | torch.Tensor) -> list[str]:
        """Return the code behind each id, without padding."""
        return [self.form.vocabulary.code(int(token)) for token in np.asarray(ids).ravel() if token]
