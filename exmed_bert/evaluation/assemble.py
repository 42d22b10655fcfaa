"""`Results` from the scores of several models, recalibrated on validation and measured on test patients."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from exmed_bert.cohorts.labeled import SPLITS, TEST, UNLABELED, VALIDATION, LabeledPatients
from exmed_bert.console import progress
from exmed_bert.evaluation import calibration
from exmed_bert.evaluation.attainable import TrueRisks, compare_with_truth
from exmed_bert.evaluation.baselines import LABELS, BaselineResult
from exmed_bert.evaluation.bootstrap import RESAMPLES, PairedPredictions, mean_paired_differences, with_intervals
from exmed_bert.evaluation.calibration import Calibration
from exmed_bert.evaluation.censoring import HorizonOutcome
from exmed_bert.evaluation.follow_up import DEATH
from exmed_bert.evaluation.groups import by_group, groups
from exmed_bert.evaluation.metrics import METRICS, WITHOUT_DIRECTION, logit, measure, sigmoid
from exmed_bert.evaluation.results import CodeAttribution, CurvePoint, Difference, ModelResults, Results, SplitCount
from exmed_bert.evaluation.series import calibration_error_by_chance, plot_series
from exmed_bert.evaluation.small_cells import shareable, told_splits
from exmed_bert.evaluation.study import Study
from exmed_bert.reporting.small_cells import ALL, MinCell, as_count

_COMPARED = tuple(name for name in METRICS if name not in WITHOUT_DIRECTION)


@dataclass(frozen=True)
class ModelScores:
    """Scores of a model for all N patients.

    Attributes:
        name, label: key of the model, and its name for people.
        logits: (N,) log odds of label 1, not recalibrated; `metrics.logit` makes them of probabilities.
        budget: training and search in a line.
        details: goes into results.json as it is.
        calibration: what makes probabilities of the logits, of a model that was fitted to the labels of the validation
            patients too; None: what is fitted on these.
    """

    name: str
    label: str
    logits: np.ndarray
    budget: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    calibration: Calibration | None = None

    @classmethod
    def of_baseline(cls, result: BaselineResult) -> "ModelScores":
        """Take a baseline as `baselines.fit` returns it."""
        details = {
            "settings": result.settings,
            "trials": [asdict(trial) for trial in result.trials],
            "columns": result.columns,
            "seconds": result.seconds,
        }
        return cls(result.name, LABELS[result.name], logit(result.probabilities), result.budget, details)


@dataclass(frozen=True)
class Evaluation:
    """The results, and by model the recalibrated probabilities of all N patients."""

    results: Results
    probabilities: dict[str, np.ndarray]


def assemble(
    patients: LabeledPatients,
    models: Sequence[ModelScores],
    *,
    title: str,
    facts: Sequence[tuple[str, str]] = (),
    attrition: Sequence[tuple[str, int]] = (),
    notes: Sequence[str] = (),
    label_efficiency: Sequence[CurvePoint] = (),
    attributions: Sequence[CodeAttribution] = (),
    study: Study | None = None,
    outcome: HorizonOutcome | None = None,
    truth: TrueRisks | None = None,
    recalibrate: bool = True,
    log_odds_offset: float = 0.0,
    resamples: int = RESAMPLES,
    seed: int = 0,
    cells: MinCell = ALL,
) -> Evaluation:
    """Recalibrate every model on the validation patients and compute all metrics on the test patients.

    Args:
        patients: N histories with labels and splits.
        models: the first is compared with each of the others.
        title, facts, attrition, notes, label_efficiency, attributions, study: as in `Results`.
        outcome: of the N rows, where some are censored: it has their labels, and the weights where ``patients`` has
            none; those of the test patients are always estimated among these. None where all labels are known.
        truth: what the outcomes of the test patients were drawn from, None where that is not known.
        recalibrate: whether to recalibrate; if not, no validation patient is needed.
        log_odds_offset: added to the log odds by sampling training and validation patients by outcome.
        resamples, seed: of the bootstrap by patient.
        cells: which counts of patients are hidden, and with them what would tell of so few.

    Raises:
        ValueError: no test patient, or a score that is not finite.
    """
    validation, test = patients.rows(VALIDATION), patients.rows(TEST)
    splits = split_counts(patients)
    of_validation = None if patients.weights is None else patients.weights[validation]
    of_test = weights = weigh = None
    if outcome is not None:
        splits = _estimated(patients, outcome)
        if of_validation is None and recalibrate:
            of_validation = outcome.take(validation).weights()[0]
        of_test = outcome.take(test)
        weights, weigh = of_test.weights()[0], of_test.weights
        patients = replace(patients, labels=outcome.labels)
    labels = patients.labels[test]
    known = len(test) if of_test is None else int(of_test.known.sum())
    hashes = patients.dataset.columns["patient_hashes"].numpy()[test]
    parts = groups(patients, test)
    probabilities: dict[str, np.ndarray] = {}
    found: list[ModelResults] = []
    differences: list[Difference] = []
    for model in progress(models, label="Measuring", unit=" models"):
        if not np.isfinite(model.logits).all():
            raise ValueError(f"{model.label}: a score is not finite")
        fitted = model.calibration or Calibration()
        if recalibrate and model.calibration is None:
            fitted = calibration.fit(patients.labels[validation], model.logits[validation], of_validation)
        fitted = replace(fitted, bias=fitted.bias - log_odds_offset)
        probabilities[model.name] = fitted.probabilities(model.logits)
        ours = probabilities[model.name][test]
        found.append(
            ModelResults(
                name=model.name,
                label=model.label,
                budget=model.budget,
                metrics=with_intervals(labels, ours, hashes, resamples, seed, weigh=weigh),
                uncalibrated=measure(labels, sigmoid(model.logits[test]), weights),
                calibration=fitted,
                by_chance=calibration_error_by_chance(ours, seed, weights),
                groups=by_group(labels, ours, parts, hashes, resamples, seed, outcome=of_test),
                series=plot_series(labels, ours, cells, of_test) if 0 < labels.sum() < known else None,
                details=model.details,
                recalibrated=recalibrate and model.calibration is None,
            )
        )
        if len(found) > 1:
            both = PairedPredictions(labels, probabilities[models[0].name][test], ours, hashes, weigh)
            differing = mean_paired_differences([both], _COMPARED, resamples, seed)
            differences += [Difference(models[0].name, model.name, *item) for item in differing.items()]
    attainable = None
    if truth is not None:
        of_models = {name: own[test] for name, own in probabilities.items()}
        attainable = compare_with_truth(labels, truth, of_models, hashes, of_test, resamples, seed)
    results = Results(
        title=title,
        facts=tuple(facts),
        attrition=tuple(attrition),
        splits=splits,
        models=tuple(found),
        differences=tuple(differences),
        notes=(
            *notes,
            *(
                _censoring_notes(of_test, told_splits(splits, cells, attrition)[TEST], cells)
                if of_test is not None
                else ()
            ),
        ),
        resamples=resamples,
        label_efficiency=tuple(label_efficiency),
        attributions=tuple(attributions),
        study=study,
        attainable=attainable,
    )
    return Evaluation(shareable(results, cells), probabilities)


def _censoring_notes(outcome: HorizonOutcome, told: SplitCount, cells: MinCell) -> list[str]:
    """Return how many test patients are censored, and how far the others have to stand for them."""
    censored = as_count(told.censored)
    died = int(((outcome.follow_up.events == DEATH) & (outcome.follow_up.days <= outcome.horizon)).sum())
    dead, _ = cells.parts([died, int(outcome.known.sum() - outcome.labels.sum()) - died])
    return [
        f"{censored} test patients are censored before the end of {outcome.horizon:g} days. The others count for them, "
        "by the inverse of the probability of not being censored (Kaplan-Meier): one patient for up to "
        f"{outcome.largest_weight:.1f}, all together as {outcome.effective_patients:,.0f} of equal weight would. "
        f"{dead if died else 'None'} of them die before the outcome, and count as patients without it."
    ]


def split_counts(patients: LabeledPatients) -> tuple[SplitCount, ...]:
    """Return how many rows of each split there are, with the outcome and censored."""
    found = []
    for split, name in enumerate(SPLITS):
        labels = patients.labels[patients.rows(split)]
        found.append(SplitCount(name, len(labels), int((labels == 1).sum()), int((labels == UNLABELED).sum())))
    return tuple(found)


def _estimated(patients: LabeledPatients, outcome: HorizonOutcome) -> tuple[SplitCount, ...]:
    """Return the same of rows some of whom are censored, with the share that has the outcome."""
    labels = np.where(outcome.known, outcome.labels, UNLABELED)
    found = []
    for split, counted in enumerate(split_counts(replace(patients, labels=labels))):
        rows = patients.rows(split)
        own = None if split == TEST or patients.weights is None else patients.weights[rows]
        weights = outcome.take(rows).weights()[0] if own is None and len(rows) else own
        if weights is not None and weights.any():
            counted = replace(counted, risk=float(np.average(outcome.labels[rows], weights=weights)))
        found.append(counted)
    return tuple(found)
