"""Synthea's CSV: the tables of its versions, and the format's rules one by one."""

import csv
import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reading import EXAMPLES, example_events, read, write_tables

from exmed_bert.console import InputError
from exmed_bert.data.readers import reader_of
from exmed_bert.data.readers.source import Source
from exmed_bert.data.static_columns import STATE, declared
from exmed_bert.settings import ReadingSettings

ANN, BEN = "5c3e7f6a-0c6e-4e0b-9f37-1d2b3c4d5e6f", "00000000-1111-2222-3333-444444444444"

PATIENTS = [
    *("Id", "BIRTHDATE", "DEATHDATE", "SSN", "FIRST", "LAST", "MARITAL", "RACE", "ETHNICITY", "GENDER"),
    *("BIRTHPLACE", "ADDRESS", "CITY", "STATE", "ZIP"),
]
ENCOUNTERS = ["Id", "START", "STOP", "PATIENT", "ORGANIZATION", "ENCOUNTERCLASS", "CODE", "DESCRIPTION"]
CONDITIONS = ["START", "STOP", "PATIENT", "ENCOUNTER", "SYSTEM", "CODE", "DESCRIPTION"]
MEDICATIONS = ["START", "STOP", "PATIENT", "PAYER", "ENCOUNTER", "CODE", "DESCRIPTION"]


def person(key: str, born: str = "1950-04-30", died: str = "", sex: str = "F", state: str = "Massachusetts") -> list:
    return [key, born, died, "999-99-9999", "A", "B", "M", "white", "nonhispanic", sex, "", "1 Way", "Lynn", state, ""]


def synthea(folder: Path, **rows: Sequence[Sequence[Any]]) -> Path:
    """Write the tables of Synthea 3; there is one patient where none is given."""
    headers = {"patients": PATIENTS, "encounters": ENCOUNTERS, "conditions": CONDITIONS, "medications": MEDICATIONS}
    found = {name: [] for name in headers} | {"patients": [person(ANN)]} | rows
    return write_tables(folder, **{name: [headers[name], *of_table] for name, of_table in found.items()})


def encounter(start: str, stop: str, kind: str = "inpatient", key: str = ANN) -> list[str]:
    return ["e", start, stop, key, "o", kind, "183452005", "Encounter"]


def condition(start: str, code: str, system: str = "SNOMED-CT", key: str = ANN) -> list[str]:
    return [start, "", key, "e", system, code, "Name, of it"]


def medication(start: str, code: str, key: str = ANN) -> list[str]:
    return [start, "", key, "p", "e", code, "Name, of it"]


def test_patients_and_events(tmp_path: Path) -> None:
    folder = synthea(
        tmp_path,
        patients=[person(ANN), person(BEN, "1830-01-02", "1899-12-31", "M", "Utah")],
        encounters=[encounter("2020-01-01T09:00:00Z", "2020-01-02T09:00:00Z")],
        conditions=[
            condition("2020-03-01", "44054006"),
            condition("2020-03-01", "44054006"),
            condition("1890-03-01", "38341003", "http://snomed.info/sct", BEN),
        ],
        medications=[
            medication("2020-02-29T23:59:59Z", "860975"),
            medication("2020-03-01T00:00:00-05:00", "0860975"),
        ],
    )
    patients, summary = read(folder, static_columns=declared({"race": ["WHITE"], "ethnicity": ["HISPANIC"]}))
    assert patients == {
        ANN: {
            "birth_year": 1950,
            "birth_date": "1950-04-30",
            "sex": "F",
            "state": "Massachusetts",
            "race": "white",
            "ethnicity": "nonhispanic",
            "had_plos": False,
            "events": [
                ("2020-02-29", "rxnorm", "860975"),
                ("2020-03-01", "snomedct", "44054006"),
                ("2020-03-01", "rxnorm", "0860975"),
            ],
        },
        BEN: {
            "birth_year": 1830,
            "birth_date": "1830-01-02",
            "sex": "M",
            "state": "Utah",
            "race": "white",
            "ethnicity": "nonhispanic",
            "had_plos": None,
            "death_date": "1899-12-31",
            "events": [("1890-03-01", "snomedct", "38341003")],
        },
    }
    assert STATE.value(int(STATE.ids(["Massachusetts"])[0])) == "MA"
    assert summary.files == {"conditions": {"rows": 3}, "medications": {"rows": 2}}
    assert summary.repeats == 1 and not summary.notes


def test_what_is_no_event_is_counted(tmp_path: Path) -> None:
    folder = synthea(
        tmp_path,
        patients=[person(ANN), person(BEN, born="")],
        conditions=[
            condition("2020-03-01", "44054006", key="someone else"),
            condition("", "44054006"),
            condition("2020-03-01", ""),
            condition("2020-03-01", "44054006", system=""),
            condition("2020-03-01", "1", system="house codes"),
            condition("2020-03-01", "E11.9", system="ICD-10-CM"),
        ],
    )
    patients, summary = read(folder)
    assert patients[ANN]["events"] == [("2020-03-01", "icd10cm", "E11.9")]
    assert summary.files["conditions"] == {
        "rows": 6,
        "of no patient": 1,
        "without a date": 1,
        "without a code": 1,
        "of no code system": 1,
    }
    assert summary.families == {"house codes": 1} and summary.excluded == {"no birth year": 1}


@pytest.mark.parametrize(
    ("start", "stop", "kind", "had_plos"),
    [
        ("2020-01-01T09:00:00Z", "2020-01-08T09:00:00Z", "inpatient", False),
        ("2020-01-01T09:00:00Z", "2020-01-08T09:00:01Z", "Inpatient", True),
        ("2020-01-01", "2020-01-08", "inpatient", False),
        ("2020-01-01", "2020-01-09", "inpatient", True),
        ("2020-01-01T09:00:00Z", "", "inpatient", None),
        ("2020-01-01T09:00:00Z", "2020-03-08T09:00:01Z", "snf", None),
        ("2020-01-01T09:00:00Z", "2020-03-08T09:00:01Z", "hospice", None),
        ("2020-01-01T09:00:00Z", "2020-03-08T09:00:01Z", "", None),
    ],
)
def test_prolonged_stay(tmp_path: Path, start: str, stop: str, kind: str, had_plos: bool | None) -> None:
    patients, _ = read(synthea(tmp_path, encounters=[encounter(start, stop, kind)]))
    assert patients[ANN]["had_plos"] is had_plos


@pytest.mark.parametrize(
    ("patients", "encounters", "conditions"),
    [
        (  # the first version: no state, encounters by date
            "ID,BIRTHDATE,DEATHDATE,SSN,DRIVERS,PASSPORT,PREFIX,FIRST,LAST,SUFFIX,MAIDEN,MARITAL,RACE,ETHNICITY,GENDER,"
            "BIRTHPLACE,ADDRESS\n1,1950-04-30,,,,,,,,,,,white,irish,F,Lynn,1 Way Lynn MA 01901 US\n",
            "ID,DATE,PATIENT,CODE,DESCRIPTION,REASONCODE,REASONDESCRIPTION\n7,2010-01-02,1,1,x,,\n",
            "START,STOP,PATIENT,ENCOUNTER,CODE,DESCRIPTION\n2010-01-02,,1,7,44054006,Diabetes\n",
        ),
        (
            "ID,BIRTHDATE,GENDER\n1,1950-04-30,F\n",
            "ID,START,STOP,PATIENT,CODE,DESCRIPTION,COST\n7,2010-01-02T10:00:00Z,2010-02-02T10:00:00Z,1,1,x,1\n",
            "START,STOP,PATIENT,ENCOUNTER,CODE,DESCRIPTION\n2010-01-02,,1,7,44054006,Diabetes\n",
        ),
    ],
)
def test_early_versions(tmp_path: Path, patients: str, encounters: str, conditions: str) -> None:
    for name, text in (("patients", patients), ("encounters", encounters), ("conditions", conditions)):
        (tmp_path / f"{name}.csv").write_text(text)
    found, summary = read(tmp_path)
    assert found == {
        1: {
            "birth_year": 1950,
            "birth_date": "1950-04-30",
            "sex": "F",
            "state": None,
            "had_plos": None,
            "events": [("2010-01-02", "snomedct", "44054006")],
        }
    }
    assert summary.notes == [
        "There is no table medications: none of them are read.",
        "encounters has no START, STOP and ENCOUNTERCLASS: whether a stay was prolonged is not known.",
    ]


@pytest.mark.parametrize("how", ["gz", "parquet", "windows", "runs"])
def test_other_files_with_the_same_tables(tmp_path: Path, how: str) -> None:
    whole = synthea(
        tmp_path / "whole",
        patients=[person(ANN), person(BEN)],
        encounters=[encounter("2020-01-01T09:00:00Z", "2020-01-09T09:00:00Z")],
        conditions=[condition("2020-03-01", "44054006"), condition("2020-03-02", "44054006", key=BEN)],
        medications=[medication("2020-02-29T23:59:59Z", "860975")],
    )
    other = tmp_path / "other"
    other.mkdir()
    for path in whole.iterdir():
        if how == "gz":
            (other / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        elif how == "windows":
            (other / path.name).write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # the rows end in CR LF already
        elif how == "parquet":
            header, *rows = csv.reader(path.read_text().splitlines())
            table = pyarrow.table({name: [row[i] for row in rows] for i, name in enumerate(header)})
            pyarrow.parquet.write_table(table, other / f"{path.stem}.parquet")
        else:  # a folder for each run
            header, *lines = path.read_text().splitlines()
            for run in range(2):
                folder = other / f"2024_run_{run}"
                folder.mkdir(exist_ok=True)
                (folder / path.name).write_text("\n".join([header, *lines[run::2]]))
    assert read(other)[0] == read(whole)[0]


def test_what_it_is_recognized_by(tmp_path: Path) -> None:
    synthea(tmp_path)
    reader, by = reader_of(Source.at([tmp_path]), ReadingSettings())
    assert (reader.name, by) == ("synthea", "columns of patients, conditions, encounters")
    digest = reader.origin(Source.at([tmp_path])).fingerprint
    (tmp_path / "observations.csv").write_text("DATE,PATIENT,CODE\n")
    assert reader.origin(Source.at([tmp_path])).fingerprint == digest
    (tmp_path / "encounters.csv").unlink()
    assert not reader.recognizes(Source.at([tmp_path]), ReadingSettings())
    assert read(tmp_path, input_format="synthea")[1].notes == [
        "There is no table encounters: whether a stay was prolonged is not known."
    ]


def test_the_example_is_of_the_patients_that_all_examples_are_of() -> None:
    folder = EXAMPLES / "synthea"
    patients, _ = read(folder / "data", translate=True, code_map=folder / "code_map.csv")
    for patient, events in zip(patients.values(), example_events(), strict=True):
        assert sorted(patient["events"]) == events
        assert STATE.value(int(STATE.ids([patient["state"]])[0]))
    assert sum(patient["had_plos"] for patient in patients.values()) == 7


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        ({"patients": "Id,GENDER\n"}, "patients.csv: lacks the column birthdate, which Synthea has"),
        ({"conditions": "PATIENT\n"}, "conditions.csv: lacks the columns start, code, which Synthea has"),
        ({"conditions": ""}, "conditions.csv: has no header"),
        ({"encounters": "Id\n"}, "encounters.csv: lacks the column patient, which Synthea has"),
        ({"patients": None}, "holds no table patients, which Synthea has"),
        ({"conditions": None, "medications": None}, "holds neither of the tables conditions and medications"),
    ],
)
def test_damaged_tables(tmp_path: Path, tables: dict[str, str | None], expected: str) -> None:
    synthea(tmp_path)
    for name, content in tables.items():
        path = tmp_path / f"{name}.csv"
        path.unlink() if content is None else path.write_text(content)
    with pytest.raises(InputError, match=expected) as raised:
        read(tmp_path, input_format="synthea")
    assert "\n" not in str(raised.value)


_keys = st.sampled_from([ANN, BEN, "nobody", ""])
_starts = st.sampled_from(["2020-03-01", "2020-03-02T10:00:00Z", "", "soon"])
_condition = st.tuples(
    _starts, st.just(""), _keys, st.just("e"), st.just("SNOMED-CT"), st.sampled_from(["1", " 2", ""])
)
_medication = st.tuples(_starts, st.just(""), _keys, st.just("p"), st.just("e"), st.sampled_from(["1", "001", " "]))


@given(st.lists(_condition, max_size=12), st.lists(_medication, max_size=12))
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_row_is_an_event_or_counted(tmp_path: Path, conditions: list, medications: list) -> None:
    folder = synthea(
        tmp_path,
        patients=[person(ANN), person(BEN)],
        conditions=[[*row, "x"] for row in conditions],
        medications=[[*row, "x"] for row in medications],
    )
    patients, summary = read(folder)
    assert [summary.files[name]["rows"] for name in ("conditions", "medications")] == [
        len(conditions),
        len(medications),
    ]
    counted = sum(sum(n for reason, n in of.items() if reason != "rows") for of in summary.files.values())
    events = [event for patient in patients.values() for event in patient["events"]]
    assert len(events) + counted + summary.repeats == len(conditions) + len(medications)
    for patient in patients.values():
        days = [day for day, _, _ in patient["events"]]
        assert days == sorted(days) and len(set(patient["events"])) == len(patient["events"])
