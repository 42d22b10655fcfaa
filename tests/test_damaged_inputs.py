"""Damage and oddities in what a user passes in are one line that names the file, whatever reads it."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import record, write_records

from exmed_bert.config import read_config
from exmed_bert.console import InputError, shortened
from exmed_bert.data.convert import convert
from exmed_bert.data.gzipped import check_gzip
from exmed_bert.data.parquet_footer import rows_and_values
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.settings import ConvertSettings

PEOPLE = [record(i) for i in range(40)]


def read(path: Path) -> int:
    """Read patients, and return how many there are."""
    return sum(map(len, PatientInput([path]).quiet_chunks()))


def flipped(content: bytes, place: int) -> bytes:
    damaged = bytearray(content)
    damaged[place] ^= 0x10
    return bytes(damaged)


def test_a_flipped_bit_in_gzip_never_passes(tmp_path: Path) -> None:
    content = gzip.compress("\n".join(map(json.dumps, PEOPLE)).encode(), mtime=0)
    path = tmp_path / "p.jsonl.gz"
    path.write_bytes(content)
    assert read(path) == len(PEOPLE)
    for place in range(20, len(content), 37):
        path.write_bytes(flipped(content, place))
        with pytest.raises(InputError, match=re.escape(str(path))):
            read(path)


def test_a_flipped_bit_in_a_compressed_table_never_passes(tmp_path: Path) -> None:
    # Stored, not deflated: any byte of a cell may be another without a sign but for the checksum.
    rows = "patient_id,birth_year,date,code\n" + "".join(f"{i},1960,2020-01-0{1 + i % 9},I10\n" for i in range(50))
    content = gzip.compress(rows.encode(), compresslevel=0)
    path = tmp_path / "events.csv.gz"
    settings = ConvertSettings(input=(path,), columns=("system=icd10cm",))
    path.write_bytes(content)
    assert sum(map(len, PatientInput([path], settings).quiet_chunks())) == 50
    path.write_bytes(content.replace(b"I10", b"I11", 1))
    with pytest.raises(InputError, match=r"events\.csv\.gz: is no whole gzip file: CRC check failed"):
        list(PatientInput([path], settings).quiet_chunks())


def test_gzip_is_read_once_for_its_checksum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"a"))
    check_gzip([path, tmp_path / "is-not-there.csv"])
    monkeypatch.setattr(gzip, "open", None)
    check_gzip([path])


@pytest.mark.parametrize("damage", ["flip", "cut", "text", "date"])
def test_damaged_parquet_is_one_line(tmp_path: Path, damage: str) -> None:
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.Table.from_pylist(PEOPLE)
    path = tmp_path / "p.parquet"
    if damage == "text":
        names = pyarrow.array([b"\xff"] * len(PEOPLE)).view("string")
        table = table.set_column(table.column_names.index("sex"), "sex", names)
    if damage == "date":
        day = pyarrow.array([[10**8]] * len(PEOPLE), pyarrow.list_(pyarrow.int32())).cast(
            pyarrow.list_(pyarrow.date32())
        )
        table = table.set_column(table.column_names.index("diagnosis_dates"), "diagnosis_dates", day)
        table = table.set_column(
            table.column_names.index("diagnoses"), "diagnoses", pyarrow.array([["I10"]] * len(PEOPLE))
        )
    parquet.write_table(table, path, write_page_checksum=True)
    content = path.read_bytes()
    if damage == "flip":
        path.write_bytes(flipped(content, 60))
    if damage == "cut":
        path.write_bytes(content[:-20])
    with pytest.raises(InputError, match=re.escape(str(path))):
        read(path)


def test_a_column_that_contradicts_itself_does_not_end_the_process(tmp_path: Path) -> None:
    # Arrow's metadata of such a column throws what Python cannot catch.
    import pyarrow
    from pyarrow import parquet

    path = tmp_path / "p.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(PEOPLE), path)
    held = parquet.read_metadata(path)
    columns = [held.row_group(0).column(i).num_values for i in range(held.num_columns)]
    assert rows_and_values(path) == (len(PEOPLE), sum(columns))
    optional, required = (b"\x35" + kind + b"\x18\x09diagnoses" for kind in (b"\x02", b"\x00"))
    content = path.read_bytes()
    assert content.count(optional) == 1
    path.write_bytes(content.replace(optional, required))
    assert rows_and_values(path) == (len(PEOPLE), sum(columns))
    with pytest.raises(InputError, match=r"p\.parquet: is no Parquet file, or is damaged: .*histogram"):
        read(path)


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ([1], "expected an object as our generator writes it, got a list"),
        ({"options": [1]}, "options: expected an object, got a list"),
        ({"counts": 3}, "counts: expected an object"),
        ({"counts": {"patients": "many"}}, "counts: expected whole numbers of patients"),
        ({"bounds": None}, "bounds: expected an object, got null"),
        ({"novel_codes": ["I10"]}, "novel_codes: expected codes"),
        ("[" * 100_000, "is nested too deeply"),
        ("{", "is not JSON"),
    ],
)
def test_a_meta_file_of_another_shape_is_named(tmp_path: Path, meta: Any, message: str) -> None:
    path = write_records(tmp_path / "p.json", PEOPLE)
    (tmp_path / "p.meta.json").write_text(meta if isinstance(meta, str) else json.dumps(meta))
    with pytest.raises(InputError, match=rf"p\.meta\.json: {message}"):
        convert(ConvertSettings(input=(path,), output=tmp_path / "d.pt"))
    assert not list(tmp_path.glob("d*"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("generate:\n  end_date: 2025-02-30\n", "line 2: is not YAML: '2025-02-30' is none: day is out of range"),
        ("[" * 10_000, "is nested too deeply"),
        ("max_length: 50\nmax_length: 60\n", "line 2: .* the key 'max_length' stands in line 1 too"),
        ("convert:\n  workers: 1\n  workers: 2\n", "line 3: .* the key 'workers' stands in line 2 too"),
        ("a: &x [1]\nb: *x\n", r"line 2: .*\*x refers to another value"),
        ("? [1]\n: 2\n", "expected keys that are text"),
        ("a: !!python/object:os.system {}\n", "line 1: .*could not determine a constructor"),
        ("a: !!int x\n", "line 1: .*'x' is none"),
        (f"convert:\n  workers: {'9' * 5000}\n", "line 2: "),
        ("a: \x00\n", "is not YAML"),
        (b"a: \xff\n", "is not YAML"),
        ("generate:\n  num_patients: 123456789012345678901234567890\n", "num_patients"),
        ("- 1\n", "expected sections and keys, got list"),
    ],
)
def test_a_config_file_is_read_as_it_looks(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message) as error:
        read_config(path)
    assert str(error.value).startswith(f"{path}: ") and len(str(error.value)) < 1000


@pytest.mark.parametrize(
    "lines",
    [
        ["null"],
        ["{}", "null"],
        ["{} null"],
        [" null"],
        ["{}null{}"],
        ["[]", "null"],
        ["5 null"],
        ['"x"', "null"],
        ["n"],
    ],
    ids=str,
)
def test_what_ends_arrow_is_one_line(tmp_path: Path, lines: list[str]) -> None:
    path = tmp_path / "p.jsonl"
    for before in ([], [json.dumps(PEOPLE[0])]):
        path.write_text("\n".join([*before, *lines]))
        with pytest.raises(InputError, match="record"):
            read(path)


@pytest.mark.parametrize("name", ["p.json", "p.jsonl"])
def test_keys_that_stand_twice_are_counted(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = json.dumps(PEOPLE) if name == "p.json" else "\n".join(map(json.dumps, PEOPLE))
    path = tmp_path / name
    path.write_text(text)
    assert read(path) == len(PEOPLE) and "second time" not in capsys.readouterr().err
    path.write_text(text.replace('"sex": "FEMALE"', '"sex": "FEMALE", "sex": "MALE"', 3))
    assert read(path) == len(PEOPLE)
    assert f"{path}: 3 keys stand a second time in their record, of which the last is read: sex" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patient_id": 2**70}, "patient_id: 1.1805916207174113e"),
        ({"birth_year": 2**70}, "birth_year: 1.1805916207174113e"),
        ({"birth_year": -(2**63) - 1}, "birth_year: -9.223372036854"),
        ({"sex": "x" * 100_000, "had_plos": "y" * 100_000}, "had_plos: 'yyy"),
        ({"patient_id": ["x" * 1000] * 1000}, "patient_id: "),
        ({"events": [{"x" * 1000: "y" * 1000}]}, r"events\[0\]"),
    ],
)
@pytest.mark.parametrize("name", ["p.json", "p.jsonl"])
def test_odd_values_are_named_in_a_line(tmp_path: Path, change: dict[str, Any], message: str, name: str) -> None:
    people = [*PEOPLE, record(77) | change]
    path = tmp_path / name
    path.write_text(json.dumps(people) if name == "p.json" else "\n".join(map(json.dumps, people)))
    with pytest.raises(InputError, match=message) as error:
        read(path)
    assert len(str(error.value)) < 2100 and "record 41" in str(error.value)


def test_long_values_are_shortened_and_paths_are_not(tmp_path: Path) -> None:
    path = "/".join(["folder"] * 100) + "/file.json"
    assert shortened(f"{path}: is wrong") == f"{path}: is wrong"
    assert len(shortened(f"{path}: {'x' * 10_000!r}")) < len(path) + 220
