"""What SECURITY.md says of files from elsewhere: they execute nothing, reach for no other file, and fill no memory."""

import csv
import gzip
import importlib.util
import shutil
import struct
import subprocess
import sys
import zipfile
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import duckdb
import pyarrow
import pyarrow.parquet
import pytest
import torch
from conftest import ROOT
from typer.testing import CliRunner

from exmed_bert.cli import script
from exmed_bert.commands import COMMANDS
from exmed_bert.contents import damage, write_contents
from exmed_bert.data.database import connect, file_list
from exmed_bert.data.dataset import FORMAT, VERSION
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.data.translation.code_map import COLUMNS, read_code_map
from exmed_bert.reporting.spreadsheet import write_csv
from exmed_bert.settings import ReadingSettings


def ci_audit() -> ModuleType:
    """Return .ci/audit.py as a module."""
    spec = importlib.util.spec_from_file_location("audit", ROOT / ".ci" / "audit.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_known_vulnerability_fails_the_checks_and_a_missing_network_does_not() -> None:
    report = ci_audit().report
    sound = {"name": "numpy", "version": "2.4.6", "vulns": []}
    unknown = {"name": "torch", "skip_reason": "Dependency not found on PyPI"}
    weak = {"name": "pip", "version": "1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"]}]}
    assert report([sound, unknown]) == ("pip-audit: 1 of 2 packages audited; PyPI has no report on torch", 0)
    text, code = report([sound, weak])
    assert code == 1 and text.startswith("pip 1.0: PYSEC-1, fixed in 1.1\n")
    assert report(None) == (
        "pip-audit: nothing was audited: PyPI's reports of vulnerabilities cannot be reached",
        0,
    )


@pytest.mark.parametrize("code", ["=1+1", "+A", "-A1", "@SUM(1)", "\tx", "'=1+1", "''-x", "＝1"])
def test_a_code_that_reads_as_a_formula_is_text_in_our_tables_and_itself_in_our_maps(code: str, tmp_path: Path) -> None:
    path = tmp_path / "map.csv"
    with open(path, "w", newline="") as file:
        write_csv(file, COLUMNS, [["snomedct", code, "icd10cm", "I10"]])
    with open(path, newline="") as file:
        assert list(csv.reader(file))[1][1] == f"'{code}"
    assert read_code_map(path).get("snomedct", code) == (("icd10cm", "I10"),)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('{other}')",
        "SELECT * FROM read_text('{other}')",
        "SELECT * FROM glob('{folder}/*')",
        "COPY (SELECT 1) TO '{folder}/written.csv'",
        "ATTACH '{folder}/a.duckdb'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET allowed_paths = ['{other}']",
        "SELECT * FROM here",
    ],
)
def test_sql_reaches_no_file_but_those_that_are_read(sql: str, tmp_path: Path) -> None:
    here = tmp_path / "here [1]*.csv"
    other = tmp_path / "here 1.csv"
    for path in (here, other):
        path.write_text("a\n1\n")
    db = connect([here])
    assert db.sql(f"SELECT * FROM read_csv({file_list([here])})").fetchall() == [(1,)]
    with pytest.raises(duckdb.Error):
        db.sql(sql.format(other=other, folder=tmp_path)).fetchall()
    assert len(list(tmp_path.iterdir())) == 2


def test_names_in_tables_are_names_and_no_sql(tmp_path: Path) -> None:
    folder = tmp_path / "it's; DROP TABLE patients --"
    folder.mkdir()
    patient, day, code = """x" FROM (SELECT 1) --""", "')) UNION ALL SELECT 1 --", 'a "b" (c)'
    with open(folder / "claims' OR 1=1 --.csv", "w", newline="") as file:
        rows = [[f"P{i}", "1960", "2020-01-0" + str(i), "I10') --" if i == 3 else "I10"] for i in (1, 2, 3)]
        csv.writer(file).writerows([[patient, "birth_year", day, code], *rows])
    columns = (f"""patient='{patient}',date="{day}",code='{code}',system=icd10cm""",)
    source = PatientInput([folder], ReadingSettings(columns=columns))
    found = {found for chunk in source.quiet_chunks(as_written=True) for _, found in chunk.events.table}
    assert found == {"I10", "I10') --"} and source.read == (3, 3)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["claims' OR 1=1 --.csv"]


# --- what a small file may become ---

READERS = """
import resource, sys
from pathlib import Path
import numpy, pyarrow.csv, pyarrow.json, pyarrow.parquet, torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from exmed_bert.clinvec.reader import read_clinvec
from exmed_bert.cohorts.label_file import read_labels
from exmed_bert.config import read_config
from exmed_bert.console import InputError
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.data.shards import open_dataset
from exmed_bert.data.translation.code_map import read_code_map
from exmed_bert.settings import ReadingSettings

folder = Path(sys.argv[1])
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2 * 2**30,) * 2)
csv = ReadingSettings(input_format="csv")
for name, read in {
    "zeros.jsonl.gz": lambda path: list(PatientInput([path]).chunks()),
    "blank.jsonl.gz": lambda path: list(PatientInput([path]).chunks()),
    "blank.csv.gz": lambda path: list(PatientInput([path], csv).chunks()),
    "line.csv": lambda path: list(PatientInput([path], csv).chunks()),
    "rows.parquet": lambda path: list(PatientInput([path]).chunks()),
    "events.parquet": lambda path: list(PatientInput([path]).chunks()),
    "deep.json": lambda path: list(PatientInput([path]).chunks()),
    "deep.jsonl": lambda path: list(PatientInput([path]).chunks()),
    "deep.ndjson": lambda path: list(PatientInput([path], ReadingSettings(input_format="fhir")).chunks()),
    "zeros.ndjson.gz": lambda path: list(PatientInput([path], ReadingSettings(input_format="fhir")).chunks()),
    "labels.csv.gz": read_labels,
    "labels.parquet": read_labels,
    "map.csv.gz": read_code_map,
    "ClinVec_icd10cm.csv.gz": lambda path: read_clinvec(path.parent, "icd10cm"),
    "laughs.yaml": read_config,
    "deep.yaml": read_config,
    "packed.pt": open_dataset,
    "wide.pt": open_dataset,
    "large.safetensors": load_file,
}.items():
    try:
        read(folder / name)
        print(name, "is read")
    except (InputError, SafetensorError) as error:
        print(name, *str(error).split(), sep=" ")
"""


def packed(path: Path, piece: bytes, times: int) -> None:
    """Write a .gz of a piece that is repeated."""
    path.write_bytes(gzip.compress(piece * (2**24 // len(piece)), 9) * times)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="a limit of the memory, as Linux has it")
def test_a_small_file_fills_no_memory(tmp_path: Path) -> None:
    blank = b" " * (2**16 - 1) + b"\n"
    for name, piece, times in (
        ("zeros.jsonl.gz", b"\0", 640),  # 10 GB
        ("zeros.ndjson.gz", b"\0", 40),
        ("ClinVec_icd10cm.csv.gz", b"\0", 40),
        ("map.csv.gz", b"\0", 40),
        ("labels.csv.gz", b"\0", 40),
        ("blank.jsonl.gz", blank, 20),
        ("blank.csv.gz", blank, 20),
    ):
        packed(tmp_path / name, piece, times)
    (tmp_path / "line.csv").write_text("patient_id,date,code," + "x" * 2**24)
    rows = pyarrow.table(dict.fromkeys(("subject_id", "prediction_time", "boolean_value"), pyarrow.array([1] * 2**20)))
    with pyarrow.parquet.ParquetWriter(tmp_path / "labels.parquet", rows.schema) as file:
        for _ in range(40):
            file.write_table(rows)
    for name in ("rows", "events"):
        patients = pyarrow.table({"patient_id": [1], "diagnoses": [["I10"] * 2**24], "drugs": [[""] * 2**24]})
        if name == "rows":
            patients = pyarrow.table({"patient_id": [1] * 2**20, "birth_year": [1] * 2**20})
        with pyarrow.parquet.ParquetWriter(tmp_path / f"{name}.parquet", patients.schema) as file:
            for _ in range(20 if name == "rows" else 1):
                file.write_table(patients, row_group_size=2**20)
    (tmp_path / "deep.json").write_text("[" * 10**6)
    (tmp_path / "deep.jsonl").write_text('{"a":' * 10**6)
    (tmp_path / "deep.ndjson").write_text('{"resourceType":"Patient","a":' + '{"a":' * 10**6)
    (tmp_path / "laughs.yaml").write_text(
        "a: &a [x]\n" + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in pairwise("abcdefghijk"))
    )
    (tmp_path / "deep.yaml").write_text("[" * 10**5)
    with zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/data.pkl", b"\0" * 2**28)
    torch.save(
        {"format": FORMAT, "version": VERSION, "columns": {"codes": torch.zeros(1).expand(2**40)}}, tmp_path / "wide.pt"
    )
    header = b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'
    (tmp_path / "large.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    large = {path.name: path.stat().st_size for path in tmp_path.iterdir() if path.stat().st_size > 2**24 + 100}
    assert not large

    done = subprocess.run(
        [sys.executable, "-c", READERS, str(tmp_path)], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line and "." in line.split(" ")[0])
    print(done.stdout, done.stderr)
    for name, problem in {
        "zeros.jsonl.gz": "has a line of more than 536,870,912 bytes",
        "blank.jsonl.gz": "unpacks to more than 200 times its size",
    }.items():
        assert problem in said[name], (name, said[name])
    assert not [name for name, line in said.items() if line == "is read"] and len(said) == 19


# --- what is resumed ---


class Harmful:
    """Writes a file where it is unpickled without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"])
def test_a_checkpoint_executes_nothing(name: str, checkpointed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(checkpointed, run)
    checkpoint = next((run / "model").glob("checkpoint-*"))
    torch.save({"state": Harmful(tmp_path / "executed")}, checkpoint / name)
    write_contents(checkpoint)
    result = CliRunner().invoke(script(COMMANDS["pretrain"]), pretraining(checkpointed.parent, run, 3))
    assert not (tmp_path / "executed").exists() and "Traceback" not in result.output
    assert result.exit_code in (0, 1), result.output


def pretraining(data: Path, run: Path, steps: int) -> list[str]:
    command = f"--output-dir {run}/model --output-data-dir {run}/data --max-steps {steps} --save-steps 1"
    command += f" --training-data {data}/d_train.pt --validation-data {data}/d_val.pt --train-batch-size 16"
    return f"{command} --hidden-size 16 --num-hidden-layers 1".split()


@pytest.fixture(scope="module")
def checkpointed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run with one checkpoint, beside its data."""
    folder = tmp_path_factory.mktemp("run")
    for name, options in (
        ("generate", f"-n 60 -o {folder}/patients.json".split()),
        ("convert", f"--input {folder}/patients.json --output {folder}/d.pt --train-ratio 0.5".split()),
        ("pretrain", pretraining(folder, folder / "run", 1)),
    ):
        result = CliRunner().invoke(script(COMMANDS[name]), options)
        assert result.exit_code == 0, result.output
    return folder / "run"


def test_a_record_of_contents_names_no_file_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "contents.json").write_text('{"../other": 1}')
    assert damage(tmp_path / "folder") == "contents.json is damaged"
