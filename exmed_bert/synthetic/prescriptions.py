"""Prescriptions of the patients: drugs for their diagnoses, first at a visit, then by days of supply."""

from dataclasses import dataclass

import numpy as np

from exmed_bert.reference.tables import Drugs, Tables
from exmed_bert.synthetic.events import Events, among, first_of_run, merge, one_each
from exmed_bert.synthetic.fitted import Fitted
from exmed_bert.synthetic.people import YEAR, YEARS_OBSERVED, People

# Estimates. The shares of therapies that end were lowered until the users within a year were close to those of MEPS;
# studies of adherence find several times as many.
AFTER_FIRST_LINE, WITHOUT_FIRST_LINE = 1.5, 0.3  # a second-line drug's probability, times that of the tables
UNCODED_TIMES = 50  # a drug's probability with an uncoded diagnosis, times that without any diagnosis
MOST_UNCODED = 0.8  # largest probability of a drug without a coded diagnosis
SECOND_LINE_DELAY = 180  # days, mean, from the first-line drug's start
SWITCH_DELAY = 120  # days, mean, before a switch to another drug of the class
NEVER_REFILLED = 0.03  # share of the therapies that end with the first fill
STOPPED = 0.05  # share of the therapies that end later, but before the last day observed
ADHERENCE = 0.12  # standard deviation of the logarithm of a patient's time between fills
REFILL_JITTER = 4.0  # days, standard deviation
PART_OF_YEAR = 0.9  # mean share of a year in which a user takes the drug; fills per user and year are fewer by it
FILLED_TOGETHER = 0.5  # share of the patients whose refills fall on common days
TOGETHER_EVERY = 30  # days between common days
MOST_STOPS = 3  # of a therapy
MOST_FILLS = 8  # per course
REFILL_DELAY = 20.0  # days, mean, between the end of a course's supply and its next fill
_DAY_BITS = 24


@dataclass(frozen=True)
class Users:
    """M users of a drug: indices of the patient, the drug, and the diagnosis that it is given for, (M,) int each."""

    patients: np.ndarray
    drugs: np.ndarray
    reasons: np.ndarray

    def __getitem__(self, which: np.ndarray) -> "Users":
        return Users(self.patients[which], self.drugs[which], self.reasons[which])


@dataclass(frozen=True)
class Persistence:
    """How long-term therapies end: the share that is filled once, those that stop and that begin again in a year."""

    never_refilled: float
    stopping: float
    restarting: float


class DiagnosisDays:
    """The days of each patient's diagnoses: for (patient, code) ``count`` entries of ``days`` from ``start`` on."""

    def __init__(self, diagnoses: Events, shape: tuple[int, int]) -> None:
        cell = diagnoses.patients * shape[1] + diagnoses.codes
        self._codes, self._origin = shape[1], diagnoses.days.min(initial=0)
        self._keys = np.sort((cell << _DAY_BITS) + diagnoses.days - self._origin)
        self.days = (self._keys & ((1 << _DAY_BITS) - 1)) + self._origin
        self.count = np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape)
        self.start = (np.cumsum(self.count) - self.count.ravel()).reshape(shape)

    def next(self, users: Users, day: np.ndarray) -> np.ndarray:
        """Return each user's first day of the diagnosis from ``day`` on; ``day`` itself where there is none."""
        cell = users.patients * self._codes + users.reasons
        found = np.searchsorted(self._keys, (cell << _DAY_BITS) + np.maximum(day - self._origin, 0))
        found = np.minimum(found, len(self._keys) - 1)
        return np.where(self._keys[found] >> _DAY_BITS == cell, self.days[found], day)


def draw_prescriptions(
    rng: np.random.Generator,
    people: People,
    diagnoses: Events,
    uncoded: np.ndarray,
    days: tuple[np.ndarray, np.ndarray],
    tables: Tables,
    fitted: Fitted,
    persistence: Persistence | None = None,
) -> Events:
    """Draw the prescriptions of n patients; without a diagnosis there is none.

    A drug is given with its probability for each diagnosis of a patient, and to a few patients with none of its
    diagnoses, most of whom have an uncoded one. The first fill is on a day of the diagnosis; second-line drugs follow
    first-line ones, and of one class there is one drug at a time. A long-term drug is refilled by its days of supply,
    scaled to the fills per year of the tables; a short-course drug is given again on other days of the diagnosis, at
    times with refills.

    Args:
        diagnoses: the coded diagnoses.
        uncoded: (n, K) bool, further conditions that are not recorded.
        days: two (n, D) int arrays, the first and the last day on which a patient can have a drug.
        tables: the reference tables.
        fitted: the probabilities.
        persistence: how therapies end and begin again; without it few end, and none begins again.
    """
    dated = DiagnosisDays(diagnoses, (len(days[0]), len(tables.diagnoses.codes)))
    users = _draw_users(rng, diagnoses, uncoded, dated, days, tables, fitted)
    long_term = tables.drugs.long_term[users.drugs]
    events = merge(
        [
            _therapies(rng, people, users[long_term], dated, tables.drugs, persistence),
            _courses(rng, users[~long_term], dated, tables.drugs),
        ]
    )
    first, last = days[0][events.patients, events.codes], days[1][events.patients, events.codes]
    return events[(events.days >= first) & (events.days <= last)]


def _draw_users(
    rng: np.random.Generator,
    diagnoses: Events,
    uncoded: np.ndarray,
    dated: DiagnosisDays,
    days: tuple[np.ndarray, np.ndarray],
    tables: Tables,
    fitted: Fitted,
) -> Users:
    drugs = tables.drugs
    can_have = days[0] <= days[1]
    indicated = (dated.count[:, drugs.link_diagnosis] > 0) & can_have[:, drugs.link_drug]  # (n, L)
    chance = rng.random(indicated.shape)
    second = drugs.second_line[drugs.link_drug]
    given = indicated & ~second & (chance < fitted.given)
    patient, link = np.nonzero(given)
    has_drug = np.zeros(can_have.shape, dtype=np.float32)
    has_drug[patient, drugs.link_drug[link]] = 1
    first_line = _first_line(drugs, dated.count.shape[1])
    has_first = (has_drug @ first_line.T > 0)[:, drugs.link_diagnosis]  # (n, L)
    there_is_one = first_line.sum(axis=1)[drugs.link_diagnosis] > 0
    times = np.where(there_is_one, np.where(has_first, AFTER_FIRST_LINE, WITHOUT_FIRST_LINE), 1)
    given |= indicated & second & (chance < fitted.given * times)
    patient, link = np.nonzero(given)
    treats = np.zeros((uncoded.shape[1], len(drugs.codes)), dtype=np.float32)
    treats[drugs.link_diagnosis, drugs.link_drug] = 1
    chance = fitted.without_diagnosis * np.where(uncoded.astype(np.float32) @ treats > 0, UNCODED_TIMES, 1)
    other, other_drug = np.nonzero(rng.random(can_have.shape) < can_have * chance.clip(max=MOST_UNCODED))
    seen = one_each(rng, diagnoses.patients)
    any_reason = np.full(len(can_have), -1)
    any_reason[diagnoses.patients[seen]] = diagnoses.codes[seen]
    never_seen = any_reason[other] < 0
    other, other_drug = other[~never_seen], other_drug[~never_seen]

    patients = np.concatenate([patient, other])
    which = np.concatenate([drugs.link_drug[link], other_drug])
    # An uncoded condition is treated at a visit for something else.
    reasons = np.concatenate([drugs.link_diagnosis[link], any_reason[other]])
    return Users(patients, which, reasons)[one_each(rng, patients * len(drugs.codes) + which)]


def _first_line(drugs: Drugs, n_diagnoses: int) -> np.ndarray:
    """Return a (K, D) array, 1 where a drug is a first-line one of a diagnosis, else 0."""
    first = ~drugs.second_line[drugs.link_drug]
    table = np.zeros((n_diagnoses, len(drugs.codes)), dtype=np.float32)
    table[drugs.link_diagnosis[first], drugs.link_drug[first]] = 1
    return table


def _therapies(
    rng: np.random.Generator,
    people: People,
    users: Users,
    dated: DiagnosisDays,
    drugs: Drugs,
    persistence: Persistence | None,
) -> Events:
    """Draw the fills of long-term drugs, from the first to the patient's last day, an earlier stop, or a switch."""
    count, start = (table[users.patients, users.reasons] for table in (dated.count, dated.start))
    begin = dated.days[start + (rng.random(len(count)) ** 3 * count).astype(np.int64)]  # mostly early
    begin = _after_first_line(rng, users, begin, dated, drugs)
    last = people.last_days[users.patients]
    if persistence is None:
        stays = rng.random(len(users.patients))
        stop = np.where(stays < NEVER_REFILLED + STOPPED, begin + rng.random(len(begin)) * (last - begin), last)
        stop = np.where(stays < NEVER_REFILLED, begin, stop)
    else:
        stop = last
    begin, stop = _one_of_a_class(rng, users, begin, stop, dated, drugs)

    adherence = np.exp(ADHERENCE * rng.standard_normal(len(begin)) - ADHERENCE**2 / 2)
    interval = _supply(rng, users.drugs, drugs) * (_stretch(drugs)[users.drugs] * adherence).clip(0.95)
    refill = np.arange(int(YEARS_OBSERVED * YEAR / interval.min(initial=YEAR)) + 1)
    jitter = rng.normal(0, REFILL_JITTER, (len(begin), len(refill))) * (refill > 0)
    days = begin[:, None] + (refill * interval[:, None] + jitter).astype(np.int64)
    together = rng.random(len(people)) < FILLED_TOGETHER
    common = (np.round((days - people.birth_days[users.patients, None]) / TOGETHER_EVERY) * TOGETHER_EVERY).astype(
        np.int64
    )
    common += people.birth_days[users.patients, None]  # the birth day gives each patient a day of the month
    days = np.where(together[users.patients, None] & (refill > 0), np.maximum(common, begin[:, None] + 15), days)
    taken = (days >= begin[:, None]) & (days <= stop[:, None])
    if persistence is not None:
        taken &= _taking(rng, days - begin[:, None], interval, persistence)
    user, fill = np.nonzero(taken)
    return Events(users.patients[user], users.drugs[user], days[user, fill])


def _taking(rng: np.random.Generator, since: np.ndarray, interval: np.ndarray, persistence: Persistence) -> np.ndarray:
    """Return whether a therapy is being taken ``since`` (M, F) days after its begin: it stops and begins again.

    Both at constant rates; a share of the therapies stops at the first fill, and none between that and the second,
    which comes after an ``interval`` (M,).
    """
    stopping, restarting = (-np.log1p(-share) / YEAR for share in (persistence.stopping, persistence.restarting))
    taking, turn = since >= 0, interval + TOGETHER_EVERY + rng.standard_exponential(len(since)) / stopping
    turn[rng.random(len(since)) < persistence.never_refilled] = 0
    for cycle in range(2 * MOST_STOPS - 1):
        taking ^= since > turn[:, None]
        turn += rng.standard_exponential(len(since)) / (stopping if cycle % 2 else restarting)
    return taking


def _after_first_line(
    rng: np.random.Generator, users: Users, begin: np.ndarray, dated: DiagnosisDays, drugs: Drugs
) -> np.ndarray:
    """Return the days on which the therapies begin, second-line drugs after first-line ones."""
    second = drugs.second_line[users.drugs]
    never = np.iinfo(np.int64).max
    begins = np.full((len(dated.count), len(drugs.codes)), never)
    begins[users.patients, users.drugs] = begin
    of_diagnosis = _first_line(drugs, dated.count.shape[1])[users.reasons] > 0  # (M, D)
    of_first = np.where(of_diagnosis, begins[users.patients], never).min(axis=1, initial=never)
    late = second & (of_first < never) & (begin <= of_first)
    delayed = of_first[late] + 1 + rng.exponential(SECOND_LINE_DELAY, late.sum()).astype(np.int64)
    begin = begin.copy()
    begin[late] = dated.next(users[late], delayed)
    return begin


def _one_of_a_class(
    rng: np.random.Generator, users: Users, begin: np.ndarray, stop: np.ndarray, dated: DiagnosisDays, drugs: Drugs
) -> tuple[np.ndarray, np.ndarray]:
    """Return first and last days of the therapies, with one drug per class at a time."""
    in_class = np.flatnonzero(drugs.classes[users.drugs] >= 0)
    group = users.patients[in_class] * (drugs.classes.max() + 1) + drugs.classes[users.drugs[in_class]]
    order = np.lexsort((rng.random(len(group)), begin[in_class], group))
    rows, group = in_class[order], group[order]
    begin, stop = begin.copy(), stop.copy()
    follows = np.flatnonzero(~first_of_run(group))
    for _ in range(2):  # a third drug of a class moves with the second
        previous, row = rows[follows - 1], rows[follows]
        soonest = begin[previous] + 30 + rng.exponential(SWITCH_DELAY, len(row)).astype(np.int64)
        crowded = begin[row] < begin[previous] + 30
        begin[row] = np.where(crowded, dated.next(users[row], soonest), begin[row])
    stop[rows[follows - 1]] = np.minimum(stop[rows[follows - 1]], begin[rows[follows]] - 1)
    return begin, np.maximum(stop, begin)


def _supply(rng: np.random.Generator, which: np.ndarray, drugs: Drugs) -> np.ndarray:
    """Draw each user's days of supply; shares of prescriptions are converted to shares of users."""
    weights = np.cumsum(drugs.supply_shares * drugs.supply_days, axis=1)
    chosen = (rng.random((len(which), 1)) * weights[which, -1:] >= weights[which]).sum(axis=1)
    return drugs.supply_days[which, chosen]


def _stretch(drugs: Drugs) -> np.ndarray:
    """(D,) ratio of the time between fills to the days of supply; above 1 where doses are missed."""
    mean_supply = (drugs.supply_shares * drugs.supply_days).sum(axis=1)
    return np.maximum(YEAR * PART_OF_YEAR / drugs.fills_per_user_year / mean_supply, 1)


def _courses(rng: np.random.Generator, users: Users, dated: DiagnosisDays, drugs: Drugs) -> Events:
    """Draw the fills of short courses: begun on days of the diagnosis, in as many years as the tables imply."""
    count, start = (table[users.patients, users.reasons] for table in (dated.count, dated.start))
    years = YEARS_OBSERVED * drugs.share_1yr / drugs.share_5yr
    wanted = np.minimum(1 + rng.poisson((years - 1).clip(0)[users.drugs]), count)
    user = np.repeat(np.arange(len(wanted)), wanted)
    course = np.arange(len(user)) - np.repeat(np.cumsum(wanted) - wanted, wanted)
    turn = (among(rng, count)[user] + course * np.maximum(count // wanted, 1)[user]) % count[user]
    begin = dated.days[start[user] + turn]

    fills = 1 + rng.poisson((drugs.fills_per_user_year - 1).clip(0)[users.drugs[user]]).clip(max=MOST_FILLS - 1)
    gap = _supply(rng, users.drugs[user], drugs) + rng.exponential(REFILL_DELAY, len(user))
    row = np.repeat(np.arange(len(user)), fills)
    fill = np.arange(len(row)) - np.repeat(np.cumsum(fills) - fills, fills)
    return Events(users.patients[user[row]], users.drugs[user[row]], begin[row] + (fill * gap[row]).astype(np.int64))
