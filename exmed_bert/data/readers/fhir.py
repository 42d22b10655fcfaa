"""Patients from FHIR R4: bulk exports (NDJSON, a file per type of resource) and Bundles.

Each type is read once into a table of the database; then what refers to other resources is joined there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from exmed_bert import console
from exmed_bert.console import InputError, OptionError, shown
from exmed_bert.data.database import file_list, quoted, temporary_folder
from exmed_bert.data.gzipped import check_gzip
from exmed_bert.data.origin import Origin
from exmed_bert.data.readers import fhir_resources as resources
from exmed_bert.data.readers.base import VISITS, Reading
from exmed_bert.data.readers.fhir_files import ResourceFiles, bad_line, recognized, take_apart
from exmed_bert.data.readers.fhir_resources import (
    COVERAGE,
    ENCOUNTER,
    EVENTS,
    FIELDS,
    FURTHER,
    FURTHER_EVENTS,
    MEDICATION,
    OBSERVATION,
    PATIENT,
)
from exmed_bert.data.readers.source import Source
from exmed_bert.data.readers.summary import ROWS
from exmed_bert.data.readers.table import explained
from exmed_bert.data.readers.tables import Events, TableReader, Tables, exported
from exmed_bert.reporting.small_cells import MinCell
from exmed_bert.settings import ReadingSettings

if TYPE_CHECKING:
    import duckdb

_LISTED = 5  # files that a note names
_PEOPLE = (PATIENT, COVERAGE)  # types with a row, or several, per patient


class FhirReader(TableReader):
    """Reads FHIR R4."""

    name = "fhir"
    title = "FHIR"

    def recognizes(self, source: Source, settings: ReadingSettings) -> str | None:
        """Tell by the first resource of a file, and by the names that bulk exports have."""
        found = recognized(source, FIELDS)
        return None if found is None else f"resources in {found.name}"

    def origin(self, source: Source) -> Origin:
        """Return the digest of the files with resources that are read."""
        return exported(source) or Origin(source.fingerprint(ResourceFiles.of(source, FIELDS).used))

    def tables(self, db: "duckdb.DuckDBPyConnection", reading: Reading) -> Tables:
        """Read each type of resource into a table, and say how they belong together."""
        intents = _intents(reading.settings.fhir_intents)
        fields = _fields(reading)
        events = [kind for kind in (*EVENTS, *FURTHER_EVENTS) if kind in fields]
        files = ResourceFiles.of(reading.source, fields)
        with TemporaryDirectory(dir=temporary_folder(db)) as folder:
            parts = take_apart(files, fields, Path(folder))
            every = (_Kind.of(kind, files.by_type.get(kind, ()), parts.get(kind, 0), Path(folder)) for kind in fields)
            kinds = {kind.type: kind for kind in every if kind.paths}
            _check(reading.source, kinds)
            resources.add_macros(db)
            for kind in console.progress(kinds.values(), label="Reading resources", unit=" types"):
                with explained(kind.label):
                    kind.load(db, reading, intents)
        _note(reading, files, kinds)
        stays = None
        if ENCOUNTER in kinds:
            columns, table = "patient_id, started, ended, timed", kinds[ENCOUNTER].table
            stays = f"SELECT {columns} FROM {table} WHERE reason IS NULL AND inpatient"
        visits = []
        if ENCOUNTER in kinds and reading.wants(VISITS):
            sql = f"SELECT patient_id, day, 'visit' AS system, visit AS code, reason FROM {kinds[ENCOUNTER].table}"
            visits.append(Events(f"{kinds[ENCOUNTER].label}, types", sql))
        people = [
            f"SELECT * EXCLUDE (reason) FROM {kinds[k].table} WHERE reason IS NULL" for k in _PEOPLE if k in kinds
        ]
        return Tables(
            people=" UNION ALL BY NAME ".join(people),
            events=visits + [_events(db, kinds[kind], kinds, reading) for kind in events if kind in kinds],
            stays=stays,
        )


@dataclass(frozen=True)
class _Kind:
    """The resources of one type.

    Attributes:
        type: its name.
        label: what counts and errors call them.
        paths: files with a resource on each line.
    """

    type: str
    label: str
    paths: Sequence[Path]

    @classmethod
    def of(cls, kind: str, bulk: Sequence[Path], mixed: int, folder: Path) -> "_Kind":
        """Return those of bulk files, and those in ``folder``, which come from a number of mixed files."""
        if len(bulk) == 1 and not mixed:
            return cls(kind, bulk[0].name, bulk)
        count = len(bulk) + mixed
        label = f"{kind} ({count:,} file{'s' * (count > 1)})"
        return cls(kind, label, [*bulk, folder / f"{kind}.ndjson"] if mixed else bulk)

    @property
    def table(self) -> str:
        """The table that they are read into."""
        return f"fhir_{self.type.lower()}"

    def load(self, db: "duckdb.DuckDBPyConnection", reading: Reading, intents: Sequence[str] | None) -> None:
        """Read them into the table.

        Raises:
            InputError: a file is damaged, or a line is no resource.
        """
        import duckdb

        check_gzip(self.paths)
        columns = ", ".join(f"{quoted(field)}: {quoted(kind)}" for field, kind in (FIELDS | FURTHER)[self.type].items())
        # A field of a wrong form is read as missing; so is all of a line that is no JSON, which is refused below.
        lines = (
            f"SELECT * FROM read_json({file_list(self.paths)}, format = 'newline_delimited', ignore_errors = true, "
            f"columns = {{{columns}}})"
        )
        if self.type == PATIENT:
            sql = resources.patients(lines, [column.name for column in reading.static_columns])
        elif self.type == ENCOUNTER:
            sql = resources.encounters(lines)
        elif self.type == COVERAGE:
            sql = resources.coverages(lines)
        elif self.type == MEDICATION:
            sql = resources.medications(lines)
        else:
            sql = resources.events(self.type, lines, reading.settings.fhir_date == "recorded", intents)
        try:
            db.execute(f"CREATE TABLE {self.table} AS {sql}")
        except duckdb.IOException as error:
            if problem := bad_line(self.paths):
                raise InputError(problem) from error
            raise
        counts = dict(db.sql(f"SELECT reason, count(*) FROM {self.table} GROUP BY reason ORDER BY reason").fetchall())
        if counts.pop(resources.NO_RESOURCE, 0):
            raise InputError(bad_line(self.paths) or f"{self.label}: a line is no JSON that can be read")
        if self.type == PATIENT:  # of events, of which there are many more, it would take half as long as reading them
            _warn_of_repeated_keys(db, self)
        if self.type not in (
            *EVENTS,
            *FURTHER_EVENTS,
        ):  # those are counted with the reasons of all formats
            of_file = reading.summary.of(self.label)
            of_file[ROWS] += sum(counts.values())
            of_file.update({reason: count for reason, count in counts.items() if reason is not None})


def _warn_of_repeated_keys(db: "duckdb.DuckDBPyConnection", kind: _Kind) -> None:
    """Warn of keys that stand twice in a resource; DuckDB reads the first of them."""
    found = db.sql(
        f"SELECT key, count(*) - count(DISTINCT number) FROM (SELECT number, unnest(json_keys(json)) AS key FROM "
        f"(SELECT json, row_number() OVER () AS number FROM read_ndjson_objects({file_list(kind.paths)}))) "
        "GROUP BY key HAVING count(*) > count(DISTINCT number) ORDER BY key"
    ).fetchall()
    if found:
        console.warn(
            f"{kind.label}: {sum(count for _, count in found):,} keys stand a second time in their resource, of which "
            f"the first is read: {', '.join(shown(key) for key, _ in found)}"
        )


def _events(db: "duckdb.DuckDBPyConnection", kind: _Kind, kinds: Mapping[str, _Kind], reading: Reading) -> Events:
    """Return the events of a type, with what they refer to."""
    partial, of_encounters, of_medications = db.sql(
        f"SELECT count(*) FILTER (partial AND reason IS NULL), count(encounter), count(medication) FROM {kind.table}"
    ).fetchall()[0]
    if partial:
        reading.summary.notes.append(
            f"{kind.label}: {MinCell().show(partial)} dates are a year or a month only, and are read as its first day."
        )
    columns = {"day": "r.day", "system": "r.system", "code": "r.code", "reason": "r.reason"}
    if kind.type == OBSERVATION:
        columns |= {"value": "r.value", "flag": "r.flag"}
    joins = ""
    if of_medications:
        missing = f"CASE WHEN r.medication IS NOT NULL THEN {quoted(resources.NO_MEDICATION)} END"
        if MEDICATION in kinds:
            missing = f"CASE WHEN r.medication IS NOT NULL AND m.id IS NULL THEN {quoted(resources.NO_MEDICATION)} END"
            found = f"SELECT DISTINCT ON (id) * FROM {kinds[MEDICATION].table} WHERE reason IS NULL ORDER BY rowid"
            joins += f" LEFT JOIN ({found}) m ON r.medication = m.id"
            columns |= {"system": "coalesce(r.system, m.system)", "code": "coalesce(r.code, m.code)"}
        columns["reason"] = f"coalesce(r.reason, {missing})"
    order = ""
    if of_encounters and ENCOUNTER in kinds:
        found = f"SELECT id, min(day) AS day FROM {kinds[ENCOUNTER].table} WHERE reason IS NULL GROUP BY id"
        joins += f" LEFT JOIN ({found}) e ON r.encounter = e.id"
        columns["day"] = "coalesce(r.day, e.day)"
        order = " ORDER BY r.rowid"  # a join with as many could be done in parts, in no order
    listed = ", ".join(f"{sql} AS {column}" for column, sql in columns.items())
    return Events(kind.label, f"SELECT r.patient_id, {listed} FROM {kind.table} r{joins}{order}")


def _fields(reading: Reading) -> dict[str, dict[str, str]]:
    """Return the types that are read, with the fields of each."""
    further = [kind for kind, events in FURTHER_EVENTS.items() if reading.wants(events)]
    if exported(reading.source) is not None:  # who is insured is not always observed
        further.append(COVERAGE)
    return FIELDS | {kind: FURTHER[kind] for kind in further}


def _check(source: Source, kinds: Mapping[str, _Kind]) -> None:
    """Refuse files without patients, or without what they have."""
    if PATIENT not in kinds:
        raise InputError(f"{source}: holds no Patient resources, expected Patient.ndjson or Bundles with some")
    if not any(kind in kinds for kind in EVENTS):
        raise InputError(f"{source}: holds no resources with codes of patients, expected {', '.join(EVENTS)}")


def _note(reading: Reading, files: ResourceFiles, kinds: Mapping[str, _Kind]) -> None:
    """Note what is missing and what is not read."""
    notes = reading.summary.notes
    if ENCOUNTER not in kinds:
        notes.append("There are no Encounter resources: prolonged stays are not known.")
    if files.not_read:
        notes.append(f"Resources of these types are not read: {', '.join(sorted(files.not_read))}.")
    if files.foreign:
        names = [path.name for path in files.foreign]
        more = f" and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
        notes.append(f"Files without FHIR resources are not read: {', '.join(names[:_LISTED])}{more}.")


def _intents(given: str) -> tuple[str, ...] | None:
    """Return the intents of requests that are read, None for all.

    Raises:
        OptionError: one is no intent.
    """
    intents = tuple(part.strip().lower() for part in given.split(",") if part.strip())
    if intents == ("all",):
        return None
    if not intents or not set(intents) <= set(resources.INTENTS):
        wrong = next((intent for intent in intents if intent not in resources.INTENTS), given)
        raise OptionError(f"--fhir-intents: {wrong!r}, expected all, or some of {', '.join(resources.INTENTS)}")
    return intents
