"""Summary of a generated population: counted block by block, for the printed table and the meta file."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from exmed_bert import codes
from exmed_bert.data.patient import NO_DAY, EventColumns
from exmed_bert.data.static_columns import SEX, STATE
from exmed_bert.reference import further, realistic
from exmed_bert.reference.tables import SEXES, load
from exmed_bert.settings import FURTHER_EVENTS, GenerateSettings
from exmed_bert.synthetic.events import first_of_run
from exmed_bert.synthetic.novel import NovelCodes
from exmed_bert.synthetic.population import BLOCK, BOUNDS, Block

FORMAT, VERSION = "exmed-bert-synthetic-patients", 1  # of the meta file
_TOP = 5
_NUMBERS = ("patients", "birth_years", "female", "plos", "guessed", "years", "deaths", "stays", "stay_days")


class Summary:
    """Running totals; memory does not grow with the patients."""

    def __init__(self) -> None:
        self.patients = 0
        self.birth_years = 0
        self.female = 0
        self.plos = 0
        self.states: set[str] = set()
        self.bound = np.zeros(len(BOUNDS), dtype=np.int64)
        self.codes: dict[str, Counter[str]] = {codes.ICD10CM: Counter(), codes.ATC: Counter()}
        self.further: dict[str, Counter[str]] = {}  # codes by system, of further kinds of events
        self.lengths = {name: _Range() for name in ("diagnoses", "prescriptions", "visits")}
        self.guessed = 0.0
        self.years, self.deaths, self.stays, self.stay_days = 0.0, 0, 0, 0.0  # of realistic patients alone

    def add(self, block: Block) -> None:
        """Count a block in."""
        patients = block.patients
        self.patients += len(patients)
        self.birth_years += int(patients.birth_years.sum())
        self.female += patients.static[SEX.name].count(SEXES[1])
        self.plos += int((patients.plos == 1).sum())
        self.states.update(state for state in patients.static[STATE.name] if state is not None)
        if block.observed is None:
            self.bound += block.bound.sum(axis=0)
        else:
            self.years += float(block.observed.years.sum())
            self.deaths += int((patients.period("death_date") != NO_DAY).sum())
            self.stays += len(block.observed.stays)
            self.stay_days += float(block.observed.stays.sum())
        for system, name in ((codes.ICD10CM, "diagnoses"), (codes.ATC, "prescriptions")):
            events = patients.events.of_system(system)
            counts = np.bincount(events.codes, minlength=len(events.table)).tolist()
            self.codes[system].update({key[1]: n for key, n in zip(events.table, counts, strict=True) if n})
            self.guessed += _guessed_from_history(events)
            self.lengths[name].add(events.counts())
        self.lengths["visits"].add(_visits(patients.events))
        others = dict.fromkeys(system for system, _ in patients.events.table if system not in self.codes)
        for system in others:
            events = patients.events.of_system(system)
            counts = np.bincount(events.codes, minlength=len(events.table)).tolist()
            found = {key[1]: n for key, n in zip(events.table, counts, strict=True) if n}
            self.further.setdefault(system, Counter()).update(found)

    def merge(self, other: "Summary") -> None:
        """Count in what ``other`` has counted."""
        for name in _NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.states |= other.states
        self.bound += other.bound
        for system, counts in other.codes.items():
            self.codes[system].update(counts)
        for system, counts in other.further.items():
            self.further.setdefault(system, Counter()).update(counts)
        for name, length in other.lengths.items():
            self.lengths[name].merge(length)

    def events_of(self, kind: str) -> int:
        """Return the number of events of a further kind: labs are measurements."""
        events = {"labs": "measurements"}.get(kind, kind)
        found = (
            counts.total() for system, counts in self.further.items() if codes.code_system(system).events == events
        )
        return sum(found)

    def to_plain(self) -> dict[str, Any]:
        """Return the totals as JSON."""
        own = {name: getattr(self, name) for name in _NUMBERS}
        lengths = {name: vars(length) for name, length in self.lengths.items()}
        return own | {
            "states": sorted(self.states),
            "bound": self.bound.tolist(),
            "codes": self.codes,
            "further": self.further,
            "lengths": lengths,
        }

    @classmethod
    def from_plain(cls, content: Mapping[str, Any]) -> "Summary":
        """Return what `to_plain` was made of."""
        summary = cls()
        for name in _NUMBERS:
            setattr(summary, name, content[name])
        summary.states = set(content["states"])
        summary.bound = np.array(content["bound"], dtype=np.int64)
        summary.codes = {system: Counter(counts) for system, counts in content["codes"].items()}
        summary.further = {system: Counter(counts) for system, counts in content["further"].items()}
        for name, length in content["lengths"].items():
            vars(summary.lengths[name]).update(length)
        return summary

    def novel(self, novel_codes: dict[str, NovelCodes]) -> dict[str, dict[str, Any]]:
        """Return every novel code that occurs: its system, the code that it comes from, its parent and its count."""
        found = {}
        for system, counts in self.codes.items():
            origins, entity = novel_codes[system].origins, codes.code_system(system).entity
            for code in sorted(counts.keys() & origins.keys()):
                parent = codes.parent(code, system)
                found[code] = {"system": entity, "source": origins[code], "parent": parent, "count": counts[code]}
        return found

    def rows(self, last_year: int, names: dict[str, str], novel: dict[str, dict[str, Any]]) -> list[tuple[str, Any]]:
        """Return the rows of the printed table; ``names`` says what a code of the tables means."""
        events = sum(counts.total() for counts in self.codes.values())
        novel_events = sum(entry["count"] for entry in novel.values())
        rows: list[tuple[str, Any]] = [
            ("patients", self.patients),
            ("age, mean", f"{last_year - self.birth_years / self.patients:.1f} years"),
            ("female", f"{self.female / self.patients:.1%}"),
            ("states", len(self.states)),
            ("prolonged length of stay", f"{self.plos / self.patients:.1%}"),
        ]
        rows += [(f"{name} per patient", length.shown(self.patients)) for name, length in self.lengths.items()]
        for kind in FURTHER_EVENTS:
            if events_of := self.events_of(kind):
                rows.append((f"{kind} per patient", f"mean {events_of / self.patients:.1f}"))
        rows.append(("novel codes", f"{len(novel):,} distinct, {novel_events / events:.2%} of {events:,} events"))
        rows.append(("baseline: patient's most frequent code", f"correct for {self.guessed / events:.1%} of events"))
        if self.years:
            rows += [
                ("observed", f"{self.years / self.patients:.1f} years per patient"),
                (
                    "deaths while observed",
                    f"{self.deaths:,}, {1000 * self.deaths / self.years:.1f} in 1,000 person-years",
                ),
                (
                    "stays in hospital",
                    f"{1000 * self.stays / self.years:.0f} in 1,000 person-years, "
                    f"{self.stay_days / max(self.stays, 1):.1f} days on average",
                ),
            ]
        else:
            for name, count in zip(BOUNDS.values(), self.bound.tolist(), strict=True):
                rows.append((name, f"{count / self.patients:.1%} of patients"))
        for title, system in (("most frequent diagnoses", codes.ICD10CM), ("most frequent drugs", codes.ATC)):
            for code, count in self.codes[system].most_common(_TOP):
                share = count / self.codes[system].total()
                rows.append((title, f"{code:8} {share:5.1%}  {names.get(code, 'novel')}"))
                title = ""
        return rows


def population(settings: GenerateSettings) -> dict[str, Any]:
    """Return what decides the patients, as the meta file holds it."""
    options = settings.model_dump(mode="json", include={"num_patients", "novel_prob", "novel_kind", "end_date"})
    if settings.realistic:
        options["realistic"] = True
    if settings.further_events:
        options |= {"events": settings.events, "further_tables": further.digest()}
    return {
        "format": FORMAT,
        "version": VERSION,
        "seed": settings.seed,
        "options": options,
        "tables": load().digest,
        "block": BLOCK,
    }


def meta(settings: GenerateSettings, summary: Summary, novel: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the content of the meta file: seed and options, every code's count, every novel code."""
    return {
        **population(settings),
        "counts": {
            "patients": summary.patients,
            "diagnoses": summary.codes[codes.ICD10CM].total(),
            "prescriptions": summary.codes[codes.ATC].total(),
            **{kind: summary.events_of(kind) for kind in settings.further_events},
            "codes": {
                codes.code_system(system).entity: dict(sorted(counts.items()))
                for system, counts in {**summary.codes, **dict(sorted(summary.further.items()))}.items()
            },
        },
        **(_observation(summary) if settings.realistic else {"bounds": _bounds(summary)}),
        "novel_codes": novel,
    }


def _bounds(summary: Summary) -> dict[str, int]:
    return dict(zip(BOUNDS, summary.bound.tolist(), strict=True))


def _observation(summary: Summary) -> dict[str, Any]:
    """Return what the meta file says of realistic patients, and the digest of the figures that they follow."""
    figures = realistic.load(load())
    observed = {
        "person_years": round(summary.years, 1),
        "deaths": summary.deaths,
        "stays": summary.stays,
        "days_of_stays": round(summary.stay_days, 1),
    }
    return {"realistic": {"figures": figures.digest, **observed}}


class _Range:
    """Sum, minimum and maximum of a number per patient."""

    def __init__(self) -> None:
        self.total, self.least, self.most = 0, int(np.iinfo(np.int64).max), 0

    def add(self, values: np.ndarray) -> None:
        self.total += int(values.sum())
        self.least, self.most = min(self.least, int(values.min())), max(self.most, int(values.max()))

    def merge(self, other: "_Range") -> None:
        self.total += other.total
        self.least, self.most = min(self.least, other.least), max(self.most, other.most)

    def shown(self, n: int) -> str:
        return f"mean {self.total / n:.1f}, {self.least} to {self.most}"


def _visits(events: EventColumns) -> np.ndarray:
    """Return the number of distinct days with events of each patient, (N,) int64."""
    days = events.days.astype(np.int64)
    visit = np.sort(events.patients() << 32 | days - days.min())
    return np.bincount(visit[first_of_run(visit)] >> 32, minlength=len(events.offsets) - 1)


def _guessed_from_history(events: EventColumns) -> float:
    """Return how many events a baseline predicts correctly: the most frequent code of the patient's other events.

    Ties are broken at random, so this is the expected number.
    """
    n = len(events.offsets) - 1
    counts = np.zeros((n, len(events.table) + 1), dtype=np.int64)  # the last column stays empty: a second always exists
    np.add.at(counts, (np.repeat(np.arange(n), events.counts()), events.codes), 1)
    # Only the single most frequent code is ever predicted correctly: without the event itself any other is rarer.
    second, first = np.sort(counts, axis=1)[:, -2:].T
    tied = (first - 1 == second) & (second > 0)
    ties = (counts == second[:, None]).sum(axis=1)
    return float(first[first - 1 > second].sum() + (first / (1 + ties))[tied].sum())
