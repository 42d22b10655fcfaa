"""What happens to realistic patients, observed or not: onsets of conditions, hospital stays, death, by known hazards.

The five years go in half-year steps. A condition that is not there yet begins within a step at a hazard that depends
on age, sex and the conditions present at the beginning of the step; so do death and stays in hospital. Soon after some
onsets death is more likely from that day on, whatever the step. What a record shows of a life is cut out of it by
`observation`.
"""

import functools
from dataclasses import dataclass

import numpy as np

from exmed_bert.reference.realistic import EARLY_AGE, Realistic
from exmed_bert.reference.tables import BAND_STARTS, OLDEST, Tables
from exmed_bert.synthetic.conditions import RECURRING, UNCODED, correlation_root, prevalence_by_age
from exmed_bert.synthetic.events import Events
from exmed_bert.synthetic.fitted import Fitted, Levels
from exmed_bert.synthetic.people import YEAR, YEARS_OBSERVED, People, Window

STEPS = 10  # half-years
LASTING = ("chronic", "status")  # kinds that begin once and stay
NEVER = np.iinfo(np.int64).max
_STRONGEST = np.log(30.0)  # of a patient's relative hazard
_MOST_NEW = 0.9  # of those with a condition within the five years
_NO_WAY_BACK = -30.0  # log hazard ratio of a condition that has ended in another
_CENTERS = (9, 31, 54, 75)  # years of age, of the bands


@dataclass(frozen=True, eq=False)
class Early:
    """M periods soon after an onset in which a patient is more likely to die.

    Attributes:
        patients: (M,) index of the patient.
        onset, first, last: (M,) days of the onset, and of the beginning and the end of the period, both included.
        hazard: (M,) further deaths per year.
    """

    patients: np.ndarray
    onset: np.ndarray
    first: np.ndarray
    last: np.ndarray
    hazard: np.ndarray

    def __getitem__(self, which: np.ndarray) -> "Early":
        return Early(*(values[which] for values in vars(self).values()))


@dataclass(frozen=True, eq=False)
class Life:
    """N patients, their conditions and what follows.

    Attributes:
        has: (N, K) bool, has the condition at some time within the five years.
        uncoded: (N, K) bool, has it, but it is not recorded.
        onset: (N, K) first day; the first day of the window where it began before, `NEVER` without it.
        starts: (STEPS + 1,) first day of each step, and the day after the last.
        hazard: (STEPS, N, K) onsets per year, whether or not the condition is there already.
        death_hazard: (STEPS, N) deaths per year, those of ``early`` not counted.
        stay_hazard: (STEPS, N) stays in hospital per year.
        early: deaths soon after an onset.
    """

    has: np.ndarray
    uncoded: np.ndarray
    onset: np.ndarray
    starts: np.ndarray
    hazard: np.ndarray
    death_hazard: np.ndarray
    stay_hazard: np.ndarray
    early: Early

    def present(self, step: int) -> np.ndarray:
        """Return who has which condition at the beginning of a step, (N, K) bool."""
        return self.onset <= self.starts[step]


def draw_life(
    rng: np.random.Generator,
    people: People,
    days: tuple[np.ndarray, np.ndarray],
    window: Window,
    tables: Tables,
    figures: Realistic,
    fitted: Fitted,
    levels: Levels,
) -> Life:
    """Draw the conditions that are there at the beginning, as in `conditions`, then those that begin.

    ``days`` are two (N, K) arrays, the first and the last day on which a patient can have a code. Of those who have a
    lasting condition within five years a share begins within them: that of the published incidence, else the tables'.
    """
    from scipy.special import ndtr  # imported here to keep --help fast

    lasting = np.isin(tables.diagnoses.kinds, LASTING)
    share = prevalence_by_age(tables, fitted)[people.ages, people.sexes]  # (N, K)
    new = begins_within(tables, figures, fitted)[people.ages] * share
    at_first = np.where(lasting, share - new, share)
    recurring = np.isin(tables.diagnoses.kinds, RECURRING)
    exposure = np.where(recurring, people.observed_share(window)[:, None], 1)
    at_first = -np.expm1(exposure * np.log1p(-at_first))
    # Products of matrices so small are faster without BLAS, whose threads wait for each other on a busy machine.
    rank = ndtr(np.einsum("nk,jk->nj", rng.standard_normal(share.shape), correlation_root(fitted)))
    possible = days[0] <= days[1]
    has = possible & (rank < at_first)
    uncoded = possible & ~has & (rank < at_first * (1 + UNCODED))
    for pathway in tables.diagnoses.pathways:
        if pathway.then == "ends":
            has[:, pathway.earlier] &= ~has[:, pathway.later]

    ratios = log_hazard_ratios(tables, figures, fitted)
    base = base_hazard(people, tables, figures, fitted) / by_age(levels.onset)[people.ages, people.sexes]
    starts = np.linspace(window.start, window.end + 1, STEPS + 1).astype(np.int64)
    onset = np.where(has, window.start, NEVER)
    hazard = np.zeros((STEPS, *share.shape), dtype=np.float32)
    relative = np.einsum("nk,kj->nj", has.astype(np.float32), ratios)  # logarithm, (N, K)
    for step in range(STEPS):
        first, last = starts[step], starts[step + 1] - 1
        _close(relative, onset < NEVER, tables)
        hazard[step] = base * np.exp(relative.clip(max=_STRONGEST))
        waiting = rng.standard_exponential(share.shape, dtype=np.float32) * np.float32(YEAR)
        begins = (onset == NEVER) & (waiting < hazard[step] * (last - first + 1))
        patient, code = np.nonzero(begins)
        day = first + (waiting[begins] / hazard[step][begins]).astype(np.int64).clip(max=last - first)
        possible = (day >= days[0][patient, code]) & (day <= days[1][patient, code])
        patient, code, day = patient[possible], code[possible], day[possible]
        onset[patient, code] = day
        np.add.at(relative, patient, ratios[code])  # a matrix product of all would take most of the time
    uncoded &= onset == NEVER
    return Life(
        has | (onset < NEVER),
        uncoded,
        onset,
        starts,
        hazard,
        *_consequences(people, onset, starts, tables, figures, levels),
        _early(people, onset, window, figures),
    )


def base_hazard(people: People, tables: Tables, figures: Realistic, fitted: Fitted) -> np.ndarray:
    """Return the hazard at which lasting conditions begin in people of the same age and sex, per year, (N, K)."""
    share = prevalence_by_age(tables, fitted)[people.ages, people.sexes]
    new = begins_within(tables, figures, fitted)[people.ages] * share
    hazard = -np.log1p(-(new / (1 - share + new)).clip(0, 0.9)) / YEARS_OBSERVED
    return np.where(np.isin(tables.diagnoses.kinds, LASTING), hazard, 0)


@functools.lru_cache(maxsize=4)
def begins_within(tables: Tables, figures: Realistic, fitted: Fitted) -> np.ndarray:
    """Return the share of those with a condition at some time within the five years in whom it begins then, (ages, K).

    With a published incidence r those are 5 r of the people without the condition, who on average are what is left of
    all after half of the new cases.
    """
    default = figures.rates["begins_within_five_years"]
    people = tables.demographics.people  # (ages, 2)
    share = prevalence_by_age(tables, fitted)  # (ages, 2, K)
    cases = np.add.reduceat((share * people[:, :, None]).sum(axis=1), BAND_STARTS)  # (4, K)
    free = np.add.reduceat(((1 - share) * people[:, :, None]).sum(axis=1), BAND_STARTS)
    times = YEARS_OBSERVED * figures.incidence.T
    wanted = times * free / (cases * (1 - times / 2)).clip(1e-9)
    of_band = np.where(np.isnan(wanted), default, wanted.clip(max=_MOST_NEW))
    return np.repeat(of_band, np.diff([*BAND_STARTS, OLDEST + 1]), axis=0)


def _early(people: People, onset: np.ndarray, window: Window, figures: Realistic) -> Early:
    """Return the periods after onsets within the window; when the others began is not known."""
    early = figures.early
    began = onset[:, early.conditions]
    patients, period = np.nonzero((began > window.start) & (began < NEVER))
    day = began[patients, period]
    decades = ((day - people.birth_days[patients]) / YEAR - EARLY_AGE) / 10
    hazard = early.rate[period] * early.per_decade[period] ** decades
    return Early(patients, day, day + early.first[period], day + early.last[period], hazard)


def _close(relative: np.ndarray, present: np.ndarray, tables: Tables) -> None:
    """Let nobody get a condition back that has ended in another one."""
    for pathway in tables.diagnoses.pathways:
        if pathway.then == "ends":
            relative[present[:, pathway.later], pathway.earlier] = _NO_WAY_BACK


def _consequences(
    people: People, onset: np.ndarray, starts: np.ndarray, tables: Tables, figures: Realistic, levels: Levels
) -> tuple[np.ndarray, np.ndarray]:
    """Return the hazards of death and of stays in hospital, (STEPS, N) each, per year."""
    stay = tables.prolonged_stay
    weights = np.stack(
        [figures.death_ratios, stay.diagnoses + stay.chronic_condition * (tables.diagnoses.kinds == "chronic")]
    )
    death, stays = np.empty((STEPS, len(people))), np.empty((STEPS, len(people)))
    for step in range(STEPS):
        age, years = ages_in_step(people, starts, step)
        log_ratio = (onset <= starts[step]) @ weights.T  # (N, 2)
        relative = np.exp(log_ratio[:, 0].clip(max=_STRONGEST)) / levels.death[figures.death_group[years], people.sexes]
        death[step] = figures.death[years, people.sexes] * relative
        of_age = np.exp(stay.decade_of_age_over_40 * (age - 40).clip(0) / 10 + log_ratio[:, 1])
        stays[step] = figures.rates["stays_per_person_year"] * of_age / levels.stay
    return death, stays


def ages_in_step(people: People, starts: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the ages in the middle of a step, (N,) each: in years, and in whole years as an index of tables."""
    age = (((starts[step] + starts[step + 1]) / 2 - people.birth_days) / YEAR).clip(0)
    return age, age.astype(np.int64).clip(max=OLDEST)


def early_deaths(rng: np.random.Generator, early: Early, begin: np.ndarray) -> np.ndarray:
    """Draw the days of deaths soon after an onset, (N,), from ``begin`` (N,) on; `NEVER` for all others."""
    day = np.maximum(early.first, begin[early.patients])
    day = day + (rng.standard_exponential(len(day)) / early.hazard * YEAR).clip(max=YEAR * 100).astype(np.int64)
    death = np.full(len(begin), NEVER)
    soon = day <= early.last
    np.minimum.at(death, early.patients[soon], day[soon])
    return death


def first_events(rng: np.random.Generator, hazard: np.ndarray, starts: np.ndarray, begin: np.ndarray) -> np.ndarray:
    """Draw the day of an event with piecewise constant hazards (STEPS, N) per year from ``begin`` (N,) on.

    `NEVER` where it does not happen within the steps.
    """
    length = np.diff(starts)[:, None]
    exposed = (starts[1:, None] - np.maximum(begin, starts[:-1, None])).clip(0) / length
    cumulated = np.cumsum(hazard * exposed * length / YEAR, axis=0)  # (STEPS, N) at the end of each step
    until = rng.standard_exponential(len(begin))
    step = (cumulated < until).sum(axis=0)
    happens = step < len(hazard)
    step = step.clip(max=len(hazard) - 1)
    who = np.arange(len(begin))
    before = np.where(step > 0, cumulated[step - 1, who], 0)
    days = (until - before) / hazard[step, who].clip(1e-12) * YEAR
    day = np.maximum(begin, starts[step]) + days.clip(max=YEAR).astype(np.int64)
    return np.where(happens, np.minimum(day, starts[step + 1] - 1), NEVER)


@dataclass(frozen=True)
class Stays:
    """S stays in hospital: patient, day of admission, length in days (not whole), (S,) each."""

    patients: np.ndarray
    days: np.ndarray
    lengths: np.ndarray

    def __getitem__(self, which: np.ndarray) -> "Stays":
        return Stays(self.patients[which], self.days[which], self.lengths[which])


def draw_stays(rng: np.random.Generator, life: Life, figures: Realistic) -> Stays:
    """Draw the stays in hospital: at the hazard of each step, of a length that is the same distribution for all."""
    years = np.diff(life.starts)[:, None] / YEAR
    step, patients = np.nonzero(count := rng.poisson(life.stay_hazard * years))
    times = count[step, patients]
    step, patients = np.repeat(step, times), np.repeat(patients, times)
    days = life.starts[step] + (rng.random(len(step)) * np.diff(life.starts)[step]).astype(np.int64)
    median = np.log(figures.rates["days_of_a_stay_median"])
    return Stays(patients, days, np.exp(rng.normal(median, spread_of_stays(figures), len(step))))


def spread_of_stays(figures: Realistic) -> float:
    """Return the standard deviation of the logarithm of a stay's length, from its mean and median."""
    return float(np.sqrt(2 * np.log(figures.rates["days_of_a_stay_mean"] / figures.rates["days_of_a_stay_median"])))


def codes_of_stays(rng: np.random.Generator, stays: Stays, life: Life, tables: Tables, share: float) -> Events:
    """Draw the diagnoses recorded on days of admission: lasting conditions that are present, each with ``share``."""
    lasting = np.flatnonzero(np.isin(tables.diagnoses.kinds, LASTING))
    present = life.onset[stays.patients] <= stays.days[:, None]
    for pathway in tables.diagnoses.pathways:
        if pathway.then == "ends":
            present[:, pathway.earlier] &= ~present[:, pathway.later]
    present = present[:, lasting]
    stay, code = np.nonzero(present & (rng.random(present.shape) < share))
    return Events(stays.patients[stay], lasting[code], stays.days[stay])


@functools.lru_cache(maxsize=4)
def log_hazard_ratios(tables: Tables, figures: Realistic, fitted: Fitted) -> np.ndarray:
    """Return the logarithm of the hazard ratio of the onset of each condition (column) with each other (row), (K, K).

    That of the tables where there is one; else what the partial correlation of the pair implies, by the approximation
    of Bonett and Price (2005, J Educ Behav Stat 30:213) for rare conditions: the odds ratio given all others.
    """
    partial = fitted.partial_correlations.clip(-0.9, 0.9)
    implied = 2.5 * np.log(np.pi / np.arccos(partial) - 1)
    lasting = np.isin(tables.diagnoses.kinds, LASTING)
    implied = np.where(lasting[:, None] & lasting, implied, 0)
    return np.where(np.isnan(figures.onset_ratios), implied, figures.onset_ratios).astype(np.float32)


def by_age(levels: np.ndarray) -> np.ndarray:
    """Return levels (K, 4, 2) of age bands as (ages, 2, K), linear between the centers of the bands."""
    return _by_age(levels.tobytes(), levels.shape)


@functools.lru_cache(maxsize=4)
def _by_age(levels: bytes, shape: tuple[int, ...]) -> np.ndarray:
    of_band = np.frombuffer(levels).reshape(shape)
    ages = np.arange(OLDEST + 1)
    at = np.interp(ages, _CENTERS, np.arange(len(BAND_STARTS)))
    low = np.floor(at).astype(np.int64).clip(max=len(BAND_STARTS) - 2)
    part = at - low
    return np.moveaxis(of_band[:, low] * (1 - part[:, None]) + of_band[:, low + 1] * part[:, None], 0, 2)
