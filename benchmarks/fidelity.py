"""How close realistic patients come to published figures, in three layers: margins, subgroups, dependence.

Every figure says what it is: "fitted" and "drawn from" ones only show that the draws do what they are to do; the
others are the evidence. Five-year shares are counted among patients who are observed for the whole five years.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np
from common import Measurement
from scipy.stats import norm

from exmed_bert.data.patient import NO_DAY, PatientColumns
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.reference import realistic as figures_of
from exmed_bert.reference.tables import OLDEST, Tables, load
from exmed_bert.synthetic.life import spread_of_stays
from exmed_bert.synthetic.people import YEAR, Window, age_bands
from exmed_bert.synthetic.report import care, comparison
from exmed_bert.synthetic.report.findings import Findings, Metric
from exmed_bert.synthetic.report.histories import Histories
from exmed_bert.synthetic.report.measures import Measures, mantel_haenszel, sex_index

WASHOUT = 730  # days observed before a first record counts as an onset: after one year three in ten are older
NEVER = np.iinfo(np.int32).max
FITTED, DRAWN, OPEN = "fitted", "drawn from", "not fitted"
FEWEST = 30  # cases expected of a cell that is compared
# Neither fitted nor drawn from.
DIABETES_PER_ADULT_YEAR = 0.0059, "CDC, new cases among adults, 2019"
DEATH_AFTER_HEART_FAILURE = 0.26, "Levy 2002, within a year, mean of men and women, 1990 to 1999"


@dataclass
class Rate:
    """A published rate: what was found, over how much, and how sure the count is (its standard error)."""

    name: str
    kind: str
    found: float
    published: float
    error: float

    @property
    def off(self) -> float:
        return abs(self.found / self.published - 1)


@dataclass
class Cohort:
    """What is counted of a file: P patients as arrays, and the counts of the report of those observed throughout."""

    window: Window
    tables: Tables
    throughout: Findings
    everyone: Findings
    five_years_only: bool = False
    parts: dict[str, list[np.ndarray]] = field(default_factory=dict)

    def add(self, patients: PatientColumns) -> None:
        """Count a chunk in."""
        start, end, death = (patients.period(name) for name in ("observation_start", "observation_end", "death_date"))
        birth = patients.birth_years.astype(np.int64)
        born = (birth - 1970).astype("datetime64[Y]").astype("datetime64[D]").astype(np.int64) + 182
        kept = patients.take(np.flatnonzero(self._throughout(born, start, end) & (death == NO_DAY)))
        kept_codes = self.throughout.measures.code(kept)
        self.throughout.measures.add_coded(kept, *kept_codes)
        self.throughout.histories.add(kept, *kept_codes)
        if self.five_years_only:
            return
        n, (diagnoses, drugs) = len(patients), self.everyone.measures.code(patients)
        self.everyone.measures.add_coded(patients, diagnoses, drugs)
        self.everyone.histories.add(patients, diagnoses, drugs)
        known = diagnoses.known
        first = np.full((n, len(self.tables.diagnoses.codes)), NEVER, dtype=np.int32)
        np.minimum.at(first, (known.patients, known.codes), known.days)
        visit = np.unique(diagnoses.patients << 24 | diagnoses.days.astype(np.int64))
        added = {
            "start": start,
            "end": end,
            "death": death,
            "born": born,
            "sex": sex_index(patients.static["sex"]),
            "plos": patients.plos,
            "first": first,
            "visitors": (visit >> 24) + sum(map(len, self.parts.get("start", []))),
            "visit_days": visit & (1 << 24) - 1,
        }
        for name, values in added.items():
            self.parts.setdefault(name, []).append(values)

    def _throughout(self, born: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """Return who is observed for the whole window, or from birth on.

        The later somebody is born, the more likely that is: of those as many are taken as would have stayed since the
        beginning, so that children keep their share.
        """
        rate = -np.log1p(-figures_of.load(self.tables).rates["leaving_a_year"])
        before = (born - self.window.start).clip(0) / YEAR
        taken = np.random.default_rng(self.throughout.measures.patients).random(len(born)) < np.exp(-rate * before)
        return (start <= np.maximum(self.window.start, born + 183)) & (end == self.window.end) & taken

    def __getitem__(self, name: str) -> np.ndarray:
        if len(self.parts[name]) > 1:
            self.parts[name] = [np.concatenate(self.parts[name])]
        return self.parts[name][0]

    @property
    def years(self) -> np.ndarray:
        return (self["end"] - self["start"] + 1) / YEAR

    @property
    def bands(self) -> np.ndarray:
        """(P,) age band on the last day of the window."""
        return age_bands(((self.window.end - self["born"]) // YEAR).astype(np.int64).clip(0))

    def person_years(self, group: np.ndarray) -> np.ndarray:
        """Return the years observed by age group (of each age in years) and sex."""
        found = np.zeros((group.max() + 1, 2))
        for age in range(OLDEST + 1):
            birthday = self["born"] + age * YEAR
            lived = np.minimum(self["end"] + 1, birthday + YEAR) - np.maximum(self["start"], birthday)
            found[group[age]] += np.bincount(self["sex"], lived.clip(0) / YEAR, 2)
        return found

    def events(self, group: np.ndarray, patients: np.ndarray, days: np.ndarray) -> np.ndarray:
        """Return the events on ``days`` by age group and sex."""
        found = np.zeros((group.max() + 1, 2))
        ages = ((days - self["born"][patients]) // YEAR).astype(np.int64).clip(0, OLDEST)
        np.add.at(found, (group[ages], self["sex"][patients]), 1)
        return found


def read(path: Path, end_date: date, five_years_only: bool = False) -> Cohort:
    """Count the patients of a file, or of a large one those alone who are observed throughout."""
    tables = load()
    throughout, everyone = (Findings(str(path), Measures(tables), Histories(tables), {}) for _ in range(2))
    cohort = Cohort(Window.until(end_date), tables, throughout, everyone, five_years_only)
    for patients in PatientInput((path,)).chunks():
        cohort.add(patients)
    return cohort


def measurements(cohort: Cohort, larger: Cohort, stays: dict[str, float]) -> Iterator[Measurement]:
    """Yield the figures, the evidence first; ``larger`` has the five-year shares."""
    drawn, open_ = list(margins(cohort, stays)), list(independent(cohort))
    for name, rates in ((OPEN, open_), (f"{DRAWN} or {FITTED}", drawn)):
        outside = _outside(rates)
        listed = "; ".join(outside) or "none"
        what = (
            f"published rates, of {len(rates)}, off by more than 10 % and more than sampling error ({name}): {listed}"
        )
        yield Measurement(what, [len(outside)], "count", at_most=0)
    for rate in open_:
        yield Measurement(f"{rate.name}, published {rate.published:.4g} ({OPEN})", [rate.found], "per year")
    for name, value, target in subgroups(larger):
        yield Measurement(f"subgroups: {name} ({OPEN})", [value], "number", **target)
    for name, value, target in dependence(cohort):
        yield Measurement(f"dependence: {name} ({DRAWN})", [value], "number", **target)
    for kind in (DRAWN, FITTED):
        worst = max(rate.off for rate in drawn if rate.kind == kind)
        n = sum(rate.kind == kind for rate in drawn)
        yield Measurement(f"margins: rates, worst relative error of {n} ({kind})", [worst], "share")
    for metric, kind in _of_report(cohort, larger):
        if metric.value is not None and metric.target is not None:
            limit = {"at_least" if metric.at_least else "at_most": metric.target}
            chance = "" if metric.by_chance is None else f"; sampling alone {metric.by_chance:.3g}"
            name = f"margins: {metric.name} ({kind}{chance})"
            yield Measurement(name, [float(metric.value)], metric.kind, **limit)


def margins(cohort: Cohort, stays: dict[str, float]) -> Iterator[Rate]:
    """Yield rates of leaving, death, visits and stays."""
    figures = figures_of.load(cohort.tables)
    years, died = cohort.years, cohort["death"] != NO_DAY
    leaves = ((cohort["end"] < cohort.window.end) & ~died).sum()
    rate = leaves / years.sum()
    yield Rate(
        "members who leave in a year",
        DRAWN,
        -np.expm1(-rate),
        figures.rates["leaving_a_year"],
        np.sqrt(leaves) / years.sum(),
    )
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
                yield Rate(label, kind, counts[at] / lived[at], published[at], np.sqrt(published[at] / lived[at]))
    person_years, n = stays["person_years"], stays["stays"]
    yield Rate(
        "stays in hospital", DRAWN, n / person_years, figures.rates["stays_per_person_year"], np.sqrt(n) / person_years
    )
    mean, spread = figures.rates["days_of_a_stay_mean"], spread_of_stays(figures)
    deviation = mean * np.sqrt(np.expm1(spread**2))
    yield Rate("days of a stay", DRAWN, stays["days_of_stays"] / n, mean, deviation / np.sqrt(n))


def independent(cohort: Cohort) -> Iterator[Rate]:
    """Yield rates that nothing was fitted to or drawn from."""
    at = cohort.tables.diagnoses.codes.index
    adult = (cohort["born"] + 18 * YEAR) < cohort["start"]
    begin = cohort["start"] + WASHOUT
    first = cohort["first"][:, [at("E11.9"), at("E11.65")]].min(axis=1)
    # Per adult, those with diabetes included, as the survey counts.
    cases = (adult & (first >= begin) & (first <= cohort["end"])).sum()
    lived = ((cohort["end"] - begin + 1).clip(0) * adult).sum() / YEAR
    yield Rate(
        "independent: new diabetes per adult and year",
        OPEN,
        cases / lived,
        DIABETES_PER_ADULT_YEAR[0],
        np.sqrt(cases) / lived,
    )
    failing = cohort["first"][:, at("I50.9")]
    new = (failing >= begin) & (failing <= cohort["end"])
    lived = (np.minimum(cohort["end"], failing + 365) - failing)[new].sum() / YEAR
    deaths = (new & (cohort["death"] != NO_DAY) & (cohort["death"] <= failing + 365)).sum()
    published = -np.log1p(-DEATH_AFTER_HEART_FAILURE[0])
    yield Rate(
        "independent: deaths in the year after heart failure",
        OPEN,
        deaths / lived,
        published,
        np.sqrt(deaths.clip(1)) / lived,
    )


def subgroups(cohort: Cohort) -> Iterator[tuple[str, float, dict[str, float]]]:
    """Yield how odds ratios of pairs within age bands and sexes agree with the published ones, which are pooled."""
    measures = cohort.throughout.measures
    pairs = cohort.tables.diagnoses.pairs
    published = np.log(cohort.tables.diagnoses.odds_ratios[tuple(pairs.T)])
    counts = measures.pair_tables.astype(float)  # (M, 8, 2, 2)
    enough = counts.min(axis=(2, 3)) >= FEWEST
    of_pair, stratum = np.nonzero(enough)
    ratio, error = mantel_haenszel(counts[of_pair, stratum][:, None])
    off = np.log(ratio) - published[of_pair]
    n = len(of_pair)
    yield (
        f"odds ratios by age band and sex, correlation of {n} logarithms",
        float(np.corrcoef(np.log(ratio), published[of_pair])[0, 1]),
        {"at_least": 0.8},
    )
    yield (
        "odds ratios by age band and sex, median absolute error of the logarithm",
        float(np.median(np.abs(off))),
        {"at_most": 0.3},
    )
    yield (
        "odds ratios by age band and sex, share beyond two standard errors and 0.3",
        float(((np.abs(off) > 2 * error) & (np.abs(off) > 0.3)).mean()),
        {},
    )
    for group, rows in (
        ("under 45", stratum < 4),
        ("65 and older", stratum >= 6),
        ("men", stratum % 2 == 0),
        ("women", stratum % 2 == 1),
    ):
        if rows.any():
            yield f"odds ratios, {group}, mean error of the logarithm over {rows.sum()}", float(off[rows].mean()), {}


def dependence(cohort: Cohort) -> Iterator[tuple[str, float, dict[str, float]]]:
    """Yield how the incidence after another condition compares with the tables' hazard ratios."""
    figures, codes = figures_of.load(cohort.tables), cohort.tables.diagnoses.codes
    found, wanted, names = [], [], []
    for earlier, later in np.argwhere(~np.isnan(figures.onset_ratios)):
        ratio, events = rate_ratio(cohort, int(earlier), int(later))
        if events >= FEWEST:
            found.append(np.log(ratio))
            wanted.append(figures.onset_ratios[earlier, later])
            names.append(f"{codes[earlier]} to {codes[later]}")
    off = np.array(found) - np.array(wanted)
    same = float((np.sign(found) == np.sign(wanted)).mean())
    yield f"onset after another condition, hazard ratios of the right sign, of {len(off)}", same, {"at_least": 1}
    yield (
        "onset after another condition, median absolute error of the logarithm",
        float(np.median(np.abs(off))),
        {"at_most": 0.3},
    )
    for name, value, target in zip(names, np.exp(found), np.exp(wanted), strict=True):
        yield f"hazard ratio {name}, table {target:.3g}", float(value), {}


def rate_ratio(cohort: Cohort, earlier: int, later: int) -> tuple[float, int]:
    """Return the rate ratio of the onset of one condition with another, and the exposed onsets.

    Pooled over age bands and sexes (Mantel and Haenszel for person-time, Rothman and Boice 1979); both as first
    recorded, after a washout.
    """
    begin, first = cohort["start"] + WASHOUT, cohort["first"]
    onset, exposed = first[:, later], first[:, earlier]
    end = np.minimum(onset, cohort["end"])
    at_risk = (onset >= begin) & (begin < cohort["end"])
    turns = np.clip(exposed, begin, np.maximum(end, begin))
    time = np.stack([(turns - begin).clip(0), (end - turns).clip(0)]) * at_risk / YEAR  # without, with
    event = at_risk & (onset <= cohort["end"])
    stratum = cohort.bands * 2 + cohort["sex"]
    with_it = event & (exposed < onset)
    cases = np.stack([np.bincount(stratum, event & ~with_it, 8), np.bincount(stratum, with_it, 8)])
    years = np.stack([np.bincount(stratum, part, 8) for part in time])
    total = years.sum(axis=0).clip(1e-9)
    above, below = (cases[1] * years[0] / total).sum(), (cases[0] * years[1] / total).sum()
    return float(above / below) if below else float("nan"), int(with_it.sum())


def _of_report(cohort: Cohort, larger: Cohort) -> Iterator[tuple[Metric, str]]:
    """Yield the metrics of the report: people of all, five-year shares of those observed throughout."""
    for compare in (comparison.age_and_sex, comparison.states):
        yield from ((metric, DRAWN) for metric in compare(cohort.everyone).metrics)
    for compare in (comparison.prevalence, comparison.comorbidity, care.drugs_given_diagnoses, care.drug_users):
        for metric in compare(larger.throughout).metrics:
            yield metric, "stopping set by it" if metric.key == "users_1yr" else FITTED
    yield from ((metric, DRAWN) for metric in comparison.violations(cohort.everyone).metrics)


def _outside(rates: list[Rate]) -> list[str]:
    """Return the rates that are off by more than 10 % and more than chance gives one of them in 40 files."""
    limit = float(norm.ppf(1 - 0.025 / len(rates)))
    return [
        f"{rate.name} {rate.found:.4g} for {rate.published:.4g}"
        for rate in rates
        if rate.off > 0.1 and abs(rate.found - rate.published) > limit * rate.error
    ]
