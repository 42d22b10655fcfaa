"""Prediction of unknown outcomes with a model that was fine-tuned before, or one that forecasts."""

from pathlib import Path
from typing import Any

import numpy as np

from exmed_bert import console
from exmed_bert.cohorts.cohort import build
from exmed_bert.cohorts.collator import LabeledRows
from exmed_bert.cohorts.labeled import UNLABELED
from exmed_bert.cohorts.tasks.registry import saved_task
from exmed_bert.console import InputError
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.data.reading_report import date_rows
from exmed_bert.evaluation.calibration import Calibration
from exmed_bert.evaluation.metrics import logit
from exmed_bert.evaluation.small_cells import told_attrition
from exmed_bert.files import make_folder
from exmed_bert.finetuning.outcome_model import extend_outcome_vocabulary, predict
from exmed_bert.finetuning.over_time import risks_of
from exmed_bert.finetuning.predictions import columns_of, columns_over_time, write_predictions
from exmed_bert.finetuning.prompt import prompt_collator
from exmed_bert.finetuning.summary import new_codes
from exmed_bert.finetuning.zero_shot import zero_shot
from exmed_bert.models.folder import FINETUNING, read_finetuned
from exmed_bert.settings import FinetuneSettings
from exmed_bert.swap import settle
from exmed_bert.training.hardware import on_best_device


def predict_only(settings: FinetuneSettings) -> None:
    """Write predictions.parquet: patient, index date, and the probability or the risks at the model's horizons.

    Of a pretrained model that forecasts, `zero_shot` does.

    Raises:
        InputError, OptionError: the model was not fine-tuned and forecasts nothing, or no patient is left.
    """
    folder = settings.model_dir
    settle(folder)
    if not (folder / FINETUNING).is_file():
        zero_shot(settings)
        return
    model, form, known = read_finetuned(folder)
    task = saved_task(folder / FINETUNING, task_content(folder / FINETUNING, known), settings)
    source = PatientInput(settings.input, settings, form.static_columns)
    same_day = known.get("same_day", "include") == "include"
    cohort = build(source, task, form, known["min_history"], settings.seed, same_day)
    task.check(source, cohort)
    patients = cohort.patients
    model, estimated = extend_outcome_vocabulary(
        model, form.vocabulary, patients.dataset.info.vocabulary, settings.seed
    )
    collator = prompt_collator(model.config, form.vocabulary, list(model.config.target_codes))
    logits = predict(
        on_best_device(model), LabeledRows(patients, np.arange(len(patients))), collator, settings.eval_batch_size
    )
    make_folder(settings.output_dir)
    labels = None if (patients.labels == UNLABELED).all() else patients.labels
    calibration, mean = Calibration(known["temperature"], known["bias"]), list[tuple[str, Any]]()
    if model.bins is None:
        probabilities = calibration.probabilities(logits)
        columns = columns_of(probabilities, labels)
        mean = [("mean probability", f"{float(probabilities.mean()):.4f}")]
    else:
        horizons, gap = known["task"]["horizons"], known["task"]["gap_days"]
        risks = calibration.probabilities(logit(risks_of(logits, model.bins, horizons, gap)))
        columns = columns_over_time(horizons, risks, None)
        mean = [
            (f"mean risk by {horizon} days", f"{float(risks[:, i].mean()):.4f}") for i, horizon in enumerate(horizons)
        ]
    path = write_predictions(settings.output_dir, patients, columns)
    attrition = told_attrition(cohort.attrition, cohort.cells)
    dates = date_rows(source.summary, settings.keep_implausible_dates, cohort.cells)
    rows: list[tuple[str, Any]] = [*attrition, *dates, *new_codes(len(cohort.new_codes), estimated)]
    console.table(f"{known['title']}: {source}", rows + mean)
    console.table("Written", [("predictions", path)])


def task_content(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Return the task of a finetuning.json, the ``path``; earlier releases name it in keys of their own."""
    if isinstance(content["task"], dict):
        return content["task"]
    try:
        if content["endpoint"]:
            keys = ("endpoint", "horizon_days")
            return {"name": "first-occurrence"} | {key: content[key] for key in keys}
    except KeyError as error:
        raise InputError(f"{path}: is damaged: holds no {error.args[0]}") from None
    return {"name": content["task"] or "own-labels"}
