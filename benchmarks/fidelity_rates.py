"""The part of `fidelity` that compares rates with published ones.

Of membership, deaths, visits, stays, therapies, new diabetes, and deaths after an onset.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from fidelity_cohort import Cohort
from scipy.stats import norm

from exmed_bert.data.patient import NO_DAY
from exmed_bert.reference import realistic as figures_of
from exmed_bert.reference.tables import OLDEST
from exmed_bert.synthetic.life import spread_of_stays
from exmed_bert.synthetic.people import YEAR, YEARS_OBSERVED

WASHOUT = 730  # days observed before a first record counts as an onset: after one year three in ten are older
FITTED, DRAWN, OPEN = "fitted", "drawn from", "not fitted"
FEWEST = 30  # cases expected of a cell that is compared
RELATIVE = "times the life table"
DIABETES = {  # new cases per adult without it and year, 2018 and 2019: age from, to, rate, 95 % interval; CDC 2022
    "new diabetes from age 18": (18, OLDEST, 0.0059, 0.0050, 0.0069),
    "new diabetes, age 18 to 44": (18, 44, 0.0032, 0.0023, 0.0044),
    "new diabetes, age 45 to 64": (45, 64, 0.0101, 0.0081, 0.0125),
    "new diabetes from age 65": (65, OLDEST, 0.0058, 0.0043, 0.0078),
}
ALWAYS = 10 * 365


@dataclass(frozen=True)
class AfterOnset:
    """Published deaths per year from day ``begin`` to ``end`` after a first code at an age, with their 95 % interval.

    ``relative`` ones are times the deaths of people of the same age and sex.
    """

    code: str
    kind: str
    youngest: int
    begin: int
    end: int
    rate: float
    interval: tuple[float, float]
    relative: bool = False


AFTER_ONSET = {
    # Claims of Medicare, in and out of hospital: 24.7 % die within a year (Khera 2017).
    "deaths in the year after heart failure from age 65": AfterOnset(
        "I50.9", DRAWN, 65, 0, 365, 0.2837, (0.2837, 0.2837)
    ),
    # First codes in British practices: 81.3 % live after one year, 51.5 % after five (Taylor 2017).
    "deaths in years 2 to 5 after heart failure from age 45": AfterOnset(
        "I50.9", OPEN, 45, 365, ALWAYS, 0.1141, (0.112, 0.116)
    ),
    # Chamberlain 2015, and after four months Miyasaka 2007.
    "deaths in 30 days after atrial fibrillation": AfterOnset("I48.91", DRAWN, 18, 0, 30, 19.4, (17.3, 21.7), True),
    "deaths in days 31 to 90 after atrial fibrillation": AfterOnset("I48.91", DRAWN, 18, 30, 90, 4.2, (3.5, 5), True),
    "deaths from 4 months after atrial fibrillation on": AfterOnset(
        "I48.91", OPEN, 18, 122, ALWAYS, 1.66, (1.59, 1.73), True
    ),
}


@dataclass
class Rate:
    """A published rate: what was found, and how sure both are (the standard error of the difference).

    ``alone`` is one that stands on a line of its own, not one of many age groups.
    """

    name: str
    kind: str
    found: float
    published: float
    error: float
    unit: str = "per year"
    alone: bool = True

    @property
    def off(self) -> float:
        return abs(self.found / self.published - 1)


def margins(cohort: Cohort, stays: dict[str, float]) -> Iterator[Rate]:
    """Yield rates of leaving, death, visits and stays."""
    figures = figures_of.load(cohort.tables)
    years, died = cohort.years, cohort["death"] != NO_DAY
    leaves = ((cohort["end"] < cohort.window.end) & ~died).sum()
    leaving, error = figures.rates["leaving_a_year"], np.sqrt(leaves) / years.sum()
    yield Rate("members who leave", DRAWN, -np.expm1(-leaves / years.sum()), leaving, error)
    members = cohort["born"] < cohort.window.start
    late = float((cohort["start"] > cohort.window.start)[members].mean())
    expected = 1 - 1 / (1 - YEARS_OBSERVED * np.log1p(-leaving))
    error = np.sqrt(expected * (1 - expected) / members.sum())
    yield Rate("members who enter after the first day", DRAWN, late, expected, error, "share")
    therapies = cohort.therapies
    for name, term, events, trials in (
        ("therapies that are filled once", "never_refilled", therapies.once, therapies.new),
        ("therapies that stop", "stopping_a_year", therapies.stops, therapies.years_on),
        ("stopped therapies that begin again", "restarting_a_year", therapies.restarts, therapies.years_off),
    ):
        a_year = term != "never_refilled"
        found, error = events / trials, np.sqrt(events) / trials
        found, unit = (-np.expm1(-found), "within a year") if a_year else (found, "share")
        yield Rate(name, DRAWN, found, figures.rates[term], error, unit)
    dead = np.flatnonzero(died)
    deaths = cohort.events(figures.death_group, dead, cohort["death"][dead])
    visits = cohort.events(figures.visit_group, cohort["visitors"], cohort["visit_days"])
    for name, kind, counts, published, group in (
        ("deaths", DRAWN, deaths, figures.death_rate, figures.death_group),
        ("visits", FITTED, visits, figures.visits, figures.visit_group),
    ):
        lived = cohort.person_years(group)
        for at in np.ndindex(counts.shape):
            if published[at] * lived[at] >= FEWEST:
                first = int(np.flatnonzero(group == at[0])[0])
                label = f"{name} from age {first}, {'women' if at[1] else 'men'}"
                error = np.sqrt(published[at] / lived[at])
                yield Rate(label, kind, counts[at] / lived[at], published[at], error, alone=False)
    person_years, n = stays["person_years"], stays["stays"]
    published = figures.rates["stays_per_person_year"]
    yield Rate("stays in hospital", DRAWN, n / person_years, published, np.sqrt(n) / person_years)
    mean, spread = figures.rates["days_of_a_stay_mean"], spread_of_stays(figures)
    deviation = mean * np.sqrt(np.expm1(spread**2))
    yield Rate("days of a stay", DRAWN, stays["days_of_stays"] / n, mean, deviation / np.sqrt(n), "days")


def diabetes(cohort: Cohort) -> Iterator[Rate]:
    """Yield the rates of first codes of diabetes per person-year without one, after a washout."""
    at = cohort.tables.diagnoses.codes.index
    first = cohort["first"][:, [at("E11.9"), at("E11.65")]].min(axis=1)
    begin = cohort["start"] + WASHOUT
    until = np.minimum(first, cohort["end"])
    for name, (youngest, oldest, published, low, high) in DIABETES.items():
        of_age = cohort["born"] + youngest * YEAR, cohort["born"] + (oldest + 1) * YEAR
        since = np.maximum(begin, of_age[0])
        cases = ((first >= since) & (first <= cohort["end"]) & (first < of_age[1])).sum()
        lived = (np.minimum(until, of_age[1]) - since)[first >= begin].clip(0).sum() / YEAR
        error = np.hypot(np.sqrt(cases) / lived, (high - low) / 3.92)
        yield Rate(name, DRAWN, cases / lived, published, error)


def after_onset(cohort: Cohort) -> Iterator[Rate]:
    """Yield the rates of death after first codes of heart failure and atrial fibrillation, after a washout."""
    figures, at = figures_of.load(cohort.tables), cohort.tables.diagnoses.codes.index
    dies = cohort["death"] != NO_DAY
    for name, one in AFTER_ONSET.items():
        onset = cohort["first"][:, at(one.code)].astype(np.int64)
        age = ((onset - cohort["born"]) / YEAR).clip(0, OLDEST)
        new = (onset >= cohort["start"] + WASHOUT) & (onset + one.begin <= cohort["end"]) & (age >= one.youngest)
        rows = np.flatnonzero(new)
        until = (cohort["end"][rows] + 1 - onset[rows]).clip(max=one.end)
        deaths = (dies[rows] & (cohort["death"][rows] - onset[rows] < one.end)).sum()
        usual = figures.death[age[rows].astype(np.int64), cohort["sex"][rows]] if one.relative else 1
        expected = ((until - one.begin) / YEAR * usual).sum()
        error = np.hypot(np.sqrt(max(deaths, 1)) / expected, (one.interval[1] - one.interval[0]) / 3.92)
        yield Rate(name, one.kind, deaths / expected, one.rate, error, RELATIVE if one.relative else "per year")


def outside(rates: list[Rate]) -> list[Rate]:
    """Return the rates that are off by more than 10 % and more than chance gives one of them in 40 files."""
    limit = float(norm.ppf(1 - 0.025 / len(rates)))
    return [rate for rate in rates if rate.off > 0.1 and abs(rate.found - rate.published) > limit * rate.error]
