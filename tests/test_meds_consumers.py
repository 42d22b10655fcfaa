"""An export is read by tools of others: meds-torch-data, with MEDS-Transforms below it, and meds_reader.

They are no dependencies of ours, so they are installed into a fresh environment, which sees the packages of the one
that runs the tests. Where no package index can be reached the tests are skipped.
"""

import json
import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from conftest import record

from exmed_bert.data.export.meds import export_meds
from exmed_bert.data.export.provenance import SUBJECT_IDS
from exmed_bert.data.origin import Origin
from exmed_bert.data.patient import PatientColumns
from exmed_bert.data.readers.validation import RecordFields, columns_of
from exmed_bert.data.splits import InputSplit
from exmed_bert.data.static_columns import BUILT_IN

CONSUMERS = ("meds-torch-data==0.9.0", "meds_reader==0.2.0")
PATIENTS = 40

Rows = dict[str, tuple[str, list[list[str | None]]]]  # by subject the split, and time and code of each row

# Each prints what it has read as JSON, by subject.
TORCH_DATA = """
import json, sys
import polars
from meds_torchdata import MEDSPytorchDataset, MEDSTorchDataConfig
codes = dict(polars.read_parquet(sys.argv[1] + "/metadata/codes.parquet").select("code/vocab_index", "code").rows())
read = {}
for split in ("train", "tuning", "held_out"):
    config = MEDSTorchDataConfig(sys.argv[1], max_seq_len=1000, seq_sampling_strategy="from_start")
    dataset = MEDSPytorchDataset(config, split=split)
    for subject, item in zip(dataset.schema_df["subject_id"], dataset):
        dynamic = item["dynamic"].tensors["dim0/code"]
        read[subject] = [split, [codes[int(i)] for i in item["static_code"]], [codes[int(i)] for i in dynamic]]
    batch = dataset.collate([dataset[i] for i in range(len(dataset))])
    assert len(batch.code) == len(dataset)
print(json.dumps(read))
"""
READER = """
import json, sys
import meds_reader
database = meds_reader.SubjectDatabase(sys.argv[1])
rows = {int(i): [[e.time and e.time.isoformat(), e.code] for e in database[i].events] for i in database}
print(json.dumps(rows))
"""


@dataclass(frozen=True)
class Environment:
    """A fresh environment with the consumers."""

    programs: Path

    def run(self, program: str, *arguments: str | Path) -> str:
        """Run one of its programs and return what it printed."""
        variables = os.environ | {"PATH": f"{self.programs}{os.pathsep}{os.environ['PATH']}"}
        variables.pop("PYTHONPATH", None)
        command = [str(self.programs / program), *map(str, arguments)]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Install the consumers."""
    folder = tmp_path_factory.mktemp("consumers")
    venv.create(folder, symlinks=os.name != "nt")
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    made = Environment(programs)
    purelib = made.run("python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    ours = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (Path(purelib) / "packages_of_the_tests.pth").write_text("\n".join(ours))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(programs / "python"), "install"]
    done = subprocess.run(
        [*pip, "--retries", "0", "--timeout", "10", *CONSUMERS],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if "No matching distribution found" in done.stderr:
        pytest.skip(f"no package index has {' and '.join(CONSUMERS)}, or none can be reached")
    assert done.returncode == 0, done.stdout + done.stderr
    return made


def patient(number: int) -> dict[str, Any]:
    """Return a record: some ids are text, some numbers are negative, and the order is not that of the numbers."""
    patient_id: int | str = f"p-{number}" if number % 4 == 0 else (number * 37) % 50 - 20
    further = {"observation_start": "20220101", "death_date": "20240101"} if number % 3 == 0 else {}
    return record(patient_id, sex=None if number % 5 == 0 else "MALE", had_plos=number % 2 == 0, **further)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export patients with splits."""
    folder = tmp_path_factory.mktemp("exported") / "meds"
    everyone = columns_of(Path("p.json"), list(map(patient, range(PATIENTS))), 1, RecordFields(BUILT_IN))
    splits = pyarrow.array([number % 3 for number in range(PATIENTS)], "int8").to_numpy()
    export_meds(folder, [PatientColumns(**vars(everyone) | {"splits": splits})], Origin("0" * 32))
    return folder


@pytest.fixture(scope="module")
def rows(exported: Path) -> Rows:
    """Return the split of each subject, and time and code of its rows, as the files have them."""
    found: Rows = {}
    for path in (exported / "data").rglob("*.parquet"):
        for row in pyarrow.parquet.read_table(path).to_pylist():
            _, of_subject = found.setdefault(str(row["subject_id"]), (path.parent.name, []))
            of_subject.append([row["time"] and row["time"].isoformat(), row["code"]])
    assert len(found) == PATIENTS and len(pyarrow.parquet.read_table(exported / SUBJECT_IDS)) == PATIENTS
    return found


@pytest.mark.slow
def test_meds_torch_data_reads_an_export(environment: Environment, exported: Path, rows: Rows, tmp_path: Path) -> None:
    environment.run("MTD_preprocess", f"MEDS_dataset_dir={exported}", f"output_dir={tmp_path / 'tensors'}")
    read = json.loads(environment.run("python", "-c", TORCH_DATA, tmp_path / "tensors"))
    assert {split for split, _, _ in read.values()} == {
        split.name.lower() for split in InputSplit if split != InputSplit.UNKNOWN
    }
    assert read == {
        subject: [
            split,
            [code for time, code in of_subject if time is None],
            [code for time, code in of_subject if time],
        ]
        for subject, (split, of_subject) in rows.items()
    }


@pytest.mark.slow
def test_meds_reader_reads_an_export(environment: Environment, exported: Path, rows: Rows, tmp_path: Path) -> None:
    environment.run("meds_reader_convert", exported, tmp_path / "database", "--num_threads", "1")
    assert "Test passed" in environment.run("meds_reader_verify", exported, tmp_path / "database")
    read = json.loads(environment.run("python", "-c", READER, tmp_path / "database"))
    assert read == {subject: of_subject for subject, (_, of_subject) in rows.items()}
