"""The benchmark for a GPU: all of it runs on a CPU with tiny sizes, and a part that fails stops no other."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT


@pytest.mark.slow
def test_all_parts_run_with_tiny_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process; the benchmark gives each part one of its own, which takes seconds to import the packages."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    gpu, training, attention = map(importlib.import_module, ("gpu", "gpu_training", "gpu_attention"))
    monkeypatch.setattr(attention, "KERNELS", attention.KERNELS[-3:])
    parts = training.PARTS | attention.PARTS
    assert {"tests", *parts} == set(gpu.SECONDS)
    for name, part in parts.items():
        found = list(part("cpu", True))
        assert found and not [figure for figure in found if isinstance(figure, str)], name
        assert all(figure.median >= 0 for figure in found), name
        if name == "attention":
            apart = [figure.median for figure in found if "difference" in figure.name]
            assert len(apart) == 3 and max(apart) < 0.02, "packed rows give the hidden states of padded patients"


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="a shell script")
def test_the_script_writes_what_a_part_found(tmp_path: Path) -> None:
    results = tmp_path / "gpu.json"
    command = [
        "bash",
        "benchmarks/gpu.sh",
        "--device",
        "cpu",
        "--tiny",
        "--parts",
        "launches",
        "--results",
        str(results),
    ]
    environment = os.environ | {"PYTHON": sys.executable}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    content = json.loads(results.read_text())
    part = content["parts"]["launches"]
    assert content["device"] and "error" not in part and len(part["figures"]) == 3


@pytest.mark.slow
def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    results = tmp_path / "gpu.json"
    command = [sys.executable, "benchmarks/gpu.py", "--parts", "attention,compile", "--results", str(results)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0 and done.stdout.count("torch sees no GPU") == 2, done.stdout + done.stderr
    assert list(json.loads(results.read_text())["parts"]) == ["attention", "compile"]
