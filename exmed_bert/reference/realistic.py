"""Published figures behind the realistic population: leaving, deaths, onsets, hospital stays, therapies that stop.

They stand beside the tables of `tables` and are read apart: the bounded population does not depend on them.
"""

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from exmed_bert.reference.rows import Rows
from exmed_bert.reference.tables import BAND_STARTS, DIAGNOSES, FOLDER, OLDEST, SEX_MASKS, Tables

FILES = HAZARD_RATIOS, LIFE_RATES, VISIT_RATES, DEPARTURES, INCIDENCE, EARLY_DEATHS = (
    "hazard_ratios.csv",
    "life_rates.csv",
    "visit_rates.csv",
    "departures.csv",
    "incidence.csv",
    "early_deaths.csv",
)
DEATH = "death"  # the outcome, beside codes
EARLY_AGE = 75  # years at the onset to which the rates of early deaths refer
_SMOOTHING = 50


@dataclass(frozen=True, eq=False)
class EarlyDeaths:
    """Deaths soon after an onset, in E periods, beside those that the hazard ratios of death give.

    Attributes:
        conditions: (E,) index of the condition.
        first, last: (E,) days after the onset, both included.
        rate: (E,) deaths per person-year of those whose condition began at `EARLY_AGE`.
        per_decade: (E,) ratio of the rates of two who are ten years apart.
    """

    conditions: np.ndarray
    first: np.ndarray
    last: np.ndarray
    rate: np.ndarray
    per_decade: np.ndarray


@dataclass(frozen=True, eq=False)
class Realistic:
    """Figures of K conditions and of ages in whole years.

    Attributes:
        rates: the terms of ``life_rates.csv``.
        death: (ages, 2) deaths per person-year, smooth in age within the groups of the life table.
        death_group: (ages,) index of the life table's age group. death_rate: (groups, 2) as published.
        death_ratios: (K,) logarithm of the hazard ratio of death with a condition.
        early: deaths soon after an onset.
        incidence: (K, 4) new cases per person-year without the condition, by age band; NaN where none is published.
        onset_ratios: (K, K) logarithm of the hazard ratio of the onset of the second with the first; NaN without one.
        visit_group: (ages,) index of the age group of ``visits``. visits: (groups, 2) visits per person-year.
        digest: of the files.
    """

    rates: dict[str, float]
    death: np.ndarray
    death_group: np.ndarray
    death_rate: np.ndarray
    death_ratios: np.ndarray
    early: EarlyDeaths
    incidence: np.ndarray
    onset_ratios: np.ndarray
    visit_group: np.ndarray
    visits: np.ndarray
    digest: str


@functools.cache
def load(tables: Tables, folder: Path = FOLDER) -> Realistic:
    """Read and check the figures.

    Raises:
        InputError: a value is no number, or a row refers to a code that is not there.
    """
    rows = Rows(folder / LIFE_RATES)
    rates = dict(zip(rows.each("term", str), rows.numbers("value").tolist(), strict=True))
    death_group, death_rate = _by_age(folder / DEPARTURES, "per_100000_a_year", 100_000, only=DEATH)
    visit_group, visits = _by_age(folder / VISIT_RATES, "visits_per_100_people", 100)
    death_ratios, onset_ratios = _hazard_ratios(folder / HAZARD_RATIOS, tables.condition_codes)
    read = (folder / name for name in FILES)
    return Realistic(
        rates=rates,
        death=_smooth(death_rate, death_group, tables.demographics.people),
        death_group=death_group,
        death_rate=death_rate,
        death_ratios=death_ratios,
        early=_early_deaths(folder / EARLY_DEATHS, tables.condition_codes),
        incidence=_incidence(folder / INCIDENCE, tables.condition_codes),
        onset_ratios=onset_ratios,
        visit_group=visit_group,
        visits=visits,
        digest=hashlib.blake2b(b"".join(path.read_bytes() for path in read), digest_size=16).hexdigest(),
    )


def _hazard_ratios(path: Path, codes: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    rows, index = Rows(path), {code: i for i, code in enumerate(codes)}
    conditions = rows.each("condition", lambda code: rows.find(code, index, DIAGNOSES))
    outcomes = rows.each("outcome", lambda code: -1 if code == DEATH else rows.find(code, index, DIAGNOSES))
    death, onset = np.zeros(len(codes)), np.full((len(codes),) * 2, np.nan)
    for outcome, condition, ratio in zip(outcomes, conditions, np.log(rows.numbers("hazard_ratio")), strict=True):
        if outcome < 0:
            death[condition] = ratio
        else:
            onset[condition, outcome] = ratio
    return death, onset


def _early_deaths(path: Path, codes: tuple[str, ...]) -> EarlyDeaths:
    rows, index = Rows(path), {code: i for i, code in enumerate(codes)}
    return EarlyDeaths(
        conditions=np.array(rows.each("condition", lambda code: rows.find(code, index, DIAGNOSES))),
        first=np.array(rows.each("day_first", int)),
        last=np.array(rows.each("day_last", int)),
        rate=rows.numbers("deaths_a_year"),
        per_decade=rows.numbers("per_decade"),
    )


def _incidence(path: Path, codes: tuple[str, ...]) -> np.ndarray:
    rows, index = Rows(path), {code: i for i, code in enumerate(codes)}
    conditions = rows.each("condition", lambda code: rows.find(code, index, DIAGNOSES))
    bands = rows.each("age_first", lambda text: BAND_STARTS.index(int(text)))
    found = np.full((len(codes), len(BAND_STARTS)), np.nan)
    found[conditions, bands] = rows.numbers("new_per_1000_a_year") / 1000
    return found


def _by_age(path: Path, column: str, per: float, only: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the age group of each age in years (ages,), and the rate per person-year of each group and sex."""
    rows = Rows(path)
    reasons = rows.each("reason", str) if only else [only] * len(rows.rows)
    first, sexes = rows.each("age_first", int), rows.each("sex", lambda text: SEX_MASKS[text])
    kept = [i for i, reason in enumerate(reasons) if reason == only]
    starts = sorted({first[i] for i in kept})
    rates, values = np.zeros((len(starts), 2)), rows.numbers(column) / per
    for i in kept:
        rates[starts.index(first[i])] += values[i] * np.array(sexes[i])
    return np.searchsorted(starts, np.arange(OLDEST + 1), side="right") - 1, rates


def _smooth(rates: np.ndarray, group: np.ndarray, people: np.ndarray) -> np.ndarray:
    """Return rates (groups, 2) as rates (ages, 2) without steps whose mean over the people of a group is the group's.

    The logarithm is averaged over neighboring ages and the groups rescaled, as for prevalences (`conditions.py`). The
    first year of life keeps its own rate.
    """
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    weight = np.add.reduceat(people, starts)
    level = np.log(rates)[group]
    for _ in range(_SMOOTHING):
        padded = np.concatenate([level[1:2], level[1:], level[-1:]])
        level[1:] = (padded[:-2] + padded[1:-1] + padded[2:]) / 3
        level += np.log(rates / (np.add.reduceat(people * np.exp(level), starts) / weight))[group]
    return np.exp(level)
