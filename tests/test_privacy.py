"""No patient in what people share: all steps run on patients with unmistakable values, and every file is searched."""

import json
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from exmed_bert.cli import script
from exmed_bert.commands import COMMANDS
from exmed_bert.config import Resolved
from exmed_bert.settings import GenerateSettings
from exmed_bert.synthetic import generate

ID = "ZQXID"  # begins the id of each patient
DATES = ("2019-02-17", "20190217", "2019-02-18", "20190218", "2025-11-03", "20251103")  # of one patient each
TEXT = "JANEDOE77"  # typed where a code belongs
PATIENT_LEVEL = {"d_train.pt", "d_val.pt", "predictions.parquet"}  # a user asks for these, by patient

STEPS = {
    "convert": "--input {f}/own.json --output {f}/d.pt --train-ratio 0.5",
    "pretrain": "--training-data {f}/d_train.pt --validation-data {f}/d_val.pt --output-dir {f}/model "
    "--output-data-dir {f}/metrics --hidden-size 16 --num-hidden-layers 1 --train-batch-size 16 --max-steps 2",
    "finetune": "--model-dir {f}/model --input {f}/own.json --output-dir {f}/tuned --endpoint ICD:J*,ICD:M* --epochs 1 "
    "--baselines logreg --explain 40",
    "report": "--input {f}/own.json --output-dir {f}/report",
    "analyze": "--model-dir {f}/model --dataset {f}/d_val.pt --output-dir {f}/novel --max-patients 50",
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the folder with the results of all steps, and all that they printed."""
    folder = tmp_path_factory.mktemp("private")
    made = folder.with_name("made.json")
    generate.run(Resolved(GenerateSettings(num_patients=500, output=made), {}))
    patients = json.loads(made.read_text())
    for number, patient in enumerate(patients):
        patient["patient_id"] = f"{ID}-{number}"
    for number in (0, 1):
        patients[number]["diagnoses"] += [TEXT, f"{TEXT}B"]
        patients[number]["diagnosis_dates"] += [DATES[1], DATES[3]]
        patients[number] |= {"observation_end": DATES[5], "death_date": DATES[5]}
    (folder / "own.json").write_text(json.dumps(patients))
    printed = ""
    for name, options in STEPS.items():
        result = CliRunner().invoke(script(COMMANDS[name]), options.format(f=folder).split())
        assert result.exit_code == 0, result.output
        printed += result.output
    (folder / "own.json").unlink()
    return folder, printed


@pytest.mark.slow
def test_nothing_of_a_patient_is_written_or_printed(shared: tuple[Path, str]) -> None:
    folder, printed = shared
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in PATIENT_LEVEL]
    kinds = {path.name.split(".")[0] if path.name.startswith("events") else path.suffix for path in files}
    assert {".html", ".json", ".md", ".csv", ".log", ".db", "events"} <= kinds
    for path in files:
        content = path.read_bytes()
        found = [mark for mark in (ID, TEXT, *DATES) if mark.encode() in content]
        assert not found, (path, found)
    assert not [mark for mark in (ID, TEXT, *DATES) if mark in printed]


@pytest.mark.slow
def test_what_is_of_single_patients_stays_in_files_of_its_own(shared: tuple[Path, str]) -> None:
    folder, printed = shared
    assert (folder / "tuned" / "predictions.parquet").exists()
    assert not list(folder.rglob("attributions.parquet")) and "--min-cell 0 writes it" in printed
    assert not [path for path in folder.rglob("mlartifacts/**/*") if path.is_file()], "artifacts are shared with a run"
    for database in folder.rglob("mlruns.db"):
        with sqlite3.connect(database) as opened:
            assert opened.execute("SELECT count(*) FROM metrics").fetchone()[0]
            assert not opened.execute("SELECT * FROM tags WHERE key LIKE '%artifact%'").fetchall()


@pytest.mark.slow
def test_small_counts_are_hidden_by_every_step(shared: tuple[Path, str]) -> None:
    folder, printed = shared
    pages = [path.read_text(encoding="utf-8") for path in folder.rglob("*.html")]
    assert len(pages) >= 3 and all("Counts from 1 to 10 are hidden" in page for page in pages)
    assert "<11" in printed
