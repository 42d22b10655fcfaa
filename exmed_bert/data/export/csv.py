"""Patients as two tables, people.csv and events.csv, with the names of columns that are read without an option.

people.csv    patient_id, birth_date, sex, state, had_plos, observation_start, observation_end, death_date, and
              further static columns; of a birth whose day is not known the year
events.csv    patient_id, date, system, code, value, flag
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.compute

from exmed_bert.data.export.base import ExportCounts
from exmed_bert.data.export.provenance import BESIDE, check_export_folder, write_provenance
from exmed_bert.data.export.table_file import dates, further_static, picked, results_of, table_files, texts
from exmed_bert.data.origin import Origin
from exmed_bert.data.patient import BIRTH_DATE, NO_DAY, PERIOD_FIELDS, PatientColumns
from exmed_bert.data.static_columns import SEX, STATE

check_replaceable = check_export_folder


def write(folder: Path, name: str, chunks: Iterable[PatientColumns], origin: Origin) -> ExportCounts:
    """Write patients as tables; see `base.Exporter`."""
    codes: set[tuple[str, str]] = set()
    patients_written = 0
    with table_files(folder, "people", "events") as (people, events_file):
        for patients in chunks:
            ids = pyarrow.array(map(str, patients.patient_ids), pyarrow.string())
            people.add(
                {
                    "patient_id": ids,
                    "birth_date": _births(patients),
                    "sex": texts(patients.static[SEX.name]),
                    "state": texts(patients.static[STATE.name]),
                    "had_plos": pyarrow.array(patients.plos == 1, mask=patients.plos < 0),
                    **{field: dates(patients.period(field)) for field in PERIOD_FIELDS},
                    **{column: texts(values) for column, values in further_static(patients).items()},
                }
            )
            events = patients.events
            used = np.flatnonzero(np.bincount(events.codes, minlength=len(events.table)))
            codes.update(events.table[i] for i in used.tolist())
            values, flags = results_of(events)
            events_file.add(
                {
                    "patient_id": ids.take(pyarrow.array(events.patients())),
                    "date": dates(events.days),
                    "system": picked([system for system, _ in events.table], events.codes, pyarrow.string()),
                    "code": picked([code for _, code in events.table], events.codes, pyarrow.string()),
                    "value": values,
                    "flag": flags,
                }
            )
            patients_written += len(patients)
    write_provenance(folder, origin, BESIDE)
    return ExportCounts(patients_written, events_file.rows, people.rows + events_file.rows, len(codes), 2)


def _births(patients: PatientColumns) -> pyarrow.Array:
    """Return the day of birth of each patient as text, or the year alone."""
    days = patients.period(BIRTH_DATE)
    years = pyarrow.array(patients.birth_years).cast(pyarrow.string())
    return pyarrow.compute.if_else(pyarrow.array(days != NO_DAY), dates(days).cast(pyarrow.string()), years)
