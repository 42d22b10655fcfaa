"""Patients from the OMOP Common Data Model (https://ohdsi.github.io/CommonDataModel), versions 5.3 and 5.4."""

from pathlib import Path
from typing import TYPE_CHECKING

from exmed_bert.console import InputError
from exmed_bert.data.database import name, quoted
from exmed_bert.data.origin import Origin
from exmed_bert.data.readers.base import VISITS, Reading
from exmed_bert.data.readers.omop_concepts import ANCESTOR, CONCEPT, Concepts, concept_id
from exmed_bert.data.readers.omop_events import CONDITIONS, DRUGS, ELSEWHERE, OmopEvents
from exmed_bert.data.readers.source import Source
from exmed_bert.data.readers.table import Table
from exmed_bert.data.readers.tables import Events, TableReader, Tables, exported
from exmed_bert.data.static_columns import SEX, STATE
from exmed_bert.settings import ReadingSettings

if TYPE_CHECKING:
    import duckdb

_PERSON, _VISITS, _OBSERVATION, _DEATH, _LOCATION = (
    "person",
    "visit_occurrence",
    "observation_period",
    "death",
    "location",
)
_SEXES = {8507: "MALE", 8532: "FEMALE"}
_TYPES_OF_VISITS = {9201: "IMP", 262: "IMP", 9202: "AMB", 9203: "EMER", 581385: "OBSENC", 581476: "HH", 5083: "VR"}
_INPATIENT = (9201, 262)  # inpatient visits, those by way of the emergency room too
# Hospitals, psychiatric and rehabilitation ones: below the former, for a CDM whose CONCEPT_ANCESTOR does not say so.
_INPATIENT_SITES = (8717, 8971, 8920)


class OmopReader(TableReader):
    """Reads OMOP."""

    name = "omop"
    title = "OMOP"

    def recognizes(self, source: Source, settings: ReadingSettings) -> str | None:
        """Tell by the table of persons and those of events."""
        tables = [table for table in (CONDITIONS, DRUGS) if "person_id" in source.columns(table)]
        if not tables or not source.columns(_PERSON) >= {"person_id", "year_of_birth"}:
            return None
        return f"tables {', '.join([_PERSON, *tables])}"

    def origin(self, source: Source) -> Origin:
        """Return the digest of the tables that are read; others may be many times as large."""
        if (made_of := exported(source)) is not None:
            return made_of
        used = (_PERSON, CONDITIONS, DRUGS, *ELSEWHERE, _VISITS, _OBSERVATION, _DEATH, _LOCATION, CONCEPT, ANCESTOR)
        return Origin(source.fingerprint([file for table in used for file in source.tables.get(table, ())]))

    def files(self, reading: Reading) -> tuple[Path, ...]:
        """Return what SQL may read: the files of the input, and those of --athena."""
        return tuple(file for source in (reading.source, *_athena(reading)) for file in source.files)

    def tables(self, db: "duckdb.DuckDBPyConnection", reading: Reading) -> Tables:
        """Load the events, look up their concepts, and say where the rest stands."""
        source = reading.source
        person = self.table(db, source, _PERSON, "person_id", "year_of_birth")
        loaded = [table for table in (CONDITIONS, DRUGS, *ELSEWHERE) if table in source.tables]
        if not {CONDITIONS, DRUGS} & set(loaded):
            raise InputError(f"{source}: holds neither of the tables {CONDITIONS} and {DRUGS}, which OMOP has")
        events = OmopEvents(db, {table: self.table(db, source, table, "person_id") for table in loaded}, reading)
        concepts = Concepts(db, [source, *_athena(reading)])
        concepts.add(events.used, _INPATIENT)
        absent = [
            table
            for table in (CONDITIONS, DRUGS, _VISITS, _OBSERVATION, _DEATH, _LOCATION)
            if table not in source.tables
        ]
        if absent:
            reading.summary.notes.append(f"There is no table {' and no table '.join(map(str.upper, absent))}.")
        return Tables(
            self._people(db, person, reading),
            [*self._types_of_visits(db, reading), *events.all(concepts.missing_for_atc())],
            self._stays(db, source) if _VISITS in source.tables else None,
        )

    def _people(self, db: "duckdb.DuckDBPyConnection", person: Table, reading: Reading) -> str:
        source = reading.source
        gender = concept_id(person, "gender_concept_id")
        sexes = " ".join(f"WHEN {concept} THEN '{sex}'" for concept, sex in _SEXES.items())
        values = [
            # What the source says counts only where it was not mapped: a concept of an unknown sex is a statement, too.
            f"CASE coalesce({gender}, 0) {sexes} WHEN 0 THEN {person.text('gender_source_value')} END AS sex",
            f"coalesce({person.year('year_of_birth')}, year({person.time('birth_datetime')})) AS birth_year",
            f"coalesce({_birth_date(person)}, {person.day('birth_datetime')}) AS birth_date",
        ]
        further = [column.name for column in reading.static_columns if column not in (SEX, STATE)]
        values += [f"{person.text(column)} AS {name(column)}" for column in further if person.has(column)]
        joins = ""
        if _OBSERVATION in source.tables:
            start, end = "observation_period_start_date", "observation_period_end_date"
            table = self.table(db, source, _OBSERVATION, "person_id", start, end)
            values += ["o.observation_start", "o.observation_end"]
            period = f"min({table.day(start)}) AS observation_start, max({table.day(end)}) AS observation_end"
            joins += _join("o", table, person, "person_id", period)
        if _DEATH in source.tables:
            table = self.table(db, source, _DEATH, "person_id")
            values += ["d.death_date"]
            death = f"min({table.day('death_date', 'death_datetime')}) AS death_date"
            joins += _join("d", table, person, "person_id", death)
        if _LOCATION in source.tables:
            table = self.table(db, source, _LOCATION, "location_id")
            values += ["l.state"]
            joins += _join("l", table, person, "location_id", f"min({table.text('state')}) AS state")
        return f"SELECT {person.raw('person_id')} AS patient_id, {', '.join(values)} FROM {person.sql} p{joins}"

    def _types_of_visits(self, db: "duckdb.DuckDBPyConnection", reading: Reading) -> list[Events]:
        """Return the types of visits as events, where these are wanted."""
        if _VISITS not in reading.source.tables or not reading.wants(VISITS):
            return []
        visits = self.table(db, reading.source, _VISITS, "person_id", "visit_concept_id")
        types = " ".join(f"WHEN {concept} THEN {quoted(kind)}" for concept, kind in _TYPES_OF_VISITS.items())
        return [
            Events(
                f"{visits.label}, types",
                f"SELECT {visits.raw('person_id')} AS patient_id, "
                f"{visits.day('visit_start_date', 'visit_start_datetime')} AS day, 'visit' AS system, "
                f"CASE {concept_id(visits, 'visit_concept_id')} {types} END AS code FROM {visits.sql}",
            )
        ]

    def _stays(self, db: "duckdb.DuckDBPyConnection", source: Source) -> str:
        visits = self.table(db, source, _VISITS, "person_id", "visit_concept_id", "visit_start_date", "visit_end_date")
        start, end = visits.time("visit_start_datetime"), visits.time("visit_end_datetime")
        # Where no time of day is known, both are midnight.
        timed = f"coalesce({start} <> date_trunc('day', {start}) OR {end} <> date_trunc('day', {end}), false)"
        timed += f" AND {start} IS NOT NULL AND {end} IS NOT NULL"
        # The few inpatient visits are found before times are read.
        return (
            f"SELECT {visits.raw('person_id')} AS patient_id, timed, "
            f"CASE WHEN timed THEN {start} ELSE coalesce({visits.time('visit_start_date')}, {start}) END AS started, "
            f"CASE WHEN timed THEN {end} ELSE coalesce({visits.time('visit_end_date')}, {end}) END AS ended "
            f"FROM (SELECT *, {timed} AS timed FROM (SELECT * FROM {visits.sql} "
            f"WHERE {concept_id(visits, 'visit_concept_id')} IN (SELECT unnest({[*_INPATIENT, *_INPATIENT_SITES]}) "
            f"UNION ALL SELECT concept_id FROM omop_descendants WHERE ancestor IN {_INPATIENT})))"
        )


def _join(alias: str, table: Table, person: Table, column: str, values: str) -> str:
    """Return the join of people with what a table says of each, by a column that both have."""
    grouped = f"SELECT {table.key(column)} AS id, {values} FROM {table.sql} GROUP BY ALL"
    return f" LEFT JOIN ({grouped}) {alias} ON {alias}.id = {person.key(column)}"


def _athena(reading: Reading) -> list[Source]:
    folder = reading.settings.athena
    return [] if folder is None else [Source.at([folder])]


def _birth_date(person: Table) -> str:
    """Return the day of birth as year, month and day say it; without the day the first of the month."""
    year, month, day = (person.year(f"{part}_of_birth") for part in ("year", "month", "day"))
    return f"day_of_date(TRY_CAST(format('{{:04d}}-{{:02d}}-{{:02d}}', {year}, {month}, coalesce({day}, 1)) AS DATE))"
