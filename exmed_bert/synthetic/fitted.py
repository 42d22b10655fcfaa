"""Values that the draws need and no published figure gives: found by simulation (`fit.py`), stored in ``fitted.json``.

The tables describe the final population: prevalences, odds ratios, shares of patients with a diagnosis who take a
drug. The draws need what leads there: prevalences before histories are extended or truncated, partial correlations,
and the probability that a drug is given for this particular diagnosis.
"""

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exmed_bert.console import InputError
from exmed_bert.reference.realistic import Realistic
from exmed_bert.reference.tables import Tables
from exmed_bert.staging import write_json

PATH = Path(__file__).with_name("fitted.json")
REALISTIC_PATH = Path(__file__).with_name("fitted_realistic.json")
COMMAND = "python -m exmed_bert.synthetic.fit"
REALISTIC_COMMAND = "python -m exmed_bert.synthetic.fit_realistic"


@dataclass(frozen=True, eq=False)
class Levels:
    """What the hazards of the realistic population are divided by, so that their means are the published rates.

    Attributes:
        onset: (K, 4, 2) mean relative hazard of the onset among those without the condition.
        death: (groups, 2) mean relative hazard of death by the life table's age groups.
        stay: mean relative hazard of a stay in hospital.
        visits: (groups, 2) factor of the rate of visits to clinics, by age group.
    """

    onset: np.ndarray
    death: np.ndarray
    stay: float
    visits: np.ndarray


@dataclass(frozen=True, eq=False)
class Fitted:
    """The fitted values, in the order of the tables.

    Attributes:
        prevalence: (K, 4, 2) share of each age band and sex that draws the condition.
        partial_correlations: (K, K) of the normal scores of two conditions given all others, symmetric, 0 on the
            diagonal and for a pair without a published odds ratio.
        given: (L,) probability that a drug is given for a diagnosis the patient has.
        without_diagnosis: (D,) share of eligible patients who get the drug without a recorded diagnosis for it.
    """

    prevalence: np.ndarray
    partial_correlations: np.ndarray
    given: np.ndarray
    without_diagnosis: np.ndarray


@functools.cache
def load(tables: Tables, path: Path = PATH) -> Fitted:
    """Read the values that were fitted to ``tables``.

    Raises:
        InputError: they were fitted to other tables.
    """
    return _values(_read(path, tables.drawn_digest, COMMAND), tables)


@functools.cache
def load_realistic(tables: Tables, figures: Realistic, path: Path = REALISTIC_PATH) -> tuple[Fitted, Levels]:
    """Read the values of the realistic population.

    Raises:
        InputError: they were fitted to other tables.
    """
    content = _read(path, _digest(tables, figures), REALISTIC_COMMAND)
    levels = content["levels"]
    onset = np.array([levels["onset"][code] for code in tables.diagnoses.codes])
    return _values(content, tables), Levels(
        onset, np.array(levels["death"]), levels["stay"], np.array(levels["visits"])
    )


def save(fitted: Fitted, tables: Tables, errors: dict[str, Any], path: Path = PATH) -> None:
    """Write the values, rounded, with the ``errors`` that remain."""
    write_json(path, {"made_by": COMMAND, "tables": tables.drawn_digest, "errors": errors, **_plain(fitted, tables)})


def save_realistic(
    fitted: Fitted,
    levels: Levels,
    tables: Tables,
    figures: Realistic,
    errors: dict[str, Any],
    path: Path = REALISTIC_PATH,
) -> None:
    """Write the values of the realistic population, rounded, with the ``errors`` that remain."""
    of_levels = {
        "onset": dict(zip(tables.diagnoses.codes, levels.onset.round(4).tolist(), strict=True)),
        "death": levels.death.round(4).tolist(),
        "stay": round(levels.stay, 4),
        "visits": levels.visits.round(4).tolist(),
    }
    made = {"made_by": REALISTIC_COMMAND, "tables": _digest(tables, figures), "errors": errors}
    write_json(path, {**made, "levels": of_levels, **_plain(fitted, tables)})


def _read(path: Path, digest: str, command: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if content["tables"] != digest:
        raise InputError(f"{path}: was fitted to other tables than the reference tables; fit again with: {command}")
    return content


def _digest(tables: Tables, figures: Realistic) -> str:
    return f"{tables.drawn_digest} {figures.digest}"


def _values(content: dict[str, Any], tables: Tables) -> Fitted:
    diagnoses, drugs = tables.diagnoses, tables.drugs
    partial = np.zeros((len(diagnoses.codes),) * 2)
    for i, j in diagnoses.pairs:
        partial[[i, j], [j, i]] = content["partial_correlations"][_pair(diagnoses.codes[i], diagnoses.codes[j])]
    return Fitted(
        prevalence=np.array([content["prevalence"][code] for code in diagnoses.codes]),
        partial_correlations=partial,
        given=np.array([content["given"][name] for name in _links(tables)]),
        without_diagnosis=np.array([content["without_diagnosis"][code] for code in drugs.codes]),
    )


def _plain(fitted: Fitted, tables: Tables) -> dict[str, Any]:
    diagnoses, drugs = tables.diagnoses, tables.drugs
    return {
        "prevalence": dict(zip(diagnoses.codes, fitted.prevalence.round(5).tolist(), strict=True)),
        "partial_correlations": {
            _pair(diagnoses.codes[i], diagnoses.codes[j]): round(fitted.partial_correlations[i, j], 4)
            for i, j in diagnoses.pairs
        },
        "given": dict(zip(_links(tables), fitted.given.round(4).tolist(), strict=True)),
        "without_diagnosis": dict(zip(drugs.codes, fitted.without_diagnosis.round(5).tolist(), strict=True)),
    }


def _pair(one: str, other: str) -> str:
    return f"{one} {other}"


def _links(tables: Tables) -> list[str]:
    drugs, diagnoses = tables.drugs, tables.diagnoses
    links = zip(drugs.link_drug, drugs.link_diagnosis, strict=True)
    return [_pair(drugs.codes[drug], diagnoses.codes[diagnosis]) for drug, diagnosis in links]
