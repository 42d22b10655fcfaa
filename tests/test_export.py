"""Patients as a MEDS dataset: its schemas, its rows, what is read back from it, and how it replaces an earlier one."""

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import meds
import numpy as np
import pyarrow.parquet
import pytest
from conftest import assert_one_line_error, record, run_here, write_records
from hypothesis import given, settings
from hypothesis import strategies as st

from exmed_bert.codes import code_system
from exmed_bert.console import InputError
from exmed_bert.data.convert import convert
from exmed_bert.data.export import meds as meds_export
from exmed_bert.data.export import meds_codes
from exmed_bert.data.export.meds import export_meds
from exmed_bert.data.export.provenance import FILE, SUBJECT_IDS, read_provenance
from exmed_bert.data.origin import Origin
from exmed_bert.data.patient import PatientColumns
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.data.readers.validation import RecordFields, columns_of
from exmed_bert.data.splits import InputSplit
from exmed_bert.data.static_columns import BUILT_IN, StaticColumn, declared
from exmed_bert.settings import ConvertSettings

ORIGIN = Origin("0" * 32, own_record=True)
INSURANCE = StaticColumn("insurance", "insurance", ("PUBLIC", "PRIVATE"))


def columns(records: list[dict[str, Any]], *static: StaticColumn) -> PatientColumns:
    """Return records as columns."""
    return columns_of(Path("patients.json"), records, 1, RecordFields((*BUILT_IN, *static)))


def export(folder: Path, records: list[dict[str, Any]], *static: StaticColumn) -> Path:
    """Export records; return the folder."""
    export_meds(folder, [columns(records, *static)], ORIGIN)
    return folder


def data(folder: Path) -> list[Path]:
    """Return the files of rows."""
    return sorted((folder / "data").rglob("*.parquet"))


def rows(folder: Path) -> list[tuple[int, datetime | None, str]]:
    """Return all rows, file by file."""
    tables = [pyarrow.parquet.read_table(path) for path in data(folder)]
    return [
        (row["subject_id"], row["time"], row["code"])
        for table in tables
        for row in table.select(["subject_id", "time", "code"]).to_pylist()
    ]


def content(folder: Path) -> dict[str, bytes]:
    """Return the bytes of each file."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- the rows ---


def test_a_patient_as_rows(tmp_path: Path) -> None:
    patient = record(
        7,
        diagnoses=["I10", "E11.9", "E11.95"],
        diagnosis_dates=["20231215", "20220315", "20220315"],
        drugs=["C10AA05", "not a code"],
        prescription_dates=["20220315", "19640101"],
        events=[{"system": "LOINC", "code": "718-7", "date": "20220315"}],
        had_plos=True,
        insurance="public",
        observation_start="20220315",
        observation_end="20231215",
        death_date="20231215",
    )
    assert rows(export(tmp_path / "meds", [patient], INSURANCE)) == [
        (7, None, "GENDER//FEMALE"),
        (7, None, "STATE//CA"),
        (7, None, "INSURANCE//public"),
        (7, None, "PROLONGED_STAY//true"),
        (7, datetime(1964, 1, 1), "ATC//not a code"),
        (7, datetime(1965, 1, 1), "MEDS_BIRTH"),
        (7, datetime(2022, 3, 15), "OBSERVATION_START"),
        (7, datetime(2022, 3, 15), "ICD10CM//E11.9"),
        (7, datetime(2022, 3, 15), "ICD10CM//E11.95"),
        (7, datetime(2022, 3, 15), "ATC//C10AA05"),
        (7, datetime(2022, 3, 15), "LOINC//718-7"),
        (7, datetime(2023, 12, 15), "ICD10CM//I10"),
        (7, datetime(2023, 12, 15), "OBSERVATION_END"),
        (7, datetime(2023, 12, 15), "MEDS_DEATH"),
    ]


@pytest.mark.parametrize("unknown", [None, "", "  "])
def test_what_is_not_known_has_no_row(tmp_path: Path, unknown: str | None) -> None:
    patient = record(0, sex=unknown, patient_state=unknown, insurance=unknown, had_plos=None)
    patient |= {name: [] for name in ("diagnoses", "diagnosis_dates", "drugs", "prescription_dates")}
    assert rows(export(tmp_path / "meds", [patient], INSURANCE)) == [(0, datetime(1965, 1, 1), "MEDS_BIRTH")]


def test_codes_of_the_standard_are_its_own() -> None:
    assert (meds_codes.BIRTH, meds_codes.PERIODS["death_date"]) == (meds.birth_code, meds.death_code)


@pytest.mark.parametrize("name", ["icd", "sex_", "gender", "meds_birth", "prolonged_stay", "static_icd", "observation"])
def test_no_static_column_takes_another_ones_prefix(name: str) -> None:
    others = {
        meds_codes.static_prefix(other) for other in ("sex", "state", "icd_", "static_gender", "static_static_icd")
    }
    systems = {meds_codes.event_prefix(system) for system in ("icd10cm", "atc")}
    prefix = meds_codes.static_prefix(name)
    assert prefix not in others | systems | {meds.birth_code, meds.death_code, "PROLONGED_STAY"}
    with pytest.raises(ValueError, match="unknown code system"):
        code_system(prefix)


DAYS = st.dates(date(1900, 1, 1), date(2200, 1, 1)).map(lambda day: day.isoformat().replace("-", ""))
FEW_DAYS = st.sampled_from(["20200101", "20200102", "19991231", "20200103"])
CODES = st.sampled_from(["I10", "E11.9", "E119", "C10AA05", "wrong", ""])
TEXTS = st.none() | st.sampled_from(["FEMALE", "m", "", " ", "a//b", "x"])


@st.composite
def patients(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a record without its id."""

    def events(name: str, dates: str) -> dict[str, list[str]]:
        pairs = draw(st.lists(st.tuples(CODES, FEW_DAYS), max_size=6))
        return {name: [code for code, _ in pairs], dates: [day for _, day in pairs]}

    further = draw(st.lists(st.tuples(st.sampled_from(["loinc", "rxnorm"]), CODES, FEW_DAYS), max_size=3))
    period = {name: draw(st.none() | DAYS) for name in ("observation_start", "observation_end", "death_date")}
    return {
        "birth_year": draw(st.integers(1800, 2300)),
        "sex": draw(TEXTS),
        "patient_state": draw(TEXTS),
        "insurance": draw(TEXTS),
        "had_plos": draw(st.sampled_from([None, True, False])),
        **events("diagnoses", "diagnosis_dates"),
        **events("drugs", "prescription_dates"),
        "events": [{"system": system, "code": code, "date": day} for system, code, day in further],
        **{name: day for name, day in period.items() if day is not None},
    }


IDS = st.integers(-(2**63), 2**64 - 1) | st.text(st.characters(codec="utf-8"), min_size=1, max_size=4)
COHORTS = st.lists(st.tuples(IDS, patients()), max_size=8, unique_by=lambda pair: str(pair[0])).map(
    lambda pairs: [{"patient_id": patient_id} | rest for patient_id, rest in pairs]
)


def expected_rows(patient: dict[str, Any]) -> list[tuple[str | None, str]]:
    """Return day and code of the rows of a record, worked out one by one."""
    static = [("GENDER", "sex"), ("STATE", "patient_state"), ("INSURANCE", "insurance")]
    found: list[tuple[str | None, str]] = [
        (None, f"{prefix}//{patient[field]}") for prefix, field in static if (patient[field] or "").strip()
    ]
    if patient["had_plos"] is not None:
        found.append((None, f"PROLONGED_STAY//{str(patient['had_plos']).lower()}"))
    found.append((f"{patient['birth_year']}0101", "MEDS_BIRTH"))
    events = [
        (day, f"ICD10CM//{code}") for code, day in zip(patient["diagnoses"], patient["diagnosis_dates"], strict=True)
    ]
    events += [(day, f"ATC//{code}") for code, day in zip(patient["drugs"], patient["prescription_dates"], strict=True)]
    events += [(event["date"], f"{event['system'].upper()}//{event['code']}") for event in patient["events"]]
    named = {"observation_start": "OBSERVATION_START", "observation_end": "OBSERVATION_END", "death_date": "MEDS_DEATH"}
    period = {code: [(patient[name], code)] if name in patient else [] for name, code in named.items()}
    found += [*period["OBSERVATION_START"], *events, *period["OBSERVATION_END"], *period["MEDS_DEATH"]]
    return sorted(found, key=lambda row: row[0] or "")


@settings(max_examples=60, deadline=None)
@given(cohort=COHORTS, size=st.integers(1, 8), shard=st.integers(1, 4))
def test_any_patients(cohort: list[dict[str, Any]], size: int, shard: int) -> None:
    with tempfile.TemporaryDirectory() as temporary, pytest.MonkeyPatch.context() as patch:
        patch.setattr(meds_export, "_SHARD", shard)
        folder = Path(temporary, "meds")
        chunks = [columns(cohort[start : start + size], INSURANCE) for start in range(0, len(cohort), size)]
        counts = export_meds(folder, chunks, ORIGIN)
        validate(folder)
        # Read without the code under test: subjects stand together, in the order of the input.
        listed = rows(folder)
        subjects = [subject for subject, _, _ in listed]
        order = list(dict.fromkeys(subjects))
        by_subject: dict[int, list[tuple[str | None, str]]] = {subject: [] for subject in order}
        for subject, time, code in listed:
            by_subject[subject].append((time and f"{time:%Y%m%d}", code))
        assert len(order) == len(cohort) and subjects == [s for s in order for _ in by_subject[s]]
        assert list(by_subject.values()) == list(map(expected_rows, cohort))
        assert ids_of(folder) == [
            i if isinstance(i, int) and i < 2**63 else str(i) for i in (patient["patient_id"] for patient in cohort)
        ]
        assert [len(pyarrow.parquet.read_table(path).column("subject_id").unique()) for path in data(folder)] == [
            min(shard, len(cohort) - start) for start in range(0, len(cohort), shard)
        ]
        assert counts.rows == len(listed) and counts.patients == len(cohort) and counts.files == len(data(folder))
        assert counts.events == sum(len(p["diagnoses"]) + len(p["drugs"]) + len(p["events"]) for p in cohort)

        export_meds(Path(temporary, "again"), [columns(cohort, INSURANCE)] if cohort else [], ORIGIN)
        ours, again = content(folder), content(Path(temporary, "again"))
        assert {name for name in ours if ours[name] != again.get(name)} <= {"metadata/dataset.json", FILE.as_posix()}


def validate(folder: Path) -> None:
    """Assert that every file is as the standard has it."""
    codes = set()
    for path in data(folder):
        table = pyarrow.parquet.read_table(path)
        meds.DataSchema.validate(table)
        assert table.schema.field("code").type == pyarrow.string() and table.schema.names[-1] == "numeric_value"
        codes.update(table.column("code").to_pylist())
    table = pyarrow.parquet.read_table(folder / meds.code_metadata_filepath)
    meds.CodeMetadataSchema.validate(table)
    assert table.column("code").to_pylist() == sorted(codes)
    meds.DatasetMetadataSchema.validate(json.loads((folder / meds.dataset_metadata_filepath).read_text()))
    if (folder / meds.subject_splits_filepath).exists():
        meds.SubjectSplitSchema.validate(pyarrow.parquet.read_table(folder / meds.subject_splits_filepath))


def ids_of(folder: Path) -> list[int | str]:
    """Return the patients' ids as the list of subjects has them, after a look at the numbers for them."""
    if not (folder / SUBJECT_IDS).exists():
        return []
    listed = pyarrow.parquet.read_table(folder / SUBJECT_IDS).to_pylist()
    assert [row["subject_id"] for row in listed] == list(dict.fromkeys(subject for subject, _, _ in rows(folder)))
    return [row["subject_id"] if row["patient_id"] is None else row["patient_id"] for row in listed]


def test_ids_that_are_text_keep_their_numbers(tmp_path: Path) -> None:
    texts = ["7", "-3", "007", "A 1", "9223372036854775808", "é"]
    one = export(tmp_path / "one", [record(text) for text in texts])
    other = export(tmp_path / "other", [record(text) for text in reversed(texts)])
    first, second = (
        {row["patient_id"]: row["subject_id"] for row in pyarrow.parquet.read_table(folder / SUBJECT_IDS).to_pylist()}
        for folder in (one, other)
    )
    assert first == second and list(first) == texts
    assert (first["7"], first["-3"]) == (7, -3) and min(list(first.values())[2:]) > 2**32


@pytest.mark.parametrize(
    ("ids", "said"), [([1, 2, 1], "1: is that of patient 1"), (["a", 7, "7"], "'7'.* patient 2 .*3")]
)
def test_a_patient_that_occurs_twice_is_refused(tmp_path: Path, ids: list[int | str], said: str) -> None:
    chunks = [columns([record(patient_id)]) for patient_id in ids]
    with pytest.raises(InputError, match=rf"patient_id {said}.*expected each patient once"):
        export_meds(tmp_path / "meds", chunks, ORIGIN)
    assert list(tmp_path.iterdir()) == []


def test_codes_are_described_and_have_parents(tmp_path: Path) -> None:
    patient = record(
        0,
        diagnoses=["E119", "Z99.99", "I10"],
        diagnosis_dates=["20220101"] * 3,
        drugs=["C10AA05"],
        prescription_dates=["20220101"],
    )
    table = pyarrow.parquet.read_table(export(tmp_path / "meds", [patient]) / meds.code_metadata_filepath)
    found = {row.pop("code"): (row["description"], row["parent_codes"]) for row in table.to_pylist()}
    assert found["ICD10CM//E119"] == ("Type 2 diabetes mellitus without complications", ["ICD10CM//E11"])
    assert found["ICD10CM//I10"] == ("Essential (primary) hypertension", None)
    assert found["ICD10CM//Z99.99"] == (None, ["ICD10CM//Z99.9"])
    assert found["ATC//C10AA05"] == ("atorvastatin", ["ATC//C10AA"])
    assert found["GENDER//FEMALE"] == ("Gender: FEMALE", None) and found["MEDS_BIRTH"][0]


def test_splits_have_folders_of_their_own(tmp_path: Path) -> None:
    splits = [InputSplit.HELD_OUT, InputSplit.TRAIN, InputSplit.UNKNOWN, InputSplit.TRAIN, InputSplit.TUNING]
    everyone = columns([record(number) for number in range(5)])
    with_splits = PatientColumns(**vars(everyone) | {"splits": np.array(splits, dtype=np.int8)})
    export_meds(tmp_path / "meds", [with_splits], ORIGIN)
    validate(tmp_path / "meds")
    of_file = {
        path.relative_to(tmp_path / "meds" / "data").as_posix(): pyarrow.parquet.read_table(path)["subject_id"]
        for path in data(tmp_path / "meds")
    }
    assert {name: subjects.unique().to_pylist() for name, subjects in of_file.items()} == {
        "held_out/0.parquet": [0],
        "train/0.parquet": [1, 3],
        "tuning/0.parquet": [4],
        "unknown/0.parquet": [2],
    }
    table = pyarrow.parquet.read_table(tmp_path / "meds" / meds.subject_splits_filepath)
    assert table.to_pydict() == {"subject_id": [0, 1, 3, 4], "split": ["held_out", "train", "train", "tuning"]}
    (back,) = PatientInput([tmp_path / "meds"]).chunks()
    assert back.patient_ids == [0, 1, 2, 3, 4] and back.splits is not None and back.splits.tolist() == splits


# --- an earlier folder ---


def test_an_export_replaces_an_earlier_one(tmp_path: Path) -> None:
    export(tmp_path / "meds", [record(0), record(1)])
    folder = export(tmp_path / "meds", [record(2)])
    assert ids_of(folder) == [2] and [path.name for path in tmp_path.iterdir()] == ["meds"]
    before = content(folder)
    export(tmp_path / "meds", [record(2)])
    assert content(folder) == before


def failing() -> Iterator[PatientColumns]:
    yield columns([record(0)])
    raise InputError("patients.json: record 2: is wrong")


def test_an_export_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    before = content(export(tmp_path / "meds", [record(1)]))
    for name in ("meds", "new"):
        with pytest.raises(InputError, match="record 2"):
            export_meds(tmp_path / name, failing(), ORIGIN)
    assert content(tmp_path / "meds") == before and [path.name for path in tmp_path.iterdir()] == ["meds"]


def test_no_other_folder_is_replaced(tmp_path: Path) -> None:
    other, added = tmp_path / "other", export(tmp_path / "added", [record(0)])
    (other / "data" / "train").mkdir(parents=True)
    shutil.copy(data(added)[0], other / "data" / "train")
    (added / "labels").mkdir()
    (added / "labels" / "mine.parquet").write_bytes(b"labels")
    before = content(tmp_path)
    with pytest.raises(InputError, match=r"other: is a folder with other files"):
        export(other, [record(1)])
    with pytest.raises(InputError, match=r"added: holds labels.mine\.parquet, which no export wrote"):
        export(added, [record(1)])
    assert content(tmp_path) == before


# --- read back ---


def test_the_origin_is_known_as_long_as_the_patients_are_the_same(tmp_path: Path) -> None:
    origin = Origin("f" * 32, True, {"novel_codes": {"E11.95": {"source": "E11.9"}}}, own_record=True)
    folder = tmp_path / "meds"
    export_meds(folder, [columns([record("a"), record(1)])], origin)
    assert read_provenance(folder) == PatientInput([folder]).origin == origin
    (folder / "labels").mkdir()
    shutil.copy(folder / SUBJECT_IDS, folder / "labels" / "labels.parquet")  # nobody's events
    (folder / "metadata" / "dataset.json").write_text("{}")
    assert read_provenance(folder) == PatientInput([folder]).origin == origin

    def changed(name: str) -> Path:
        return Path(shutil.copytree(folder, tmp_path / name))

    export(tmp_path / "others", [record(2)])
    shutil.copy(data(tmp_path / "others")[0], changed("more") / "data" / "train" / "1.parquet")
    shutil.copy(data(tmp_path / "others")[0], changed("other rows") / "data" / "train" / "0.parquet")
    (changed("other ids") / SUBJECT_IDS).unlink()
    other_format = changed("other format") / FILE
    other_format.write_text(other_format.read_text().replace('"version": 1', '"version": 2'))
    for name in ("more", "other rows", "other ids", "other format"):
        assert read_provenance(tmp_path / name) is None, name
        assert PatientInput([tmp_path / name]).origin.meta == {}, name
    assert PatientInput([folder / "data"]).origin.meta == {}
    (changed("damaged") / FILE).write_text("{")
    with pytest.raises(InputError, match=r"exmed_bert\.json: is not JSON"):
        read_provenance(tmp_path / "damaged")


def cohort_file(path: Path, ids: Sequence[int | str]) -> Path:
    """Write records of the given patients with all that a record can have."""
    chosen = np.random.default_rng(0)

    def day() -> str:
        return (date(2015, 1, 1) + timedelta(days=int(chosen.integers(60)))).isoformat().replace("-", "")

    def patient(patient_id: int | str) -> dict[str, Any]:
        diagnoses = chosen.choice(["I10", "e119", "E11.95", "V58.61", "none", " I50.9"], int(chosen.integers(3, 9)))
        drugs = chosen.choice(["C10AA05", "a10ba02", ""], int(chosen.integers(3, 6)))
        found = record(
            patient_id,
            birth_year=int(chosen.integers(1940, 2016)),
            sex=str(chosen.choice(["FEMALE", "m", "", "?"])),
            diagnoses=diagnoses.tolist(),
            diagnosis_dates=[day() for _ in diagnoses],
            drugs=drugs.tolist(),
            prescription_dates=[day() for _ in drugs],
            had_plos=[None, True, False][int(chosen.integers(3))],
            insurance=[None, "public", "PRIVATE"][int(chosen.integers(3))],
            gender=["a", "b"][int(chosen.integers(2))],
            events=[{"system": "loinc", "code": "718-7", "date": day()}],
        )
        for name in ("observation_start", "observation_end", "death_date"):
            if chosen.random() < 0.3:
                found[name] = day()
        return found

    write_records(path, [patient(patient_id) for patient_id in ids])
    meta = {"format": "exmed-bert-synthetic-patients", "novel_codes": {"E11.95": {"source": "E11.9"}}}
    path.with_suffix(".meta.json").write_text(json.dumps(meta))
    return path


@pytest.mark.parametrize(
    "ids",
    [
        pytest.param([*range(30, -20, -1)], id="numbers"),
        pytest.param([f"p-{number:03}" for number in range(50)], id="text"),
        pytest.param([*range(20), *map(str, range(40, 20, -1)), *(f"{number:03}" for number in range(20))], id="mixed"),
        pytest.param([2**63 + number for number in range(40)], id="large"),
    ],
)
@pytest.mark.parametrize("with_splits", [False, True])
def test_an_export_converts_to_the_datasets_of_the_original(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ids: list[int | str], with_splits: bool
) -> None:
    monkeypatch.setattr(meds_export, "_SHARD", 9)
    static = {"insurance": ["PUBLIC", "PRIVATE"], "gender": ["A", "B"]}
    source = PatientInput([cohort_file(tmp_path / "patients.json", ids)], static_columns=declared(static))
    chunks = list(source.chunks(20))
    if with_splits:
        splits = np.resize(np.array([0, 2, 1, -1, 0], dtype=np.int8), 20)
        chunks = [PatientColumns(**vars(chunk) | {"splits": splits[: len(chunk)]}) for chunk in chunks]
    export_meds(tmp_path / "meds", chunks, source.origin)
    made = {}
    for name in ("patients.json", "meds"):
        output = tmp_path / name.partition(".")[0] / "d.pt"
        said = {"input": (tmp_path / name,), "output": output, "static_columns": static, "train_ratio": 0.6}
        result = convert(ConvertSettings(**said))
        made[name] = [result.paths[split].read_bytes() for split in ("train", "val")]
    assert made["meds"] == made["patients.json"]
    exported_again = PatientInput([tmp_path / "meds"], static_columns=declared(static))
    export_meds(tmp_path / "again", exported_again.chunks(), exported_again.origin)
    assert read_provenance(tmp_path / "again") == source.origin


@pytest.mark.slow
def test_the_command_exports_and_converts_back(tmp_path: Path) -> None:
    result = run_here("generate_synthetic_patients.py", "-n", 120, "-p", 0.05, "-o", "p.jsonl", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    script = "convert_synthetic_to_dataset.py"
    exported = run_here(script, "--input", "p.jsonl", "--export", "meds", "--output", "meds", cwd=tmp_path)
    assert exported.returncode == 0 and "Exported p.jsonl to meds" in exported.stdout, exported.stderr
    for name in ("p.jsonl", "meds"):
        result = run_here(script, "--input", name, "--output", f"of_{name[0]}.pt", cwd=tmp_path)
        assert result.returncode == 0, result.stderr
    for split in ("train", "val"):
        assert (tmp_path / f"of_m_{split}.pt").read_bytes() == (tmp_path / f"of_p_{split}.pt").read_bytes()
    refused = run_here(script, "--input", "p.jsonl", "--export", "meds", "--output", ".", cwd=tmp_path)
    assert_one_line_error(refused, 1, ".: is a folder with other files, expected a new folder or an earlier export")
