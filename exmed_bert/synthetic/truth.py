"""Known truth of generated patients: the hazards that onsets, deaths and long stays of realistic ones were drawn from.

Lives are a function of the seed and the patient's number, so nothing is stored: they are drawn again from what the meta
file says. What a record shows of an onset follows the same hazard where the patient is at risk. Whoever has had the
condition since before the first day of the five years is not, but may not have been coded yet in the record: hence
`Truth.at_risk`.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
from scipy.special import expit
from scipy.stats import norm

from exmed_bert.codes import ICD10CM
from exmed_bert.console import InputError
from exmed_bert.reference import realistic as figures_of
from exmed_bert.reference.tables import load
from exmed_bert.synthetic.life import LASTING, STEPS, Life, spread_of_stays
from exmed_bert.synthetic.outcome import of_ages, of_diagnoses
from exmed_bert.synthetic.people import YEAR, Window, draw_people
from exmed_bert.synthetic.population import BLOCK, generate_block
from exmed_bert.synthetic.realistic import generator, lives

DEATH, LONG_STAY = "death", "plos"  # outcomes beside the codes of lasting conditions
_TIMES = 50  # within the horizon, at which concordance is looked at


@dataclass(frozen=True)
class Truth:
    """What P patients were drawn from, each on a day of its own.

    Attributes:
        at_risk: (P,) bool, alive and without the outcome on the day.
        hazard: (P,) of the outcome per year on the day, 0 for those not at risk; of death the mean within the horizon.
        death: (P,) mean hazard of death within the horizon, 0 for those not at risk.
        horizon_days: the horizon.
    """

    at_risk: np.ndarray
    hazard: np.ndarray
    death: np.ndarray
    horizon_days: int

    @property
    def risk(self) -> np.ndarray:
        """(P,) probability of the outcome within the horizon and before death, with the conditions of the day.

        That further conditions may begin within the horizon and raise it is left out.
        """
        return self.within(self.horizon_days)

    def within(self, days: float) -> np.ndarray:
        """Return the probability of the outcome within so many days and before death, (P,)."""
        both = self.hazard + self.death
        return self.hazard / both.clip(1e-12) * -np.expm1(-both * days / YEAR)

    def attainable(self) -> dict[str, float]:
        """Return what nobody can beat on average in those at risk: AUROC, Brier score and concordance."""
        kept = self.at_risk
        own = Truth(kept[kept], self.hazard[kept], self.death[kept], self.horizon_days)
        return {**attainable(own.risk), "concordance": own._concordance()}

    def _concordance(self) -> float:
        """Return the probability that of two patients the one with the higher risk has the outcome first.

        Among pairs of which one has it within the horizon; who dies without it never has it.
        """
        order = np.argsort(self.risk, kind="stable")
        _, group = np.unique(self.risk[order], return_inverse=True)
        times = np.linspace(0, self.horizon_days, _TIMES + 1)
        right = pairs = 0.0
        for begin, end in itertools.pairwise(times):
            happens = (self.within(end) - self.within(begin))[order]
            later = 1 - self.within((begin + end) / 2)[order]
            of_group = np.bincount(group, later)
            lower = (np.cumsum(of_group) - of_group / 2)[group] - later / 2  # a tie is half right; nobody is two
            right, pairs = right + happens @ lower, pairs + happens @ (later.sum() - later)
        return float(right / pairs) if pairs > 0 else float("nan")


def truth(
    meta: Mapping[str, Any], outcome: str | Sequence[str], patients: np.ndarray, days: np.ndarray, horizon_days: int
) -> Truth:
    """Return the truth of generated patients.

    Args:
        meta: content of the population's meta file.
        outcome: `DEATH`, `LONG_STAY`, or the codes of an endpoint, of which the first onset of any counts; ``E11*``
            stands for all codes that begin so.
        patients: (P,) int, their ids; a patient may be there several times.
        days: (P,) days since 1970-01-01 within the five years.
        horizon_days: from the day on.

    Raises:
        InputError: the patients are not realistic ones of these tables, or the outcome has no known hazard.
    """
    end_date = _check(meta)
    columns = conditions_of(outcome)
    n = len(patients)
    at_risk, hazard, death = np.zeros(n, dtype=bool), np.zeros(n), np.zeros(n)
    blocks = patients // BLOCK
    for block in np.unique(blocks).tolist():
        own = np.flatnonzero(blocks == block)
        row, day = patients[own] - block * BLOCK, days[own]
        _, life, observation = lives(generator(meta["seed"], block), BLOCK, end_date, load())
        step = (np.searchsorted(life.starts, day, side="right") - 1).clip(0, STEPS - 1)
        at_risk[own] = observation.death[row] > day
        death[own] = life.death_hazard[step, row] + _early(life, row, day, horizon_days)
        if outcome == DEATH:
            hazard[own] = death[own]
        elif outcome == LONG_STAY:
            hazard[own] = life.stay_hazard[step, row] * _long_share()
        else:
            at_risk[own] &= (life.onset[row][:, columns] > day[:, None]).all(axis=1)
            hazard[own] = _onset_hazard(life, step, row, columns)
    return Truth(at_risk, hazard * at_risk, death * at_risk * (outcome != DEATH), horizon_days)


def of_prolonged_stays(meta: Mapping[str, Any], patients: np.ndarray) -> np.ndarray:
    """Return the probability of ``had_plos`` of patients, (P,), those with bounds as well.

    Of realistic ones it is that of a long stay which begins while they are observed.

    Raises:
        InputError: the patients were generated from other tables than these.
    """
    end_date = _end_date(meta)
    found, blocks = np.zeros(len(patients)), patients // BLOCK
    for block in np.unique(blocks).tolist():
        own = np.flatnonzero(blocks == block)
        of_block = _of_long_stays if "realistic" in meta else _of_bounded_stays
        found[own] = of_block(meta["seed"], block, end_date)[patients[own] - block * BLOCK]
    return found


def _of_long_stays(seed: int, block: int, end_date: date) -> np.ndarray:
    _, life, observation = lives(generator(seed, block), BLOCK, end_date, load())
    first, last = observation.start, np.minimum(observation.end + 1, life.starts[-1])
    years = (np.minimum(last, life.starts[1:, None]) - np.maximum(first, life.starts[:-1, None])).clip(0) / YEAR
    return -np.expm1(-(life.stay_hazard * years).sum(axis=0) * _long_share())


def _of_bounded_stays(seed: int, block: int, end_date: date) -> np.ndarray:
    tables = load()
    people = draw_people(generator(seed, block), BLOCK, tables.demographics, Window.until(end_date))
    diagnoses = generate_block(seed, block, 0.0, end_date).patients.events.of_system(ICD10CM)
    weights = dict(zip(tables.diagnoses.codes, of_diagnoses(tables).tolist(), strict=True))
    weight = np.array([weights[code] for _, code in diagnoses.table])
    patient, code = np.unique(np.stack((diagnoses.patients(), diagnoses.codes)), axis=1)  # each code of a patient once
    return expit(of_ages(tables.prolonged_stay, people.ages) + np.bincount(patient, weight[code], BLOCK))


def attainable(risk: np.ndarray) -> dict[str, float]:
    """Return what nobody can beat on average where outcomes are drawn with these risks (P,): AUROC and Brier score.

    >>> {name: round(value, 3) for name, value in attainable(np.array([0.1, 0.3])).items()}
    {'auroc': 0.656, 'brier': 0.15}
    """
    order = np.sort(risk)
    _, group = np.unique(order, return_inverse=True)
    positive, negative = np.bincount(group, order), np.bincount(group, 1 - order)
    worse = np.cumsum(negative) - negative / 2
    auroc = float(positive @ worse / (positive.sum() * negative.sum())) if 0 < risk.sum() < len(risk) else float("nan")
    return {"auroc": auroc, "brier": float((risk * (1 - risk)).mean())}


def _check(meta: Mapping[str, Any]) -> date:
    """Return the last day of the five years.

    Raises:
        InputError: the meta file is not one of realistic patients of these tables.
    """
    if "realistic" not in meta:
        raise InputError("the hazards of these patients are not known, expected patients of generate --realistic")
    return _end_date(meta)


def _end_date(meta: Mapping[str, Any]) -> date:
    tables = load()
    figures = meta["realistic"]["figures"] == figures_of.load(tables).digest if "realistic" in meta else True
    if meta["tables"] != tables.digest or not figures:
        raise InputError("the patients were generated from other tables than these, generate them again")
    return date.fromisoformat(meta["options"]["end_date"])


def conditions_of(outcome: str | Sequence[str]) -> np.ndarray:
    """Return the indices of the outcome's conditions, (C,); none for `DEATH` and `LONG_STAY`.

    Raises:
        InputError: to one of its codes belongs no condition, or one whose hazard is not known.
    """
    if outcome in (DEATH, LONG_STAY):
        return np.zeros(0, dtype=np.int64)
    diagnoses = load().diagnoses
    names = [outcome] if isinstance(outcome, str) else list(outcome)
    found = {name: [i for i, code in enumerate(diagnoses.codes) if _belongs(code, name)] for name in names}
    unknown = [name for name, own in found.items() if not own or not np.isin(diagnoses.kinds[own], LASTING).all()]
    if unknown or not names:
        which = ", ".join(unknown) or "no code"
        raise InputError(f"{which}: no known hazard, expected codes of lasting conditions")
    return np.unique(np.concatenate(list(found.values())))


def _belongs(code: str, name: str) -> bool:
    """Return whether a code is the one named, or begins as one that ends in ``*``."""
    return code.replace(".", "").startswith(name[:-1].replace(".", "")) if name.endswith("*") else code == name


def _early(life: Life, row: np.ndarray, day: np.ndarray, horizon_days: int) -> np.ndarray:
    """Return the mean hazard within the horizon of deaths soon after an onset up to the day, (P,) per year."""
    early, mean = life.early, np.zeros(len(row))
    place = np.argsort(row, kind="stable")  # a patient may be there several times
    first, last = (np.searchsorted(row[place], early.patients, side=side) for side in ("left", "right"))
    period = np.repeat(np.arange(len(first)), last - first)
    own = place[np.concatenate([np.arange(0), *map(np.arange, first, last)])]
    begun = early.onset[period] <= day[own]
    within = np.minimum(early.last[period], day[own] + horizon_days) - np.maximum(early.first[period], day[own]) + 1
    np.add.at(mean, own, early.hazard[period] * begun * within.clip(0) / max(horizon_days, 1))
    return mean


def _onset_hazard(life: Life, step: np.ndarray, row: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return life.hazard[step[:, None], row[:, None], columns].sum(axis=1, dtype=np.float64)


def _long_share() -> float:
    """Return the share of the stays that are long."""
    figures = figures_of.load(load())
    rates = figures.rates
    longer = np.log(rates["long_stay_days"] / rates["days_of_a_stay_median"]) / spread_of_stays(figures)
    return float(norm.sf(longer))
