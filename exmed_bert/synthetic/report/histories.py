"""Counts of patients' histories, as a stream: visits, refills, lengths, calendar, stays, broken rules.

The counts stand beside those of `measures` and are kept in the same way.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from exmed_bert.data.patient import EPOCH, NO_DAY, PatientColumns
from exmed_bert.data.static_columns import SEX, STATE
from exmed_bert.reference.tables import BAND_STARTS, Limits, Tables
from exmed_bert.synthetic.events import first_of_run
from exmed_bert.synthetic.outcome import of_ages, of_diagnoses
from exmed_bert.synthetic.people import YEAR, YEARS_OBSERVED, age_bands
from exmed_bert.synthetic.report.measures import (
    FIRST_DAY,
    SYSTEMS,
    UNKNOWN_SEX,
    WHOLE_YEAR_BUT,
    YEARS,
    Coded,
    birth_year_index,
    month_index,
    sex_index,
    year_index,
)

LONGEST_GAP = 400  # days; the last entry of a histogram counts what is longer
LONGEST = {"diagnoses": 300, "prescriptions": 300, "visits": 300, "codes per visit": 60}
RULES = ("sex", "age", "valid from")
_SCORE_STEP, _SCORE_LIMIT = 0.02, 20.0  # of the log odds of a prolonged stay


@dataclass(frozen=True)
class Discrimination:
    """Discrimination of a prolonged stay by scores.

    ``auroc`` is against the labels of the file, ``achievable`` what labels drawn from the scores would give on
    average; ``share`` is the share with a prolonged stay that the scores imply, (4,) by age band.
    """

    auroc: float
    achievable: float
    share: np.ndarray


class Histories:
    """Running counts; memory does not grow with the patients.

    Attributes:
        states: patients by state as it is spelled.
        lengths: for each of `LONGEST` a histogram of the number per patient, or per visit.
        gaps: (D, `LONGEST_GAP` + 1) days between fills of the same drug by the same patient.
        gap_days: (D,) the sum of those days.
        visits: (2, 451, 451, 3) distinct days with any code and with a diagnosis, by calendar year, birth year, sex.
        months: (K, 451 * 12) events of each diagnosis by calendar month.
        last_seen: (451, 451) patients by the calendar year of their last event and birth year.
        broken: (3, K + D) events that break each of `RULES`, diagnoses first.
        stays: (451, scores, 2) labeled patients by birth year, log odds and label.
        first_day: the first day with an event within `YEARS`, days since 1970-01-01.
        periods, observed_days: patients whose observation is on record, and the days of it.
    """

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        n_years, n_codes, n_drugs = len(YEARS), len(tables.diagnoses.codes), len(tables.drugs.codes)
        self.states: Counter[str | None] = Counter()
        self.lengths = {name: np.zeros(longest + 1, dtype=np.int64) for name, longest in LONGEST.items()}
        self.gaps = np.zeros((n_drugs, LONGEST_GAP + 1), dtype=np.int64)
        self.gap_days = np.zeros(n_drugs, dtype=np.int64)
        self.visits = np.zeros((2, n_years, n_years, UNKNOWN_SEX + 1), dtype=np.int64)
        self.months = np.zeros((n_codes, n_years * 12), dtype=np.int64)
        self.last_seen = np.zeros((n_years, n_years), dtype=np.int64)
        self.broken = np.zeros((len(RULES), n_codes + n_drugs), dtype=np.int64)
        self.stays = np.zeros((n_years, round(2 * _SCORE_LIMIT / _SCORE_STEP) + 1, 2), dtype=np.int64)
        self.first_day: int | None = None
        self.periods = self.observed_days = 0

    # Counting --------------------------------------------------------------------------------------------------------

    def add(self, patients: PatientColumns, diagnoses: Coded, drugs: Coded) -> None:
        """Count a chunk of patients in."""
        births, sexes = birth_year_index(patients.birth_years), sex_index(patients.static[SEX.name])
        self.states.update(patients.static[STATE.name])
        start, end = patients.period("observation_start"), patients.period("observation_end")
        known = (start != NO_DAY) & (end != NO_DAY)
        self.periods += int(known.sum())
        self.observed_days += int((end[known].astype(np.int64) - start[known] + 1).sum())
        self._add_visits(patients, births, sexes)
        if len(diagnoses.known):
            month = diagnoses.known.codes * self.months.shape[1] + month_index(diagnoses.known.days)
            np.add.at(self.months.reshape(-1), month, 1)
        self._add_gaps(drugs.known)
        self._add_stays(births, patients.plos, diagnoses.known)

        n_codes = len(self.tables.diagnoses.codes)
        _count_broken(self.broken[:, :n_codes], diagnoses.known, births, sexes, self.tables.diagnoses.limits)
        _count_broken(self.broken[:, n_codes:], drugs.known, births, sexes, self.tables.drugs.limits)

    def _add_visits(self, patients: PatientColumns, births: np.ndarray, sexes: np.ndarray) -> None:
        n, kinds = len(patients), [patients.events.of_system(system) for system in SYSTEMS]
        for name, events in zip(("diagnoses", "prescriptions"), kinds, strict=True):
            _count(self.lengths[name], events.counts())
        owners = np.concatenate([np.repeat(np.arange(n), events.counts()) for events in kinds])
        days = np.concatenate([events.days for events in kinds]).astype(np.int64)
        if not len(days):
            _count(self.lengths["visits"], np.zeros(n, dtype=np.int64))
            return
        first = int(days.min())
        within = days[days >= FIRST_DAY]  # fillers lie before
        if len(within):
            earliest = int(within.min())
            self.first_day = earliest if self.first_day is None else min(self.first_day, earliest)

        # Diagnoses come before drugs on a visit, so its first code tells whether it has a diagnosis.
        n_days, n_codes = int(days.max()) - first + 1, sum(len(events.table) for events in kinds)
        codes = np.concatenate([kinds[0].codes.astype(np.int64), kinds[1].codes + len(kinds[0].table)])
        event = np.sort((owners * n_days + days - first) * n_codes + codes)
        event = event[first_of_run(event)]  # each code once per visit
        begins = np.flatnonzero(first_of_run(event // n_codes))
        visit, code = np.divmod(event[begins], n_codes)
        owner, day = np.divmod(visit, n_days)
        _count(self.lengths["codes per visit"], np.diff(begins, append=len(event)))
        _count(self.lengths["visits"], np.bincount(owner, minlength=n))
        year = year_index(day + first)
        for kind, which in enumerate((slice(None), code < len(kinds[0].table))):
            np.add.at(self.visits[kind], (year[which], births[owner[which]], sexes[owner[which]]), 1)
        is_last = np.append(owner[1:] != owner[:-1], True)
        np.add.at(self.last_seen, (year[is_last], births[owner[is_last]]), 1)

    def _add_gaps(self, drugs: Coded) -> None:
        if not len(drugs):
            return
        first = int(drugs.days.min())
        n_days = int(drugs.days.max()) - first + 1
        therapy = drugs.patients * len(self.gaps) + drugs.codes
        fill = np.sort(therapy * n_days + (drugs.days - first))
        fill = fill[first_of_run(fill)]
        therapy = fill // n_days
        again = np.flatnonzero(therapy[1:] == therapy[:-1])
        drug, gap = therapy[again] % len(self.gaps), fill[again + 1] - fill[again]
        np.add.at(self.gaps, (drug, gap.clip(max=LONGEST_GAP)), 1)
        np.add.at(self.gap_days, drug, gap)

    def _add_stays(self, births: np.ndarray, plos: np.ndarray, diagnoses: Coded) -> None:
        """Count the part of the log odds that codes make up; the part of age waits for the reference year."""
        has = np.zeros((len(births), len(self.tables.diagnoses.codes)), dtype=np.float64)
        has[diagnoses.patients, diagnoses.codes] = 1
        score = has @ of_diagnoses(self.tables)
        step = np.rint((score + _SCORE_LIMIT) / _SCORE_STEP).astype(np.int64).clip(0, self.stays.shape[1] - 1)
        labeled = plos >= 0
        np.add.at(self.stays, (births[labeled], step[labeled], plos[labeled]), 1)

    # What the counts say ---------------------------------------------------------------------------------------------

    def gap_mean(self) -> np.ndarray:
        """(D,) mean days between fills, NaN without any."""
        n = self.gaps.sum(axis=1)
        return np.divide(self.gap_days, n, out=np.full(len(n), np.nan), where=n > 0)

    def gap_median(self) -> np.ndarray:
        """(D,) median days between fills, NaN without any; `LONGEST_GAP` where it is longer."""
        return np.array([median(counts) for counts in self.gaps])

    def covered(self, last_day: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the calendar years that count (Y,), as indices within YEARS, and the share of each (Y,).

        A file of five years counts from its first to its last event, a longer one with its last five whole
        calendar years.
        """
        first_day = last_day if self.first_day is None else self.first_day
        starts = (np.array(YEARS) - EPOCH.year).astype("datetime64[Y]").astype("datetime64[D]").astype(np.int64)
        ends = np.append(starts[1:], starts[-1] + 365)
        share = (np.minimum(ends, last_day + 1) - np.maximum(starts, first_day)).clip(0) / (ends - starts)
        if last_day - first_day > (YEARS_OBSERVED + 0.1) * YEAR:
            whole = ends <= last_day + WHOLE_YEAR_BUT + 1
            share = np.where(whole & (np.cumsum(whole[::-1])[::-1] <= YEARS_OBSERVED), share, 0)
        years = np.flatnonzero(share)
        return years, share[years]

    def visits_a_year(
        self, people: np.ndarray, last_day: int, first_age: int, last_age: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return visits per person-year with any code and with a diagnosis, (2, 3) by sex, and the person-years (3,).

        Of patients who are ``first_age`` to ``last_age`` in the calendar year of the visit. A year of birth counts
        half. When a patient left is not on record: all other years count whole.

        Args:
            people: (451, 3) patients by birth year and sex.
            last_day: the last day of the file.
            first_age, last_age: years, both included.
        """
        years, share = self.covered(last_day)
        age = years[:, None] - np.arange(len(YEARS))  # (Y, 451)
        of_age = (age >= first_age) & (age <= last_age)
        person_years = (of_age * share[:, None] * np.where(age == 0, 0.5, 1)).sum(axis=0) @ people
        visits = np.tensordot(self.visits[:, years], of_age, axes=([1, 2], [0, 1]))  # (2, 3)
        return np.divide(visits, person_years, out=np.full(visits.shape, np.nan), where=person_years > 0), person_years

    def discrimination(self, reference_year: int) -> Discrimination:
        """Compare the labels of prolonged stay with the log odds of the tables."""
        ages = (reference_year - np.array(YEARS)).clip(0)
        of_age = of_ages(self.tables.prolonged_stay, ages)
        score = of_age[:, None] + np.arange(self.stays.shape[1]) * _SCORE_STEP - _SCORE_LIMIT  # (451, scores)
        probability = 1 / (1 + np.exp(-score))
        patients = self.stays.sum(axis=2)
        member = age_bands(ages) == np.arange(len(BAND_STARTS))[:, None]  # (4, 451)
        of_band, positive = member @ patients.sum(axis=1), member @ (patients * probability).sum(axis=1)
        return Discrimination(
            auroc=auroc(score, self.stays[:, :, 0], self.stays[:, :, 1]),
            achievable=auroc(score, patients * (1 - probability), patients * probability),
            share=np.divide(positive, of_band, out=np.full(len(of_band), np.nan), where=of_band > 0),
        )


def auroc(score: np.ndarray, negative: np.ndarray, positive: np.ndarray) -> float:
    """Return the area under the ROC curve of weighted counts at each score, all of one shape; NaN without both kinds.

    >>> auroc(np.array([0.1, 0.4, 0.4, 0.8]), np.array([1, 1, 0, 0]), np.array([0, 0, 1, 1]))
    0.875
    """
    _, group = np.unique(score, return_inverse=True)
    below, above = (np.bincount(group.ravel(), counts.ravel()) for counts in (negative, positive))
    if not below.sum() or not above.sum():
        return float("nan")
    worse = np.cumsum(below) - below / 2  # of equal scores one half
    return float((above @ worse) / (above.sum() * below.sum()))


def median(histogram: np.ndarray) -> float:
    """Return the median of the values 0, 1, 2 ... that a histogram counts; NaN when it is empty.

    >>> median(np.array([0, 2, 1, 1])), median(np.array([0, 1, 1]))
    (1.5, 1.5)
    """
    total = histogram.sum()
    if not total:
        return float("nan")
    cumulated = np.cumsum(histogram)
    middle = [(total + 1) // 2, total // 2 + 1]  # the same one where the number is odd
    return float(np.searchsorted(cumulated, middle).mean())


def _count(histogram: np.ndarray, values: np.ndarray) -> None:
    np.add.at(histogram, values.clip(max=len(histogram) - 1), 1)


def _count_broken(broken: np.ndarray, events: Coded, births: np.ndarray, sexes: np.ndarray, limits: Limits) -> None:
    """Add to (3, C) counts the events that break each rule.

    Only the year of birth is on record, so on the day of an event a patient has one of two ages: the calendar year
    minus the year of birth, or one less. An event breaks the rule of age when neither is allowed.
    """
    code, age = events.codes, year_index(events.days) - births[events.patients]
    allowed = np.hstack([limits.sexes, np.ones((len(limits.sexes), 1), dtype=bool)])  # an unknown sex breaks no rule
    rules = (
        ~allowed[code, sexes[events.patients]],
        (age < limits.min_age[code]) | (age - 1 > limits.max_age[code]),
        events.days < limits.valid_from[code],
    )
    for counts, breaks in zip(broken, rules, strict=True):
        counts += np.bincount(code[breaks], minlength=len(counts))
