"""Fit the values that the tables do not give by simulation: python -m exmed_bert.synthetic.fit

The method of simulated moments, by stochastic approximation (Robbins and Monro 1951): a population is generated and
counted as the report counts it, and each value is moved by the error of its own figure, in decreasing steps. So the
published figures hold after histories are extended or truncated and codes limited to ages and dates.

It takes some ten minutes on two cores. Needed after a change of the tables or of how patients are drawn.
"""

import functools
from dataclasses import dataclass, fields
from typing import Annotated

import numpy as np
import typer
from scipy.special import expit, logit

from exmed_bert import console
from exmed_bert.parallel import ordered_map
from exmed_bert.reference.tables import Tables, load
from exmed_bert.settings import GenerateSettings
from exmed_bert.synthetic import fitted as store
from exmed_bert.synthetic.fitted import Fitted
from exmed_bert.synthetic.population import BLOCK, generate_block
from exmed_bert.synthetic.report.measures import Measures

FIRST_SEED = 1_000_000  # one per round, far from common seeds
_AVERAGED = 0.5  # share of the rounds, the last ones, whose values are averaged (Polyak and Ruppert)
_FEWEST_CASES = 20  # expected in a round; a prevalence cell with fewer stays as published
_STRONGEST = 0.95  # correlation of a pair
_USERS_WITHOUT_DIAGNOSIS = 0.1  # of a drug, at first
_PAIR_STEP = 0.25  # of a log odds ratio, in Fisher's z of the correlation: a cautious one
_DRUG_STEP = 0.9  # of a logarithm
_SWEEPS = 30


@dataclass(frozen=True)
class Values:
    """Values being fitted: correlations (K, K) of the scores, and those of `Fitted` with the same names."""

    correlation: np.ndarray
    prevalence: np.ndarray
    given: np.ndarray
    without_diagnosis: np.ndarray

    @classmethod
    def first(cls, tables: Tables) -> "Values":
        """Return initial values: the published figures, and correlations near those that give the odds ratios."""
        drugs = tables.drugs
        few = _USERS_WITHOUT_DIAGNOSIS * drugs.share_5yr
        return cls(start_correlations(tables), tables.diagnoses.prevalence, drugs.link_probability, few)

    @classmethod
    def mean(cls, several: list["Values"]) -> "Values":
        """Return the elementwise mean."""
        return cls(*(np.mean([getattr(one, field.name) for one in several], axis=0) for field in fields(cls)))

    def fitted(self, tables: Tables) -> Fitted:
        """Return the values in the form that the draws take."""
        partial = covariance_selection(self.correlation, tables.diagnoses.pairs)
        return Fitted(self.prevalence, partial, self.given, self.without_diagnosis)

    def moved(self, counted: Measures, tables: Tables, step: float) -> "Values":
        """Return the values after a step against the errors of a population's counts."""
        diagnoses, drugs = tables.diagnoses, tables.drugs
        published = diagnoses.prevalence
        known = published * counted.people >= _FEWEST_CASES
        off = _safe_logit(published) - _safe_logit(counted.prevalence)
        prevalence = np.where(known, expit(_safe_logit(self.prevalence) + step * off), published) * (published > 0)

        i, j = diagnoses.pairs.T
        found = np.nan_to_num(counted.odds_ratios, nan=1.0, posinf=1e3).clip(1e-3)
        gap = np.log(diagnoses.odds_ratios[i, j]) - np.log(found)
        correlation = self.correlation.copy()
        stronger = np.tanh(np.arctanh(correlation[i, j]) + _PAIR_STEP * step * gap)
        correlation[i, j] = correlation[j, i] = stronger.clip(-0.5, _STRONGEST)

        more = (drugs.link_probability / counted.given.clip(1e-4)) ** (_DRUG_STEP * step)
        more_without = (drugs.share_5yr / counted.users.clip(1e-6)) ** (_DRUG_STEP * step)
        without = (self.without_diagnosis * more_without).clip(1e-6, 0.9)
        return Values(correlation, prevalence, (self.given * more).clip(1e-5, 0.99), without)


def run(patients: int, rounds: int, workers: int) -> None:
    """Fit with ``rounds`` populations of so many ``patients`` and write `fitted.PATH`."""
    tables = load()
    values, last = Values.first(tables), []
    with console.progress(total=rounds, label="Fitting", unit="rounds") as bar:
        for number in range(rounds):
            if number >= rounds * (1 - _AVERAGED):
                last.append(values)
            counted = _simulate(FIRST_SEED + number, patients, workers, tables, values.fitted(tables))
            values = values.moved(counted, tables, step=(1 + number) ** -0.2)
            bar.update(1)
        fitted = Values.mean(last).fitted(tables)
        counted = _simulate(FIRST_SEED + rounds, patients, workers, tables, fitted)
    errors = errors_of(counted, tables)
    store.save(fitted, tables, {"patients": patients, **errors})
    console.table("Fitted", [*errors.items(), ("written", store.PATH)])


def _simulate(seed: int, patients: int, workers: int, tables: Tables, fitted: Fitted) -> Measures:
    blocks = np.array_split(np.arange(-(-patients // BLOCK)), workers)
    total = Measures(tables)
    for part in ordered_map(functools.partial(_count, seed, fitted), blocks, workers):
        total.merge(part)
    return total


def _count(seed: int, fitted: Fitted, blocks: np.ndarray) -> Measures:
    end_date = GenerateSettings().end_date
    counted = Measures(load())
    for block in blocks.tolist():
        counted.add(generate_block(seed, block, 0.0, end_date, fitted=fitted).patients)
    return counted


def start_correlations(tables: Tables) -> np.ndarray:
    """Return (K, K) correlations of the scores near those that give the odds ratios, 1 on the diagonal.

    The approximation of Bonett and Price (2005, J Educ Behav Stat 30:213): cos(pi / (1 + OR^c)) with
    c = (1 - |p1 - p2| / 5 - (1/2 - p_min)^2) / 2, p_min the smallest of the four margins.
    """
    diagnoses = tables.diagnoses
    prevalence = diagnoses.prevalence.sum(axis=(1, 2)) / (diagnoses.prevalence > 0).sum(axis=(1, 2))
    rarest = np.minimum(prevalence, 1 - prevalence)
    smallest = np.minimum(rarest[:, None], rarest[None, :])
    exponent = (1 - np.abs(prevalence[:, None] - prevalence[None, :]) / 5 - (0.5 - smallest) ** 2) / 2
    correlation = np.cos(np.pi / (1 + diagnoses.odds_ratios**exponent))
    np.fill_diagonal(correlation, 1)
    return correlation


def covariance_selection(correlation: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return the (K, K) partial correlations with which the ``pairs`` have these correlations, the others 0.

    Dempster (1972, Biometrics 28:157), by iterative proportional fitting of one pair after another. Where the
    correlations contradict each other the last ones win.
    """
    precision = np.eye(len(correlation))
    for _ in range(_SWEEPS):
        for pair in pairs:
            at = np.ix_(pair, pair)
            covariance = np.linalg.solve(precision, np.eye(len(precision))[:, pair])[pair]
            precision[at] += np.linalg.inv(correlation[at]) - np.linalg.inv(covariance)
    scale = np.sqrt(np.diag(precision))
    partial = -precision / np.outer(scale, scale)
    np.fill_diagonal(partial, 0)
    return partial


def errors_of(counted: Measures, tables: Tables) -> dict[str, float]:
    """Return the errors of the last population's figures."""
    diagnoses, drugs = tables.diagnoses, tables.drugs
    expected = diagnoses.prevalence * counted.people
    off = np.abs(counted.prevalence / np.where(diagnoses.prevalence > 0, diagnoses.prevalence, np.nan) - 1)
    log_ratio = np.log(diagnoses.odds_ratios[tuple(counted.pairs.T)])
    found = np.log(counted.odds_ratios)
    figures = {
        "prevalence, median relative error, 200 cases and more": np.median(off[expected >= 200]),
        "prevalence, worst relative error, 2000 cases and more": off[expected >= 2000].max(initial=0),
        "log odds ratio, correlation": np.corrcoef(log_ratio, found)[0, 1],
        "log odds ratio, median absolute error": np.median(np.abs(log_ratio - found)),
        "P(drug | diagnosis), mean absolute error": np.abs(counted.given - drugs.link_probability).mean(),
        "users of a drug, median relative error": np.median(np.abs(counted.users / drugs.share_5yr - 1)),
    }
    return {name: round(float(value), 4) for name, value in figures.items()}


def _safe_logit(share: np.ndarray) -> np.ndarray:
    return logit(share.clip(1e-6, 1 - 1e-6))


def main(
    patients: Annotated[int, typer.Option(help="Patients per round.")] = 100_000,
    rounds: Annotated[int, typer.Option(help="Rounds.")] = 40,
    workers: Annotated[int, typer.Option(help="Processes.")] = 2,
) -> None:
    """Fit the draws to the tables and write fitted.json."""
    run(patients, rounds, workers)


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command()(main)
    app()
