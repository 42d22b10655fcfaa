"""The censored of a cohort: what those whose outcome is known count for them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from exmed_bert.cohorts.labeled import TEST, UNLABELED, LabeledPatients
from exmed_bert.cohorts.tasks.base import Task
from exmed_bert.console import InputError
from exmed_bert.evaluation.censoring import HorizonOutcome
from exmed_bert.evaluation.follow_up import FollowUp
from exmed_bert.evaluation.groups import strata

_NOBODY = 1e-6  # share of the patients that may be missing from those for whom the others count, by rounding alone


def horizon_outcome(patients: LabeledPatients, task: Task, strata_of: Sequence[str] = ()) -> HorizonOutcome | None:
    """Return the outcome of a cohort's rows by the horizon; None where no label is missing.

    Args:
        patients: the cohort.
        task: that it was made for.
        strata_of: what the probability of being observed depends on, as `groups.strata` has it.
    """
    if task.follow_up_days is None or not (patients.labels == UNLABELED).any():
        return None
    gap, horizon = task.follow_up_days
    followed = FollowUp.of(patients.timeline, patients.index_days.astype(np.int64) + gap)
    return HorizonOutcome(followed, horizon - gap, strata(patients, strata_of)[0] if strata_of else None)


def weighted(
    patients: LabeledPatients, outcome: HorizonOutcome | None, strata_of: Sequence[str] = ()
) -> LabeledPatients:
    """Return the patients with what each counts: censoring is estimated among the test patients and among the others.

    Raises:
        InputError: of a part nobody is observed so long that anyone could count for the censored.
    """
    if outcome is None:
        return patients
    number, called = strata(patients, strata_of)
    weights = np.zeros(len(patients))
    for part, rows in (
        ("training and validation", np.flatnonzero(patients.splits != TEST)),
        ("test", patients.rows(TEST)),
    ):
        if not len(rows):
            continue
        weights[rows] = outcome.take(rows).weights()[0]
        stands_for = np.bincount(number[rows], weights[rows], minlength=len(called))
        there = np.bincount(number[rows], minlength=len(called))
        missing = np.flatnonzero(stands_for < there * (1 - _NOBODY))
        if len(missing):
            of = f" of {called[missing[0]]}" if called[missing[0]] else ""
            raise InputError(
                f"{part} patients{of}: none of {there[missing[0]]:,} is observed to the end of the horizon of "
                f"{outcome.horizon:g} days, expected some who count for the censored; take a shorter --horizon-days, "
                "more patients or fewer --censoring-strata"
            )
    return replace(patients, weights=weights)
