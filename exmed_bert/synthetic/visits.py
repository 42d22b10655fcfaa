"""Dated diagnoses of the patients, grouped into visits."""

from dataclasses import dataclass

import numpy as np

from exmed_bert.reference.tables import Diagnoses, Schedule, Tables
from exmed_bert.synthetic.calendar import calendar
from exmed_bert.synthetic.events import Events, day_between, first_of_run, merge, one_each
from exmed_bert.synthetic.people import YEAR, YEARS_OBSERVED, People, Window

# All rates below are estimates.
ONSET_WITHIN_WINDOW = 0.25  # share of the chronic conditions that begin within the window
FRAILTY = 0.35  # standard deviation of the logarithm of a patient's rate of visits
CLINIC_JITTER = 14.0  # days, standard deviation around the regular interval
MOST_VISITS_A_YEAR = 8  # at one clinic
ATTENDANCE = 0.8  # share of the scheduled visits that take place
CODED_SHARE = (3.0, 1.5)  # beta distribution: share of its clinic's visits at which a further condition is coded
CODED_ELSEWHERE = 0.04  # share of another clinic's visits at which a condition is coded
CODED_IN_PRIMARY_CARE = 0.4  # of the visits, where all conditions are known
CODED_AT_CHECK_UPS = 0.35
FADED = 0.15  # of a condition's coded share once a more specific code has taken over
ANNIVERSARY_JITTER = 15.0  # days, standard deviation
WELL_CHILD = "Z00.129"
WELL_CHILD_DAYS = np.array([61, 122, 183, 274, 365, 457, 548, 730])  # 2 to 24 months, the AAP's schedule of visits
ONE_EPISODE_ONLY = 0.65  # geometric distribution of the number of episodes
MOST_EPISODES = 4
SEEN_TOGETHER = 0.7  # probability that an episode falls on a visit for a related condition
SEEN_ANYWAY = 0.4  # probability that it falls on a visit for any other reason
PRENATAL_GAP, MOST_PRENATAL, PRENATAL_ATTENDANCE = 28, 9, 0.8  # days between visits, visits, share that takes place
CHECK_UP = -1  # index in place of a clinic's

Days = tuple[np.ndarray, np.ndarray]  # the first and the last day on which a patient can have a code, (n, K) each


@dataclass(frozen=True)
class Care:
    """What is known of the care of n patients before their visits are drawn.

    Attributes:
        onset: (n, K) first day of each condition, that of the window where it began before; where it begins within the
            window it is recorded on that day.
        pace: (n,) factor of the rate of visits to clinics.
        at_check_ups: share of the check-ups at which a condition is coded.
        seen_anyway: probability that an episode falls on a visit for any other reason.
    """

    onset: np.ndarray
    pace: np.ndarray
    at_check_ups: float
    seen_anyway: float


def draw_diagnoses(
    rng: np.random.Generator,
    people: People,
    has: np.ndarray,
    days: Days,
    tables: Tables,
    window: Window,
    care: Care | None = None,
) -> Events:
    """Draw the diagnoses of n patients, at least one event for each condition that a patient has.

    Args:
        has: (n, K) bool, which patient has which condition.
        days: two (n, K) int arrays, the first and the last day on which a patient can have a code.
        tables: the reference tables.
        window: the days of the five years.
        care: onsets and rates of visits; without it they are drawn here.
    """
    has = has & (days[0] <= days[1])
    diagnoses = tables.diagnoses
    preventive = merge([_yearly(rng, has, days, tables, window), _well_child(rng, people, has, days, diagnoses)])
    events = merge(
        [
            preventive,
            _follow_ups(rng, people, has, days, preventive, tables, window, care),
            _pregnancies(rng, has, days, diagnoses),
        ]
    )
    return _with_episodes(rng, events, has, days, tables, window, SEEN_ANYWAY if care is None else care.seen_anyway)


def _of_kind(diagnoses: Diagnoses, *kinds: str) -> np.ndarray:
    return np.flatnonzero(np.isin(diagnoses.kinds, kinds))


def _follow_ups(
    rng: np.random.Generator,
    people: People,
    has: np.ndarray,
    days: Days,
    preventive: Events,
    tables: Tables,
    window: Window,
    care: Care | None,
) -> Events:
    """Draw the visits at clinics, at intervals of their own, and the conditions coded there.

    At each visit a clinic codes the patient's main condition there, its other conditions at a share of the visits that
    varies between patients and conditions, and those of other clinics occasionally; so do check-ups. Every condition
    is coded at its clinic's first visit after the onset.
    """
    diagnoses = tables.diagnoses
    codes = _of_kind(diagnoses, "chronic", "status")
    has, clinics = has[:, codes], diagnoses.clinics[codes]
    coded_share = rng.beta(*CODED_SHARE, has.shape)
    last = days[1][:, codes]
    if care is None:
        onset, last, faded = _courses_of_disease(rng, has, (days[0][:, codes], last), codes, diagnoses)
    else:
        onset = np.maximum(np.where(has, care.onset[:, codes], days[0][:, codes]), days[0][:, codes])
        last, faded = _ends(has, onset, last, codes, diagnoses)
    pace = np.ones(len(has)) if care is None else care.pace

    patients, at, day = _clinic_visits(rng, people, has, onset, clinics, tables.schedule, window, pace)
    check_up = first_of_run(preventive.patients << 32 | preventive.days - window.start)
    patients = np.concatenate([patients, preventive.patients[check_up]])
    at = np.concatenate([at, np.full(check_up.sum(), CHECK_UP)])
    day = np.concatenate([day, preventive.days[check_up]])

    # The main condition at a clinic is the one with the largest random number among the clinic's own.
    lottery = np.where(has, rng.random(has.shape), 0)
    for clinic in range(len(tables.schedule.clinics)):
        own = np.flatnonzero(clinics == clinic)
        leading = own[lottery[:, own].argmax(axis=1)]
        coded_share[np.arange(len(has)), leading] = 1

    own = at[:, None] == clinics
    primary = tables.schedule.clinics.index("primary care")
    at_check_ups = CODED_AT_CHECK_UPS if care is None else care.at_check_ups
    elsewhere = np.select([at == CHECK_UP, at == primary], [at_check_ups, CODED_IN_PRIMARY_CARE], CODED_ELSEWHERE)
    share = np.where(own, coded_share[patients], elsewhere[:, None])
    share *= np.where(day[:, None] >= faded[patients], FADED, 1)
    possible = has[patients] & (day[:, None] >= onset[patients]) & (day[:, None] <= last[patients])
    coded = possible & (rng.random(possible.shape, dtype=np.float32) < share)
    visit, code = np.nonzero(possible & own)
    order = np.lexsort((day[visit], patients[visit] * len(codes) + code))
    visit, code = visit[order], code[order]
    first_visit = first_of_run(patients[visit] * len(codes) + code)
    coded[visit[first_visit], code[first_visit]] = True

    seen = np.zeros(has.shape, dtype=bool)
    visit, code = np.nonzero(coded)
    seen[patients[visit], code] = True
    alone, single = np.nonzero(has & ~seen)  # no visit after the onset: one visit for this alone
    own_day = day_between(rng, onset[alone, single], last[alone, single])
    events = merge([Events(patients[visit], codes[code], day[visit]), Events(alone, codes[single], own_day)])
    if care is None:
        return _earlier_first(events, days, diagnoses)
    new, code = np.nonzero(has & (onset > np.maximum(days[0][:, codes], window.start)))
    return merge([events, Events(new, codes[code], onset[new, code])])


def _earlier_first(events: Events, days: Days, diagnoses: Diagnoses) -> Events:
    """Code a pathway's earlier condition together with the later one where the later one is seen first."""
    never = np.iinfo(np.int64).max
    seen = np.full(days[0].shape, never)
    np.minimum.at(seen, (events.patients, events.codes), events.days)
    added = []
    for pathway in reversed(diagnoses.pathways):
        earlier, later = seen[:, pathway.earlier], seen[:, pathway.later]
        who = np.flatnonzero((earlier < never) & (later < earlier) & (later >= days[0][:, pathway.earlier]))
        if pathway.then != "ends":
            added.append(Events(who, np.full(len(who), pathway.earlier), later[who]))
            seen[who, pathway.earlier] = later[who]
    return merge([events, *added])


def _courses_of_disease(
    rng: np.random.Generator, has: np.ndarray, days: Days, codes: np.ndarray, diagnoses: Diagnoses
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw the first and the last day on which each chronic condition is coded, and the day from which it is rarer.

    Most conditions are present from the beginning. In a pathway the earlier condition begins first. Three (n, C) int
    arrays.
    """
    first, last = days
    begins_within = rng.random(has.shape) < ONSET_WITHIN_WINDOW
    onset = np.where(begins_within, day_between(rng, first, last), first)
    last, faded = last.copy(), np.full(has.shape, np.iinfo(np.int64).max)
    column = {code: i for i, code in enumerate(codes.tolist())}
    for pathway in diagnoses.pathways:
        earlier, later = column[pathway.earlier], column[pathway.later]
        soonest = onset[:, earlier] + (pathway.then == "ends")  # both are coded, so there must be a day in between
        both = np.flatnonzero(has[:, earlier] & has[:, later] & (soonest <= last[:, later]))
        soonest = soonest[both]
        after = day_between(rng, soonest, last[both, later])
        onset[both, later] = np.where(onset[both, later] < soonest, after, onset[both, later])
        if pathway.then == "ends":
            last[both, earlier] = np.minimum(last[both, earlier], onset[both, later] - 1)
        elif pathway.then == "fades":
            faded[both, earlier] = onset[both, later]
    return onset, last, faded


def _ends(
    has: np.ndarray, onset: np.ndarray, last: np.ndarray, codes: np.ndarray, diagnoses: Diagnoses
) -> tuple[np.ndarray, np.ndarray]:
    """Return the last day on which each condition is coded, and the day from which it is rarer, by its pathways."""
    last, faded = last.copy(), np.full(has.shape, np.iinfo(np.int64).max)
    column = {code: i for i, code in enumerate(codes.tolist())}
    for pathway in diagnoses.pathways:
        earlier, later = column[pathway.earlier], column[pathway.later]
        both = np.flatnonzero(has[:, earlier] & has[:, later] & (onset[:, earlier] < onset[:, later]))
        if pathway.then == "ends":
            last[both, earlier] = np.minimum(last[both, earlier], onset[both, later] - 1)
        elif pathway.then == "fades":
            faded[both, earlier] = onset[both, later]
    return last, faded


def _clinic_visits(
    rng: np.random.Generator,
    people: People,
    has: np.ndarray,
    onset: np.ndarray,
    clinics: np.ndarray,
    schedule: Schedule,
    window: Window,
    pace: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw the visits that take place: patients, clinics and days, (V,) int each.

    A clinic follows a patient from the first onset among its conditions on, at regular intervals with some jitter.
    Frailty raises a patient's rate of visits at all clinics.
    """
    never = np.iinfo(np.int64).max
    begin = np.full((len(has), len(schedule.clinics)), never)
    for column, clinic in enumerate(clinics):
        begin[:, clinic] = np.minimum(begin[:, clinic], np.where(has[:, column], onset[:, column], never))
    patients, followed = np.nonzero(begin < never)
    frailty = np.exp(FRAILTY * rng.standard_normal(len(has)) - FRAILTY**2 / 2)
    a_year = np.minimum(schedule.visits_a_year[followed] / ATTENDANCE * frailty[patients], MOST_VISITS_A_YEAR)
    a_year *= pace[patients]
    slots = np.arange(int(YEARS_OBSERVED * MOST_VISITS_A_YEAR * max(pace.max(initial=1), 1)) + 1)
    gap = (YEAR / a_year)[:, None]
    day = window.start + (slots + rng.random((len(patients), 1))) * gap
    day = (day + rng.normal(0, CLINIC_JITTER, day.shape)).astype(np.int64)
    within = (day >= begin[patients, followed, None]) & (day <= people.last_days[patients, None])
    row, slot = np.nonzero(within & (rng.random(day.shape) < ATTENDANCE))
    return patients[row], followed[row], day[row, slot]


def _yearly(rng: np.random.Generator, has: np.ndarray, days: Days, tables: Tables, window: Window) -> Events:
    """Draw check-ups and screening, together around the same day of each year, for most children before school."""
    codes = _of_kind(tables.diagnoses, "yearly")
    child = tables.diagnoses.codes.index(WELL_CHILD)
    leading = np.where(has[:, child], child, codes[0])
    start = np.full(len(has), window.start)
    anniversary = calendar(tables.schedule, window).draw(rng, leading, start, start + int(YEAR))
    has, first, last = has[:, codes], days[0][:, codes], days[1][:, codes]
    years = np.arange(YEARS_OBSERVED)
    jitter = rng.normal(0, ANNIVERSARY_JITTER, (len(has), len(years)))
    visits = (anniversary[:, None] + years * YEAR + jitter).astype(np.int64)

    possible = has[:, None] & (visits[:, :, None] >= first[:, None]) & (visits[:, :, None] <= last[:, None])
    attended = possible & (rng.random(possible.shape) < ATTENDANCE)
    patient, visit, code = np.nonzero(attended)
    regular = Events(patient, codes[code], visits[patient, visit])
    patient, code = np.nonzero(has & ~attended.any(axis=1))
    single = Events(patient, codes[code], day_between(rng, first[patient, code], last[patient, code]))
    return merge([regular, single])


def _well_child(rng: np.random.Generator, people: People, has: np.ndarray, days: Days, diagnoses: Diagnoses) -> Events:
    """Draw the more frequent check-ups of children up to two years of age."""
    code = diagnoses.codes.index(WELL_CHILD)
    visits = people.birth_days[:, None] + WELL_CHILD_DAYS
    takes_place = has[:, [code]] & (visits >= days[0][:, [code]]) & (visits <= days[1][:, [code]])
    patient, visit = np.nonzero(takes_place & (rng.random(visits.shape) < ATTENDANCE))
    return Events(patient, np.full(len(patient), code), visits[patient, visit])


def _pregnancies(rng: np.random.Generator, has: np.ndarray, days: Days, diagnoses: Diagnoses) -> Events:
    """Draw prenatal visits up to a day of delivery, which is coded for the patients who have that code.

    For the others the delivery may lie after the last day observed.
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
    days: Days,
    tables: Tables,
    window: Window,
    seen_anyway: float,
) -> Events:
    """Add episodic conditions: on a day by season, or on a visit, most often one for a related condition."""
    diagnoses = tables.diagnoses
    when = calendar(tables.schedule, window)
    # A condition comes before those that tend to be recorded on its visits.
    for code in sorted(_of_kind(diagnoses, "episodic"), key=lambda code: len(diagnoses.seen_with[code])):
        who = np.flatnonzero(has[:, code])
        episodes = np.minimum(rng.geometric(ONE_EPISODE_ONLY, len(who)), MOST_EPISODES)
        patients = np.repeat(who, episodes)
        first, last = days[0][patients, code], days[1][patients, code]
        day = when.draw(rng, code, first, last)

        related = np.isin(events.codes, diagnoses.seen_with[code])
        for visits, probability in ((events, seen_anyway), (events[related], SEEN_TOGETHER)):
            shared = _one_day_each(rng, visits, len(has))[patients]
            there = (shared >= first) & (shared <= last)
            there &= rng.random(len(day)) < probability * np.minimum(when.weight(code, shared), 1)  # not off season
            day = np.where(there, shared, day)
        events = merge([events, Events(patients, np.full(len(day), code), day)])
    return events


def _one_day_each(rng: np.random.Generator, events: Events, n: int) -> np.ndarray:
    """Return the day of one random event of each of n patients, (n,) int; before all days for one without events."""
    days = np.full(n, np.iinfo(np.int64).min)
    one = one_each(rng, events.patients)
    days[events.patients[one]] = events.days[one]
    return days
