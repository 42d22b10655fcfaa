"""Bounds on the number of events per patient: longer histories are truncated, shorter ones extended."""

from collections.abc import Callable

import numpy as np

from exmed_bert.reference.tables import Drugs, Tables
from exmed_bert.synthetic.calendar import calendar
from exmed_bert.synthetic.events import Events, day_between, merge, one_each
from exmed_bert.synthetic.people import People, Window

DIAGNOSES = range(3, 31)  # events per patient
PRESCRIPTIONS = range(2, 41)

_REPEATS = 5  # rounds in which a short history is extended by what the patient already has


def truncate(rng: np.random.Generator, events: Events, most: int, n: int) -> Events:
    """Keep at most ``most`` events of each of n patients: the first of each code, then the latest.

    This preserves onsets, and the gaps between refills in the latest years.
    """
    first = np.zeros(len(events), dtype=bool)
    first[np.unique(events.patients << 16 | events.codes, return_index=True)[1]] = True
    order = np.lexsort((rng.random(len(events)), -events.days, ~first, events.patients))
    counts = events.per_patient(n)
    rank = np.arange(len(events)) - np.repeat(np.cumsum(counts) - counts, counts)  # within the patient
    return merge([events[order[rank < most]]])


def extend_diagnoses(
    rng: np.random.Generator,
    events: Events,
    people: People,
    days: tuple[np.ndarray, np.ndarray],
    tables: Tables,
    window: Window,
) -> Events:
    """Add visits up to each patient's minimum: for something the patient has, else a routine or episodic one.

    ``days`` are two (n, K) arrays, the first and the last day on which a patient can have a code.
    """
    diagnoses = tables.diagnoses
    passing = np.isin(diagnoses.kinds, ("yearly", "episodic"))
    weight = diagnoses.prevalence[:, people.bands, people.sexes].T * passing * (days[0] <= days[1])

    def day_of(patients: np.ndarray, codes: np.ndarray) -> np.ndarray:
        return calendar(tables.schedule, window).draw(rng, codes, days[0][patients, codes], days[1][patients, codes])

    return _extend(rng, events, DIAGNOSES.start, weight, diagnoses.kinds != "pregnancy", day_of)


def extend_prescriptions(
    rng: np.random.Generator,
    events: Events,
    diagnoses: Events,
    days: tuple[np.ndarray, np.ndarray],
    drugs: Drugs,
) -> Events:
    """Add prescriptions up to each patient's minimum: of a drug the patient has had, else a short course.

    A short course begins on the day of a visit, for a diagnosis of the patient, or with a drug that is sold over the
    counter or commonly used without a diagnosis. ``days`` are two (n, D) arrays, the first and the last day on which a
    patient can have a drug.
    """
    (n, n_drugs), n_diagnoses = days[0].shape, drugs.link_diagnosis.max() + 1
    has = np.zeros((n, n_diagnoses))
    known = diagnoses.codes < n_diagnoses
    has[diagnoses.patients[known], diagnoses.codes[known]] = 1
    short_course = ~drugs.long_term[drugs.link_drug]
    indicated = np.zeros((n_diagnoses, n_drugs))
    indicated[drugs.link_diagnosis, drugs.link_drug] = drugs.link_probability * short_course
    unexplained = (
        drugs.share_5yr * np.where(drugs.over_the_counter, 1, drugs.share_without_diagnosis) * ~drugs.long_term
    )
    weight = (has @ indicated + unexplained) * (days[0] <= days[1])

    def day_of(patients: np.ndarray, codes: np.ndarray) -> np.ndarray:
        seen = diagnoses[np.isin(diagnoses.patients, patients)]  # every patient has diagnoses by now
        visit = one_each(rng, seen.patients)
        day = seen.days[visit][np.searchsorted(seen.patients[visit], patients)]
        first, last = days[0][patients, codes], days[1][patients, codes]
        return np.where((day >= first) & (day <= last), day, day_between(rng, first, last))

    return _extend(rng, events, PRESCRIPTIONS.start, weight, np.ones(n_drugs, dtype=bool), day_of)


def _extend(
    rng: np.random.Generator,
    events: Events,
    fewest: int,
    weight: np.ndarray,
    can_repeat: np.ndarray,
    day_of: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Events:
    """Add events until each of n patients has ``fewest``.

    Existing codes are repeated first, which leaves prevalences unchanged; where there is nothing to repeat, or no free
    day after some rounds, a code is drawn.

    Args:
        weight: (n, C) relative probability of each code; at least ``fewest`` per patient above zero.
        can_repeat: (C,) bool.
        day_of: returns a day for each pair of patient and code.
    """
    rounds = 0
    while (short := events.per_patient(len(weight)) < fewest).any():
        own = np.flatnonzero(short[events.patients] & can_repeat[events.codes])
        own = own[one_each(rng, events.patients[own])]
        drawn = np.setdiff1d(np.flatnonzero(short), events.patients[own] if rounds < _REPEATS else [])
        # The smallest of exponential times with these rates is a draw with these weights.
        code = (rng.exponential(size=(len(drawn), weight.shape[1])) / weight[drawn].clip(1e-300)).argmin(axis=1)
        patients = np.concatenate([events.patients[own], drawn])
        codes = np.concatenate([events.codes[own], code])
        events = merge([events, Events(patients, codes, day_of(patients, codes))])
        rounds += 1
    return events
