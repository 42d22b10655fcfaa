"""Known truth of realistic patients: the hazards that their onsets, deaths and long stays were drawn from.

Lives are a function of the seed and the patient's number, so nothing is stored: they are drawn again from what the meta
file says. What a record shows of an onset follows the same hazard where the patient is at risk. Whoever has had the
condition since before the first day of the five years is not, but may not have been coded yet in the record: hence
`Truth.at_risk`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
from scipy.stats import norm

from exmed_bert.console import InputError
from exmed_bert.reference import realistic as figures_of
from exmed_bert.reference.tables import load
from exmed_bert.synthetic.life import LASTING, STEPS, Life, spread_of_stays
from exmed_bert.synthetic.people import YEAR
from exmed_bert.synthetic.population import BLOCK
from exmed_bert.synthetic.realistic import generator, lives

DEATH, LONG_STAY = "death", "plos"  # outcomes beside the codes of lasting conditions


@dataclass(frozen=True)
class Truth:
    """What P patients were drawn from, each on a day of its own.

    Attributes:
        at_risk: (P,) bool, alive and without the outcome on the day.
        hazard: (P,) per year on the day, of those at risk; 0 for the others.
        risk: (P,) probability of the outcome within the horizon and before death, with the conditions of the day:
            that further conditions may begin within the horizon and raise it is left out.
    """

    at_risk: np.ndarray
    hazard: np.ndarray
    risk: np.ndarray


def truth(
    meta: Mapping[str, Any], outcome: str | Sequence[str], patients: np.ndarray, days: np.ndarray, horizon_days: int
) -> Truth:
    """Return the truth of generated patients.

    Args:
        meta: content of the population's meta file.
        outcome: `DEATH`, `LONG_STAY`, or the codes of an endpoint: the first onset of any of them counts.
        patients: (P,) int, their ids; a patient may be there several times.
        days: (P,) days since 1970-01-01 within the five years.
        horizon_days: from the day on.

    Raises:
        InputError: the patients are not realistic ones of these tables, or the outcome has no known hazard.
    """
    end_date = _check(meta)
    columns = _columns(outcome)
    n = len(patients)
    at_risk, hazard, dying = np.zeros(n, dtype=bool), np.zeros(n), np.zeros(n)
    blocks = patients // BLOCK
    for block in np.unique(blocks).tolist():
        own = np.flatnonzero(blocks == block)
        row, day = patients[own] - block * BLOCK, days[own]
        _, life, observation = lives(generator(meta["seed"], block), BLOCK, end_date, load())
        step = (np.searchsorted(life.starts, day, side="right") - 1).clip(0, STEPS - 1)
        at_risk[own] = observation.death[row] > day
        dying[own] = life.death_hazard[step, row]
        if outcome == DEATH:
            hazard[own] = dying[own]
        elif outcome == LONG_STAY:
            hazard[own] = life.stay_hazard[step, row] * _long_share()
        else:
            at_risk[own] &= (life.onset[row][:, columns] > day[:, None]).all(axis=1)
            hazard[own] = _onset_hazard(life, step, row, columns)
    hazard *= at_risk
    both = hazard if outcome == DEATH else hazard + dying
    years = horizon_days / YEAR
    return Truth(at_risk, hazard, hazard / both.clip(1e-12) * -np.expm1(-both * years))


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
    tables = load()
    if (meta["tables"], meta["realistic"]["figures"]) != (tables.digest, figures_of.load(tables).digest):
        raise InputError("the patients were generated from other tables than these, generate them again")
    return date.fromisoformat(meta["options"]["end_date"])


def _columns(outcome: str | Sequence[str]) -> np.ndarray:
    """Return the columns of the outcome's codes; none for an outcome that is no code."""
    if outcome in (DEATH, LONG_STAY):
        return np.zeros(0, dtype=np.int64)
    diagnoses = load().diagnoses
    known = {code: i for i, code in enumerate(diagnoses.codes) if diagnoses.kinds[i] in LASTING}
    names = [outcome] if isinstance(outcome, str) else list(outcome)
    if not names or (missing := [name for name in names if name not in known]):
        which = ", ".join(missing) if names else "no code"
        raise InputError(f"{which}: no known hazard, expected codes of lasting conditions")
    return np.array([known[name] for name in names])


def _onset_hazard(life: Life, step: np.ndarray, row: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return life.hazard[step[:, None], row[:, None], columns].sum(axis=1, dtype=np.float64)


def _long_share() -> float:
    """Return the share of the stays that are long."""
    figures = figures_of.load(load())
    rates = figures.rates
    longer = np.log(rates["long_stay_days"] / rates["days_of_a_stay_median"]) / spread_of_stays(figures)
    return float(norm.sf(longer))
