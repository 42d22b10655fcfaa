"""What stands in a table of the user's own, as SQL: its people, and its events from one column or several."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from exmed_bert.data.database import name, quoted
from exmed_bert.data.patient import BIRTH_DATE, PERIOD_FIELDS
from exmed_bert.data.readers.columns import EVENT_ROLES, Columns
from exmed_bert.data.readers.table import Table

_DIGITS_ONLY = ("rxnorm", "snomedct", "ndc")  # 313782.0 is what is left of a code in a column of numbers with gaps
_TRUE, _FALSE = ("1", "1.0", "true", "t", "yes", "y"), ("0", "0.0", "false", "f", "no", "n")


@dataclass(frozen=True)
class OwnTable:
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
            found["birth_year"], found[BIRTH_DATE] = self._birth_year(), self._birth_day()
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
        results = {
            "value": f"{self.table.number(self._only('value'))}" if "value" in self.columns else "",
            "flag": f"upper(left({self._value('flag')}, 1))" if "flag" in self.columns else "",
        }
        row += "".join(f", {sql} AS {role}" for role, sql in results.items() if sql)
        further = "".join(f", {role}" for role, sql in results.items() if sql)
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
            f"SELECT patient_id, day, system, {self._code('code')} AS code{further} FROM (SELECT patient_id, day, "
            f"system{further}, unnest(CASE WHEN coalesce(len(codes), 0) = 0 THEN [NULL] ELSE codes END) AS code "
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
        number = f"TRY_CAST({self.table.text(self._only('birth'))} AS DOUBLE)"
        return (
            f"CASE WHEN {number} BETWEEN -9999 AND 9999 THEN {number}::INTEGER "
            f"ELSE year(DATE '1970-01-01' + {self._birth_day()})::INTEGER END"
        )

    def _birth_day(self) -> str:
        return f"coalesce({self._day('birth')}, {self.table.day(self._only('birth'))})"

    def _value(self, role: str) -> str:
        """Return text, its values exchanged for what they mean."""
        text = self.table.text(self._only(role))
        meanings = self.named.values.get(role, {})
        if not meanings:
            return text
        cases = " ".join(f"WHEN {quoted(value)} THEN {quoted(meaning)}" for value, meaning in meanings.items())
        return f"CASE regexp_replace({text}, '[.]0+$', '') {cases} ELSE {text} END"
