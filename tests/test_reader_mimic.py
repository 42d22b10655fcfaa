"""MIMIC-IV and MIMIC-III: the right values of a small extract, and the format's rules one by one."""

import csv
import gzip
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reading import EXAMPLES, example_events, iso, read, systems_of

from exmed_bert.codes import normalize
from exmed_bert.codes.gem import alternatives
from exmed_bert.codes.icd10cm_list import is_listed
from exmed_bert.console import InputError
from exmed_bert.data.readers import reader_of
from exmed_bert.data.readers.source import Source
from exmed_bert.data.static_columns import declared
from exmed_bert.settings import ReadingSettings

EXTRACT = Path(__file__).parent / "fixtures" / "real" / "mimic4_pyhealth"

# --- the extract ---


def test_right_values_of_the_extract() -> None:
    patients, summary = read(EXTRACT)
    assert summary.files == {
        "diagnoses_icd": {"rows": 53, "without a code": 7},
        "prescriptions": {"rows": 30, "without a date": 3},
    }
    assert list(patients) == list(range(10001, 10011)) and summary.excluded == {"no birth year": 3}  # 13 in all
    assert systems_of(patients) == {"icd10cm": 35, "icd9cm": 11, "ndc": 24}  # 27 NDC, 3 of them of those left out
    assert patients[10001]["birth_year"] == 2105
    assert sum(patient["birth_year"] > 2100 for patient in patients.values()) == 5
    assert [key for key, patient in patients.items() if patient["had_plos"]] == [10002, 10005, 10006, 10008]
    assert all(patient["had_plos"] is not None for patient in patients.values())
    assert Counter(patient["sex"] for patient in patients.values()) == {"M": 5, "F": 5}
    assert {key: patient["death_date"] for key, patient in patients.items() if "death_date" in patient} == {
        10003: "2152-08-15",
        10008: "2151-12-20",
    }
    assert not summary.repeats and not summary.families and not summary.notes


def test_codes_of_the_extract() -> None:
    patients, _ = read(EXTRACT)
    codes = {system: [] for system in ("icd10cm", "icd9cm", "ndc")}
    for patient in patients.values():
        for _, system, code in patient["events"]:
            codes[system].append(code)
    assert all(is_listed(code) for code in codes["icd10cm"])
    ways = [alternatives(normalize(code, "icd9cm") or "") for code in codes["icd9cm"]]
    assert Counter(tuple(map(len, of_code)) for of_code in ways) == {(1,): 9, (2,): 2}  # two say it with two codes
    assert all(len(code) == 11 for code in codes["ndc"]) and "00088221905" in codes["ndc"]


def test_diagnoses_are_dated_at_discharge_and_drugs_at_their_start() -> None:
    patients, _ = read(EXTRACT)
    assert patients[10008]["events"] == [
        ("2151-10-05", "ndc", "00088221905"),
        ("2151-10-05", "ndc", "00054822925"),
        *(("2151-10-25", "icd9cm", code) for code in ("25003", "25013", "4280", "5859")),
        ("2151-12-15", "ndc", "00002821501"),
        *(("2151-12-20", "icd9cm", code) for code in ("25003", "25013", "5849")),
    ]


@pytest.mark.parametrize("days", [7, 7.15, 20, 21])
def test_stays_longer_than_the_given_days(days: float) -> None:
    lengths = {10002: 14.79, 10005: 7.146, 10006: 7.167, 10008: 20.08}
    patients, _ = read(EXTRACT, plos_days=days)
    assert [key for key, patient in patients.items() if patient["had_plos"]] == [
        key for key, length in lengths.items() if length > days
    ]


def test_stays_by_dates_where_there_are_no_times(tmp_path: Path) -> None:
    shutil.copytree(EXTRACT, tmp_path / "dates")
    path = tmp_path / "dates" / "hosp" / "admissions.csv"
    content = path.read_text()
    assert content.count("\n") == 1 + 24
    path.write_text(re.sub(" [0-9]{2}:[0-9]{2}:[0-9]{2}", "", content))
    patients, _ = read(tmp_path / "dates")
    assert [key for key, patient in patients.items() if patient["had_plos"]] == [10002, 10008]


@pytest.mark.parametrize("how", ["gz", "parquet", "upper", "flat", "shards"])
def test_other_files_with_the_same_tables(tmp_path: Path, how: str) -> None:
    hosp = tmp_path / "hosp"
    hosp.mkdir()
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "patients.csv").write_text("rubbish")
    (hosp / "._patients.csv").write_text("rubbish")
    for path in (EXTRACT / "hosp").iterdir():
        if how == "gz":
            (hosp / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        elif how == "parquet":  # numbers as numbers, times as timestamps
            text = pyarrow.csv.ConvertOptions(column_types={"ndc": pyarrow.string(), "icd_code": pyarrow.string()})
            table = pyarrow.csv.read_csv(path, convert_options=text)
            pyarrow.parquet.write_table(table, hosp / f"{path.stem}.parquet")
        elif how == "upper":
            header, rows = path.read_text().split("\n", 1)
            (hosp / path.name.upper()).write_bytes(f"\ufeff{header.upper()}\n{rows}".replace("\n", "\r\n").encode())
        elif how == "flat":
            shutil.copy(path, tmp_path)
        else:
            header, *rows = path.read_text().splitlines()
            (hosp / path.stem).mkdir()
            for i in range(2):
                part = rows[: len(rows) // 2] if i == 0 else rows[len(rows) // 2 :]
                (hosp / path.stem / f"part-{i}.csv").write_text("\n".join([header, *part]))
    assert read(tmp_path)[0] == read(EXTRACT)[0]


def test_static_columns_by_name_the_first_that_is_known() -> None:
    columns = declared({"insurance": ["Medicare", "Medicaid"], "race": ["WHITE"], "language": ["ENGLISH"]})
    patients, _ = read(EXTRACT, static_columns=columns)
    assert patients[10004] == patients[10004] | {"insurance": "Private", "race": "HISPANIC", "language": "SPANISH"}
    assert patients[10004]["state"] is None


def test_chunks_of_any_size() -> None:
    assert read(EXTRACT, size=3)[0] == read(EXTRACT)[0]


def test_what_it_is_recognized_by(tmp_path: Path) -> None:
    reader, by = reader_of(Source.at([EXTRACT]), ReadingSettings())
    assert reader.name == "mimic" and by == "version IV: patients with anchor_age, anchor_year"
    digest = reader.origin(Source.at([EXTRACT])).fingerprint
    shutil.copytree(EXTRACT, tmp_path / "all")
    (tmp_path / "all" / "hosp" / "labevents.csv").write_text("labevent_id,subject_id\n")
    assert reader.origin(Source.at([tmp_path / "all"])).fingerprint == digest  # it would take an hour to read


def test_the_example_is_of_the_patients_that_all_examples_are_of() -> None:
    folder = EXAMPLES / "mimic"
    patients, summary = read(folder / "data", translate=True, code_map=folder / "code_map.csv")
    for number, (patient, events) in enumerate(zip(patients.values(), example_events(), strict=True)):
        years = 140 + 4 * (number % 5)
        assert sorted(patient["events"]) == [(iso(day, years), system, code) for day, system, code in events]
    assert systems_of(read(folder / "data")[0])["icd9cm"] > 100
    assert summary.files["prescriptions"]["without a code"] > 100
    assert sum(patient["had_plos"] for patient in patients.values()) == 7


# --- the rules one by one ---

PATIENTS = ["subject_id", "gender", "anchor_age", "anchor_year", "dod"]
ADMISSIONS = ["subject_id", "hadm_id", "admittime", "dischtime", "deathtime", "admission_type", "race"]
DIAGNOSES = ["subject_id", "hadm_id", "seq_num", "icd_code", "icd_version"]
PRESCRIPTIONS = ["subject_id", "hadm_id", "starttime", "ndc"]
PATIENT = [1, "F", 50, 2150, ""]
ADMISSION = [1, 11, "2150-01-01 08:00:00", "2150-01-03 09:00:00", "", "URGENT", "WHITE"]

PATIENTS_3 = ["ROW_ID", "SUBJECT_ID", "GENDER", "DOB", "DOD"]
ADMISSIONS_3 = ["ROW_ID", "SUBJECT_ID", "HADM_ID", "ADMITTIME", "DISCHTIME", "ADMISSION_TYPE", "ETHNICITY"]
DIAGNOSES_3 = ["ROW_ID", "SUBJECT_ID", "HADM_ID", "SEQ_NUM", "ICD9_CODE"]
PRESCRIPTIONS_3 = ["ROW_ID", "SUBJECT_ID", "HADM_ID", "STARTDATE", "NDC"]


def write(folder: Path, **tables: Sequence[Sequence[Any]]) -> Path:
    """Write tables of rows, the header first; return the folder."""
    folder.mkdir(exist_ok=True)
    for name, rows in tables.items():
        with open(folder / f"{name}.csv", "w", newline="") as file:
            csv.writer(file).writerows(rows)
    return folder


def mimic4(folder: Path, **rows: Sequence[Sequence[Any]]) -> Path:
    """Write the tables of MIMIC-IV; of patients and admissions there is one row each where none are given."""
    headers = {"patients": PATIENTS, "admissions": ADMISSIONS, "diagnoses_icd": DIAGNOSES}
    headers["prescriptions"] = PRESCRIPTIONS
    found = {"patients": [PATIENT], "admissions": [ADMISSION], "diagnoses_icd": [], "prescriptions": []} | rows
    return write(folder, **{name: [headers[name], *of_table] for name, of_table in found.items()})


def test_the_version_decides_the_system(tmp_path: Path) -> None:
    codes = [("4019 ", 9), ("0389", "9.0"), ("I10", " 10"), ("V5861", 9), ("E119", 10), ("E119", ""), ("E119", 11)]
    diagnoses = [[1, 11, n, code, version] for n, (code, version) in enumerate(codes, start=1)]
    patients, summary = read(mimic4(tmp_path, diagnoses_icd=[*diagnoses, [1, 11, 8, "", ""]]))
    assert [event[1:] for event in patients[1]["events"]] == [
        ("icd9cm", "4019"),
        ("icd9cm", "0389"),
        ("icd10cm", "I10"),
        ("icd9cm", "V5861"),
        ("icd10cm", "E119"),
    ]
    assert summary.files["diagnoses_icd"] == {
        "rows": 8,
        "of an icd_version other than 9 and 10": 2,
        "without a code": 1,
    }


def test_diagnoses_that_have_no_date(tmp_path: Path) -> None:
    admissions = [
        [1, 11, "2150-01-01 08:00:00", "", "2150-01-02 23:59:00", "URGENT", ""],  # dated at death
        [1, 12, "2150-01-01 08:00:00", "", "", "URGENT", ""],  # never at admission, when they were not known
    ]
    diagnoses = [[1, hadm, 1, "I10", 10] for hadm in (11, 12, 13, "")] + [[2, 11, 1, "I10", 10]]
    patients, summary = read(mimic4(tmp_path, admissions=admissions, diagnoses_icd=diagnoses))
    assert patients[1]["events"] == [("2150-01-02", "icd10cm", "I10")] and patients[1]["death_date"] == "2150-01-02"
    assert summary.files["diagnoses_icd"] == {
        "rows": 5,
        "without a date": 1,
        "of no admission": 2,
        "of no patient": 1,
    }


def test_drugs_by_ndc(tmp_path: Path) -> None:
    codes = ["00093101601", "0", "", "00000000000", "93101602", "93101603.0", "0093-1016-01", "0.0"]
    rows = [[1, 11, "2150-01-01 23:59:00", code] for code in codes] + [[1, 11, "", "00093101601"]]
    patients, summary = read(mimic4(tmp_path, prescriptions=rows))
    assert [code for _, _, code in patients[1]["events"]] == [
        "00093101601",
        "00093101602",  # zeros that a spreadsheet has taken
        "00093101603",
        "0093-1016-01",
    ]
    assert {day for day, _, _ in patients[1]["events"]} == {"2150-01-01"}
    assert summary.files["prescriptions"] == {"rows": 9, "without a code": 4, "without a date": 1}


def test_repeats_and_twice_the_same_admission(tmp_path: Path) -> None:
    diagnoses = [[1, 11, n, "I10", 10] for n in (1, 2)]
    patients, summary = read(mimic4(tmp_path, admissions=[ADMISSION, ADMISSION], diagnoses_icd=diagnoses))
    assert len(patients[1]["events"]) == 1 and summary.repeats == 1
    assert summary.files["diagnoses_icd"] == {"rows": 2}


def test_ids_with_the_decimals_of_columns_with_gaps(tmp_path: Path) -> None:
    folder = mimic4(
        tmp_path,
        patients=[["1.0", *PATIENT[1:]]],
        admissions=[[1, "11.0", *ADMISSION[2:]]],
        diagnoses_icd=[["1.0", 11, 1, "I10", 10]],
        prescriptions=[["1", "", "2150-01-01", "00093101601"]],
    )
    patients, _ = read(folder)
    assert len(patients[1]["events"]) == 2 and patients[1]["had_plos"] is False


@pytest.mark.parametrize(
    ("kind", "start", "stop", "had_plos"),
    [
        ("URGENT", "2150-01-01 08:00:00", "2150-01-08 08:00:00", False),
        ("URGENT", "2150-01-01 08:00:00", "2150-01-08 08:00:01", True),
        ("", "2150-01-01 08:00:00", "2150-01-09 08:00:01", True),
        ("OBSERVATION ADMIT", "2150-01-01 08:00:00", "2150-01-09 08:00:01", True),
        ("EU OBSERVATION", "2150-01-01 08:00:00", "2150-01-09 08:00:01", None),
        ("direct observation", "2150-01-01 08:00:00", "2150-01-09 08:00:01", None),
        ("AMBULATORY OBSERVATION", "2150-01-01 08:00:00", "2150-01-09 08:00:01", None),
        ("URGENT", "2150-01-01 08:00:00", "", None),
        ("URGENT", "2150-01-01", "2150-01-08", False),
        ("URGENT", "2150-01-01", "2150-01-09", True),
    ],
)
def test_prolonged_stay(tmp_path: Path, kind: str, start: str, stop: str, had_plos: bool | None) -> None:
    admissions = [[1, 11, start, stop, "", kind, ""]]
    assert read(mimic4(tmp_path, admissions=admissions))[0][1]["had_plos"] is had_plos


def test_hidden_ages_of_version_iv(tmp_path: Path) -> None:
    folder = mimic4(tmp_path, patients=[[1, "F", 91, 2150, ""], [2, "M", 89, 2150, ""]])
    patients, summary = read(folder)
    assert [patient["birth_year"] for patient in patients.values()] == [2059, 2061]
    assert summary.notes == ["Patients older than 89, whose ages MIMIC hides: <11, read as 91 years old."]
    assert read(folder, min_cell=0)[1].notes == [
        "Patients older than 89, whose ages MIMIC hides: 1, read as 91 years old."
    ]


def test_sex_may_be_missing(tmp_path: Path) -> None:
    patients, summary = read(mimic4(tmp_path, patients=[[1, "", 50, 2150, ""], [2, "F", "", 2150, ""]]))
    assert list(patients) == [1] and patients[1]["sex"] is None and summary.excluded == {"no birth year": 1}


def mimic3(folder: Path) -> Path:
    """Write the tables of MIMIC-III: three patients, the last one older than 89."""
    return write(
        folder,
        PATIENTS=[
            PATIENTS_3,
            [1, 10006, "F", "2094-03-05 00:00:00", "2165-08-12 00:00:00"],
            [2, 10007, "M", "2101-06-05 00:00:00", ""],
            [3, 10008, "M", "1830-02-01 00:00:00", ""],
        ],
        ADMISSIONS=[
            ADMISSIONS_3,
            [1, 10006, 142345, "2164-10-23 21:09:00", "2164-11-01 17:15:00", "EMERGENCY", "BLACK"],
            [2, 10008, 142347, "2131-02-01 10:00:00", "2131-02-02 10:00:00", "EMERGENCY", "ASIAN"],
            [3, 10008, 142346, "2130-02-01 10:00:00", "2130-02-02 10:00:00", "NEWBORN", "WHITE"],
        ],
        DIAGNOSES_ICD=[
            DIAGNOSES_3,
            [1, 10006, 142345, 1, "99591"],
            [2, 10006, 142345, 2, "0389"],
            [3, 10006, 142345, 3, ""],
            [4, 10008, 142346, 1, "E8500"],
            [5, 10008, 142347, 1, "V5861"],
        ],
        PRESCRIPTIONS=[
            PRESCRIPTIONS_3,
            [1, 10006, 142345, "2164-10-24 00:00:00", "00409672924"],
            [2, 10006, 142345, "2164-10-24 00:00:00", "0"],
        ],
    )


def test_version_iii(tmp_path: Path) -> None:
    patients, summary = read(mimic3(tmp_path), static_columns=declared({"ethnicity": ["WHITE"]}))
    assert patients == {
        10006: {
            "birth_year": 2094,
            "sex": "F",
            "state": None,
            "ethnicity": "BLACK",
            "had_plos": True,
            "death_date": "2165-08-12",
            "events": [
                ("2164-10-24", "ndc", "00409672924"),
                ("2164-11-01", "icd9cm", "99591"),
                ("2164-11-01", "icd9cm", "0389"),
            ],
        },
        10007: {
            "birth_year": 2101,
            "sex": "M",
            "state": None,
            "ethnicity": None,
            "had_plos": None,
            "events": [],
        },
        10008: {
            "birth_year": 2039,  # 91 at the first admission, not 300
            "sex": "M",
            "state": None,
            "ethnicity": "WHITE",
            "had_plos": False,
            "events": [("2130-02-02", "icd9cm", "E8500"), ("2131-02-02", "icd9cm", "V5861")],
        },
    }
    assert summary.notes == ["Patients older than 89, whose ages MIMIC hides: <11, read as 91 years old."]
    assert reader_of(Source.at([tmp_path]), ReadingSettings())[1] == "version III: patients with dob"


def test_a_table_of_events_may_be_missing(tmp_path: Path) -> None:
    (mimic4(tmp_path) / "prescriptions.csv").unlink()
    assert read(tmp_path)[1].notes == ["There is no table prescriptions: no drugs are read."]
    (tmp_path / "diagnoses_icd.csv").unlink()
    with pytest.raises(InputError, match="holds neither of the tables diagnoses_icd and prescriptions"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("table", "content", "expected"),
    [
        ("admissions", None, "holds no table admissions, which MIMIC has"),
        (
            "admissions",
            "subject_id,hadm_id\n",
            "admissions.csv: lacks the columns admittime, dischtime, which MIMIC has",
        ),
        ("patients", "subject_id,age\n", "patients.csv: has neither anchor_age and anchor_year, as MIMIC-IV, nor dob"),
        ("diagnoses_icd", "subject_id,code\n", "diagnoses_icd.csv: has neither icd_code and icd_version, as MIMIC-IV"),
        ("prescriptions", "drug\n", "prescriptions.csv: lacks the column subject_id, which MIMIC has"),
        ("patients", "", "patients.csv: has no header"),
    ],
)
def test_damaged_tables(tmp_path: Path, table: str, content: str | None, expected: str) -> None:
    path = mimic4(tmp_path) / f"{table}.csv"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(InputError, match=expected) as raised:
        read(tmp_path, input_format="mimic")
    assert "\n" not in str(raised.value)


def test_a_cut_file(tmp_path: Path) -> None:
    path = mimic4(tmp_path, diagnoses_icd=[[1, 11, n, "I10", 10] for n in range(20_000)]) / "diagnoses_icd.csv"
    (tmp_path / "diagnoses_icd.csv.gz").write_bytes(gzip.compress(path.read_bytes())[:-2_000])
    path.unlink()
    with pytest.raises(InputError, match=r"diagnoses_icd"):
        read(tmp_path)


# --- whatever the rows are ---

_days = st.integers(1, 28).map(lambda day: f"2150-02-{day:02}")
_diagnosis = st.tuples(
    st.sampled_from([1, 2, 3]),
    st.sampled_from([11, 12, 21, 99, ""]),
    st.just(1),
    st.sampled_from(["I10", "4019", "", " E119"]),
    st.sampled_from(["9", "10", "", "x"]),
)
_prescription = st.tuples(
    st.sampled_from([1, 2, 3]), st.just(11), _days | st.just(""), st.sampled_from(["00093101601", "0", "", "93101601"])
)


@given(st.lists(_diagnosis, max_size=12), st.lists(_prescription, max_size=12))
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_row_is_an_event_or_counted(tmp_path: Path, diagnoses: list, prescriptions: list) -> None:
    admissions = [[1, 11, "2150-02-01", "2150-02-03"], [1, 12, "2150-02-05", ""], [2, 21, "2150-02-01", "2150-02-20"]]
    folder = mimic4(
        tmp_path,
        patients=[[1, "F", 50, 2150, ""], [2, "M", 20, 2150, ""]],
        admissions=[[*row, "", "URGENT", ""] for row in admissions],
        diagnoses_icd=diagnoses,
        prescriptions=prescriptions,
    )
    patients, summary = read(folder)
    for name, rows in (("diagnoses_icd", diagnoses), ("prescriptions", prescriptions)):
        assert summary.files[name]["rows"] == len(rows)
    counted = sum(sum(n for reason, n in of.items() if reason != "rows") for of in summary.files.values())
    events = [event for patient in patients.values() for event in patient["events"]]
    assert len(events) + counted + summary.repeats == len(diagnoses) + len(prescriptions)
    for patient in patients.values():
        days = [day for day, _, _ in patient["events"]]
        assert days == sorted(days) and len(set(patient["events"])) == len(patient["events"])
    assert all(code == code.strip() and (system != "ndc" or len(code) == 11) for _, system, code in events)
