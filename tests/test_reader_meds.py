"""MEDS, in its versions and spellings: what a code says, where facts about the person stand, how files lie."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from conftest import assert_one_line_error, run_here
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exmed_bert.console import InputError, OptionError
from exmed_bert.data.convert import convert
from exmed_bert.data.dataset import PatientDataset
from exmed_bert.data.patient import EPOCH, NO_DAY, PatientColumns
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.data.readers import reader_of
from exmed_bert.data.readers.meds import Meaning, MedsReader, _ranges_of_subjects, meaning_of, prefixes
from exmed_bert.data.readers.source import Source
from exmed_bert.data.readers.summary import ReadingSummary
from exmed_bert.data.readers.tables import TableReader
from exmed_bert.data.static_columns import declared
from exmed_bert.settings import ConvertSettings, ReadingSettings

ROOT = Path(__file__).resolve().parents[1]
REAL = ROOT / "tests" / "fixtures" / "real"
BIRTH = (1, datetime(1950, 6, 1), "MEDS_BIRTH")

Row = tuple[Any, datetime | None, str | None]


def write(
    path: Path,
    rows: Sequence[Row],
    subject: str = "subject_id",
    kind: Any = None,
    zone: str | None = None,
    unit: str = "us",
) -> None:
    """Write rows of subject, time and code as one Parquet file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    subjects, times, codes = zip(*rows, strict=True) if rows else ((), (), ())
    columns = {
        subject: pyarrow.array(subjects, kind or pyarrow.int64()),
        "time": pyarrow.array(times, pyarrow.timestamp(unit, zone)),
        "code": pyarrow.array(codes, pyarrow.string()),
        "numeric_value": pyarrow.nulls(len(rows), pyarrow.float32()),
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


def read(
    *paths: Path, static: dict[str, list[str]] | None = None, **given: Any
) -> tuple[PatientColumns, ReadingSummary]:
    """Return all patients, codes as the reader finds them."""
    source = PatientInput(list(paths), ReadingSettings(**given), declared(static or {}))
    (patients,) = source.raw_chunks()
    return patients, source.summary


def events_of(patients: PatientColumns) -> list[list[tuple[str, str, str]]]:
    """Return day, system and code of each patient's events."""
    events = patients.events
    of_patients = []
    for i in range(len(patients)):
        rows = range(events.offsets[i], events.offsets[i + 1])
        of_patients.append([(f"{day(events.days[at])}", *events.table[events.codes[at]]) for at in rows])
    return of_patients


def day(number: Any) -> date:
    return EPOCH + timedelta(days=int(number))


def read_rows(folder: Path, *rows: Row, **given: Any) -> tuple[PatientColumns, ReadingSummary]:
    write(folder / "data" / "0.parquet", rows)
    return read(folder, **given)


# --- what a code says ---


@pytest.mark.parametrize(
    ("code", "system", "text"),
    [
        ("ICD10CM//E11.9", "icd10cm", "E11.9"),
        ("ICD10CM/E11.9", "icd10cm", "E11.9"),
        ("icd10cm//e119", "icd10cm", "e119"),
        ("ICD-10-CM//E11.9", "icd10cm", "E11.9"),
        ("ICD9CM//V58.61", "icd9cm", "V58.61"),
        ("ICD9CM/250.00", "icd9cm", "250.00"),
        ("ATC//C10AA05", "atc", "C10AA05"),
        ("ATC/C10AA05", "atc", "C10AA05"),
        ("RxNorm//161", "rxnorm", "161"),
        ("RxNorm/161", "rxnorm", "161"),
        ("NDC//0093-1016-01", "ndc", "0093-1016-01"),
        ("SNOMED//29857009", "snomedct", "29857009"),
        ("SNOMED/29857009", "snomedct", "29857009"),
        ("SNOMEDCT//29857009", "snomedct", "29857009"),
        ("LOINC//718-7", "loinc", "718-7"),
        ("CPT4/99213", "cpt", "99213"),
        ("ICD10PCS//0DTJ4ZZ", "icd10pcs", "0DTJ4ZZ"),
        ("DIAGNOSIS//ICD//10//E119", "icd10cm", "E119"),
        ("DIAGNOSIS//ICD//9//V5861", "icd9cm", "V5861"),
        ("PROCEDURE//ICD//10//0DTJ4ZZ", "icd10pcs", "0DTJ4ZZ"),
        ("ICD//9//V5861", "icd9cm", "V5861"),
        ("ICD//10//E119", "icd10cm", "E119"),
        (" ICD10CM // E11.9 ", "icd10cm", "E11.9"),
    ],
)
def test_prefixes_name_the_code_system(code: str, system: str, text: str) -> None:
    assert meaning_of(code, prefixes({}), {}, {}, frozenset()) == Meaning("event", system, text)


@pytest.mark.parametrize(
    ("code", "family"),
    [
        ("HR", "HR"),
        ("LAB//50912//mg/dL", "LAB"),
        ("LAB/50912", "LAB"),
        ("PROCEDURE//ICD//9//4523", "PROCEDURE"),
        ("ADMISSION//CARDIAC", "ADMISSION"),
        ("E11.9", "E11.9"),  # no prefix declares a system, so it is none
        ("V58.61", "V58.61"),
        ("MEDICATION//Aspirin", "MEDICATION"),
        ("Race/White", "Race"),
    ],
)
def test_codes_without_a_declared_system_are_no_events(code: str, family: str) -> None:
    assert meaning_of(code, prefixes({}), {}, {}, frozenset()) == Meaning("other", family)


def test_prefixes_are_extended_in_the_settings(tmp_path: Path) -> None:
    at = datetime(2020, 1, 2)
    rows = [BIRTH, (1, at, "DX10//E11.9"), (1, at, "Hospital/Drug//C10AA05"), (1, at, "DX9//250")]
    given = {"DX10": "icd10cm", "hospital/drug//": "ATC"}
    patients, summary = read_rows(tmp_path, *rows, meds_prefixes=given)
    assert events_of(patients) == [[("2020-01-02", "icd10cm", "E11.9"), ("2020-01-02", "atc", "C10AA05")]]
    assert summary.families == {"DX9": 1}
    with pytest.raises(OptionError, match=r"config\.yaml: reading\.meds_prefixes\.DX10: unknown code system 'icd11'"):
        read(tmp_path, meds_prefixes={"DX10": "icd11"})


def test_parents_say_what_the_datasets_own_codes_are(tmp_path: Path) -> None:
    at = datetime(2020, 1, 2)
    own = ["Diabetes", "Statin", "HR", "LAB//1", "Both", "ICD10CM//I10", "None", "Unlisted"]
    parents = [
        ["ICD10CM/E11.9"],
        ["LOCAL/9", "ATC//C10AA05"],
        ["LOINC/8867-4"],
        None,
        ["RxNorm/161", "ATC/N02BE01"],
        ["ATC/C10AA05"],
        [],
    ]
    (tmp_path / "metadata").mkdir()
    codes = pyarrow.table({"code": own[:7], "description": ["x"] * 7, "parent_codes": parents})
    pyarrow.parquet.write_table(codes, tmp_path / "metadata" / "codes.parquet")
    patients, summary = read_rows(tmp_path, BIRTH, *((1, at, code) for code in own))
    assert [(system, code) for _, system, code in events_of(patients)[0]] == [
        ("icd10cm", "E11.9"),
        ("atc", "C10AA05"),
        ("rxnorm", "161"),
        ("icd10cm", "I10"),
    ]
    assert summary.families == {"HR": 1, "LAB": 1, "None": 1, "Unlisted": 1}
    kept, _ = read(tmp_path, keep_systems="loinc")  # a measurement's parent counts where its system is kept
    assert ("2020-01-02", "loinc", "8867-4") in events_of(kept)[0]


# --- who a subject is ---


@pytest.mark.parametrize(
    ("code", "sex"),
    [
        ("GENDER//F", "F"),
        ("GENDER//M", "M"),
        ("Gender/F", "F"),
        ("SEX//M", "M"),
        ("Sex/Female", "Female"),
        ("GENDER//8532", "FEMALE"),
        ("GENDER/8507", "MALE"),
        ("GENDER//8551", "8551"),
    ],
)
@pytest.mark.parametrize("at", [None, datetime(1950, 6, 1)])
def test_sex(tmp_path: Path, code: str, sex: str, at: datetime | None) -> None:
    patients, summary = read_rows(tmp_path, BIRTH, (1, at, code))
    assert patients.static["sex"] == [sex] and not summary.families
    assert summary.files["MEDS data"] == Counter(rows=0)


@pytest.mark.parametrize(
    "code", ["MEDS_BIRTH", "SNOMED/184099003", "SNOMED//3950001", "SNOMED/3950001", "SNOMED//184099003", "meds_birth"]
)
def test_birth_is_no_event(tmp_path: Path, code: str) -> None:
    patients, _ = read_rows(
        tmp_path, (1, datetime(1950, 12, 31, 23, 59), code), (1, datetime(2020, 1, 1), "ATC/C10AA05")
    )
    assert patients.birth_years.tolist() == [1950] and events_of(patients) == [[("2020-01-01", "atc", "C10AA05")]]
    assert day(patients.period("birth_date")[0]) == date(1950, 12, 31)


@pytest.mark.parametrize("code", ["MEDS_DEATH", "SNOMED/419620001", "SNOMED//419620001"])
def test_death_is_no_event(tmp_path: Path, code: str) -> None:
    patients, summary = read_rows(
        tmp_path, BIRTH, (1, datetime(2021, 3, 4, 5), code), (2, datetime(1960, 1, 1), "MEDS_BIRTH")
    )
    assert [None if d == NO_DAY else day(d) for d in patients.period("death_date")] == [date(2021, 3, 4), None]
    assert events_of(patients) == [[], []] and not summary.families


def test_static_columns(tmp_path: Path) -> None:
    rows = [BIRTH, (1, None, "STATE//CA"), (1, BIRTH[1], "Insurance/hmo"), (1, None, "EYE_COLOR//BLUE")]
    patients, summary = read_rows(tmp_path, *rows, static={"insurance": ["HMO", "PPO"]})
    assert patients.static == {"sex": [None], "state": ["CA"], "insurance": ["hmo"]}
    assert summary.families == {"EYE_COLOR": 1}


def test_subjects_without_a_birth_are_left_out(tmp_path: Path) -> None:
    at = datetime(2020, 1, 2)
    rows = [BIRTH, (2, at, "ICD10CM//I10"), (3, None, "MEDS_BIRTH"), (3, at, "ICD10CM//I10"), (1, at, "ICD10CM//I10")]
    patients, summary = read_rows(tmp_path, *rows)
    assert patients.patient_ids == [1] and summary.excluded == {"no birth year": 2}


def test_shifted_years_are_kept(tmp_path: Path) -> None:
    patients, _ = read_rows(
        tmp_path, (1, datetime(2114, 1, 1), "MEDS_BIRTH"), (1, datetime(2180, 5, 6), "ICD10CM//I10")
    )
    assert patients.birth_years.tolist() == [2114] and events_of(patients) == [[("2180-05-06", "icd10cm", "I10")]]


# --- rows ---


def test_what_is_no_event_is_counted(tmp_path: Path) -> None:
    at = datetime(2020, 1, 2, 3, 4)
    rows: list[Row] = [BIRTH, (1, None, "ICD10CM//I10"), (1, at, None), (1, at, "HR"), (1, None, "HEIGHT")]
    rows += [(1, at, "ICD10CM//I10"), (1, at + timedelta(hours=3), "ICD10CM//I10"), (1, at, "ICD10CM//E11.9")]
    patients, summary = read_rows(tmp_path, *rows)
    assert events_of(patients) == [[("2020-01-02", "icd10cm", "I10"), ("2020-01-02", "icd10cm", "E11.9")]]
    assert summary.files["MEDS data"] == Counter(
        {"rows": 7, "without a date": 1, "without a code": 1, "of no code system": 2}
    )
    assert summary.repeats == 1 and summary.families == {"HR": 1, "HEIGHT": 1}


@pytest.mark.parametrize("zone", [None, "UTC", "America/Los_Angeles", "Australia/Sydney", "+05:30", "-0800"])
@pytest.mark.parametrize("unit", ["us", "ns"])
def test_no_time_zone_moves_a_date(tmp_path: Path, zone: str | None, unit: str) -> None:
    offsets = {"+05:30": timezone(timedelta(hours=5, minutes=30)), "-0800": timezone(-timedelta(hours=8))}
    place = None if zone is None else UTC if zone == "UTC" else offsets.get(zone) or ZoneInfo(zone)
    rows = [
        (1, datetime(1949, 12, 31, 23, 30, tzinfo=place), "MEDS_BIRTH"),
        (1, datetime(2020, 1, 2, 0, 10, tzinfo=place), "ICD10CM//I10"),
        (1, datetime(2020, 7, 2, 23, 50, tzinfo=place), "ICD10CM//E11.9"),
        (1, datetime(2021, 7, 2, 23, 50, tzinfo=place), "MEDS_DEATH"),
    ]
    write(tmp_path / "0.parquet", rows, zone=zone, unit=unit)
    patients, _ = read(tmp_path)
    assert events_of(patients) == [[("2020-01-02", "icd10cm", "I10"), ("2020-07-02", "icd10cm", "E11.9")]]
    assert patients.birth_years.tolist() == [1949] and day(patients.period("death_date")[0]) == date(2021, 7, 2)


def test_time_zones_that_differ_are_refused(tmp_path: Path) -> None:
    for name, zone in (("0", "UTC"), ("1", "America/New_York")):
        write(tmp_path / f"{name}.parquet", [(1, datetime(1950, 1, 1, tzinfo=UTC), "MEDS_BIRTH")], zone=zone)
    with pytest.raises(
        InputError, match=r"time has time zones that differ, UTC in 0\.parquet and America/New_York in 1"
    ):
        read(tmp_path)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns", "date32"])
def test_units_of_time(tmp_path: Path, unit: str) -> None:
    kind = pyarrow.date32() if unit == "date32" else pyarrow.timestamp(unit)
    times = pyarrow.array([datetime(1950, 1, 1), datetime(2020, 1, 2)], pyarrow.timestamp("s")).cast(kind)
    table = pyarrow.table({"subject_id": [1, 1], "time": times, "code": ["MEDS_BIRTH", "ICD10CM//I10"]})
    pyarrow.parquet.write_table(table, tmp_path / "0.parquet")
    patients, _ = read(tmp_path)
    assert patients.birth_years.tolist() == [1950] and events_of(patients) == [[("2020-01-02", "icd10cm", "I10")]]


@pytest.mark.parametrize(
    ("ids", "kind"),
    [([-3, 0, 7], pyarrow.int64()), ([1, 2, 3], pyarrow.uint32()), (["a", "007", "7"], pyarrow.string())],
)
@pytest.mark.parametrize("column", ["subject_id", "patient_id", "Subject_ID"])
def test_ids(tmp_path: Path, ids: list[Any], kind: pyarrow.DataType, column: str) -> None:
    rows: list[Row] = []
    for number, key in enumerate(ids):
        rows += [
            (key, datetime(1950 + number, 1, 1), "MEDS_BIRTH"),
            (key, datetime(2020, 1, 1 + number), "ATC//C10AA05"),
        ]
    write(tmp_path / "data" / "0.parquet", rows, column, kind)
    patients, _ = read(tmp_path)
    assert patients.patient_ids == ids and patients.birth_years.tolist() == [1950, 1951, 1952]
    assert events_of(patients) == [[(f"2020-01-0{i}", "atc", "C10AA05")] for i in (1, 2, 3)]


def test_further_columns_do_not_matter(tmp_path: Path) -> None:
    columns = {
        name: ["x", "x"] for name in ("system", "text", "kind", "written", "patient_id", "day", "birth_year", "d")
    }
    times = [datetime(1950, 1, 1), datetime(2020, 1, 2)]
    table = pyarrow.table(columns | {"subject_id": [1, 1], "TIME": times, "Code": ["MEDS_BIRTH", "ICD10CM//I10"]})
    pyarrow.parquet.write_table(table, tmp_path / "0.parquet")
    patients, _ = read(tmp_path)
    assert patients.patient_ids == [1] and events_of(patients) == [[("2020-01-02", "icd10cm", "I10")]]


# --- files ---


def test_shards_lie_in_folders(tmp_path: Path) -> None:
    for number, place in enumerate(("train/0", "train/1", "tuning/0", "held_out/deeper/0")):
        rows = [(number, datetime(1950 + number, 1, 1), "MEDS_BIRTH"), (number, datetime(2020, 1, 1), "ICD10CM//I10")]
        write(tmp_path / "data" / f"{place}.parquet", rows)
    (tmp_path / "data" / "._train.parquet").write_bytes(b"\x00")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "0.parquet").write_bytes(b"\x00")
    patients, summary = read(tmp_path)
    years = dict(zip(patients.patient_ids, patients.birth_years.tolist(), strict=True))
    assert years == {0: 1950, 1: 1951, 2: 1952, 3: 1953} and patients.splits is None
    assert summary.files == {"MEDS data (4 files)": Counter(rows=4)}
    alone, _ = read(tmp_path / "data" / "train" / "1.parquet", tmp_path / "data" / "tuning")
    assert alone.patient_ids == [1, 2]


@pytest.mark.parametrize("column", ["subject_id", "patient_id"])
def test_splits(tmp_path: Path, column: str) -> None:
    write(tmp_path / "data" / "0.parquet", [(i, datetime(1950, 1, 1), "MEDS_BIRTH") for i in range(5)], column)
    splits = {column: [4, 3, 2, 1, 99], "split": ["train", "tuning", "held_out", "other", "train"]}
    (tmp_path / "metadata").mkdir()
    pyarrow.parquet.write_table(pyarrow.table(splits), tmp_path / "metadata" / "subject_splits.parquet")
    patients, _ = read(tmp_path)
    assert patients.splits is not None
    of_patients = dict(zip(patients.patient_ids, patients.splits.tolist(), strict=True))
    assert of_patients == {0: -1, 1: -1, 2: 2, 3: 1, 4: 0}


def test_other_tables_are_not_taken_for_data(tmp_path: Path) -> None:
    labels = {"subject_id": [1], "prediction_time": [datetime(2020, 1, 1)], "boolean_value": [True]}
    pyarrow.parquet.write_table(pyarrow.table(labels), tmp_path / "labels.parquet")
    write(tmp_path / "data" / "0.parquet", [BIRTH])
    source = Source.at([tmp_path])
    assert reader_of(source, ReadingSettings())[1] == "columns subject_id, time, code"
    assert read(tmp_path)[0].patient_ids == [1]
    with pytest.raises(InputError, match=r"holds no \.parquet with the columns subject_id, time, code"):
        read(tmp_path / "labels.parquet", input_format="meds")


@pytest.mark.parametrize("damage", ["cut", "empty", "middle"])
def test_damaged_files_are_named(tmp_path: Path, damage: str) -> None:
    rows = [(i, datetime(1950, 1, 1), f"ICD10CM//{i}") for i in range(20_000)]
    for name in ("0", "1"):
        write(tmp_path / "data" / f"{name}.parquet", [BIRTH, *rows])
    path = tmp_path / "data" / "1.parquet"
    content = path.read_bytes()
    if damage == "middle":
        changed = bytearray(content)
        changed[len(content) // 4 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 4)
        path.write_bytes(bytes(changed))
    else:
        path.write_bytes(b"" if damage == "empty" else content[: len(content) // 2])
    with pytest.raises(InputError) as refused:
        read(tmp_path)
    assert "\n" not in str(refused.value)
    assert ("1.parquet: is no Parquet file" if damage != "middle" else "data") in str(refused.value)


def test_an_empty_shard_among_others(tmp_path: Path) -> None:
    write(tmp_path / "data" / "0.parquet", [])
    write(tmp_path / "data" / "1.parquet", [BIRTH])
    assert read(tmp_path)[0].patient_ids == [1]


def shards_of(tmp_path: Path, *shards: Sequence[int]) -> Path:
    """Write a dataset with the given patients in each file, and return its folder."""
    folder = tmp_path / "meds"
    for number, subjects in enumerate(shards):
        rows: list[Row] = []
        for subject in subjects:
            rows.append((subject, datetime(1950, 1, 1), "MEDS_BIRTH"))
            rows += [
                (subject, datetime(2020, 1, 1 + day), f"ICD10CM//{code}")
                for day, code in enumerate(("I10", "E11.9", "J45.909", "HR", "N18.30", f"M{subject % 40 + 10}.9"))
            ]
        write(folder / "data" / f"{number}.parquet", rows)
    write_splits(folder, [(subject, "train") for subjects in shards for subject in subjects])
    return folder


def write_splits(folder: Path, rows: Sequence[tuple[int, str]]) -> None:
    (folder / "metadata").mkdir(exist_ok=True)
    subjects, splits = zip(*rows, strict=True)
    table = pyarrow.table({"subject_id": subjects, "split": splits})
    pyarrow.parquet.write_table(table, folder / "metadata" / "subject_splits.parquet")


@pytest.mark.parametrize(
    ("shards", "parts"),
    [
        pytest.param([range(40), range(40, 80)], 2, id="ids that rise"),
        pytest.param([range(0, 80, 2), range(1, 80, 2)], 2, id="ids of one range"),
        pytest.param([range(40), range(39, 80)], 1, id="a patient in two files"),
        pytest.param([range(80)], 1, id="one file"),
    ],
)
def test_files_are_read_apart_where_patients_are_whole_in_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shards: list[range], parts: int
) -> None:
    folder = shards_of(tmp_path, *shards)
    assert len(PatientInput([folder], ReadingSettings(), declared({})).parts()) == parts
    found = {}
    for name in ("apart", "together"):
        if name == "together":
            monkeypatch.setattr(MedsReader, "divide", TableReader.divide)
        (tmp_path / name).mkdir()
        done = convert(ConvertSettings(input=folder, output=tmp_path / name / "d.pt", min_observations=2))
        assert done.counts.reading.files.popitem()[1]["rows"] == 6 * sum(map(len, shards))
        found[name] = [path.read_bytes() for path in sorted((tmp_path / name).glob("*.pt"))]
    assert found["apart"] == found["together"]


@pytest.mark.parametrize("kind", ["int32", "int64", "string", "timestamp[us]"])
def test_the_ends_of_files_tell_of_numbers_alone(kind: str, tmp_path: Path) -> None:
    files = [tmp_path / f"{i}.parquet" for i in range(2)]
    for first, path in enumerate(files):
        ids = pyarrow.array([first * 10 + 1, first * 10 + 9]).cast(kind)
        pyarrow.parquet.write_table(pyarrow.table({"patient_id": [1, 1], "subject_id": ids}), path)
    assert _ranges_of_subjects(files) == ([(1, 9), (11, 19)] if kind.startswith("int") else None)


# --- datasets of others ---


def test_the_synthetic_dataset_of_femr() -> None:
    patients, summary = read(REAL / "meds_femr")
    assert len(patients) == 200 and summary.families == {"Race": 200}
    assert Counter(patients.static["sex"]) == {"F": 98, "M": 102}
    assert set(patients.birth_years.tolist()) == {1990, 1991, 1992}
    rows = summary.files["MEDS data"]
    assert rows["rows"] + 200 + 200 == 2589  # all but births and sexes
    assert rows["of no code system"] == 200
    assert len(patients.events.codes) + summary.repeats == 965 + 1024
    systems = Counter(patients.events.table[code][0] for code in patients.events.codes.tolist())
    assert set(systems) == {"icd9cm", "rxnorm"} and systems.total() + summary.repeats == 1989
    assert not summary.excluded and patients.splits is None


def test_femr_converts_where_its_systems_are_kept(tmp_path: Path) -> None:
    options = ("--input", REAL / "meds_femr", "--output", "d.pt", "--keep-systems", "icd9cm,rxnorm", "--min-cell", 0)
    result = run_here("convert_synthetic_to_dataset.py", *options, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    datasets = [PatientDataset.load(tmp_path / f"d_{split}.pt") for split in ("train", "val")]
    assert sum(map(len, datasets)) == 146  # with five codes or more
    assert set(datasets[0].info.vocabulary.entity_names) - {"default", "atc", "icd"} == {"icd9cm", "rxnorm"}


def test_the_sample_of_meds_testing_helpers() -> None:
    patients, summary = read(REAL / "meds_helpers")
    assert sorted(patients.birth_years.tolist()) == sorted([1980, 1978, 1978, 1976, 1988, 1986])
    assert patients.splits is not None and Counter(patients.splits.tolist()) == {0: 4, 1: 1, 2: 1}
    assert patients.static["sex"] == [None] * 6 and not len(patients.events.codes)
    assert set(summary.families) == {"ADMISSION", "DISCHARGE", "HR", "TEMP", "EYE_COLOR", "HEIGHT"}
    assert summary.families["EYE_COLOR"] == summary.families["HEIGHT"] == 6


def test_nothing_is_written_of_a_dataset_without_codes(tmp_path: Path) -> None:
    result = run_here(
        "convert_synthetic_to_dataset.py", "--input", REAL / "meds_helpers", "--output", "d.pt", cwd=tmp_path
    )
    families = ("HR", "TEMP", "ADMISSION", "DISCHARGE", "EYE_COLOR", "HEIGHT")
    assert_one_line_error(result, 1, "no event has a known code", *families)
    assert not list(tmp_path.iterdir())


# --- the contract ---

TIME = st.datetimes(datetime(1950, 1, 1), datetime(2100, 1, 1)) | st.none()
CODE = (
    st.sampled_from(["ICD10CM//I10", "ATC/C10AA05", "HR", "GENDER//F", "MEDS_DEATH", "ICD9CM//250.00", ""]) | st.none()
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(st.integers(1, 3), TIME, CODE), max_size=40))
def test_rows_are_events_or_are_counted(tmp_path: Path, rows: list[Row]) -> None:
    births = [(i, datetime(1940, 1, 1), "MEDS_BIRTH") for i in (1, 2, 3)]
    patients, summary = read_rows(tmp_path, *births, *rows)
    right: dict[int, dict[tuple[date, str], None]] = {1: {}, 2: {}, 3: {}}
    for subject, time, code in rows:
        if time is not None and code and code.startswith(("ICD", "ATC")):
            right[subject][time.date(), code.replace("/", "//").replace("////", "//")] = None
    found = [[(date.fromisoformat(d), f"{s.upper()}//{c}") for d, s, c in events] for events in events_of(patients)]
    assert [sorted(events) for events in found] == [sorted(right[i]) for i in (1, 2, 3)]
    assert all(events == sorted(events, key=lambda event: event[0]) for events in found)
    counts = summary.files["MEDS data"]
    facts = sum(code in ("GENDER//F", "MEDS_DEATH") for _, _, code in rows)
    left_out = counts["without a date"] + counts["without a code"] + counts["of no code system"]
    assert counts["rows"] == len(rows) - facts == len(patients.events.codes) + summary.repeats + left_out
    assert np.diff(patients.events.offsets).tolist() == [len(right[i]) for i in (1, 2, 3)]
