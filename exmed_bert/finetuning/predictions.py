"""The file of predictions: patient, index date and probability or risks, as Parquet."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from exmed_bert.cohorts.labeled import UNLABELED, LabeledPatients
from exmed_bert.evaluation.follow_up import FollowUp
from exmed_bert.staging import atomic_write

EVENTS = ("censored", "outcome", "death")  # by number, as `FollowUp.events` has it
PREDICTIONS = "predictions.parquet"


def columns_of(probabilities: np.ndarray, labels: np.ndarray | None) -> dict[str, Any]:
    """Return the columns of an outcome's probabilities, (N,).

    ``labels``, (N,), are those of `LabeledPatients`: what is not known becomes null. None without any.
    """
    import pyarrow

    label = {} if labels is None else {"label": pyarrow.array(labels, mask=labels == UNLABELED)}
    return label | {"probability": probabilities}


def columns_over_time(horizons: Sequence[int], risks: np.ndarray, follow_up: FollowUp | None) -> dict[str, Any]:
    """Return the columns of risks (N, H) of time to event: ``risk_365`` and so on, and of what followed.

    Args:
        horizons: H of them, in days.
        risks: (N, H) of the outcome by each.
        follow_up: of the N rows, None where it is unknown: ``days``, and ``event``, which ended it.
    """
    followed: dict[str, Any] = {}
    if follow_up is not None:
        followed = {"days": follow_up.days, "event": [EVENTS[event] for event in follow_up.events]}
    return followed | {f"risk_{horizon}": risks[:, i] for i, horizon in enumerate(horizons)}


def write_predictions(
    folder: Path, patients: LabeledPatients, columns: Mapping[str, Any], splits: Sequence[str] | None = None
) -> Path:
    """Write predictions.parquet and return its path.

    Args:
        folder: of the file.
        patients: N rows; gives ``patient_id`` and ``index_date``.
        columns: of N values by name.
        splits: name of the split of each row, None where they are not divided.
    """
    import pyarrow
    import pyarrow.parquet

    ids = [patients.dataset.patient_id(row) for row in range(len(patients))]
    content: dict[str, Any] = {
        "patient_id": ids if all(type(i) is int for i in ids) else [str(i) for i in ids],
        "index_date": pyarrow.array(patients.index_days, type=pyarrow.int32()).cast(pyarrow.date32()),
        **columns,
    }
    if splits is not None:
        content["split"] = list(splits)
    path = folder / PREDICTIONS
    with atomic_write(path) as part:
        pyarrow.parquet.write_table(pyarrow.table(content), part, write_page_checksum=True)
    return path
