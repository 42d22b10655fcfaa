"""The part of `fidelity` that counts the patients of a file."""

from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import numpy as np
from fidelity_therapies import Therapies

from exmed_bert.data.patient import NO_DAY, PatientColumns
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.reference import realistic as figures_of
from exmed_bert.reference.tables import OLDEST, Tables, load
from exmed_bert.synthetic.people import YEAR, Window, age_bands
from exmed_bert.synthetic.report.findings import Findings
from exmed_bert.synthetic.report.histories import Histories
from exmed_bert.synthetic.report.measures import Measures, sex_index

NEVER = np.iinfo(np.int32).max


@dataclass
class Cohort:
    """What is counted of a file: P patients as arrays, and the counts of the report of those observed throughout."""

    window: Window
    tables: Tables
    throughout: Findings
    everyone: Findings
    rare_only: bool = False
    therapies: Therapies = field(default_factory=Therapies)
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
        n, (diagnoses, drugs) = len(patients), self.everyone.measures.code(patients)
        known = diagnoses.known
        first = np.full((n, len(self.tables.diagnoses.codes)), NEVER, dtype=np.int32)
        np.minimum.at(first, (known.patients, known.codes), known.days)
        added = {
            "start": start,
            "end": end,
            "death": death,
            "born": born,
            "sex": sex_index(patients.static["sex"]),
            "first": first,
        }
        if not self.rare_only:
            self.everyone.measures.add_coded(patients, diagnoses, drugs)
            self.everyone.histories.add(patients, diagnoses, drugs)
            self.therapies.add(drugs.known, self.tables.drugs, start, end)
            visit = np.unique(diagnoses.patients << 24 | diagnoses.days.astype(np.int64))
            before = sum(map(len, self.parts.get("start", [])))
            added |= {"visitors": (visit >> 24) + before, "visit_days": visit & (1 << 24) - 1}
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


def read(path: Path, end_date: date, rare_only: bool = False) -> Cohort:
    """Count the patients of a file, or of a large one five-year shares and what follows an onset alone."""
    tables, source = load(), PatientInput((path,))
    novel = {code: entry["source"] for code, entry in source.origin.meta["novel_codes"].items()}
    throughout, everyone = (Findings(str(path), Measures(tables, novel), Histories(tables), {}) for _ in range(2))
    cohort = Cohort(Window.until(end_date), tables, throughout, everyone, rare_only)
    for patients in source.chunks():
        cohort.add(patients)
    return cohort
