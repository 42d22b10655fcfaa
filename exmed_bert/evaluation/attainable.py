"""Attainable performance: the true risks of generated patients, measured like a model's and beside the models'."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from exmed_bert.cohorts.labeled import LabeledPatients
from exmed_bert.cohorts.tasks.base import GeneratedOutcome
from exmed_bert.console import InputError
from exmed_bert.evaluation.bootstrap import (
    RESAMPLES,
    Estimate,
    PairedPredictions,
    mean_paired_difference,
    with_intervals,
)
from exmed_bert.evaluation.censoring import HorizonOutcome
from exmed_bert.reporting.small_cells import Counted
from exmed_bert.synthetic.people import YEAR
from exmed_bert.synthetic.truth import attainable, of_prolonged_stays, truth

MEASURED = ("auroc", "auprc", "brier", "calibration_slope", "calibration_intercept", "calibration_error")


@dataclass(frozen=True)
class TrueRisks:
    """What the outcomes of N rows were drawn from.

    Attributes:
        at_risk: (N,) bool; the others had the condition before they were first seen, though no code says so.
        risk: (N,) probability of the outcome, of those at risk.
    """

    at_risk: np.ndarray
    risk: np.ndarray


@dataclass(frozen=True)
class Attainable:
    """The true risks as a model, on the test patients who are at risk, and the models on the same patients.

    Attributes:
        patients, events: test patients at risk, and those of them with the outcome.
        others, other_events: the same of those who are not at risk.
        expected: AUROC and Brier score of the true risks on average over draws of such patients.
        true: their metrics on these patients.
        models: the metrics of each model, by its key.
        behind: by model the AUROC of the true risks minus its own, on the same resamples; None where not defined.
    """

    patients: Counted
    events: Counted
    others: Counted
    other_events: Counted
    expected: dict[str, float]
    true: dict[str, Estimate]
    models: dict[str, dict[str, Estimate]]
    behind: dict[str, Estimate | None]


def true_risks(meta: Mapping[str, Any], outcome: GeneratedOutcome, patients: LabeledPatients) -> TrueRisks:
    """Return the true risks of rows of generated patients.

    Where a cohort holds nobody who dies before the horizon, since only those who stay are in it, the risk is that of
    those who do not die.

    Args:
        meta: what the generator says of the population.
        outcome: what is predicted.
        patients: N rows.

    Raises:
        InputError: the risks are not known.
    """
    ids = [patients.dataset.patient_id(row) for row in range(len(patients))]
    if not all(str(one).isdecimal() for one in ids):
        raise InputError("patients are not numbered as the generator does")
    numbers = np.array([int(one) for one in ids], dtype=np.int64)
    if outcome.codes is None:
        return TrueRisks(np.ones(len(numbers), dtype=bool), of_prolonged_stays(meta, numbers))
    days, index = outcome.until - outcome.after, patients.index_days.astype(np.int64)
    known = truth(meta, outcome.codes, numbers, index, days)
    dies = (patients.timeline.death_days < index + outcome.until).any()
    return TrueRisks(known.at_risk, known.risk if dies else -np.expm1(-known.hazard * days / YEAR))


def compare_with_truth(
    labels: np.ndarray,
    known: TrueRisks,
    probabilities: Mapping[str, np.ndarray],
    patient_hashes: np.ndarray,
    outcome: HorizonOutcome | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Attainable | None:
    """Measure true risks and models on the patients who are at risk; None where they are of one class.

    Args:
        labels: (N,) as of ``outcome`` where some are censored.
        known: of the same N rows.
        probabilities: by model, (N,) each.
        patient_hashes, resamples, seed: as in `bootstrap.with_intervals`.
        outcome: gives weights for censoring; None where all labels are known.
    """
    own = known.at_risk
    mine, risk, hashes = labels[own], known.risk[own], patient_hashes[own]
    of_own = None if outcome is None else outcome.take(own)
    certain = len(mine) if of_own is None else int(of_own.known.sum())
    if not 0 < mine.sum() < certain:
        return None
    weigh = None if of_own is None else of_own.weights

    def measured(scores: np.ndarray) -> dict[str, Estimate]:
        return with_intervals(mine, scores, hashes, resamples, seed, MEASURED, weigh)

    def behind(scores: np.ndarray) -> Estimate | None:
        pair = PairedPredictions(mine, risk, scores[own], hashes, weigh)
        return mean_paired_difference([pair], "auroc", resamples, seed)

    return Attainable(
        patients=len(mine),
        events=int(mine.sum()),
        others=len(labels) - len(mine),
        other_events=int(labels.sum() - mine.sum()),
        expected=attainable(risk),
        true=measured(risk),
        models={name: measured(scores[own]) for name, scores in probabilities.items()},
        behind={name: behind(scores) for name, scores in probabilities.items()},
    )
