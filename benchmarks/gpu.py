"""Measure pretraining on one GPU, part by part, each in a process of its own with a time limit.

    bash benchmarks/gpu.sh                          # under 8 minutes on one H100
    bash benchmarks/gpu.sh --device cpu --tiny      # all of it with tiny sizes, to see that it runs

Parts: ``tests``, the test files of models and training on the device; ``production``, the original's sizes in bf16 at
batches of 256 and 1,024; ``launches``, how many kernels a step is made of, and how long they take; ``theirs``,
alternating with transformers' BertForMaskedLM in one process; ``attention``, whole training steps with other
attention kernels; ``compile``, the same compiled, and with CUDA graphs; ``large-vocabulary``, 30,000 codes.

A part that fails or takes too long is reported and stops no other. Patients are drawn here, since the generator needs
packages that a GPU machine may lack: lengths are log-normal with about 34 tokens on average, codes follow Zipf's law.
"""

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

from common import RESULTS, ROOT, Measurement, in_one_line, machine, print_figures

NEEDED = ("torch", "transformers", "accelerate", "safetensors", "numpy", "tqdm")
NEEDED_BY_TESTS = ("pytest", "hypothesis", "pydantic", "orjson", "mlflow", "duckdb", "typer", "yaml", "tensorboard")
TESTS = ("model", "optimizer", "masking", "training_parts", "model_folder", "pretraining", "code_tree", "days")
TINY_TESTS = ("optimizer",)
SECONDS = {  # the limit of each part, its imports included
    "tests": 90,
    "production": 70,
    "launches": 40,
    "theirs": 60,
    "attention": 120,
    "compile": 110,
    "large-vocabulary": 60,
}
_ALL = 470  # seconds in which all parts have to be done


def missing(packages: tuple[str, ...]) -> list[str]:
    """Return those of the packages that cannot be imported."""
    return [name for name in packages if importlib.util.find_spec(name) is None]


def run_tests(device: str, tiny: bool, limit: float) -> Iterator[Measurement | str]:
    """Run the test files of models and training on the device, and return how many passed and failed."""
    if lacking := missing(NEEDED_BY_TESTS):
        raise RuntimeError(
            f"the tests need {', '.join(lacking)}, which {'is' if len(lacking) == 1 else 'are'} not here"
        )
    files = [str(ROOT / "tests" / f"test_{name}.py") for name in (TINY_TESTS if tiny else TESTS)]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider", "--tb=line", *files]
    environment = os.environ | {"EXMED_BERT_TEST_DEVICE": device}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=limit, check=False
    )
    found = {what: int(number) for number, what in re.findall(r"(\d+) (passed|failed|error|skipped)", done.stdout)}
    if not found and done.stdout:  # the project's own -q leaves the counts out where nothing failed
        found = {"passed": sum(line.count(".") for line in done.stdout.splitlines() if line.endswith("%]"))}
    yield from (line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR")))
    yield from (Measurement(f"tests {what}", [number], "") for what, number in found.items())


def measure(part: str, given: argparse.Namespace) -> Iterable[Measurement | str]:
    """Run one part in this process; give its figures, and a line for each that could not be measured."""
    import torch

    if given.device == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("torch sees no GPU; --device cpu --tiny shows that everything runs")
    if part == "tests":
        return run_tests(given.device, given.tiny, SECONDS[part])
    import gpu_attention
    import gpu_training

    parts = gpu_training.PARTS | gpu_attention.PARTS
    return parts[part](given.device, given.tiny)


def run_part(part: str, given: argparse.Namespace, limit: float) -> dict[str, Any]:
    """Run one part in a process of its own; return its seconds and its figures, or why there are none."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.json"
        options = ["--device", given.device, *(["--tiny"] if given.tiny else []), "--only", part, "--found", str(found)]
        try:
            done = subprocess.run([sys.executable, __file__, *options], timeout=limit, check=False)
            error = f"ended with exit code {done.returncode}" if done.returncode else ""
        except subprocess.TimeoutExpired:
            error = f"took more than {limit:.0f} s"
        content = json.loads(found.read_text(encoding="utf-8")) if found.exists() else {"figures": []}
    if error and "error" not in content:
        content["error"] = error
    return {"seconds": round(time.perf_counter() - start, 1)} | content


def write_whole(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file that is there as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.part")
    staged.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(staged, path)


def one_part(given: argparse.Namespace) -> None:
    """Run the part that the parent process asks for, and leave what it found, whole after each figure."""
    figures: list[Measurement] = []
    content: dict[str, Any] = {"figures": [], "not_measured": []}
    try:
        for found in measure(given.only, given):
            if isinstance(found, str):
                print(f"  not measured: {found}", flush=True)
                content["not_measured"].append(found)
            else:
                figures.append(found)
                content["figures"].append(asdict(found) | {"median": found.median, "met": found.met})
            write_whole(given.found, content)
    except Exception as error:
        content["error"] = in_one_line(error)
        if not isinstance(error, RuntimeError):
            traceback.print_exc()
    write_whole(given.found, content)
    if figures:
        print_figures(figures)


def device_name(device: str) -> str:
    """Return the card's name, or the processor's."""
    import torch

    return torch.cuda.get_device_name() if device == "cuda" and torch.cuda.is_available() else machine()["cpu"]


def main() -> None:
    """Run the parts one after another and write the results after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="where [default: cuda]")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes: shows that everything runs, measures nothing")
    parser.add_argument("--parts", default=",".join(SECONDS), help=f"[default: {','.join(SECONDS)}]")
    parser.add_argument("--results", type=Path, default=RESULTS / "gpu.json", help="[default: benchmarks/results]")
    parser.add_argument("--only", choices=tuple(SECONDS), help=argparse.SUPPRESS)
    parser.add_argument("--found", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if lacking := missing(NEEDED):
        sys.exit(f"Error: the benchmark needs {', '.join(lacking)}; install it, or run another Python: PYTHON=...")
    if unknown := set(given.parts.split(",")) - set(SECONDS):
        parser.error(f"--parts: unknown {', '.join(sorted(unknown))}, expected {', '.join(SECONDS)}")
    if given.only:
        one_part(given)
        return
    start = time.perf_counter()
    content: dict[str, Any] = {
        "benchmark": "gpu",
        "command": "bash benchmarks/gpu.sh",
        "options": {"device": given.device, "tiny": given.tiny},
        "date": date.today().isoformat(),
        "device": device_name(given.device),
        "machine": machine(),
        "parts": {},
    }
    print(f"on {content['device']}, torch {content['machine']['torch']}", flush=True)
    for part in given.parts.split(","):
        left = _ALL - (time.perf_counter() - start)
        print(f"\n{part}", flush=True)
        slower = 1 if given.device == "cuda" else 10
        found = run_part(part, given, min(SECONDS[part], left) * slower) if left > 10 else {"error": "no time was left"}
        if "error" in found:
            print(f"  not measured: {found['error']}", flush=True)
        content["parts"][part] = found
        write_whole(given.results, content)
    print(f"\nWritten: {given.results}, after {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
