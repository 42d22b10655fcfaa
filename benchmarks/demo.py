"""Measure the demonstration: 1,000 patients generated, converted, and a model pretrained on them.

    python benchmarks/demo.py

Each repetition runs `bash scripts/train_on_synthetic_data.sh 1000 0.01 50 42` in a fresh copy of the project, in the
environment of this process, so that nothing is installed. Training is disturbed by other processes more than the other
benchmarks are; the load average stands before each run.
The patients are those of the guide, bounded ones.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import ROOT, Measurement, load_average, options, report

COMMAND = ("bash", "scripts/train_on_synthetic_data.sh", "1000", "0.01", "50", "42")
COPIED = ("scripts", "exmed_bert", "config.yaml", "requirements.txt")
PARTS = {  # the first words of the line that the wrapper prints when a part begins
    "Step 1": "checking the environment",
    "Step 2": "step 1, generating",
    "Step 3": "step 2, converting",
    "Done.": "step 3, pretraining",
}


def copy_project(folder: Path) -> None:
    """Copy what the wrapper needs."""
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)


def run_demo(folder: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Return the seconds of each part and of the whole, and the metrics that the run left."""
    variables = os.environ | {"VIRTUAL_ENV": sys.prefix}
    seconds: dict[str, float] = {}
    said = []
    start = before = time.perf_counter()
    process = subprocess.Popen(
        COMMAND, cwd=folder, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    for line in process.stdout:
        now = time.perf_counter()
        said.append(line)
        for words, part in PARTS.items():
            if line.startswith(words):
                seconds[part], before = now - before, now
    if process.wait() != 0 or set(seconds) != set(PARTS.values()):
        sys.exit(f"{''.join(said)}Error: the demonstration failed with exit code {process.returncode}")
    seconds["in all"] = time.perf_counter() - start
    lines = (folder / "output/synthetic_pretrain_data/eval_results.txt").read_text(encoding="utf-8").splitlines()
    metrics = {name: float(value) for name, value in (line.split(" = ") for line in lines)}
    return seconds, metrics


def main() -> None:
    """Run the demonstration several times."""
    given = options(__doc__, repeats=3)
    loads, all_seconds, all_metrics = [], [], []
    for repeat in range(given.repeats):
        loads.append(load_average())
        print(f"run {repeat + 1} of {given.repeats}, load average before it: {loads[-1]}", flush=True)
        with tempfile.TemporaryDirectory() as name:
            copy_project(Path(name))
            seconds, metrics = run_demo(Path(name))
        all_seconds.append(seconds)
        all_metrics.append(metrics)

    def metric(name: str) -> list[float]:
        return [metrics[name] for metrics in all_metrics]

    figures = [Measurement("in all", [seconds["in all"] for seconds in all_seconds], "s", at_most=40)]
    figures += [Measurement(part, [seconds[part] for seconds in all_seconds], "s") for part in PARTS.values()]
    baseline, top1 = metric("eval_baseline_entity_top1"), metric("eval_accuracy_top1")
    figures += [
        Measurement("training", metric("train_steps_per_second"), "steps/s", at_least=180),
        Measurement("masked-code accuracy, top 1", top1, "share of masked codes", at_least=0.35),
        Measurement("baseline: always the most frequent of the kind", baseline, "share of masked codes"),
        Measurement(
            "gain over the baseline", [a - b for a, b in zip(top1, baseline, strict=True)], "share", at_least=0
        ),
        Measurement("masked codes in the validation data", metric("eval_masked_codes"), "codes"),
    ]
    report("demo", given, loads, figures)


if __name__ == "__main__":
    main()
