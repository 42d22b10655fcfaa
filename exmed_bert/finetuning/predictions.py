"""The file of predictions: patient, index date and probability, as Parquet."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from exmed_bert.cohorts.labeled import UNLABELED, LabeledPatients
from exmed_bert.staging import atomic_write

PREDICTIONS = "predictions.parquet"


def write_predictions(
    folder: Path,
    patients: LabeledPatients,
    probabilities: np.ndarray,
    labels: np.ndarray | None,
    splits: Sequence[str] | None = None,
) -> Path:
    """Write predictions.parquet and return its path.

    Args:
        folder: of the file.
        patients: N rows; gives ``patient_id`` and ``index_date``.
        probabilities: (N,) of the outcome.
        labels: (N,) as of `LabeledPatients`, those that are not known become null; None without any.
        splits: name of the split of each row, None where they are not divided.
    """
    import pyarrow
    import pyarrow.parquet

    ids = [patients.dataset.patient_id(row) for row in range(len(patients))]
    columns: dict[str, Any] = {
        "patient_id": ids if all(type(i) is int for i in ids) else [str(i) for i in ids],
        "index_date": pyarrow.array(patients.index_days, type=pyarrow.int32()).cast(pyarrow.date32()),
    }
    if labels is not None:
        columns["label"] = pyarrow.array(labels, mask=labels == UNLABELED)
    columns["probability"] = probabilities
    if splits is not None:
        columns["split"] = list(splits)
    path = folder / PREDICTIONS
    with atomic_write(path) as part:
        pyarrow.parquet.write_table(pyarrow.table(columns), part, write_page_checksum=True)
    return path
