"""Two processes train one model: under torchrun and accelerate launch, on the CPU with gloo."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from conftest import ROOT, WITHOUT_MLFLOW, run_here, write_records
from safetensors.torch import load_file

from exmed_bert.data.batches import LengthGroupedBatchSampler, MaskedCodeCollator
from exmed_bert.data.dataset import PatientDataset
from exmed_bert.data.masking import IGNORED
from exmed_bert.training.checkpoints import checkpoints

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="gloo under the launchers is tested on POSIX"),
]

TORCHRUN = ["torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
ACCELERATE = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--mixed_precision", "no"]
BATCH = 8

# Read by Python at its start: notes every file that a process of the run opens to write below the output folders.
_WITNESS = """
import os, sys
if "RANK" in os.environ:
    notes = os.open(os.environ["NOTES"] + os.environ["RANK"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    def witness(event, args):
        if event == "open" and str(args[0]).startswith(os.environ["OUTPUT"]) and args[2] & (os.O_WRONLY | os.O_RDWR):
            os.write(notes, (str(args[0]) + "\\n").encode())
    sys.addaudithook(witness)
"""

# Runs the script of step 3, notes the patients of each batch, and kills a rank at one of them.
_NOTING = """
import json, os, runpy, signal, sys
scripts, script = sys.argv[1], sys.argv.pop(2)
sys.path[:0] = [scripts, os.path.dirname(scripts)]
del sys.argv[1]
from exmed_bert.data.batches import BatchedRows

notes = os.open(os.environ["NOTES"] + "_rows" + os.environ["RANK"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
fetch, calls = BatchedRows.__getitems__, []

def noting(self, rows):
    calls.append(rows)
    if os.environ.get("DIES") == f"{os.environ['RANK']} {len(calls)}":
        os.kill(os.getpid(), signal.SIGKILL)
    os.write(notes, (json.dumps(list(map(int, rows))) + "\\n").encode())
    return fetch(self, rows)

BatchedRows.__getitems__ = noting
runpy.run_path(script, run_name="__main__")
"""

# Runs the script of step 3 with FSDP2 over gloo: accelerate takes FSDP for accelerators alone, torch for CPUs, too.
_ON_CPU_WITH_FSDP = """
import os, runpy, sys
scripts, script = sys.argv[1], sys.argv.pop(2)
sys.path[:0] = [scripts, os.path.dirname(scripts)]
del sys.argv[1]
from accelerate import state
from accelerate.utils import DistributedType

plain = state.AcceleratorState.__init__

def with_fsdp(self, *args, **options):
    plain(self, *args, **options)
    if options.get("fsdp_plugin") is not None:
        self.fsdp_plugin = options["fsdp_plugin"]
    if self.__dict__.get("fsdp_plugin") is not None:
        self.distributed_type = DistributedType.FSDP

state.AcceleratorState.__init__ = with_fsdp
runpy.run_path(script, run_name="__main__")
"""
FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "EncoderLayer",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
}


def launch(
    launcher: list[str],
    datasets: Path,
    output: Path,
    epochs: int,
    *more: Any,
    runner: str = "",
    mlflow: bool = False,
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    (output / "python").mkdir(exist_ok=True, parents=True)
    site = "" if mlflow else Path(WITHOUT_MLFLOW, "sitecustomize.py").read_text()
    (output / "python" / "sitecustomize.py").write_text(site + _WITNESS)
    script = [ROOT / "scripts/pretrain-exmed-bert-clinvec.py"]
    if runner:
        (output / "python" / "runner.py").write_text(runner)
        script = [output / "python" / "runner.py", ROOT / "scripts", *script]
    flags: list[Any] = [
        *("--training-data", datasets / "small_train.pt", "--validation-data", datasets / "small_val.pt"),
        *("--output-dir", output / "model", "--output-data-dir", output / "data"),
        *("--hidden-size", 16, "--num-hidden-layers", 1, "--train-batch-size", BATCH, "--epochs", epochs),
        *("--eval-steps", 10, "--save-steps", 10, "--warmup-steps", 2),
        *more,
    ]
    environment |= {
        "PYTHONPATH": str(output / "python"),
        "NOTES": str(output / "notes"),
        "OUTPUT": str(output),
        "HF_HOME": str(output / "home"),
    }
    return subprocess.run(
        [sys.executable, "-m", *launcher, *map(str, script), *map(str, flags)],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def eval_results(output: Path) -> dict[str, float]:
    lines = (output / "data" / "eval_results.txt").read_text().splitlines()
    return {name: float(value) for name, value in (line.split(" = ") for line in lines)}


@pytest.fixture(scope="module")
def under_torchrun(small_datasets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("torchrun")
    result = launch(TORCHRUN, small_datasets, output, epochs=2, mlflow=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("Written") == 1, "the first process alone reports"
    return output


def test_all_patients_are_seen_and_all_validation_patients_count(small_datasets: Path, under_torchrun: Path) -> None:
    train, val = (PatientDataset.load(small_datasets / f"small_{split}.pt") for split in ("train", "val"))
    results = eval_results(under_torchrun)
    batches = -(-len(train) // BATCH)
    assert results["train_steps"] == 2 * -(-batches // 2), "each step takes a batch of each process"
    assert results["train_epochs"] == 2
    labels = MaskedCodeCollator(val.info, False, validation=True)(val.batch(range(len(val))))["code_labels"]
    assert results["eval_masked_codes"] == int((labels != IGNORED).sum())
    assert results["eval_membership_auc_low"] < results["eval_membership_auc"] < results["eval_membership_auc_high"]


def test_the_first_process_alone_writes(under_torchrun: Path) -> None:
    written = [set((under_torchrun / f"notes{rank}").read_text().split()) for rank in (0, 1)]
    assert any("eval_results.txt" in path for path in written[0]), "the witness sees what is written"
    others = {Path(path).name for path in written[1]}
    assert others <= {"rng_state_1.pth"}, "its own random state, for a resume"


def test_accelerate_launch_trains_the_same_model(
    small_datasets: Path, under_torchrun: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    output = tmp_path_factory.mktemp("accelerate")
    result = launch(ACCELERATE, small_datasets, output, epochs=2)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("Written") == 1
    one, other = (load_file(folder / "model" / "model.safetensors") for folder in (under_torchrun, output))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert eval_results(output)["eval_loss"] == eval_results(under_torchrun)["eval_loss"]


def test_two_processes_go_on_from_their_checkpoint(small_datasets: Path, under_torchrun: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(under_torchrun, tmp_path / "moved")
    last = checkpoints(moved / "model")[-1].name
    result = launch(TORCHRUN, small_datasets, moved, epochs=3)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count(f"Going on from {moved / 'model' / last}") == 1
    assert eval_results(moved)["train_epochs"] == 3


def test_a_model_that_is_spread_over_the_processes(under_torchrun: Path, small_datasets: Path, tmp_path: Path) -> None:
    """FSDP: the same training but for rounding, whole files, and a resume."""
    result = launch(TORCHRUN, small_datasets, tmp_path, 2, runner=_ON_CPU_WITH_FSDP, **FSDP)
    assert result.returncode == 0, result.stderr
    one, other = (load_file(folder / "model" / "model.safetensors") for folder in (under_torchrun, tmp_path))
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, rtol=0.01, atol=1e-3, msg=lambda text, n=name: f"{n}: {text}")
    assert eval_results(tmp_path)["eval_loss"] == pytest.approx(eval_results(under_torchrun)["eval_loss"], rel=1e-3)

    resumed = launch(TORCHRUN, small_datasets, tmp_path, 3, runner=_ON_CPU_WITH_FSDP, **FSDP)
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout.count("Going on from") == 1 and eval_results(tmp_path)["train_epochs"] == 3


@pytest.fixture(scope="module")
def in_shards(small_datasets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the datasets of `small_datasets` in shards."""
    folder = tmp_path_factory.mktemp("shards")
    records = json.loads((small_datasets / "patients.json").read_text())
    for number in range(4):
        write_records(folder / "patients" / f"{number}.json", records[number * 50 : number * 50 + 50])
    arguments = ("--input", "patients", "--output", "small.pt", "--max-length", 30, "--shard-size", 30)
    result = run_here("convert_synthetic_to_dataset.py", *arguments, cwd=folder)
    assert result.returncode == 0, result.stderr
    assert len(list((folder / "small_train.pt").glob("shard-*.pt"))) == 4
    return folder


def test_shards_are_shared_and_the_run_goes_on_after_a_process_was_killed(
    small_datasets: Path, in_shards: Path, under_torchrun: Path, tmp_path: Path
) -> None:
    """Killed in its second epoch, resumed with data workers: the weights of a run over one file that nothing befell.

    The random state of a process in the last checkpoint is damaged, so the run goes on from the one before.
    """
    killed = launch(TORCHRUN, in_shards, tmp_path, 2, "--save-steps", 5, runner=_NOTING, DIES="1 15")
    lines = [line for line in killed.stderr.splitlines() if line.startswith("Error: ")]
    assert killed.returncode != 0 and len(lines) == 1, killed.stderr
    assert "run the same command again: it goes on from the last checkpoint" in lines[0]

    sampler = LengthGroupedBatchSampler(PatientDataset.load(small_datasets / "small_train.pt").lengths, BATCH, seed=42)
    shares = [list(BatchSamplerShard(sampler, 2, rank)) for rank in (0, 1)]
    for rank, share in enumerate(shares):
        rows = [json.loads(line) for line in (tmp_path / f"notes_rows{rank}").read_text().splitlines()]
        assert rows[: len(share)] == share, "the first epoch, in the order of the one file"
    seen = [patient for share in shares for batch in share for patient in batch]
    assert set(seen) == set(range(len(sampler.lengths))) and len(seen) - len(sampler.lengths) < 2 * BATCH

    before, last = checkpoints(tmp_path / "model")[-2:]
    state = bytearray((last / "rng_state_1.pth").read_bytes())
    state[len(state) // 2] ^= 1
    (last / "rng_state_1.pth").write_bytes(state)
    resumed = launch(TORCHRUN, in_shards, tmp_path, 2, "--num-workers", 1)
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stderr.count(f"{last}: is damaged and passed over: rng_state_1.pth does not match its digest") == 1
    assert resumed.stdout.count("Going on from") == resumed.stdout.count(f"Going on from {before}") == 1
    one, other = (load_file(folder / "model" / "model.safetensors") for folder in (under_torchrun, tmp_path))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert eval_results(tmp_path)["eval_loss"] == eval_results(under_torchrun)["eval_loss"]


@pytest.mark.parametrize("patients", [96, 97, 104, 111])
def test_the_processes_share_an_epoch(patients: int) -> None:
    """Each patient comes once; where the last step lacks patients, some of the first ones come again to fill it."""
    lengths = np.random.default_rng(0).integers(5, 50, patients)
    sampler = LengthGroupedBatchSampler(lengths, BATCH, seed=1)
    shares = [list(BatchSamplerShard(sampler, 2, rank)) for rank in (0, 1)]
    seen = [patient for share in shares for batch in share for patient in batch]
    assert set(seen) == set(range(patients))
    assert len(shares[0]) == len(shares[1]) == -(-len(sampler) // 2)
    assert len(seen) - patients < 2 * BATCH
