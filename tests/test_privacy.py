"""No patient in what people share: all steps run on patients with unmistakable values, and every file is searched.

The same patients hold what a browser or a spreadsheet would execute.
"""

import csv
import json
import os
import sqlite3
from collections import Counter
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from conftest import mlflow
from typer.testing import CliRunner

from exmed_bert.cli import script
from exmed_bert.commands import COMMANDS
from exmed_bert.config import Resolved
from exmed_bert.reporting.spreadsheet import original
from exmed_bert.settings import GenerateSettings
from exmed_bert.synthetic import generate

ID = "ZQXID"  # begins the id of each patient
DATES = ("2019-02-17", "20190217", "2019-02-18", "20190218", "2025-11-03", "20251103")  # of one patient each
TEXT = "JANEDOE77"  # typed where a code belongs
PATIENT_LEVEL = {
    "d_train.pt",
    "d_val.pt",
    "predictions.parquet",
    "embeddings.parquet",
}  # a user asks for these, by patient

VALUE = 431.77  # of one patient, the highest
RARE = "Q98.5"  # a code of one patient, which its model knows
# What a model knows is part of it, and of the tables of all its codes (docs/PRIVACY.md).
KNOWS_CODES = {"vocab.json", "code_tree.safetensors", "codes.csv", "novel_codes.csv", "metadata.tsv"}
MARKUP, FORMULA = "<script>alert(1)</script>", "=cmd|' /C calc'!A0"  # codes of many patients
GROUP = "<img src=x onerror=alert(2)>"  # a value of a static column
INPUT = "own.json" if os.name == "nt" else "own<script>alert(3).json"

STEPS = [
    "convert --input {i} --output {f}/d.pt --train-ratio 0.5 --keep-systems icd10cm,atc,loinc",
    "pretrain --training-data {f}/d_train.pt --validation-data {f}/d_val.pt --output-dir {f}/model "
    "--output-data-dir {f}/metrics --hidden-size 16 --num-hidden-layers 1 --train-batch-size 16 --max-steps 2",
    "finetune --model-dir {f}/model --input {i} --output-dir {f}/tuned --endpoint ICD:J*,ICD:M* --epochs 1 "
    "--baselines logreg --explain 40",
    "finetune --predict-only --model-dir {f}/tuned --input {i} --output-dir {f}/predicted",
    "report --input {i} --output-dir {f}/report",
    "analyze --model-dir {f}/model --dataset {f}/d_val.pt --output-dir {f}/novel --max-patients 50",
    "embed --model-dir {f}/model --input {i} --output {f}/embeddings.parquet --map pca --projector",
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the folder with the results of all steps, and all that they printed."""
    folder = tmp_path_factory.mktemp("private")
    made = folder.with_name("made.json")
    generate.run(Resolved(GenerateSettings(num_patients=500, output=made), {}))
    patients = json.loads(made.read_text())
    for number, patient in enumerate(patients):
        patient["patient_id"] = f"{ID}-{number}"
        patient["ethnicity"] = GROUP if number % 2 else "other"
    for number in (0, 1):
        patients[number]["diagnoses"] += [TEXT, f"{TEXT}B"]
        patients[number]["diagnosis_dates"] += [DATES[1], DATES[3]]
        patients[number] |= {"observation_end": DATES[5], "death_date": DATES[5]}
    patients[0]["diagnoses"].append(RARE)
    patients[0]["diagnosis_dates"].append(DATES[1])
    for number, patient in enumerate(patients[200:]):
        value = VALUE if number == 0 else 4 + number / 100
        patient["events"] = [{"system": "loinc", "code": "4548-4", "date": "2024-05-06", "value": value}]
    for patient in patients[2:200]:
        patient["events"] = [{"system": "snomedct", "code": code, "date": "2024-05-06"} for code in (MARKUP, FORMULA)]
    source, config = folder.with_name(INPUT), folder.with_name("config.yaml")
    source.write_text(json.dumps(patients))
    config.write_text(json.dumps({"static_columns": {"ethnicity": [GROUP, "other"]}}))
    printed = ""
    for step in STEPS:
        name, *options = step.format(f=folder, i=source).split()
        with mlflow():
            result = CliRunner().invoke(script(COMMANDS[name]), [*options, "--config", str(config)])
        assert result.exit_code == 0, result.output
        printed += result.output
    return folder, printed


@pytest.mark.slow
def test_cards_tell_of_models_and_of_no_path(shared: tuple[Path, str]) -> None:
    folder, _ = shared
    for name, words in (("model", "masked-code accuracy"), ("tuned", "ICD:J*,ICD:M* within 365 days")):
        card = (folder / name / "README.md").read_text()
        assert words in card and "license:\n" in card and str(folder) not in card and INPUT not in card


@pytest.mark.slow
def test_nothing_of_a_patient_is_written_or_printed(shared: tuple[Path, str]) -> None:
    folder, printed = shared
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in PATIENT_LEVEL]
    kinds = {path.name.split(".")[0] if path.name.startswith("events") else path.suffix for path in files}
    assert {".html", ".json", ".md", ".csv", ".log", ".db", "events"} <= kinds
    for path in files:
        content = path.read_bytes()
        found = [mark for mark in (ID, TEXT, str(VALUE), *DATES) if mark.encode() in content]
        assert not found, (path, found)
        assert path.name in KNOWS_CODES or path.suffix in (".pt", ".bin") or RARE.encode() not in content, path
    assert "loinc:4548-4|Q5" in (folder / "model" / "vocab.json").read_text()
    assert not [mark for mark in (ID, TEXT, RARE, str(VALUE), *DATES) if mark in printed]


class Tags(HTMLParser):
    """Collects the tags of a page with the names of their attributes, and the page's policy."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.attributes, self.policy = Counter[str](), set[str](), ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes.update(name for name, _ in attrs)
        if ("http-equiv", "Content-Security-Policy") in attrs:
            self.policy = str(dict(attrs)["content"])


@pytest.mark.slow
def test_pages_escape_what_patients_and_files_are_called(shared: tuple[Path, str]) -> None:
    pages = {str(path.relative_to(shared[0])): path.read_text("utf-8") for path in shared[0].rglob("*.html")}
    for name, page in pages.items():
        found = Tags(page)
        assert found.tags.keys().isdisjoint({"iframe", "object", "base", "form", "link"}), name
        assert found.tags["script"] == 1 and "script-src 'sha256-" in found.policy, name
        assert not [attribute for attribute in found.attributes if attribute.startswith("on")], name
        assert found.policy.startswith("default-src 'none'; "), name
    everything = "".join(pages.values())
    shown = [text for text in (MARKUP, GROUP, INPUT) if escape(text) in everything]
    assert shown == [MARKUP, GROUP, INPUT]


@pytest.mark.slow
def test_no_cell_of_a_table_is_a_formula(shared: tuple[Path, str]) -> None:
    tables = list(shared[0].rglob("*.csv"))
    assert "unmapped_codes.csv" in {path.name for path in tables}
    for path in tables:
        with open(path, encoding="utf-8", newline="") as file:
            cells = {cell for row in csv.reader(file) for cell in row}
        assert not [cell for cell in cells if cell[:1] in ("=", "@", "+", "\t", "\r")], path
        if path.name == "unmapped_codes.csv":
            assert {MARKUP, FORMULA} <= set(map(original, cells)) and FORMULA not in cells


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
