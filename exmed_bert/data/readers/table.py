"""A table of a source in the database: its files, and SQL expressions for its columns."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exmed_bert.console import InputError
from exmed_bert.data.bounded import OUT_OF_CORE, check_parquet
from exmed_bert.data.database import file_list, name, quoted
from exmed_bert.data.gzipped import check_gzip
from exmed_bert.data.readers.headers import SAVE_AS_UTF_8, UTF_8, text_header, time_zone
from exmed_bert.data.readers.source import TABLE_FORMATS

if TYPE_CHECKING:
    import duckdb


INTEGERS = ("BIGINT", "INTEGER", "SMALLINT", "TINYINT", "UINTEGER", "USMALLINT", "UTINYINT")
_TEXT = "VARCHAR"
_QUOTED = r"\"[^\"]*\"|'[^']*'"
_PROBLEMS = {  # signs of what is wrong in the errors of DuckDB
    "unterminated quote": "a quotation mark is not closed",
    "is not utf-8 encoded": f"is not UTF-8 text; {SAVE_AS_UTF_8}",
    "Maximum line size": "is longer than a line can be; is a quotation mark not closed?",
    "invalid state": "mixes ends of lines (LF and CRLF), or has text behind a closing quotation mark",
}


class Table:
    """A table of a source, with expressions for its columns, whose names may be in any letter case.

    Attributes:
        label: what counts and errors call it.
        sql: what to select from.
        columns: type of each column, by its name in lower case.
    """

    def __init__(
        self,
        db: "duckdb.DuckDBPyConnection",
        label: str,
        paths: Sequence[Path],
        encoding: str = UTF_8,
        **options: str,
    ) -> None:
        """Look at the files.

        Args:
            db: the connection.
            label: what counts and errors call it.
            paths: .parquet, .csv, .tsv, the last two also .gz, all with the same columns.
            encoding: of text files; latin-1 and utf-16 are known beside UTF-8.
            options: further options of DuckDB's ``read_csv``, as SQL.

        Raises:
            InputError: a file is damaged, or no table, or stands there in two formats.
        """
        _refuse_twins(paths)
        self._paths = tuple(paths)
        self.label = label if len(paths) == 1 else f"{label} ({len(paths)} files)"
        self.sql = scan(paths, encoding, **options)
        with explained(str(paths[0] if len(paths) == 1 else paths[0].parent)):
            described = db.sql(f"DESCRIBE SELECT * FROM {self.sql}").fetchall()
        self._names = {str(row[0]).strip().lower(): str(row[0]) for row in described}
        self.columns = {str(row[0]).strip().lower(): str(row[1]) for row in described}

    def has(self, *columns: str) -> bool:
        """Tell whether the table has all these columns."""
        return all(column.lower() in self.columns for column in columns)

    def raw(self, column: str) -> str:
        """Return the column as it is, NULL where the table has none of that name."""
        found = self._names.get(column.lower())
        return "NULL" if found is None else name(found)

    def text(self, column: str) -> str:
        """Return the column as text without blanks around it; empty text is NULL.

        Of a floating-point column, which a column of whole numbers with gaps becomes, 1.0 is the text 1.
        """
        if not self.has(column):
            return "NULL::VARCHAR"
        return f"nullif(trim({as_text(self.raw(column), self.columns[column.lower()])}), '')"

    def id(self, column: str) -> str:
        """Return the column as ids: whole numbers as they are, others as text."""
        return self.raw(column) if self.columns.get(column.lower()) in INTEGERS else self.text(column)

    def is_list(self, column: str) -> bool:
        """Tell whether cells of the column are lists, as Parquet allows."""
        return self.columns.get(column.lower(), "").endswith("[]")

    @property
    def names(self) -> list[str]:
        """The names of the columns as written."""
        return [written.strip() for written in self._names.values()]

    def key(self, column: str) -> str:
        """Return the column as text to join by: 7.0, what is left of 7 in a column with gaps, is 7."""
        text = self.text(column)
        return f"CASE WHEN suffix({text}, '.0') THEN left({text}, -2) ELSE {text} END"

    def day(self, *columns: str, pattern: str | None = None) -> str:
        """Return days since 1970-01-01 of the first column that has a date, as written: no time zone moves it.

        Args:
            columns: of the table.
            pattern: of ``strptime``; not given: ISO dates and times, and YYYYMMDD.
        """
        days = [self._day(column, pattern) for column in columns if self.has(column)]
        return f"coalesce({', '.join(days)})" if days else "NULL::INTEGER"

    def _day(self, column: str, pattern: str | None) -> str:
        kind = self.columns[column.lower()]
        if kind.startswith(("DATE", "TIMESTAMP")):
            return f"day_of_date({self._local(column)}::DATE)"
        if pattern is not None:
            return f"day_of_date(try_strptime({self.text(column)}, {quoted(pattern)})::DATE)"
        return f"day_of_text({self.text(column)})"

    def time(self, column: str) -> str:
        """Return the column as TIMESTAMP, the local time as written; NULL where it is none."""
        if not self.has(column):
            return "NULL::TIMESTAMP"
        if self.columns[column.lower()].startswith(("DATE", "TIMESTAMP")):
            return f"{self._local(column)}::TIMESTAMP"
        return f"time_of_text({self.text(column)})"

    def _local(self, column: str) -> str:
        """Return a date or time as it was written: Parquet keeps times with a zone in UTC, and names the zone."""
        if not self.columns[column.lower()].startswith(("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ")):
            return self.raw(column)
        time = f"{self.raw(column)}::TIMESTAMPTZ"
        zone = time_zone(self._paths, column)
        offset = re.fullmatch(r"([+-])(\d\d):?(\d\d)", zone)
        if offset is None:
            return f"timezone({quoted(zone)}, {time})"
        minutes = int(f"{offset[1]}1") * (60 * int(offset[2]) + int(offset[3]))
        return f"(timezone('UTC', {time}) + to_minutes({minutes}))"

    def number(self, column: str) -> str:
        """Return the column as a number of 32 bits, NULL where it is none."""
        return f"TRY_CAST({self.text(column)} AS FLOAT)" if self.has(column) else "NULL::FLOAT"

    def timed(self, column: str) -> str:
        """Return whether the column has a time of day, not only a date."""
        if not self.has(column):
            return "false"
        kind = self.columns[column.lower()]
        if kind.startswith(("DATE", "TIMESTAMP")):
            return "true" if kind.startswith("TIMESTAMP") else "false"
        return f"coalesce(length({self.text(column)}) > 10, false)"

    def year(self, column: str) -> str:
        """Return the column as a year, NULL where it is none."""
        return f"TRY_CAST(TRY_CAST({self.text(column)} AS DOUBLE) AS INTEGER)" if self.has(column) else "NULL::INTEGER"


def as_text(expression: str, kind: str) -> str:
    if kind in ("DOUBLE", "FLOAT"):
        whole = f"abs({expression}) < 1e18 AND {expression} = trunc({expression})"
        return (
            f"CASE WHEN {whole} THEN TRY_CAST({expression} AS BIGINT)::VARCHAR "
            f"WHEN isfinite({expression}) THEN {expression}::VARCHAR END"
        )
    return f"{expression}::VARCHAR"


def _refuse_twins(paths: Sequence[Path]) -> None:
    """Refuse files that hold the same rows, as far as their names say: patients.csv beside patients.csv.gz."""
    found: dict[Path, Path] = {}
    for path in paths:
        stem = next((path.name[: -len(end)] for end in TABLE_FORMATS if path.name.lower().endswith(end)), path.name)
        twin = found.setdefault(path.with_name(stem), path)
        if twin is not path:
            raise InputError(f"{path}: stands beside {twin.name}, expected one of them: rows would be read twice")


def scan(paths: Sequence[Path], encoding: str = UTF_8, **options: str) -> str:
    """Return what SQL selects from to read files of one table; text files as text, so that no code becomes a number.

    The header of a text file decides its columns and what separates them: DuckDB would guess both from the lines, and
    skip those that are unlike others.

    Args:
        paths: the files; their columns may be in different orders.
        encoding: of text files; latin-1 and utf-16 are known beside UTF-8.
        options: further options of DuckDB's ``read_csv``, as SQL.

    Raises:
        InputError: a text file is damaged, has no header, or one with a name twice.
    """
    check_gzip(paths)
    check_parquet(paths, OUT_OF_CORE)
    if paths[0].name.lower().endswith(".parquet"):
        return f"read_parquet({file_list(paths)}, union_by_name = true)"
    alike: dict[tuple[str, ...], list[Path]] = {}
    for path in paths:
        alike.setdefault(text_header(path, encoding), []).append(path)
    parts = []
    for (separator, *columns), files in alike.items():
        said = {"auto_detect": "false", "header": "true", "delim": quoted(separator)}
        said |= {"quote": quoted('"'), "escape": quoted('"')} | options
        if encoding != UTF_8:
            said["encoding"] = quoted(encoding)
        said["columns"] = f"{{{', '.join(f'{quoted(column)}: {quoted(_TEXT)}' for column in columns)}}}"
        parts.append(
            f"read_csv({file_list(files)}, {', '.join(f'{option} = {value}' for option, value in said.items())})"
        )
    if len(parts) == 1:
        return parts[0]
    return f"({' UNION ALL BY NAME '.join(f'SELECT * FROM {part}' for part in parts)})"


class explained:
    """Turn DuckDB's errors inside the block into one line that names ``what``."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        import duckdb

        if isinstance(error, duckdb.OutOfMemoryException):
            raise InputError(f"{self.what}: not enough memory or temporary disk space to sort it") from error
        if isinstance(error, duckdb.Error):
            text = str(error).strip()
            file = re.search(r"^\s*file = (.+)$", text, re.MULTILINE)
            what = file[1] if file else self.what
            raise InputError(f"{what}: {_problem(text)}") from error


def _problem(said: str) -> str:
    """Return what is wrong, after an error of DuckDB, which quotes lines and values of files.

    >>> _problem("CSV Error on Line: 7\\nOriginal Line: 5,I10\\nExpected Number of Columns: 3 Found: 2\\n")
    'line 7: has 2 columns, expected 3 as in the header'
    >>> _problem('Conversion Error: Could not convert string "5,I10" to INT64')
    'cannot be read as a table: Conversion Error: Could not convert string ... to INT64'
    """
    line = re.search(r"CSV Error on Line: (\d+)", said)
    where = f"line {line[1]}: " if line else ""
    if count := re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", said):
        return f"{where}has {count[2]} columns, expected {count[1]} as in the header"
    for sign, problem in _PROBLEMS.items():
        if sign in said:
            return where + problem
    if line:
        return f"{where}cannot be read as a line of a table"
    shown = re.sub(_QUOTED, lambda text: text[0] if os.path.isfile(text[0][1:-1]) else "...", said.splitlines()[0])
    return f"cannot be read as a table: {shown}"


def add_macros(db: "duckdb.DuckDBPyConnection") -> None:
    """Define the days and times of text; the first ten characters of an ISO time are its local date."""
    db.execute(  # days beyond the calendar, infinity among them, are none
        "CREATE MACRO day_of_date(d) AS CASE WHEN d BETWEEN DATE '0001-01-01' AND DATE '9999-12-31' "
        "THEN date_diff('day', DATE '1970-01-01', d)::INTEGER END"
    )
    db.execute(
        "CREATE MACRO day_of_text(t) AS day_of_date(coalesce(TRY_CAST(substr(t, 1, 10) AS DATE), "
        "CASE WHEN regexp_matches(t, '^[0-9]{8}([^0-9]|$)') THEN try_strptime(substr(t, 1, 8), '%Y%m%d')::DATE END))"
    )
    # Neither seconds' fractions nor an offset from UTC matter: hours and minutes stand as written.
    db.execute(
        "CREATE MACRO time_of_text(t) AS coalesce(TRY_CAST(replace(substr(t, 1, 19), 'T', ' ') AS TIMESTAMP), "
        "TRY_CAST(replace(substr(t, 1, 16), 'T', ' ') AS TIMESTAMP), TRY_CAST(substr(t, 1, 10) AS TIMESTAMP))"
    )
