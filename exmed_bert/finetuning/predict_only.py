"""Score patients whose outcome nobody knows, with a model that was fine-tuned before."""

from typing import Any

import numpy as np

from exmed_bert import console
from exmed_bert.cohorts.cohort import FirstOccurrence, GivenLabels, ModelInput, ProlongedStay, Task, build
from exmed_bert.cohorts.collator import LabeledRows, PromptCollator
from exmed_bert.cohorts.endpoints import Endpoint
from exmed_bert.cohorts.index_dates import IndexRule
from exmed_bert.cohorts.label_file import read_labels
from exmed_bert.config import FinetuneSettings
from exmed_bert.console import InputError, OptionError
from exmed_bert.evaluation.calibration import Calibration
from exmed_bert.files import make_folder, read_json
from exmed_bert.finetuning.outcome_model import extend_outcome_vocabulary, predict
from exmed_bert.finetuning.results import FINETUNING, write_predictions
from exmed_bert.models import ExMedBertForSequenceClassification
from exmed_bert.models.folder import read_vocabulary


def predict_only(settings: FinetuneSettings) -> None:
    """Write predictions.parquet: patient, index date, probability.

    Raises:
        InputError, OptionError: the model was not fine-tuned, or nobody is left.
    """
    folder = settings.model_dir
    if settings.output_dir.resolve() == folder.resolve():
        raise OptionError(f"--output-dir: {folder} holds the model and its own predictions, expected another folder")
    known = _read(settings)
    form = ModelInput(read_vocabulary(folder), known["max_length"], known["age_unit"], None)
    task = _task(settings, known)
    cohort = build(settings.input, task, form, known["min_history"], settings.seed)
    try:
        model = ExMedBertForSequenceClassification.from_pretrained(folder)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{folder}: --model-dir: cannot be loaded: {error}") from None
    patients = cohort.patients
    model, estimated = extend_outcome_vocabulary(
        model, form.vocabulary, patients.dataset.info.vocabulary, settings.seed
    )
    entities = sorted({int(form.vocabulary.entities[code]) for code in model.config.target_codes})
    collator = PromptCollator(entities, model.config.max_position_embedding - 1)
    logits = predict(model, LabeledRows(patients, np.arange(len(patients))), collator, settings.eval_batch_size)
    probabilities = Calibration(known["temperature"], known["bias"]).probabilities(logits)
    make_folder(settings.output_dir)
    path = settings.output_dir / "predictions.parquet"
    labels = patients.labels if isinstance(task, GivenLabels) else None
    write_predictions(path, patients, probabilities, None, labels)
    rows: list[tuple[str, Any]] = list(cohort.attrition)
    if cohort.new_codes:
        rows.append(("codes that the model never saw", len(cohort.new_codes)))
        rows.append(("  of them with relatives to start from", estimated))
    rows.append(("mean probability", f"{float(probabilities.mean()):.4f}"))
    console.table(f"{known['title']}: {settings.input}", rows)
    console.table("Written", [("predictions", path)])


def _read(settings: FinetuneSettings) -> dict[str, Any]:
    path = settings.model_dir / FINETUNING
    if not path.is_file():
        raise InputError(
            f"{settings.model_dir}: --model-dir: holds no {FINETUNING}, expected the --output-dir of a fine-tuning"
        )
    content = read_json(path)
    try:
        for name in ("title", "task", "endpoint", "min_history", "max_length", "age_unit"):
            content[name]
        content["temperature"], content["bias"] = float(content["temperature"]), float(content["bias"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: is damaged: {error}") from None
    return content


def _task(settings: FinetuneSettings, known: dict[str, Any]) -> Task:
    """Ask at the last visit, unless --index-date or --labels name other days."""
    if settings.labels is not None:
        return GivenLabels(read_labels(settings.labels))
    if known["endpoint"] is None:
        return ProlongedStay(outcomes=False)
    rule = IndexRule.parse(settings.index_date or "last-visit")
    endpoint = Endpoint(",".join(known["endpoint"]))
    return FirstOccurrence(endpoint, rule, known["horizon_days"], 0, settings.seed, outcomes=False)
