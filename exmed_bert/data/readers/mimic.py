"""Patients from MIMIC-IV and MIMIC-III (https://mimic.mit.edu), from the tables as PhysioNet offers them.

The columns tell the version: MIMIC-IV says ``icd_version`` and ``anchor_year``, MIMIC-III ``icd9_code`` and ``dob``.
"""

from typing import TYPE_CHECKING

from exmed_bert.console import InputError
from exmed_bert.data.database import name, quoted
from exmed_bert.data.readers.base import VISITS, Reading
from exmed_bert.data.readers.source import Source
from exmed_bert.data.readers.table import Table
from exmed_bert.data.readers.tables import Events, TableReader, Tables
from exmed_bert.data.static_columns import SEX
from exmed_bert.reporting.small_cells import DEFAULT_LIMIT, MinCell
from exmed_bert.settings import ReadingSettings

if TYPE_CHECKING:
    import duckdb

_DIAGNOSES, _DRUGS = "diagnoses_icd", "prescriptions"
_VERSIONS = {"IV": ("anchor_age", "anchor_year"), "III": ("dob",)}  # columns of patients
_PROCEDURES, _LABS, _ITEMS = "procedures_icd", "labevents", "d_labitems"  # read where they are wanted
_OBSERVATION = ("AMBULATORY OBSERVATION", "DIRECT OBSERVATION", "EU OBSERVATION")  # stays without an admission
_MASKED = 89  # years; the ages above it are hidden
_AGE_SHOWN = 91  # MIMIC-IV's for a hidden age, MIMIC-III's median of them
_OLDEST = 120  # years; MIMIC-III moves the births of hidden ages to 300 years before the first admission
_NDC = 11  # digits
NO_ADMISSION, NO_VERSION = "of no admission", "of an icd_version other than 9 and 10"


class MimicReader(TableReader):
    """Reads MIMIC."""

    name = "mimic"
    title = "MIMIC"
    used = ("patients", "admissions", _DIAGNOSES, _DRUGS)

    def recognizes(self, source: Source, settings: ReadingSettings) -> str | None:
        """Tell by the columns of patients and admissions."""
        version = _version(source.columns("patients"))
        if version is None or not source.columns("admissions") >= {"subject_id", "hadm_id"}:
            return None
        return f"version {version}: patients with {', '.join(_VERSIONS[version])}"

    def tables(self, db: "duckdb.DuckDBPyConnection", reading: Reading) -> Tables:
        """Join admissions to patients and diagnoses."""
        source = reading.source
        patients = self.table(db, source, "patients", "subject_id")
        if _version(patients.columns) is None:
            raise InputError(
                f"{source.tables['patients'][0]}: has neither anchor_age and anchor_year, as MIMIC-IV, "
                "nor dob, as MIMIC-III"
            )
        admissions = self.table(db, source, "admissions", "subject_id", "hadm_id", "admittime", "dischtime")
        static = [column.name for column in reading.static_columns if column != SEX]
        of_patient = [column for column in static if patients.has(column)]
        of_admission = [column for column in static if admissions.has(column) and column not in of_patient]
        _add_admissions(db, admissions, of_admission)

        born = f"coalesce({patients.year('anchor_year')} - {patients.year('anchor_age')}, year({patients.time('dob')}))"
        values = [f"{patients.text('gender')} AS sex"]
        values += [f"{patients.text(column)} AS {name(column)}" for column in of_patient]
        values += [f"f.{name(column)}" for column in of_admission]
        people = (
            f"SELECT {patients.raw('subject_id')} AS patient_id, {_birth_year(born)} AS birth_year, "
            f"{', '.join(values)}, "
            f"coalesce({patients.day('dod', 'dod_hosp', 'dod_ssn')}, f.died) AS death_date "
            f"FROM {patients.sql} p LEFT JOIN first_admissions f ON f.subject = {_id(patients, 'subject_id')}"
        )
        hidden = db.sql(
            f"SELECT count(*) FROM {patients.sql} p LEFT JOIN first_admissions f "
            f"ON f.subject = {_id(patients, 'subject_id')} "
            f"WHERE {patients.year('anchor_age')} > {_MASKED} OR f.year - ({born}) > {_OLDEST}"
        ).fetchall()[0][0]
        if hidden:
            least = reading.settings.min_cell
            shown = MinCell(DEFAULT_LIMIT if least is None else least).show(hidden)
            reading.summary.notes.append(
                f"Patients older than {_MASKED}, whose ages MIMIC hides: {shown}, read as {_AGE_SHOWN} years old."
            )
        stays = (
            "SELECT subject AS patient_id, admitted AS started, discharged AS ended, timed FROM admissions "
            f"WHERE kind IS NULL OR kind NOT IN ({', '.join(map(quoted, _OBSERVATION))})"
        )
        return Tables(people, self._events(db, reading), stays)

    def _events(self, db: "duckdb.DuckDBPyConnection", reading: Reading) -> list[Events]:
        events = []
        for table, what, of_table in ((_DIAGNOSES, "diagnoses", _diagnoses), (_DRUGS, "drugs", _prescriptions)):
            if table not in reading.source.tables:
                reading.summary.notes.append(f"There is no table {table}: no {what} are read.")
                continue
            found = self.table(db, reading.source, table, "subject_id")
            events.append(Events(found.label, of_table(found, reading.source)))
        if reading.wants(VISITS):
            kind = f"CASE WHEN kind IN ({', '.join(map(quoted, _OBSERVATION))}) THEN 'OBSENC' ELSE 'IMP' END"
            sql = f"SELECT subject AS patient_id, day_of_date(admitted::DATE) AS day, 'visit' AS system, {kind} AS code"
            events.insert(0, Events("admissions, types", f"{sql} FROM admissions"))
        if reading.wants("procedures") and _PROCEDURES in reading.source.tables:
            found = self.table(db, reading.source, _PROCEDURES, "subject_id")
            if found.has("icd_code", "icd_version", "chartdate"):
                events.append(Events(found.label, _performed(found)))
        if reading.wants("measurements") and _LABS in reading.source.tables:
            found = self.table(db, reading.source, _LABS, "subject_id", "itemid", "charttime", "valuenum")
            items = self.table(db, reading.source, _ITEMS, "itemid")
            if items.has("loinc_code"):
                events.append(Events(found.label, _measured(found, items)))
            else:
                reading.summary.notes.append(
                    f"{items.label} has no column loinc_code, as that of MIMIC-III has: {found.label} is not read; add "
                    "the column from the map of the MIMIC code repository."
                )
        if not events:
            raise InputError(f"{reading.source}: holds neither of the tables {_DIAGNOSES} and {_DRUGS}")
        return events


def _version(columns: frozenset[str] | dict[str, str]) -> str | None:
    """Return the version of MIMIC whose patients have such columns."""
    if "subject_id" not in columns:
        return None
    return next((version for version, has in _VERSIONS.items() if all(column in columns for column in has)), None)


def _id(table: Table, column: str) -> str:
    """Return an id for joins: 7.0, what is left of 7 in a column with gaps, is 7."""
    text = table.text(column)
    return f"CASE WHEN suffix({text}, '.0') THEN left({text}, -2) ELSE {text} END"


def _add_admissions(db: "duckdb.DuckDBPyConnection", table: Table, static: list[str]) -> None:
    """Make the tables ``admissions``, and ``first_admissions`` with what is known of each patient first.

    An admission without a time of discharge ends with the patient's death, if there is one.
    """
    values = "".join(f", {table.text(column)} AS {name(column)}" for column in static)
    db.execute(
        f"CREATE TABLE admissions AS SELECT {_id(table, 'subject_id')} AS subject, {_id(table, 'hadm_id')} AS hadm, "
        f"{table.time('admittime')} AS admitted, {table.time('deathtime')} AS died, "
        f"coalesce({table.time('dischtime')}, {table.time('deathtime')}) AS discharged, "
        f"{table.timed('admittime')} AND {table.timed('dischtime')} AS timed, "
        f"upper({table.text('admission_type')}) AS kind{values} FROM {table.sql}"
    )
    # The value breaks ties, so that the same tables always give the same.
    first = "".join(
        f", min_by({column}, {{'at': admitted, 'value': {column}}}) AS {column}" for column in map(name, static)
    )
    db.execute(
        "CREATE TABLE first_admissions AS SELECT subject, year(min(admitted)) AS year, "
        f"day_of_date(max(died)::DATE) AS died{first} FROM admissions WHERE subject IS NOT NULL GROUP BY subject"
    )


def _birth_year(born: str) -> str:
    """Return the year of birth as one of a hidden age, where the one given is 300 years before the first admission."""
    return f"CASE WHEN f.year - ({born}) > {_OLDEST} THEN f.year - {_AGE_SHOWN} ELSE {born} END"


def _diagnoses(table: Table, source: Source) -> str:
    """Return SQL of the diagnoses of admissions, which are known, and dated, at discharge.

    Raises:
        InputError: the table has neither the columns of MIMIC-IV nor that of MIMIC-III.
    """
    if table.has("icd_code", "icd_version"):
        code, version = table.text("icd_code"), table.year("icd_version")
        system = f"CASE {version} WHEN 9 THEN 'icd9cm' WHEN 10 THEN 'icd10cm' END"
    elif table.has("icd9_code"):
        code, system = table.text("icd9_code"), "'icd9cm'"
    else:
        raise InputError(
            f"{source.tables[_DIAGNOSES][0]}: has neither icd_code and icd_version, as MIMIC-IV, "
            "nor icd9_code, as MIMIC-III"
        )
    return (
        f"SELECT d.{name('subject')} AS patient_id, a.day, d.system, d.code, CASE "
        f"WHEN a.hadm IS NULL THEN {quoted(NO_ADMISSION)} "
        f"WHEN d.code IS NOT NULL AND d.system IS NULL THEN {quoted(NO_VERSION)} END AS reason "
        f"FROM (SELECT {table.raw('subject_id')} AS subject, {_id(table, 'hadm_id')} AS hadm, {system} AS system, "
        f"{code} AS code FROM {table.sql}) d LEFT JOIN "
        "(SELECT hadm, day_of_date(max(discharged)::DATE) AS day FROM admissions GROUP BY hadm) a ON a.hadm = d.hadm"
    )


def _prescriptions(table: Table, source: Source) -> str:
    """Return SQL of the drugs by the day on which they start; NDC have 11 digits, of which leading zeros may be lost.

    NDC 0 stands for a drug without one.
    """
    digits = f"regexp_extract(ndc, '^([0-9]{{1,{_NDC}}})([.]0)?$', 1)"
    return (
        f"SELECT subject AS patient_id, day, 'ndc' AS system, CASE WHEN ltrim(ndc, '0.') = '' THEN NULL "
        f"WHEN length(ndc) = {_NDC} OR {digits} = '' THEN ndc ELSE lpad({digits}, {_NDC}, '0') END AS code "
        f"FROM (SELECT {table.raw('subject_id')} AS subject, {table.day('starttime', 'startdate')} AS day, "
        f"{table.text('ndc')} AS ndc FROM {table.sql})"
    )


def _performed(table: Table) -> str:
    """Return SQL of the procedures that are coded by ICD-10-PCS; those of ICD-9 have no system here."""
    return (
        f"SELECT {table.raw('subject_id')} AS patient_id, {table.day('chartdate')} AS day, "
        f"CASE {table.year('icd_version')} WHEN 10 THEN 'icd10pcs' END AS system, {table.text('icd_code')} AS code "
        f"FROM {table.sql}"
    )


def _measured(table: Table, items: Table) -> str:
    """Return SQL of the laboratory results by the LOINC codes of their items."""
    value = table.number("valuenum")
    low, high = table.number("ref_range_lower"), table.number("ref_range_upper")
    return (
        f"SELECT subject AS patient_id, day, CASE WHEN code IS NOT NULL THEN 'loinc' END AS system, "
        "coalesce(code, item) AS code, value, CASE WHEN value < low THEN 'L' WHEN value > high THEN 'H' "
        "WHEN value IS NOT NULL AND (low IS NOT NULL OR high IS NOT NULL) THEN 'N' END AS flag "
        f"FROM (SELECT {table.raw('subject_id')} AS subject, {table.day('charttime')} AS day, "
        f"{table.key('itemid')} AS item, {value} AS value, {low} AS low, {high} AS high FROM {table.sql}) "
        f"LEFT JOIN (SELECT {items.key('itemid')} AS item, any_value({items.text('loinc_code')}) AS code "
        f"FROM {items.sql} GROUP BY ALL) USING (item)"
    )
