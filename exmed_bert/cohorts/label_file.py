"""Labels in the MEDS label schema, a file or shards: patient, prediction time, and whether the outcome occurred.

https://github.com/Medical-Event-Data-Standard/meds: ``subject_id``, ``prediction_time``, ``boolean_value``.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np

from exmed_bert.console import InputError, shown
from exmed_bert.data.bounded import check_parquet
from exmed_bert.data.gzipped import check_gzip
from exmed_bert.data.patient import NO_DAY, PatientId, day_number
from exmed_bert.data.randomness import hash_patient_ids
from exmed_bert.data.readers.source import Source

COLUMNS = ("subject_id", "prediction_time", "boolean_value")

_ENDINGS = (".parquet", ".csv", ".csv.gz")
_TRUTH = {"true": 1, "1": 1, "1.0": 1, "false": 0, "0": 0, "0.0": 0}
_WHOLE = re.compile(r"[+-]?\d+")
_WHOLE_AS_FLOAT = re.compile(r"([+-]?\d+)\.0*")
_LARGEST_EXACT = 2**53  # of the floating-point numbers that spell ids as 1.0, those below it have spelled one id each


@dataclass(frozen=True)
class LabelFile:
    """M labels, sorted by the hash of the patient.

    Attributes:
        patient_hashes: (M,) int64, `randomness.hash_patient_ids` of the patients.
        days: (M,) int32, the day of the prediction, since 1970-01-01. Events of that day belong to the history.
        labels: (M,) int8, 0 or 1.
        examples: ids of the first patients.
    """

    patient_hashes: np.ndarray
    days: np.ndarray
    labels: np.ndarray
    examples: tuple[str, ...]

    def rows_of(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return which labels are of which patients: indices into ``hashes`` and, for each, into the labels."""
        first = np.searchsorted(self.patient_hashes, hashes, side="left")
        count = np.searchsorted(self.patient_hashes, hashes, side="right") - first
        patients = np.repeat(np.arange(len(hashes)), count)
        place = np.arange(len(patients)) - np.repeat(np.cumsum(count) - count, count)
        return patients, np.repeat(first, count) + place


def label_source(path: Path) -> Source:
    """Return the files of labels at a path, a file or a folder of shards.

    Raises:
        InputError: there is none, or a file of another kind.
    """
    if not path.is_dir():
        source = Source.at([path])
        if not source.of_kind(*_ENDINGS):
            raise InputError(f"{path}: unknown kind of file, expected {', '.join(_ENDINGS)}, or a folder of them")
        return source
    found = Source.at([path]).of_kind(*_ENDINGS) if any(path.iterdir()) else ()
    if not found:
        raise InputError(f"{path}: holds no files of labels, expected {', '.join(_ENDINGS)}")
    return Source((path,), found)


def are_whole_numbers(patient_ids: Iterable[PatientId]) -> bool:
    """Return whether all ids are whole numbers, as numbers or as text.

    >>> are_whole_numbers([1, "2", -3]), are_whole_numbers([1, "2.0"]), are_whole_numbers(["A-1"])
    (True, False, False)
    """
    return all(type(i) is int or _WHOLE.fullmatch(str(i)) for i in patient_ids)


def read_labels(path: Path, whole_numbers: bool = False) -> LabelFile:
    """Read a file of labels, or a folder of shards.

    Args:
        path: the file or folder.
        whole_numbers: whether the patients' ids are whole numbers: 1.0, which a column with gaps often becomes, is
            then read as 1.

    Raises:
        InputError: no such file, another kind, a column is missing, a value is wrong, or a patient has two labels on
            one day.
    """
    source = label_source(path)
    columns: dict[str, list[Any]] = {column: [] for column in COLUMNS}
    starts = [0]
    for file in source.files:
        for column, values in _read_columns(file).items():
            columns[column] += values
        starts.append(len(columns["subject_id"]))
    n = starts[-1]
    if not n:
        raise InputError(f"{path}: holds no labels")

    def refuse(wrong: np.ndarray, column: str, expected: str) -> None:
        if wrong.any():
            row = int(wrong.argmax())
            shard = int(np.searchsorted(starts, row, side="right")) - 1
            patient = shown(columns["subject_id"][row])
            raise InputError(
                f"{source.files[shard]}: row {row - starts[shard] + 1} (subject_id {patient}): "
                f"{column}: {shown(columns[column][row])}, expected {expected}"
            )

    spelled = {value: _spelled(value) for value in set(columns["subject_id"])}
    ids = [spelled[value] for value in columns["subject_id"]]
    refuse(np.fromiter((i == "" for i in ids), dtype=bool, count=n), "subject_id", "a patient's id")
    if whole_numbers:
        numbers = {text: _whole(text) for text in spelled.values()}
        ids = [numbers[text] for text in ids]
        inexact = np.fromiter((i == "" for i in ids), dtype=bool, count=n)
        refuse(inexact, "subject_id", "a whole number: a floating-point one of this size may stand for several")
    day = {value: _day(value) for value in set(columns["prediction_time"])}
    days = np.fromiter((day[value] for value in columns["prediction_time"]), dtype=np.int32, count=n)
    refuse(days == NO_DAY, "prediction_time", "a date and time such as 2023-06-30 or 2023-06-30 12:00:00")
    truth = [str(value).strip().lower() for value in columns["boolean_value"]]
    labels = np.fromiter((_TRUTH.get(value, -1) for value in truth), dtype=np.int8, count=n)
    refuse(labels < 0, "boolean_value", "true or false")

    hashes = hash_patient_ids(ids)
    order = np.lexsort((days, hashes))
    twice = np.zeros(n, dtype=bool)
    twice[order[1:]] = (np.diff(hashes[order]) == 0) & (np.diff(days[order]) == 0)
    refuse(twice, "prediction_time", "one label per patient and day")
    examples = tuple(dict.fromkeys(map(str, columns["subject_id"][:100])))[:3]
    return LabelFile(hashes[order], days[order], labels[order], examples)


def _read_columns(path: Path) -> dict[str, list[Any]]:
    """Return the three columns of a file; those of a CSV file as they are spelled."""
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    check_gzip([path])
    check_parquet([path])
    try:
        if path.name.lower().endswith(".parquet"):
            names = _columns(path, pyarrow.parquet.read_schema(path).names)
            table = pyarrow.parquet.read_table(path, columns=list(names.values()), page_checksum_verification=True)
        else:
            with pyarrow.csv.open_csv(path) as reader:
                names = _columns(path, reader.schema.names)
            spelled = pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(names.values(), pyarrow.string()), include_columns=list(names.values())
            )
            table = pyarrow.csv.read_csv(path, convert_options=spelled)
    except (pyarrow.ArrowException, OSError, ValueError) as error:  # names of columns that are no UTF-8 are the last
        raise InputError(f"{path}: cannot be read: {error}") from None
    return {column: table[name].to_pylist() for column, name in names.items()}


def _columns(path: Path, there: list[str]) -> dict[str, str]:
    """Return what a file calls each of our columns, in any letter case."""
    names = {name.strip().casefold(): name for name in reversed(there)}
    for column in COLUMNS:
        if column not in names:
            raise InputError(
                f"{path}: column {column} is missing, expected {', '.join(COLUMNS)}; it has {', '.join(there)}"
            )
    return {column: names[column] for column in COLUMNS}


def _spelled(value: Any) -> str:
    """Return an id as text; "" for none."""
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        return f"{int(value)}.0"
    return str(value)


def _whole(text: str) -> str:
    """Return an id without the zero behind its point; "" where it is so large that it may be another one's.

    >>> _whole("17.0"), _whole("17"), _whole("1.5"), _whole("9007199254740993.0")
    ('17', '17', '1.5', '')
    """
    number = _WHOLE_AS_FLOAT.fullmatch(text.strip())
    if number is None:
        return text
    return str(int(number[1])) if abs(int(number[1])) < _LARGEST_EXACT else ""


def _day(value: Any) -> int:
    """Return the day of a date, a time or their spelling in ISO 8601; `NO_DAY` for anything else."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            return NO_DAY
    return day_number(date(value.year, value.month, value.day)) if isinstance(value, date) else NO_DAY
