"""Patients from MEDS datasets (https://medical-event-data-standard.github.io), versions 0.3 and 0.4.

Rows are ``subject_id, time, code``; what a code is of stands before ``//`` or, in older data, before the first ``/``.
Where that is no code system, a parent in ``metadata/codes.parquet`` may be.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exmed_bert.codes import code_system
from exmed_bert.console import InputError, OptionError, shown
from exmed_bert.data.database import connect, file_list, name, quoted
from exmed_bert.data.export.meds_codes import PERIODS, PROLONGED_STAY, static_prefix
from exmed_bert.data.export.provenance import SUBJECT_IDS, read_provenance
from exmed_bert.data.origin import Origin
from exmed_bert.data.readers.base import Reading
from exmed_bert.data.readers.headers import column_names
from exmed_bert.data.readers.source import Source
from exmed_bert.data.readers.summary import NO_SYSTEM
from exmed_bert.data.readers.table import Table, explained
from exmed_bert.data.readers.tables import SPLITS, Events, TableReader, Tables
from exmed_bert.settings import ReadingSettings

if TYPE_CHECKING:
    import duckdb

_SUBJECTS = ("subject_id", "patient_id")
_SEPARATOR = "//"
# Prefixes that are no name of a code system and yet say which one it is.
_PREFIXES = {
    "diagnosis//icd//9": "icd9cm",
    "diagnosis//icd//10": "icd10cm",
    "icd//9": "icd9cm",
    "icd//10": "icd10cm",
    "procedure//icd//10": "icd10pcs",
}
_BIRTH = {"meds_birth", "birth", "snomed/3950001", "snomed//3950001", "snomed/184099003", "snomed//184099003"}
_DEATH = {"meds_death", "death", "snomed/419620001", "snomed//419620001"}
_PERIODS = {code.lower(): name for name, code in PERIODS.items()} | dict.fromkeys(_DEATH, "death_date")
_STAYS = {code.lower(): str(value == 1).lower() for value, code in PROLONGED_STAY.items()}
_SEX = ("gender", "sex")
_SEX_CONCEPTS = {"8532": "FEMALE", "8507": "MALE"}  # OMOP's


@dataclass(frozen=True)
class Meaning:
    """What a code of a dataset says.

    Attributes:
        kind: ``event``, ``birth``, a period field such as ``death_date``, ``had_plos``, the name of a static column,
            or ``other``.
        system: the code system of an event; the family of another row.
        text: the code, or the value of a static column.
    """

    kind: str
    system: str | None = None
    text: str | None = None


class MedsReader(TableReader):
    """Reads MEDS."""

    name = "meds"
    title = "MEDS"

    def recognizes(self, source: Source, settings: ReadingSettings) -> str | None:
        """Tell by the columns of the Parquet files."""
        return "columns subject_id, time, code" if _data_files(source) else None

    def origin(self, source: Source) -> Origin:
        """Return what is known of where the patients come from; for an export of ours that is what it was made of."""
        folder = source.paths[0]
        if len(source.paths) == 1 and all(file.is_relative_to(folder / "data") for file in _data_files(source)):
            return read_provenance(folder, source.digest) or super().origin(source)
        return super().origin(source)

    def divide(self, source: Source) -> list[Source]:
        """Return each file of patients with all other files, where no patient is in two; a shard has them whole.

        An export of ours stays together: its patients have an order of their own.
        """
        data = _data_files(source)
        if len(data) < 2 or _written_ids(source) or not _are_apart(data, source.stored is None):
            return [source]
        others = tuple(file for file in source.files if file not in set(data))
        return [replace(source, files=(file, *others)) for file in data]

    def tables(self, db: "duckdb.DuckDBPyConnection", reading: Reading) -> Tables:
        """Divide the rows into static facts and events by the distinct codes."""
        files = _data_files(reading.source)
        for file in reading.source.of_kind(".parquet"):
            if not column_names(file):
                raise InputError(f"{file}: is no Parquet file, or is cut short")
        if not files:
            raise InputError(
                f"{reading.source}: holds no .parquet with the columns subject_id, time, code, as MEDS has"
            )
        data = Table(db, "MEDS data", files)
        subject = data.id(next(column for column in _SUBJECTS if data.has(column)))
        has_values = self._add_codes(db, data, reading) and data.has("numeric_value")
        rows = (
            f"SELECT {subject} AS patient_id, {data.time('time')} AS local_time, m.* "
            f"FROM {data.sql} d JOIN meds_codes m ON d.code = m.written"
        )
        static = [column.name for column in reading.static_columns]
        periods = ", ".join(
            f"CASE WHEN kind = {quoted(p)} THEN day_of_date(local_time::DATE) END AS {p}" for p in PERIODS
        )
        facts = ", ".join(f"CASE WHEN kind = {quoted(column)} THEN text END AS {name(column)}" for column in static)
        splits = _splits(db, reading.source)
        people = (
            f"SELECT patient_id, CASE WHEN kind = 'birth' THEN year(local_time) END AS birth_year, {facts}, "
            "CASE WHEN kind = 'birth' THEN day_of_date(local_time::DATE) END AS birth_date, "
            f"{periods}, CASE WHEN kind = 'had_plos' THEN text = 'true' END AS had_plos "
            f"FROM ({rows}) WHERE kind NOT IN ('event', 'other') "
            f"UNION ALL BY NAME SELECT DISTINCT {subject} AS patient_id FROM {data.sql}"
        )
        ids = _subject_ids(db, reading.source)
        if ids is not None:  # they come first, since that is the order in which patients are read
            people = f"{ids} WHERE patient_id IN (SELECT {subject} FROM {data.sql}) UNION ALL BY NAME {people}"
        if splits is not None:
            people = f"SELECT * FROM ({people}) LEFT JOIN ({splits}) USING (patient_id)"
        values = f"{data.number('numeric_value')} AS value, " if has_values else ""
        events = (
            f"SELECT {subject} AS patient_id, {data.day('time')} AS day, m.system, m.text AS code, {values}"
            f"CASE WHEN m.kind = 'other' THEN {quoted(NO_SYSTEM)} END AS reason "
            f"FROM {data.sql} d LEFT JOIN meds_codes m ON d.code = m.written "
            "WHERE m.kind IS NULL OR m.kind IN ('event', 'other')"
        )
        return Tables(people, [Events(data.label, events)])

    def _add_codes(self, db: "duckdb.DuckDBPyConnection", data: Table, reading: Reading) -> bool:
        """Make the table of distinct codes and what they say; count the rows of no code system by family.

        Return whether any of them may have values.
        """
        static = {static_prefix(column.name).lower(): column.name for column in reading.static_columns}
        parents = _parent_codes(db, reading.source)
        systems = prefixes(reading.settings.meds_prefixes)
        counts = db.sql(f"SELECT code, count(*) FROM {data.sql} WHERE code IS NOT NULL GROUP BY code ORDER BY 1")
        rows = []
        for code, count in counts.fetchall():
            if type(code) is not str:
                raise InputError(f"{reading.source}: {data.label}: code: {shown(code)}, expected text")
            meaning = meaning_of(code, systems, static, parents, reading.kept_systems)
            if meaning.kind == "other":
                reading.summary.families[str(meaning.system)] += count
            rows.append((code, meaning.kind, meaning.system, meaning.text))
        db.execute("CREATE TABLE meds_codes (written VARCHAR, kind VARCHAR, system VARCHAR, text VARCHAR)")
        if rows:
            import pyarrow

            found = pyarrow.table(
                {
                    column: pyarrow.array(values, pyarrow.string())
                    for column, values in zip(
                        ("written", "kind", "system", "text"), zip(*rows, strict=True), strict=True
                    )
                }
            )
            db.register("found_codes", found)
            db.execute("INSERT INTO meds_codes SELECT * FROM found_codes")
            db.unregister("found_codes")
        mapped = reading.settings.code_map is not None  # perhaps to a system of measurements
        found_systems = {system for _, kind, system, _ in rows if kind == "event"}
        return mapped or any(code_system(str(system)).measured for system in found_systems)


def prefixes(further: Mapping[str, str]) -> dict[str, str]:
    """Return code systems by prefix in lower case: ours, and those of config.yaml.

    Raises:
        OptionError: a further one names no code system.
    """
    found = dict(_PREFIXES)
    for prefix, system in further.items():
        try:
            found[prefix.strip().rstrip("/").lower()] = code_system(system).name
        except ValueError as error:
            raise OptionError(f"config.yaml: reading.meds_prefixes.{prefix}: {error}") from None
    return found


def meaning_of(
    written: str,
    systems: Mapping[str, str],
    static: Mapping[str, str],
    parents: Mapping[str, Sequence[str]],
    kept: frozenset[str],
) -> Meaning:
    """Return what a code of a MEDS dataset says.

    Args:
        written: the code.
        systems: code systems by prefix, `prefixes`.
        static: names of static columns by what stands before their values, in lower case.
        parents: parent codes of the dataset's own codes.
        kept: code systems that the user keeps; parents of these count beside diagnoses and drugs.

    >>> meaning_of("DIAGNOSIS//ICD//10//E119", prefixes({}), {}, {}, frozenset())
    Meaning(kind='event', system='icd10cm', text='E119')
    >>> meaning_of("Gender/F", prefixes({}), {"sex": "sex"}, {}, frozenset())
    Meaning(kind='sex', system=None, text='F')
    >>> meaning_of("HR", prefixes({}), {}, {"HR": ["LOINC/8867-4"]}, frozenset())
    Meaning(kind='other', system='HR', text=None)
    """
    folded = written.strip().lower()
    if folded in _BIRTH:
        return Meaning("birth")
    if folded in _PERIODS:
        return Meaning(_PERIODS[folded])
    if folded in _STAYS:
        return Meaning("had_plos", None, _STAYS[folded])
    parts = _parts(written)
    if len(parts) > 1:
        head, value = parts[0].lower(), _SEPARATOR.join(parts[1:])
        column = "sex" if head in _SEX else static.get(head)
        if column is not None:
            return Meaning(column, None, _SEX_CONCEPTS.get(value, value))
    if event := _event(parts, systems):
        return event
    for parent in parents.get(written, ()):
        event = _event(_parts(parent), systems)
        if event and (event.system in kept or code_system(str(event.system)).events in ("diagnoses", "drugs")):
            return event
    return Meaning("other", parts[0])


def _parts(code: str) -> list[str]:
    code = code.strip()
    parts = code.split(_SEPARATOR) if _SEPARATOR in code else code.split("/", 1)
    return [part.strip() for part in parts]


def _event(parts: Sequence[str], systems: Mapping[str, str]) -> Meaning | None:
    """Return the event whose code stands behind the longest prefix that names a code system."""
    for end in range(len(parts) - 1, 0, -1):
        prefix = _SEPARATOR.join(parts[:end]).lower()
        system = systems.get(prefix) or _registered(prefix)
        if system is not None:
            return Meaning("event", system, _SEPARATOR.join(parts[end:]))
    return None


@cache
def _registered(system: str) -> str | None:
    try:
        return code_system(system).name
    except ValueError:
        return None


def _data_files(source: Source) -> tuple[Path, ...]:
    """Return the Parquet files that have the columns of MEDS."""
    return tuple(file for file in source.of_kind(".parquet") if _is_data(file))


def _is_data(file: Path) -> bool:
    columns = column_names(file)
    return {"time", "code"} <= columns and bool(columns & set(_SUBJECTS))


def _parent_codes(db: "duckdb.DuckDBPyConnection", source: Source) -> dict[str, list[str]]:
    files = [file for file in source.of_kind(".parquet") if file.parent.name == "metadata" and file.stem == "codes"]
    if not files:
        return {}
    codes = Table(db, "metadata/codes", files)
    if not codes.has("code", "parent_codes"):
        return {}
    found = db.sql(f"SELECT code, parent_codes FROM {codes.sql} WHERE parent_codes IS NOT NULL").fetchall()
    for _, parents in found:
        if type(parents) is not list or not all(type(parent) is str for parent in parents):
            raise InputError(f"{files[0]}: parent_codes: {shown(parents)}, expected a list of codes")
    return dict(found)


def _splits(db: "duckdb.DuckDBPyConnection", source: Source) -> str | None:
    files = [file for file in source.of_kind(".parquet") if file.stem == "subject_splits"]
    if not files:
        return None
    splits = Table(db, "metadata/subject_splits", files)
    subject = next((column for column in _SUBJECTS if splits.has(column)), None)
    if subject is None or not splits.has("split"):
        return None
    numbers = " ".join(f"WHEN {quoted(split)} THEN {number}" for split, number in SPLITS.items())
    return f"SELECT {splits.id(subject)} AS patient_id, CASE split {numbers} END AS split FROM {splits.sql}"


def _subject_ids(db: "duckdb.DuckDBPyConnection", source: Source) -> str | None:
    """Return the patients of an export of ours in their order, with their ids as text; None for other datasets."""
    files = _written_ids(source)
    if len(files) != 1:
        return None
    ids = Table(db, str(SUBJECT_IDS), files)
    if not ids.has("subject_id", "patient_id"):
        return None
    return f"SELECT * FROM (SELECT subject_id AS patient_id, patient_id::VARCHAR AS written_id FROM {ids.sql})"


def _written_ids(source: Source) -> list[Path]:
    """Return the files of an export's patients."""
    return [file for file in source.files if file.parts[-2:] == SUBJECT_IDS.parts]


def _are_apart(files: Sequence[Path], whole: bool) -> bool:
    """Tell whether each patient is in one file only; files that are not ``whole`` are known by their ends alone."""
    ranges = _ranges_of_subjects(files)
    if ranges is not None and all(before[1] < after[0] for before, after in pairwise(sorted(ranges))):
        return True
    if not whole:
        return False
    db = connect(tuple(files))
    try:
        with explained("MEDS data"):
            of_each = " UNION ALL ".join(_distinct_subjects(Table(db, "MEDS data", (file,))) for file in files)
            twice = db.sql(f"SELECT subject FROM ({of_each}) GROUP BY subject HAVING count(*) > 1 LIMIT 1").fetchall()
    finally:
        db.close()
    return not twice


def _distinct_subjects(data: Table) -> str:
    subject = data.id(next(column for column in _SUBJECTS if data.has(column)))
    return f"SELECT DISTINCT {subject}::VARCHAR AS subject FROM {data.sql}"


def _ranges_of_subjects(files: Sequence[Path]) -> list[tuple[int, int]] | None:
    """Return the least and the greatest id in each file; None where their ends do not tell."""
    import duckdb

    db = connect(files, threads=1)
    try:
        said = db.execute(
            "SELECT file_name, lower(path_in_schema), type, stats_min_value, stats_max_value "
            f"FROM parquet_metadata({file_list(files)}) WHERE lower(path_in_schema) IN {_SUBJECTS}"
        ).fetchall()
    except duckdb.Error:  # what is wrong is said where they are read
        return None
    finally:
        db.close()
    found: dict[str, dict[str, list[Any]]] = {}
    for file, column, *facts in said:
        found.setdefault(file, {}).setdefault(column, []).append(facts)
    ranges = []
    for columns in found.values():
        groups = columns[min(columns, key=_SUBJECTS.index)]
        if not all(kind in ("INT32", "INT64") for kind, *_ in groups):
            return None
        try:  # of what is stored as a number, times are none
            ends = [(int(least), int(greatest)) for _, least, greatest in groups]
        except (ValueError, TypeError):
            return None
        ranges.append((min(least for least, _ in ends), max(greatest for _, greatest in ends)))
    return ranges if len(ranges) == len(files) else None
