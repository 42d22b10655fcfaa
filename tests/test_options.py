"""Every option of every command runs: a table of runs through the commands' programs, and a check of the table.

The commands run in this process, as their scripts would run them, on data of a few hundred patients and models of one
layer. What a run was given has to stand in the settings that it saves, as given by an option.
"""

import csv
import json
import shlex
import traceback
from collections.abc import Iterator
from functools import partialmethod
from itertools import zip_longest
from pathlib import Path
from pkgutil import resolve_name
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import pytest
import torch
from conftest import ROOT
from typer.testing import CliRunner

from exmed_bert.cli import script
from exmed_bert.commands import COMMANDS
from exmed_bert.config import section_of
from exmed_bert.settings import StepSettings, flag
from exmed_bert.sharing import onnx_graph

EXAMPLES = ROOT / "examples"
# What each command is run with. {w} is the folder with the data, {o} the run's own, {e} the examples. An option of a
# step needs a run here, a switch needs both of its sides, and a choice each of its values.
PRETRAIN = "--training-data {w}/d_train.pt --validation-data {w}/d_val.pt --output-dir {o}/model "
PRETRAIN += "--output-data-dir {o}/metrics --hidden-size 16 --num-hidden-layers 1 --train-batch-size 16 "
CLINVEC = PRETRAIN + "--max-steps 1 --use-clinvec --resize-if-needed "
FINETUNE = "--model-dir {w}/model --input {w}/patients.json --output-dir {o}/tuned --epochs 1 "
CLAIMS = "--columns 'members*:patient=MEMBER,birth=YOB,sex=SEX[1:M|2:F],plos=LONG_STAY' "
CLAIMS += "--columns claims.csv:patient=MEMBER,date=SVC_DT,code=DX1..DX4,system=icd10cm,date_format=%m/%d/%Y "
CLAIMS += "--columns pharmacy.csv:patient=MEMBER,date=FILL_DT,code=ATC,system=atc,date_format=%m/%d/%Y"
RUNS = {
    "generate": (
        "--num-patients 1500 --output {o}/p.jsonl.gz --novel-prob 0.5 --seed 3 --end-date 2020-06-30 "
        "--novel-kind recent --workers 2 --chunk-size 1000 --no-realistic --events diagnoses,drugs,procedures,labs",
        "-n 20 -o {o}/p.parquet -p 0.3 -s 4 --novel-kind invented --config {w}/other.yaml --debug",
        "-n 2000 -o {o}/p --shards 2 --shard-format jsonl --scheduler local --realistic",
        "-n 1000 -o {o}/p --shards 1 --shard-format jsonl.gz",
        "-n 1000 -o {o}/p --shards 1 --shard-format parquet",
        *(f"-n 20 -o {{o}}/d --export {name}" for name in ("meds", "csv", "fhir", "omop")),
    ),
    "convert": (
        "--input {w}/patients.json --output {o}/d.pt --split all --max-length 30 --train-ratio 0.6 "
        "--no-dynamic-masking --seed 5 --min-observations 3 --masked-lm-prob 0.3 --max-masked 4 --age-unit months "
        "--split-from hash --min-cell 5 --input-format json --extract-end 2024-12-31 --days-after-death 60 "
        "--keep-implausible-dates --max-age 89 --lab-values quantiles --lab-bins 4",
        "--input {w}/patients.json --output {o}/d --split train --dynamic-masking --age-unit years --debug "
        "--no-keep-implausible-dates --lab-values range",
        "--input {w}/patients.json --output {o}/d.pt --split val --config {w}/other.yaml --vocab-from {w}/model "
        "--no-extend-vocab --lab-values none",
        "--input {w}/patients.json --output {o}/d.pt --vocab-from {w}/d_val.pt --extend-vocab",
        "--input {e}/meds --output {o}/d.pt --split-from input --input-format meds",
        "--input {e}/csv/data --input-format csv --output {o}/d.pt",
        f"--input {{e}}/csv/claims {CLAIMS} --output {{o}}/d.pt",
        "--input {w}/patients.json --input-format auto --output {o}/d.pt --diagnosis-system by-date "
        "--icd-level category --atc-level 3 --min-code-count 50 --rare-codes roll-up --shard-size 100 --workers 2 "
        "--scheduler local",
        "--input {w}/few.jsonl.gz --input-format jsonl --output {o}/d.pt --diagnosis-system icd9cm --on-multiple all "
        "--keep-systems icd9cm",
        "--input {w}/few.parquet --input-format parquet --output {o}/d.pt --diagnosis-system icd10cm "
        "--on-multiple drop --icd-level full --min-code-count 2 --rare-codes unk",
        *(f"--input {{w}}/patients.json --output {{o}}/d --export {name}" for name in ("meds", "csv", "fhir", "omop")),
        "--input {e}/mimic/data --input-format mimic --code-map {e}/mimic/code_map.csv --plos-days 4.5 "
        "--on-multiple first --output {o}/d.pt",
        "--input {e}/omop/data --input-format omop --source-vocabulary ICD10CM --athena {e}/omop/data/vocabulary "
        "--output {o}/d.pt",
        "--input {e}/fhir/data --input-format fhir --code-map {e}/fhir/code_map.csv --fhir-date onset "
        "--fhir-intents order,instance-order --output {o}/d.pt",
        "--input {e}/fhir/data --fhir-date recorded --output {o}/d.pt --keep-systems rxnorm",
        "--input {e}/synthea/data --input-format synthea --code-map {e}/synthea/code_map.csv --output {o}/d.pt",
    ),
    "pretrain": (
        PRETRAIN + "--num-attention-heads 2 --intermediate-size 16 --eval-batch-size 16 --max-steps 3 "
        "--learning-rate 0.01 --gradient-accumulation-steps 2 --seed 1 --num-workers 1 --logging-steps 1 "
        "--eval-steps 2 --eval-max-patients 10 --save-steps 1 --warmup-steps 1 --initialization normal "
        "--no-visit-distance-bias --no-visit-days --dynamic-masking --max-masked 3 --max-seq-length 40 "
        "--forecast-prob 0.5 --forecast-weight 1 "
        "--no-plos --precision fp32 --profile 1 --no-compile --no-overwrite --no-use-clinvec "
        "--report-to none --no-use-hierarchical-init --no-resize-if-needed --no-code-ancestors --config {w}/other.yaml",
        PRETRAIN + "--epochs 1 --warmup-ratio 0.5 --initialization orthogonal --visit-distance-bias --visit-days "
        "--code-ancestors --plos --precision bf16 --overwrite --debug",
        PRETRAIN.replace("/d_", "/static_") + "--max-steps 1 --no-dynamic-masking --precision auto",
        PRETRAIN + "--max-steps 1 --compile",
        PRETRAIN + "--max-steps 1 --model-dir {w}/model --use-hierarchical-init",
        CLINVEC + "--clinvec-dir {w}/wide --vocab-types icd10cm --use-hierarchical-init --resize-method auto",
        CLINVEC + "--clinvec-dir {w}/wide --resize-method pca --clinvec-scale 2",
        CLINVEC + "--clinvec-dir {w}/wide --resize-method truncate",
        CLINVEC + "--clinvec-dir {w}/wide --resize-method learned_projection",
        CLINVEC + "--clinvec-dir {w}/narrow --resize-method pad_smart",
        CLINVEC + "--clinvec-dir {w}/narrow --resize-method pad_random",
    ),
    "finetune": (
        FINETUNE + "--endpoint ICD:J* --horizon-days 200 --gap-days 20 --index-date random --min-history 3 --head ffn "
        "--washout-days 500 --min-observation-days 100 --same-day exclude --censored weight --censoring-strata sex "
        "--prompt --no-freeze-encoder --class-weights --no-from-scratch --train-sizes 60 --seeds 2 --explain 2 "
        "--baselines logreg,scratch --train-batch-size 16 --eval-batch-size 64 --learning-rate 0.001 --seed 9 "
        "--precision fp32 --report-to none --no-overwrite --no-predict-only",
        FINETUNE + "--baselines none --config {w}/other.yaml --endpoint respiratory --head gru --no-prompt "
        "--freeze-encoder --no-class-weights --index-date fixed:2023-06-30 --censored drop --precision bf16 "
        "--overwrite --debug",
        FINETUNE + "--baselines none --labels {w}/labels.csv --head lstm --from-scratch --precision auto "
        "--same-day include",
        FINETUNE + "--task plos --baselines none",
        FINETUNE.replace("patients.json", "realistic.parquet") + "--endpoint ICD:J* --baselines none",
        FINETUNE.replace("patients.json", "realistic.parquet") + "--endpoint ICD:J* --task time-to-event "
        "--horizons 60,200 --baselines cox",
        "--predict-only --model-dir {w}/tuned --input {w}/patients.json --output-dir {o} --index-date last-visit",
    ),
    "embed": (
        "--model-dir {w}/model --input {w}/patients.json --output {o}/e.parquet --labels {w}/labels.csv "
        "--same-day exclude --pooling query --eval-batch-size 100 --precision fp32 --projector --map tsne "
        "--color-by state --max-points 50 --seed 3 --min-cell 5 --debug",
        "--model-dir {w}/tuned --input {w}/d_val.pt --output {o}/e.parquet --same-day include --pooling last-visit "
        "--precision bf16 --no-projector --map pca --config {w}/other.yaml",
        "--model-dir {w}/model --input {w}/few.parquet --output {o}/e.parquet --pooling mean --precision auto",
    ),
    "explain": (
        "--model-dir {w}/tuned --input {w}/patients.json --patient-id 3 --endpoint ICD:J* --horizon-days 365 "
        "--output-dir {o} --config {w}/other.yaml --debug",
    ),
    "analyze": (
        "--model-dir {w}/model --dataset {w}/d_val.pt --training-data {w}/d_train.pt --output-dir {o} "
        "--max-patients 50 --seed 3 --min-cell 11 --config {w}/other.yaml --debug",
    ),
    "share": (
        "--model-dir {w}/model --training-data {w}/d_train.pt --output-dir {o} --min-count 3 --config {w}/other.yaml "
        "--debug",
    ),
    "export": (
        "--model-dir {w}/model --hub-folder {o}/hub --onnx {o}/m.onnx --config {w}/other.yaml --debug",
        "--model-dir {w}/tuned --hub-folder {o}/hub",
    ),
    "hierarchy": ("--output-dir {o} --dimension 4 --held-out 0.2 --seed 3 --config {w}/other.yaml --debug",),
    "report": ("--input {w}/patients.json --output-dir {o} --config {w}/other.yaml --debug",),
}
LEAVES = {  # what a run writes, at least
    "generate": ("p.*", "p.meta.json"),
    "convert": ("d_*.pt",),
    "pretrain": ("model/model.safetensors", "model/vocab.json", "model/output.log", "metrics/eval_results.txt"),
    "finetune": ("**/predictions.parquet",),
    "embed": ("e.parquet", "e.settings.json"),
    "explain": ("report.html",),
    "analyze": ("report.html", "results.json"),
    "share": ("model.safetensors", "vocab.json", "pretraining.json"),
    "export": ("hub/model.safetensors", "hub/README.md"),
    "hierarchy": ("ClinVec_*.csv", "held_out/ClinVec_*.csv"),
    "report": ("report.html", "report.json"),
}
CASES = [
    pytest.param(name, text, id=f"{name}-{number}") for name, runs in RUNS.items() for number, text in enumerate(runs)
]
SETTINGS: dict[str, type[StepSettings]] = {name: resolve_name(command.settings) for name, command in COMMANDS.items()}


def options_of(name: str) -> Iterator[tuple[str, ...]]:
    """Yield what the runs of a command need: the words of each option, with the value where it is a choice."""
    cls = SETTINGS[name]
    for field, info in cls.model_fields.items():
        kind = info.annotation
        if get_origin(kind) in (Union, UnionType):
            kind = next(part for part in get_args(kind) if part is not type(None))
        if cls.extra(field).get("file_only"):
            continue
        if name != "convert" and section_of(cls, field) == "reading":  # read by the same code in every step
            continue
        if kind is bool:
            yield from ((flag(field, True),), (flag(field, False),))
        elif get_origin(kind) is Literal:
            yield from ((flag(field), choice) for choice in get_args(kind))
        else:
            yield (flag(field),)
        if short := cls.extra(field).get("short"):
            yield (short,)
    yield from (("--config",), ("--debug",))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_a_run(name: str) -> None:
    runs = [shlex.split(text) for text in RUNS[name]]
    have = {tuple(words[at : at + length]) for words in runs for at in range(len(words)) for length in (1, 2)}
    assert not set(options_of(name)) - have


# --- the runs ---


def run(name: str, text: str, **folders: Path) -> str:
    """Run a command with the options of a text, as its script does; return what it printed."""
    words = shlex.split(text.format(**folders))
    result = CliRunner().invoke(script(COMMANDS[name]), words)
    assert result.exit_code == 0, result.output + "".join(traceback.format_exception(*result.exc_info))
    assert "Error" not in result.stderr and "Traceback" not in result.stderr, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with patients, datasets, labels, vectors of two widths, a pretrained and a fine-tuned model."""
    folder = tmp_path_factory.mktemp("options")
    (folder / "other.yaml").write_text("finetune: {endpoints: {respiratory: ['ICD:J*']}}\n")
    run("generate", "-n 900 -s 5 -o {w}/patients.json", w=folder)
    for name in ("few.jsonl.gz", "few.parquet"):
        run("generate", "-n 60 -o {w}/" + name, w=folder)
    run("generate", "-n 900 -s 5 --realistic -o {w}/realistic.parquet", w=folder)
    for name, masking in (("d", "--dynamic-masking"), ("static", "--no-dynamic-masking")):
        convert = "--input {w}/patients.json --output {w}/" + f"{name}.pt --train-ratio 0.5 --max-length 40 {masking}"
        run("convert", convert, w=folder)
    for name, dimension in (("wide", 32), ("narrow", 8)):
        run("hierarchy", "--output-dir {w}/" + f"{name} --dimension {dimension}", w=folder)
    run("pretrain", PRETRAIN.replace("{o}/model", "{w}/model") + "--epochs 1", w=folder, o=folder)
    run(
        "finetune",
        FINETUNE.replace("{o}/tuned", "{w}/tuned") + "--endpoint ICD:J* --baselines none",
        w=folder,
        o=folder,
    )
    with open(folder / "labels.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["subject_id", "prediction_time", "boolean_value"])
        table.writerows([patient, "2024-06-30", patient % 3 == 0] for patient in range(900))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("name", "text"), CASES)
def test_a_run(name: str, text: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # so that nothing but the options says where to write
    traced = partialmethod(torch.nn.Module.compile, backend="eager")  # to make C++ of it would take a minute
    monkeypatch.setattr(torch.nn.Module, "compile", traced)
    monkeypatch.setattr(onnx_graph, "write_onnx", lambda *args: 0.0)  # tests/test_export_model.py writes one
    before = set(world.rglob("*"))
    run(name, text, w=world, o=tmp_path, e=EXAMPLES)
    assert set(world.rglob("*")) == before
    leaves = LEAVES.get(name, ())
    if "--export" in text:
        meds = ("d/data/train/0.parquet", "d/metadata/codes.parquet")
        leaves = meds if "--export meds" in text else ("d/exmed_bert.meta.json",)
    elif "--shards" in text:
        leaves = ("p/part-00000.*", "p/population.meta.json")
    assert all(list(tmp_path.glob(left)) for left in leaves), list(tmp_path.rglob("*"))
    if saved := list(tmp_path.rglob("*settings.json")):
        check_saved(json.loads(saved[0].read_text()), name, shlex.split(text.format(w=world, o=tmp_path, e=EXAMPLES)))


def check_saved(saved: dict[str, Any], name: str, words: list[str]) -> None:
    """Assert that a run saved the settings that it was given, and that options gave them."""
    cls = SETTINGS[name]
    shorts = {cls.extra(field).get("short"): field for field in cls.model_fields}
    given: dict[str, list[Any]] = {}  # the values of each option, which may be there several times
    for word, value in zip_longest(words, words[1:]):
        field = shorts.get(word) or word.lstrip("-").removeprefix("no-").replace("-", "_")
        if word.startswith("-") and field in cls.model_fields:
            has_value = value is not None and not value.startswith("--")
            given.setdefault(field, []).append(value if has_value else not word.startswith("--no-"))
    assert {field for field, origin in saved["origin"].items() if origin == "flag"} == set(given)
    assert {field: str(saved["settings"][field]) for field in given} == {
        field: str(values if isinstance(saved["settings"][field], list) else type(saved["settings"][field])(*values))
        for field, values in given.items()
    }
