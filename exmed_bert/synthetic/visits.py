"""When the patients are seen for what they have: the diagnoses as dated events, grouped into visits."""

import math

import numpy as np

from exmed_bert.synthetic.events import Events, day_between, merge, one_each
from exmed_bert.synthetic.people import YEAR, YEARS_OBSERVED, People, Window
from exmed_bert.synthetic.tables import Diagnoses

# All rates below are estimates.
FOLLOW_UPS_A_YEAR = (2.0, 4.0)  # visits for chronic conditions, drawn for each patient
FOLLOW_UP_JITTER = 10.0  # days, standard deviation around the regular interval
ONSET_WITHIN_WINDOW = 0.25  # share of the chronic conditions that begin within the five years
CODED_SHARE = (0.6, 2.4)  # beta distribution: share of the follow-ups at which a further condition is coded
ATTENDANCE = 0.75  # share of the yearly visits that take place
ANNIVERSARY_JITTER = 15.0  # days, standard deviation
WELL_CHILD_DAYS = np.array([61, 122, 183, 274, 365, 457, 548, 730])  # 2 to 24 months, the AAP's schedule of visits
ONE_EPISODE_ONLY = 0.65  # geometric distribution of the number of episodes
MOST_EPISODES = 4
SEEN_TOGETHER = 0.6  # probability that an episode falls on a visit for a condition it tends to go with
PRENATAL_GAP, MOST_PRENATAL, PRENATAL_ATTENDANCE = 28, 9, 0.8  # days between visits, visits, share that takes place


def draw_diagnoses(
    rng: np.random.Generator,
    people: People,
    has: np.ndarray,
    days: tuple[np.ndarray, np.ndarray],
    diagnoses: Diagnoses,
    window: Window,
) -> Events:
    """Return the diagnoses of n patients, at least one event for each condition that a patient has.

    Args:
        has: (n, K) bool, who has what.
        days: two (n, K) int arrays, the first and the last day on which a patient can have a code.
        diagnoses: the table.
        window: the days of the five years.
    """
    has = has & (days[0] <= days[1])
    events = merge(
        [
            _follow_ups(rng, has, days, diagnoses, window),
            _yearly(rng, has, days, diagnoses, window),
            _well_child(rng, people, has, days, diagnoses),
            _pregnancies(rng, has, days, diagnoses),
        ]
    )
    return _with_episodes(rng, events, has, days, diagnoses)


def _of_kind(diagnoses: Diagnoses, *kinds: str) -> np.ndarray:
    return np.flatnonzero(np.isin(diagnoses.kinds, kinds))


def _follow_ups(
    rng: np.random.Generator,
    has: np.ndarray,
    days: tuple[np.ndarray, np.ndarray],
    diagnoses: Diagnoses,
    window: Window,
) -> Events:
    """Chronic conditions share a patient's follow-up visits; status codes ride along.

    One condition leads: it is coded at each visit from its onset on. The others are coded at a share of the visits
    that differs between patients and conditions. Every condition is coded at the first visit after its onset.
    """
    codes = _of_kind(diagnoses, "chronic", "status")
    has, first, last = has[:, codes], days[0][:, codes], days[1][:, codes]
    n = len(has)

    gap = YEAR / rng.uniform(*FOLLOW_UPS_A_YEAR, (n, 1))
    slots = np.arange(math.ceil(YEARS_OBSERVED * FOLLOW_UPS_A_YEAR[1]))
    jitter = rng.normal(0, FOLLOW_UP_JITTER, (n, len(slots)))
    visits = (window.start + (slots + rng.random((n, 1))) * gap + jitter).astype(np.int64)  # (n, visits)

    begins_within = rng.random(has.shape) < ONSET_WITHIN_WINDOW
    onset = np.where(begins_within, day_between(rng, first, last), first)
    lead = np.where(has & (diagnoses.kinds[codes] == "chronic"), rng.random(has.shape), 0)
    coded_share = rng.beta(*CODED_SHARE, has.shape)
    coded_share[np.arange(n), lead.argmax(axis=1)] = 1

    possible = has[:, None] & (visits[:, :, None] >= onset[:, None]) & (visits[:, :, None] <= last[:, None])
    coded = possible & (rng.random(possible.shape, dtype=np.float32) < coded_share[:, None])
    patient, code = np.nonzero(possible.any(axis=1))
    coded[patient, possible.argmax(axis=1)[patient, code], code] = True
    patient, visit, code = np.nonzero(coded)
    regular = Events(patient, codes[code], visits[patient, visit])

    patient, code = np.nonzero(has & ~possible.any(axis=1))  # no visit after the onset: one of its own
    single = Events(patient, codes[code], day_between(rng, onset[patient, code], last[patient, code]))
    return merge([regular, single])


def _yearly(
    rng: np.random.Generator,
    has: np.ndarray,
    days: tuple[np.ndarray, np.ndarray],
    diagnoses: Diagnoses,
    window: Window,
) -> Events:
    """Check-ups and screening fall together, around the same day of each year."""
    codes = _of_kind(diagnoses, "yearly")
    has, first, last = has[:, codes], days[0][:, codes], days[1][:, codes]
    years = np.arange(YEARS_OBSERVED)
    jitter = rng.normal(0, ANNIVERSARY_JITTER, (len(has), len(years)))
    visits = (window.start + (years + rng.random((len(has), 1))) * YEAR + jitter).astype(np.int64)

    possible = has[:, None] & (visits[:, :, None] >= first[:, None]) & (visits[:, :, None] <= last[:, None])
    attended = possible & (rng.random(possible.shape) < ATTENDANCE)
    patient, visit, code = np.nonzero(attended)
    regular = Events(patient, codes[code], visits[patient, visit])
    patient, code = np.nonzero(has & ~attended.any(axis=1))
    single = Events(patient, codes[code], day_between(rng, first[patient, code], last[patient, code]))
    return merge([regular, single])


def _well_child(
    rng: np.random.Generator,
    people: People,
    has: np.ndarray,
    days: tuple[np.ndarray, np.ndarray],
    diagnoses: Diagnoses,
) -> Events:
    """Children up to two years of age have their check-ups more often."""
    code = diagnoses.codes.index("Z00.129")
    visits = people.birth_days[:, None] + WELL_CHILD_DAYS
    takes_place = has[:, [code]] & (visits >= days[0][:, [code]]) & (visits <= days[1][:, [code]])
    patient, visit = np.nonzero(takes_place & (rng.random(visits.shape) < ATTENDANCE))
    return Events(patient, np.full(len(patient), code), visits[patient, visit])


def _pregnancies(
    rng: np.random.Generator, has: np.ndarray, days: tuple[np.ndarray, np.ndarray], diagnoses: Diagnoses
) -> Events:
    """Prenatal visits lead up to a day of delivery, which is coded for those who have that code.

    Without it the day may lie after the window, and the visits are those before its end.
    """
    prenatal, delivery = diagnoses.codes.index("Z34.90"), diagnoses.codes.index("O80")
    pregnant = np.flatnonzero(has[:, prenatal] | has[:, delivery])
    delivers = has[pregnant, delivery]
    first, last = days[0][pregnant, delivery], days[1][pregnant, delivery]
    day = day_between(rng, first + PRENATAL_GAP, np.where(delivers, last, last + MOST_PRENATAL * PRENATAL_GAP // 2))
    delivered = Events(pregnant[delivers], np.full(delivers.sum(), delivery), day[delivers].clip(max=last[delivers]))

    visits = day[:, None] - PRENATAL_GAP * np.arange(1, MOST_PRENATAL + 1) + rng.integers(0, 7, (len(day), 1))
    possible = has[pregnant, prenatal, None] & (visits >= first[:, None]) & (visits <= last[:, None])
    attended = possible & (rng.random(visits.shape) < PRENATAL_ATTENDANCE)
    attended[np.arange(len(day)), possible.argmax(axis=1)] |= possible.any(axis=1)
    patient, visit = np.nonzero(attended)
    seen = Events(pregnant[patient], np.full(len(patient), prenatal), visits[patient, visit])

    missed = np.flatnonzero(has[pregnant, prenatal] & ~possible.any(axis=1))
    single = Events(pregnant[missed], np.full(len(missed), prenatal), day_between(rng, first[missed], last[missed]))
    return merge([delivered, seen, single])


def _with_episodes(
    rng: np.random.Generator,
    events: Events,
    has: np.ndarray,
    days: tuple[np.ndarray, np.ndarray],
    diagnoses: Diagnoses,
) -> Events:
    """Add the conditions that occur once or a few times, each on its own day or on a visit for a related one."""
    n = len(has)
    # A condition that others are seen with comes before them.
    for code in sorted(_of_kind(diagnoses, "episodic"), key=lambda code: len(diagnoses.seen_with[code])):
        who = np.flatnonzero(has[:, code])
        episodes = np.minimum(rng.geometric(ONE_EPISODE_ONLY, len(who)), MOST_EPISODES)
        patients = np.repeat(who, episodes)
        first, last = days[0][patients, code], days[1][patients, code]
        day = day_between(rng, first, last)

        related = events[np.isin(events.codes, diagnoses.seen_with[code])]
        shared = np.full(n, np.iinfo(np.int64).min)
        one = one_each(rng, related.patients)
        shared[related.patients[one]] = related.days[one]
        together = (shared[patients] >= first) & (shared[patients] <= last) & (rng.random(len(day)) < SEEN_TOGETHER)
        events = merge([events, Events(patients, np.full(len(day), code), np.where(together, shared[patients], day))])
    return events
