"""Patients from the CSV files of Synthea (https://github.com/synthetichealth/synthea), of all its versions so far.

Conditions are SNOMED CT where no column ``SYSTEM`` says otherwise, medications RxNorm, observations LOINC.
"""

from typing import TYPE_CHECKING

from exmed_bert.console import InputError
from exmed_bert.data.database import name, quoted
from exmed_bert.data.readers.base import VISITS, Reading
from exmed_bert.data.readers.source import Source
from exmed_bert.data.readers.table import Table
from exmed_bert.data.readers.tables import Events, TableReader, Tables
from exmed_bert.data.static_columns import SEX
from exmed_bert.settings import ReadingSettings

if TYPE_CHECKING:
    import duckdb

_EVENTS = {"conditions": "snomedct", "medications": "rxnorm"}  # the code system of each table
# Columns that only Synthea has in tables of these names.
_KNOWN_BY = {"patients": {"id", "birthdate"}, "conditions": {"start", "patient", "code"}, "encounters": {"patient"}}
_INPATIENT = "inpatient"
_OBSERVATIONS = "observations"


class SyntheaReader(TableReader):
    """Reads Synthea's CSV."""

    name = "synthea"
    title = "Synthea"
    used = ("patients", "encounters", *_EVENTS)

    def recognizes(self, source: Source, settings: ReadingSettings) -> str | None:
        """Tell by the columns of patients, conditions and encounters."""
        known = all(source.columns(table) >= columns for table, columns in _KNOWN_BY.items())
        return f"columns of {', '.join(_KNOWN_BY)}" if known else None

    def tables(self, db: "duckdb.DuckDBPyConnection", reading: Reading) -> Tables:
        """Take each table as it is: all of them name the patient."""
        source, summary = reading.source, reading.summary
        patients = self.table(db, source, "patients", "id", "birthdate")
        static = [column.name for column in reading.static_columns if column != SEX and patients.has(column.name)]
        values = [f"{patients.text('gender')} AS sex", *(f"{patients.text(of)} AS {name(of)}" for of in static)]
        people = (
            f"SELECT {patients.raw('id')} AS patient_id, year({patients.time('birthdate')}) AS birth_year, "
            f"{patients.day('birthdate')} AS birth_date, "
            f"{', '.join(values)}, {patients.day('deathdate')} AS death_date FROM {patients.sql}"
        )
        events = []
        for table, system in _EVENTS.items():
            if table in source.tables:
                found = self.table(db, source, table, "start", "patient", "code")
                events.append(Events(found.label, _coded(found, system)))
            else:
                summary.notes.append(f"There is no table {table}: none of them are read.")
        if reading.wants(VISITS) and source.columns("encounters") >= {"start", "encounterclass"}:
            found = self.table(db, source, "encounters", "patient")
            sql = f"SELECT {found.raw('patient')} AS patient_id, {found.day('start')} AS day, 'visit' AS system"
            sql += f", {found.text('encounterclass')} AS code FROM {found.sql}"
            events.insert(0, Events(f"{found.label}, types", sql))
        if reading.wants("measurements") and _OBSERVATIONS in source.tables:
            found = self.table(db, source, _OBSERVATIONS, "date", "patient", "code", "value")
            events.append(Events(found.label, _observed(found)))
        if not events:
            raise InputError(f"{source}: holds neither of the tables {' and '.join(_EVENTS)}")
        return Tables(people, events, self._stays(db, reading))

    def _stays(self, db: "duckdb.DuckDBPyConnection", reading: Reading) -> str | None:
        """Return SQL of the inpatient encounters, None where there are none to tell."""
        if "encounters" not in reading.source.tables:
            reading.summary.notes.append("There is no table encounters: whether a stay was prolonged is not known.")
            return None
        encounters = self.table(db, reading.source, "encounters", "patient")
        if not encounters.has("start", "stop", "encounterclass"):  # early versions
            reading.summary.notes.append(
                "encounters has no START, STOP and ENCOUNTERCLASS: whether a stay was prolonged is not known."
            )
            return None
        return (
            f"SELECT {encounters.raw('patient')} AS patient_id, {encounters.time('start')} AS started, "
            f"{encounters.time('stop')} AS ended, {encounters.timed('start')} AND {encounters.timed('stop')} AS timed "
            f"FROM {encounters.sql} WHERE lower({encounters.text('encounterclass')}) = {quoted(_INPATIENT)}"
        )


def _coded(table: Table, system: str) -> str:
    """Return SQL of a table's events; ``system`` is theirs where the table does not say it."""
    said = table.text("system") if table.has("system") else quoted(system)
    return (
        f"SELECT {table.raw('patient')} AS patient_id, {table.day('start')} AS day, {said} AS system, "
        f"{table.text('code')} AS code FROM {table.sql}"
    )


def _observed(table: Table) -> str:
    """Return SQL of the observations; some codes are Synthea's own, such as QALY."""
    return (
        f"SELECT {table.raw('patient')} AS patient_id, {table.day('date')} AS day, {table.text('code')} AS code, "
        f"CASE WHEN regexp_full_match({table.text('code')}, '[0-9]+-[0-9]') THEN 'loinc' END AS system, "
        f"{table.number('value')} AS value FROM {table.sql}"
    )
