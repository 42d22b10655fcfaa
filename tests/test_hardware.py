"""What is chosen for a machine, on machines that are only pretended."""

import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_pretraining import eval_results, settings_for

from exmed_bert import ExMedBertConfig
from exmed_bert.console import OptionError
from exmed_bert.data.dataset import PatientDataset
from exmed_bert.training import hardware
from exmed_bert.training.hardware import StepShape, choose_attention, choose_precision, hardware_settings
from exmed_bert.training.pretrain import run

SMALL, LARGE = StepShape(60, 64, 128), StepShape(560, 288, 512)


def pretend_gpu(patch: pytest.MonkeyPatch, bf16: bool = True, flash: bool = False) -> None:
    patch.setattr(torch.cuda, "is_available", lambda: True)
    patch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16)
    patch.setattr(hardware, "is_flash_attn_2_available", lambda: flash)


def pretend_seconds(patch: pytest.MonkeyPatch, *seconds: float) -> None:
    """Have the measurements give these numbers, one after another."""
    left = list(seconds)
    patch.setattr(hardware, "_best_seconds", lambda work, repeats=0: (work(), left.pop(0))[1])


@pytest.mark.parametrize(("fp32", "bf16", "chosen"), [(2.0, 1.0, "bf16"), (1.1, 1.0, "fp32"), (1.0, 8.0, "fp32")])
def test_a_cpu_takes_bf16_where_it_measures_faster(
    fp32: float, bf16: float, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_seconds(monkeypatch, fp32, bf16)
    assert choose_precision("auto", LARGE).name == chosen


def test_what_is_asked_for_is_taken_and_small_models_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_seconds(monkeypatch)
    assert choose_precision("auto", SMALL).name == "fp32"
    assert [choose_precision(name, LARGE).name for name in ("fp32", "bf16")] == ["fp32", "bf16"]


def test_a_gpu_takes_bf16_where_it_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpu(monkeypatch)
    assert choose_precision("auto", LARGE).name == "bf16"
    pretend_gpu(monkeypatch, bf16=False)
    assert choose_precision("auto", LARGE).name == "fp32"
    with pytest.raises(OptionError, match="--precision: this GPU does not compute bf16"):
        choose_precision("bf16", LARGE)


def test_the_attention_kernel_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, visits = ExMedBertConfig(), ExMedBertConfig(visit_distance_bias=True)
    assert choose_attention(visits, "fp32").name == "eager"
    pretend_gpu(monkeypatch, flash=True)
    assert choose_attention(plain, "bf16").name == "flash_attention_2"
    for config, precision, why in ((visits, "bf16", "distances between visits"), (plain, "fp32", "no fp32")):
        assert choose_attention(config, precision).name == "sdpa" and why in choose_attention(config, precision).reason
    pretend_gpu(monkeypatch, flash=False)
    assert choose_attention(plain, "bf16") == hardware.Choice("sdpa", "flash-attn is not installed")


@pytest.mark.parametrize(
    ("default", "onednn", "error", "taken"), [(2.0, 1.0, 1e-5, True), (1.1, 1.0, 1e-5, False), (2.0, 1.0, 0.0, False)]
)
def test_products_go_to_onednn_where_that_is_exact_and_faster(
    default: float, onednn: float, error: float, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_seconds(monkeypatch, default, onednn)
    monkeypatch.setattr(hardware, "_FP32_ERROR", error)  # 0 stands for a CPU that rounds
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.backends.mkldnn.matmul.fp32_precision, torch.get_num_threads()
    with hardware_settings(LARGE, "fp32") as notes:
        assert (torch.backends.mkldnn.matmul.fp32_precision == "bf16") == taken
        assert any(("by oneDNN" in note) == taken for note in notes)
    assert (torch.backends.mkldnn.matmul.fp32_precision, torch.get_num_threads()) == before


def test_small_models_run_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with hardware_settings(SMALL, "fp32") as notes:
            assert torch.get_num_threads() == 1 and notes == ["threads: 1"]
        assert torch.get_num_threads() == 2
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        with hardware_settings(SMALL, "fp32"):
            assert torch.get_num_threads() == 2, "what the user says holds"
    finally:
        torch.set_num_threads(before)


PAGES = """
import resource, torch
from exmed_bert.training.hardware import StepShape, hardware_settings

def step():
    tensors = [torch.ones(8 << 20) for _ in range(4)]  # 32 MiB each

with hardware_settings(StepShape(60, 64, 128), "fp32"):
    for _ in range(3):  # until there is room for everything
        step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        step()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="concerns glibc's allocator")
def test_steps_take_no_memory_from_the_system_anew() -> None:
    done = subprocess.run([sys.executable, "-c", PAGES], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1000, "page faults; a step that took its memory anew would have 32,768"


def test_compiling_needs_a_compiler(small_datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(OptionError, match="--compile: found no C\\+\\+ compiler"):
        run(settings_for(small_datasets, tmp_path, compile=True))
    assert not (tmp_path / "model").exists()


@pytest.mark.slow
def test_a_profile_and_a_sample_in_evaluations(
    small_datasets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both are about how a run is watched; neither changes what comes out of it."""
    common = {"train_batch_size": 16, "max_steps": 8, "eval_steps": 4}
    run(settings_for(small_datasets, tmp_path / "watched", **common, profile=2, eval_max_patients=10))
    said = capsys.readouterr().out
    assert "(10 of them during training)" in said and "Profile of 2 steps in" in said
    (trace,) = (tmp_path / "watched" / "data" / "profile").glob("*.pt.trace.json")
    names = {event.get("name") for event in json.loads(trace.read_text())["traceEvents"]}
    assert "aten::addmm" in names
    assert "aten::addmm" in (tmp_path / "watched" / "model" / "output.log").read_text()

    run(settings_for(small_datasets, tmp_path / "plain", **common))
    first, second = (eval_results(tmp_path / name / "data") for name in ("watched", "plain"))
    assert first["eval_loss"] == second["eval_loss"]
    val = PatientDataset.load(small_datasets / "small_val.pt")
    assert first["eval_masked_codes"] == second["eval_masked_codes"] > len(val)
    assert 0 <= first["train_data_wait_fraction"] < 1


def test_the_sample_of_an_evaluation_depends_on_the_patients_alone(small_datasets: Path) -> None:
    from exmed_bert.training.trainer import evaluation_sample

    val = PatientDataset.load(small_datasets / "small_val.pt")
    order = np.random.default_rng(0).permutation(len(val))
    sample, shuffled = (evaluation_sample(of, 9, seed=3) for of in (val, val.subset(order)))
    assert sorted(order[shuffled]) == sorted(sample) and len(sample) == 9
    assert len(evaluation_sample(val, 10**6, seed=3)) == len(val)
