"""A file of labels in the MEDS label schema: patient, prediction time, and whether the outcome occurred.

https://github.com/Medical-Event-Data-Standard/meds: ``subject_id``, ``prediction_time``, ``boolean_value``.
"""

from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np

from exmed_bert.console import InputError
from exmed_bert.data.patient import day_number
from exmed_bert.data.randomness import hash_patient_ids
from exmed_bert.files import existing_file

COLUMNS = ("subject_id", "prediction_time", "boolean_value")

_TRUTH = {"true": 1, "1": 1, "1.0": 1, "false": 0, "0": 0, "0.0": 0}
_NO_DAY = int(np.iinfo(np.int32).min)


@dataclass(frozen=True)
class LabelFile:
    """M labels, sorted by the hash of the patient.

    Attributes:
        patient_hashes: (M,) int64, `randomness.hash_patient_ids` of the patients.
        days: (M,) int32, the day of the prediction, since 1970-01-01. Events of that day belong to the history.
        labels: (M,) int8, 0 or 1.
    """

    patient_hashes: np.ndarray
    days: np.ndarray
    labels: np.ndarray

    def rows_of(self, hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return which labels are of which patients: indices into ``hashes`` and, for each, into the labels."""
        first = np.searchsorted(self.patient_hashes, hashes, side="left")
        count = np.searchsorted(self.patient_hashes, hashes, side="right") - first
        patients = np.repeat(np.arange(len(hashes)), count)
        place = np.arange(len(patients)) - np.repeat(np.cumsum(count) - count, count)
        return patients, np.repeat(first, count) + place


def read_labels(path: Path) -> LabelFile:
    """Read a ``.csv`` or ``.parquet`` file of labels.

    Raises:
        InputError: no such file, another kind, a column is missing, a value is wrong, or a patient has two labels on
            one day.
    """
    columns = _read_columns(path)
    n = len(columns["subject_id"])
    if not n:
        raise InputError(f"{path}: holds no labels")

    def refuse(wrong: np.ndarray, column: str, expected: str) -> None:
        if wrong.any():
            row = int(wrong.argmax())
            raise InputError(
                f"{path}: row {row + 1} (subject_id {columns['subject_id'][row]!r}): {column}: "
                f"{columns[column][row]!r}, expected {expected}"
            )

    unnamed = np.fromiter((value in (None, "") for value in columns["subject_id"]), dtype=bool, count=n)
    refuse(unnamed, "subject_id", "a patient's id")
    day = {value: _day(value) for value in set(columns["prediction_time"])}
    days = np.fromiter((day[value] for value in columns["prediction_time"]), dtype=np.int32, count=n)
    refuse(days == _NO_DAY, "prediction_time", "a date and time such as 2023-06-30 or 2023-06-30 12:00:00")
    spelled = [str(value).strip().lower() for value in columns["boolean_value"]]
    labels = np.fromiter((_TRUTH.get(value, -1) for value in spelled), dtype=np.int8, count=n)
    refuse(labels < 0, "boolean_value", "true or false")

    hashes = hash_patient_ids(columns["subject_id"])
    order = np.lexsort((days, hashes))
    twice = np.zeros(n, dtype=bool)
    twice[order[1:]] = (np.diff(hashes[order]) == 0) & (np.diff(days[order]) == 0)
    refuse(twice, "prediction_time", "one label per patient and day")
    return LabelFile(hashes[order], days[order], labels[order])


def _read_columns(path: Path) -> dict[str, list[Any]]:
    """Return the three columns; those of a CSV file as they are spelled."""
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    existing_file(path)
    name = path.name.lower()
    try:
        if name.endswith(".csv"):
            spelled = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(COLUMNS, pyarrow.string()))
            table = pyarrow.csv.read_csv(path, convert_options=spelled)
        elif name.endswith(".parquet"):
            table = pyarrow.parquet.read_table(path)
        else:
            raise InputError(f"{path}: unknown kind of file, expected .csv or .parquet")
    except pyarrow.ArrowException as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    for column in COLUMNS:
        if column not in table.column_names:
            raise InputError(
                f"{path}: column {column} is missing, expected {', '.join(COLUMNS)}; "
                f"it has {', '.join(table.column_names)}"
            )
    return {column: table[column].to_pylist() for column in COLUMNS}


def _day(value: Any) -> int:
    """Return the day of a date, a time or their spelling in ISO 8601; `_NO_DAY` for anything else."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            return _NO_DAY
    return day_number(date(value.year, value.month, value.day)) if isinstance(value, date) else _NO_DAY
