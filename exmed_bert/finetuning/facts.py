"""Facts, notes and label-efficiency curve of a fine-tuning's report."""

from collections.abc import Mapping

import numpy as np

from exmed_bert.cohorts.labeled import TEST, Cohort, LabeledPatients
from exmed_bert.cohorts.model_input import ModelInput
from exmed_bert.cohorts.tasks.base import Task
from exmed_bert.evaluation import baselines
from exmed_bert.evaluation.metrics import Predictions, sigmoid
from exmed_bert.evaluation.results import CurvePoint
from exmed_bert.finetuning.plan import Subset, draw_subset
from exmed_bert.finetuning.runs import Finished, Run
from exmed_bert.settings import FinetuneSettings, listed

LABELS = {"fine-tuned": "ExMed-BERT", "scratch": "ExMed-BERT from scratch"}  # name of each kind of run


def facts(settings: FinetuneSettings, task: Task, cohort: Cohort, run: Run) -> list[tuple[str, str]]:
    """Return names and values: the input, the task, the model; ``run`` is the one whose model is kept."""
    found = [("patients", listed(settings.input)), ("pretrained model", str(settings.model_dir))]
    found += [*task.description, ("head", settings.head), ("seed", str(run.seed))]
    if cohort.new_codes:
        found.append(("codes that the model never saw", f"{len(cohort.new_codes):,}"))
    return found


def notes(task: Task, form: ModelInput, subset: Subset) -> list[str]:
    """Return what a reader has to know before the results; ``subset`` is that of the run whose model is kept."""
    if form.pretraining is None:
        found = [
            "Which patients the pretraining was trained on is unknown. It may have seen the futures of test patients, "
            "so the results of the fine-tuned model may be too good."
        ]
    else:
        found = ["Validation and test patients are among those that the pretraining never trained on."]
        if any(rule.from_input for rule in form.pretraining):
            found.append(
                "The splits are those of the input: train, tuning (validation) and held_out (test); whoever else a "
                "pretraining was trained on is a training patient."
            )
    found += task.notes(form)
    if subset.log_odds_offset:
        found.append(
            "Training and validation patients were sampled so that a tenth have the outcome; what that adds to the log "
            f"odds, {subset.log_odds_offset:.2f}, is taken off all models' predictions."
        )
    return found


def curve(
    patients: LabeledPatients, runs: Mapping[Run, Finished], fitted: Mapping[Run, baselines.BaselineResult]
) -> list[CurvePoint]:
    """Return the test AUROC of every run, where there is more than one number of labels or one seed.

    Args:
        patients: the cohort.
        runs: of the network.
        fitted: the baselines, each as the run with its name for a kind.
    """
    if len({(run.size, run.seed) for run in runs}) == 1:
        return []
    test = patients.rows(TEST)
    labels = patients.labels[test]
    points = []
    for run, finished in runs.items():
        auroc = _auroc(labels, sigmoid(finished.logits))
        points.append(CurvePoint(run.kind, finished.labels, run.seed, auroc))
    for run, fit in fitted.items():
        count = len(draw_subset(patients, run.size, run.seed).train)
        points.append(CurvePoint(run.kind, count, run.seed, _auroc(labels, fit.probabilities[test])))
    return points


def _auroc(labels: np.ndarray, probabilities: np.ndarray) -> float:
    return Predictions(labels, probabilities).measure()["auroc"]
