"""Tables of the user's own: how columns are named, long and wide, several tables, odd files, and what is refused."""

import gzip
import random
from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exmed_bert.console import InputError, OptionError
from exmed_bert.data.patient import DAY_FIELDS, EPOCH, NO_DAY, Event, Patient, PatientColumns
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.data.readers import reader_of
from exmed_bert.data.readers.columns import parse
from exmed_bert.data.readers.source import Source
from exmed_bert.data.readers.summary import ReadingSummary
from exmed_bert.data.static_columns import declared
from exmed_bert.settings import ReadingSettings

PEOPLE = "patient_id,birth_year,sex,state\n1,1950,F,CA\n2,1960,M,TX\n3,1970,,\n"
Facts = list[tuple[str, str, str]]  # day, system, code


def read(
    *paths: Path, columns: str | tuple[str, ...] = (), static: dict[str, list[str]] | None = None, **given: Any
) -> tuple[list[Patient], ReadingSummary]:
    """Return the patients, codes as the reader finds them."""
    chosen = ReadingSettings(columns=(columns,) if isinstance(columns, str) else columns, **given)
    source = PatientInput(list(paths), chosen, declared(static or {}))
    return [patient for patients in source.raw_chunks() for patient in as_objects(patients)], source.summary


def as_objects(patients: PatientColumns) -> Iterator[Patient]:
    """Yield each patient, events in their order."""

    def day(days: Any) -> date | None:
        return None if days == NO_DAY else EPOCH + timedelta(days=int(days))

    events = patients.events
    for i, patient_id in enumerate(patients.patient_ids):
        rows = range(events.offsets[i], events.offsets[i + 1])
        yield Patient(
            patient_id,
            int(patients.birth_years[i]),
            {name: values[i] for name, values in patients.static.items()},
            [Event(*events.table[events.codes[at]], EPOCH + timedelta(days=int(events.days[at]))) for at in rows],
            None if patients.plos[i] < 0 else bool(patients.plos[i]),
            *(day(patients.period(name)[i]) for name in DAY_FIELDS),
        )


def facts(patient: Patient) -> Facts:
    return [(f"{event.day}", event.system, event.code) for event in patient.events]


def of(patients: list[Patient]) -> dict[Any, Facts]:
    return {patient.patient_id: facts(patient) for patient in patients}


def write(folder: Path, **tables: str | bytes) -> Path:
    """Write tables, named as ``claims_csv`` for claims.csv."""
    for name, content in tables.items():
        path = folder / name.replace("__", ".").replace("_csv", ".csv")
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def refusal(*paths: Path, columns: str | tuple[str, ...] = (), **given: Any) -> str:
    with pytest.raises(InputError) as refused:
        read(*paths, columns=columns, **given)
    assert "\n" not in str(refused.value)
    return str(refused.value)


# --- long tables ---


def test_a_tidy_table_needs_no_option(tmp_path: Path) -> None:
    events = (
        "Patient_ID,DATE,Code,system\n2,2020-01-02,E119,icd10cm\n1,20200103, C10AA05 ,ATC\n1,2020-01-01,I10,ICD-10-CM\n"
    )
    patients, summary = read(write(tmp_path, events_csv=events, people_csv=PEOPLE))
    assert of(patients) == {
        1: [("2020-01-01", "icd10cm", "I10"), ("2020-01-03", "atc", "C10AA05")],
        2: [("2020-01-02", "icd10cm", "E119")],
        3: [],
    }
    assert [(p.birth_year, p.sex, p.patient_state) for p in patients] == [
        (1950, "F", "CA"),
        (1960, "M", "TX"),
        (1970, None, None),
    ]
    assert summary.files == {"events.csv": Counter(rows=3)} and not summary.notes


def test_people_may_stand_in_the_table_of_events(tmp_path: Path) -> None:
    rows = "b,1950-03-04,F,2020-01-02,I10\na,1960-01-01,M,2020-01-02,E11.9\nb,1950-03-04,F,2019-01-02,I10\n"
    write(tmp_path, events_csv="patient_id,birth_date,sex,date,code\n" + rows)
    patients, _ = read(tmp_path, columns="system=icd10cm")
    assert of(patients) == {
        "b": [("2019-01-02", "icd10cm", "I10"), ("2020-01-02", "icd10cm", "I10")],
        "a": [("2020-01-02", "icd10cm", "E11.9")],
    }
    assert [(p.birth_year, p.sex) for p in patients] == [(1950, "F"), (1960, "M")]
    assert [p.birth_date for p in patients] == [date(1950, 3, 4), None]


def test_what_is_known_of_people(tmp_path: Path) -> None:
    people = (
        "ID;born;gender;where;died;from;to;long_stay;plan\n"
        "1;04.03.1950;1;CA;05.06.2021;01.01.2019;31.12.2019;yes;HMO\n"
        "1;04.03.1950;1;CA;;01.01.2020;31.12.2020;;HMO\n"
        "2;1960;2.0;TX;;;;0;\n3;1970-01-01;9;;;;;1;PPO\n"
    )
    events = "ID,d,c\n1,01.02.2020,I10\n2,28.02.2020,I10\n3,30.02.2020,I10\n"
    write(tmp_path, people_csv=people, events_csv=events)
    columns = (
        "people*:patient=ID,birth=born,sex=gender[1:MALE|2:FEMALE],state=where,death=died,observation_start=from,"
        "observation_end=to,plos=long_stay,insurance=plan,date_format=%d.%m.%Y",
        "events.csv:patient=ID,date=d,code=c,system=icd10cm,date_format=%d.%m.%Y",
    )
    patients, summary = read(tmp_path, columns=columns, static={"insurance": ["HMO", "PPO"]})
    first, second, third = patients
    assert first == Patient(
        1,
        1950,
        {"sex": "MALE", "state": "CA", "insurance": "HMO"},
        first.events,
        True,
        date(2019, 1, 1),
        date(2020, 12, 31),
        date(2021, 6, 5),
        date(1950, 3, 4),
    )
    assert facts(first) == [("2020-02-01", "icd10cm", "I10")]
    assert (second.birth_year, second.sex, second.had_plos, second.death_date) == (1960, "FEMALE", False, None)
    assert (third.birth_year, third.sex, third.had_plos, third.static["insurance"]) == (1970, "9", True, "PPO")
    assert summary.files["events.csv"] == Counter({"rows": 3, "without a date": 1})


def test_a_column_may_name_the_system(tmp_path: Path) -> None:
    events = (
        "patient_id,date,code,version\n1,2014-01-02,4019,9\n1,2016-01-02,I10,0\n1,2016-01-03,x,\n1,2016-01-04,y,7\n"
    )
    write(tmp_path, events_csv=events, people_csv=PEOPLE)
    patients, summary = read(tmp_path, columns="system=version[9:icd9cm|0:icd10cm]")
    assert facts(patients[0]) == [("2014-01-02", "icd9cm", "4019"), ("2016-01-02", "icd10cm", "I10")]
    assert summary.files["events.csv"] == Counter({"rows": 4, "of no code system": 1}) and summary.families == {"7": 1}


def test_codes_stay_text(tmp_path: Path) -> None:
    rows = ("001,icd9cm", " 0093101601 ,ndc", "250.0,icd9cm")
    events = "".join(f"1,2020-01-01,{row}\n" for row in rows)
    write(tmp_path, events_csv="patient_id,date,code,system\n" + events, people_csv=PEOPLE)
    patients, _ = read(tmp_path)
    assert [event.code for event in patients[0].events] == ["001", "0093101601", "250.0"]


def test_what_programs_write_for_nothing(tmp_path: Path) -> None:
    people = "patient_id,birth_year,sex\n1,1950,NA\nNA,1950,F\n2,NULL,M\n"
    events = "patient_id,date,DX1,DX2\n1,2020-01-01,I10,NA\n1,NA,I10,\n1,2020-01-02,\\N,.\n1,2020-01-03,NULL,NaN\n"
    write(tmp_path, people_csv=people, events_csv=events)
    patients, summary = read(tmp_path, columns="code=DX1..DX2,system=icd10cm")
    assert of(patients) == {1: [("2020-01-01", "icd10cm", "I10")]} and patients[0].sex is None
    assert summary.files["events.csv"] == Counter({"rows": 4, "without a code": 2, "without a date": 1})
    assert summary.excluded == {"no birth year": 1}


def test_static_columns_that_a_step_does_not_read(tmp_path: Path) -> None:
    write(tmp_path, people_csv="patient_id,birth_year,plan,place\n1,1950,HMO,x\n", events_csv="patient_id,date,code\n")
    columns = ("people.csv:insurance=plan,birth=birth_year", "events.csv:system=icd10cm")
    patients, summary = read(tmp_path, columns=columns)
    assert patients[0].static == {"sex": None, "state": None}
    assert summary.notes == ["insurance: --columns names a column for it, but here it is no static column."]
    patients, summary = read(tmp_path, columns=columns, static={"insurance": ["HMO"], "place": ["X"]})
    assert patients[0].static == {"sex": None, "state": None, "insurance": "HMO", "place": "x"} and not summary.notes


# --- wide tables ---


def test_a_wide_table(tmp_path: Path) -> None:
    claims = (
        "PATID,SVC_DT,DX1,DX2,dx3,DX10,PAID\n"
        "1,01JAN2020,I10,,E11.9,Z00.0,5\n"
        "1,02JAN2020,, ,,,5\n"
        "2,03JAN2020,I10,I10,I10,,5\n"
        "9,04JAN2020,I10,E11.9,,,5\n"
        "2,,I10,E11.9,,,5\n"
    )
    write(tmp_path, claims_csv=claims, people_csv=PEOPLE.replace("patient_id", "PATID"))
    columns = "patient=PATID,date=SVC_DT,code=DX1..DX3+DX10,system=icd10cm,date_format=%d%b%Y,birth=birth_year"
    patients, summary = read(tmp_path, columns=columns)
    assert of(patients) == {
        1: [("2020-01-01", "icd10cm", code) for code in ("I10", "E11.9", "Z00.0")],
        2: [("2020-01-03", "icd10cm", "I10")],
        3: [],
    }
    assert summary.files == {
        "claims.csv": Counter({"rows": 11, "without a code": 1, "of no patient": 2, "without a date": 2})
    }
    assert summary.repeats == 2


def test_several_codes_in_a_cell(tmp_path: Path) -> None:
    claims = "patient_id,date,a,b\n1,2020-01-01,I10; E11.9 ;,Z00.0\n1,2020-01-02,;;,\n2,2020-01-01,,I10\n"
    write(tmp_path, claims_csv=claims, people_csv=PEOPLE)
    for spelling in ("semicolon", ";", "';'"):
        patients, summary = read(tmp_path, columns=f"code=a+b,system=icd10cm,separator={spelling}")
        assert of(patients) == {
            1: [("2020-01-01", "icd10cm", code) for code in ("I10", "E11.9", "Z00.0")],
            2: [("2020-01-01", "icd10cm", "I10")],
            3: [],
        }
        assert summary.files["claims.csv"] == Counter({"rows": 5, "without a code": 1})


@pytest.mark.parametrize(
    ("separator", "cell"),
    [("comma", "I10,E11"), ("pipe", "I10|E11"), ("space", "I10  E11"), ("slash", "I10/E11"), ("+", "I10+E11")],
)
def test_separators(tmp_path: Path, separator: str, cell: str) -> None:
    write(tmp_path, claims_csv=f'patient_id,date,code\n1,2020-01-01,"{cell}"\n', people_csv=PEOPLE)
    patients, _ = read(tmp_path, columns=f"system=icd10cm,separator={separator}")
    assert [event.code for event in patients[0].events] == ["I10", "E11"]


def test_lists_in_parquet(tmp_path: Path) -> None:
    table = {
        "patient_id": [1, 1, 2],
        "date": [date(2020, 1, 1), date(2020, 1, 2), date(2020, 1, 3)],
        "codes": [["I10", " E11.9", None], [], None],
        "first": ["Z00.0", None, "I10"],
    }
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "claims.parquet")
    write(tmp_path, people_csv=PEOPLE)
    patients, summary = read(tmp_path, columns="code=first+codes,system=icd10cm")
    assert [event.code for event in patients[0].events] == ["Z00.0", "I10", "E11.9"]
    assert [event.code for event in patients[1].events] == ["I10"]
    assert summary.files["claims.parquet"] == Counter({"rows": 5, "without a code": 1})


def test_the_order_of_rows_and_columns_is_kept_within_a_day(tmp_path: Path) -> None:
    codes = [f"{letter}{number:02}" for letter in "ABCDEFGHIJ" for number in range(99)]
    random.Random(1).shuffle(codes)
    rows = "".join(f"1,2020-01-01,{a},{b},{c}\n" for a, b, c in zip(codes[::3], codes[1::3], codes[2::3], strict=True))
    write(tmp_path, claims_csv="patient_id,date,DX1,DX2,DX3\n" + rows, people_csv=PEOPLE)
    patients, _ = read(tmp_path, columns="code=DX1..DX3,system=icd10cm")
    assert [event.code for event in patients[0].events] == codes


# --- several tables ---


def test_tables_of_several_kinds(tmp_path: Path) -> None:
    write(
        tmp_path,
        members_csv="MEMBER,YOB,SEX\n1,1950,F\n2,1960,M\n",
        claims_2019_csv="MEMBER,DT,DX1,DX2,PX1\n1,2019-01-01,I10,E11.9,99213\n",
        claims_2020_csv="DX3,MEMBER,DT,DX1,DX2,PX1\nZ00.0,2,2020-01-01,I10,,\n",
        rx_csv="MEMBER,FILLED,NDC\n1,2019-02-01,00093101601\n",
        codebook_csv="column,meaning\nDT,date\n",
    )
    columns = (
        "claims*.csv:patient=MEMBER,date=DT,code=DX1..DX3,system=icd10cm",
        "claims*.csv:patient=MEMBER,date=DT,code=PX1,system=cpt",
        "rx*:patient=MEMBER,date=FILLED,code=NDC,system=ndc",
        "MEMBERS.csv:patient=MEMBER,birth=YOB",
    )
    patients, summary = read(tmp_path, columns=columns)
    assert of(patients) == {
        1: [
            ("2019-01-01", "icd10cm", "I10"),
            ("2019-01-01", "icd10cm", "E11.9"),
            ("2019-01-01", "cpt", "99213"),
            ("2019-02-01", "ndc", "00093101601"),
        ],
        2: [("2020-01-01", "icd10cm", "Z00.0"), ("2020-01-01", "icd10cm", "I10")][::-1],
    }
    assert [p.sex for p in patients] == ["F", "M"]
    assert summary.files == {
        "claims (2 files), code=DX1..DX3": Counter(rows=4),
        "claims (2 files), code=PX1": Counter({"rows": 2, "without a code": 1}),
        "rx.csv": Counter(rows=1),
    }
    assert len(summary.notes) == 1 and summary.notes[0].startswith("codebook.csv is not read")


def test_shards_gzip_and_what_systems_put_beside_files(tmp_path: Path) -> None:
    (tmp_path / "claims").mkdir()
    header = "patient_id,date,code,system\n"
    (tmp_path / "claims" / "part-0.csv.gz").write_bytes(gzip.compress((header + "1,2020-01-01,I10,icd10cm\n").encode()))
    (tmp_path / "claims" / "part-1.csv.gz").write_bytes(gzip.compress((header + "1,2020-01-02,I10,icd10cm\n").encode()))
    (tmp_path / "__MACOSX").mkdir()
    write(tmp_path / "__MACOSX", people_csv="junk")
    (tmp_path / "._people.csv").write_bytes(b"\x00\x05")
    write(tmp_path, people_csv=PEOPLE)
    patients, summary = read(tmp_path)
    assert len(facts(patients[0])) == 2 and summary.files == {"claims (2 files)": Counter(rows=2)}


def test_one_option_for_several_tables(tmp_path: Path) -> None:
    write(tmp_path, claims_csv="PID,D,DX\n1,2020-01-01,I10\n", people_csv="PID,YOB\n1,1950\n")
    patients, _ = read(tmp_path, columns="patient=PID,date=D,code=DX,system=icd10cm,birth=YOB")
    assert of(patients) == {1: [("2020-01-01", "icd10cm", "I10")]} and patients[0].birth_year == 1950


# --- ids and types ---


@pytest.mark.parametrize("kind", ["int64", "int32", "uint64", "float64", "decimal", "string", "dictionary"])
def test_whole_numbers_are_ids_however_they_are_stored(tmp_path: Path, kind: str) -> None:
    types = {
        "decimal": pyarrow.decimal128(38, 4),
        "dictionary": pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
        "uint64": pyarrow.uint64(),
    }
    ids = pyarrow.array([1, 2, 3, None]).cast(pyarrow.string())
    ids = ids.cast(types.get(kind) or pyarrow.type_for_alias(kind))
    days = pyarrow.array([20200101, 20200102, 20200103, 20200104])
    table = pyarrow.table({"patient_id": ids, "date": days, "code": ["I10"] * 4})
    pyarrow.parquet.write_table(table, tmp_path / "events.parquet")
    write(tmp_path, people_csv=PEOPLE.replace("\n1,", "\n1.0,").replace("\n2,", "\n2.0,").replace("\n3,", "\n3.0,"))
    patients, summary = read(tmp_path, columns="system=icd10cm")
    assert of(patients) == {i: [(f"2020-01-0{i}", "icd10cm", "I10")] for i in (1, 2, 3)}
    assert summary.files["events.parquet"] == Counter({"rows": 4, "of no patient": 1})


def test_numbers_with_gaps_are_no_decimals(tmp_path: Path) -> None:
    table = pyarrow.table(
        {
            "patient_id": [1.0, 2.0, float("nan")],
            "birth_year": [1950.0, 1960.0, float("nan")],
            "sex": [1.0, 2.0, float("nan")],
            "date": [20200101.0, 20200102.0, float("nan")],
            "RX1": [161.0, float("nan"), 5.0],
            "RX2": ["5640.0", None, "7"],
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "events.parquet")
    patients, _ = read(tmp_path, columns="code=RX1..RX2,system=rxnorm,sex=sex[1:M|2:F]")
    assert of(patients) == {1: [("2020-01-01", "rxnorm", "161"), ("2020-01-01", "rxnorm", "5640")], 2: []}
    assert [(p.birth_year, p.sex) for p in patients] == [(1950, "M"), (1960, "F")]


def test_negative_and_zero_ids(tmp_path: Path) -> None:
    people = "patient_id,birth_year\n-5,1950\n0,1960\n"
    write(tmp_path, people_csv=people, events_csv="patient_id,date,code\n0,2020-01-01,I10\n-5,2020-01-01,I10\n")
    patients, _ = read(tmp_path, columns="system=icd10cm")
    assert {key: len(found) for key, found in of(patients).items()} == {-5: 1, 0: 1}


def test_ids_with_leading_zeros_stay_text(tmp_path: Path) -> None:
    write(
        tmp_path,
        people_csv="patient_id,birth_year\n007,1950\n7,1960\n",
        events_csv="patient_id,date,code\n007,2020-01-01,I10\n",
    )
    patients, _ = read(tmp_path, columns="system=icd10cm")
    assert {key: len(found) for key, found in of(patients).items()} == {"007": 1, "7": 0}


@pytest.mark.parametrize(
    ("written", "date_format", "day"),
    [
        ("2020-03-09", None, "2020-03-09"),
        ("20200309", None, "2020-03-09"),
        ("2020-03-09T23:30:00-08:00", None, "2020-03-09"),
        ("2020-03-09 23:30:00+11", None, "2020-03-09"),
        ("3/9/2020", "%m/%d/%Y", "2020-03-09"),
        ("09.03.2020", "%d.%m.%Y", "2020-03-09"),
        ("09MAR2020", "%d%b%Y", "2020-03-09"),
        ("09mar2020:11:12:13", "%d%b%Y:%H:%M:%S", "2020-03-09"),
        ('"March 9, 2020"', '"%B %d, %Y"', "2020-03-09"),
    ],
)
def test_dates(tmp_path: Path, written: str, date_format: str | None, day: str) -> None:
    write(tmp_path, people_csv=PEOPLE, events_csv=f"patient_id,date,code\n1,{written},I10\n")
    columns = "system=icd10cm" + (f",date_format={date_format}" if date_format else "")
    patients, _ = read(tmp_path, columns=columns)
    assert facts(patients[0]) == [(day, "icd10cm", "I10")]


# --- odd files ---


@pytest.mark.parametrize("encoding", ["utf-8-sig", "latin-1", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_encodings_and_line_ends(tmp_path: Path, encoding: str, end: str) -> None:
    rows = ["patient_id;date;code;note", '1;2020-01-01;I10;"Müller; two', 'lines"', "1;2020-01-02;E11.9;"]
    write(tmp_path, people_csv=PEOPLE, events_csv=(end.join(rows) + end).encode(encoding))
    said = {"latin-1": ",encoding=latin-1", "utf-16": ",encoding=utf-16"}.get(encoding, "")
    patients, _ = read(tmp_path, columns=("events*:system=icd10cm" + said, "people*:birth=birth_year"))
    assert facts(patients[0]) == [("2020-01-01", "icd10cm", "I10"), ("2020-01-02", "icd10cm", "E11.9")]


def test_only_a_header(tmp_path: Path) -> None:
    write(tmp_path, people_csv=PEOPLE, events_csv="patient_id,date,code\n")
    patients, summary = read(tmp_path, columns="system=icd10cm")
    assert [len(patient.events) for patient in patients] == [0, 0, 0] and summary.files == {
        "events.csv": Counter(rows=0)
    }


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"patient_id,date,code\n1,2020-01-01,I10,E11\n", "events.csv: line 2: has 4 columns, expected 3"),
        (b"patient_id,date,code,code\n1,2020-01-01,I10,E11\n", "the column 'code' is there twice"),
        (b"", "events.csv: has no header"),
        (b"patient_id,date,code\n1,2020-01-01,M\xfcller\n", "events.csv: line 2: is not UTF-8 text"),
        (b'patient_id,date,code\n1,2020-01-01,"I10\n', "a quotation mark is not closed"),
    ],
)
def test_damaged_files(tmp_path: Path, content: bytes, problem: str) -> None:
    write(tmp_path, people_csv=PEOPLE, events_csv=content)
    assert problem in refusal(tmp_path, columns="system=icd10cm")


@pytest.mark.parametrize("name", ["claims.xlsx", "claims.sas7bdat", "claims.zip"])
def test_other_programs_files(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PK")
    for options in ({}, {"input_format": "csv"}):
        assert f"{name}: is a" in refusal(tmp_path / name, **options)


# --- what is refused ---

CLAIMS = "PATID,SVC_DT,DX1,DX2\n1,2020-01-01,I10,\n"


WIDE = "patient=PATID,date=SVC_DT,code=DX1"
NO_DX3 = "claims.csv: has no column DX3, which --columns code=DX1..DX8 names; its columns: PATID, SVC_DT, DX1, DX2"


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        (f"{WIDE}..DX8,system=icd10cm,birth=B", NO_DX3),
        ("patient=PAT,date=SVC_DT,code=DX1,system=icd10cm", "has no column PAT, which --columns patient=PAT names"),
        (
            "date=SVC_DT,code=DX1",
            "claims.csv: has no column patient_id; name the patients' ids with --columns patient=",
        ),
        (WIDE, "claims.csv: no code system is declared; add to --columns system=icd10cm"),
        (f"{WIDE},system=icd11", "system=icd11: is neither a code system (atc, icd10cm,"),
        (f"{WIDE},system=icd10cm", "no table has years of birth; name their column with --columns birth=YOB, or add a"),
        ("patient=PATID,date=SVC_DT", "neither dates and codes nor people's columns"),
        ("rx*.csv:patient=PATID", "--columns rx*.csv: no file is named so; expected one of claims.csv"),
        ("patient=PATID,dat=SVC_DT", "'dat' is unknown, did you mean 'date'?"),
        ("patient=PATID,z-z=SVC_DT", "'z-z' is unknown, expected patient, date, code"),
        (f"{WIDE}+DX2..DX1,system=icd10cm", "has no column DX2..DX1"),
        (f"{WIDE}..DX999999999,system=icd10cm", "has no column DX3"),
        ("PATID", "'PATID': expected a key and a column"),
        ("patient=", "expected a key and a column"),
        ("code=DX1,code=DX2", "code is there twice; join the columns with +"),
        ("date=A+B", "date=A+B: expected one column"),
        ("separator=;;", "separator=;;: expected one character"),
        ("encoding=ascii", "expected one of utf-8, latin-1, utf-16"),
        ("date_format=MM/DD/YYYY", "expected a format as %m/%d/%Y"),
        ("date_format=%Q", "expected a format as %m/%d/%Y"),
        ("system=V[9]", "expected values and what they mean"),
        ("system=V[9:icd8]", "system: unknown code system 'icd8'"),
    ],
)
def test_options_that_cannot_be(tmp_path: Path, columns: str, problem: str) -> None:
    write(tmp_path, claims_csv=CLAIMS)
    assert problem in refusal(tmp_path, columns=columns)


@pytest.mark.parametrize(
    ("people", "code", "problem"),
    [
        ("PATID,YOB\n1,1950\n", "DX9", "has no column DX9"),
        ("PATID,YOB,SVC_DT\n1,1950,\n", "DX1", "people.csv: has no column DX1"),
        ("ID,YOB\n1,1950\n", "DX1", "people.csv: has no column PATID"),
    ],
)
def test_one_option_that_does_not_fit_several_tables(tmp_path: Path, people: str, code: str, problem: str) -> None:
    write(tmp_path, claims_csv=CLAIMS, people_csv=people)
    assert problem in refusal(tmp_path, columns=f"patient=PATID,date=SVC_DT,code={code},system=icd10cm,birth=YOB")


def test_dates_that_no_row_has(tmp_path: Path) -> None:
    write(tmp_path, people_csv=PEOPLE, events_csv="patient_id,date,code\n1,01/02/2020,I10\n2,,I10\n9,,I10\n")
    message = refusal(tmp_path, columns="system=icd10cm")
    assert "events.csv: no row has a date that can be read; expected YYYY-MM-DD" in message and "date_format" in message


def test_ids_that_no_row_shares(tmp_path: Path) -> None:
    write(tmp_path, people_csv=PEOPLE, events_csv="patient_id,date,code\nP1,2020-01-02,I10\n")
    assert "no row is of a patient" in refusal(tmp_path, columns="system=icd10cm")


# --- which files are taken ---


def test_what_is_taken_for_tables_of_ones_own(tmp_path: Path) -> None:
    write(tmp_path, a_csv="patient_id,date,code\n", b_csv="PATID,DT,DX\n")
    named, plain = ReadingSettings(columns=("patient=PATID",)), ReadingSettings()
    assert reader_of(Source.at([tmp_path / "a.csv"]), plain)[0].name == "csv"
    assert reader_of(Source.at([tmp_path / "b.csv"]), named)[0].name == "csv"
    with pytest.raises(InputError, match=r"not recognized \(b\.csv\)"):
        reader_of(Source.at([tmp_path / "b.csv"]), plain)
    assert reader_of(Source.at([tmp_path / "b.csv"]), ReadingSettings(input_format="csv"))[0].name == "csv"
    assert "no table has the columns patient_id, date, code" in refusal(tmp_path / "b.csv", input_format="csv")


def test_other_formats_are_not_taken_where_columns_are_named(tmp_path: Path) -> None:
    named = ReadingSettings(columns=("patient=subject_id",))
    table = pyarrow.table({"patient_id": [1], "birth_year": [1950], "diagnoses": [["I10"]]})
    pyarrow.parquet.write_table(table, tmp_path / "p.parquet")
    assert reader_of(Source.at([tmp_path / "p.parquet"]), named)[0].name == "parquet"
    (tmp_path / "p.json").write_text("[]")
    assert reader_of(Source.at([tmp_path / "p.json"]), named)[0].name == "json"
    meds = Path(__file__).parents[1] / "examples" / "meds" / "data"
    assert reader_of(Source.at([meds]), named)[0].name == "meds"


# --- the example ---


def test_the_example_says_the_same_tidy_and_as_claims() -> None:
    example = Path(__file__).parents[1] / "examples" / "csv"
    tidy, summary = read(example / "data")
    columns = (
        "members.csv:patient=MEMBER,birth=YOB,sex=SEX[1:MALE|2:FEMALE],plos=LONG_STAY",
        "claims.csv:patient=MEMBER,date=SVC_DT,code=DX1..DX4,system=icd10cm,date_format=%m/%d/%Y",
        "pharmacy.csv:patient=MEMBER,date=FILL_DT,code=ATC,system=atc,date_format=%m/%d/%Y",
    )
    claims, of_claims = read(example / "claims", columns=columns)
    assert len(tidy) == 120 and not summary.notes and not of_claims.notes
    for one, other in zip(tidy, claims, strict=True):
        assert other.patient_id == f"M{one.patient_id:04d}"
        assert [(day, system, code.replace(".", "")) for day, system, code in facts(one)] == facts(other)
        assert (one.birth_year, one.static, one.had_plos) == (other.birth_year, other.static, other.had_plos)


# --- the contract ---

CODE = st.text("ABCDEFGH0123456789.", min_size=1, max_size=6).filter(
    lambda code: code != "."
)  # SAS writes it for nothing
ROW = st.tuples(st.integers(1, 4), st.integers(0, 400), st.lists(st.one_of(st.just(""), CODE), min_size=3, max_size=3))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ROW, max_size=30))
def test_long_wide_and_joined_tables_say_the_same(tmp_path: Path, rows: list[tuple[int, int, list[str]]]) -> None:
    start = date(2020, 1, 1)
    head = "patient_id,birth_year\n1,1950\n2,1960\n3,1970\n"
    wide, joined, long = ["patient_id,date,DX1,DX2,DX3"], ["patient_id,date,code"], ["patient_id,date,code"]
    expected: dict[int, dict[date, dict[str, None]]] = {1: {}, 2: {}, 3: {}}
    for patient, day, codes in rows:
        when = start + timedelta(days=day)
        wide.append(f"{patient},{when},{','.join(codes)}")
        joined.append(f"{patient},{when:%Y%m%d},{'|'.join(codes)}")
        long += [f"{patient},{when},{code}" for code in codes if code]
        for code in filter(None, codes):
            if patient in expected:
                expected[patient].setdefault(when, {})[code] = None
    right = {
        patient: [(f"{when}", "icd9cm", code) for when in sorted(days) for code in days[when]]
        for patient, days in expected.items()
    }
    for name, lines, columns in (
        ("wide", wide, "code=DX1..DX3,system=icd9cm"),
        ("joined", joined, "system=icd9cm,separator=pipe"),
        ("long", long, "system=icd9cm"),
    ):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        write(folder, people_csv=head, events_csv="\n".join(lines) + "\n")
        if all(patient == 4 for patient, _, codes in rows if any(codes) or name != "long") and (
            rows if name != "long" else long[1:]
        ):
            assert "no row is of a patient" in refusal(folder, columns=columns)
        else:
            assert of(read(folder, columns=columns)[0]) == right


NAME = st.text(
    st.characters(codec="utf-8", exclude_characters="\"'[]+,=\r\n\x00", exclude_categories=["Z", "C"]),
    min_size=1,
    max_size=8,
)


@given(patient=NAME, day=NAME, code=st.lists(NAME, min_size=1, max_size=4))
def test_names_of_columns_come_through(patient: str, day: str, code: list[str]) -> None:
    found = parse(f"patient='{patient}',date={day},code={'+'.join(code)},system=atc")
    assert found.of_role == {"patient": (patient,), "date": (day,), "code": tuple(code), "system": ("atc",)}


def test_an_option_that_cannot_be_is_an_option_error() -> None:
    with pytest.raises(OptionError):
        parse("patient")
