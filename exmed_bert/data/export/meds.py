"""Patients as a dataset of the Medical Event Data Standard, MEDS 0.4: one row per event, in Parquet.

    data/train/0.parquet, ...          rows of 10,000 patients per file; `meds_codes` says what they are
    metadata/codes.parquet             every code of the rows, its description and the code above it
    metadata/dataset.json              name and versions
    metadata/subject_ids.parquet       the patients in the order of the input, with their ids where these are text
    metadata/subject_splits.parquet    where the input has splits; its patients are in data/train, data/tuning, ...
    metadata/exmed_bert.json           where the patients come from (`provenance`)

Patients without splits are all in ``data/train``, since tools of the standard look for a folder of that name. A
patient's rows stand together in order of time, those without a time first, those of one time in the order of the
record. The same patients give the same bytes, however they are cut into chunks. The memory holds a chunk, the patients
of a file that is not full yet, and 8 bytes per patient.

https://github.com/Medical-Event-Data-Standard/meds
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import meds
import numpy as np
import pyarrow
import pyarrow.parquet

import exmed_bert
from exmed_bert.codes import CodeKey, code_system
from exmed_bert.console import InputError
from exmed_bert.data.export import meds_codes
from exmed_bert.data.export.base import ExportCounts
from exmed_bert.data.export.provenance import SUBJECT_IDS, check_export_folder, write_provenance
from exmed_bert.data.origin import Origin
from exmed_bert.data.patient import BIRTH_DATE, NO_DAY, PatientColumns, PatientId
from exmed_bert.data.randomness import hash_patient_ids
from exmed_bert.data.splits import InputSplit
from exmed_bert.reference.names import drug_names
from exmed_bert.staging import staged_folder, write_json

_SHARD = 10_000  # patients per file of rows and per row group of lists of patients: another size gives other bytes
_DAY_SPAN = 2**23  # more than the days of the calendar, years 1 to 9999, and `_NO_TIME`
_NO_TIME = -(2**22)  # the day of a row without a time: before all others
_DAY = 86_400_000_000  # microseconds
_NO_MICROSECOND = np.iinfo(np.int64).min  # numpy's NaT
_COMPRESSION = "zstd"
_NUMBER = re.compile(r"0|-?[1-9][0-9]*")
_INT64 = range(-(2**63), 2**63)
_LONGEST = len(str(_INT64.start))

_IDS_SCHEMA = pyarrow.schema([pyarrow.field("subject_id", pyarrow.int64(), nullable=False), ("patient_id", "string")])
# The column of numbers is there also where none is, since there are readers that ask for it.
_ROWS_SCHEMA = pyarrow.schema([field for field in meds.DataSchema.schema() if field.name != "text_value"])


def export_meds(folder: Path, chunks: Iterable[PatientColumns], origin: Origin) -> ExportCounts:
    """Write patients as a MEDS dataset, the folder whole or not at all.

    Args:
        folder: new, empty, or an earlier export to which nothing was added, which is replaced.
        chunks: the patients.
        origin: where they come from.

    Raises:
        InputError: the folder cannot be written or holds something else, or a patient occurs twice.
    """
    with staged_folder(folder, check_export_folder) as staged:
        return write(staged, Path(folder).name, chunks, origin)


def write(folder: Path, name: str, chunks: Iterable[PatientColumns], origin: Origin) -> ExportCounts:
    """Write patients as a MEDS dataset into a folder that is put in place later; see `base.Exporter`."""
    dataset = _Dataset(folder)
    for patients in chunks:
        dataset.add(patients)
    return dataset.close(name, origin)


check_replaceable = check_export_folder


class _Dataset:
    """The folder while it is written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._codes = _Codes()
        self._shards: dict[InputSplit, _Shards] = {}
        self._subject_ids = _List(folder / SUBJECT_IDS, _IDS_SCHEMA)
        self._splits = _List(folder / meds.subject_splits_filepath, meds.SubjectSplitSchema.schema())
        self._subjects: list[np.ndarray] = []  # of each chunk, to find those that occur twice
        self._events = 0

    def add(self, patients: PatientColumns) -> None:
        """Write patients."""
        subjects, texts = subject_ids(patients.patient_ids)
        self._subject_ids.add({"subject_id": subjects, "patient_id": texts})
        self._subjects.append(subjects)
        self._events += len(patients.events.codes)
        if patients.splits is None:
            self._of(InputSplit.TRAIN).add(_rows(patients, subjects, self._codes))
            return
        for split in InputSplit:
            members = np.flatnonzero(patients.splits == split)
            if not len(members):
                continue
            self._of(split).add(_rows(patients.take(members), subjects[members], self._codes))
        assigned = patients.splits != InputSplit.UNKNOWN
        names = [InputSplit(split).name.lower() for split in patients.splits[assigned].tolist()]
        self._splits.add({"subject_id": subjects[assigned], "split": names})

    def close(self, name: str, origin: Origin) -> ExportCounts:
        """Write what is known at the end only.

        Raises:
            InputError: a patient occurs twice.
        """
        for shards in self._shards.values():
            shards.close()
        self._subject_ids.close()
        self._splits.close()
        self._refuse_duplicates()
        codes = self._codes.table()
        meds.CodeMetadataSchema.validate(codes)
        _write(self._folder / meds.code_metadata_filepath, codes)
        metadata = {
            "dataset_name": name,
            "etl_name": exmed_bert.__name__,
            "etl_version": exmed_bert.__version__,
            "meds_version": meds.__version__,
        }
        meds.DatasetMetadataSchema.validate(metadata)
        write_json(self._folder / meds.dataset_metadata_filepath, metadata)
        write_provenance(self._folder, origin)
        return ExportCounts(
            patients=sum(map(len, self._subjects)),
            events=self._events,
            rows=sum(shards.rows for shards in self._shards.values()),
            codes=len(codes),
            files=sum(shards.files for shards in self._shards.values()),
        )

    def _of(self, split: InputSplit) -> "_Shards":
        """Return the files of a split."""
        if split not in self._shards:
            self._shards[split] = _Shards(self._folder / meds.data_subdirectory / split.name.lower(), self._codes)
        return self._shards[split]

    def _refuse_duplicates(self) -> None:
        subjects = np.concatenate([np.empty(0, np.int64), *self._subjects])
        distinct, first, counts = np.unique(subjects, return_index=True, return_counts=True)
        if len(distinct) == len(subjects):
            return
        row = int(first[counts > 1].min())
        second = int(np.flatnonzero(subjects == subjects[row])[1])
        listed = (
            pyarrow.parquet.read_table(self._folder / SUBJECT_IDS, page_checksum_verification=True)
            .slice(second, 1)
            .to_pylist()[0]
        )
        patient_id = listed["subject_id"] if listed["patient_id"] is None else listed["patient_id"]
        raise InputError(
            f"patient_id {patient_id!r}: is that of patient {row + 1} of the input and of patient {second + 1}, "
            "expected each patient once"
        )


def subject_ids(patient_ids: Sequence[PatientId]) -> tuple[np.ndarray, list[str | None]]:
    """Return a number for each patient id, (N,) int64, and the ids that are not these numbers themselves, else None.

    A text that spells a number of 64 bits stands for it; any other id has a number by its hash.

    >>> subject_ids([7, "7", -1])
    (array([ 7,  7, -1]), [None, '7', None])
    >>> numbers, texts = subject_ids(["A-1", 2**64, "007"])
    >>> (numbers > 2**32).tolist(), texts
    ([True, True, True], ['A-1', '18446744073709551616', '007'])
    """
    known = [_number(patient_id) for patient_id in patient_ids]
    numbers = np.array([number or 0 for number in known], dtype=np.int64)
    others = [row for row, number in enumerate(known) if number is None]
    numbers[others] = hash_patient_ids(patient_ids[row] for row in others) & np.iinfo(np.int64).max
    pairs = zip(patient_ids, known, strict=True)
    return numbers, [None if patient_id == number else str(patient_id) for patient_id, number in pairs]


def _number(patient_id: PatientId) -> int | None:
    """Return the 64-bit number that an id is or spells, None where it is another id."""
    if isinstance(patient_id, str):
        if len(patient_id) > _LONGEST or not _NUMBER.fullmatch(patient_id):
            return None
        patient_id = int(patient_id)
    return patient_id if patient_id in _INT64 else None


class _Codes:
    """The distinct codes of all rows, each with a number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._keys: dict[str, CodeKey] = {}  # of the codes of events

    def number(self, prefix: str, value: str | None = None) -> int:
        """Return the number of a code, a new one if need be."""
        text = prefix if value is None else f"{prefix}{meds_codes.SEPARATOR}{value}"
        return self._numbers.setdefault(text, len(self._numbers))

    def event_number(self, key: CodeKey) -> int:
        """Return the number of the code of an event."""
        system, code = key
        text = f"{meds_codes.event_prefix(system)}{meds_codes.SEPARATOR}{code}"
        self._keys[text] = key
        return self.number(text)

    def texts(self, numbers: np.ndarray) -> pyarrow.Array:
        """Return the codes of these numbers; the same codes give the same array, whatever their numbers."""
        used = np.flatnonzero(np.bincount(numbers, minlength=len(self._numbers)))
        known = np.array(list(self._numbers), dtype=object)[used]
        order = np.argsort(known)
        place = np.zeros(len(self._numbers), dtype=np.int32)
        place[used[order]] = np.arange(len(used))
        return pyarrow.DictionaryArray.from_arrays(place[numbers], pyarrow.array(known[order], "string"))

    def table(self) -> pyarrow.Table:
        """Return the codes in order, with description and parent where these are known."""
        texts, names = sorted(self._numbers), drug_names()
        described = [self._described(text, names) for text in texts]
        content = {
            "code": texts,
            "description": [description for description, _ in described],
            "parent_codes": [None if parent is None else [parent] for _, parent in described],
        }
        return pyarrow.table(content, meds.CodeMetadataSchema.schema())

    def _described(self, text: str, names: Mapping[CodeKey, str]) -> tuple[str | None, str | None]:
        """Return the description of a code and the code above it, None where it is not known."""
        if text not in self._keys:
            return meds_codes.description(text), None
        name, spelled = self._keys[text]
        system = code_system(name)
        code = system.normalize(spelled)
        if code is None:
            return None, None
        parent = system.parent(code)
        above = None if parent is None else f"{meds_codes.event_prefix(name)}{meds_codes.SEPARATOR}{parent}"
        return names.get((name, code)) or system.description(code), above


@dataclass(frozen=True)
class _Rows:
    """Rows of N patients, one patient's after another.

    Attributes:
        subjects: (N,) int64.
        offsets: (N + 1,) int64; patient i has the rows ``offsets[i]:offsets[i + 1]``.
        days: (rows,) int32 since 1970-01-01, `_NO_TIME` for rows without a time.
        codes: (rows,) int32, numbers of `_Codes`.
        values: (rows,) float32, NaN where a row has none; None where none has.
    """

    subjects: np.ndarray
    offsets: np.ndarray
    days: np.ndarray
    codes: np.ndarray
    values: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.subjects)

    def numbers(self) -> np.ndarray:
        """Return the value of each row, (rows,) float32, NaN where it has none."""
        return np.full(len(self.days), np.nan, dtype=np.float32) if self.values is None else self.values

    def between(self, first: int, last: int) -> "_Rows":
        """Return the rows of the patients ``first:last``."""
        start, end = self.offsets[first], self.offsets[last]
        offsets = self.offsets[first : last + 1] - start
        values = None if self.values is None else self.values[start:end]
        return _Rows(self.subjects[first:last], offsets, self.days[start:end], self.codes[start:end], values)


def _rows(patients: PatientColumns, subjects: np.ndarray, codes: _Codes) -> _Rows:
    """Return all that is known of patients, each fact a row."""
    n, events = len(patients), patients.events
    everybody, no_time = np.arange(n), np.full(n, _NO_TIME, dtype=np.int32)
    # Patients, days and codes of rows, kind by kind: rows of one time keep the order of the kinds.
    kinds: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(days: np.ndarray, numbers: np.ndarray) -> None:
        """Add a row for each patient with a known code."""
        known = numbers >= 0
        kinds.append((everybody[known], days[known], numbers[known]))

    def add_period(name: str) -> None:
        days = patients.period(name)
        if (days != NO_DAY).any():
            add(days, np.where(days == NO_DAY, -1, codes.number(meds_codes.PERIODS[name])))

    for name, values in patients.static.items():
        prefix = meds_codes.static_prefix(name)
        numbers = {value: codes.number(prefix, value) if value and value.strip() else -1 for value in set(values)}
        add(no_time, np.fromiter(map(numbers.__getitem__, values), dtype=np.int32, count=n))
    for value, text in meds_codes.PROLONGED_STAY.items():
        if (patients.plos == value).any():
            add(no_time, np.where(patients.plos == value, codes.number(text), -1))
    born = patients.period(BIRTH_DATE)
    born = np.where(born == NO_DAY, _first_days(patients.birth_years), born)
    add(born, np.full(n, codes.number(meds_codes.BIRTH)))
    add_period("observation_start")
    used = np.bincount(events.codes, minlength=len(events.table)) > 0
    of_table = [codes.event_number(key) if is_used else -1 for key, is_used in zip(events.table, used, strict=True)]
    before = sum(len(days) for _, days, _ in kinds)
    kinds.append((events.patients(), events.days, np.array(of_table, dtype=np.int32)[events.codes]))
    add_period("observation_end")
    add_period("death_date")

    of_patient, days, code = (np.concatenate(column) for column in zip(*kinds, strict=True))
    order = np.argsort(of_patient * _DAY_SPAN + days, kind="stable")
    offsets = np.concatenate(([0], np.cumsum(np.bincount(of_patient, minlength=n))))
    measured = None
    if events.measured is not None:
        measured = np.full(len(code), np.nan, dtype=np.float32)
        measured[before : before + len(events.codes)] = events.measured.values
        measured = measured[order]
    return _Rows(subjects, offsets, days[order], code[order].astype(np.int32), measured)


def _first_days(years: np.ndarray) -> np.ndarray:
    """Return 1 January of calendar years, days since 1970-01-01."""
    return (years.astype(np.int64) - 1970).astype("datetime64[Y]").astype("datetime64[D]").astype(np.int32)


class _Shards:
    """The files of a split: 0.parquet, 1.parquet and so on, of `_SHARD` patients each wherever the pieces end."""

    def __init__(self, folder: Path, codes: _Codes) -> None:
        self.files = self.rows = 0
        self._folder, self._codes = folder, codes
        self._waiting: list[_Rows] = []
        self._patients = 0  # that wait

    def add(self, rows: _Rows) -> None:
        """Write patients, or keep them until a file is full."""
        first = 0
        while first < len(rows):
            last = min(first + _SHARD - self._patients, len(rows))
            self._waiting.append(rows.between(first, last))
            self._patients += last - first
            if self._patients == _SHARD:
                self.close()
            first = last

    def close(self) -> None:
        """Write the patients that wait."""
        if not self._waiting:
            return
        subjects = np.concatenate([np.repeat(rows.subjects, np.diff(rows.offsets)) for rows in self._waiting])
        days = np.concatenate([rows.days for rows in self._waiting])
        codes = self._codes.texts(np.concatenate([rows.codes for rows in self._waiting]))
        times = np.where(days == _NO_TIME, _NO_MICROSECOND, days * np.int64(_DAY)).view("datetime64[us]")
        values = np.concatenate(
            [
                np.full(len(rows.days), np.nan, np.float32) if rows.values is None else rows.values
                for rows in self._waiting
            ]
        )
        columns = [subjects, times, codes.cast("string"), pyarrow.array(values, "float32", mask=np.isnan(values))]
        table = pyarrow.table(columns, schema=_ROWS_SCHEMA)
        meds.DataSchema.validate(table)
        _write(self._folder / f"{self.files}.parquet", table)
        self.files += 1
        self.rows += len(table)
        self._waiting, self._patients = [], 0


class _List:
    """A file with a row per patient, written in row groups of `_SHARD` wherever the pieces end; none without rows."""

    def __init__(self, path: Path, schema: pyarrow.Schema) -> None:
        self._path, self._schema = path, schema
        self._waiting = schema.empty_table()
        self._writer: pyarrow.parquet.ParquetWriter | None = None

    def add(self, columns: Mapping[str, Any]) -> None:
        """Write rows, or keep them until a row group is full."""
        self._waiting = pyarrow.concat_tables([self._waiting, pyarrow.table(columns, self._schema)])
        while len(self._waiting) >= _SHARD:
            self._write(self._waiting.slice(0, _SHARD))
            self._waiting = self._waiting.slice(_SHARD)

    def close(self) -> None:
        """Write the rows that wait."""
        if len(self._waiting):
            self._write(self._waiting)
        if self._writer is not None:
            self._writer.close()

    def _write(self, table: pyarrow.Table) -> None:
        if self._writer is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pyarrow.parquet.ParquetWriter(
                self._path, self._schema, compression=_COMPRESSION, write_page_checksum=True
            )
        self._writer.write_table(table.combine_chunks(), row_group_size=_SHARD)


def _write(path: Path, table: pyarrow.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table, path, compression=_COMPRESSION, write_page_checksum=True)
