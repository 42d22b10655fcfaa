"""Patients from tables of the user's own, long or wide, whose columns ``--columns`` names.

A table with date and code is one of events, in a row one code or several; one with people's columns, such as the year
of birth, says who they are; a table may be both. In which system codes are is declared, never guessed.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from exmed_bert.codes import code_system, code_systems
from exmed_bert.console import InputError, OptionError
from exmed_bert.data.database import quoted
from exmed_bert.data.readers.base import Reading
from exmed_bert.data.readers.columns import EVENT_ROLES, EXAMPLE, ROLES, Columns, expand, parse
from exmed_bert.data.readers.headers import column_names
from exmed_bert.data.readers.own_table import OwnTable
from exmed_bert.data.readers.source import TABLE_FORMATS, Source
from exmed_bert.data.readers.summary import NO_DATE, ORPHANS, ROWS, ReadingSummary
from exmed_bert.data.readers.table import Table
from exmed_bert.data.readers.tables import Events, TableReader, Tables
from exmed_bert.settings import ReadingSettings

if TYPE_CHECKING:
    import duckdb

_TIDY = ("patient_id", "date", "code")  # columns by which tables are recognized without --columns
_OUR_RECORD = {"diagnoses", "drugs"}  # list columns of our own records in Parquet
_OTHER_FORMATS = {
    ".xlsx": "an Excel workbook",
    ".xls": "an Excel workbook",
    ".sas7bdat": "a SAS data set",
    ".xpt": "a SAS data set",
    ".sav": "an SPSS file",
    ".dta": "a Stata file",
    ".rds": "an R object",
    ".zip": "a ZIP archive",
}
_MISSING = "['', 'NA', 'N/A', '#N/A', 'NULL', 'null', 'NaN', 'nan', '\\N', '.']"  # as R, SQL, pandas and SAS write it
_SHOWN = 40  # names of columns in an error
_FORMAT_HINT = "expected YYYY-MM-DD or YYYYMMDD, or the format in --columns as date_format=%m/%d/%Y"


class CsvReader(TableReader):
    """Reads tables of the user's own."""

    name = "csv"
    title = "your own tables"

    def recognizes(self, source: Source, settings: ReadingSettings) -> str | None:
        """Tell by --columns, or by columns with the usual names.

        Raises:
            InputError: the files are of a program whose format is not read.
        """
        tables = source.of_kind(*TABLE_FORMATS)
        if not tables:
            _refuse_other_formats(source)
            return None
        if any(_OUR_RECORD & column_names(file) for file in tables if file.suffix.lower() == ".parquet"):
            return None
        if settings.columns:
            return "--columns"
        tidy = any(set(_TIDY) <= column_names(files[0]) for files in source.tables.values())
        return f"columns {', '.join(_TIDY)}" if tidy else None

    def tables(self, db: "duckdb.DuckDBPyConnection", reading: Reading) -> Tables:
        """Find people and events in the columns that are named."""
        parts = _parts(db, reading)
        has = "; ".join(f"{part.table.label} has {_listed(part.table)}" for part in parts)
        if not any(part.has_events for part in parts):
            raise InputError(
                f"{reading.source}: no table has the columns {', '.join(_TIDY)}; name yours with --columns {EXAMPLE}; "
                f"{has}"
            )
        if not any("birth" in part.columns for part in parts):
            raise InputError(
                f"{reading.source}: no table has years of birth; name their column with --columns birth=YOB, or add a "
                f"table of people with the columns patient_id, birth_year, sex, state; {has}"
            )
        people = [f"SELECT * FROM ({part.people()})" for part in parts if part.has_people]
        several = {part.table.label for part in parts if [p.table.label for p in parts].count(part.table.label) > 1}
        events = [
            Events(
                part.table.label + (f", {part.named.written('code')}" if part.table.label in several else ""),
                part.events(),
            )
            for part in parts
            if part.has_events
        ]
        return Tables(" UNION ALL BY NAME ".join(dict.fromkeys(people)), events)

    def check(self, summary: ReadingSummary) -> None:
        """Refuse tables of which no row could be read for a reason that a wrong option has.

        Raises:
            InputError: all rows are without a date that can be read, or of no patient.
        """
        for table, counts in summary.files.items():
            of_patients = counts[ROWS] - counts[ORPHANS]
            if counts[ROWS] and not of_patients:
                raise InputError(f"{table}: no row is of a patient with a row among the people; expected the same ids")
            if of_patients and counts[NO_DATE] == of_patients:
                raise InputError(f"{table}: no row has a date that can be read; {_FORMAT_HINT}")


def _parts(db: "duckdb.DuckDBPyConnection", reading: Reading) -> list[OwnTable]:
    """Return what each ``--columns`` finds in each table that it is for.

    Raises:
        OptionError: an option is wrong, or for no file.
        InputError: a table lacks what is named, or there is no table.
    """
    source = reading.source
    if not source.tables:
        _refuse_other_formats(source)
        raise InputError(f"{source}: holds no table, expected {', '.join(TABLE_FORMATS)}")
    static = [column.name for column in reading.static_columns]
    options = [parse(text, static) for text in reading.settings.columns]
    for option, text in zip(options, reading.settings.columns, strict=True):
        _check(db, option, text)
        for key in option.undeclared:
            reading.summary.notes.append(f"{key}: --columns names a column for it, but here it is no static column.")
    for file in source.files:
        if kind := _OTHER_FORMATS.get(file.suffix.lower()):
            reading.summary.notes.append(f"{file.name} is {kind}, which is not read")
    usual, found = Columns(), []
    for files, chosen in _assigned(source, options):
        for option in chosen or [usual]:
            label = (
                files[0].name if len(files) == 1 else next(key for key, of in source.tables.items() if files[0] in of)
            )
            part = _part(Table(db, label, files, option.encoding, nullstr=_MISSING), option, static)
            if option.of_role or part.has_events or part.has_people:
                found.append(part)
            else:
                reading.summary.notes.append(
                    f"{label} is not read: it has no columns named {', '.join(_TIDY)} or birth_year"
                )
    for option in {id(part.named): part.named for part in found}.values():
        _refuse_missing([part for part in found if part.named is option])
    return found


def _assigned(source: Source, options: Sequence[Columns]) -> Iterator[tuple[list[Path], list[Columns]]]:
    """Yield the files of each table, and the options that are for them.

    Raises:
        OptionError: an option is for no file.
    """
    groups: dict[tuple[str, bool, tuple[int, ...]], list[Path]] = {}
    for table, files in source.tables.items():
        for file in files:
            numbers = tuple(i for i, option in enumerate(options) if option.is_for(file, table))
            numbers = numbers or tuple(i for i, option in enumerate(options) if option.pattern is None)
            groups.setdefault((table, file.suffix.lower() == ".parquet", numbers), []).append(file)
    used = {number for _, _, numbers in groups for number in numbers}
    for number, option in enumerate(options):
        if number not in used and option.pattern is not None:
            shown = ", ".join(file.name for paths in source.tables.values() for file in paths)
            raise OptionError(f"--columns {option.pattern}: no file is named so; expected one of {shown}")
    for (_, _, numbers), of_group in groups.items():
        yield of_group, [options[number] for number in numbers]


def _part(table: Table, named: Columns, static: Sequence[str]) -> OwnTable:
    system = None
    columns: dict[str, Sequence[str]] = {}
    missing: dict[str, Sequence[str]] = {}
    for role, written in named.of_role.items():
        if role == "system" and "system" not in named.values and (system := _registered(written[0])):
            continue
        found, lacking = expand(written, table.columns)
        if lacking:
            missing[role] = lacking
        else:
            columns[role] = found
    for role in [*ROLES, *static]:
        if role not in named.of_role and (named.is_of_events or role not in EVENT_ROLES):
            known = [column for column in ROLES.get(role, (role,)) if table.has(column)]
            columns |= {role: known[:1]} if known else {}
    return OwnTable(table, named, columns, missing, static, system)


def _refuse_missing(parts: Sequence[OwnTable]) -> None:
    """Refuse tables that lack what their option names.

    An option without file names may be for several tables, each of which has a part of what is named; but nothing may
    be in none of them, and no table may have only a part of its events.
    """
    for part in parts:
        has = f"its columns: {_listed(part.table)}"
        alone = len(parts) == 1 or part.named.pattern is not None
        lacking = [role for role in part.missing if role != "system"]
        in_none = [role for role in lacking if alone or role == "patient" or all(role in p.missing for p in parts)]
        cut = (
            [role for role in ("date", "code") if role in part.missing] if {"date", "code"} & set(part.columns) else []
        )
        for role in in_none + cut:
            column, option = part.missing[role][0], f"--columns {part.named.written(role)}"
            files = (
                "" if alone else "; if it is not meant, name the files that are, such as --columns 'claims*.csv:...'"
            )
            raise InputError(f"{part.table.label}: has no column {column}, which {option} names; {has}{files}")
        if "patient" not in part.columns:
            raise InputError(
                f"{part.table.label}: has no column patient_id; name the patients' ids with --columns patient=COLUMN; "
                f"{has}"
            )
        if not part.has_events and not part.has_people:
            raise InputError(
                f"{part.table.label}: has neither dates and codes nor people's columns among those that --columns "
                f"names; {has}"
            )
        if part.has_events and part.system is None and "system" not in part.columns:
            known = ", ".join(system.name for system in code_systems())
            if "system" in part.missing:
                raise InputError(
                    f"{part.table.label}: {part.named.written('system')}: is neither a code system ({known}) nor a "
                    f"column; {has}"
                )
            raise InputError(
                f"{part.table.label}: no code system is declared; add to --columns system=icd10cm, or another of "
                f"{known}, or system=COLUMN where a column names it; {has}"
            )


def _check(db: "duckdb.DuckDBPyConnection", named: Columns, text: str) -> None:
    """Refuse a format of dates that is none, and values that mean no code system."""
    import duckdb

    if named.date_format is not None:
        try:
            db.sql(f"SELECT strptime(NULL, {quoted(named.date_format)})").fetchall()
        except duckdb.Error as error:
            problem = str(error).strip().splitlines()[0].rpartition(": ")[2]
            raise OptionError(f"--columns {text}: date_format: {problem}, expected a format as %m/%d/%Y") from None
    for meaning in named.values.get("system", {}).values():
        try:
            code_system(meaning)
        except ValueError as error:
            raise OptionError(f"--columns {text}: system: {error}") from None


def _registered(system: str) -> str | None:
    try:
        return code_system(system).name
    except ValueError:
        return None


def _listed(table: Table) -> str:
    names = table.names
    return ", ".join(names[:_SHOWN]) + (f", ... ({len(names)} in all)" if len(names) > _SHOWN else "")


def _refuse_other_formats(source: Source) -> None:
    """Refuse files of programs whose formats are not read, where there are no other files."""
    kinds = [_OTHER_FORMATS.get(file.suffix.lower()) for file in source.files]
    if kinds and all(kinds):
        raise InputError(f"{source.files[0]}: is {kinds[0]}, which is not read; save its tables as .csv or .parquet")
