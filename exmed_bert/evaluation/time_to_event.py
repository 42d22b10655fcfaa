"""Metrics of predicted risks over time: concordance, and at each horizon discrimination, accuracy and calibration.

The AUROC at a horizon is the cumulative and dynamic one: whoever has the outcome by then compared with everybody else,
those who died among them. All metrics are weighted for censoring (`censoring`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from exmed_bert.evaluation import calibration
from exmed_bert.evaluation.bootstrap import RESAMPLES, Estimate, estimates
from exmed_bert.evaluation.calibration import Calibration
from exmed_bert.evaluation.censoring import HorizonOutcome
from exmed_bert.evaluation.concordance import Concordance
from exmed_bert.evaluation.follow_up import FollowUp
from exmed_bert.evaluation.incidence import calibration_bins, cumulative_incidence
from exmed_bert.evaluation.metrics import Predictions, logit
from exmed_bert.evaluation.results import CalibrationBin

CONCORDANCE = "concordance"
AT_HORIZON = ("auroc", "auprc", "brier", "calibration_slope", "calibration_intercept", "calibration_error")


class RisksOverTime:
    """N patients with follow-up and predicted risks at H horizons, prepared for `metrics`."""

    def __init__(
        self, follow_up: FollowUp, risks: np.ndarray, horizons: Sequence[float], strata: np.ndarray | None = None
    ) -> None:
        """Check and sort.

        Args:
            follow_up: of N patients.
            risks: (N, H) predicted probability of the outcome by each horizon; the last one's order is that of the
                concordance.
            horizons: days, rising.
            strata: (N,) within which censoring is alike; None for one curve of all.

        Raises:
            ValueError: shapes differ, horizons do not rise, or a risk is not in [0, 1].
        """
        if np.shape(risks) != (len(follow_up), len(horizons)):
            raise ValueError(f"risks of shape {np.shape(risks)}, expected {(len(follow_up), len(horizons))}")
        if not len(horizons) or np.any(np.diff(horizons) <= 0) or horizons[0] <= 0:
            raise ValueError(f"horizons {list(horizons)}, expected days above 0 that rise")
        self.outcomes = [HorizonOutcome(follow_up, horizon, strata) for horizon in horizons]
        self._at = [Predictions(own.labels, risks[:, i]) for i, own in enumerate(self.outcomes)]
        self._concordance = Concordance(follow_up, risks[:, -1], horizons[-1], strata)
        self.names = (CONCORDANCE, *(named(name, horizon) for horizon in horizons for name in AT_HORIZON))

    def metrics(self, drawn: np.ndarray, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Return metrics for R resamples of the patients, each (R,), NaN where one is not defined.

        Args:
            drawn: (R, N), how often each patient is drawn.
            names: of ``names``.
        """
        wanted, found = set(names), dict[str, np.ndarray]()
        if CONCORDANCE in wanted:
            found[CONCORDANCE] = self._concordance.values(drawn)
        for outcome, predictions in zip(self.outcomes, self._at, strict=True):
            own = [name for name in AT_HORIZON if named(name, outcome.horizon) in wanted]
            if own:
                measured = predictions.metrics(outcome.weights(drawn), own)
                found |= {named(name, outcome.horizon): values for name, values in measured.items()}
        return found


def named(metric: str, horizon: float) -> str:
    """Return the key of a metric at a horizon.

    >>> named("auroc", 365)
    'auroc_365'
    """
    return f"{metric}_{horizon:g}"


@dataclass(frozen=True)
class HorizonMetrics:
    """What a model does at one horizon.

    Attributes:
        horizon: days.
        patients, events: those with a known outcome; those of them who have it.
        effective_patients, largest_weight: how far the known have to stand for the censored.
        incidence: Aalen-Johansen estimate of those who have the outcome by then.
        predicted: mean predicted risk.
        metrics: keys of `AT_HORIZON`.
        bins: of calibration.
    """

    horizon: float
    patients: int
    events: int
    effective_patients: float
    largest_weight: float
    incidence: Estimate
    predicted: float
    metrics: dict[str, Estimate]
    bins: list[CalibrationBin]


@dataclass(frozen=True)
class OverTime:
    """Uno's concordance up to the last horizon, None without a pair, and the metrics at each."""

    concordance: Estimate | None
    horizons: list[HorizonMetrics]


def measure_over_time(
    follow_up: FollowUp,
    risks: np.ndarray,
    horizons: Sequence[float],
    strata: np.ndarray | None = None,
    patient_hashes: np.ndarray | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    names: Iterable[str] | None = None,
) -> OverTime:
    """Return all metrics of predicted risks, with 95 % percentile intervals of a bootstrap by patient.

    Args:
        follow_up, risks, horizons, strata: as in `RisksOverTime`.
        patient_hashes: (N,) the patient of each row; None where no patient has two rows.
        resamples, seed: as in `bootstrap.with_intervals`.
        names: of `RisksOverTime.names` those to measure; None: all.
    """
    over_time = RisksOverTime(follow_up, risks, horizons, strata)
    rows = len(follow_up) if patient_hashes is None else patient_hashes
    found = estimates(over_time.metrics, over_time.names if names is None else names, rows, resamples, seed)
    incidence = cumulative_incidence(follow_up)
    lows, highs = (end[0] for end in incidence.interval(np.asarray(horizons)))
    observed = incidence.by(np.asarray(horizons))[0]
    return OverTime(
        concordance=found.get(CONCORDANCE),
        horizons=[
            HorizonMetrics(
                horizon=horizon,
                patients=int(outcome.known.sum()),
                events=int(outcome.labels.sum()),
                effective_patients=outcome.effective_patients,
                largest_weight=outcome.largest_weight,
                incidence=Estimate(float(observed[i]), *_ends(lows[i], highs[i])),
                predicted=float(risks[:, i].mean()),
                metrics={name: found[key] for name in AT_HORIZON if (key := named(name, horizon)) in found},
                bins=calibration_bins(follow_up, risks[:, i], horizon),
            )
            for i, (horizon, outcome) in enumerate(zip(horizons, over_time.outcomes, strict=True))
        ],
    )


def differences_over_time(
    follow_up: FollowUp,
    ours: np.ndarray,
    theirs: np.ndarray,
    horizons: Sequence[float],
    strata: np.ndarray | None = None,
    patient_hashes: np.ndarray | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    names: Iterable[str] | None = None,
) -> dict[str, Estimate]:
    """Return ours minus theirs in every metric that is defined, both measured on the same resamples.

    Args:
        ours, theirs: (N, H) risks of two models; the others as in `measure_over_time`.

    Returns:
        By ``concordance`` and the keys of `named`.
    """
    both = [RisksOverTime(follow_up, risks, horizons, strata) for risks in (ours, theirs)]

    def differences(drawn: np.ndarray, names: Iterable[str]) -> dict[str, np.ndarray]:
        names = tuple(names)
        one, other = (model.metrics(drawn, names) for model in both)
        return {name: one[name] - other[name] for name in one}

    rows = len(follow_up) if patient_hashes is None else patient_hashes
    return estimates(differences, both[0].names if names is None else names, rows, resamples, seed)


def recalibrate_over_time(
    follow_up: FollowUp, risks: np.ndarray, horizons: Sequence[float], strata: np.ndarray | None = None
) -> Calibration:
    """Return one recalibration for all horizons, fitted on patients that the model was not trained on.

    One each would follow the few events of a short horizon, and let risks fall from one horizon to the next.

    Args:
        follow_up, risks, horizons, strata: as in `RisksOverTime`.
    """
    outcomes = [HorizonOutcome(follow_up, horizon, strata) for horizon in horizons]
    labels = np.concatenate([own.labels for own in outcomes])
    return calibration.fit(labels, logit(risks).T.ravel(), np.concatenate([own.weights()[0] for own in outcomes]))


@dataclass(frozen=True)
class IncidencePoint:
    """How many have the outcome by a day: as observed, with its interval, and as each model predicts on average."""

    day: float
    observed: Estimate
    death: float
    predicted: dict[str, float]


def incidence_beside_models(
    follow_up: FollowUp, risks: dict[str, np.ndarray], days: Sequence[float]
) -> list[IncidencePoint]:
    """Return the cohort's cumulative incidence beside the mean risk that models predict.

    Args:
        follow_up: of N patients.
        risks: by model (N, D) predicted probability of the outcome by each day.
        days: D of them, rising.
    """
    incidence = cumulative_incidence(follow_up)
    at = np.asarray(days)
    lows, highs = (end[0] for end in incidence.interval(at))
    observed, died = incidence.by(at)[0], incidence.death_by(at)[0]
    return [
        IncidencePoint(
            day=day,
            observed=Estimate(float(observed[i]), *_ends(lows[i], highs[i])),
            death=float(died[i]),
            predicted={name: float(own[:, i].mean()) for name, own in risks.items()},
        )
        for i, day in enumerate(days)
    ]


def _ends(low: float, high: float) -> tuple[float | None, float | None]:
    return (None, None) if np.isnan(low) or np.isnan(high) else (float(low), float(high))
