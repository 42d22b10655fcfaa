"""Simulated cohorts with known censoring and death: do weighted metrics find the truth, and what do others find?

    python benchmarks/censoring.py            # 1,000 cohorts of each kind, a quarter of an hour
    python benchmarks/censoring.py --repeats 50 --patients 500

Patients have an outcome, death and the end of observation, each at a time of its own. A model, not quite calibrated,
predicts the outcome within a year. The truth is what two million patients without any censoring show. In the first
kind of cohort censoring is the same for all, in the second one half of the patients, those at higher risk, is censored
four times as fast. Three ways to measure: weighted (by strata in the second kind), weighted without strata, and with
the censored dropped. For each metric: the share of the cohorts whose estimate lies within two standard errors
(bootstrap by patient) of the truth, about 0.954 where an estimate has no bias, and the mean error.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from common import Measurement, load_average, options, report

from exmed_bert.evaluation.bootstrap import draw_counts
from exmed_bert.evaluation.censoring import HorizonOutcome
from exmed_bert.evaluation.concordance import Concordance
from exmed_bert.evaluation.follow_up import CENSORED, DEATH, OUTCOME, FollowUp
from exmed_bert.evaluation.incidence import cumulative_incidence
from exmed_bert.evaluation.metrics import Predictions, logit, sigmoid

HORIZON = 365
OUTCOMES, DEATHS, LOST = 0.35, 0.12, 0.6  # per year, of a patient at medium risk
METRICS = ("auroc", "auprc", "brier", "calibration_slope", "calibration_intercept")
NAMES = (*METRICS, "incidence", "concordance")  # what is compared with the truth
KINDS = ("alike", "by stratum")
RESAMPLES = 200
POPULATION = 2_000_000


@dataclass(frozen=True)
class Simulated:
    """Follow-up of N patients, the risks (N,) that a model predicts, and a stratum (N,) that may decide censoring."""

    follow_up: FollowUp
    risks: np.ndarray
    strata: np.ndarray


def simulate(rng: np.random.Generator, n: int, by_stratum: bool = False, censored: bool = True) -> Simulated:
    """Draw a cohort."""
    strata = rng.integers(2, size=n)
    score = rng.normal(size=n) * 0.9 + 0.8 * (strata - 0.5)
    outcomes, deaths = OUTCOMES * np.exp(score), DEATHS * np.exp(score / 2)  # per year
    outcome, death = rng.exponential(1 / outcomes), rng.exponential(1 / deaths)
    lost = LOST * np.where(strata, 2, 0.5) if by_stratum else LOST
    # Some are lost, the others observed to one day: the end of the extract.
    end = np.minimum(rng.exponential(1 / lost, n), rng.uniform(0.5, 2.5, n)) if censored else np.full(n, np.inf)
    years = np.minimum(np.minimum(outcome, death), end)
    events = np.where(outcome == years, OUTCOME, np.where(death == years, DEATH, CENSORED))
    either = outcomes + deaths
    risk = outcomes / either * -np.expm1(-either * HORIZON / 365)
    # Who is censored within a day was observed up to the day before.
    days = np.where(events == CENSORED, np.floor(365 * years), np.ceil(365 * years))
    return Simulated(FollowUp(days, events), sigmoid(1.3 * logit(risk) + 0.2), strata)


def truth(kind: str, n: int = POPULATION, seed: int = 1) -> dict[str, float]:
    """Return every metric as patients without any censoring show it."""
    cohort = simulate(np.random.default_rng(seed), n, kind == KINDS[1], censored=False)
    found = weighted(cohort, np.ones((1, n)))
    return {name: float(values[0]) for name, values in found.items()}


def weighted(cohort: Simulated, drawn: np.ndarray, by_stratum: bool = False) -> dict[str, np.ndarray]:
    """Return the metrics with weights for R resamples (R, N)."""
    strata = cohort.strata if by_stratum else None
    outcome = HorizonOutcome(cohort.follow_up, HORIZON, strata)
    weights = outcome.weights(drawn)
    found = Predictions(outcome.labels, cohort.risks).metrics(weights, METRICS)
    found["incidence"] = weights @ outcome.labels / weights.sum(axis=1)
    if strata is None:
        incidence = cumulative_incidence(cohort.follow_up, drawn).by(HORIZON)[:, 0]
        assert np.allclose(found["incidence"], incidence), "weights and Aalen-Johansen's estimate say the same"
    found["concordance"] = Concordance(cohort.follow_up, cohort.risks, HORIZON, strata).values(drawn)
    return found


def dropped(cohort: Simulated, drawn: np.ndarray) -> dict[str, np.ndarray]:
    """Return the metrics of those whose outcome is known, as if they were all."""
    outcome = HorizonOutcome(cohort.follow_up, HORIZON)
    weights = drawn * outcome.known
    found = Predictions(outcome.labels, cohort.risks).metrics(weights, METRICS)
    return found | {"incidence": weights @ outcome.labels / weights.sum(axis=1)}


@dataclass(frozen=True)
class Arm:
    """Errors of one way to measure in C cohorts: by metric the error (C,) and its standard error (C,)."""

    errors: dict[str, np.ndarray]
    standard_errors: dict[str, np.ndarray]

    def coverage(self, name: str) -> float:
        """Return the share of cohorts within two standard errors of the truth."""
        return float((np.abs(self.errors[name]) <= 2 * self.standard_errors[name]).mean())

    def bias(self, name: str) -> tuple[float, float]:
        """Return the mean error and its own standard error."""
        own = self.errors[name]
        return float(own.mean()), float(own.std(ddof=1) / np.sqrt(len(own)))


def repeat(
    kind: str, true: dict[str, float], cohorts: int, n: int, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Arm]:
    """Return how every way to measure does in so many cohorts of n patients."""
    by_stratum = kind == KINDS[1]
    ways = {"weighted": lambda *given: weighted(*given, by_stratum), "dropped": dropped}
    if by_stratum:
        ways["weighted without strata"] = weighted
    found: dict[str, list[dict[str, np.ndarray]]] = {way: [] for way in ways}
    for number in range(cohorts):
        rng = np.random.default_rng((seed, number))
        cohort = simulate(rng, n, by_stratum)
        drawn = np.concatenate((np.ones((1, n)), draw_counts(rng, resamples, n)))  # the first is the cohort itself
        for way, measured in ways.items():
            found[way].append(measured(cohort, drawn))
    return {way: _arm(results, true) for way, results in found.items()}


def _arm(results: Iterable[dict[str, np.ndarray]], true: dict[str, float]) -> Arm:
    results = list(results)
    return Arm(
        {name: np.array([result[name][0] - true[name] for result in results]) for name in results[0]},
        {name: np.array([np.nanstd(result[name][1:], ddof=1) for result in results]) for name in results[0]},
    )


def main() -> None:
    """Simulate, measure, and write benchmarks/results/censoring.json."""
    given = options(__doc__ or "", repeats=1000, patients=2000)
    load = load_average()
    figures = []
    for kind in KINDS:
        true = truth(kind)
        for way, arm in repeat(kind, true, given.repeats, given.patients).items():
            for name in (own for own in NAMES if own in arm.errors):
                title = f"censored {kind}, {way}: {name.replace('_', ' ')}"
                target = 0.95 if way == "weighted" else None
                figures.append(Measurement(f"{title}, within 2 SE", [arm.coverage(name)], "of cohorts", target))
                error, of_error = arm.bias(name)
                figures.append(
                    Measurement(f"{title}, truth {true[name]:.4f}, mean error", [error], f"± {2 * of_error:.4f}")
                )
    report("censoring", given, load, figures)


if __name__ == "__main__":
    main()
