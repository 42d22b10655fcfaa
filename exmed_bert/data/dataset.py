"""PatientDataset: encoded patients as columns in one file.

Nothing is padded and nothing is an object: the tokens of all patients stand one after another, so that a file opens
at once whatever its size (the columns are mapped, not read), processes share its pages, and a batch is a few array
look-ups. The file is a plain dict of tensors, strings and numbers; opening it executes nothing.
"""

import json
import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch

from exmed_bert.console import InputError
from exmed_bert.data.masking import IGNORED, Masking
from exmed_bert.data.patient import EPOCH, NO_DAY, PERIOD_FIELDS, Event, Patient, PatientId
from exmed_bert.data.splits import FROM_INPUT, SplitRule
from exmed_bert.data.static_columns import BUILT_IN, STATIC, StaticColumn
from exmed_bert.data.vocabulary import DEFAULT_ENTITY, SPECIAL_TOKENS, UNK, AgeUnit, CodeVocabulary, age_vocabulary_size
from exmed_bert.files import existing_file, write_tensors
from exmed_bert.reporting.small_cells import DEFAULT_LIMIT, MinCell
from exmed_bert.startup import called

FORMAT = "exmed_bert.PatientDataset"
VERSION = 2

# Columns of a file: one value per token, visit or patient, or the start of each patient (patients + 1 values).
TOKEN_COLUMNS = ("codes", "entities", "ages", "visit_ids")
MASK_COLUMNS = ("shown_codes", "masked")  # of a dataset with static masks
PATIENT_COLUMNS = ("patient_hashes", "birth_years", "plos")
START_COLUMNS = ("offsets", "visit_offsets")


@dataclass(frozen=True)
class DatasetInfo:
    """What a dataset says of itself besides its columns.

    Attributes:
        split: ``train``, ``val`` or ``all``.
        max_length: most tokens per patient.
        age_unit: unit of the ages.
        masking: how codes are masked in pretraining; None for a dataset that is not for it.
        vocabulary: the codes; both splits share it.
        static_columns: sex, state and others that were declared.
        novel_codes: tokens of the codes that the generator made.
        input_fingerprint: digest of the file of patients.
        split_seed, train_ratio: with a patient's id they decide its split, unless ``split_from`` says otherwise.
        min_cell: counts of patients below it are hidden in reports; None for patients that our generator made.
    """

    split: str
    max_length: int
    age_unit: AgeUnit
    masking: Masking | None
    vocabulary: CodeVocabulary
    novel_codes: tuple[str, ...]
    input_fingerprint: str
    split_seed: int
    train_ratio: float
    static_columns: tuple[StaticColumn, ...] = BUILT_IN
    split_from: Literal["hash", "input"] = "hash"
    min_cell: int | None = None

    @property
    def split_rule(self) -> SplitRule:
        """Which patients are in the training split."""
        return FROM_INPUT if self.split_from == "input" else SplitRule(self.split_seed, self.train_ratio)

    def cells(self, min_cell: int | None = None) -> MinCell:
        """Return which counts of these patients reports hide; ``min_cell`` is what the user asks for.

        A file that does not say it is one of generated patients or of an earlier release: the novel codes tell.
        """
        limits = (min_cell, self.min_cell, 0 if self.novel_codes else DEFAULT_LIMIT)
        return MinCell(next(limit for limit in limits if limit is not None))

    @property
    def needed_masking(self) -> Masking:
        """How codes are masked; a ValueError where the dataset is not for masked-code prediction."""
        if self.masking is None:
            raise ValueError("this dataset is not for masked-code prediction")
        return self.masking

    def to_dict(self) -> dict[str, Any]:
        """Return what a file or a manifest holds, as strings, numbers and dicts of these."""
        return {
            "split": self.split,
            "max_length": self.max_length,
            "age_unit": self.age_unit,
            "masking": None if self.masking is None else self.masking.to_dict(),
            "vocabulary": self.vocabulary.to_json(),
            "static_columns": json.dumps([column.to_dict() for column in self.static_columns]),
            "novel_codes": json.dumps(list(self.novel_codes)),
            "input_fingerprint": self.input_fingerprint,
            "split_seed": self.split_seed,
            "train_ratio": self.train_ratio,
            **({} if self.split_from == "hash" else {"split_from": self.split_from}),
            **({} if self.min_cell is None else {"min_cell": self.min_cell}),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "DatasetInfo":
        """Return what `to_dict` wrote.

        Raises:
            KeyError, TypeError, ValueError: something is missing, or is no such thing.
        """
        info = cls(
            **{name: content[name] for name in ("split", "max_length", "age_unit")},
            **{name: content[name] for name in ("input_fingerprint", "split_seed", "train_ratio")},
            masking=None if content["masking"] is None else Masking(**content["masking"]),
            vocabulary=CodeVocabulary.from_json(content["vocabulary"]),
            static_columns=tuple(map(StaticColumn.from_dict, json.loads(content["static_columns"]))),
            novel_codes=tuple(json.loads(content["novel_codes"])),
            split_from=content.get("split_from", "hash"),
            min_cell=content.get("min_cell"),
        )
        info.vocabulary.entity_systems  # noqa: B018  # refuses a code system that nobody has registered
        return info

    @property
    def age_vocabulary_size(self) -> int:
        """Number of age ids."""
        return age_vocabulary_size(self.age_unit)


@dataclass(frozen=True)
class PaddedBatch:
    """B patients, padded to the longest of them.

    Attributes:
        codes, entities, ages, visit_ids: (B, L), 0 where padded.
        days: (B, L) of the visits, since 1970-01-01; of no meaning where padded.
        lengths: (B,) tokens of each patient.
        patient_hashes, plos: (B,) one value per patient.
        static: by name of a static column (B,) ids.
        shown_codes, masked: (B, L) the stored masks of a static dataset, else None.
    """

    codes: np.ndarray
    entities: np.ndarray
    ages: np.ndarray
    visit_ids: np.ndarray
    days: np.ndarray
    lengths: np.ndarray
    patient_hashes: np.ndarray
    static: dict[str, np.ndarray]
    plos: np.ndarray
    shown_codes: np.ndarray | None = None
    masked: np.ndarray | None = None


class PatientDataset(torch.utils.data.Dataset):
    """Tokenized patients, one item per patient: ``dataset[0]["input_ids"]``, ``dataset.patient(0).events``.

    ``torch.utils.data.DataLoader(dataset, batch_size=4)`` gives padded batches that the models take.
    """

    def __init__(self, info: DatasetInfo, columns: dict[str, torch.Tensor]) -> None:
        """Take columns as `load` reads them; ``columns`` holds tensors by the names that the file uses.

        ``arrays`` are the same as numpy arrays.
        """
        self.info = info
        self.columns = columns
        # numpy views of the same memory: indexing small arrays costs a fraction of what it costs in torch.
        self.arrays = {name: column.numpy() for name, column in columns.items()}

    def __len__(self) -> int:
        return len(self.columns["offsets"]) - 1

    def __repr__(self) -> str:
        return (
            f"PatientDataset({len(self):,} patients, {len(self.columns['codes']):,} tokens, split={self.info.split!r}, "
            f"max_length={self.info.max_length}, vocabulary={len(self.info.vocabulary):,})"
        )

    @overload
    def __getitem__(self, index: int) -> dict[str, torch.Tensor]: ...
    @overload
    def __getitem__(self, index: slice) -> "PatientDataset": ...
    def __getitem__(self, index: int | slice) -> "dict[str, torch.Tensor] | PatientDataset":
        """Return one patient, unpadded: what the model takes, each (tokens,) int64, and ``plos_label``, a scalar.

        A slice gives a dataset of these patients.
        """
        if isinstance(index, slice):
            return self.subset(range(*index.indices(len(self))))
        if not -len(self) <= index < len(self):
            raise IndexError(f"patient {index} of {len(self)}")
        return self.__getitems__([index % len(self)])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, torch.Tensor]]:
        """Return patients padded to the longest of them; torch's loader asks for a batch by this name."""
        batch = self.batch(indices)
        real = np.arange(batch.codes.shape[1]) < batch.lengths[:, None]
        fields = {
            "input_ids": batch.codes,
            "entity_ids": batch.entities,
            "age_ids": batch.ages,
            **{f"{name}_ids": ids[:, None] * real for name, ids in batch.static.items()},
            "visit_ids": batch.visit_ids,
            "attention_mask": real,
            "plos_label": np.where(batch.plos < 0, IGNORED, batch.plos),
        }
        tensors = {name: torch.from_numpy(np.asarray(values, dtype=np.int64)) for name, values in fields.items()}
        return [{name: values[row] for name, values in tensors.items()} for row in range(len(indices))]

    def batch(self, rows: Sequence[int] | np.ndarray) -> PaddedBatch:
        """Return patients as one padded batch of columns."""
        rows = np.asarray(rows, dtype=np.int64)
        starts = self.arrays["offsets"][rows]
        lengths = self.arrays["offsets"][rows + 1] - starts
        place = np.arange(int(lengths.max(initial=0)))
        real = place < lengths[:, None]  # (B, L)
        where = np.where(real, starts[:, None] + place, 0)

        names = (name for name in (*TOKEN_COLUMNS, *MASK_COLUMNS) if name in self.arrays)
        tokens = {name: self.arrays[name][where] * real for name in names}
        visits = self.arrays["visit_offsets"][rows, None] + np.maximum(tokens["visit_ids"], 1) - 1
        return PaddedBatch(
            **tokens,
            days=self.arrays["visit_days"][np.where(real, visits, 0)],
            patient_hashes=self.arrays["patient_hashes"][rows],
            static={column.name: self.static_ids(column.name)[rows] for column in self.info.static_columns},
            plos=self.arrays["plos"][rows],
            lengths=lengths,
        )

    def static_ids(self, name: str) -> np.ndarray:
        """Return the ids of a static column, (N,)."""
        return self.arrays[f"{STATIC}{name}"]

    def parts(self) -> Iterator["PatientDataset"]:
        """Yield the patients in order, in parts that may be looked at as a whole: here all of them."""
        yield self

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each patient, (N,) integers."""
        return np.diff(self.arrays["offsets"])

    @property
    def has_plos(self) -> bool:
        """Whether any patient has a recorded length of stay."""
        return bool((self.arrays["plos"] >= 0).any())

    @cached_property
    def code_counts(self) -> np.ndarray:
        """How often each id of the vocabulary occurs, (V,) int64."""
        return np.bincount(self.arrays["codes"], minlength=len(self.info.vocabulary))

    @cached_property
    def novel_ids(self) -> np.ndarray:
        """Ids of the novel codes that the generator made, sorted."""
        ids = self.info.vocabulary.ids
        return np.array(sorted(ids[name] for name in self.info.novel_codes if name in ids), dtype=np.int64)

    def patient_id(self, index: int) -> PatientId:
        """Return the id that patient ``index`` had in the file of patients."""
        if "id_numbers" in self.arrays:
            return int(self.arrays["id_numbers"][index])
        start, end = self.arrays["id_offsets"][index : index + 2]
        return self.arrays["id_bytes"][start:end].tobytes().decode()

    def patient(self, index: int) -> Patient:
        """Return one patient with its codes decoded: the visits that were kept, unknown codes as ``UNK``."""
        vocabulary = self.info.vocabulary
        start, end = self.arrays["offsets"][index : index + 2]
        days = self.arrays["visit_days"][self.arrays["visit_offsets"][index] :]
        dates = [EPOCH + timedelta(days=int(days[visit - 1])) for visit in self.arrays["visit_ids"][start:end].tolist()]
        codes = [vocabulary.code(token) for token in self.arrays["codes"][start:end].tolist()]
        systems = [vocabulary.entity_systems[entity] for entity in self.arrays["entities"][start:end].tolist()]
        plos = int(self.arrays["plos"][index])
        periods = {name: int(self.arrays[name][index]) for name in PERIOD_FIELDS if name in self.arrays}
        return Patient(
            patient_id=self.patient_id(index),
            birth_year=int(self.arrays["birth_years"][index]),
            static={
                column.name: column.value(int(self.static_ids(column.name)[index]))
                for column in self.info.static_columns
            },
            events=[
                Event(system.name if system else DEFAULT_ENTITY, code, day)
                for system, code, day in zip(systems, codes, dates, strict=True)
            ],
            had_plos=None if plos < 0 else bool(plos),
            **{name: EPOCH + timedelta(days=day) for name, day in periods.items() if day != NO_DAY},
        )

    def subset(self, indices: Sequence[int] | np.ndarray) -> "PatientDataset":
        """Return a dataset of the given patients, in that order."""
        rows = np.asarray(indices, dtype=np.int64)

        def gather(name: str, starts: np.ndarray) -> np.ndarray:
            pieces = [self.arrays[name][starts[i] : starts[i + 1]] for i in rows]
            return np.concatenate(pieces) if pieces else self.arrays[name][:0]

        columns: dict[str, np.ndarray] = {}
        for name, column in self.arrays.items():
            if name in (*TOKEN_COLUMNS, *MASK_COLUMNS):
                columns[name] = gather(name, self.arrays["offsets"])
            elif name == "visit_days":
                columns[name] = gather(name, self.arrays["visit_offsets"])
            elif name == "id_bytes":
                columns[name] = gather(name, self.arrays["id_offsets"])
            elif name in (*START_COLUMNS, "id_offsets"):
                columns[name] = np.concatenate(([0], np.cumsum(np.diff(column)[rows])))
            else:
                columns[name] = column[rows]
        return PatientDataset(self.info, {name: torch.from_numpy(column) for name, column in columns.items()})

    def stats(self) -> dict[str, int | float | str]:
        """Return counts for people: patients, codes, visits, lengths, what the codes are, how many are novel."""
        codes, entities = self.arrays["codes"], self.arrays["entities"]
        by_events = self.info.vocabulary.entities_by_events
        lengths = self.lengths
        return {
            "patients": len(self),
            "codes": len(codes),
            "visits": len(self.arrays["visit_days"]),
            "codes per patient (mean)": round(float(lengths.mean()), 1) if len(lengths) else 0.0,
            "codes per patient (max)": int(lengths.max(initial=0)),
            **{events: int(np.isin(entities, of_events).sum()) for events, of_events in by_events.items()},
            "novel codes": int(np.isin(codes, self.novel_ids).sum()),
            "unknown codes": int((codes == UNK).sum()),
            "distinct codes": int((np.unique(codes) >= len(SPECIAL_TOKENS)).sum()),
            "PLOS known": int((self.arrays["plos"] >= 0).sum()),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the content of the file: tensors, strings, numbers, and dicts and lists of these."""
        return {
            "format": FORMAT,
            "version": VERSION,
            **self.info.to_dict(),
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
        path = existing_file(Path(path), f"make it with: {called('convert')}")
        expected = f"expected a dataset made by {called('convert')}"
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
            info = DatasetInfo.from_dict(content)
            columns = content["columns"]
            check_columns(columns, info)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: is damaged: {error}; convert again") from None
        return cls(info, columns)

    def with_masking(self, **changes: Any) -> "PatientDataset":
        """Return the same patients with other masking parameters.

        Raises:
            ValueError: the dataset has none to change.
        """
        return self.with_info(replace(self.info, masking=replace(self.info.needed_masking, **changes)))

    def with_info(self, info: DatasetInfo) -> "PatientDataset":
        """Return the same patients with another description."""
        return PatientDataset(info, self.columns)


def check_columns(columns: Mapping[str, torch.Tensor], info: DatasetInfo) -> None:
    """Raise ValueError when the columns do not fit together; reads only their ends, so it is quick."""
    patients = len(columns["offsets"]) - 1
    ends = {"token": int(columns["offsets"][-1]), "visit": int(columns["visit_offsets"][-1])}
    wanted = dict.fromkeys((*TOKEN_COLUMNS, *(n for n in MASK_COLUMNS if n in columns)), ends["token"])
    wanted |= dict.fromkeys(PATIENT_COLUMNS, patients) | {"visit_offsets": patients + 1}
    wanted |= {f"{STATIC}{column.name}": patients for column in info.static_columns}
    wanted |= {name: patients for name in PERIOD_FIELDS if name in columns}
    wanted |= {"visit_days": ends["visit"]}
    for name, length in wanted.items():
        if len(columns[name]) != length:
            raise ValueError(f"column {name} has {len(columns[name])} values, expected {length}")
    if "id_numbers" not in columns and len(columns["id_offsets"]) != patients + 1:
        raise ValueError("patient ids are missing")
