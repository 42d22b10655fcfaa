"""What the patients are given: drugs for the diagnoses they have, first at a visit, then by days of supply."""

from dataclasses import dataclass

import numpy as np

from exmed_bert.synthetic.conditions import eligible_share
from exmed_bert.synthetic.events import Events, among, merge, one_each
from exmed_bert.synthetic.people import YEAR, YEARS_OBSERVED, Window
from exmed_bert.synthetic.tables import BAND_STARTS, Drugs, Tables

# Estimates.
STOPPED = 0.3  # share of the long-term therapies that end within the window
REFILL_JITTER = 4.0  # days, standard deviation
MOST_COURSES = 12  # of a short-course drug


@dataclass(frozen=True)
class Users:
    """M users of a drug: indices of the patient, the drug, and the diagnosis it is given for, each (M,) int."""

    patients: np.ndarray
    drugs: np.ndarray
    reasons: np.ndarray

    def __getitem__(self, which: np.ndarray) -> "Users":
        return Users(self.patients[which], self.drugs[which], self.reasons[which])


class DiagnosisDays:
    """The days of each patient's diagnoses: for (patient, code) ``count`` entries of ``days`` from ``start`` on."""

    def __init__(self, diagnoses: Events, shape: tuple[int, int]) -> None:
        order = np.lexsort((diagnoses.days, diagnoses.codes, diagnoses.patients))
        cell = diagnoses.patients * shape[1] + diagnoses.codes
        self.days = diagnoses.days[order]
        self.count = np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape)
        self.start = (np.cumsum(self.count) - self.count.ravel()).reshape(shape)


def draw_prescriptions(
    rng: np.random.Generator,
    diagnoses: Events,
    days: tuple[np.ndarray, np.ndarray],
    tables: Tables,
    window: Window,
) -> Events:
    """Return the prescriptions of n patients, each of whom has at least one diagnosis.

    A drug is given with its probability for each diagnosis a patient has, and to a few who have none of them. The
    first fill is on a day of the diagnosis. A long-term drug is refilled by its days of supply, stretched so that
    the fills a year are those of the tables; a short-course drug is given again on other days of the diagnosis.

    Args:
        diagnoses: what the patients have.
        days: two (n, D) int arrays, the first and the last day on which a patient can have a drug.
        tables: the reference tables.
        window: the days of the five years.
    """
    dated = DiagnosisDays(diagnoses, (len(days[0]), len(tables.diagnoses.codes)))
    users = _draw_users(rng, diagnoses, dated, days, tables)
    long_term = tables.drugs.long_term[users.drugs]
    events = merge(
        [
            _therapies(rng, users[long_term], dated, tables.drugs, window),
            _courses(rng, users[~long_term], dated, tables.drugs),
        ]
    )
    first, last = days[0][events.patients, events.codes], days[1][events.patients, events.codes]
    return events[(events.days >= first) & (events.days <= last)]


def _draw_users(
    rng: np.random.Generator,
    diagnoses: Events,
    dated: DiagnosisDays,
    days: tuple[np.ndarray, np.ndarray],
    tables: Tables,
) -> Users:
    drugs = tables.drugs
    can_have = days[0] <= days[1]
    indicated = (dated.count[:, drugs.link_diagnosis] > 0) & can_have[:, drugs.link_drug]  # (n, L)
    patient, link = np.nonzero(rng.random(indicated.shape) < indicated * drugs.link_probability)
    other, other_drug = np.nonzero(rng.random(can_have.shape) < can_have * _share_unexplained(tables))
    any_reason = diagnoses.codes[one_each(rng, diagnoses.patients)]

    patients = np.concatenate([patient, other])
    given = np.concatenate([drugs.link_drug[link], other_drug])
    reasons = np.concatenate([drugs.link_diagnosis[link], any_reason[other]])
    return Users(patients, given, reasons)[one_each(rng, patients * len(drugs.codes) + given)]


def _share_unexplained(tables: Tables) -> np.ndarray:
    """(D,) share of those who can have a drug that uses it within five years without any of its diagnoses."""
    people = np.add.reduceat(tables.demographics.people, BAND_STARTS, axis=0)
    can_have = eligible_share(tables.drugs.limits, tables.demographics) * tables.drugs.limits.sexes[:, None, :]
    can_have = (can_have * people).sum(axis=(1, 2)) / people.sum()
    return tables.drugs.share_5yr * tables.drugs.share_without_diagnosis / can_have


def _therapies(rng: np.random.Generator, users: Users, dated: DiagnosisDays, drugs: Drugs, window: Window) -> Events:
    """Refills run from the first fill to the end of the window, or to an earlier stop."""
    count, start = (table[users.patients, users.reasons] for table in (dated.count, dated.start))
    begun = dated.days[start + (rng.random(len(count)) ** 3 * count).astype(np.int64)]  # mostly early on
    stop = np.where(rng.random(len(begun)) < STOPPED, begun + rng.random(len(begun)) * (window.end - begun), window.end)

    interval = _supply(rng, users.drugs, drugs) * _stretch(drugs)[users.drugs]
    refill = np.arange(int(YEARS_OBSERVED * YEAR / interval.min(initial=YEAR)) + 1)
    jitter = rng.normal(0, REFILL_JITTER, (len(begun), len(refill))) * (refill > 0)
    days = begun[:, None] + (refill * interval[:, None] + jitter).astype(np.int64)
    user, fill = np.nonzero((days >= begun[:, None]) & (days <= stop[:, None]))
    return Events(users.patients[user], users.drugs[user], days[user, fill])


def _supply(rng: np.random.Generator, which: np.ndarray, drugs: Drugs) -> np.ndarray:
    """Draw each user's days of supply. Shares of prescriptions become shares of users: who gets more, comes less."""
    weights = np.cumsum(drugs.supply_shares * drugs.supply_days, axis=1)
    chosen = (rng.random((len(which), 1)) * weights[which, -1:] >= weights[which]).sum(axis=1)
    return drugs.supply_days[which, chosen]


def _stretch(drugs: Drugs) -> np.ndarray:
    """(D,) ratio of the time between fills to the days of supply; above 1 where doses are missed."""
    mean_supply = (drugs.supply_shares * drugs.supply_days).sum(axis=1)
    return np.maximum(YEAR / drugs.fills_per_user_year / mean_supply, 1)


def _courses(rng: np.random.Generator, users: Users, dated: DiagnosisDays, drugs: Drugs) -> Events:
    """Courses are given on different days of the diagnosis, as many within the window as the tables' fills imply."""
    fills = drugs.fills_per_user_year * YEARS_OBSERVED * drugs.share_1yr / drugs.share_5yr
    wanted = 1 + rng.poisson((fills - 1).clip(0)[users.drugs])
    count, start = (table[users.patients, users.reasons] for table in (dated.count, dated.start))
    course = np.arange(MOST_COURSES)
    user, course = np.nonzero(course < np.minimum(wanted, count)[:, None])
    turn = (among(rng, count)[user] + course) % count[user]
    return Events(users.patients[user], users.drugs[user], dated.days[start[user] + turn])
