"""Pretraining end to end: a planted rule is learned, killed runs resume bit for bit, refusals are one line."""

import json
import os
import random
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from clinvec_files import write_clinvec_folder
from conftest import ROOT, assert_one_line_error, mlflow, record, run_forked, run_here, write_records
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from exmed_bert import ExMedBertForMaskedLM
from exmed_bert.config import Resolved, resolve
from exmed_bert.console import InputError
from exmed_bert.data.convert import convert
from exmed_bert.data.convert import run as convert_and_report
from exmed_bert.data.dataset import PatientDataset
from exmed_bert.data.vocabulary import SPECIAL_TOKENS, UNK, CodeVocabulary, in_order
from exmed_bert.files import fingerprint
from exmed_bert.settings import ConvertSettings, PretrainSettings
from exmed_bert.training import checkpoints as checkpoints_of_runs
from exmed_bert.training.checkpoints import checkpoints
from exmed_bert.training.pretrain import check_maskable, load_datasets, run

SCRIPT = "pretrain-exmed-bert-clinvec.py"
TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def tiny_flags(datasets: Path, output: Path) -> list[Any]:
    """Return the flags of a run of 24 steps that saves after each sixth."""
    return [
        *("--training-data", datasets / "small_train.pt", "--validation-data", datasets / "small_val.pt"),
        *("--output-dir", output / "model", "--output-data-dir", output / "data"),
        *("--hidden-size", 16, "--num-hidden-layers", 1, "--num-attention-heads", 2, "--intermediate-size", 32),
        *("--train-batch-size", 8, "--max-steps", 24, "--save-steps", 6, "--eval-steps", 12, "--max-seq-length", 30),
    ]


def settings_for(datasets: Path, output: Path, **changes: Any) -> Resolved[PretrainSettings]:
    given = {
        "training_data": datasets / "small_train.pt",
        "validation_data": datasets / "small_val.pt",
        "output_dir": output / "model",
        "output_data_dir": output / "data",
        **TINY,
        **changes,
    }
    return resolve(PretrainSettings, given)


def eval_results(folder: Path) -> dict[str, float]:
    lines = (folder / "eval_results.txt").read_text().splitlines()
    return {name: float(value) for name, value in (line.split(" = ") for line in lines)}


@pytest.mark.slow
def test_a_planted_rule_is_learned(tmp_path: Path) -> None:
    """A drug follows each diagnosis, and only it: masked, it can be told from the diagnosis alone."""
    rng = random.Random(0)
    drug_of = {f"E{i}.9": f"C10AA{i}" for i in range(10, 22)}
    records = []
    for i in range(400):
        diagnoses = rng.sample(sorted(drug_of), 4)
        days = [f"202{year}0{rng.randint(1, 9)}15" for year in range(1, 5)]
        events = {"diagnoses": diagnoses, "diagnosis_dates": days, "prescription_dates": days}
        records.append(record(i, drugs=[drug_of[d] for d in diagnoses], **events))
    path = write_records(tmp_path / "p.json", records)
    convert(ConvertSettings(input=path, output=tmp_path / "small.pt"))
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64}
    changes = {"epochs": 15, "train_batch_size": 8, "learning_rate": 3e-3, "plos": False, "forecast_prob": 0}
    run(settings_for(tmp_path, tmp_path, **sizes, **changes))
    results = eval_results(tmp_path / "data")
    assert results["eval_drugs_accuracy_top1"] > 0.9
    assert results["eval_drugs_accuracy_top1"] > 4 * results["eval_baseline_entity_top1"]


@pytest.fixture(scope="module")
def finished(small_datasets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("finished")
    with mlflow():
        result = run_here(SCRIPT, *tiny_flags(small_datasets, folder), cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert "Written" in result.stdout and str(folder / "model") in result.stdout
    assert result.stderr == ""
    return folder


@pytest.mark.slow
def test_it_leaves_everything_the_guide_lists(finished: Path, small_datasets: Path) -> None:
    model_dir, data_dir = finished / "model", finished / "data"
    for name in ("pytorch_model.bin", "model.safetensors", "config.json", "vocab.json", "output.log", "settings.json"):
        assert (model_dir / name).stat().st_size > 0, name
    assert [folder.name for folder in checkpoints(model_dir)] == ["checkpoint-18", "checkpoint-24"]
    assert not list(model_dir.glob(".*")), "no half-written file is left"

    state = torch.load(model_dir / "pytorch_model.bin", weights_only=True)
    model = ExMedBertForMaskedLM.from_pretrained(model_dir)
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    vocabulary = json.loads((model_dir / "vocab.json").read_text())
    assert vocabulary["MASK"] == {"id": 4, "entity": "default"} and len(vocabulary) == model.config.code_vocab_size
    assert {entry["entity"] for entry in vocabulary.values()} == {"default", "atc", "icd"}

    results = eval_results(data_dir)
    for group in ("", "diagnoses_", "drugs_", "novel_codes_"):
        assert results[f"eval_{group}masked_codes"] > 0
        assert 0 <= results[f"eval_{group}accuracy_top1"] <= results[f"eval_{group}accuracy_top10"] <= 1
    assert results["eval_plos_patients"] == len(PatientDataset.load(small_datasets / "small_val.pt"))
    assert {"eval_plos_accuracy", "eval_plos_f1", "eval_perplexity", "train_codes_per_second"} <= set(results)
    low, auc, high = (results[f"eval_membership_auc{end}"] for end in ("_low", "", "_high"))
    assert 0 <= low < auc < high <= 1

    board = EventAccumulator(str(data_dir / "logs")).Reload()
    assert [event.step for event in board.Scalars("eval/accuracy_top1")] == [12, 24, 24]
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{data_dir / 'mlruns.db'}")
    found = client.search_runs([client.get_experiment_by_name("exmed-bert-pretraining").experiment_id])
    assert len(found) == 1 and found[0].info.status == "FINISHED"
    assert found[0].data.params["hidden_size"] == "16" and found[0].info.run_name == "model"
    data = {one.dataset.name: one.dataset.digest for one in found[0].inputs.dataset_inputs}
    assert data == {f"small_{part}.pt": fingerprint(small_datasets / f"small_{part}.pt") for part in ("train", "val")}
    tags, (model,) = found[0].data.tags, client.search_logged_models([found[0].info.experiment_id])
    assert (tags["exmed_bert.step"], tags["exmed_bert.generated"]) == ("pretraining", "true")
    signature = json.loads(model.tags["exmed_bert.signature"])
    assert {"name": "input_ids", "type": "tensor", "dtype": "int64", "shape": [-1, -1]} in signature["inputs"]
    assert found[0].data.metrics["eval_loss"] == pytest.approx(results["eval_loss"], rel=1e-4)

    saved = json.loads((model_dir / "settings.json").read_text())
    assert saved["settings"]["hidden_size"] == 16 and saved["versions"]["torch"] == torch.__version__


@pytest.mark.slow
@pytest.mark.parametrize("method", ["learned_projection", "pca", "truncate"])
def test_vectors_are_resized_to_the_models_width(method: str, small_datasets: Path, tmp_path: Path) -> None:
    vocabulary = PatientDataset.load(small_datasets / "small_train.pt").info.vocabulary
    codes = [key[1] for key in vocabulary.keys if key is not None and key[0] == "icd10cm"]
    folder = write_clinvec_folder(tmp_path / "clinvec", {"icd10cm": codes}, dimension=24)
    clinvec = ["--use-clinvec", "--clinvec-dir", folder, "--resize-if-needed", "--resize-method", method]
    result = run_here(SCRIPT, *tiny_flags(small_datasets, tmp_path), *clinvec, "--max-steps", 2, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert f"ClinVec vectors resized from 24 to 16 dimensions by {method}" in result.stdout


@pytest.mark.slow
def test_a_warm_up_as_long_as_the_run_is_a_warning(
    small_datasets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(settings_for(small_datasets, tmp_path, max_steps=2, warmup_steps=5))
    assert "Warning: --warmup-steps: 5 of 2 steps: the learning rate rises" in capsys.readouterr().err


@pytest.mark.slow
def test_a_finished_run_is_not_trained_again(finished: Path, small_datasets: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in finished.rglob("*")}
    result = run_here(SCRIPT, *tiny_flags(small_datasets, finished), cwd=ROOT)
    assert result.returncode == 0 and "--epochs" in result.stdout and "--overwrite" in result.stdout
    assert {file: file.stat().st_mtime_ns for file in finished.rglob("*")} == before


def die_at(moment: str) -> None:
    """Let this process die when a checkpoint is staged, has just been published, or when the model is half written."""
    publish, replace = checkpoints_of_runs.publish, os.replace

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def publish_and_die(run: Path, name: str, keep: int) -> None:
        if (moment, name) == ("staged", "checkpoint-12"):
            die()
        publish(run, name, keep)
        if (moment, name) == ("published", "checkpoint-12"):
            die()

    def replace_and_die(source: Any, target: Any) -> None:
        replace(source, target)
        if moment == "model_written" and os.path.basename(target) == "pytorch_model.bin":
            die()

    checkpoints_of_runs.publish = publish_and_die
    os.replace = replace_and_die


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["staged", "published", "model_written"])
def test_a_killed_run_resumes_to_the_same_weights(
    moment: str, finished: Path, small_datasets: Path, tmp_path: Path
) -> None:
    flags = tiny_flags(small_datasets, tmp_path)
    killed = run_forked(SCRIPT, *flags, cwd=ROOT, before=lambda: die_at(moment))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    last = {"staged": 6, "published": 12, "model_written": 24}[moment]
    assert checkpoints(tmp_path / "model")[-1].name == f"checkpoint-{last}"
    if moment == "published":  # the last checkpoint is damaged too: the one before serves
        (tmp_path / "model" / "checkpoint-12" / "optimizer.pt").write_bytes(b"torn")

    resumed = run_here(SCRIPT, *flags, cwd=ROOT)
    assert resumed.returncode == 0, resumed.stderr
    assert ("nothing to do" if moment == "model_written" else "Going on from") in resumed.stdout
    assert ("is damaged" in resumed.stderr) == (moment == "published")
    one, other = (torch.load(f / "model" / "pytorch_model.bin", weights_only=True) for f in (finished, tmp_path))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert (finished / "model" / "model.safetensors").read_bytes() == (
        tmp_path / "model" / "model.safetensors"
    ).read_bytes()
    first, second = eval_results(finished / "data"), eval_results(tmp_path / "data")
    assert first["eval_loss"] == second["eval_loss"]


@pytest.mark.slow
def test_worker_processes_change_nothing(finished: Path, small_datasets: Path, tmp_path: Path) -> None:
    result = run_here(SCRIPT, *tiny_flags(small_datasets, tmp_path), "--num-workers", 2, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (finished, tmp_path)]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_more_epochs_go_on_and_other_settings_are_archived(
    small_datasets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(settings_for(small_datasets, tmp_path, epochs=1, train_batch_size=16))
    first = checkpoints(tmp_path / "model")[-1].name
    run(settings_for(small_datasets, tmp_path, epochs=2, train_batch_size=16))
    assert f"Going on from {tmp_path / 'model' / first}" in capsys.readouterr().out
    other = run_here(SCRIPT, *tiny_flags(small_datasets, tmp_path), cwd=ROOT)
    assert other.returncode == 0 and other.stdout.count("archived as") == 2, other.stderr
    old = next(tmp_path.glob("model.2*"))
    assert (old / "pytorch_model.bin").exists() and next(tmp_path.glob("data.2*/eval_results.txt"))
    assert eval_results(tmp_path / "data")["train_steps"] == 24


def test_what_is_not_given_follows_from_the_data(small_datasets: Path, tmp_path: Path) -> None:
    datasets = load_datasets(settings_for(small_datasets, tmp_path))
    assert datasets[0].info.max_length == 30 and datasets[0].info.masking.mode == "dynamic"
    assert datasets[0].info.masking.seed == PretrainSettings().seed


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        (
            {"max_seq_length": 50},
            1,
            r"max_length mismatch error: --max-seq-length 50 .* 30; .*--max-length 50",
        ),
        ({"dynamic_masking": False}, 1, r"dynamic_masking mismatch error: --no-dynamic-masking .* convert again"),
        ({"num_attention_heads": 3}, 2, r"--num-attention-heads: 3 does not divide --hidden-size 16"),
        ({"training_data": Path("no.pt")}, 1, r"no\.pt: file not found; .*convert_synthetic_to_dataset\.py"),
        ({"use_clinvec": True}, 2, r"--use-clinvec needs --clinvec-dir"),
        ({"use_clinvec": True, "clinvec_dir": Path("nowhere")}, 1, "nowhere"),
        ({"model_dir": Path("nowhere")}, 1, "nowhere: --model-dir: holds no config.json"),
        ({"model_dir": Path("x"), "use_clinvec": True}, 2, "--use-clinvec: --model-dir .* one of the two"),
        ({"output_dir": Path("/proc/model")}, 1, "/proc/model"),
    ],
)
def test_what_cannot_be_is_refused(
    changes: dict[str, Any], code: int, message: str, small_datasets: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message) as error:
        run(settings_for(small_datasets, tmp_path, **changes))
    assert error.value.exit_code == code and "\n" not in str(error.value)
    assert not (tmp_path / "model").exists()


@pytest.mark.slow
def test_a_refusal_is_one_line_on_the_command_line(small_datasets: Path, tmp_path: Path) -> None:
    result = run_here(SCRIPT, *tiny_flags(small_datasets, tmp_path), "--max-seq-length", 50, cwd=ROOT)
    assert_one_line_error(result, 1, "max_length mismatch error", "--max-seq-length 50", "--max-length 50")
    assert not (tmp_path / "model").exists()


def test_what_config_yaml_says_gives_way_to_the_dataset(
    small_datasets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.yaml").write_text("max_length: 99\n")
    given = settings_for(small_datasets, tmp_path).settings.model_dump(include={"training_data", "validation_data"})
    train, _ = load_datasets(resolve(PretrainSettings, given, tmp_path / "c.yaml"))
    assert train.info.max_length == 30
    assert "max_length: 99" in capsys.readouterr().err


def test_a_clinvec_folder_that_is_not_used_is_named(
    small_datasets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match="max_length mismatch"):
        run(settings_for(small_datasets, tmp_path, clinvec_dir=Path("nowhere"), max_seq_length=50))
    assert "--clinvec-dir is not used without --use-clinvec" in capsys.readouterr().err


@pytest.mark.slow
def test_a_model_is_trained_on_with_its_own_vocabulary(
    finished: Path, small_datasets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = json.loads((finished / "model" / "vocab.json").read_text())
    new = ["Z99.9", "A00.0"]
    assert not set(new) & set(known)
    records = json.loads((small_datasets / "patients.json").read_text())[:120]
    for i, patient in enumerate(records):
        patient["patient_id"] = f"new-{i}"
        patient["diagnoses"].append(new[i % 2])
        patient["diagnosis_dates"].append(patient["diagnosis_dates"][-1])
    path = write_records(tmp_path / "new.json", records)
    codes = [code for patient in records for code in patient["diagnoses"] + patient["drugs"]]
    outside = sum(code not in known for code in codes)
    given = {"input": path, "output": tmp_path / "small.pt", "max_length": 30, "min_cell": 0}
    given["vocab_from"] = finished / "model"

    convert_and_report(Resolved(ConvertSettings(**given), {}))
    printed = capsys.readouterr().out
    assert f"events of codes not in the vocabulary of {finished / 'model'}, read as UNK  {outside}" in printed
    assert outside >= 120 and "ICD-10-CM 'A00.0' (60)" in printed and "left out: repeated within a visit" in printed
    train = PatientDataset.load(tmp_path / "small_train.pt")
    assert train.info.vocabulary.to_dict() == known
    assert train.stats()["unknown codes"] > 0 and train.code_counts[len(SPECIAL_TOKENS) :].sum() > 0
    run(settings_for(tmp_path, tmp_path / "same", model_dir=finished / "model", max_steps=2, train_batch_size=16))
    assert json.loads((tmp_path / "same" / "model" / "vocab.json").read_text()) == known
    log = (tmp_path / "same" / "model" / "output.log").read_text()
    assert f"which knows {len(known)} of {len(known)} codes" in log

    from_dataset = {"vocab_from": small_datasets / "small_val.pt", "extend_vocab": True}
    made = convert(ConvertSettings(**given | from_dataset))
    extended = made.datasets["train"].info.vocabulary
    assert extended.tokens[: len(known)] == tuple(known)
    assert extended.keys[len(known) :] == in_order(extended.keys[len(known) :]) and set(new) <= set(extended.tokens)
    assert made.datasets["train"].stats()["unknown codes"] == 0 and not made.summary.not_in_vocabulary
    run(settings_for(tmp_path, tmp_path / "more", model_dir=finished / "model", max_steps=2, train_batch_size=16))
    log = (tmp_path / "more" / "model" / "output.log").read_text()
    assert f"which knows {len(known)} of {len(extended)} codes" in log


@pytest.mark.parametrize("name", ["train", "val"])
def test_nothing_to_mask_is_refused(name: str, small_datasets: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        dataset = PatientDataset.load(small_datasets / f"small_{split}.pt")
        codes = dataset.columns["codes"].clone()
        if split == name:  # one known code stays to each patient
            codes[:] = UNK
            codes[dataset.columns["offsets"][:-1]] = len(SPECIAL_TOKENS)
        PatientDataset(dataset.info, dataset.columns | {"codes": codes}).save(tmp_path / f"small_{split}.pt")
    message = rf"small_{name}\.pt: nothing to mask: none of its \d+ patients has two known codes"
    with pytest.raises(InputError, match=message):
        run(settings_for(tmp_path, tmp_path))
    assert not (tmp_path / "model").exists()

    dataset = PatientDataset.load(small_datasets / "small_val.pt")
    for split in ("train", "val"):
        info = replace(dataset.info, vocabulary=CodeVocabulary.build([]), split=split)
        unknown = {"codes": torch.full_like(dataset.columns["codes"], UNK)}
        unknown["entities"] = torch.zeros_like(dataset.columns["entities"])
        PatientDataset(info, dataset.columns | unknown).save(tmp_path / f"small_{split}.pt")
    with pytest.raises(InputError, match="nothing to mask: its vocabulary holds no code"):
        run(settings_for(tmp_path, tmp_path))


def test_one_patient_with_two_known_codes_is_enough(small_datasets: Path) -> None:
    dataset = PatientDataset.load(small_datasets / "small_val.pt")
    codes = torch.full_like(dataset.columns["codes"], UNK)
    codes[-2:] = len(SPECIAL_TOKENS)
    check_maskable(Path("d.pt"), PatientDataset(dataset.info, dataset.columns | {"codes": codes}))


def test_datasets_of_two_conversions_are_refused(small_datasets: Path, tmp_path: Path) -> None:
    path = write_records(tmp_path / "p.json", [record(i) for i in range(40)])
    convert(ConvertSettings(input=path, output=tmp_path / "other.pt", max_length=30))
    resolved = settings_for(small_datasets, tmp_path, validation_data=tmp_path / "other_val.pt")
    with pytest.raises(InputError, match="other vocabularies"):
        load_datasets(resolved)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="limits on file size are POSIX")
def test_a_full_disk_is_one_line_and_the_run_goes_on_afterwards(small_datasets: Path, tmp_path: Path) -> None:
    def limit() -> None:
        """Limit the size of files, which stands in for a full disk: the optimizer's state is the first to exceed it."""
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000,) * 2)

    flags = [*tiny_flags(small_datasets, tmp_path), "--hidden-size", 256]
    full = run_forked(SCRIPT, *flags, cwd=ROOT, before=limit)
    assert_one_line_error(full, 1, "disk may be full")
    assert not checkpoints(tmp_path / "model")
    assert run_here(SCRIPT, *flags, cwd=ROOT).returncode == 0
