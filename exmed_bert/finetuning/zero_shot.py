"""Risks of an endpoint from a pretrained model that forecasts, without any label.

The model gives the hazard of each code, group of codes and death at every time after the history. The endpoint's risk
is that of the first of its codes within the horizon, before death. Where what followed is known of patients that the
pretraining never saw, the risks are evaluated as they are: nothing is fitted to these.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from exmed_bert import console
from exmed_bert.cohorts.cohort import build, subset
from exmed_bert.cohorts.collator import LabeledRows, PromptCollator
from exmed_bert.cohorts.endpoints import Endpoint
from exmed_bert.cohorts.index_dates import IndexRule
from exmed_bert.cohorts.labeled import TEST, TRAIN, UNLABELED, Cohort, LabeledPatients
from exmed_bert.cohorts.model_input import ModelInput
from exmed_bert.cohorts.tasks.base import prediction_rule
from exmed_bert.cohorts.tasks.first_occurrence import FirstOccurrence
from exmed_bert.console import InputError, OptionError
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.data.reading_report import date_rows
from exmed_bert.evaluation.assemble import ModelScores, assemble
from exmed_bert.evaluation.censoring import HorizonOutcome
from exmed_bert.evaluation.follow_up import FollowUp
from exmed_bert.evaluation.metrics import sigmoid
from exmed_bert.evaluation.results import Results
from exmed_bert.evaluation.results_page import write_report
from exmed_bert.evaluation.small_cells import told_attrition
from exmed_bert.files import make_folder
from exmed_bert.finetuning import facts
from exmed_bert.finetuning.outcome_model import extend_vocabulary, outcome_model, predict
from exmed_bert.finetuning.predictions import columns_of, write_predictions
from exmed_bert.finetuning.prompt import Prompt, prompt_collator
from exmed_bert.finetuning.results import known_risks
from exmed_bert.finetuning.summary import new_codes
from exmed_bert.models import ExMedBertForMaskedLM, ExMedBertForSequenceClassification
from exmed_bert.models.folder import read_pretrained
from exmed_bert.reporting.content import Caution
from exmed_bert.settings import FinetuneSettings
from exmed_bert.training.hardware import on_best_device

NAME, LABEL = "zero-shot", "ExMed-BERT without labels"


@dataclass(frozen=True)
class ZeroShot:
    """Patients with the log odds of an endpoint.

    Attributes:
        task: the endpoint, index dates, gap and horizon.
        cohort: the patients; those who are censored have no label.
        logits: (N,) of the cohort's rows.
        new, estimated: how many codes the model never saw, and how many of them it has relatives of.
        network, collator: what gave the log odds, and what turns rows of the patients into what it takes.
    """

    task: FirstOccurrence
    cohort: Cohort
    logits: np.ndarray
    new: int
    estimated: int
    network: ExMedBertForSequenceClassification
    collator: PromptCollator


def zero_shot(settings: FinetuneSettings) -> None:
    """Write predictions.parquet and, where outcomes are known, the report.

    Raises:
        InputError, OptionError: the model makes no forecasts or does not know the endpoint, or no patient is left.
    """
    model, form = read_pretrained(settings.model_dir)
    source = PatientInput(settings.input, settings, form.static_columns)
    found = predict_endpoint(settings, model, form, source)
    cohort, task = found.cohort, found.task
    probabilities, patients = sigmoid(found.logits), cohort.patients
    evaluated = known_outcome(task, patients)
    make_folder(settings.output_dir)
    known = None if (patients.labels == UNLABELED).all() else patients.labels
    written = [("predictions", write_predictions(settings.output_dir, patients, columns_of(probabilities, known)))]
    rows: list[tuple[str, Any]] = [*told_attrition(cohort.attrition, cohort.cells)]
    rows += date_rows(source.summary, settings.keep_implausible_dates, cohort.cells)
    rows += new_codes(found.new, found.estimated)
    rows.append(("mean probability", f"{float(probabilities.mean()):.4f}"))
    console.table(f"{task.title}: {source}", rows)
    if evaluated is not None:
        results = _evaluate(settings, form, found, *evaluated)
        write_report(settings.output_dir, results)
        measured = results.models[0].metrics
        shown = (("AUROC", "auroc"), ("calibration slope", "calibration_slope"), ("Brier score", "brier"))
        figures = [(label, f"{measured[name].value:.4f}") for label, name in shown if name in measured]
        console.table(f"{results.splits[TEST].patients:,} patients that the pretraining never saw", figures)
        written.insert(0, ("report", settings.output_dir / "report.html"))
    console.table("Written", written)


def predict_endpoint(
    settings: FinetuneSettings, model: ExMedBertForMaskedLM, form: ModelInput, source: PatientInput
) -> ZeroShot:
    """Return the log odds of an endpoint for all patients who have not had it.

    Args:
        settings: endpoint, index dates, gap and horizon.
        model, form: pretrained, and the form in which it takes histories.
        source: the patients.

    Raises:
        InputError, OptionError: as `zero_shot`.
    """
    if not model.config.forecasts_hazards:
        raise InputError(
            f"{settings.model_dir}: --model-dir: forecasts no hazards, expected a model of a pretraining with "
            "--forecast-prob above 0, or the --output-dir of a fine-tuning"
        )
    task = _task(settings)
    cohort = build(source, task, form, settings.min_history, settings.seed, same_day=settings.same_day == "include")
    patients = cohort.patients
    pretrained = extend_vocabulary(model, form.vocabulary, patients.dataset.info.vocabulary, settings.seed)
    task.target_codes(pretrained.vocabulary)
    task.endpoint.resolve()
    prompt = Prompt.of(task, pretrained.model.config, pretrained.vocabulary)
    if not prompt.targets:
        raise InputError(f"{settings.model_dir}: --endpoint {task.endpoint.text}: the model knows no such code")
    outcome = outcome_model(pretrained, "ffn", prompt, from_scratch=False, seed=settings.seed)
    collator = prompt_collator(outcome.config, pretrained.vocabulary, prompt.targets)
    network = on_best_device(outcome)
    logits = predict(network, LabeledRows(patients, np.arange(len(patients))), collator, settings.eval_batch_size)
    return ZeroShot(task, cohort, logits, pretrained.new, pretrained.estimated, network, collator)


def _task(settings: FinetuneSettings) -> FirstOccurrence:
    if settings.endpoint is None:
        raise OptionError("--endpoint: is missing; a model that was not fine-tuned needs to know what to predict")
    if settings.washout_days:
        raise OptionError(
            f"--washout-days: {settings.washout_days} of a model that was not fine-tuned, which forecasts first "
            "occurrences; expected 0"
        )
    if settings.gap_days >= settings.horizon_days:
        raise OptionError(f"--gap-days: {settings.gap_days} must be less than --horizon-days, {settings.horizon_days}")
    endpoint, rule = Endpoint(settings.endpoint, settings.endpoints), prediction_rule(settings)
    horizon, gap = settings.horizon_days, settings.gap_days
    if rule.kind in ("last-visit", "fixed"):  # a prediction for everyone, whether or not anything is known of it
        return FirstOccurrence(endpoint, rule, horizon, gap, outcomes=False)
    rule = IndexRule.parse(str(rule), horizon, settings.seed, settings.min_observation_days, gap)
    return FirstOccurrence(endpoint, rule, horizon, gap, keep_censored=True)


def known_outcome(task: FirstOccurrence, patients: LabeledPatients) -> tuple[np.ndarray, HorizonOutcome] | None:
    """Return the rows of patients that no pretraining has seen and that are observed after the gap, and what followed.

    None where that says nothing of the risk.
    """
    start, followed = patients.index_days.astype(np.int64) + task.gap, patients.timeline
    at_risk = (followed.observed_until >= start) & (followed.outcome_days > start)
    rows = np.flatnonzero((patients.splits != TRAIN) & at_risk)
    if not len(rows):
        return None
    outcome = HorizonOutcome(FollowUp.of(followed.take(rows), start[rows]), task.horizon - task.gap)
    return (rows, outcome) if 0 < outcome.labels.sum() < outcome.known.sum() else None


def _evaluate(
    settings: FinetuneSettings, form: ModelInput, found: ZeroShot, rows: np.ndarray, outcome: HorizonOutcome
) -> Results:
    task, patients = found.task, subset(found.cohort.patients, rows)
    cohort = replace(found.cohort, patients=replace(patients, splits=np.full(len(rows), TEST, dtype=np.int8)))
    outcomes = [] if task.generated_outcome is None else [task.generated_outcome]
    truth, unknown = known_risks(cohort, outcomes)
    return assemble(
        cohort.patients,
        [ModelScores(NAME, LABEL, found.logits[rows], "pretrained without labels; nothing is fitted to outcomes")],
        title=task.title,
        facts=facts.of_cohort(settings, task, cohort),
        attrition=cohort.attrition,
        notes=[*_notes(form), *unknown],
        outcome=outcome,
        truth=truth[0] if truth else None,
        recalibrate=False,
        seed=settings.seed,
        cells=cohort.cells,
    ).results


def _notes(form: ModelInput) -> Sequence[str]:
    if form.pretraining is None:
        return [
            Caution(
                "Which patients the pretraining was trained on is unknown. It may have seen the futures of these, so "
                "the results may be too good."
            )
        ]
    return ["All patients here are among those that the pretraining never trained on."]
