"""PatientDataset: encoded patients as columns in one file.

Nothing is padded and nothing is an object: the tokens of all patients stand one after another, so that a file opens
at once whatever its size (the columns are mapped, not read), processes share its pages, and a batch is a few array
look-ups. The file is a plain dict of tensors, strings and numbers; opening it executes nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch

from exmed_bert.console import InputError
from exmed_bert.data.dataset_columns import MASK_COLUMNS, START_COLUMNS, TOKEN_COLUMNS, check_columns
from exmed_bert.data.dataset_info import FORMAT, VERSION, DatasetInfo, is_format, is_version
from exmed_bert.data.masking import IGNORED
from exmed_bert.data.patient import DAY_FIELDS, EPOCH, NO_DAY, Event, Patient, PatientId
from exmed_bert.data.static_columns import STATIC
from exmed_bert.data.tensor_file import open_tensors
from exmed_bert.data.vocabulary import DEFAULT_ENTITY, SPECIAL_TOKENS, UNK
from exmed_bert.files import existing_file
from exmed_bert.staging import write_tensors
from exmed_bert.startup import called

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class PaddedBatch:
    """B patients, padded to the longest of them.

    Attributes:
        codes, entities, ages, visit_ids: (B, L), 0 where padded.
        days: (B, L) of the visits, since 1970-01-01; of no meaning where padded.
        lengths: (B,) tokens of each patient.
        patient_hashes, plos, birth_years: (B,) one value per patient.
        static: by name of a static column (B,) ids.
        periods: by name of one of `DAY_FIELDS`, (B,) days since 1970-01-01, `NO_DAY` where it is not known; fields
            that are known of nobody may be missing.
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
    birth_years: np.ndarray
    periods: dict[str, np.ndarray]
    shown_codes: np.ndarray | None = None
    masked: np.ndarray | None = None

    def days_since_first(self, days: np.ndarray | None = None) -> np.ndarray:
        """Return the days from each patient's first visit to a day, 0 where there is no visit: no date is left in them.

        Args:
            days: (B,) since 1970-01-01, for (B,); None: those of all visits, for (B, L), 0 where padded.
        """
        visits = self.days.astype(np.int64)
        first = visits[:, 0] if visits.shape[1] else np.zeros(len(visits), dtype=np.int64)
        if days is not None:
            return np.where(self.lengths > 0, days - first, 0)
        real = np.arange(self.days.shape[1]) < self.lengths[:, None]
        return np.where(real, visits - first[:, None], 0)


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
            "visit_days": batch.days_since_first(),
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
            birth_years=self.arrays["birth_years"][rows],
            periods={name: self.arrays[name][rows] for name in DAY_FIELDS if name in self.arrays},
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
        periods = {name: int(self.arrays[name][index]) for name in DAY_FIELDS if name in self.arrays}
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

    def to_pandas(self) -> "pandas.DataFrame":
        """Return the codes that were kept as a table of events, a row for each, in the order of the tokens.

        Its columns are ``patient_id, date, system, code, birth_year`` and the fields of the static columns; unknown
        codes are ``UNK``.
        """
        import pandas

        vocabulary, arrays = self.info.vocabulary, self.arrays
        owner = np.repeat(np.arange(len(self)), np.diff(arrays["offsets"]))
        visits = arrays["visit_offsets"][owner] + arrays["visit_ids"] - 1
        systems = [DEFAULT_ENTITY if system is None else system.name for system in vocabulary.entity_systems]
        codes = np.array([vocabulary.code(token) for token in range(len(vocabulary))], dtype=object)
        ids = pandas.Index([self.patient_id(row) for row in range(len(self))])
        table = {
            "patient_id": ids[owner],
            "date": arrays["visit_days"][visits].astype("datetime64[D]").astype("datetime64[s]"),
            "system": np.array(systems, dtype=object)[arrays["entities"]],
            "code": codes[arrays["codes"]],
            "birth_year": arrays["birth_years"][owner].astype(np.int64),
        }
        for column in self.info.static_columns:
            values = np.array([column.value(token) for token in range(len(column.tokens))], dtype=object)
            table[column.field] = values[self.static_ids(column.name)[owner]]
        return pandas.DataFrame(table)

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
        content = open_tensors(path, expected)
        if not isinstance(content, dict) or not is_format(content.get("format")):
            raise InputError(f"{path}: is no dataset; {expected}")
        if not is_version(content.get("version")):
            raise InputError(
                f"{path}: has dataset version {content.get('version')!r}, this release reads {VERSION}; convert again"
            )
        try:
            info = DatasetInfo.from_dict(content)
            columns = content["columns"]
            check_columns(columns, info)
        except KeyError as error:
            raise InputError(f"{path}: is damaged: it holds no {error}; convert again") from None
        except (AttributeError, RecursionError, TypeError, ValueError) as error:
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
