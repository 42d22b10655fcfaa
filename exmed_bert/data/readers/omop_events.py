"""Events of an OMOP CDM: rows with concepts, and what these mean as diagnoses and drugs.

A diagnosis is the code that the source declared, by its source concept. Standard concepts are not mapped back to
ICD-10-CM: several of its codes lead to one of them. A drug is the ATC codes that stand above its concept.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from exmed_bert.codes import ATC, ICD10CM, code_system, code_systems
from exmed_bert.console import InputError, OptionError
from exmed_bert.data.database import quoted
from exmed_bert.data.readers.base import Reading
from exmed_bert.data.readers.omop_concepts import concept_id, system_of
from exmed_bert.data.readers.table import Table, explained
from exmed_bert.data.readers.tables import Events

if TYPE_CHECKING:
    import duckdb

CONDITIONS, DRUGS = "condition_occurrence", "drug_exposure"
# OMOP puts a row into the table of the domain of its standard concept, diagnoses such as Z79.4 outside conditions.
ELSEWHERE = ("observation", "procedure_occurrence", "measurement")
_ELSEWHERE_SYSTEMS = (ICD10CM, "icd9cm")
_WANTED = {"procedure_occurrence": "procedures", "measurement": "measurements"}  # events that may be asked for
COLUMNS = {  # how the names of the columns begin: of the date, of the concepts and the source value
    CONDITIONS: ("condition_start", "condition"),
    DRUGS: ("drug_exposure_start", "drug"),
    "observation": ("observation", "observation"),
    "procedure_occurrence": ("procedure", "procedure"),
    "measurement": ("measurement", "measurement"),
}
# The table into which an export of ours writes events, by what they are called; others are conditions. Types of visits
# are not written: a visit is more than its type.
WRITTEN_INTO = {"drugs": DRUGS, "visits": ""} | {events: table for table, events in _WANTED.items()}
# What stands in place of a code system where there is none.
_VALUES, _NOT_LISTED = "source values of no vocabulary", "concepts that CONCEPT lacks"
_TO_TICK = (
    "download ATC, RxNorm and RxNorm Extension from athena.ohdsi.org, which come with CONCEPT_ANCESTOR, and name the "
    "folder with --athena"
)


class OmopEvents:
    """The rows of events, and which concepts they use.

    Attributes:
        used: SELECT of ``concept_id``: the concepts of conditions and drugs.
    """

    def __init__(self, db: "duckdb.DuckDBPyConnection", tables: Mapping[str, Table], reading: Reading) -> None:
        """Load conditions and drugs: their text is read once, and few pairs of concepts say what all rows mean.

        Args:
            db: the connection.
            tables: of events, by their names.
            reading: how they are read.

        Raises:
            InputError: a column is missing, a file is damaged, or --source-vocabulary names no code system.
        """
        self._db, self._tables, self._notes = db, tables, reading.summary.notes
        self._declared = _declared(reading.settings.source_vocabulary)
        self._on_multiple = reading.settings.on_multiple
        self._loaded = [table for table in (CONDITIONS, DRUGS) if table in tables]
        for table in self._loaded:
            with explained(tables[table].label):
                self._load(table)
        self.used = " UNION ALL ".join(
            f"SELECT {column} AS concept_id FROM {table}_pairs WHERE {column} <> 0"
            for table in self._loaded
            for column in ("source", "standard")
        )
        self._wanted = {table for table, events in _WANTED.items() if table in tables and reading.wants(events)}
        for name in sorted(self._wanted):
            self.used += "".join(
                f" UNION ALL SELECT {concept} AS concept_id FROM {tables[name].sql} WHERE {concept} <> 0"
                for concept in _concepts_of(tables[name], name)
            )

    def all(self, missing_for_atc: str | None) -> list[Events]:
        """Return the events of all tables; after `Concepts.add`.

        Args:
            missing_for_atc: what keeps drugs from being mapped to ATC.
        """
        for table in self._loaded:
            self._add_meanings(table)
        self._note(missing_for_atc)
        elsewhere = [table for table in ELSEWHERE if table in self._tables]
        return [*map(self._events, self._loaded), *map(self._events_elsewhere, elsewhere)]

    def _load(self, name: str) -> None:
        """Make the table of rows, and that of the distinct pairs of concepts in them."""
        table, (_, prefix) = self._tables[name], COLUMNS[name]
        value = table.text(f"{prefix}_source_value")
        self._db.execute(
            f"CREATE TABLE {name}_rows AS SELECT {table.raw('person_id')} AS patient_id, {_day(table, name)} AS day, "
            f"coalesce({concept_id(table, f'{prefix}_source_concept_id')}, 0) AS source, "
            f"coalesce({concept_id(table, f'{prefix}_concept_id')}, 0) AS standard, "
            f"{value} IS NOT NULL AS valued{f', {value} AS value' if name in self._declared else ''} FROM {table.sql}"
        )
        self._db.execute(f"CREATE TABLE {name}_pairs AS SELECT DISTINCT source, standard, valued FROM {name}_rows")

    def _add_meanings(self, name: str) -> None:
        """Make the table of what pairs of concepts mean: ``system``, ``codes``, and whether a source value counts."""
        ways = [  # the first that applies: when, code system, codes
            ("s.system IS NOT NULL", "s.system", "[s.code]"),
            ("c.system IS NOT NULL", "c.system", "[c.code]"),
        ]
        spoken_for = "s.concept_id IS NOT NULL"
        if name == DRUGS:
            ways.reverse()
            drugs = "coalesce(c.drugs, s.drugs)"
            if self._on_multiple == "drop":
                drugs = f"CASE WHEN len({drugs}) = 1 THEN {drugs} END"
            ways.insert(0, (f"{drugs} IS NOT NULL", quoted(ATC), drugs))
            ways.insert(0, (f"s.system = {quoted(ATC)}", "s.system", "[s.code]"))
            if self._declared.get(name) != ATC:
                spoken_for += f" OR {drugs} IS NOT NULL"
        ways += [
            ("c.concept_id IS NOT NULL", "c.vocabulary", "[c.code]"),
            ("s.concept_id IS NOT NULL", "s.vocabulary", "[s.code]"),
            ("p.source <> 0 OR p.standard <> 0", quoted(_NOT_LISTED), "['']"),
            ("valued", quoted(_VALUES), "['']"),
        ]
        system, codes = (f"CASE {' '.join(f'WHEN {way[0]} THEN {way[part]}' for way in ways)} END" for part in (1, 2))
        self._db.execute(
            f"CREATE TABLE {name}_meanings AS SELECT p.*, {system} AS system, coalesce({codes}, [NULL]) AS codes, "
            f"{spoken_for} AS spoken_for, CASE WHEN s.system IS NULL THEN s.vocabulary END AS foreign_source "
            f"FROM {name}_pairs p LEFT JOIN omop_concepts s ON s.concept_id = p.source "
            "LEFT JOIN omop_concepts c ON c.concept_id = p.standard"
        )

    def _events(self, name: str) -> Events:
        system, codes = "system", "codes"
        if name in self._declared:
            by_value = "value IS NOT NULL AND NOT spoken_for"
            system = f"CASE WHEN {by_value} THEN {quoted(self._declared[name])} ELSE system END"
            codes = f"CASE WHEN {by_value} THEN [value] ELSE codes END"
        # Codes of one row follow each other in their order.
        sql = (
            f"SELECT patient_id, day, {system} AS system, unnest({codes}) AS code FROM {name}_rows r "
            f"JOIN {name}_meanings m ON r.source = m.source AND r.standard = m.standard AND r.valued = m.valued"
        )
        rows = self._db.sql(f"SELECT count(*) FROM {name}_rows").fetchall()[0][0]
        return Events(self._tables[name].label, sql, rows)

    def _events_elsewhere(self, name: str) -> Events:
        """Return the diagnoses of a table of another domain, and procedures or measurements where these are wanted."""
        table = self._tables[name]
        systems = ", ".join(map(quoted, self._systems_of(name)))
        source, standard = _concepts_of(table, name)
        measured = name in self._wanted and _WANTED[name] == "measurements"
        results = f", {_results(table)}" if measured else ""
        rows = (
            f"SELECT {table.raw('person_id')} AS patient_id, {_day(table, name)} AS day, {source} AS source, "
            f"{standard} AS standard{results} FROM {table.sql}"
        )
        further = ", value, flag" if measured else ""
        if name not in self._wanted:
            sql = (
                f"SELECT patient_id, day, system, code FROM ({rows}) r JOIN omop_concepts c ON r.source = c.concept_id "
                f"WHERE system IN ({systems})"
            )
            return Events(table.label, sql)
        # The code that the source declared counts, else the standard concept, of which codes of LOINC and CPT are some.
        known = f"SELECT concept_id, system, code FROM omop_concepts WHERE system IN ({systems})"
        return Events(
            table.label,
            "SELECT patient_id, day, coalesce(s.system, c.system) AS system, "
            f"coalesce(s.code, c.code) AS code{further} "
            f"FROM ({rows}) r LEFT JOIN ({known}) s ON r.source = s.concept_id "
            f"LEFT JOIN ({known}) c ON r.standard = c.concept_id WHERE s.code IS NOT NULL OR c.code IS NOT NULL",
        )

    def _systems_of(self, name: str) -> list[str]:
        """Return the code systems that count in a table of another domain."""
        if name not in self._wanted:
            return list(_ELSEWHERE_SYSTEMS)
        wanted = [system.name for system in code_systems() if system.events == _WANTED[name]]
        return [*_ELSEWHERE_SYSTEMS, *wanted]

    def _note(self, missing_for_atc: str | None) -> None:
        """Say what a user can do so that more events are read."""
        foreign: set[str] = set()
        for name in self._loaded:
            found = self._db.sql(
                f"SELECT bool_or(system = {quoted(_VALUES)}), bool_or(system = {quoted(_NOT_LISTED)}), "
                f"bool_or(system <> {quoted(ATC)}), list(DISTINCT foreign_source) "
                f"FILTER (WHERE foreign_source IS NOT NULL) FROM {name}_meanings"
            ).fetchall()
            by_value, not_listed, no_atc, foreign_sources = found[0]
            foreign |= set(foreign_sources or ())
            if by_value and name not in self._declared:
                self._say(
                    name,
                    "rows with a source value and no concept are not read; --source-vocabulary names the "
                    f"vocabulary of these values, such as {'NDC' if name == DRUGS else 'ICD10CM'}",
                )
            if not_listed:
                self._say(name, "rows whose concepts are not in CONCEPT are not read; --athena names further ones")
            if name == DRUGS and no_atc and missing_for_atc:
                self._say(name, f"drugs are not mapped to ATC, since {missing_for_atc}; {_TO_TICK}")
        if foreign:
            self._notes.append(
                "Source concepts of these vocabularies are codes of no system that is known; their rows are read by "
                f"their standard concepts: {', '.join(sorted(foreign))}."
            )

    def _say(self, table: str, text: str) -> None:
        self._notes.append(f"{table.upper()}: {text}.")


def _concepts_of(table: Table, name: str) -> tuple[str, str]:
    """Return the columns of source and standard concepts."""
    prefix = COLUMNS[name][1]
    return concept_id(table, f"{prefix}_source_concept_id"), concept_id(table, f"{prefix}_concept_id")


def _results(table: Table) -> str:
    """Return what was measured: the value, and its flag as our exports have it, or by the range beside it."""
    value, low, high = (table.number(column) for column in ("value_as_number", "range_low", "range_high"))
    said = table.text("value_source_value")
    return (
        f"{value} AS value, CASE WHEN {said} IN ('L', 'N', 'H') THEN {said} WHEN {value} < {low} THEN 'L' "
        f"WHEN {value} > {high} THEN 'H' WHEN {value} IS NOT NULL AND ({low} IS NOT NULL OR {high} IS NOT NULL) "
        "THEN 'N' END AS flag"
    )


def _day(table: Table, name: str) -> str:
    """Return the day of a row.

    Raises:
        InputError: the table has no column of dates.
    """
    date, time = (f"{COLUMNS[name][0]}_{kind}" for kind in ("date", "datetime"))
    if not table.has(date) and not table.has(time):
        raise InputError(f"{table.label}: lacks the column {date}, which OMOP has")
    return table.day(date, time)


def _declared(source_vocabulary: str | None) -> dict[str, str]:
    """Return the code system of the source values of each table for which --source-vocabulary names one.

    >>> _declared("ICD10CM, NDC")
    {'condition_occurrence': 'icd10cm', 'drug_exposure': 'ndc'}

    Raises:
        OptionError: a name is that of no code system, or two are for the same table.
    """
    found: dict[str, str] = {}
    for vocabulary in filter(None, map(str.strip, (source_vocabulary or "").split(","))):
        system = system_of(vocabulary)
        if system is None:
            raise OptionError(
                f"--source-vocabulary: {vocabulary!r} is no code system that is known, expected one such as ICD10CM"
            )
        table = DRUGS if code_system(system).events == "drugs" else CONDITIONS
        if table in found:
            raise OptionError(f"--source-vocabulary: {source_vocabulary!r} names two for {table}, expected one")
        found[table] = system
    return found
