"""Subgroups of patients and the metrics of a model within each: sex, age at the index date, length of the history."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from exmed_bert.cohorts.labeled import LabeledPatients
from exmed_bert.console import OptionError
from exmed_bert.data.static_columns import StaticColumn
from exmed_bert.evaluation.bootstrap import RESAMPLES, Estimate, with_intervals
from exmed_bert.evaluation.censoring import HorizonOutcome
from exmed_bert.evaluation.features import age_at_index
from exmed_bert.evaluation.metrics import METRICS
from exmed_bert.reporting.small_cells import Counted

LEAST_EVENTS = 5  # of either class, or a subgroup shows its counts alone

_AGE_STARTS = (40, 65, 80)
_AGES = ("under 40", "40-64", "65-79", "80 and over")


@dataclass(frozen=True)
class Group:
    """A part of the patients.

    Attributes:
        kind, name: what it is divided by, and which part: ``("sex", "female")``.
        member: (N,) bool.
    """

    kind: str
    name: str
    member: np.ndarray


@dataclass(frozen=True)
class GroupMetrics:
    """A subgroup, its size, and a model's metrics in it; none where a class has fewer than `LEAST_EVENTS` patients.

    ``censored`` of the patients are not known to have the outcome or to be free of it.
    """

    kind: str
    name: str
    patients: Counted
    events: Counted
    metrics: dict[str, Estimate]
    censored: Counted = 0


def groups(patients: LabeledPatients, rows: np.ndarray) -> list[Group]:
    """Return the groups of the patients in ``rows``: by sex, age at the index date and number of codes.

    Codes are divided at the terciles of ``rows``; empty groups are left out.
    """
    found = []
    for column in patients.dataset.info.static_columns:
        if column.divides_groups:
            ids = patients.dataset.static_ids(column.name)[rows]
            values = {i: (column.value(i) or "unknown").lower() for i in np.unique(ids).tolist()}
            found += [Group(column.name, value, ids == i) for i, value in values.items()]
    band = np.searchsorted(_AGE_STARTS, age_at_index(patients)[rows], side="right")
    found += [Group("age", name, band == i) for i, name in enumerate(_AGES)]
    lengths = patients.dataset.lengths[rows]
    found += [Group("codes", name, member) for name, member in _thirds(lengths)]
    return [group for group in found if group.member.any()]


def censoring_strata(text: str | None, columns: Iterable[StaticColumn]) -> tuple[str, ...]:
    """Read --censoring-strata.

    Args:
        text: names separated by commas.
        columns: the static columns of the patients.

    Raises:
        OptionError: a name is neither ``age`` nor that of a column with few values.
    """
    names = tuple(dict.fromkeys(part.strip() for part in (text or "").split(",") if part.strip()))
    known = ["age", *(column.name for column in columns if column.divides_groups)]
    for name in names:
        if name not in known:
            raise OptionError(f"--censoring-strata: {name!r}, expected some of {', '.join(known)}")
    return names


def strata(patients: LabeledPatients, names: Iterable[str]) -> tuple[np.ndarray, list[str]]:
    """Return the stratum of each patient by age and static columns, (N,), and what the strata are called."""
    number, called = np.zeros(len(patients), dtype=np.int64), [""]
    rows = np.arange(len(patients))
    for name in names:
        own = [group for group in groups(patients, rows) if group.kind == name]
        part = np.select([group.member for group in own], range(len(own)))
        called = [", ".join(filter(None, (one, f"{name} {group.name}"))) for one in called for group in own]
        found, number = np.unique(number * len(own) + part, return_inverse=True)
        called = [called[i] for i in found]
    return number, called


def by_group(
    labels: np.ndarray,
    probabilities: np.ndarray,
    parts: Iterable[Group],
    patient_hashes: np.ndarray | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    names: Iterable[str] = METRICS,
    outcome: HorizonOutcome | None = None,
) -> list[GroupMetrics]:
    """Return the metrics within each subgroup, with intervals.

    Args:
        labels, probabilities, patient_hashes, resamples, seed, names: as in `bootstrap.with_intervals`.
        parts: the subgroups.
        outcome: gives weights for censoring, which is estimated within each subgroup; None where all labels are known.
    """
    names, found = tuple(names), []
    for part in parts:
        own = part.member
        patients, events = int(own.sum()), int(labels[own].sum())
        metrics: dict[str, Estimate] = {}
        known = patients if outcome is None else int(outcome.known[own].sum())
        if min(events, known - events) >= LEAST_EVENTS:
            hashes = None if patient_hashes is None else patient_hashes[own]
            weigh = None if outcome is None else outcome.take(own).weights
            metrics = with_intervals(labels[own], probabilities[own], hashes, resamples, seed, names, weigh)
        found.append(GroupMetrics(part.kind, part.name, patients, events, metrics, patients - known))
    return found


def _thirds(lengths: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Divide whole numbers at their terciles, ties together."""
    low, high = (int(value) for value in np.quantile(lengths, (1 / 3, 2 / 3), method="inverted_cdf"))
    if low == high:
        return [(f"up to {low}", lengths <= low), (f"over {low}", lengths > low)]
    return [
        (f"up to {low}", lengths <= low),
        (f"{low + 1} to {high}", (lengths > low) & (lengths <= high)),
        (f"over {high}", lengths > high),
    ]
