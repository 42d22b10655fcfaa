"""A dataset as a folder: a manifest, and shards of patients that are mapped when one of them is asked for.

What is needed of all patients at once stands beside the shards: their lengths, in two bytes each, and how often each
code occurs. So opening takes the same time for any number of patients.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from exmed_bert.console import InputError
from exmed_bert.data.dataset import PaddedBatch, PatientDataset
from exmed_bert.data.dataset_columns import (
    MASK_COLUMNS,
    START_COLUMNS,
    TOKEN_COLUMNS,
    check_columns,
    check_values,
)
from exmed_bert.data.dataset_info import FORMAT, VERSION, DatasetInfo, is_format, is_version
from exmed_bert.data.formats import MANIFEST
from exmed_bert.data.patient import DAY_FIELDS, NO_DAY, Patient, PatientId
from exmed_bert.data.static_columns import STATIC
from exmed_bert.data.tensor_file import check_checksums, open_tensors
from exmed_bert.data.vocabulary import SPECIAL_TOKENS
from exmed_bert.files import existing_file, read_json
from exmed_bert.staging import save_tensors
from exmed_bert.startup import called
from exmed_bert.swap import settle

LENGTHS = "lengths.npy"
CODE_COUNTS = "code_counts.npy"
_MOST = 2**40  # patients, tokens or visits of a shard


@dataclass(frozen=True)
class Shard:
    """What the manifest says of a shard: its file, how much it holds, and the digest of its bytes."""

    file: str
    patients: int
    tokens: int
    visits: int
    plos_known: int
    digest: str

    @classmethod
    def from_dict(cls, content: Any) -> "Shard":
        """Return an entry of a manifest.

        Raises:
            TypeError, ValueError: something is missing, or is no such thing.
        """
        shard = cls(**content)
        counts = (shard.patients, shard.tokens, shard.visits, shard.plos_known)
        if type(shard.file) is not str or Path(shard.file).name != shard.file:
            raise ValueError(f"shard {shard.file!r} lies outside the folder")
        if any(type(count) is not int or not 0 <= count <= _MOST for count in counts):
            raise ValueError(f"shard {shard.file}: holds {counts}, expected counts")
        return shard


def write_shard(path: Path, columns: Mapping[str, torch.Tensor]) -> None:
    """Write the columns of some patients, as `dataset.PatientDataset` holds them, to a file of its own."""
    save_tensors(path, {"format": FORMAT, "version": VERSION, "columns": dict(columns)})


class ShardedDataset(PatientDataset):
    """Tokenized patients in shards; see `PatientDataset`, which it stands for everywhere."""

    def __init__(self, info: DatasetInfo, folder: Path, shards: Sequence[Shard]) -> None:
        """Take what a manifest says; `open_folder` reads it."""
        self.info = info
        self.folder = folder
        self.shards = list(shards)
        self.columns = _JoinedColumns(self)  # type: ignore[assignment]
        self.arrays = _JoinedArrays(self)  # type: ignore[assignment]
        self._firsts = np.cumsum([0, *(shard.patients for shard in self.shards)])
        self._opened: dict[int, PatientDataset] = {}

    def __len__(self) -> int:
        return int(self._firsts[-1])

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each patient, (N,) uint16, mapped."""
        return self._beside(LENGTHS, len(self), np.uint16)

    @property
    def has_plos(self) -> bool:
        """Whether any patient has a recorded length of stay."""
        return any(shard.plos_known for shard in self.shards)

    @cached_property
    def code_counts(self) -> np.ndarray:
        """How often each id of the vocabulary occurs, (V,) int64."""
        return self._beside(CODE_COUNTS, len(self.info.vocabulary), np.int64)

    def parts(self) -> Iterator[PatientDataset]:
        """Yield the shards, each as a dataset of its own, in order."""
        for number in range(len(self.shards)):
            yield self._part(number)

    def batch(self, rows: Sequence[int] | np.ndarray) -> PaddedBatch:
        """Return patients as one padded batch of columns."""
        rows = np.asarray(rows, dtype=np.int64)
        of_shard, local = self._locate(rows)
        order = np.argsort(of_shard, kind="stable")
        groups = np.split(order, np.flatnonzero(np.diff(of_shard[order])) + 1)
        if len(groups) == 1:
            return self._part(int(of_shard[0]) if len(rows) else 0).batch(local)
        return _gather([(places, self._part(int(of_shard[places[0]])), local[places]) for places in groups], len(rows))

    def static_ids(self, name: str) -> np.ndarray:
        """Return the ids of a static column, (N,)."""
        return np.concatenate([part.static_ids(name) for part in self.parts()])

    def patient_id(self, index: int) -> PatientId:
        """Return the id that patient ``index`` had in the file of patients."""
        of_shard, local = self._locate(np.array([index]))
        return self._part(int(of_shard[0])).patient_id(int(local[0]))

    def patient(self, index: int) -> Patient:
        """Return one patient with its codes decoded; see `PatientDataset.patient`."""
        of_shard, local = self._locate(np.array([index]))
        return self._part(int(of_shard[0])).patient(int(local[0]))

    def subset(self, indices: Sequence[int] | np.ndarray) -> PatientDataset:
        """Return a dataset of the given patients, in that order, in memory."""
        rows = np.asarray(indices, dtype=np.int64)
        of_shard, local = self._locate(rows)
        parts = [self._part(int(number)).subset(local[of_shard == number]) for number in np.unique(of_shard)]
        if not parts:
            return self._part(0).subset([])
        by_shard = np.argsort(of_shard, kind="stable")  # where the joined parts have each row
        return join_datasets(parts).subset(np.argsort(by_shard, kind="stable"))

    def stats(self) -> dict[str, int | float | str]:
        """Return counts for people; see `PatientDataset.stats`."""
        parts = [part.stats() for part in self.parts()]
        total: dict[str, Any] = {name: sum(part[name] for part in parts) for name in parts[0]}
        tokens = total["codes"]
        total["codes per patient (mean)"] = round(tokens / len(self), 1) if len(self) else 0.0
        total["codes per patient (max)"] = max(int(part["codes per patient (max)"]) for part in parts)
        total["distinct codes"] = int((self.code_counts[len(SPECIAL_TOKENS) :] > 0).sum())
        return total

    def to_dict(self) -> dict[str, Any]:
        """Return the content of one file with all patients."""
        return PatientDataset(self.info, dict(self.columns)).to_dict()

    def with_info(self, info: DatasetInfo) -> "ShardedDataset":
        """Return the same patients with another description."""
        return ShardedDataset(info, self.folder, self.shards)

    def files(self) -> Iterator[tuple[Path, PatientDataset]]:
        """Yield the path of each shard, and the shard as a dataset of its own."""
        for number, shard in enumerate(self.shards):
            yield self.folder / shard.file, self._part(number)

    def _beside(self, name: str, length: int, kind: type) -> np.ndarray:
        """Return an array that stands beside the shards, mapped."""
        path = self.folder / name
        try:
            array = np.load(existing_file(path), mmap_mode="r", allow_pickle=False)
        except (InputError, MemoryError):
            raise
        except Exception as error:  # whatever numpy makes of a header that is damaged
            raise InputError(f"{path}: is damaged: {error}; convert again") from None
        if array.shape != (length,) or array.dtype != kind:
            raise InputError(
                f"{path}: is damaged: it holds {array.dtype} of shape {list(array.shape)}, expected {length:,} "
                f"values of {np.dtype(kind)}; convert again"
            )
        return array

    def _locate(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the shard of each row, and the row within it."""
        of_shard = np.searchsorted(self._firsts, rows, side="right") - 1
        return of_shard, rows - self._firsts[of_shard]

    def _part(self, number: int) -> PatientDataset:
        if number not in self._opened:
            shard = self.shards[number]
            path = self.folder / shard.file
            columns = read_shard(path)
            try:
                check_columns(columns, self.info)
                held = (len(columns["offsets"]) - 1, len(columns["codes"]), len(columns["visit_days"]))
                if held != (shard.patients, shard.tokens, shard.visits):
                    raise ValueError(f"holds {held[0]:,} patients, the manifest says {shard.patients:,}")
            except (TypeError, ValueError) as error:
                raise InputError(f"{path}: is damaged: {error}; convert again") from None
            self._opened[number] = PatientDataset(self.info, columns)
        return self._opened[number]


class _JoinedColumns(Mapping[str, torch.Tensor]):
    """The columns of all shards by name, each joined when it is asked for; those of tokens take their memory."""

    def __init__(self, dataset: ShardedDataset) -> None:
        self._dataset = dataset
        self._joined: dict[str, torch.Tensor] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self._names:
            raise KeyError(name)
        if name in self._joined:
            return self._joined[name]
        joined = join_columns([part.columns[name] for part in self._dataset.parts()], name)
        if name not in (*TOKEN_COLUMNS, *MASK_COLUMNS):
            self._joined[name] = joined
        return joined

    @cached_property
    def _names(self) -> list[str]:
        return list(next(self._dataset.parts()).columns)  # all shards have the same


class _JoinedArrays(Mapping[str, np.ndarray]):
    """The same as arrays of numpy."""

    def __init__(self, dataset: ShardedDataset) -> None:
        self._dataset = dataset

    def __iter__(self) -> Iterator[str]:
        return iter(self._dataset.columns)

    def __len__(self) -> int:
        return len(self._dataset.columns)

    def __getitem__(self, name: str) -> np.ndarray:
        return self._dataset.columns[name].numpy()


def join_columns(parts: Sequence[torch.Tensor], name: str) -> torch.Tensor:
    """Return a column of several datasets one after another; starts go on where those before end."""
    if name not in (*START_COLUMNS, "id_offsets"):
        return torch.cat(list(parts))
    ends = np.cumsum([0, *(int(part[-1]) for part in parts)])
    return torch.cat([parts[0][:1], *(part[1:] + int(end) for part, end in zip(parts, ends, strict=False))])


def join_datasets(parts: Sequence[PatientDataset]) -> PatientDataset:
    """Return the patients of several datasets of the same description and columns, in memory."""
    names = parts[0].columns
    return PatientDataset(parts[0].info, {n: join_columns([part.columns[n] for part in parts], n) for n in names})


def _gather(groups: Sequence[tuple[np.ndarray, PatientDataset, np.ndarray]], size: int) -> PaddedBatch:
    """Return a padded batch from several shards: for each its rows of the batch, the shard, and the rows within it.

    Few operations per shard: a batch of a large dataset has hardly two patients of the same one.
    """
    arrays = [part.arrays for _, part, _ in groups]
    first = arrays[0]
    starts = [columns["offsets"][local] for columns, (_, _, local) in zip(arrays, groups, strict=True)]
    counts = [c["offsets"][local + 1] - s for c, s, (_, _, local) in zip(arrays, starts, groups, strict=True)]
    length = max(int(count.max()) for count in counts)
    names = [name for name in (*TOKEN_COLUMNS, *MASK_COLUMNS) if name in first]
    tokens = {name: np.zeros(size * length, dtype=first[name].dtype) for name in names}
    days = np.zeros(size * length, dtype=np.int32)
    each = {name: np.empty(size, dtype=first[name].dtype) for name in ("patient_hashes", "plos", "birth_years")}
    each |= {name: np.empty(size, dtype=first[name].dtype) for name in first if name.startswith(STATIC)}
    periods = {name: np.full(size, NO_DAY, dtype=np.int32) for name in DAY_FIELDS if any(name in a for a in arrays)}
    lengths = np.empty(size, dtype=np.int64)
    for columns, start, count, (rows, _, local) in zip(arrays, starts, counts, groups, strict=True):
        before = np.cumsum(count) - count
        place = np.arange(int(count.sum())) - np.repeat(before, count)
        source, target = np.repeat(start, count) + place, np.repeat(rows * length, count) + place
        for name, values in tokens.items():
            values[target] = columns[name][source]
        visits = np.repeat(columns["visit_offsets"][local], count) + columns["visit_ids"][source] - 1
        days[target] = columns["visit_days"][visits]
        for name, values in each.items():
            values[rows] = columns[name][local]
        for name, values in periods.items():
            if name in columns:
                values[rows] = columns[name][local]
        lengths[rows] = count
    return PaddedBatch(
        **{name: values.reshape(size, length) for name, values in tokens.items()},
        days=days.reshape(size, length),
        lengths=lengths,
        patient_hashes=each["patient_hashes"],
        static={name.removeprefix(STATIC): values for name, values in each.items() if name.startswith(STATIC)},
        plos=each["plos"],
        birth_years=each["birth_years"],
        periods=periods,
    )


def read_shard(path: Path) -> dict[str, torch.Tensor]:
    """Return the columns of a shard, mapped.

    Raises:
        InputError: it is missing, damaged, of another version, or would execute code.
    """
    content = open_tensors(path, "convert again")
    ours = isinstance(content, dict) and is_format(content.get("format")) and is_version(content.get("version"))
    if not ours or type(content.get("columns")) is not dict:
        raise InputError(f"{path}: is no shard of this release; convert again")
    return content["columns"]


@dataclass(frozen=True)
class MadeShard:
    """A shard that was written, and what the dataset has to know of its patients.

    Attributes:
        shard: its entry in the manifest.
        lengths: (patients,) uint16, tokens of each.
        code_counts: (V,) int64, how often each code occurs.
        seconds: how long it took.
        worker: the process that did it.
    """

    shard: Shard
    lengths: np.ndarray
    code_counts: np.ndarray
    seconds: float = 0.0
    worker: str = ""


def fill_folder(folder: Path, info: DatasetInfo, shards: Path, made: Sequence[MadeShard]) -> None:
    """Move shards into the folder of a dataset, and write what belongs to them.

    Args:
        folder: of the dataset.
        info: of the dataset.
        shards: the folder where they are now, on the same disk.
        made: what was made, in order.
    """
    for one in made:
        os.replace(shards / one.shard.file, folder / one.shard.file)
    np.save(folder / LENGTHS, np.concatenate([one.lengths for one in made]))
    np.save(folder / CODE_COUNTS, np.sum([one.code_counts for one in made], axis=0))
    content = {"format": FORMAT, "version": VERSION, "layout": "shards", **info.to_dict()}
    content["shards"] = [asdict(one.shard) for one in made]
    (folder / MANIFEST).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def check_replaceable(folder: Path) -> None:
    """Refuse to replace anything but a dataset, a file or a folder.

    Raises:
        InputError: something else is there.
    """
    if folder.is_file():
        PatientDataset.load(folder)
        return
    if not is_dataset({path.name for path in folder.iterdir()}):
        raise InputError(f"{folder}: is a folder of something else, expected a dataset to replace, or nothing")


def is_dataset(names: Set[str]) -> bool:
    """Tell by the names of all files in a folder whether it is a dataset."""
    others = [name for name in names - {MANIFEST, LENGTHS, CODE_COUNTS} if not name.startswith("shard-")]
    return MANIFEST in names and not others


def open_folder(folder: Path) -> ShardedDataset:
    """Open a dataset that is a folder; its shards are opened as they are used.

    Raises:
        InputError: the folder holds no dataset of ours, one of another version, or a damaged manifest.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(f"{folder}: holds no {MANIFEST}, expected a dataset made by {called('convert')}")
    content = read_json(path)
    if not isinstance(content, dict) or not is_format(content.get("format")) or content.get("layout") != "shards":
        raise InputError(f"{path}: is no manifest of a dataset; expected one made by {called('convert')}")
    if not is_version(content.get("version")):
        raise InputError(
            f"{path}: has dataset version {content.get('version')!r}, this release reads {VERSION}; convert again"
        )
    try:
        shards = list(map(Shard.from_dict, content["shards"]))
        if not shards:
            raise ValueError("it names no shard")
        return ShardedDataset(DatasetInfo.from_dict(content), folder, shards)
    except KeyError as error:
        raise InputError(f"{path}: is damaged: it holds no {error}; convert again") from None
    except (AttributeError, RecursionError, TypeError, ValueError) as error:
        raise InputError(f"{path}: is damaged: {error}; convert again") from None


def verify(path: Path, dataset: PatientDataset) -> None:
    """Look through a dataset as a whole, once a run and before anything is written: checksums, and ranges of values.

    Args:
        path: where it was opened.
        dataset: what `open_dataset` returned.

    Raises:
        InputError: something is damaged; names file and column.
    """
    sharded = isinstance(dataset, ShardedDataset)
    first = 0
    counts = np.zeros(len(dataset.info.vocabulary), dtype=np.int64)
    for file, part in dataset.files() if isinstance(dataset, ShardedDataset) else [(path, dataset)]:
        check_checksums(file)
        try:
            check_values(part.columns, dataset.info)
        except ValueError as error:
            raise InputError(f"{file}: is damaged: {error}; convert again") from None
        if sharded:
            if not np.array_equal(dataset.lengths[first : first + len(part)], part.lengths):
                raise InputError(f"{path / LENGTHS}: is damaged: it is not of {file.name}; convert again")
            first += len(part)
            counts += part.code_counts
    if sharded and not np.array_equal(dataset.code_counts, counts):
        raise InputError(f"{path / CODE_COUNTS}: is damaged: it is not of these shards; convert again")


def patients_in_both(one: PatientDataset, other: PatientDataset) -> int:
    """Return how many patients are in two datasets; both splits of one conversion have none in common by the rule."""
    rules = [(i.input_fingerprint, i.split_from, i.split_seed, i.train_ratio) for i in (one.info, other.info)]
    if rules[0] == rules[1] and {one.info.split, other.info.split} == {"train", "val"}:
        return 0
    return len(np.intersect1d(one.columns["patient_hashes"].numpy(), other.columns["patient_hashes"].numpy()))


def deciding_file(path: Path) -> Path:
    """Return the file whose bytes tell one dataset from another: of a folder its manifest, which has the digests."""
    return path / MANIFEST if path.is_dir() else path


def open_dataset(path: Path | str) -> PatientDataset:
    """Open a dataset, a file or a folder of shards.

    Raises:
        InputError: as `PatientDataset.load` and `open_folder` do.
    """
    settle(Path(path))
    return open_folder(Path(path)) if Path(path).is_dir() else PatientDataset.load(path)
