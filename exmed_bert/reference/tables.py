"""The reference tables as arrays, read from ``tables/`` and validated.

Every figure in the files stands beside a ``source_*`` column or key; ``tables/SOURCES.md`` explains them.
"""

import functools
import hashlib
import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

from exmed_bert import codes
from exmed_bert.console import InputError
from exmed_bert.reference.rows import Rows, split

FOLDER = Path(__file__).resolve().parent / "tables"
DIAGNOSES = "diagnoses.csv"
DRAWN_FROM = (  # the tables that the fitted values depend on
    DIAGNOSES,
    "drugs.csv",
    "pathways.csv",
    "clinics.csv",
    "seasons.csv",
    "epidemics.csv",
    "departures.csv",
    "us_demographics.json",
)
FILES = (*DRAWN_FROM, "plos.csv", "recent_codes.csv", "visit_rates.csv")

SEXES = ("MALE", "FEMALE")  # the order of every axis of sexes
BAND_STARTS = (0, 18, 45, 65)  # the order of every axis of age bands, in years
OLDEST = 104  # the census' open bracket "100+" is read as 100 to 104: estimate

KINDS = ("chronic", "status", "yearly", "episodic", "pregnancy")
THEN = ("stays", "fades", "ends")  # what an earlier condition does once the later one has begun
SEX_MASKS = {"both": (True, True), "M": (True, False), "F": (False, True)}
_ALWAYS_VALID = date(1900, 1, 1)


@dataclass(frozen=True, eq=False)
class Limits:
    """Eligibility for each of C codes: sex, age, and the first day of use.

    Attributes:
        sexes: (C, 2) bool.
        min_age, max_age: (C,) int, whole years, both included.
        valid_from: (C,) int, the first day on which the code exists, days since 1970-01-01.
    """

    sexes: np.ndarray
    min_age: np.ndarray
    max_age: np.ndarray
    valid_from: np.ndarray


@dataclass(frozen=True, eq=False)
class Diagnoses:
    """K diagnoses.

    Attributes:
        codes, names, kinds: K strings each; the kinds are those of `KINDS`.
        limits: eligibility.
        prevalence: (K, 4, 2) share of each age band and sex that has the code within five years.
        odds_ratios: (K, K) given age and sex; 1 where the tables name none, symmetric.
        seen_with: for each code the indices of the codes on whose visits it tends to be recorded.
        clinics: (K,) index of the clinic that follows a chronic condition; -1 for the other kinds.
        pathways: conditions of which one comes before the other, in an order in which they can be applied.
    """

    codes: tuple[str, ...]
    names: tuple[str, ...]
    kinds: np.ndarray
    limits: Limits
    prevalence: np.ndarray
    odds_ratios: np.ndarray
    seen_with: tuple[np.ndarray, ...]
    clinics: np.ndarray
    pathways: tuple["Pathway", ...]

    @property
    def pairs(self) -> np.ndarray:
        """(M, 2) indices i < j of the pairs with a published odds ratio."""
        return np.argwhere(np.triu(self.odds_ratios != 1, k=1))


@dataclass(frozen=True)
class Pathway:
    """Where a patient has both, the earlier condition begins first; ``then`` is one of `THEN`."""

    earlier: int
    later: int
    then: str


@dataclass(frozen=True, eq=False)
class Drugs:
    """D drugs and the L indications they are given for.

    Attributes:
        codes, names: D strings each.
        limits: eligibility.
        long_term: (D,) bool: refilled for years, not given as short courses.
        over_the_counter: (D,) bool: taken for common complaints without a diagnosis on record.
        share_1yr, share_5yr: (D,) share of all people who use it within one and within five years.
        fills_per_user_year: (D,) prescriptions a user fills in a year of use.
        second_line: (D,) bool: tried after the first-line drugs of the same diagnosis.
        classes: (D,) index of a class of which a patient takes one drug at a time; -1 for none.
        supply_days, supply_shares: (D, S) days of supply of a prescription and the shares of all prescriptions.
        share_without_diagnosis: (D,) share of the users who have none of the drug's diagnoses.
        link_drug, link_diagnosis: (L,) indices. link_probability: (L,) P(drug | diagnosis) within five years.
    """

    codes: tuple[str, ...]
    names: tuple[str, ...]
    limits: Limits
    long_term: np.ndarray
    over_the_counter: np.ndarray
    share_1yr: np.ndarray
    share_5yr: np.ndarray
    fills_per_user_year: np.ndarray
    second_line: np.ndarray
    classes: np.ndarray
    supply_days: np.ndarray
    supply_shares: np.ndarray
    share_without_diagnosis: np.ndarray
    link_drug: np.ndarray
    link_diagnosis: np.ndarray
    link_probability: np.ndarray


@dataclass(frozen=True, eq=False)
class Demographics:
    """The US population.

    Attributes:
        people: (ages, 2) persons of each age in whole years and each sex; five-year brackets spread evenly.
        states: 51 two-letter abbreviations.
        state_given_band: (4, 51) shares, each row sums to 1; both margins are the census'.
        departures: (ages, 2) share that dies or leaves the plan within a year.
    """

    people: np.ndarray
    states: tuple[str, ...]
    state_given_band: np.ndarray
    departures: np.ndarray


@dataclass(frozen=True, eq=False)
class Schedule:
    """Timing of visits: clinics, seasons and epidemics.

    Attributes:
        clinics: names. visits_a_year: (C,) scheduled visits per year of a patient in the clinic's care.
        seasons: (K, 12) relative frequency of a code by calendar month, mean 1.
        epidemics: for the index of a code that comes in waves the weight of each month, {(year, month): weight}.
    """

    clinics: tuple[str, ...]
    visits_a_year: np.ndarray
    seasons: np.ndarray
    epidemics: dict[int, dict[tuple[int, int], float]]


@dataclass(frozen=True, eq=False)
class ProlongedStay:
    """Log odds of a prolonged length of stay: intercept, per decade above 40, per chronic condition, (K,) per code."""

    intercept: float
    decade_of_age_over_40: float
    chronic_condition: float
    diagnoses: np.ndarray


@dataclass(frozen=True, eq=False)
class Tables:
    """All tables, the digest of the files they were read from, and that of those the fitted values depend on."""

    diagnoses: Diagnoses
    drugs: Drugs
    demographics: Demographics
    schedule: Schedule
    prolonged_stay: ProlongedStay
    digest: str
    drawn_digest: str

    @property
    def condition_codes(self) -> tuple[str, ...]:
        """The codes of the conditions, in the order of every axis of conditions."""
        return self.diagnoses.codes


@functools.cache
def load(folder: Path = FOLDER) -> Tables:
    """Read and check the tables.

    Raises:
        InputError: a code is no code, a share lies outside 0 to 1, or a table refers to a code that is not there.
    """
    clinics = Rows(folder / "clinics.csv")
    clinic_names = tuple(clinics.each("clinic", str))
    diagnoses = _diagnoses(folder / DIAGNOSES, folder / "pathways.csv", clinic_names)
    return Tables(
        diagnoses=diagnoses,
        drugs=_drugs(folder / "drugs.csv", diagnoses),
        demographics=_demographics(folder / "us_demographics.json", folder / "departures.csv"),
        schedule=Schedule(
            clinics=clinic_names,
            visits_a_year=clinics.numbers("visits_a_year"),
            seasons=_seasons(folder / "seasons.csv", diagnoses),
            epidemics=_epidemics(folder / "epidemics.csv", diagnoses),
        ),
        prolonged_stay=_prolonged_stay(folder / "plos.csv", diagnoses),
        digest=_digest(folder, FILES),
        drawn_digest=_digest(folder, DRAWN_FROM),
    )


def _digest(folder: Path, names: tuple[str, ...]) -> str:
    return hashlib.blake2b(b"".join((folder / name).read_bytes() for name in names), digest_size=16).hexdigest()


def _diagnoses(path: Path, pathways: Path, clinics: tuple[str, ...]) -> Diagnoses:
    rows = Rows(path)
    names = rows.distinct_codes(codes.ICD10CM)
    index = {code: i for i, code in enumerate(names)}
    kinds = rows.each("kind", lambda text: text if text in KINDS else rows.wrong(f"expected one of {', '.join(KINDS)}"))
    bands = [rows.shares(f"prevalence_{band}") for band in ("0_17", "18_44", "45_64", "65_up")]
    factors = [rows.numbers("male_factor"), rows.numbers("female_factor")]
    limits = _limits(rows)
    prevalence = np.stack(bands, axis=1)[:, :, None] * np.stack(factors, axis=1)[:, None, :] * limits.sexes[:, None, :]

    # A pair may be named from both sides; the model takes the geometric mean.
    log_ratio, named = np.zeros((len(names),) * 2), np.zeros((len(names),) * 2)
    for i, pairs in enumerate(rows.each("comorbid_odds_ratios", lambda text: rows.pairs(text, index, DIAGNOSES))):
        for j, ratio in pairs:
            log_ratio[[i, j], [j, i]] += np.log(ratio)
            named[[i, j], [j, i]] += 1
    return Diagnoses(
        codes=names,
        names=tuple(rows.each("name", str)),
        kinds=np.array(kinds),
        limits=limits,
        prevalence=prevalence.clip(0, 0.98),
        odds_ratios=np.exp(log_ratio / named.clip(1)),
        seen_with=tuple(
            rows.each(
                "seen_with",
                lambda text: np.array([rows.find(code, index, DIAGNOSES) for code in split(text)], dtype=int),
            )
        ),
        clinics=np.array(rows.each("clinic", lambda text: clinics.index(text) if text else -1)),
        pathways=_pathways(pathways, index),
    )


def _pathways(path: Path, index: dict[str, int]) -> tuple[Pathway, ...]:
    rows = Rows(path)
    columns = [rows.each(name, lambda code: rows.find(code, index, DIAGNOSES)) for name in ("earlier", "later")]
    then = rows.each("then", lambda text: text if text in THEN else rows.wrong(f"expected one of {', '.join(THEN)}"))
    pathways = tuple(map(Pathway, *columns, then))
    for i, pathway in enumerate(pathways):
        if any(later.later == pathway.earlier for later in pathways[i:]):
            raise InputError(f"{path}: line {i + 2}: a pathway to its earlier condition must stand before it")
    return pathways


def _drugs(path: Path, diagnoses: Diagnoses) -> Drugs:
    rows = Rows(path)
    names = rows.distinct_codes(codes.ATC)
    index = {code: i for i, code in enumerate(diagnoses.codes)}
    mixes = rows.each("days_supply", lambda text: rows.pairs(text, None))
    most = max(map(len, mixes))
    padded = np.array([mix + [(1, 0.0)] * (most - len(mix)) for mix in mixes])
    if not np.allclose(padded[:, :, 1].sum(axis=1), 1):
        raise InputError(f"{path}: days_supply: the shares of a drug must sum to 1")
    links = [
        (drug, diagnosis, probability)
        for drug, pairs in enumerate(rows.each("p_given_diagnosis", lambda text: rows.pairs(text, index, DIAGNOSES)))
        for diagnosis, probability in pairs
    ]
    link_drug, link_diagnosis, link_probability = map(np.array, zip(*links, strict=True))
    if (link_probability > 1).any():
        raise InputError(f"{path}: p_given_diagnosis: {link_probability.max()}, expected at most 1")
    class_index: dict[str, int] = {}
    return Drugs(
        codes=names,
        names=tuple(rows.each("name", str)),
        limits=_limits(rows),
        long_term=rows.flags("long_term"),
        over_the_counter=rows.flags("over_the_counter"),
        share_1yr=rows.shares("share_1yr"),
        share_5yr=rows.shares("share_5yr"),
        fills_per_user_year=rows.numbers("fills_per_user_year"),
        second_line=np.array(rows.each("line", lambda text: {"1": False, "2": True}[text])),
        classes=np.array(
            rows.each("class", lambda text: class_index.setdefault(text, len(class_index)) if text else -1)
        ),
        supply_days=padded[:, :, 0],
        supply_shares=padded[:, :, 1],
        share_without_diagnosis=rows.shares("share_without_diagnosis"),
        link_drug=link_drug,
        link_diagnosis=link_diagnosis,
        link_probability=link_probability,
    )


def _demographics(path: Path, departures: Path) -> Demographics:
    content = json.loads(path.read_text(encoding="utf-8"))
    people = np.zeros((OLDEST + 1, 2))
    for bracket, counts in content["age_and_sex"]["male_and_female_by_age"].items():
        first, last = bracket.split("-") if "-" in bracket else (bracket.rstrip("+"), OLDEST)
        people[int(first) : int(last) + 1] = np.array(counts) / (int(last) - int(first) + 1)
    population = content["states"]["population"]
    by_band = content["state_age_bands"]["share"]
    if population.keys() != by_band.keys():
        raise InputError(f"{path}: states and state_age_bands must name the same states")

    # The shares of age bands within a state are of another year than the two margins: raking (iterative
    # proportional fitting, Deming and Stephan 1940) keeps their pattern and meets both margins.
    state_margin = np.array(list(population.values()), dtype=float)
    band_margin = np.add.reduceat(people.sum(axis=1), BAND_STARTS)
    joint = np.array([by_band[state] for state in population]).T * state_margin  # (bands, states)
    for _ in range(50):
        joint *= (state_margin / state_margin.sum()) / joint.sum(axis=0)
        joint *= (band_margin / band_margin.sum() / joint.sum(axis=1))[:, None]

    rows = Rows(departures)
    a_year = np.zeros(people.shape)
    columns = (rows.each("age_first", int), rows.each("age_last", int), rows.each("sex", lambda text: SEX_MASKS[text]))
    for first, last, sexes, rate in zip(*columns, rows.numbers("per_100000_a_year") / 100_000, strict=True):
        a_year[first : last + 1] += rate * np.array(sexes)
    return Demographics(people, tuple(population), joint / joint.sum(axis=1, keepdims=True), a_year)


def _seasons(path: Path, diagnoses: Diagnoses) -> np.ndarray:
    rows = Rows(path)
    seasons = np.ones((len(diagnoses.codes), 12))
    which = rows.each(
        "code", lambda code: rows.find(code, {code: i for i, code in enumerate(diagnoses.codes)}, DIAGNOSES)
    )
    months = np.stack([rows.numbers(f"m{month:02}") for month in range(1, 13)], axis=1)
    if (months <= 0).any():
        raise InputError(f"{path}: every month's weight must be above 0")
    seasons[which] = months / months.mean(axis=1, keepdims=True)
    return seasons


def _epidemics(path: Path, diagnoses: Diagnoses) -> dict[int, dict[tuple[int, int], float]]:
    rows = Rows(path)
    index = {code: i for i, code in enumerate(diagnoses.codes)}
    which = rows.each("code", lambda code: rows.find(code, index, DIAGNOSES))
    months = rows.each("month", lambda text: (date.fromisoformat(f"{text}-01").year, int(text[5:])))
    epidemics: dict[int, dict[tuple[int, int], float]] = {}
    for code, month, weight in zip(which, months, rows.numbers("weight").tolist(), strict=True):
        epidemics.setdefault(code, {})[month] = weight
    return epidemics


def _prolonged_stay(path: Path, diagnoses: Diagnoses) -> ProlongedStay:
    rows = Rows(path)
    log_odds = dict(zip(rows.each("term", str), rows.numbers("log_odds").tolist(), strict=True))
    general = {name: log_odds.pop(name) for name in ("intercept", "decade_of_age_over_40", "chronic_condition")}
    by_code = np.zeros(len(diagnoses.codes))
    for code, value in log_odds.items():
        if code not in diagnoses.codes:
            raise InputError(f"{path}: term: {code!r} is not in {DIAGNOSES}")
        by_code[diagnoses.codes.index(code)] = value
    return ProlongedStay(**general, diagnoses=by_code)


def _limits(rows: Rows) -> Limits:
    return Limits(
        sexes=np.array(rows.each("sex", lambda text: SEX_MASKS[text])),
        min_age=np.array(rows.each("min_age", int)),
        max_age=np.array(rows.each("max_age", int)),
        valid_from=rows.days("valid_from", empty=_ALWAYS_VALID),
    )
