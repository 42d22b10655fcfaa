"""Patients from joined tables: a reader says in SQL where people and events stand, DuckDB joins and sorts them.

Rows go into the database once; then patients are streamed in the order of the people's table, events by day and, within
a day, in the order of their files. Neither the joins nor the sort have to fit into memory.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exmed_bert import console
from exmed_bert.codes import CodeKey, code_system
from exmed_bert.console import InputError
from exmed_bert.data.database import connect, name, quoted
from exmed_bert.data.export.provenance import read_provenance
from exmed_bert.data.formats import is_export
from exmed_bert.data.measured import FLAGS, Measured, nothing_measured
from exmed_bert.data.origin import Origin
from exmed_bert.data.patient import BIRTH_DATE, DAY_FIELDS, NO_DAY, EventColumns, PatientColumns, PatientId
from exmed_bert.data.readers.base import Reading
from exmed_bert.data.readers.source import Source
from exmed_bert.data.readers.summary import NO_BIRTH_YEAR, NO_CODE, NO_DATE, NO_SYSTEM, ORPHANS, ROWS, ReadingSummary
from exmed_bert.data.readers.table import INTEGERS, Table, add_macros, as_text, explained
from exmed_bert.data.splits import InputSplit
from exmed_bert.data.static_columns import StaticColumn
from exmed_bert.settings import ReadingSettings

if TYPE_CHECKING:
    import duckdb

SPLITS = {split.name.lower(): int(split) for split in InputSplit if split >= 0}  # the names are those of MEDS
_MEASURED = {"value": "FLOAT", "flag": "VARCHAR"}  # columns of results
_BATCH = 500_000  # events in a batch of the stream
_WHOLE_NUMBER = "-?(0|[1-9][0-9]{0,17})([.]0+)?"  # 1.0 is what is left of 1 in a column with gaps
_YEAR_RANGE = (-9999, 9999)


@dataclass(frozen=True)
class Events:
    """SQL of events.

    Attributes:
        label: of the file or table, for counts.
        sql: SELECT of ``patient_id``, ``day`` (days since 1970-01-01), ``system`` (any name of a code system), ``code``
            as text, and if some rows are no events for a reason of the format, ``reason``: why, else NULL. What was
            measured has ``value`` (a number) and, where a reference range is known, ``flag`` (one of `FLAGS`), too.
        rows: of the table, where one may be several events; None where each is one.
    """

    label: str
    sql: str
    rows: int | None = None


@dataclass(frozen=True)
class Tables:
    """Where a source says what, as SQL.

    Attributes:
        people: SELECT of ``patient_id`` and ``birth_year``, and of what is known of ``sex``, ``state``, further static
            columns by their names, ``observation_start``, ``observation_end``, ``death_date`` and ``birth_date`` (days;
            a birth on 1 January stands for the year alone), ``had_plos`` (BOOLEAN), ``split`` (a number of `SPLITS`)
            and ``written_id`` (the id as text, where ``patient_id`` is but a number for it). A patient may have several
            rows.
        events: of all tables.
        stays: SELECT of ``patient_id``, ``started`` and ``ended`` (TIMESTAMP), ``timed`` (whether both have a time of
            day) of inpatient stays; None where the format has no stays.
    """

    people: str
    events: Sequence[Events]
    stays: str | None = None


class TableReader(ABC):
    """Base of the readers of formats that are tables.

    Attributes:
        name: of the format, after --input-format.
        title: of the format, for messages.
        used: names of the tables that are read, where others may be many times as large; none: all files are.
    """

    name: str
    title: str
    used: tuple[str, ...] = ()
    own_record = False

    @abstractmethod
    def recognizes(self, source: Source, settings: ReadingSettings) -> str | None:
        """Return by what files are known to be of this format, None where they are not."""

    @abstractmethod
    def tables(self, db: "duckdb.DuckDBPyConnection", reading: Reading) -> Tables:
        """Say where the source says what.

        Raises:
            InputError: a table or a column is missing.
        """

    def files(self, reading: Reading) -> tuple[Path, ...]:
        """Return what SQL may read: the files of the input."""
        return reading.source.files

    def table(self, db: "duckdb.DuckDBPyConnection", source: Source, name: str, *columns: str) -> Table:
        """Return the table of a name in lower case.

        Raises:
            InputError: the source has none of that name, or it lacks one of the columns.
        """
        files = source.tables.get(name)
        if files is None:
            raise InputError(f"{source}: holds no table {name}, which {self.title} has (.csv, .csv.gz or .parquet)")
        table = Table(db, name, files)
        if missing := [column for column in columns if not table.has(column)]:
            raise InputError(
                f"{files[0]}: lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}, which {self.title} has"
            )
        return table

    def check(self, summary: ReadingSummary) -> None:  # noqa: B027
        """Look at the counts of the rows before patients are read; to refuse what can only be a wrong option."""

    def divide(self, source: Source) -> list[Source]:
        """Return all files together: a table may have any patient in any file."""
        return [source]

    def origin(self, source: Source) -> Origin:
        """Return what is known of where the patients come from: the digest of the files, or of what they were."""
        if (made_of := exported(source)) is not None:
            return made_of
        used = [file for table in self.used for file in source.tables.get(table, ())]
        return Origin(source.fingerprint(used or None))

    def chunks(self, reading: Reading, size: int) -> Iterator[PatientColumns]:
        """Yield the patients as columns; see `base.Reader.chunks`."""
        db = connect(self.files(reading))
        try:
            # Small tables are built into hash tables, events run past them in their order.
            db.execute("SET disabled_optimizers = 'join_order,build_side_probe_side'")
            add_macros(db)
            with explained(str(reading.source)):
                tables = self.tables(db, reading)
                people = _People(db, tables, reading)
                _load_events(db, tables.events, people, reading.summary)
                self.check(reading.summary)
                yield from _stream(db, people, reading, size)
        finally:
            db.close()


def exported(source: Source) -> Origin | None:
    """Return where the patients of an export of ours come from, None for other files."""
    folder = source.paths[0]
    return read_provenance(folder, source.digest) if len(source.paths) == 1 and is_export(folder) else None


class _People:
    """The patients, in the database: table ``patients``, with a ``row`` for those that are read."""

    def __init__(self, db: "duckdb.DuckDBPyConnection", tables: Tables, reading: Reading) -> None:
        self.db = db
        db.execute(f"CREATE TABLE people AS SELECT row_number() OVER () AS _place, * FROM ({tables.people})")
        known = {str(row[0]): str(row[1]) for row in db.sql("DESCRIBE people").fetchall()}
        self.numbers = _are_numbers(db, known["patient_id"])
        self.static = [column for column in reading.static_columns if column.name in known]
        columns = ["min(birth_year) AS birth_year"]
        columns += [f"min({name(column.name)}::VARCHAR) AS {name(_static(column))}" for column in self.static]
        merged = {"observation_start": "min", "observation_end": "max", "death_date": "min", "birth_date": "min"}
        merged |= {"split": "min", "had_plos": "bool_or", "written_id": "min"}
        self.further = [column for column in merged if column in known]
        columns += [f"{merged[column]}({column}) AS {column}" for column in self.further]
        single = ["birth_year", *(column.name for column in self.static)]
        differ = [f"coalesce(min({name(column)}) <> max({name(column)}), false)" for column in single]
        db.execute(
            f"CREATE TABLE grouped AS SELECT {self.key('patient_id', known['patient_id'])} AS key, "
            f"min(_place) AS _place, {', '.join(columns)}, [{', '.join(differ)}] AS differ FROM people GROUP BY ALL"
        )
        db.execute("DROP TABLE people")
        found = self._one(f"SELECT {', '.join(f'bool_or(differ[{i + 1}])' for i in range(len(single)))} FROM grouped")
        if several := [column for column, differs in zip(single, found, strict=True) if differs]:
            reading.summary.notes.append(
                f"Rows of the same patient differ in {', '.join(several)}: the first in order of the values is read."
            )
        stays = "NULL"
        if tables.stays is not None:
            self._load_stays(tables.stays, reading.settings.plos_days)
            stays = "stays.had_plos"
        db.execute(
            "CREATE TABLE patients AS SELECT CASE WHEN birth_year IS NOT NULL THEN "
            "(sum((birth_year IS NOT NULL)::INTEGER) OVER (ORDER BY _place) - 1)::INTEGER END AS row, "
            f"grouped.* EXCLUDE (differ), {stays} AS stayed FROM grouped "
            f"{'LEFT JOIN stays USING (key)' if tables.stays else ''} WHERE key IS NOT NULL ORDER BY _place"
        )
        self.count, excluded = self._one("SELECT count(row), count(*) - count(row) FROM patients")
        if excluded:
            reading.summary.excluded[NO_BIRTH_YEAR] += excluded

    def key(self, expression: str, kind: str) -> str:
        """Return the key of patients for an expression of the given type."""
        if self.numbers:
            return expression if kind in INTEGERS else f"TRY_CAST({as_text(expression, kind)} AS BIGINT)"
        return f"nullif(trim({as_text(expression, kind)}), '')"

    def chunk(self, db: "duckdb.DuckDBPyConnection", start: int, stop: int) -> dict[str, Any]:
        """Return the columns of patients from row to row, as numpy arrays and lists."""
        rows = db.sql(f"SELECT * FROM patients WHERE row >= {start} AND row < {stop} ORDER BY row")
        table = rows.to_arrow_table()
        return {column: table[column].to_pylist() for column in table.column_names}

    def _load_stays(self, sql: str, days: float) -> None:
        kind = str(self.db.sql(f"DESCRIBE SELECT patient_id FROM ({sql})").fetchall()[0][1])
        # An open stay decides nothing; without times of day a stay is as long as its dates are apart.
        long = (
            f"CASE WHEN timed THEN epoch(ended) - epoch(started) > {days!r} * 86400 "
            f"ELSE date_diff('day', started, ended) > {days!r} END"
        )
        self.db.execute(
            f"CREATE TABLE stays AS SELECT {self.key('patient_id', kind)} AS key, bool_or({long}) AS had_plos "
            f"FROM ({sql}) WHERE started IS NOT NULL AND ended IS NOT NULL GROUP BY ALL"
        )

    def _one(self, sql: str) -> tuple[Any, ...]:
        return self.db.sql(sql).fetchall()[0]


def _static(column: StaticColumn) -> str:
    return f"static_{column.name}"


def _are_numbers(db: "duckdb.DuckDBPyConnection", kind: str) -> bool:
    """Tell whether all ids are whole numbers, however they are stored."""
    if kind in INTEGERS:
        return True
    text = f"nullif(trim({as_text('patient_id', kind)}), '')"
    sql = f"SELECT bool_and(regexp_full_match({text}, {quoted(_WHOLE_NUMBER)})) FROM people"
    return bool(db.sql(sql).fetchall()[0][0])


def _load_events(
    db: "duckdb.DuckDBPyConnection", all_events: Sequence[Events], people: _People, summary: ReadingSummary
) -> None:
    """Fill the table ``events`` and count what is no event of a patient, and why."""
    of_each = []
    for events in all_events:
        with explained(events.label):
            of_each.append({str(row[0]): str(row[1]) for row in db.sql(f"DESCRIBE {events.sql}").fetchall()})
    # Columns that cost nothing where nothing was measured.
    measured = {name: kind for name, kind in _MEASURED.items() if any(name in columns for columns in of_each)}
    db.execute(
        "CREATE TABLE events (row INTEGER, day INTEGER, system VARCHAR, code VARCHAR, source INTEGER, reason VARCHAR"
        f"{''.join(f', {name} {kind}' for name, kind in measured.items())})"
    )
    bar = console.progress(list(zip(all_events, of_each, strict=True)), label="Loading tables", unit=" tables")
    for source, (events, described) in enumerate(bar):
        with explained(events.label):
            results = "".join(f", e.{name}" if name in described else ", NULL" for name in measured)
            why = "WHEN e.reason IS NOT NULL THEN e.reason" if "reason" in described else ""
            with _one_thread(db):
                db.execute(
                    f"INSERT INTO events SELECT p.row, e.day, e.system, e.code, {source}, CASE {why} "
                    f"WHEN p.key IS NULL THEN {quoted(ORPHANS)} WHEN e.day IS NULL THEN {quoted(NO_DATE)} "
                    f"WHEN e.code IS NULL THEN {quoted(NO_CODE)} WHEN e.system IS NULL THEN {quoted(NO_SYSTEM)} END"
                    f"{results} "
                    f"FROM ({events.sql}) e LEFT JOIN patients p "
                    f"ON p.key = {people.key('e.patient_id', described['patient_id'])}"
                )
        counts = db.sql(f"SELECT reason, count(*) FROM events WHERE source = {source} GROUP BY reason").fetchall()
        of_file = summary.of(events.label)
        of_file[ROWS] += sum(count for _, count in counts) if events.rows is None else events.rows
        of_file.update({reason: count for reason, count in counts if reason is not None})


@contextmanager
def _one_thread(db: "duckdb.DuckDBPyConnection") -> Iterator[None]:
    """Let joins leave the rows in their order: done by several threads, they mix it."""
    threads = db.sql("SELECT current_setting('threads')").fetchall()[0][0]
    db.execute("SET threads = 1")
    try:
        yield
    finally:
        db.execute(f"SET threads = {threads}")


def _stream(db: "duckdb.DuckDBPyConnection", people: _People, reading: Reading, size: int) -> Iterator[PatientColumns]:
    systems = _systems(db, reading.summary)
    listed = ", ".join(map(quoted, systems)) or "NULL"
    # A relation of its own connection, so that the queries of the patients do not end it.
    events = db.cursor().sql(
        "SELECT * EXCLUDE (source, reason) FROM events "
        f"WHERE reason IS NULL AND row IS NOT NULL AND system IN ({listed}) ORDER BY row, day, rowid"
    )
    waiting = _Waiting(iter(events.to_arrow_reader(_BATCH)))
    for start in range(0, people.count, size):
        stop = min(start + size, people.count)
        found = people.chunk(db, start, stop)
        columns, repeats = _event_columns(waiting.before(stop), start, stop, systems)
        reading.summary.repeats += repeats
        yield _patient_columns(found, columns, people, reading.static_columns)


def _systems(db: "duckdb.DuckDBPyConnection", summary: ReadingSummary) -> dict[str, str]:
    """Return the code system of each name that events give; count the events of unknown ones."""
    named = "SELECT system, count(*) FROM events WHERE reason IS NULL AND row IS NOT NULL GROUP BY system ORDER BY 1"
    systems: dict[str, str] = {}
    for written, count in db.sql(named).fetchall():
        try:
            systems[written] = code_system(written).name
        except ValueError:
            summary.families[written] += count
    return systems


class _Waiting:
    """Batches of events, taken patient by patient."""

    def __init__(self, batches: Iterator[Any]) -> None:
        self._batches = batches
        self._left: list[Any] = []

    def before(self, stop: int) -> Any | None:
        """Return the events of rows below ``stop`` that were not taken yet, as an Arrow table."""
        import pyarrow

        taken: list[Any] = []
        while True:
            batch = self._left.pop() if self._left else next(self._batches, None)
            if batch is None:
                break
            end = int(np.searchsorted(batch.column(0).to_numpy(), stop))
            taken.append(batch.slice(0, end))
            if end < len(batch):
                self._left.append(batch.slice(end))
                break
        return pyarrow.Table.from_batches(taken) if taken else None


def _event_columns(events: Any | None, start: int, stop: int, systems: dict[str, str]) -> tuple[EventColumns, int]:
    """Return the events of the patients from row to row, each (patient, day, code) once, and how many repeat one."""
    if events is None or len(events) == 0:
        empty = np.empty(0, dtype=np.int32)
        return EventColumns(empty, empty, np.zeros(stop - start + 1, dtype=np.int64), []), 0
    row = events["row"].combine_chunks().to_numpy() - start
    day = events["day"].combine_chunks().to_numpy()
    of_system = events["system"].combine_chunks().dictionary_encode()
    of_code = events["code"].combine_chunks().dictionary_encode()
    texts = of_code.dictionary.to_pylist()
    spelled = [systems[written] for written in of_system.dictionary.to_pylist()]
    names = list(dict.fromkeys(spelled))
    number = np.array([names.index(system) for system in spelled], dtype=np.int64)  # a system may have several names
    pair = number[of_system.indices.to_numpy()] * len(texts) + of_code.indices.to_numpy()
    present = np.bincount(pair, minlength=len(names) * len(texts)) > 0
    code = (np.cumsum(present) - 1)[pair].astype(np.int32)
    table: list[CodeKey] = [(names[i // len(texts)], texts[i % len(texts)]) for i in np.flatnonzero(present).tolist()]
    measured = _measured(events)
    if measured is None:
        kept = _first_of_day(row, day, code, len(table))
    else:  # one code with two values is no repetition
        _, value = np.unique(measured.values, return_inverse=True)
        both = (code.astype(np.int64) * (int(value.max()) + 1) + value) * (len(FLAGS) + 1) + measured.flags + 1
        kept = _first_of_day(row, day, np.unique(both, return_inverse=True)[1], len(both))
    if kept is not None:
        row, day, code = row[kept], day[kept], code[kept]
        measured = None if measured is None else measured.at(kept)
    offsets = np.concatenate(([0], np.cumsum(np.bincount(row, minlength=stop - start)))).astype(np.int64)
    found = EventColumns(code, day.astype(np.int32), offsets, table, measured=measured)
    return found, len(events) - len(row)


def _measured(events: Any) -> Measured | None:
    """Return what was measured at the events of a table, None where nothing was."""
    if not set(_MEASURED) & set(events.column_names):
        return None
    found = nothing_measured(len(events))
    if "value" in events.column_names:
        values = events["value"].combine_chunks().to_numpy(zero_copy_only=False)  # NaN where it is null
        found.values[:] = np.where(np.isfinite(values), values, np.nan)
    if "flag" in events.column_names:
        flags = events["flag"].combine_chunks().to_numpy(zero_copy_only=False)
        for place, flag in enumerate(FLAGS):
            found.flags[flags == flag] = place
    return found if found.any else None


def _first_of_day(row: np.ndarray, day: np.ndarray, code: np.ndarray, codes: int) -> np.ndarray | None:
    """Return the indices, in order, of events that repeat none of the same patient, day and code; None for all."""
    changes = np.ones(len(row), dtype=bool)
    changes[1:] = (row[1:] != row[:-1]) | (day[1:] != day[:-1])
    key = np.cumsum(changes) * codes + code
    in_order = np.sort(key)
    if (in_order[1:] != in_order[:-1]).all():
        return None
    return np.sort(np.unique(key, return_index=True)[1])


def _patient_columns(
    found: dict[str, list[Any]], events: EventColumns, people: _People, static_columns: Sequence[StaticColumn]
) -> PatientColumns:
    n = len(found["key"])
    written = found.get("written_id", [None] * n)
    ids: list[PatientId] = [key if text is None else text for key, text in zip(found["key"], written, strict=True)]
    stayed = found.get("had_plos", found["stayed"])
    periods = {column: _days(found[column]) for column in DAY_FIELDS if column in people.further}
    if BIRTH_DATE in periods:
        periods[BIRTH_DATE][_is_new_year(periods[BIRTH_DATE])] = NO_DAY
    splits = None
    if "split" in people.further:
        splits = np.array([-1 if split is None else split for split in found["split"]], dtype=np.int8)
    return PatientColumns(
        patient_ids=ids,
        birth_years=np.array(found["birth_year"], dtype=np.int64).clip(*_YEAR_RANGE).astype(np.int32),
        static={column.name: found.get(_static(column), [None] * n) for column in static_columns},
        plos=np.array([-1 if value is None else int(value) for value in stayed], dtype=np.int8),
        events=events,
        periods={column: days for column, days in periods.items() if (days != NO_DAY).any()},
        splits=splits,
    )


def _days(values: list[int | None]) -> np.ndarray:
    return np.array([NO_DAY if value is None else value for value in values], dtype=np.int32)


def _is_new_year(days: np.ndarray) -> np.ndarray:
    """Return which days are the first of a year, (N,) bool."""
    dates = days.astype("datetime64[D]")
    return dates == dates.astype("datetime64[Y]")
