"""Conversions from and to object stores give the bytes of those on this machine: in memory, and on a local S3."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import fsspec
import pyarrow
import pyarrow.parquet
import pytest
from conftest import ROOT, assert_one_line_error, record
from fsspec.implementations.memory import MemoryFileSystem

from exmed_bert import stores
from exmed_bert.config import Resolved
from exmed_bert.console import InputError, OptionError
from exmed_bert.data import convert, options
from exmed_bert.data.dataset import PatientDataset
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.data.readers.headers import column_names
from exmed_bert.data.shards import open_dataset
from exmed_bert.settings import ConvertSettings, GenerateSettings, PretrainSettings
from exmed_bert.stores import StorePath, location
from exmed_bert.synthetic import generate

CODES = ("I10", "E11.9", "J45.909", "M54.5", "F41.9", "K21.9", "N18.3", "R51.9")


def records(start: int, end: int) -> list[dict[str, Any]]:
    days = [f"2021{month:02}15" for month in range(1, 7)]
    return [
        record(
            f"P{i}", birth_year=1930 + i % 60, diagnoses=[CODES[(i + j) % 8] for j in range(6)], diagnosis_dates=days
        )
        for i in range(start, end)
    ]


def write_parts(folder: Path, parts: int = 4, size: int = 30) -> Path:
    """Write the same number of patients to each of several files."""
    folder.mkdir()
    for part in range(parts):
        lines = [json.dumps(one) + "\n" for one in records(part * size, (part + 1) * size)]
        (folder / f"p-{part}.jsonl").write_text("".join(lines))
    return folder


def put(folder: Path, url: str) -> str:
    """Copy what is in a folder to a place in a store."""
    files = fsspec.core.url_to_fs(url)[0]
    for path in folder.rglob("*"):
        if path.is_file():
            files.pipe_file(f"{url}/{path.relative_to(folder).as_posix()}", path.read_bytes())
    return url


def contents(url: str) -> dict[str, bytes]:
    """Return the content of each file below a place, by its path there."""
    files = fsspec.core.url_to_fs(url)[0]
    files.invalidate_cache()
    root = files._strip_protocol(url).rstrip("/")
    return {name.removeprefix(root).lstrip("/"): files.cat_file(name) for name in files.find(root)}


def datasets(found: dict[str, bytes]) -> dict[str, bytes]:
    """Leave what depends on the names of input and output: the page and the settings."""
    return {name: content for name, content in found.items() if ".pt" in name}


def below(folder: Path) -> dict[str, bytes]:
    """Return the content of each file below a folder, by its path there."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(**settings: Any) -> None:
    """Convert as the command does, with a shard for each part of the input unless asked for otherwise."""
    checked = ConvertSettings(**{"shard_size": 1, **settings})
    options.check(checked)
    convert.run(Resolved(checked, {}))


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the URL of an empty store in memory; the current folder is empty too, and that of copies."""
    (tmp_path / "here").mkdir()
    (tmp_path / "copies").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "copies"))
    yield "memory://store"
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


# --- places ---


def test_places_are_told_apart(tmp_path: Path) -> None:
    assert location("data/p.json") == Path("data/p.json")
    assert location((tmp_path / "p.json").as_uri()) == tmp_path / "p.json"
    assert location("C:/p.json") == Path("C:/p.json")
    place = location("s3://bucket/folder/p.json")
    assert isinstance(place, StorePath) and str(place) == "s3://bucket/folder/p.json"
    assert str(location(Path("s3://bucket/p.json"))) == "s3://bucket/p.json"  # Path takes one slash away
    assert str(location("abfss://box@account.dfs.core.windows.net/p")) == "abfss://box@account.dfs.core.windows.net/p"
    settings = ConvertSettings(input=("s3://bucket/in/", "p.json"), output="gs://bucket/d.pt")
    plain = settings.model_dump(mode="json")
    assert (plain["input"], plain["output"]) == (["s3://bucket/in", "p.json"], "gs://bucket/d.pt")
    assert ConvertSettings(**{name: plain[name] for name in ("input", "output")}) == settings


@pytest.mark.parametrize("name", ["input", "output", "vocab_from"])
@pytest.mark.parametrize("kind", [str, Path])
def test_passwords_are_refused_and_not_shown(name: str, kind: type) -> None:
    with pytest.raises(InputError, match="a user and a password") as error:
        ConvertSettings(**{name: kind("s3://me:SECRET@bucket/x")})
    assert "SECRET" not in str(error.value) and "me:" not in str(error.value)


def test_other_urls_are_refused() -> None:
    with pytest.raises(InputError, match=r"https://host/x: unknown kind of store 'https', expected s3, gs"):
        ConvertSettings(input="https://host/x")


def test_only_conversions_use_stores() -> None:
    with pytest.raises(InputError, match=r"s3://b/d.pt: is in an object store, .*; copy it to this machine first"):
        PretrainSettings(training_data=Path("s3://b/d.pt"))
    with pytest.raises(OptionError, match="--export meds: is from and to this machine, got s3://b/x"):
        options.check(ConvertSettings(input="s3://b/x", export="meds"))


def test_a_missing_package_is_named() -> None:
    with pytest.raises(InputError, match=r"gs://b/x: needs the package gcsfs, .*: pip install gcsfs"):
        stores.listing(StorePath("gs://b/x"))


# --- conversions ---


def test_shards_from_and_to_a_store(memory: str, tmp_path: Path) -> None:
    parts = write_parts(tmp_path / "parts")
    put(parts, f"{memory}/in")
    run(input=parts, output=tmp_path / "out" / "d.pt")
    run(input=f"{memory}/in/", output=f"{memory}/out/d.pt")
    found, expected = contents(f"{memory}/out"), below(tmp_path / "out")
    assert found.keys() == expected.keys()
    assert {"d_train.pt/manifest.json", "d_train.pt/shard-00003.pt"} <= found.keys()
    assert datasets(found) == datasets(expected)
    assert {"d.settings.json", "d_conversion/report.html", "d_conversion/unmapped_codes.csv"} <= found.keys()
    assert json.loads(found["d.settings.json"])["settings"]["output"] == f"{memory}/out/d.pt"
    assert f"Conversion of {memory}/in".encode() in found["d_conversion/report.html"]
    assert not list(Path.cwd().iterdir()) and not list((tmp_path / "copies").iterdir())


def test_a_pattern_and_files_on_this_machine(memory: str, tmp_path: Path) -> None:
    parts = write_parts(tmp_path / "parts")
    put(parts, f"{memory}/in")
    run(input=parts, output=tmp_path / "out" / "d.pt")
    run(input=(f"{memory}/in/p-[01]*", parts / "p-2.jsonl", parts / "p-3.jsonl"), output=tmp_path / "mixed" / "d.pt")
    assert datasets(below(tmp_path / "mixed")) == datasets(below(tmp_path / "out"))


def test_what_the_generator_says_beside_its_file_is_read(memory: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    novel = {"NOVEL_1": {"source": "I10", "parent": "I10"}}
    counts = {"patients": 40, "diagnoses": 240, "prescriptions": 80}
    meta = {"format": "exmed-bert-synthetic-patients", "novel_codes": novel, "counts": counts}
    (tmp_path / "in" / "p.json").write_text(json.dumps(records(0, 40)))
    (tmp_path / "in" / "p.meta.json").write_text(json.dumps(meta))
    put(tmp_path / "in", f"{memory}/in")
    for base, out in ((tmp_path / "in", tmp_path / "out"), (f"{memory}/in", tmp_path / "from_store")):
        run(input=f"{base}/p.json", output=out / "d.pt")
    assert datasets(below(tmp_path / "from_store")) == datasets(below(tmp_path / "out"))
    info = PatientDataset.load(tmp_path / "from_store" / "d_train.pt").info
    assert info.novel_codes == ("NOVEL_1",) and info.min_cell is None


def test_generated_shards(memory: str, tmp_path: Path) -> None:
    generate.run(Resolved(GenerateSettings(num_patients=2000, output=tmp_path / "population", shards=2), {}))
    put(tmp_path / "population", f"{memory}/in")
    run(input=tmp_path / "population", output=tmp_path / "out" / "d.pt")
    assert open_dataset(tmp_path / "out" / "d_train.pt").info.min_cell is None
    for pattern in ("", "/*.parquet"):
        run(input=f"{memory}/in{pattern}", output=f"{memory}/out/d.pt")
        assert datasets(contents(f"{memory}/out")) == datasets(below(tmp_path / "out"))


def test_the_end_of_generated_data_is_known_where_they_are_read(memory: str, tmp_path: Path) -> None:
    until = date(date.today().year + 2, 12, 31)
    settings = GenerateSettings(num_patients=300, output=tmp_path / "in" / "p", shards=1, end_date=until)
    generate.run(Resolved(settings, {}))
    put(tmp_path / "in" / "p", f"{memory}/in")
    run(input=f"{memory}/in", output=tmp_path / "out" / "d.pt")
    assert "after today" not in (tmp_path / "out" / "d.settings.json").read_text()
    days = open_dataset(tmp_path / "out" / "d_train.pt").columns["visit_days"]
    assert days.max() > (date.today() - date(1970, 1, 1)).days


def test_joined_tables_are_copied_together(memory: str, tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text(json.dumps(records(0, 60)))
    convert.run(Resolved(ConvertSettings(input=path, output=tmp_path / "meds", export="meds"), {}))
    put(tmp_path / "meds", f"{memory}/meds")
    run(input=tmp_path / "meds", output=tmp_path / "out" / "d.pt")
    run(input=f"{memory}/meds", output=f"{memory}/out/d.pt")
    assert datasets(contents(f"{memory}/out")) == datasets(below(tmp_path / "out"))
    source = PatientInput((StorePath(f"{memory}/meds"),))
    assert source.reader.name == "meds" and str(source) == f"{memory}/meds"


def test_outlines_show_the_columns(memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    values = pyarrow.array([f"{i:0100}" for i in range(5000)])
    table = pyarrow.table({"subject_id": values, **{f"column_{i}": values for i in range(50)}})
    pyarrow.parquet.write_table(table, tmp_path / "in" / "p.parquet", use_dictionary=False)
    put(tmp_path / "in", f"{memory}/in")
    monkeypatch.setattr(stores, "_TAIL", 100)  # less than the schema takes
    (file,) = stores.listing(StorePath(f"{memory}/in"))
    stores.fetch_outlines({tmp_path / "p.parquet": file}, lambda file: False)
    assert column_names(tmp_path / "p.parquet") == set(table.column_names)
    whole = (tmp_path / "in" / "p.parquet").read_bytes()
    assert (tmp_path / "p.parquet").stat().st_size == len(whole) and (tmp_path / "p.parquet").read_bytes() != whole


def test_messages_name_the_file_in_the_store(memory: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = write_parts(tmp_path / "parts")
    with open(parts / "p-3.jsonl", "a") as file:
        file.write(json.dumps(record(1000, shoe_size=43)) + "\n")
    put(parts, f"{memory}/in")
    run(input=f"{memory}/in", output=f"{memory}/other/d.pt")
    assert f"{memory}/in/p-3.jsonl: fields that are not used: shoe_size" in capsys.readouterr().err
    with open(parts / "p-2.jsonl", "a") as file:
        file.write("{")
    put(parts, f"{memory}/in")
    with pytest.raises(InputError, match=f"^{memory}/in/p-2.jsonl: record 31: is not JSON"):
        run(input=f"{memory}/in", output=f"{memory}/out/d.pt")
    assert not contents(f"{memory}/out") and not list((tmp_path / "copies").iterdir())
    assert not list(Path.cwd().iterdir())
    with pytest.raises(InputError, match=f"^{memory}/none: is not in the store, or holds no files of patients"):
        run(input=f"{memory}/none", output=tmp_path / "d.pt")


# --- what stands at the output ---


def test_a_failed_upload_leaves_what_stood_there(memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = write_parts(tmp_path / "parts")
    put(parts, f"{memory}/in")
    run(input=f"{memory}/in", output=f"{memory}/out/d.pt")
    before = contents(f"{memory}/out")
    written: list[str] = []

    def full(self: Any, source: str, target: str, **_: Any) -> None:
        if len(written) == 6:
            raise PermissionError("AccessDenied https://me:SECRET@host")
        written.append(target)
        self.pipe_file(target, Path(source).read_bytes())

    with monkeypatch.context() as failing:
        failing.setattr(MemoryFileSystem, "put_file", full)
        with pytest.raises(InputError) as error:
            run(input=f"{memory}/in", output=f"{memory}/out/d.pt", seed=7)
    message = str(error.value)
    assert message.startswith(f"{memory}/out: the store refuses access: AccessDenied") and "SECRET" not in message
    kept = Path(message.rsplit(" ", 1)[1])
    (kept / "d_other.pt").write_text("what does not belong to the next conversion")
    assert (kept / "d_train.pt" / "manifest.json").is_file()
    assert len(written) == 6 and contents(f"{memory}/out") == before
    run(input=f"{memory}/in", output=f"{memory}/out/d.pt", seed=7)
    run(input=parts, output=tmp_path / "out" / "d.pt", seed=7)
    assert contents(f"{memory}/out").keys() == below(tmp_path / "out").keys() and not kept.exists()
    assert datasets(contents(f"{memory}/out")) == datasets(below(tmp_path / "out"))


def test_the_manifest_is_the_last_to_come_and_the_first_to_go(
    memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(write_parts(tmp_path / "parts"), f"{memory}/in")
    run(input=f"{memory}/in", output=f"{memory}/out/d.pt")
    copied: list[str] = []
    copy = MemoryFileSystem.cp_file

    def watched(self: Any, source: str, target: str, **kwargs: Any) -> None:
        if not copied:
            assert not [name for name in contents(f"{memory}/out") if name.startswith("d_") and "manifest" in name]
        copied.append(target)
        copy(self, source, target, **kwargs)

    monkeypatch.setattr(MemoryFileSystem, "cp_file", watched)
    run(input=f"{memory}/in", output=f"{memory}/out/d.pt", seed=7)
    assert sorted(copied[-2:]) == [f"{memory}/out/d_{split}.pt/manifest.json" for split in ("train", "val")]


def test_one_file_takes_the_place_of_shards_and_back(memory: str, tmp_path: Path) -> None:
    put(write_parts(tmp_path / "parts"), f"{memory}/in")
    for size, files in ((1, 7), (100_000, 1), (1, 7)):
        run(input=f"{memory}/in", output=f"{memory}/out/d.pt", shard_size=size, split="train")
        assert len(datasets(contents(f"{memory}/out"))) == files


def test_a_folder_of_something_else_is_not_replaced(memory: str, tmp_path: Path) -> None:
    put(write_parts(tmp_path / "parts"), f"{memory}/in")
    put(tmp_path / "parts", f"{memory}/out/d_val.pt")
    before = contents(f"{memory}/out")
    with pytest.raises(InputError, match=f"^{memory}/out/d_val.pt: is a folder of something else"):
        run(input=f"{memory}/in", output=f"{memory}/out/d.pt")
    assert contents(f"{memory}/out") == before


def test_an_interrupted_conversion_goes_on(memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = write_parts(tmp_path / "parts")
    put(parts, f"{memory}/in")
    fetched: list[str] = []
    fetch = stores.fetch

    def interrupted(file: stores.StoredFile, target: Path) -> None:
        if len(fetched) == 2:
            raise KeyboardInterrupt
        fetched.append(file.path.name)
        fetch(file, target)

    with monkeypatch.context() as stopping:
        stopping.setattr("exmed_bert.data.readers.stored.fetch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(input=f"{memory}/in", output=f"{memory}/out/d.pt")
    assert not list((tmp_path / "copies").iterdir())
    monkeypatch.setattr(
        "exmed_bert.data.readers.stored.fetch",
        lambda file, target: (fetched.append(file.path.name), fetch(file, target)),
    )
    run(input=f"{memory}/in", output=f"{memory}/out/d.pt")
    assert fetched == [f"p-{part}.jsonl" for part in range(4)]
    run(input=parts, output=tmp_path / "out" / "d.pt")
    assert datasets(contents(f"{memory}/out")) == datasets(below(tmp_path / "out"))


def test_a_file_that_changes_is_noticed(memory: str, tmp_path: Path) -> None:
    parts = write_parts(tmp_path / "parts", parts=1)
    put(parts, f"{memory}/in")
    place = StorePath(f"{memory}/in")
    before = PatientInput((place,)).source.identity()
    assert before == PatientInput((place,)).source.identity()
    (file,) = stores.listing(place)
    put(parts, f"{memory}/in")
    assert PatientInput((place,)).source.identity() != before
    (parts / "p-0.jsonl").write_text("")
    put(parts, f"{memory}/in")
    with pytest.raises(InputError, match=f"^{memory}/in/p-0.jsonl: was changed while it was read"):
        stores.fetch(file, tmp_path / "copy")


# --- S3 ---


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    """Start an S3 server; return the environment that leads to it."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "KEYOFTESTS",
        "AWS_SECRET_ACCESS_KEY": "SECRETOFTESTS",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        fsspec.filesystem("s3", skip_instance_cache=True).mkdir("bucket")
        yield environment
    server.stop()


def command(*arguments: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Convert in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "exmed_bert", "convert", *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.slow
def test_shards_from_and_to_s3_with_two_processes(s3: dict[str, str], tmp_path: Path) -> None:
    parts = write_parts(tmp_path / "parts")
    put(parts, "s3://bucket/in")
    run(input=parts, output=tmp_path / "out" / "d.pt")
    shutil.rmtree(parts)
    common = ("--input", "s3://bucket/in/", "--output", "s3://bucket/out/d.pt", "--shard-size", "1", "--workers", "2")
    done = command(*common, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "s3://bucket/out/d_train.pt" in done.stdout and "s3://bucket/out/d_conversion/report.html" in done.stdout
    found = contents("s3://bucket/out")
    assert found.keys() == below(tmp_path / "out").keys()
    assert datasets(found) == datasets(below(tmp_path / "out"))
    said = done.stdout.encode() + done.stderr.encode() + b"".join(found.values())
    assert b"OFTESTS" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_s3_refuses_is_one_line(s3: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(write_parts(tmp_path / "parts", parts=1), "s3://bucket/single")
    with pytest.raises(InputError, match=r"^s3://nowhere/d.pt: not found in the store, or its bucket is not$"):
        run(input=tmp_path / "parts", output="s3://nowhere/d.pt")
    with pytest.raises(InputError, match=r"^s3://nowhere/in: is not in the store, or holds no files of patients$"):
        run(input="s3://nowhere/in", output=tmp_path / "d.pt")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(InputError, match=r"^s3://bucket/single: the environment holds no credentials of the store$"):
        run(input="s3://bucket/single", output=tmp_path / "d.pt")
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.mark.slow
def test_the_command_explains_what_is_missing(s3: dict[str, str], tmp_path: Path) -> None:
    done = command("--input", "s3://nowhere/in", "--output", "d.pt", cwd=tmp_path)
    assert_one_line_error(done, 1, "s3://nowhere/in: is not in the store")
