"""Reading files with one reader, as plain values to compare, and the patients that the examples are made of."""

import csv
import runpy
from collections import Counter
from collections.abc import Sequence
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from exmed_bert.data.patient import EPOCH, NO_DAY
from exmed_bert.data.readers import reader_of
from exmed_bert.data.readers.base import Reading
from exmed_bert.data.readers.source import Source
from exmed_bert.data.readers.summary import ReadingSummary
from exmed_bert.data.static_columns import BUILT_IN, StaticColumn
from exmed_bert.data.translation import Translator
from exmed_bert.settings import ReadingSettings

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def read(
    *paths: Path,
    size: int = 10_000,
    static_columns: Sequence[StaticColumn] = BUILT_IN,
    translate: bool = False,
    **settings: Any,
) -> tuple[dict[Any, dict[str, Any]], ReadingSummary]:
    """Return by id birth year, static columns, had_plos, the days that are known and events; and what was counted."""
    source, given, summary = Source.at(paths), ReadingSettings(**settings), ReadingSummary()
    reader, _ = reader_of(source, given)
    translator = Translator(given) if translate else None
    found: dict[Any, dict[str, Any]] = {}
    for patients in reader.chunks(Reading(source, given, static_columns, summary), size):
        events = (translator.apply(patients) if translator else patients).events
        for i, patient_id in enumerate(patients.patient_ids):
            rows = range(int(events.offsets[i]), int(events.offsets[i + 1]))
            found[patient_id] = {
                "birth_year": int(patients.birth_years[i]),
                **{column.name: patients.static[column.name][i] for column in static_columns},
                "had_plos": {-1: None, 0: False, 1: True}[int(patients.plos[i])],
                **{period: day_of(days[i]) for period, days in patients.periods.items() if days[i] != NO_DAY},
                "events": [(day_of(events.days[at]), *events.table[events.codes[at]]) for at in rows],
            }
    return found, summary


def write_tables(folder: Path, **tables: Sequence[Sequence[Any]]) -> Path:
    """Write tables of rows, the header first; return the folder."""
    folder.mkdir(exist_ok=True, parents=True)
    for name, rows in tables.items():
        with open(folder / f"{name}.csv", "w", newline="") as file:
            csv.writer(file).writerows(rows)
    return folder


@cache
def example_events() -> list[list[tuple[str, str, str]]]:
    """Return day, system and code of the events of each patient of the examples, sorted."""
    make = runpy.run_path(str(EXAMPLES / "make_examples.py"))
    return [
        sorted(
            [(iso(day), "icd10cm", code) for code, day in zip(of["diagnoses"], of["diagnosis_dates"], strict=True)]
            + [(iso(day), "atc", code) for code, day in zip(of["drugs"], of["prescription_dates"], strict=True)]
        )
        for of in make["records"]()
    ]


def iso(day: str, years: int = 0) -> str:
    """Return YYYYMMDD or YYYY-MM-DD as YYYY-MM-DD, some years later."""
    found = date.fromisoformat(day)
    return found.replace(year=found.year + years).isoformat()


def day_of(day: int | np.integer) -> str:
    """Return a day as YYYY-MM-DD."""
    return (EPOCH + timedelta(int(day))).isoformat()


def systems_of(patients: dict[Any, dict[str, Any]]) -> Counter[str]:
    """Return the number of events by code system."""
    return Counter(system for patient in patients.values() for _, system, _ in patient["events"])
