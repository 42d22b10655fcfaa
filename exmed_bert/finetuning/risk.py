"""The risk of an outcome for patients: a fine-tuned model's of its own, a pretrained one's of an endpoint."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exmed_bert.cohorts.cohort import build
from exmed_bert.cohorts.collator import LabeledRows, PromptCollator
from exmed_bert.cohorts.endpoints import Endpoint
from exmed_bert.cohorts.labeled import LabeledPatients
from exmed_bert.cohorts.tasks.registry import saved_task
from exmed_bert.console import InputError
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.evaluation.calibration import Calibration
from exmed_bert.evaluation.metrics import logit, sigmoid
from exmed_bert.finetuning.outcome_model import extend_outcome_vocabulary, predict
from exmed_bert.finetuning.over_time import risks_of
from exmed_bert.finetuning.predict_only import task_content
from exmed_bert.finetuning.prompt import prompt_collator
from exmed_bert.finetuning.zero_shot import predict_endpoint
from exmed_bert.models import ExMedBertForSequenceClassification
from exmed_bert.models.folder import FINETUNING, read_finetuned, read_pretrained
from exmed_bert.settings import FinetuneSettings

YEAR = 365  # days, the horizon of a pretrained model where none is asked for


@dataclass(frozen=True)
class Predicted:
    """Patients with a prediction at their last visit, and what it was made by.

    Attributes:
        patients: n of them.
        probabilities: (n,).
        title: the outcome and its horizon.
        network: the model, which knows the codes of the patients.
        collator: turns rows of the patients into what it takes.
        temperature: what recalibration divides the log odds by; 1 where it changes the risks otherwise.
    """

    patients: LabeledPatients
    probabilities: np.ndarray
    title: str
    network: ExMedBertForSequenceClassification
    collator: PromptCollator
    temperature: float = 1.0


def risks(
    folder: Path, source: PatientInput, endpoint: str | None, horizon_days: int | None, batch_size: int
) -> Predicted:
    """Return the risk of an outcome for each patient who can be predicted for.

    Args:
        folder: of a model.
        source: the patients.
        endpoint, horizon_days: what is asked for; None: the model's own, of time to event its longest horizon.
        batch_size: patients per pass.

    Raises:
        InputError: the model predicts something else, or none of the patients has a prediction.
    """
    if not (folder / FINETUNING).is_file():
        if endpoint is None:
            raise InputError(f"{folder}: is pretrained: expected an endpoint, or a fine-tuned model")
        settings = FinetuneSettings(
            model_dir=folder,
            predict_only=True,
            endpoint=endpoint,
            horizon_days=horizon_days or YEAR,
            eval_batch_size=batch_size,
        )
        found = predict_endpoint(settings, *read_pretrained(folder), source)
        return Predicted(found.cohort.patients, sigmoid(found.logits), found.task.title, found.network, found.collator)
    model, form, known = read_finetuned(folder)
    content = task_content(folder / FINETUNING, known)
    check_own(folder, content, known["title"], endpoint, horizon_days)
    settings = FinetuneSettings(model_dir=folder, predict_only=True)
    task = saved_task(folder / FINETUNING, content, settings)
    same_day = known.get("same_day", "include") == "include"
    patients = build(source, task, form, known["min_history"], settings.seed, same_day).patients
    model, _ = extend_outcome_vocabulary(model, form.vocabulary, patients.dataset.info.vocabulary, settings.seed)
    collator = prompt_collator(model.config, form.vocabulary, list(model.config.target_codes))
    logits = predict(model, LabeledRows(patients, np.arange(len(patients))), collator, batch_size)
    calibration, title = Calibration(known["temperature"], known["bias"]), str(known["title"])
    temperature = calibration.temperature
    if model.bins is not None:
        horizon = horizon_days or max(content["horizons"])
        logits = logit(risks_of(logits, model.bins, [horizon], content["gap_days"]))[:, 0]
        title, temperature = f"{title}, by {horizon:,} days", 1.0
    return Predicted(patients, calibration.probabilities(logits), title, model, collator, temperature)


def check_own(folder: Path, task: dict[str, Any], title: str, endpoint: str | None, horizon_days: int | None) -> None:
    """Refuse an endpoint or a horizon that a fine-tuned model does not predict.

    Raises:
        InputError, OptionError: it is another one, or no endpoint.
    """
    own = task.get("endpoint")
    if endpoint is not None and (own is None or set(Endpoint(endpoint).texts) != set(Endpoint(",".join(own)).texts)):
        raise InputError(f"{folder}: endpoint {endpoint!r}: the model predicts another outcome: {title}")
    if horizon_days is not None and "horizons" in task:  # of time to event, which has a risk at any horizon
        if horizon_days <= task["gap_days"]:
            raise InputError(f"{folder}: horizon_days {horizon_days}: expected more than the gap, {task['gap_days']}")
    elif horizon_days is not None and horizon_days != task.get("horizon_days"):
        raise InputError(f"{folder}: horizon_days {horizon_days}: the model predicts another outcome: {title}")
