"""What a population holds, counted as a stream: people, prevalence, odds ratios, drugs given a diagnosis, users.

Counts are kept by birth year and sex, because the year that ages refer to, that of the last event, is known only at
the end. Nothing here knows how patients are made: the counts of generated and of real patients are the same.
"""

import functools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np

from exmed_bert import codes
from exmed_bert.data.patient import EventColumns, PatientColumns, day_number
from exmed_bert.data.static_columns import SEX
from exmed_bert.reference.tables import BAND_STARTS, SEXES, Tables
from exmed_bert.synthetic.events import first_of_run
from exmed_bert.synthetic.people import age_bands

SYSTEMS = (codes.ICD10CM, codes.ATC)  # diagnoses and drugs
YEARS = range(1850, 2301)  # years of birth and of events, shifted ones too; a year outside counts as the nearest
UNKNOWN_SEX = len(SEXES)  # index beside those of SEXES
_SPELLINGS = {"M": 0, "MALE": 0, "F": 1, "W": 1, "FEMALE": 1}
FIRST_DAY = day_number(date(YEARS.start, 1, 1))
_MONTH_STARTS = [day_number(date(year, month, 1)) for year in (*YEARS, YEARS.stop) for month in range(1, 13)]
_MONTHS = len(YEARS) * 12
# Looked up, which takes a tenth of the time of numpy's calendar.
_MONTH_OF_DAY = np.repeat(np.arange(_MONTHS), np.diff(_MONTH_STARTS[: _MONTHS + 1]))
_YEAR_OF_DAY = _MONTH_OF_DAY // 12
_LAST_DAY = FIRST_DAY + len(_MONTH_OF_DAY) - 1
WHOLE_YEAR_BUT = 14  # days: a year counts as covered when the last event lies at most so many days before its end


@dataclass(frozen=True, eq=False)
class Coded:
    """E events of a chunk by the tables' codes.

    Attributes:
        patients: (E,) int64, index within the chunk.
        codes: (E,) int64, index into the tables, -1 for a code that they do not hold.
        days: (E,) int32, days since 1970-01-01.
        novel: events of a novel code, one that ``sources`` names.
        outside: events of codes that are not in the tables, by code.
    """

    patients: np.ndarray
    codes: np.ndarray
    days: np.ndarray
    novel: int
    outside: Counter[str]

    def __len__(self) -> int:
        return len(self.patients)

    @functools.cached_property
    def known(self) -> "Coded":
        """The events whose codes are in the tables."""
        inside = self.codes >= 0
        if inside.all():
            return self
        return Coded(self.patients[inside], self.codes[inside], self.days[inside], self.novel, Counter())

    @property
    def last_day(self) -> int | None:
        """The last day of all events within `YEARS`, None without any: files hold fillers such as the year 9999."""
        days = self.days[self.days <= _LAST_DAY]
        return int(days.max()) if len(days) else None


class Coder:
    """Finds the codes of a file in the tables; each spelling is looked up once."""

    def __init__(self, known: Sequence[str], system: str, sources: Mapping[str, str] | None = None) -> None:
        self._known = {code: number for number, code in enumerate(known)}
        self._system: str = system
        self._sources = sources or {}
        self._found: dict[str, tuple[str, int, bool]] = {}

    def __call__(self, events: EventColumns) -> Coded:
        """Return the events by the tables' codes."""
        found = [self._found.get(code) or self._find(code) for _, code in events.table]
        counts = np.bincount(events.codes, minlength=len(found)).tolist()
        outside: Counter[str] = Counter()
        novel = 0
        for (code, place, is_novel), count in zip(found, counts, strict=True):
            if place < 0 and count:
                outside[code] += count
            novel += is_novel * count
        index = np.array([index for _, index, _ in found], dtype=np.int64)
        patients = np.repeat(np.arange(len(events.offsets) - 1), events.counts())
        return Coded(patients, index[events.codes], events.days, novel, outside)

    def _find(self, spelled: str) -> tuple[str, int, bool]:
        """Return a code's usual spelling, its index in the tables or -1, and whether it is a novel one.

        A novel code that the tables hold counts as itself, any other as its source.
        """
        code = codes.normalize(spelled, self._system) or spelled
        index = self._known.get(code, self._known.get(self._sources.get(code, ""), -1))
        self._found[spelled] = code, index, code in self._sources
        return self._found[spelled]


class Measures:
    """Running counts; memory does not grow with the patients.

    Args:
        tables: the reference tables, which say what codes and pairs are counted.
        sources: novel code to the code that it was made from and counts as.

    Attributes:
        pairs: (M, 2) indices i < j of the diagnoses for whose pair the tables name an odds ratio.
        patients: all patients, those of unknown sex included.
        events, novel: all events, and those of a novel code, by code system.
        outside: events of codes that are not in the tables, by code system and code.
        last_day: the last day with an event, days since 1970-01-01; None without any.
    """

    def __init__(self, tables: Tables, sources: Mapping[str, str] | None = None) -> None:
        self.tables = tables
        self.pairs = np.argwhere(np.triu(tables.diagnoses.odds_ratios != 1, 1))
        self.patients = 0
        self.last_day: int | None = None
        self.events: Counter[str] = Counter()
        self.novel: Counter[str] = Counter()
        self.outside: dict[str, Counter[str]] = {codes.ICD10CM: Counter(), codes.ATC: Counter()}
        n_years, n_sexes, n_codes, n_drugs = len(YEARS), UNKNOWN_SEX + 1, len(tables.diagnoses.codes), self._n_drugs
        self.by_birth_year = {
            "people": np.zeros((n_years, n_sexes), dtype=np.int64),
            "codes": np.zeros((n_years, n_sexes, n_codes), dtype=np.int64),
            "pairs": np.zeros((n_years, n_sexes, len(self.pairs)), dtype=np.int64),
        }
        self.with_diagnosis = np.zeros(n_codes, dtype=np.int64)
        self.with_drug = np.zeros(n_drugs, dtype=np.int64)
        self.with_both = np.zeros((n_codes, n_drugs), dtype=np.int64)
        self.users_by_year = np.zeros((n_years, n_drugs), dtype=np.int64)
        self.fills_by_year = np.zeros((n_years, n_drugs), dtype=np.int64)
        self._coders = {
            codes.ICD10CM: Coder(tables.diagnoses.codes, codes.ICD10CM, sources),
            codes.ATC: Coder(tables.drugs.codes, codes.ATC, sources),
        }

    @property
    def _n_drugs(self) -> int:
        return len(self.tables.drugs.codes)

    # Counting --------------------------------------------------------------------------------------------------------

    def code(self, patients: PatientColumns) -> tuple[Coded, Coded]:
        """Return a chunk's diagnoses and prescriptions by the tables' codes."""
        diagnoses, drugs = (self._coders[system](patients.events.of_system(system)) for system in SYSTEMS)
        return diagnoses, drugs

    def add(self, patients: PatientColumns) -> None:
        """Count a chunk of patients in."""
        self.add_coded(patients, *self.code(patients))

    def add_coded(self, patients: PatientColumns, diagnoses: Coded, drugs: Coded) -> None:
        """Count a chunk in whose events are looked up already."""
        n = len(patients)
        self.patients += n
        for system, coded in ((codes.ICD10CM, diagnoses), (codes.ATC, drugs)):
            self.events[system] += len(coded)
            self.novel[system] += coded.novel
            self.outside[system].update(coded.outside)
        self.last_day = _last(self.last_day, diagnoses.last_day, drugs.last_day)
        diagnoses, drugs = diagnoses.known, drugs.known

        has, given = _has(diagnoses, n, len(self.with_diagnosis)), _has(drugs, n, self._n_drugs)
        cells = birth_year_index(patients.birth_years) * (UNKNOWN_SEX + 1) + sex_index(patients.static[SEX.name])
        np.add.at(self.by_birth_year["people"].reshape(-1), cells, 1)
        _count_by_cell(self.by_birth_year["codes"], cells, has)
        _count_by_cell(self.by_birth_year["pairs"], cells, has[self.pairs[:, 0]] & has[self.pairs[:, 1]])

        self.with_diagnosis += has.sum(axis=1)
        self.with_drug += given.sum(axis=1)
        # Sums of zeros and ones, which 32 bits hold exactly up to 16 million patients.
        self.with_both += (has.astype(np.float32) @ given.astype(np.float32).T).astype(np.int64)

        fill = year_index(drugs.days) * self._n_drugs + drugs.codes  # a year and a drug
        np.add.at(self.fills_by_year.reshape(-1), fill, 1)
        use = np.sort(drugs.patients * self.users_by_year.size + fill)
        np.add.at(self.users_by_year.reshape(-1), use[first_of_run(use)] % self.users_by_year.size, 1)

    def merge(self, other: "Measures") -> None:
        """Add the counts of other patients, counted apart with the same tables."""
        self.patients += other.patients
        self.last_day = _last(self.last_day, other.last_day)
        self.events.update(other.events)
        self.novel.update(other.novel)
        for system, counts in other.outside.items():
            self.outside[system].update(counts)
        for name, table in self.by_birth_year.items():
            table += other.by_birth_year[name]
        for name in ("with_diagnosis", "with_drug", "with_both", "users_by_year", "fills_by_year"):
            getattr(self, name).__iadd__(getattr(other, name))

    # What the counts say ---------------------------------------------------------------------------------------------

    @property
    def reference_year(self) -> int:
        """The year of the last event; ages are this year minus the year of birth."""
        return year_of(self.last_day)

    @property
    def last_year(self) -> int:
        """The last calendar year that the events cover to within a fortnight of its end."""
        return year_of(None if self.last_day is None else self.last_day + WHOLE_YEAR_BUT) - 1

    @property
    def ages(self) -> np.ndarray:
        """(451,) age in the reference year for each birth year, at least 0."""
        return (self.reference_year - np.array(YEARS)).clip(0)

    def fold(self, by_birth_year: np.ndarray) -> np.ndarray:
        """Return counts (451, ...) by birth year as counts (4, ...) by age band."""
        member = (age_bands(self.ages) == np.arange(len(BAND_STARTS))[:, None]).astype(np.int64)  # (4, 451)
        return np.tensordot(member, by_birth_year, axes=1)

    @property
    def people(self) -> np.ndarray:
        """(4, 2) patients by age band and sex."""
        return self.fold(self.by_birth_year["people"])[:, :UNKNOWN_SEX]

    @property
    def unknown_sex(self) -> int:
        """Patients whose sex is missing or not understood."""
        return int(self.by_birth_year["people"][:, UNKNOWN_SEX].sum())

    @property
    def cases(self) -> np.ndarray:
        """(K, 4, 2) patients who have each diagnosis at least once."""
        return np.moveaxis(self.fold(self.by_birth_year["codes"])[:, :UNKNOWN_SEX], 2, 0)

    @property
    def prevalence(self) -> np.ndarray:
        """(K, 4, 2) share of the patients who have each diagnosis at least once; NaN where there are none."""
        return _share(self.cases, self.people)

    @property
    def pair_tables(self) -> np.ndarray:
        """(M, 8, 2, 2) patients by age band and sex, by whether they have the first and the second of a pair."""
        people, cases = self.people.ravel(), self.cases.reshape(len(self.with_diagnosis), -1)  # (8,), (K, 8)
        both = np.moveaxis(self.fold(self.by_birth_year["pairs"])[:, :UNKNOWN_SEX], 2, 0).reshape(len(self.pairs), -1)
        first, second = cases[self.pairs[:, 0]] - both, cases[self.pairs[:, 1]] - both
        neither = people - both - first - second
        return np.stack([np.stack([neither, second], axis=-1), np.stack([first, both], axis=-1)], axis=-2)

    @property
    def odds_ratios(self) -> np.ndarray:
        """(M,) odds ratio of each pair, pooled over age bands and sexes; NaN where it is undefined."""
        return mantel_haenszel(self.pair_tables)[0]

    @property
    def given(self) -> np.ndarray:
        """(L,) share of the patients with ``link_diagnosis`` who have ``link_drug`` at all; NaN without any."""
        drugs = self.tables.drugs
        return _share(self.with_both[drugs.link_diagnosis, drugs.link_drug], self.with_diagnosis[drugs.link_diagnosis])

    @property
    def users(self) -> np.ndarray:
        """(D,) share of all patients who have each drug at least once."""
        return _share(self.with_drug, np.array(self.patients))

    @property
    def users_last_year(self) -> np.ndarray:
        """(D,) share of all patients with a fill in `last_year`."""
        return _share(self.users_by_year[self.last_year - YEARS.start], np.array(self.patients))


def mantel_haenszel(tables: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pooled odds ratios (M,) of 2 x 2 tables (M, strata, 2, 2) and the standard errors of their logarithms.

    Mantel and Haenszel (1959, J Natl Cancer Inst 22:719); the variance is that of Robins, Breslow and Greenland
    (1986, Biometrics 42:311). The ratio is NaN where no patient has exactly one of the two or the table is empty, the
    error NaN where the ratio or its inverse is 0.
    """
    (a, b), (c, d) = tables[..., 0, :].transpose(2, 0, 1), tables[..., 1, :].transpose(2, 0, 1)  # each (M, strata)
    n = np.maximum(a + b + c + d, 1)
    same, different = a * d / n, b * c / n
    above, below = same.sum(axis=1), different.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(below > 0, above / below, np.nan)
        p, q = (a + d) / n, (b + c) / n
        variance = (
            (p * same).sum(axis=1) / (2 * above**2)
            + (p * different + q * same).sum(axis=1) / (2 * above * below)
            + (q * different).sum(axis=1) / (2 * below**2)
        )
        error = np.where((above > 0) & (below > 0), np.sqrt(variance), np.nan)
    return ratio, error


def birth_year_index(birth_years: np.ndarray) -> np.ndarray:
    """Return the index of each year within `YEARS`, (N,) int64."""
    return (birth_years.astype(np.int64) - YEARS.start).clip(0, len(YEARS) - 1)


def sex_index(sexes: Iterable[str | None]) -> np.ndarray:
    """Return the index of each sex within SEXES, (N,) int64; `UNKNOWN_SEX` when it is none of them.

    >>> sex_index(["MALE", "f", None, "female", "x"]).tolist()
    [0, 1, 2, 1, 2]
    """
    return np.fromiter(map(_sex, sexes), dtype=np.int64)


def year_index(days: np.ndarray) -> np.ndarray:
    """Return the index within `YEARS` of the calendar year of each day, (N,) int64."""
    return _YEAR_OF_DAY[(days - FIRST_DAY).clip(0, len(_YEAR_OF_DAY) - 1)]


def month_index(days: np.ndarray) -> np.ndarray:
    """Return the calendar month of each day, counted from January of the first of `YEARS`, (N,) int64."""
    return _MONTH_OF_DAY[(days - FIRST_DAY).clip(0, len(_MONTH_OF_DAY) - 1)]


def year_of(day: int | None) -> int:
    """Return the calendar year of a day number, within `YEARS`.

    >>> year_of(0), year_of(-1)
    (1970, 1969)
    """
    return int(year_index(np.array([day or 0]))[0]) + YEARS.start


@functools.lru_cache(1000)
def _sex(sex: str | None) -> int:
    return _SPELLINGS.get(sex.strip().upper(), UNKNOWN_SEX) if sex else UNKNOWN_SEX


def _last(*days: int | None) -> int | None:
    return max((day for day in days if day is not None), default=None)


def _has(events: Coded, n: int, n_codes: int) -> np.ndarray:
    """Return a (n_codes, n) bool array: who has which code."""
    has = np.zeros(n_codes * n, dtype=bool)
    has[events.codes * n + events.patients] = True
    return has.reshape(n_codes, n)


def _count_by_cell(counts: np.ndarray, cells: np.ndarray, has: np.ndarray) -> None:
    """Add (C, n) bool to counts (years, sexes, C) of patients by birth year and sex."""
    which, patient = np.nonzero(has)
    np.add.at(counts.reshape(-1), cells[patient] * len(has) + which, 1)


def _share(count: np.ndarray, of: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(of > 0, count / of, np.nan)
