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
from exmed_bert.reference.tables import Tables
from exmed_bert.staging import write_json

PATH = Path(__file__).with_name("fitted.json")
COMMAND = "python -m exmed_bert.synthetic.fit"


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
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["tables"] != tables.drawn_digest:
        raise InputError(f"{path}: was fitted to other tables than the reference tables; fit again with: {COMMAND}")
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


def save(fitted: Fitted, tables: Tables, errors: dict[str, Any], path: Path = PATH) -> None:
    """Write the values, rounded, with the ``errors`` that remain."""
    diagnoses, drugs = tables.diagnoses, tables.drugs
    content = {
        "made_by": COMMAND,
        "tables": tables.drawn_digest,
        "errors": errors,
        "prevalence": dict(zip(diagnoses.codes, fitted.prevalence.round(5).tolist(), strict=True)),
        "partial_correlations": {
            _pair(diagnoses.codes[i], diagnoses.codes[j]): round(fitted.partial_correlations[i, j], 4)
            for i, j in diagnoses.pairs
        },
        "given": dict(zip(_links(tables), fitted.given.round(4).tolist(), strict=True)),
        "without_diagnosis": dict(zip(drugs.codes, fitted.without_diagnosis.round(5).tolist(), strict=True)),
    }
    write_json(path, content)


def _pair(one: str, other: str) -> str:
    return f"{one} {other}"


def _links(tables: Tables) -> list[str]:
    drugs, diagnoses = tables.drugs, tables.diagnoses
    links = zip(drugs.link_drug, drugs.link_diagnosis, strict=True)
    return [_pair(drugs.codes[drug], diagnoses.codes[diagnosis]) for drug, diagnosis in links]
