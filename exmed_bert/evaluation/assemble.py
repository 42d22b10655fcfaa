"""`Results` from the scores of several models, recalibrated on validation and measured on test patients."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from exmed_bert.cohorts.labeled import SPLITS, TEST, VALIDATION, LabeledPatients
from exmed_bert.console import progress
from exmed_bert.evaluation import calibration
from exmed_bert.evaluation.baselines import LABELS, BaselineResult
from exmed_bert.evaluation.bootstrap import RESAMPLES, PairedPredictions, mean_paired_differences, with_intervals
from exmed_bert.evaluation.groups import by_group, groups
from exmed_bert.evaluation.metrics import METRICS, WITHOUT_DIRECTION, logit, measure, sigmoid
from exmed_bert.evaluation.results import CodeAttribution, CurvePoint, Difference, ModelResults, Results, SplitCount
from exmed_bert.evaluation.series import calibration_error_by_chance, plot_series
from exmed_bert.evaluation.small_cells import shareable
from exmed_bert.evaluation.study import Study
from exmed_bert.reporting.small_cells import ALL, MinCell

_COMPARED = tuple(name for name in METRICS if name not in WITHOUT_DIRECTION)


@dataclass(frozen=True)
class ModelScores:
    """Scores of a model for all N patients.

    Attributes:
        name, label: key of the model, and its name for people.
        logits: (N,) log odds of label 1, not recalibrated; `metrics.logit` makes them of probabilities.
        budget: training and search in a line.
        details: goes into results.json as it is.
    """

    name: str
    label: str
    logits: np.ndarray
    budget: str = ""
    details: dict[str, Any] = field(default_factory=dict)

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
        log_odds_offset: added to the log odds by sampling training and validation patients by outcome.
        resamples, seed: of the bootstrap by patient.
        cells: which counts of patients are hidden, and with them what would tell of so few.

    Raises:
        ValueError: no test patient, or a score that is not finite.
    """
    validation, test = patients.rows(VALIDATION), patients.rows(TEST)
    labels = patients.labels[test]
    hashes = patients.dataset.columns["patient_hashes"].numpy()[test]
    parts = groups(patients, test)
    probabilities: dict[str, np.ndarray] = {}
    found: list[ModelResults] = []
    differences: list[Difference] = []
    for model in progress(models, label="Measuring", unit=" models"):
        if not np.isfinite(model.logits).all():
            raise ValueError(f"{model.label}: a score is not finite")
        fitted = calibration.fit(patients.labels[validation], model.logits[validation])
        fitted = replace(fitted, bias=fitted.bias - log_odds_offset)
        probabilities[model.name] = fitted.probabilities(model.logits)
        ours = probabilities[model.name][test]
        found.append(
            ModelResults(
                name=model.name,
                label=model.label,
                budget=model.budget,
                metrics=with_intervals(labels, ours, hashes, resamples, seed),
                uncalibrated=measure(labels, sigmoid(model.logits[test])),
                calibration=fitted,
                by_chance=calibration_error_by_chance(ours, seed),
                groups=by_group(labels, ours, parts, hashes, resamples, seed),
                series=plot_series(labels, ours, cells) if 0 < labels.sum() < len(labels) else None,
                details=model.details,
            )
        )
        if len(found) > 1:
            both = PairedPredictions(labels, probabilities[models[0].name][test], ours, hashes)
            differing = mean_paired_differences([both], _COMPARED, resamples, seed)
            differences += [Difference(models[0].name, model.name, *item) for item in differing.items()]
    results = Results(
        title=title,
        facts=tuple(facts),
        attrition=tuple(attrition),
        splits=split_counts(patients),
        models=tuple(found),
        differences=tuple(differences),
        notes=tuple(notes),
        resamples=resamples,
        label_efficiency=tuple(label_efficiency),
        attributions=tuple(attributions),
        study=study,
    )
    return Evaluation(shareable(results, cells), probabilities)


def split_counts(patients: LabeledPatients) -> tuple[SplitCount, ...]:
    """Return how many rows of each split there are, and how many of them have the outcome."""
    numbered = ((name, patients.rows(split)) for split, name in enumerate(SPLITS))
    return tuple(SplitCount(name, len(rows), int(patients.labels[rows].sum())) for name, rows in numbered)
