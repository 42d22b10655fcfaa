"""Facts, notes and label-efficiency curve of a fine-tuning's report."""

from collections.abc import Mapping
from datetime import timedelta

import numpy as np
import sklearn
import torch

from exmed_bert import __version__
from exmed_bert.cohorts.labeled import TEST, UNLABELED, Cohort, LabeledPatients
from exmed_bert.cohorts.model_input import ModelInput
from exmed_bert.cohorts.tasks.base import Task
from exmed_bert.data.patient import EPOCH
from exmed_bert.data.vocabulary import UNK
from exmed_bert.evaluation import baselines
from exmed_bert.evaluation.metrics import Predictions, sigmoid
from exmed_bert.evaluation.results import CurvePoint
from exmed_bert.evaluation.study import Study
from exmed_bert.finetuning.plan import Subset, draw_subset
from exmed_bert.finetuning.runs import Finished, Run
from exmed_bert.reporting.content import Caution
from exmed_bert.settings import FinetuneSettings, listed

LABELS = {"fine-tuned": "ExMed-BERT", "scratch": "ExMed-BERT from scratch"}  # name of each kind of run


def facts(settings: FinetuneSettings, task: Task, cohort: Cohort, run: Run) -> list[tuple[str, str]]:
    """Return names and values: the input, the task, the model; ``run`` is the one whose model is kept."""
    found = [*of_cohort(settings, task, cohort), ("head", settings.head), ("seed", str(run.seed))]
    if cohort.new_codes:
        found.append(("codes that the model never saw", f"{len(cohort.new_codes):,}"))
    return found


def of_cohort(settings: FinetuneSettings, task: Task, cohort: Cohort) -> list[tuple[str, str]]:
    """Return names and values of the input and the task."""
    found = [("patients", listed(settings.input)), ("pretrained model", str(settings.model_dir))]
    found += [*task.description, ("observation", observation(cohort))]
    return [*found, ("events of the prediction day", "in the history" if cohort.same_day else "not in the history")]


def study(settings: FinetuneSettings, task: Task, cohort: Cohort, form: ModelInput) -> Study:
    """Return what the run knows of its study, for the section that reporting guidelines ask for."""
    patients = cohort.patients
    first, last = (EPOCH + timedelta(days=int(day)) for day in (patients.index_days.min(), patients.index_days.max()))
    description = "; ".join(f"{name}: {value}" for name, value in task.description)
    columns = [column.name for column in form.static_columns]
    unknown = [(name, int((patients.dataset.static_ids(name) == UNK).sum())) for name in columns]
    kind = "Synthetic patients" if cohort.generated else "Patients"
    return Study(
        source=f"{kind} of {listed(settings.input)}.",
        index_dates=f"{first.year} to {last.year}",
        outcome=f"{task.title}{f' ({description})' if description else ''}.",
        predictors=(
            f"The codes up to the index date, the latest {form.max_length} at the most, with the visits and ages at "
            f"which they were given, and {', '.join(columns)}."
        ),
        missing=[(name, cohort.cells.count(count).plain) for name, count in unknown],
        missing_handling=(
            "What is not known is a category of its own, and codes that the model never saw start from their relatives "
            "or are read as unknown; nothing is imputed."
        ),
        analysis=(
            f"A BERT over medical codes, pretrained without labels ({settings.model_dir}) and fine-tuned "
            f"({settings.head} head); seed {settings.seed}."
        ),
        censoring=_censoring(settings, task, cohort),
        software=f"exmed-bert {__version__}, torch {torch.__version__}, scikit-learn {sklearn.__version__}.",
        generated=cohort.generated,
    )


def _censoring(settings: FinetuneSettings, task: Task, cohort: Cohort) -> str:
    """Return what becomes of those whose observation ends early."""
    labels = cohort.patients.labels
    censored = int((labels == UNLABELED).sum())
    if not censored:
        return task.censoring
    told, _ = cohort.cells.parts([censored, len(labels) - censored])
    by = f"The probability of being observed is estimated by {settings.censoring_strata}. "
    return f"{task.censoring} {by if settings.censoring_strata else ''}{told} of {len(labels):,} are censored."


def observation(cohort: Cohort) -> str:
    """Return what begins and what ends the observation of a cohort's patients, the most frequent first."""
    told = [
        f"{begin} to {end}" + ("" if cohort.cells.limit else f" ({count:,})")
        for (begin, end), count in cohort.observation.most_common()
    ]
    return "; ".join(told)


def notes(task: Task, form: ModelInput, subset: Subset) -> list[str]:
    """Return what a reader has to know before the results; ``subset`` is that of the run whose model is kept."""
    if form.pretraining is None:
        found: list[str] = [
            Caution(
                "Which patients the pretraining was trained on is unknown. It may have seen the futures of test "
                "patients, so the results of the fine-tuned model may be too good."
            )
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
    test, known = patients.rows(TEST), patients.known_rows(TEST)
    labels, weights = patients.labels[known], patients.weights_of(known)

    def auroc(probabilities: np.ndarray) -> float:
        return Predictions(labels, probabilities).measure(weights)["auroc"]

    points = []
    for run, finished in runs.items():
        of_known = sigmoid(finished.logits[np.isin(test, known)])
        points.append(CurvePoint(run.kind, finished.labels, run.seed, auroc(of_known)))
    for run, fit in fitted.items():
        count = draw_subset(patients, run.size, run.seed).labels
        points.append(CurvePoint(run.kind, count, run.seed, auroc(fit.probabilities[known])))
    return points
