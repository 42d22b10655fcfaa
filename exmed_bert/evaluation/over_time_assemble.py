"""`OverTimeResults` from the risks of several models, recalibrated on validation and measured on test patients."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from exmed_bert.cohorts.labeled import TEST, VALIDATION, LabeledPatients
from exmed_bert.console import InputError, progress
from exmed_bert.evaluation.assemble import split_counts
from exmed_bert.evaluation.bootstrap import RESAMPLES, Estimate
from exmed_bert.evaluation.calibration import Calibration
from exmed_bert.evaluation.censoring import CensoringCurve, HorizonOutcome
from exmed_bert.evaluation.follow_up import CENSORED, DEATH, OUTCOME, FollowUp
from exmed_bert.evaluation.groups import LEAST_EVENTS, Group, GroupMetrics, groups
from exmed_bert.evaluation.incidence import Incidence, cumulative_incidence
from exmed_bert.evaluation.metrics import WITHOUT_DIRECTION, logit
from exmed_bert.evaluation.over_time_attainable import compare_over_time
from exmed_bert.evaluation.over_time_results import (
    AtHorizon,
    ConcordancePoint,
    FollowedUp,
    ModelOverTime,
    OnDay,
    OverTimeResults,
)
from exmed_bert.evaluation.over_time_small_cells import told_bins, told_days, told_over_time
from exmed_bert.evaluation.results import CodeAttribution, Difference
from exmed_bert.evaluation.study import Study
from exmed_bert.evaluation.survival_baselines import LABELS, SurvivalBaseline
from exmed_bert.evaluation.time_to_event import (
    AT_HORIZON,
    RisksOverTime,
    differences_over_time,
    measure_over_time,
    named,
    recalibrate_over_time,
)
from exmed_bert.reporting.small_cells import ALL, MinCell

LEAST_FOLLOWED = 20  # validation, and test, patients that a horizon needs at its end
_DAYS = 73  # points of the curve of incidence


@dataclass(frozen=True)
class RiskScores:
    """Risks that a model gives all N patients.

    Attributes:
        name, label: key of the model, and its name for people.
        risks: (N, H) probability of the outcome by each horizon, not recalibrated.
        budget: training and search in a line.
        details: goes into results.json as it is.
    """

    name: str
    label: str
    risks: np.ndarray
    budget: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_baseline(cls, result: SurvivalBaseline) -> "RiskScores":
        """Take a baseline as `survival_baselines.fit` returns it."""
        details = {
            "settings": result.settings,
            "trials": [asdict(trial) for trial in result.trials],
            "columns": result.columns,
            "seconds": result.seconds,
        }
        return cls(result.name, LABELS[result.name], result.risks, result.budget, details)


@dataclass(frozen=True)
class OverTimeEvaluation:
    """The results, and by model the recalibrated risks of all N patients, (N, H)."""

    results: OverTimeResults
    risks: dict[str, np.ndarray]


def followed_horizons(patients: LabeledPatients, follow_up: FollowUp, horizons: Sequence[int]) -> list[int]:
    """Return the horizons to whose end enough validation and test patients are followed.

    Raises:
        InputError: there is none.
    """
    most = [
        horizon
        for horizon in horizons
        if min(int((follow_up.days[patients.rows(split)] >= horizon).sum()) for split in (VALIDATION, TEST))
        >= LEAST_FOLLOWED
    ]
    if not most:
        raise InputError(
            f"--horizons: fewer than {LEAST_FOLLOWED} validation or test patients are followed for {horizons[0]} days "
            "without the outcome, expected a shorter horizon or more patients"
        )
    return most


def assemble_over_time(
    patients: LabeledPatients,
    follow_up: FollowUp,
    horizons: Sequence[int],
    models: Sequence[RiskScores],
    *,
    title: str,
    facts: Sequence[tuple[str, str]] = (),
    attrition: Sequence[tuple[str, int]] = (),
    notes: Sequence[str] = (),
    label_efficiency: Sequence[ConcordancePoint] = (),
    attributions: Sequence[CodeAttribution] = (),
    study: Study | None = None,
    strata: np.ndarray | None = None,
    truth: np.ndarray | None = None,
    at_risk: np.ndarray | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    cells: MinCell = ALL,
) -> OverTimeEvaluation:
    """Recalibrate every model on the validation patients, and measure it on the test patients.

    Args:
        patients: N histories with splits.
        follow_up: of the N patients, from the index date.
        horizons: days, rising, as `followed_horizons` gives them.
        models: the first is compared with each of the others.
        title, facts, attrition, notes, label_efficiency, attributions, study: as in `OverTimeResults`.
        strata: (N,) within which censoring is alike; None for one curve of all.
        truth: (T, H) the risks that the T test patients were generated with; None where they are not known.
        at_risk: (T,) bool, of whom they are known.
        resamples, seed: of the bootstrap by patient.
        cells: which counts of patients are hidden, and with them what would tell of so few.

    Raises:
        ValueError: no test patient, or a risk that is no probability.
    """
    validation, test = patients.rows(VALIDATION), patients.rows(TEST)
    of_validation, of_test = follow_up.take(validation), follow_up.take(test)
    hashes = patients.dataset.columns["patient_hashes"].numpy()[test]
    days = [float(horizon) for horizon in horizons]
    own_strata = None if strata is None else strata[test]
    outcomes = [HorizonOutcome(of_test, day, own_strata) for day in days]
    bins = [told_bins(outcome, cells) for outcome in outcomes]

    def measured(model: RiskScores, fitted: Calibration, risks: np.ndarray) -> ModelOverTime:
        found = measure_over_time(of_test, risks[test], days, own_strata, hashes, resamples, seed)
        before = RisksOverTime(of_test, model.risks[test], days, own_strata)
        plain = before.metrics(np.ones((1, len(test))), [name for name in before.names if name != "concordance"])
        at_horizons = [
            AtHorizon(
                horizon=at.horizon,
                predicted=at.predicted,
                metrics=at.metrics,
                uncalibrated={
                    key: float(plain[named(key, at.horizon)][0])
                    for key in AT_HORIZON
                    if np.isfinite(plain[named(key, at.horizon)][0])
                },
                bins=bins[i](risks[test, i]),
            )
            for i, at in enumerate(found.horizons)
        ]
        return ModelOverTime(
            model.name, model.label, model.budget, found.concordance, at_horizons, fitted, details=model.details
        )

    recalibrated: dict[str, np.ndarray] = {}
    found: list[ModelOverTime] = []
    differences: list[Difference] = []
    for model in progress(models, label="Measuring", unit=" models"):
        of_fit = None if strata is None else strata[validation]
        fitted = recalibrate_over_time(of_validation, model.risks[validation], days, of_fit)
        risks = recalibrated[model.name] = fitted.probabilities(logit(model.risks))
        found.append(measured(model, fitted, risks))
        if len(found) > 1:
            ours = recalibrated[models[0].name][test]
            both = differences_over_time(of_test, ours, risks[test], days, own_strata, hashes, resamples, seed)
            differences += [
                Difference(models[0].name, model.name, name, value)
                for name, value in both.items()
                if not name.startswith(WITHOUT_DIRECTION)
            ]
    first = models[0].name
    parts = groups(patients, test)
    by_group = [_in_group(part, of_test, recalibrated[first][test], days, hashes, resamples, seed) for part in parts]
    incidence = cumulative_incidence(of_test)
    attainable = None
    if truth is not None and at_risk is not None:
        own = {name: risks[test] for name, risks in recalibrated.items()}
        attainable = compare_over_time(of_test, at_risk, truth, own, days, hashes, resamples, seed)
    results = OverTimeResults(
        title=title,
        facts=tuple(facts),
        attrition=tuple(attrition),
        splits=split_counts(patients),
        horizons=_followed(outcomes, incidence),
        median_days=_median(of_test),
        incidence=_curve(incidence, told_days(of_test, np.linspace(0, days[-1], _DAYS + 1)[1:], cells)),
        models=[_with_groups(model, by_group if model is found[0] else []) for model in found],
        differences=differences,
        notes=(*notes, *_notes(of_test, outcomes)),
        resamples=resamples,
        attainable=attainable,
        label_efficiency=tuple(label_efficiency),
        attributions=tuple(attributions),
        study=study,
    )
    return OverTimeEvaluation(told_over_time(results, cells), recalibrated)


def _with_groups(model: ModelOverTime, by_group: list[GroupMetrics]) -> ModelOverTime:
    return ModelOverTime(**{**vars(model), "groups": by_group})


def _in_group(
    part: Group,
    follow_up: FollowUp,
    risks: np.ndarray,
    horizons: Sequence[float],
    hashes: np.ndarray,
    resamples: int,
    seed: int,
) -> GroupMetrics:
    """Return concordance, incidence and mean predicted risk of a group at the last horizon, where enough have it."""
    own, last = follow_up.take(part.member), risks[part.member, -1:]
    outcome = HorizonOutcome(own, horizons[-1])
    by_horizon, known = int(outcome.labels.sum()), int(outcome.known.sum())
    metrics: dict[str, Estimate] = {}
    if min(by_horizon, known - by_horizon) >= LEAST_EVENTS:
        of_members = hashes[part.member]
        found = measure_over_time(
            own, last, horizons[-1:], patient_hashes=of_members, resamples=resamples, seed=seed, names=("concordance",)
        )
        at = found.horizons[0]
        metrics = {"observed": at.incidence, "predicted": Estimate(at.predicted)}
        if found.concordance is not None:
            metrics["concordance"] = found.concordance
    return GroupMetrics(part.kind, part.name, len(own), int((own.events == OUTCOME).sum()), metrics)


def _followed(outcomes: Sequence[HorizonOutcome], incidence: Incidence) -> list[FollowedUp]:
    days = np.array([outcome.horizon for outcome in outcomes])
    lows, highs = (ends[0] for ends in incidence.interval(days))
    observed, died = incidence.by(days)[0], incidence.death_by(days)[0]
    return [
        FollowedUp(
            horizon=own.horizon,
            events=int(own.labels.sum()),
            deaths=int(((own.follow_up.events == DEATH) & (own.follow_up.days <= own.horizon)).sum()),
            followed=int((own.follow_up.days >= own.horizon).sum()),
            effective_patients=own.effective_patients,
            largest_weight=own.largest_weight,
            incidence=_estimate(observed[i], lows[i], highs[i]),
            died=float(died[i]),
        )
        for i, own in enumerate(outcomes)
    ]


def _curve(incidence: Incidence, days: np.ndarray) -> list[OnDay]:
    lows, highs = (ends[0] for ends in incidence.interval(days))
    observed, died = incidence.by(days)[0], incidence.death_by(days)[0]
    numbers = zip(days.tolist(), observed, lows, highs, died.tolist(), strict=True)
    return [OnDay(day, _estimate(value, low, high), dead) for day, value, low, high, dead in numbers]


def _estimate(value: float, low: float, high: float) -> Estimate:
    if np.isnan(low) or np.isnan(high):
        return Estimate(float(value))
    return Estimate(float(value), float(low), float(high))


def _median(follow_up: FollowUp) -> float:
    """Return the day by which half would be censored if nothing else ended a follow-up; the last where it is never."""
    days = np.unique(follow_up.days)
    curve = CensoringCurve(follow_up).estimate(np.ones((1, len(follow_up))))[0][1:]
    below = np.flatnonzero(curve <= 0.5)
    return float(days[below[0]] if len(below) else days[-1])


def _notes(follow_up: FollowUp, outcomes: Sequence[HorizonOutcome]) -> list[str]:
    """Return what becomes of the censored and of those who die."""
    heaviest = max(outcome.largest_weight for outcome in outcomes)
    found = [
        "Patients who are censored stay in the cohort: training uses their follow-up up to its end, and in the metrics "
        "at a horizon those who are known count for them, by the inverse of the probability of not being censored "
        f"(Kaplan-Meier), one patient for up to {heaviest:.1f}."
    ]
    if (follow_up.events == DEATH).any():
        found.append(
            "Death without the outcome is a competing event: risks are probabilities of the outcome before death, and "
            "whoever dies first counts as never having it."
        )
    elif (follow_up.events == CENSORED).any():
        found.append("No test patient is known to die, so death is no competing event here.")
    return found
