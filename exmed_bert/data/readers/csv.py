"""Patients from tables of the user's own, long or wide, whose columns ``--columns`` names.

A table with date and code is one of events, in a row one code or several; one with people's columns, such as the year
of birth, says who they are; a table may be both. In which system codes are is declared, never guessed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from exmed_bert.codes import code_system, code_systems
from exmed_bert.console import InputError, OptionError
from exmed_bert.data.database import name, quoted
from exmed_bert.data.patient import PERIOD_FIELDS
from exmed_bert.data.readers.base import Reading
from exmed_bert.data.readers.columns import EVENT_ROLES, EXAMPLE, ROLES, Columns, expand, parse
from exmed_bert.data.readers.headers import column_names
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
_DIGITS_ONLY = ("rxnorm", "snomedct", "ndc")  # 313782.0 is what is left of a code in a column of numbers with gaps
_TRUE, _FALSE = ("1", "1.0", "true", "t", "yes", "y"), ("0", "0.0", "false", "f", "no", "n")
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


@dataclass(frozen=True)
class Part:
    """What one ``--columns`` finds in a table.

    Attributes:
        table: the table.
        named: the option.
        columns: the table's columns by what they hold.
        missing: those that are named and that it lacks.
        static: names of the static columns that are read.
        system: the code system of all codes, None where a column says it.
    """

    table: Table
    named: Columns
    columns: Mapping[str, Sequence[str]]
    missing: Mapping[str, Sequence[str]]
    static: Sequence[str]
    system: str | None

    @property
    def has_events(self) -> bool:
        """Whether there are dates and codes."""
        return {"patient", "date", "code"} <= set(self.columns)

    @property
    def has_people(self) -> bool:
        """Whether something is said of the patients themselves."""
        return "patient" in self.columns and bool(set(self.columns) - {"patient", *EVENT_ROLES})

    def people(self) -> str:
        """Return SQL of people as the engine takes it."""
        found = {"patient_id": self.table.id(self._only("patient"))}
        if "birth" in self.columns:
            found["birth_year"] = self._birth_year()
        found |= {column: self._value(column) for column in self.static if column in self.columns}
        for role, column in zip(("observation_start", "observation_end", "death"), PERIOD_FIELDS, strict=True):
            if role in self.columns:
                found[column] = self._day(role)
        if "plos" in self.columns:
            text = f"lower({self._value('plos')})"
            found["had_plos"] = f"CASE WHEN {text} IN {_TRUE} THEN true WHEN {text} IN {_FALSE} THEN false END"
        listed = ", ".join(f"{sql} AS {name(column)}" for column, sql in found.items())
        if not self.has_events:
            return f"SELECT {listed} FROM {self.table.sql}"
        columns = ", ".join(map(name, found))  # the same with each of a patient's events
        return (
            f"SELECT {columns} FROM (SELECT row_number() OVER () AS _row, {listed} FROM {self.table.sql}) "
            f"GROUP BY {columns} ORDER BY min(_row)"
        )

    def events(self) -> str:
        """Return SQL of events: of a row with several codes one each, of a row without any one without a code."""
        system = quoted(self.system) if self.system else self._value("system")
        row = f"{self.table.id(self._only('patient'))} AS patient_id, {self._day('date')} AS day, {system} AS system"
        columns, separator = self.columns["code"], self.named.separator
        one_each = not separator and not any(self.table.is_list(column) for column in columns)
        if one_each and len(columns) == 1:
            return f"SELECT {row}, {self._code(self.table.text(columns[0]))} AS code FROM {self.table.sql}"
        if one_each:
            codes = f"[{', '.join(map(self.table.text, columns))}]"
        else:
            cells = ", ".join(self._cell(column, separator) for column in columns)
            codes = f"list_transform(flatten([{cells}]), lambda code: nullif(trim(code), ''))"
        codes = f"list_filter({codes}, lambda code: code IS NOT NULL)"
        return (
            f"SELECT patient_id, day, system, {self._code('code')} AS code FROM (SELECT patient_id, day, system, "
            f"unnest(CASE WHEN coalesce(len(codes), 0) = 0 THEN [NULL] ELSE codes END) AS code "
            f"FROM (SELECT {row}, {codes} AS codes FROM {self.table.sql}))"
        )

    def _cell(self, column: str, separator: str | None) -> str:
        """Return the codes of a cell as a list."""
        if self.table.is_list(column):
            return f"{self.table.raw(column)}::VARCHAR[]"
        text = self.table.text(column)
        return f"string_split({text}, {quoted(separator)})" if separator else f"[{text}]"

    def _code(self, text: str) -> str:
        return f"regexp_replace({text}, '[.]0+$', '')" if self.system in _DIGITS_ONLY else text

    def _only(self, role: str) -> str:
        return self.columns[role][0]

    def _day(self, role: str) -> str:
        return self.table.day(self._only(role), pattern=self.named.date_format)

    def _birth_year(self) -> str:
        """Return the year of a year, a date in the table's format or an ISO date."""
        column = self._only("birth")
        number = f"TRY_CAST({self.table.text(column)} AS DOUBLE)"
        day = f"coalesce({self._day('birth')}, {self.table.day(column)})"
        return (
            f"CASE WHEN {number} BETWEEN -9999 AND 9999 THEN {number}::INTEGER "
            f"ELSE year(DATE '1970-01-01' + {day})::INTEGER END"
        )

    def _value(self, role: str) -> str:
        """Return text, its values exchanged for what they mean."""
        text = self.table.text(self._only(role))
        meanings = self.named.values.get(role, {})
        if not meanings:
            return text
        cases = " ".join(f"WHEN {quoted(value)} THEN {quoted(meaning)}" for value, meaning in meanings.items())
        return f"CASE regexp_replace({text}, '[.]0+$', '') {cases} ELSE {text} END"


def _parts(db: "duckdb.DuckDBPyConnection", reading: Reading) -> list[Part]:
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
    for (_, _, numbers), files in groups.items():
        yield files, [options[number] for number in numbers]


def _part(table: Table, named: Columns, static: Sequence[str]) -> Part:
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
    return Part(table, named, columns, missing, static, system)


def _refuse_missing(parts: Sequence[Part]) -> None:
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
