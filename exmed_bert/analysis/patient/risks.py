"""The risk of a patient at each visit, and what each code adds to it at the last one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from exmed_bert.analysis.patient.history import AtVisits
from exmed_bert.codes import CodeKey
from exmed_bert.cohorts.cohort import NoPatientLeft
from exmed_bert.cohorts.collator import LabeledRows
from exmed_bert.console import InputError, shown
from exmed_bert.data.patient import PatientColumns
from exmed_bert.data.vocabulary import MASK
from exmed_bert.finetuning.explanations import of_batch
from exmed_bert.finetuning.risk import Predicted, risks

_BATCH = 64


class NoPrediction(InputError):
    """The model predicts at none of a patient's visits."""


@dataclass(frozen=True)
class PatientRisks:
    """A patient with risks.

    Attributes:
        patient: whose events are all shown, also those after the last prediction.
        outcome: what the risk is of.
        days, risks: (n,) of the visits that have a prediction, in order.
        visits: how many visits there are in all.
        attributions: log odds, or log hazard, that each code adds at the last of the days, by its day and code; codes
            that the model does not look at, or does not know, have none.
        scale: "odds" or, of time to event, "hazard".
        complete: whether they add up to within 1 %.
        generated: whether our generator made the patient.
    """

    patient: PatientColumns
    outcome: str
    days: np.ndarray
    risks: np.ndarray
    visits: int
    attributions: dict[tuple[int, CodeKey], float]
    complete: bool
    generated: bool
    scale: Literal["odds", "hazard"] = "odds"


def percent(risk: float) -> str:
    """Return a risk in percent, below one with two decimals.

    >>> percent(0.1234), percent(0.00123)
    ('12.3%', '0.12%')
    """
    return f"{risk:.1%}" if risk >= 0.01 else f"{risk:.2%}"


def predict_at_visits(
    model_dir: Path,
    source: AtVisits,
    patient: PatientColumns,
    endpoint: str | None,
    horizon_days: int | None,
    generated: bool,
) -> PatientRisks:
    """Return the risk at each visit at which the model predicts.

    Raises:
        InputError, OptionError: the model predicts something else.
        NoPrediction: it predicts at none of the visits: the outcome came before, or there are too few codes.
    """
    try:
        found = risks(model_dir, source, endpoint, horizon_days, _BATCH)
    except NoPatientLeft as error:
        why = "; ".join(f"{count:,} {reason}" for reason, count in error.excluded.items())
        raise NoPrediction(
            f"{source}: patient {shown(patient.patient_ids[0])}: the model predicts at none of {len(source.days):,} "
            f"visits: {why}"
        ) from None
    visits = np.array([int(found.patients.dataset.patient_id(row)) for row in range(len(found.patients))])
    order = np.argsort(visits, kind="stable")
    attributions, complete = _attributions(found, int(order[-1]))
    return PatientRisks(
        patient=patient,
        outcome=found.title,
        days=source.days[visits[order]],
        risks=found.probabilities[order],
        visits=len(source.days),
        attributions=attributions,
        complete=complete,
        generated=generated,
        scale="odds" if found.network.bins is None else "hazard",
    )


def _attributions(found: Predicted, row: int) -> tuple[dict[tuple[int, CodeKey], float], bool]:
    dataset, network = found.patients.dataset, found.network.eval()
    batch = found.collator(LabeledRows(found.patients, np.array([row])).batch(range(1)))
    batch = {name: tensor.to(network.device) for name, tensor in batch.items() if name != "labels"}
    result = of_batch(network, batch)
    real = batch["attention_mask"][0].bool() & (batch["input_ids"][0] != MASK)
    first = int(dataset.arrays["visit_offsets"][row])
    days = dataset.arrays["visit_days"]
    keys = dataset.info.vocabulary.keys
    values: dict[tuple[int, CodeKey], float] = {}
    for place in torch.nonzero(real)[:, 0].tolist():
        if (key := keys[int(batch["input_ids"][0, place])]) is not None:
            day = int(days[first + int(batch["visit_ids"][0, place]) - 1])
            values[day, key] = float(result.tokens[0, place]) / found.temperature
    return values, bool(result.complete.all())
