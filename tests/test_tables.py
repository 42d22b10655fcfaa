"""The engine behind the readers of tables: counts, ids, order, repeats, stays, whatever the format."""

import csv
from collections import Counter
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exmed_bert.console import InputError
from exmed_bert.data.database import connect
from exmed_bert.data.patient import EPOCH, NO_DAY, PatientColumns
from exmed_bert.data.readers.base import Reading
from exmed_bert.data.readers.source import Source
from exmed_bert.data.readers.summary import ReadingSummary
from exmed_bert.data.readers.table import Table, explained
from exmed_bert.data.readers.tables import Events, TableReader, Tables
from exmed_bert.data.static_columns import BUILT_IN
from exmed_bert.settings import ReadingSettings


class Claims(TableReader):
    """People, events and stays, each in a file with the columns that the engine asks for."""

    name = title = "claims"

    def recognizes(self, source: Source, settings: ReadingSettings) -> str | None:
        return None

    def tables(self, db: Any, reading: Reading) -> Tables:
        of = {name: Table(db, f"{name}", paths) for name, paths in reading.source.tables.items()}
        people, events = of["people"], of["events"]
        stays = of.get("stays")
        return Tables(
            people=f"SELECT {people.raw('id')} AS patient_id, {people.year('born')} AS birth_year, "
            f"{people.text('sex')} AS sex, {people.day('died')} AS death_date FROM {people.sql}",
            events=[
                Events(
                    "events.csv",
                    f"SELECT {events.raw('ID')} AS patient_id, {events.day('day')} AS day, {events.text('system')} "
                    f"AS system, {events.text('code')} AS code FROM {events.sql}",
                )
            ],
            stays=None
            if stays is None
            else f"SELECT {stays.raw('id')} AS patient_id, {stays.time('start')} AS started, "
            f"{stays.time('stop')} AS ended, length({stays.text('start')}) > 10 AS timed FROM {stays.sql}",
        )


def write(path: Path, rows: Sequence[Sequence[Any]], encoding: str = "utf-8") -> None:
    with open(path, "w", newline="", encoding=encoding) as file:
        csv.writer(file).writerows(rows)


def read(folder: Path, size: int = 10_000, **given: Any) -> tuple[list[PatientColumns], ReadingSummary]:
    summary = ReadingSummary()
    reading = Reading(Source.at([folder]), ReadingSettings(**given), BUILT_IN, summary)
    return list(Claims().chunks(reading, size)), summary


def events_of(chunks: list[PatientColumns]) -> list[tuple[Any, list[tuple[int, str, str]]]]:
    """Return each patient's id and events: day, system, code."""
    found = []
    for patients in chunks:
        events = patients.events
        for i, patient_id in enumerate(patients.patient_ids):
            rows = range(events.offsets[i], events.offsets[i + 1])
            found.append((patient_id, [(int(events.days[at]), *events.table[events.codes[at]]) for at in rows]))
    return found


PEOPLE = ["id", "born", "sex", "died"]
EVENTS = ["id", "day", "system", "code"]


def test_what_is_no_event_is_counted_by_reason(tmp_path: Path) -> None:
    write(tmp_path / "people.csv", [PEOPLE, [1, 1950, "F", "2020-05-01"], [2, "", "M", ""], [3, 1960, "", ""]])
    rows = [
        [1, "2019-01-02", "icd10cm", "I10"],
        [1, "2019-01-02T23:30:00-05:00", "ICD10CM", " I10 "],  # the same day as written, the same system and code
        [1, "20190101", "atc", "C10AA05"],
        [9, "2019-01-02", "icd10cm", "I10"],
        ["", "2019-01-02", "icd10cm", "I10"],
        [1, "2019-02-30", "icd10cm", "I10"],
        [1, "", "icd10cm", "I10"],
        [1, "2019-01-02", "icd10cm", "  "],
        [2, "2019-01-02", "icd10cm", "I10"],  # of a patient without a birth year
        [1, "2019-01-02", "house codes", "x"],
    ]
    write(tmp_path / "events.csv", [EVENTS, *rows], encoding="utf-8-sig")
    chunks, summary = read(tmp_path)
    day = (date(2019, 1, 1) - EPOCH).days
    assert events_of(chunks) == [(1, [(day, "atc", "C10AA05"), (day + 1, "icd10cm", "I10")]), (3, [])]
    assert summary.files["events.csv"] == Counter(
        {"rows": 10, "of no patient": 2, "without a date": 2, "without a code": 1}
    )
    assert summary.repeats == 1 and summary.families == {"house codes": 1}
    assert summary.excluded == {"no birth year": 1}
    (patients,) = chunks
    assert patients.static["sex"] == ["F", None] and patients.birth_years.tolist() == [1950, 1960]
    assert patients.period("death_date").tolist() == [(date(2020, 5, 1) - EPOCH).days, NO_DAY]


@pytest.mark.parametrize(
    ("written", "ids"),
    [
        (["5", "-3", "0"], [5, -3, 0]),
        (["5.0", "-3.0", "0.0"], [5, -3, 0]),
        (["007", "7", "8"], ["007", "7", "8"]),
        (["a b", "1", "é"], ["a b", "1", "é"]),
        (["9223372036854775808", "1", "2"], ["9223372036854775808", "1", "2"]),
        (["1.5", "1", "2"], ["1.5", "1", "2"]),
    ],
)
def test_ids_are_whole_numbers_or_text(written: list[str], ids: list[Any], tmp_path: Path) -> None:
    write(tmp_path / "people.csv", [PEOPLE, *([text, 1950, "F", ""] for text in written)])
    write(tmp_path / "events.csv", [EVENTS, *([text, "2019-01-02", "atc", "C10AA05"] for text in written)])
    chunks, summary = read(tmp_path)
    assert [patient_id for patient_id, events in events_of(chunks) if len(events) == 1] == ids
    assert summary.files["events.csv"]["of no patient"] == 0


def test_numbers_with_gaps_in_parquet_are_whole_numbers(tmp_path: Path) -> None:
    people = pyarrow.table({"ID": pyarrow.array([2.0, 0.0, None]), "born": [1950, 1951, 1952], "sex": ["F", "M", "M"]})
    pyarrow.parquet.write_table(people, tmp_path / "people.parquet")
    days = pyarrow.array([date(2019, 1, 2)] * 2)
    events = pyarrow.table({"id": [2, 0], "DAY": days, "System": ["atc", "atc"], "code": ["A", "B"]})
    pyarrow.parquet.write_table(events, tmp_path / "events.parquet")
    assert [patient_id for patient_id, _ in events_of(read(tmp_path)[0])] == [2, 0]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 6), st.integers(0, 4), st.sampled_from(["I10", "E11.9", "J45"]), st.booleans()),
        max_size=40,
    ),
    size=st.integers(1, 8),
)
def test_events_are_those_of_the_file_by_day_and_in_its_order(
    rows: list[tuple[int, int, str, bool]], size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("claims")
    order = [4, 2, 0, 3, 1, 5]  # patients come in the order of their table; patient 6 is not in it
    write(folder / "people.csv", [PEOPLE, *([i, 1950, "F", ""] for i in order)])
    start = date(2019, 3, 1)
    written = [
        [patient, start + timedelta(days=day), "icd10cm" if icd else "icd9cm", code] for patient, day, code, icd in rows
    ]
    write(folder / "events.csv", [EVENTS, *written])
    chunks, summary = read(folder, size)
    expected = []
    for patient in order:
        own = sorted((row for row in written if row[0] == patient), key=lambda row: row[1])
        expected.append(
            (patient, list(dict.fromkeys(((day - EPOCH).days, system, code) for _, day, system, code in own)))
        )
    assert events_of(chunks) == expected
    assert all(len(patients) <= size for patients in chunks)
    assert summary.repeats == sum(row[0] != 6 for row in written) - sum(len(events) for _, events in expected)
    assert summary.of("events.csv")["of no patient"] == sum(row[0] == 6 for row in written)


def test_a_prolonged_stay_is_longer_than_the_limit(tmp_path: Path) -> None:
    stays = [
        ["id", "start", "stop"],
        [1, "2019-01-01 08:00:00", "2019-01-08 08:00:01"],  # a second longer than seven days
        [2, "2019-01-01 08:00:00", "2019-01-08 08:00:00"],
        [3, "2019-01-01", "2019-01-09"],  # without times the dates decide
        [4, "2019-01-01", "2019-01-08"],
        [5, "2019-01-01", ""],  # open
        [6, "2019-01-01", "2019-01-02"],
        [6, "2019-03-01", "2019-04-02"],
    ]
    write(tmp_path / "stays.csv", stays)
    write(tmp_path / "people.csv", [PEOPLE, *([i, 1950, "F", ""] for i in range(1, 8))])
    write(tmp_path / "events.csv", [EVENTS])
    ((patients,), _) = read(tmp_path)
    assert patients.plos.tolist() == [1, 0, 1, 0, -1, 1, -1]
    assert np.array_equal(read(tmp_path, plos_days=8)[0][0].plos, [0, 0, 0, 0, -1, 1, -1])


def test_shards_and_names_in_any_letter_case_and_what_is_no_data(tmp_path: Path) -> None:
    (tmp_path / "EVENTS").mkdir()
    (tmp_path / "__MACOSX").mkdir()
    write(tmp_path / "PEOPLE.CSV", [[c.upper() for c in PEOPLE], [1, 1950, "F", ""]])
    write(tmp_path / "EVENTS" / "part-0.csv", [EVENTS, [1, "2019-01-02", "atc", "A"]])
    write(tmp_path / "EVENTS" / "part-1.csv", [EVENTS[::-1], ["B", "atc", "2019-01-01", 1]])
    for junk in ("._PEOPLE.CSV", ".hidden.csv", "__MACOSX/people.csv", "people.csv.part"):
        (tmp_path / junk).write_bytes(b"\x00\x05")
    assert [[code for _, _, code in events] for _, events in events_of(read(tmp_path)[0])] == [["B", "A"]]


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"id,day,system,code\n1,2019-01-02,atc\n1,2019-01-02,atc,A,B,C\n", ["events.csv"]),
        (b"id,day,system,code\n1,2019-01-02,atc,\xff\xfe\n", ["events.csv"]),
    ],
)
def test_a_damaged_table_is_one_line(content: bytes, parts: list[str], tmp_path: Path) -> None:
    write(tmp_path / "people.csv", [PEOPLE, [1, 1950, "F", ""]])
    (tmp_path / "events.csv").write_bytes(content)
    with pytest.raises(InputError) as error:
        read(tmp_path)
    assert all(part in str(error.value) for part in parts) and "\n" not in str(error.value)


# --- files that are damaged or odd ---


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            b"id,day,code\n1,2020-01-01,I10\n2,2020-01-01,I10,E11\n",
            "line 3: has 4 columns, expected 3 as in the header",
        ),
        (b"id,day,code\n1,2020-01-01\n", "line 2: has 2 columns, expected 3 as in the header"),
        (b'id,day,code\n1,2020-01-01,"I10\n2,2020-01-01,I10\n', "line 2: a quotation mark is not closed"),
        (b"id,day,code\n1,2020-01-01,M\xfcller\n", "is not UTF-8 text; save it as UTF-8"),
        (b"id,day,code\n1,2020-01-01,I10\r\n2,2020-01-01,I10\n", "mixes ends of lines"),
    ],
)
def test_a_damaged_line_is_named_and_not_shown(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    db = connect([tmp_path / "t.csv"])
    table = Table(db, "t", [tmp_path / "t.csv"])
    with pytest.raises(InputError) as refused, explained("the source"):
        db.sql(f"SELECT {table.text('code')} FROM {table.sql}").fetchall()
    assert str(refused.value).startswith(f"{tmp_path / 't.csv'}: ") and problem in str(refused.value)
    assert "2020" not in str(refused.value) and "I10" not in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-8-sig"])
def test_text_in_a_named_encoding(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "t.csv").write_bytes("id;größe\r\n1;Müller\r\n".encode(encoding))
    db = connect([tmp_path / "t.csv"])
    table = Table(db, "t", [tmp_path / "t.csv"], encoding)
    assert db.sql(f"SELECT {table.text('Größe')} FROM {table.sql}").fetchall() == [("Müller",)]


def test_a_header_in_another_encoding_is_refused(tmp_path: Path) -> None:
    for encoding, named in (("utf-16", {}), ("latin-1", {}), ("utf-8", {"encoding": "utf-16"})):
        (tmp_path / "t.csv").write_bytes("id,größe\n1,2\n".encode(encoding))
        with pytest.raises(InputError, match=r"t\.csv: is not (UTF-8|utf-16) text; save it as UTF-8"):
            Table(connect([]), "t", [tmp_path / "t.csv"], **named)


def test_rows_of_a_patient_that_differ_are_noted(tmp_path: Path) -> None:
    write(tmp_path / "events.csv", [EVENTS])
    write(
        tmp_path / "people.csv", [PEOPLE, [1, 1950, "F", ""], [1, 1950, "", ""], [1, "", "F", ""], [2, 1960, "M", ""]]
    )
    assert not read(tmp_path)[1].notes
    write(tmp_path / "people.csv", [PEOPLE, [1, 1951, "F", ""], [1, 1950, "M", ""]])
    chunks, summary = read(tmp_path)
    assert chunks[0].birth_years.tolist() == [1950] and chunks[0].static["sex"] == ["F"]
    assert summary.notes == [
        "Rows of the same patient differ in birth_year, sex: the first in order of the values is read."
    ]


class Numbered(Claims):
    """So many events, all on one day, that several threads would work on them."""

    def tables(self, db: Any, reading: Reading) -> Tables:
        db.execute("SET threads = 4")
        db.execute("CREATE TABLE numbered AS SELECT range AS number FROM range(400000)")
        return Tables(
            people="SELECT range AS patient_id, 1960 AS birth_year FROM range(1000)",
            events=[
                Events(
                    "numbered",
                    "SELECT hash(number) % 1000 AS patient_id, 0 AS day, 'icd10cm' AS system, number::VARCHAR AS code "
                    "FROM numbered",
                )
            ],
        )


def test_events_of_a_day_keep_the_order_of_their_rows(tmp_path: Path) -> None:
    (tmp_path / "any.csv").touch()
    reading = Reading(Source.at([tmp_path]), ReadingSettings(), BUILT_IN, ReadingSummary())
    (patients,) = Numbered().chunks(reading, 1000)
    events = patients.events
    numbers = np.array([int(code) for _, code in events.table])[events.codes]
    assert len(numbers) == 400_000
    assert ((np.diff(numbers) > 0) | (np.diff(events.patients()) > 0)).all()
