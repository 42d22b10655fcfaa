"""A file of labels in the MEDS label schema: whose outcome, predicted when, did it come.

https://github.com/Medical-Event-Data-Standard/meds: ``subject_id``, ``prediction_time``, ``boolean_value``.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from exmed_bert.console import InputError
from exmed_bert.data.randomness import patient_keys
from exmed_bert.files import existing_file

COLUMNS = ("subject_id", "prediction_time", "boolean_value")


@dataclass(frozen=True)
class LabelFile:
    """M labels, sorted by the key of the patient.

    Attributes:
        keys: (M,) int64, `randomness.patient_keys` of the patients.
        days: (M,) int32, the day of the prediction, since 1970-01-01. Events of that day belong to the history.
        labels: (M,) int8, 0 or 1.
    """

    keys: np.ndarray
    days: np.ndarray
    labels: np.ndarray

    def rows_of(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return which labels are of which patients: indices into ``keys`` and, for each, into the labels."""
        first = np.searchsorted(self.keys, keys, side="left")
        count = np.searchsorted(self.keys, keys, side="right") - first
        patients = np.repeat(np.arange(len(keys)), count)
        place = np.arange(len(patients)) - np.repeat(np.cumsum(count) - count, count)
        return patients, np.repeat(first, count) + place


def read_labels(path: Path) -> LabelFile:
    """Read a ``.csv`` or ``.parquet`` file of labels.

    Raises:
        InputError: no such file, another kind, a column is missing, a value is wrong, or a patient has two labels on
            one day.
    """
    import pandas as pd

    existing_file(path)
    name = path.name.lower()
    try:
        if name.endswith(".csv"):
            table = pd.read_csv(path, dtype={"subject_id": str})
        elif name.endswith(".parquet"):
            table = pd.read_parquet(path)
        else:
            raise InputError(f"{path}: unknown kind of file, expected .csv or .parquet")
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    missing = [column for column in COLUMNS if column not in table]
    if missing:
        raise InputError(
            f"{path}: column {missing[0]} is missing, expected {', '.join(COLUMNS)}; it has {', '.join(table.columns)}"
        )
    if table.empty:
        raise InputError(f"{path}: holds no labels")

    def refuse(wrong: np.ndarray, column: str, expected: str) -> None:
        if wrong.any():
            row = int(wrong.argmax())
            raise InputError(
                f"{path}: row {row + 1} (subject_id {table['subject_id'].iloc[row]!r}): {column}: "
                f"{table[column].iloc[row]!r}, expected {expected}"
            )

    refuse(table["subject_id"].isna().to_numpy(), "subject_id", "a patient's id")
    times = pd.to_datetime(table["prediction_time"].astype(str), errors="coerce", format="ISO8601", utc=True)
    refuse(times.isna().to_numpy(), "prediction_time", "a date and time such as 2023-06-30 or 2023-06-30 12:00:00")
    spelled = table["boolean_value"].astype(str).str.strip().str.lower()
    known = {"true": 1, "1": 1, "1.0": 1, "false": 0, "0": 0, "0.0": 0}
    refuse(~spelled.isin(known).to_numpy(), "boolean_value", "true or false")

    keys = patient_keys(table["subject_id"].tolist())
    days = times.dt.tz_localize(None).to_numpy().astype("datetime64[D]").astype(np.int32)
    order = np.lexsort((days, keys))
    twice = np.zeros(len(keys), dtype=bool)
    twice[order[1:]] = (np.diff(keys[order]) == 0) & (np.diff(days[order]) == 0)
    refuse(twice, "prediction_time", "one label a patient and day")
    return LabelFile(keys[order], days[order], spelled.map(known).to_numpy(dtype=np.int8)[order])
