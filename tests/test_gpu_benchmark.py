"""The benchmark for a GPU: all of it runs on a CPU with tiny sizes, and a part that fails stops no other."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

PARTS = ["tests", "production", "launches", "theirs", "attention", "compile", "large-vocabulary"]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="a shell script")
def test_all_parts_run_with_tiny_sizes(tmp_path: Path) -> None:
    results = tmp_path / "gpu.json"
    command = ["bash", "benchmarks/gpu.sh", "--device", "cpu", "--tiny", "--results", str(results)]
    environment = os.environ | {"PYTHON": sys.executable}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    content = json.loads(results.read_text())
    assert content["device"] and list(content["parts"]) == PARTS
    for name, part in content["parts"].items():
        assert "error" not in part and not part["not_measured"], (name, part)
        assert part["figures"] and all(figure["median"] >= 0 for figure in part["figures"]), name
    agreement = [f["median"] for f in content["parts"]["attention"]["figures"] if "difference" in f["name"]]
    assert len(agreement) == 3 and max(agreement) < 0.02, "packed rows give the hidden states of padded patients"


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
