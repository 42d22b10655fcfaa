"""Which reader is for which files, and what all readers of tables share."""

import gzip
import shutil
from pathlib import Path

import duckdb
import pytest

from exmed_bert.console import InputError
from exmed_bert.data.database import connect
from exmed_bert.data.readers import READERS, reader_of
from exmed_bert.data.readers.headers import column_names
from exmed_bert.data.readers.source import Source
from exmed_bert.data.readers.table import Table
from exmed_bert.settings import ReadingSettings

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.mark.parametrize("folder", sorted(path.parent.name for path in EXAMPLES.glob("*/data")))
def test_examples_are_recognized_as_their_own_format_alone(folder: str) -> None:
    source = Source.at([EXAMPLES / folder / "data"])
    assert reader_of(source, ReadingSettings())[0].name == folder
    foreign = [reader for reader in READERS if not reader.own_record]  # ours go by file names alone
    assert [reader.name for reader in foreign if reader.recognizes(source, ReadingSettings())] == [folder]


def test_files_of_two_formats_are_refused(tmp_path: Path) -> None:
    tables, meds = EXAMPLES / "csv" / "data", EXAMPLES / "meds" / "data"
    shutil.copytree(tables, tmp_path / "tables")
    shutil.copytree(meds, tmp_path / "meds")
    for paths in ([tables, meds], [meds, tables], [meds, tables / "events.csv"], [tmp_path]):
        with pytest.raises(InputError, match="is recognized as MEDS and as your own tables; give the files of one"):
            reader_of(Source.at(paths), ReadingSettings())
    assert reader_of(Source.at([tmp_path]), ReadingSettings(input_format="csv"))[0].name == "csv"
    (tmp_path / "more.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match=r"more\.jsonl is recognized as .*, the rest as MEDS; expected one format"):
        reader_of(Source.at([meds, tmp_path / "more.jsonl"]), ReadingSettings())


def test_tables_that_mean_little_by_themselves_belong_together() -> None:
    for folder in ("omop", "csv", "fhir", "mimic/data/hosp"):
        parts = sorted((EXAMPLES / (folder if "/" in folder else f"{folder}/data")).iterdir())
        assert len(parts) > 1
        assert reader_of(Source.at(parts), ReadingSettings())[0].name == folder.split("/")[0]


@pytest.mark.parametrize(
    ("name", "content", "columns"),
    [
        ("a.csv", b"Subject_ID,code\n1,2\n", {"subject_id", "code"}),
        ("a.csv", '\ufeffSubject_ID;"the code" ;c,d\r\n1;2;3\r\n'.encode(), {"subject_id", "the code", "c,d"}),
        ("a.tsv", b"A\tB\n", {"a", "b"}),
        ("a.csv.gz", gzip.compress(b"A,B\n1,2\n", mtime=0), {"a", "b"}),
        ("a.csv", b"", set()),
        ("a.csv.gz", b"no gzip", set()),
        ("a.csv.gz", gzip.compress(b"A,B\n" * 999, mtime=0)[:-12], {"a", "b"}),
        ("a.parquet", b"no Parquet", set()),
    ],
)
def test_column_names(tmp_path: Path, name: str, content: bytes, columns: set[str]) -> None:
    (tmp_path / name).write_bytes(content)
    assert column_names(tmp_path / name) == columns


def test_one_table_in_two_formats_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n", mtime=0))
    with pytest.raises(InputError, match=r"t\.csv\.gz: stands beside t\.csv, expected one of them"):
        Table(connect([]), "t", Source.at([tmp_path]).tables["t"])


def test_a_time_of_day(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n2020-01-02,2020-01-02 10:00:00\n,2020-01-02T10:00:00Z\n")
    duckdb.execute(
        f"COPY (SELECT DATE '2020-01-02' AS a, TIMESTAMP '2020-01-02 10:00:00' AS b) TO '{tmp_path / 'u.parquet'}'"
    )
    db = connect(tmp_path.iterdir())
    for path in (tmp_path / "t.csv", tmp_path / "u.parquet"):
        table = Table(db, "t", [path])
        found = db.sql(f"SELECT {table.timed('A')}, {table.timed('b')}, {table.timed('c')} FROM {table.sql}").fetchall()
        assert set(found) == {(False, True, False)}
