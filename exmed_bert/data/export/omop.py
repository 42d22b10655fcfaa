"""Patients as tables of the OMOP Common Data Model 5.4, with the concepts that they use.

    PERSON, LOCATION          who they are; the id as written in person_source_value
    OBSERVATION_PERIOD, DEATH where these are known
    VISIT_OCCURRENCE          the stay that stands for what is known of prolonged ones (`table_file.stays`)
    CONDITION_OCCURRENCE, DRUG_EXPOSURE, PROCEDURE_OCCURRENCE, MEASUREMENT    their events, by what these are called
                              (`WRITTEN_INTO`); measurements with value and, in value_source_value, its flag
    CONCEPT                   a source concept for each code, numbered above two billion, which OMOP leaves to each site

The source concept of an event says its code; it is not mapped to a standard concept, which takes OHDSI's vocabularies.
An id that is no number of 64 bits has one by its hash. Static columns beside sex and state are columns of PERSON.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow

from exmed_bert.codes import CodeKey, code_system
from exmed_bert.data.export.base import ExportCounts
from exmed_bert.data.export.meds import subject_ids
from exmed_bert.data.export.provenance import BESIDE, check_export_folder, write_provenance
from exmed_bert.data.export.table_file import (
    TableFile,
    dates,
    further_static,
    results_of,
    stays,
    table_files,
    texts,
)
from exmed_bert.data.origin import Origin
from exmed_bert.data.patient import BIRTH_DATE, NO_DAY, EventColumns, PatientColumns
from exmed_bert.data.readers.omop_events import COLUMNS, CONDITIONS, DRUGS, WRITTEN_INTO
from exmed_bert.data.static_columns import SEX, STATE

check_replaceable = check_export_folder

_LOCAL = 2_000_000_001  # the first concept
_APART = 10_000_000  # between those of two tables
_FROM_RECORDS, _INPATIENT = 32817, 9201  # concepts: data of health records, inpatient visits
_SEXES = {"MALE": 8507, "FEMALE": 8532}
_CONDITION = "Condition"  # the domain of what is of no other
_DOMAINS = {DRUGS: "Drug", "procedure_occurrence": "Procedure", "measurement": "Measurement"}
_EVENTS = (CONDITIONS, *filter(None, WRITTEN_INTO.values()))
_TABLES = ("person", "observation_period", "death", "visit_occurrence", *_EVENTS, "location", "concept")


def write(folder: Path, name: str, chunks: Iterable[PatientColumns], origin: Origin) -> ExportCounts:
    """Write patients as OMOP; see `base.Exporter`."""
    patients = 0
    concepts: dict[str, dict[CodeKey, int]] = {of_table: {} for of_table in _EVENTS}
    locations: dict[str, int] = {}
    with table_files(folder, *map(str.upper, _TABLES)) as files:
        table = dict(zip(_TABLES, files, strict=True))
        for chunk in chunks:
            persons, _ = subject_ids(chunk.patient_ids)
            _write_people(table, chunk, persons, locations)
            for of_table, found in concepts.items():
                _write_events(table[of_table], chunk.events, persons, found)
            patients += len(chunk)
        table["location"].add({"location_id": list(locations.values()), "state": texts(list(locations))})
        listed = {key: number for found in concepts.values() for key, number in found.items()}
        table["concept"].add(_concepts(listed))
        events, rows = sum(table[name].rows for name in _EVENTS), sum(file.rows for file in files)
    write_provenance(folder, origin, BESIDE)
    return ExportCounts(patients, events, rows, len(listed), len(files))


def _write_people(
    table: dict[str, TableFile], patients: PatientColumns, persons: np.ndarray, locations: dict[str, int]
) -> None:
    """Write who the patients are, when they were observed, their deaths and stays."""
    states = [state if state and state.strip() else None for state in patients.static[STATE.name]]
    sexes = [SEX.value(token) for token in SEX.ids(patients.static[SEX.name]).tolist()]
    born = patients.period(BIRTH_DATE)
    known = born != NO_DAY
    parts = np.where(known, born, 0).astype("datetime64[D]")
    months = parts.astype("datetime64[M]")
    table["person"].add(
        {
            "person_id": persons,
            "gender_concept_id": [_SEXES.get(str(sex), 0) for sex in sexes],
            "year_of_birth": patients.birth_years,
            "month_of_birth": pyarrow.array(months.astype(np.int64) % 12 + 1, mask=~known),
            "day_of_birth": pyarrow.array((parts - months).astype(np.int64) + 1, mask=~known),
            "race_concept_id": np.zeros(len(patients), dtype=np.int64),
            "ethnicity_concept_id": np.zeros(len(patients), dtype=np.int64),
            "location_id": pyarrow.array(
                [None if state is None else locations.setdefault(state, len(locations) + 1) for state in states],
                pyarrow.int64(),
            ),
            "person_source_value": texts([str(patient_id) for patient_id in patients.patient_ids]),
            "gender_source_value": texts(patients.static[SEX.name]),
            **{column: texts(values) for column, values in further_static(patients).items()},
        }
    )
    start, end, died = (patients.period(name) for name in ("observation_start", "observation_end", "death_date"))
    observed = np.flatnonzero((start != NO_DAY) | (end != NO_DAY))
    table["observation_period"].add(
        {
            "observation_period_id": table["observation_period"].rows + np.arange(1, len(observed) + 1),
            "person_id": persons[observed],
            "observation_period_start_date": dates(start[observed]),
            "observation_period_end_date": dates(end[observed]),
            "period_type_concept_id": np.full(len(observed), _FROM_RECORDS),
        }
    )
    dead = np.flatnonzero(died != NO_DAY)
    table["death"].add(
        {
            "person_id": persons[dead],
            "death_date": dates(died[dead]),
            "death_type_concept_id": np.full(len(dead), _FROM_RECORDS),
        }
    )
    who, first, last = stays(patients)
    table["visit_occurrence"].add(
        {
            "visit_occurrence_id": table["visit_occurrence"].rows + np.arange(1, len(who) + 1),
            "person_id": persons[who],
            "visit_concept_id": np.full(len(who), _INPATIENT),
            "visit_start_date": dates(first),
            "visit_end_date": dates(last),
            "visit_type_concept_id": np.full(len(who), _FROM_RECORDS),
        }
    )


def _write_events(file: TableFile, every: EventColumns, persons: np.ndarray, concepts: dict[CodeKey, int]) -> None:
    """Write those events that belong into a table; ``concepts``, those of the table, takes the numbers of new codes."""
    name = file.name.lower()
    date, prefix = COLUMNS[name]
    events, start = _of_table(every, name), _LOCAL + _APART * _EVENTS.index(name)
    used, first = np.unique(events.codes, return_index=True)
    for code in used[np.argsort(first)].tolist():  # in the order of the events, however they are cut into chunks
        concepts.setdefault(events.table[code], start + len(concepts))
    of_table = np.array([concepts.get(key, 0) for key in events.table], dtype=np.int64)
    n = len(events.codes)
    codes = pyarrow.array([code for _, code in events.table], pyarrow.string())
    columns: dict[str, Any] = {
        f"{name}_id": file.rows + np.arange(1, n + 1),
        "person_id": persons[events.patients()],
        f"{prefix}_concept_id": np.zeros(n, dtype=np.int64),
        f"{date}_date": dates(events.days),
        f"{prefix}_type_concept_id": np.full(n, _FROM_RECORDS),
        f"{prefix}_source_value": codes.take(pyarrow.array(events.codes)),
        f"{prefix}_source_concept_id": of_table[events.codes] if len(of_table) else np.zeros(0, dtype=np.int64),
    }
    if prefix == "drug":
        columns["drug_exposure_end_date"] = dates(events.days)
    if prefix == "measurement":
        columns["value_as_number"], columns["value_source_value"] = results_of(events)
    file.add(columns)


def _of_table(events: EventColumns, table: str) -> EventColumns:
    """Return the events that belong into a table."""
    chosen = np.array([_table_of(system) == table for system, _ in events.table], dtype=bool)
    return events.where(chosen[events.codes] if len(chosen) else np.zeros(0, dtype=bool))


def _table_of(system: str) -> str:
    return WRITTEN_INTO.get(code_system(system).events, CONDITIONS)


def _concepts(concepts: dict[CodeKey, int]) -> dict[str, Any]:
    """Return the table of concepts."""
    systems = [code_system(system) for system, _ in concepts]
    n = len(concepts)
    return {
        "concept_id": pyarrow.array(list(concepts.values()), pyarrow.int64()),
        "concept_name": texts(
            [system.description(code) or code for system, (_, code) in zip(systems, concepts, strict=True)]
        ),
        "domain_id": texts([_DOMAINS.get(_table_of(system.name), _CONDITION) for system in systems]),
        "vocabulary_id": texts([system.vocabulary for system in systems]),
        "concept_class_id": texts(["Code"] * n),
        "standard_concept": texts([None] * n),
        "concept_code": pyarrow.array([code for _, code in concepts], pyarrow.string()),
        "valid_start_date": texts(["19700101"] * n),
        "valid_end_date": texts(["20991231"] * n),
        "invalid_reason": texts([None] * n),
    }
