"""PatientDataset: encoded patients as columns in one file.

Nothing is padded and nothing is an object: the tokens of all patients stand one after another, so that a file opens
at once whatever its size (the columns are mapped, not read), processes share its pages, and a batch is a few array
look-ups. The file is a plain dict of tensors, strings and numbers; opening it executes nothing.
"""

import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from exmed_bert.console import InputError
from exmed_bert.data.masking import IGNORED, Masking
from exmed_bert.data.patient import EPOCH, Patient, PatientId
from exmed_bert.data.vocabulary import (
    ENTITY_ID,
    SEX_TOKENS,
    SPECIAL_TOKENS,
    STATE_TOKENS,
    UNK,
    AgeUnit,
    CodeVocabulary,
    age_vocabulary_size,
)
from exmed_bert.files import existing_file, write_tensors

FORMAT = "exmed_bert.PatientDataset"
VERSION = 1

# Columns of a file: one value a token, a visit or a patient, or the start of each patient (patients + 1 values).
_TOKEN_COLUMNS = ("codes", "entities", "ages", "positions")
_STATIC_COLUMNS = ("shown_codes", "masked")
_PATIENT_COLUMNS = ("keys", "birth_years", "sexes", "states", "plos")
_START_COLUMNS = ("offsets", "visit_offsets")


@dataclass(frozen=True)
class DatasetInfo:
    """What a dataset says of itself besides its columns.

    Attributes:
        split: ``train``, ``val`` or ``all``.
        max_length: most tokens of a patient.
        age_unit: unit of the ages.
        masking: how codes are masked.
        vocabulary: the codes; both splits share it.
        novel_codes: labels of the codes that the generator invented.
        input_fingerprint: digest of the file of patients.
        split_seed, train_ratio: with a patient's id they decide its split.
    """

    split: str
    max_length: int
    age_unit: AgeUnit
    masking: Masking
    vocabulary: CodeVocabulary
    novel_codes: tuple[str, ...]
    input_fingerprint: str
    split_seed: int
    train_ratio: float

    @property
    def age_vocabulary_size(self) -> int:
        """Number of age ids."""
        return age_vocabulary_size(self.age_unit)


@dataclass(frozen=True)
class PaddedBatch:
    """B patients, padded to the longest of them.

    Attributes:
        codes, entities, ages, positions: (B, L), 0 where padded.
        days: (B, L) of the visits, since 1970-01-01; of no meaning where padded.
        lengths: (B,) tokens of each patient.
        keys, sexes, states, plos: (B,) one value a patient.
        shown_codes, masked: (B, L) the stored masks of a static dataset, else None.
    """

    codes: np.ndarray
    entities: np.ndarray
    ages: np.ndarray
    positions: np.ndarray
    days: np.ndarray
    lengths: np.ndarray
    keys: np.ndarray
    sexes: np.ndarray
    states: np.ndarray
    plos: np.ndarray
    shown_codes: np.ndarray | None
    masked: np.ndarray | None


class PatientDataset(torch.utils.data.Dataset):
    """Encoded patients, one item a patient: ``dataset[0]["input_ids"]``, ``dataset.patient(0).diagnoses``."""

    def __init__(self, info: DatasetInfo, columns: dict[str, torch.Tensor]) -> None:
        """Take columns as `load` reads them; ``columns`` holds tensors by the names that the file uses."""
        self.info = info
        self.columns = columns
        # numpy views of the same memory: indexing small arrays costs a fraction of what it costs in torch.
        self._arrays = {name: column.numpy() for name, column in columns.items()}

    def __len__(self) -> int:
        return len(self.columns["offsets"]) - 1

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Return one patient, unpadded: what the model takes, each (tokens,) int64, and ``plos_label``, a scalar."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"patient {index} of {len(self)}")
        batch = self.__getitems__([index % len(self)])
        length = int(batch.lengths[0])
        fields = {
            "input_ids": batch.codes[0],
            "entity_ids": batch.entities[0],
            "age_ids": batch.ages[0],
            "sex_ids": np.repeat(batch.sexes, length),
            "state_ids": np.repeat(batch.states, length),
            "position_ids": batch.positions[0],
            "attention_mask": np.ones(length),
            "plos_label": np.where(batch.plos[0] < 0, IGNORED, batch.plos[0]),
        }
        return {name: torch.as_tensor(values, dtype=torch.long) for name, values in fields.items()}

    def __getitems__(self, indices: Sequence[int]) -> PaddedBatch:
        """Return patients as one padded batch. torch's loader calls this with the indices of a whole batch."""
        rows = np.asarray(indices, dtype=np.int64)
        starts = self._arrays["offsets"][rows]
        lengths = self._arrays["offsets"][rows + 1] - starts
        place = np.arange(int(lengths.max(initial=0)))
        real = place < lengths[:, None]  # (B, L)
        where = np.where(real, starts[:, None] + place, 0)

        def padded(name: str) -> np.ndarray | None:
            column = self._arrays.get(name)
            return None if column is None else column[where] * real

        tokens = {name: padded(name) for name in (*_TOKEN_COLUMNS, *_STATIC_COLUMNS)}
        visits = self._arrays["visit_offsets"][rows, None] + np.maximum(tokens["positions"], 1) - 1
        return PaddedBatch(
            **tokens,  # type: ignore[arg-type]
            days=self._arrays["visit_days"][np.where(real, visits, 0)],
            **{name: self._arrays[name][rows] for name in ("keys", "sexes", "states", "plos")},
            lengths=lengths,
        )

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each patient, (N,) int64."""
        return np.diff(self._arrays["offsets"])

    @property
    def has_plos(self) -> bool:
        """Whether any patient has a recorded length of stay."""
        return bool((self._arrays["plos"] >= 0).any())

    @cached_property
    def code_counts(self) -> np.ndarray:
        """How often each id of the vocabulary occurs, (V,) int64."""
        return np.bincount(self._arrays["codes"], minlength=len(self.info.vocabulary))

    @cached_property
    def novel_ids(self) -> np.ndarray:
        """Ids of the codes that the generator invented, sorted."""
        ids = self.info.vocabulary.ids
        return np.array(sorted(ids[name] for name in self.info.novel_codes if name in ids), dtype=np.int64)

    def patient_id(self, index: int) -> PatientId:
        """Return the id that patient ``index`` had in the file of patients."""
        if "id_numbers" in self._arrays:
            return int(self._arrays["id_numbers"][index])
        start, end = self._arrays["id_offsets"][index : index + 2]
        return self._arrays["id_bytes"][start:end].tobytes().decode()

    def patient(self, index: int) -> Patient:
        """Return one patient with its codes decoded: the visits that were kept, unknown codes as ``UNK``."""
        start, end = self._arrays["offsets"][index : index + 2]
        days = self._arrays["visit_days"][self._arrays["visit_offsets"][index] :]
        dates = [EPOCH + timedelta(days=int(days[p - 1])) for p in self._arrays["positions"][start:end].tolist()]
        labels = [self.info.vocabulary.code(token) for token in self._arrays["codes"][start:end].tolist()]
        is_drug = (self._arrays["entities"][start:end] == ENTITY_ID["atc"]).tolist()
        events = list(zip(labels, dates, is_drug, strict=True))
        sex, state = int(self._arrays["sexes"][index]), int(self._arrays["states"][index])
        plos = int(self._arrays["plos"][index])
        return Patient(
            patient_id=self.patient_id(index),
            birth_year=int(self._arrays["birth_years"][index]),
            sex=None if sex == UNK else SEX_TOKENS[sex],
            patient_state=None if state == UNK else STATE_TOKENS[state],
            diagnoses=[code for code, _, drug in events if not drug],
            diagnosis_dates=[day for _, day, drug in events if not drug],
            drugs=[code for code, _, drug in events if drug],
            prescription_dates=[day for _, day, drug in events if drug],
            had_plos=None if plos < 0 else bool(plos),
        )

    def subset(self, indices: Sequence[int]) -> "PatientDataset":
        """Return a dataset of the given patients, in that order."""
        rows = np.asarray(indices, dtype=np.int64)

        def gather(name: str, starts: np.ndarray) -> np.ndarray:
            pieces = [self._arrays[name][starts[i] : starts[i + 1]] for i in rows]
            return np.concatenate(pieces) if pieces else self._arrays[name][:0]

        columns: dict[str, np.ndarray] = {}
        for name, column in self._arrays.items():
            if name in (*_TOKEN_COLUMNS, *_STATIC_COLUMNS):
                columns[name] = gather(name, self._arrays["offsets"])
            elif name == "visit_days":
                columns[name] = gather(name, self._arrays["visit_offsets"])
            elif name == "id_bytes":
                columns[name] = gather(name, self._arrays["id_offsets"])
            elif name in (*_START_COLUMNS, "id_offsets"):
                columns[name] = np.concatenate(([0], np.cumsum(np.diff(column)[rows])))
            else:
                columns[name] = column[rows]
        return PatientDataset(self.info, {name: torch.from_numpy(column) for name, column in columns.items()})

    def stats(self) -> dict[str, int | float | str]:
        """Return counts for people: patients, codes, visits, lengths, how many codes are diagnoses, drugs, novel."""
        codes, entities = self._arrays["codes"], self._arrays["entities"]
        lengths = self.lengths
        return {
            "patients": len(self),
            "codes": len(codes),
            "visits": len(self._arrays["visit_days"]),
            "codes a patient (mean)": round(float(lengths.mean()), 1) if len(lengths) else 0.0,
            "codes a patient (max)": int(lengths.max(initial=0)),
            "diagnoses": int((entities == ENTITY_ID["icd"]).sum()),
            "drugs": int((entities == ENTITY_ID["atc"]).sum()),
            "novel codes": int(np.isin(codes, self.novel_ids).sum()),
            "unknown codes": int((codes == UNK).sum()),
            "distinct codes": int((np.unique(codes) >= len(SPECIAL_TOKENS)).sum()),
            "PLOS known": int((self._arrays["plos"] >= 0).sum()),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the content of the file: tensors, strings, numbers, and dicts and lists of these."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "split": self.info.split,
            "max_length": self.info.max_length,
            "age_unit": self.info.age_unit,
            "masking": self.info.masking.to_dict(),
            "vocabulary": self.info.vocabulary.to_json(),
            "novel_codes": json.dumps(list(self.info.novel_codes)),
            "input_fingerprint": self.info.input_fingerprint,
            "split_seed": self.info.split_seed,
            "train_ratio": self.info.train_ratio,
            "columns": self.columns,
        }

    def save(self, path: Path) -> None:
        """Write the dataset, whole or not at all."""
        write_tensors(path, self.to_dict())

    @classmethod
    def load(cls, path: Path | str) -> "PatientDataset":
        """Open a dataset. The columns stay on disk and are paged in as they are used.

        Raises:
            InputError: no file, no dataset of ours, another version, damaged, or a file that would execute code.
        """
        path = existing_file(Path(path), "make it with: python scripts/convert_synthetic_to_dataset.py")
        expected = "expected a dataset made by scripts/convert_synthetic_to_dataset.py"
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except pickle.UnpicklingError:
            raise InputError(
                f"{path}: is refused because it holds Python objects that opening it would run; {expected}"
            ) from None
        except (OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
            raise InputError(f"{path}: is damaged or no dataset ({str(error).splitlines()[0]}); {expected}") from None
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise InputError(f"{path}: is no dataset; {expected}")
        if content.get("version") != VERSION:
            raise InputError(
                f"{path}: has dataset version {content.get('version')!r}, this release reads {VERSION}; convert again"
            )
        try:
            info = DatasetInfo(
                **{name: content[name] for name in ("split", "max_length", "age_unit")},
                **{name: content[name] for name in ("input_fingerprint", "split_seed", "train_ratio")},
                masking=Masking(**content["masking"]),
                vocabulary=CodeVocabulary.from_json(content["vocabulary"]),
                novel_codes=tuple(json.loads(content["novel_codes"])),
            )
            columns = content["columns"]
            _check_columns(columns)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: is damaged: {error}; convert again") from None
        return cls(info, columns)

    def with_masking(self, **changes: Any) -> "PatientDataset":
        """Return the same patients with other masking parameters."""
        return PatientDataset(replace(self.info, masking=replace(self.info.masking, **changes)), self.columns)


def _check_columns(columns: dict[str, torch.Tensor]) -> None:
    """Raise ValueError when the columns do not fit together; reads only their ends, so it is quick."""
    patients = len(columns["offsets"]) - 1
    ends = {"token": int(columns["offsets"][-1]), "visit": int(columns["visit_offsets"][-1])}
    wanted = dict.fromkeys((*_TOKEN_COLUMNS, *(n for n in _STATIC_COLUMNS if n in columns)), ends["token"])
    wanted |= dict.fromkeys(_PATIENT_COLUMNS, patients) | {"visit_offsets": patients + 1}
    wanted |= {"visit_days": ends["visit"]}
    for name, length in wanted.items():
        if len(columns[name]) != length:
            raise ValueError(f"column {name} has {len(columns[name])} values, expected {length}")
    if "id_numbers" not in columns and len(columns["id_offsets"]) != patients + 1:
        raise ValueError("patient ids are missing")
