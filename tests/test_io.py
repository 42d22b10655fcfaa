"""Files of patients: every format round-trips, and every wrong input gets one clear line."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import record, write_records
from hypothesis import given, settings
from hypothesis import strategies as st

from exmed_bert.console import InputError
from exmed_bert.data.formats import FORMATS
from exmed_bert.data.patient_input import read_patients
from exmed_bert.data.readers import arrow
from exmed_bert.data.readers.validation import RecordFields
from exmed_bert.data.static_columns import BUILT_IN
from exmed_bert.data.writers import write_patients

DATES = st.dates().map(lambda day: day.isoformat().replace("-", ""))
CODES = st.sampled_from(["I10", "E11.9", "no code", "C10AA05", "ü"])


@st.composite
def patient_records(draw: st.DrawFn) -> list[dict[str, Any]]:
    records = []
    for patient_id in draw(st.lists(st.integers(0, 10**6), unique=True, min_size=1, max_size=8)):
        made = record(
            patient_id,
            birth_year=draw(st.integers(1900, 2030)),
            sex=draw(st.sampled_from(["FEMALE", "MALE", None, "?"])),
            patient_state=draw(st.sampled_from(["CA", None])),
            had_plos=draw(st.booleans()),
        )
        for codes, dates in (("diagnoses", "diagnosis_dates"), ("drugs", "prescription_dates")):
            events = draw(st.lists(st.tuples(CODES, DATES), max_size=6))
            made[codes], made[dates] = [code for code, _ in events], [day for _, day in events]
        if draw(st.booleans()):
            del made["had_plos"]
        records.append(made)
    return records


def records_of(path: Path, chunk: int = 3) -> list[dict[str, Any]]:
    return [made for columns in read_patients(path, size=chunk) for made in columns.records()]


@pytest.mark.parametrize("extension", FORMATS)
def test_every_format_returns_what_was_written(extension: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("formats")

    @settings(max_examples=25, deadline=None)
    @given(patient_records())
    def check(records: list[dict[str, Any]]) -> None:
        first = write_records(folder / "first.json", records)
        path = folder / f"again{extension}"
        assert write_patients(path, read_patients(first, size=3)) == len(records)
        assert records_of(path) == records

    check()


@pytest.mark.parametrize("extension", FORMATS)
def test_the_same_patients_give_the_same_bytes(extension: str, tmp_path: Path) -> None:
    source = write_records(tmp_path / "p.json", [record(i) for i in range(5)])
    paths = [tmp_path / f"{name}{extension}" for name in ("a", "b")]
    for path in paths:
        write_patients(path, read_patients(source))
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_iso_dates_and_string_ids_are_read(tmp_path: Path) -> None:
    iso = ["2022-03-20", "2023-12-15"]
    path = write_records(tmp_path / "p.json", [record("MRN-7", prescription_dates=iso)])
    assert records_of(path) == [record("MRN-7")]


def test_unknown_fields_are_ignored_and_named_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_records(tmp_path / "p.json", [record(i, race="x", ward=3) for i in range(4)])
    assert len(records_of(path)) == 4
    errors = capsys.readouterr().err
    assert errors.count("race, ward") == 1


@pytest.mark.parametrize(
    ("wrong", "parts"),
    [
        ([record(1), "text"], ["record 2", "expected an object", "a string"]),
        ([record(1), {"patient_id": 5}], ["record 2", "patient_id 5", "birth_year", "missing"]),
        ([record(1), record(2, drugs=["A10BA02"])], ["record 2", "prescription_dates", "2 dates for 1 drugs"]),
        ([record(1, diagnoses=["I10", 250, "E11.9"])], ["record 1", "diagnoses[1]", "250", "string"]),
        ([record(1, diagnoses="I10")], ["record 1", "diagnoses", "'I10'", "list"]),
        ([record(1, diagnosis_dates=["20220315", "20230230", "20231215"])], ["diagnosis_dates[1]", "20230230"]),
        ([record(1, prescription_dates=["20220320", "soon"])], ["prescription_dates[1]", "'soon'", "YYYYMMDD"]),
        ([record(1, prescription_dates=["20220320", 20231215])], ["prescription_dates[1]", "20231215"]),
        ([record(1, birth_year="1965")], ["birth_year", "'1965'", "year"]),
        ([record(1, birth_year=65)], ["birth_year", "1 implausible birth year", "1800"]),
        ([record(1, birth_year=2**63)], ["birth_year", "1800"]),
        ([record(1, birth_year=True)], ["birth_year", "True"]),
        ([record(1, sex=1)], ["sex", "1"]),
        ([record(1, had_plos="yes")], ["had_plos", "'yes'"]),
        ([record(1.5)], ["patient_id", "1.5"]),
        ([], ["holds no patients"]),
        ({"patients": []}, ["list of patients", "an object"]),
    ],
)
def test_a_wrong_record_is_named(wrong: Any, parts: list[str], tmp_path: Path) -> None:
    path = write_records(tmp_path / "p.json", wrong)
    with pytest.raises(InputError) as error:
        records_of(path)
    assert str(path) in str(error.value)
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("p.json", b'[{"patient_id": 1', ["not JSON", "line 1"]),
        ("p.json", b"", ["not JSON"]),
        ("p.json", b"\xff\xfe\x00", ["not JSON"]),
        ("p.jsonl", json.dumps(record(1)).encode() + b'\n{"patient', ["record 2", "not JSON"]),
        ("p.jsonl", json.dumps(record(1)).encode() + b"," + json.dumps(record(2)).encode(), ["record 1", "not JSON"]),
        ("p.jsonl.gz", gzip.compress(json.dumps(record(1)).encode(), mtime=0)[:-9], ["gzip"]),
        ("p.jsonl.gz", b"plain text", ["gzip"]),
        ("p.parquet", b"PAR1 no more", ["Parquet"]),
        ("p.csv", b"a,b", ["not recognized", "--input-format", "--columns"]),
    ],
)
def test_a_broken_file_is_named(name: str, content: bytes, parts: list[str], tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        records_of(path)
    assert str(path) in str(error.value)
    for part in parts:
        assert part in str(error.value)


def test_missing_file_and_folder_for_a_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not found.*generate_synthetic_patients"):
        records_of(tmp_path / "none.json")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(InputError, match="is an empty folder"):
        records_of(tmp_path / "folder.json")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = write_records(tmp_path / "p.json", [record(1)])
    before = path.read_bytes()

    def broken() -> Any:
        yield next(read_patients(path))
        raise RuntimeError("the generator died")

    with pytest.raises(RuntimeError):
        write_patients(path, broken())
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["p.json"]


def test_chunks_do_not_change_the_columns(tmp_path: Path) -> None:
    path = write_records(tmp_path / "p.json", [record(i, birth_year=1950 + i) for i in range(10)])
    years = [np.concatenate([c.birth_years for c in read_patients(path, size=chunk)]).tolist() for chunk in (1, 3, 100)]
    assert years[0] == years[1] == years[2] == list(range(1950, 1960))


def outcome(path: Path) -> list[dict[str, Any]] | str:
    """Return the records of a file, or what is said about it."""
    try:
        return records_of(path, 10)
    except InputError as error:
        return str(error).replace(str(path), "file")


@pytest.mark.parametrize(
    "odd",
    [
        {"sex": None},
        {"sex": 1},
        {"patient_state": None},
        {"patient_id": "2020-01-01"},
        {"patient_id": 2**70},
        {"patient_id": 7.5},
        {"patient_id": True},
        {"patient_id": None},
        {"birth_year": 1965.0},
        {"birth_year": "1965"},
        {"birth_year": 1},
        {"had_plos": None},
        {"had_plos": 1},
        {"diagnoses": None},
        {"diagnoses": "I10"},
        {"diagnoses": ["I10", None, "I10"]},
        {"diagnoses": ["I10", 10, "I10"]},
        {"diagnoses": ["I10", ["I10"], "I10"]},
        {"diagnoses": ["I10"]},
        {"diagnoses": [], "diagnosis_dates": []},
        {"diagnosis_dates": ["2022-03-15", "2022-03-15", "2022-03-15"]},
        {"diagnosis_dates": ["20220230", "20220315", "20220315"]},
        {"diagnosis_dates": ["2022031", "202203150", "20220315"]},
        {"diagnosis_dates": ["20221315", "20220315", "20220315"]},
        {"diagnosis_dates": ["00000101", "20220315", "20220315"]},
        {"diagnosis_dates": ["00010101", "99991231", "20240229"]},
        {"diagnosis_dates": ["2022031٥", "20220315", "20220315"]},
        {"diagnosis_dates": [20220315, 20220315, 20220315]},
        {"drugs": [], "prescription_dates": []},
        {"drugs": ["C10\n", 'A"Ü']},
        {"note": "not ours"},
        {"note": {"a": [1, "b"]}},
        [],
        "text",
        None,
    ],
)
def test_odd_records_are_read_alike_in_every_format(odd: Any, tmp_path: Path) -> None:
    """JSON is read record by record, JSON lines as a table: what is said, or read, must not differ."""
    records = [record(1), record(2) | odd if isinstance(odd, dict) else odd, record(3)]
    expected = outcome(write_records(tmp_path / "p.json", records))
    lines = tmp_path / "p.jsonl"
    lines.write_text("".join(json.dumps(made, ensure_ascii=False) + "\n" for made in records), encoding="utf-8")
    assert outcome(lines) == expected


@pytest.mark.parametrize("field", [*record()])
def test_a_missing_field_is_said_alike_in_every_format(field: str, tmp_path: Path) -> None:
    records = [record(1), {name: value for name, value in record(2).items() if name != field}, record(3)]
    expected = outcome(write_records(tmp_path / "p.json", records))
    lines = tmp_path / "p.jsonl"
    lines.write_text("".join(json.dumps(made) + "\n" for made in records))
    assert outcome(lines) == expected
    assert isinstance(expected, list) == (field == "had_plos")


def test_ordinary_lines_are_read_as_a_table_and_others_are_not() -> None:
    def lines(*records: dict[str, Any]) -> list[bytes]:
        return [json.dumps(made).encode() + b"\n" for made in records]

    fields = RecordFields(BUILT_IN)
    table = arrow.parse_json_lines(lines(record(1), record(2)), fields)
    assert len(arrow.patient_columns(table, fields)) == 2
    assert arrow.parse_json_lines(lines(record(1), record(2, sex=None)), fields) is None
    assert arrow.parse_json_lines([b"".join(lines(record(1), record(2)))], fields) is None, "two records, one line"
    assert arrow.parse_json_lines([lines(record(1))[0].replace(b"FEMALE", b"\xff")], fields) is None, "no UTF-8"
    iso = arrow.parse_json_lines(lines(record(1, diagnosis_dates=["2022-03-15"] * 3)), fields)
    assert arrow.patient_columns(iso, fields) is None


@pytest.mark.parametrize("text", ["string", "large_string", "dictionary"])
def test_parquet_of_other_makers_is_read(text: str, tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    kind = pyarrow.dictionary(pyarrow.int32(), pyarrow.string()) if text == "dictionary" else getattr(pyarrow, text)()
    records = [record(f"MRN-{i}", sex=None if i == 1 else "MALE") for i in range(3)]
    table = pyarrow.Table.from_pylist(records)
    for name in ("patient_id", "sex", "patient_state"):
        table = table.set_column(table.column_names.index(name), name, table[name].cast(kind))
    parquet.write_table(table, tmp_path / "p.parquet")
    assert records_of(tmp_path / "p.parquet") == records
