"""What stands after a failure of pretraining or fine-tuning: the same command then ends in the same weights, bitwise.

There are hundreds of points, each of which costs two trainings, so a run of the tests takes some, evenly spread;
``EXMED_BERT_ALL_FAULTS=1`` takes all.
"""

import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from exmed_bert.config import resolve
from exmed_bert.contents import damage
from exmed_bert.data.convert import convert
from exmed_bert.finetuning import finetune
from exmed_bert.settings import ConvertSettings, FinetuneSettings, PretrainSettings
from exmed_bert.swap import settle
from exmed_bert.training import pretrain
from faults.shim import EIO, ENOSPC, Content, Outcome, Shim, content, differences, run_forked, visible
from faults.shim import SIGKILL as KILL

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="forks, and asks Linux for the names of open files"),
]

ALL = os.environ.get("EXMED_BERT_ALL_FAULTS") == "1"
SAMPLE = 4  # points of each command, where not all are taken
WORKING = r"(runs|logs|metrics|checkpoint-\d+)(/|$)|output\.log$"


def run(
    action: Callable[[], Any], root: Path, number: int = -1, fault: int = ENOSPC, largest: int | None = None
) -> Outcome:
    """Run a training in a process of its own, and fail at a point, or where a file gets too large."""
    return run_forked(action, Shim(root, number, fault), largest)


TINY = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}


@pytest.fixture(scope="module")
def home(small_datasets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with patients, their datasets and a pretrained model."""
    folder = tmp_path_factory.mktemp("training")
    shutil.copy(small_datasets / "patients.json", folder)
    convert(ConvertSettings(input=folder / "patients.json", output=folder / "small.pt", max_length=10))
    assert run(pretraining(folder, folder / "start", 1), folder).code == 0
    return folder


def pretraining(home: Path, output: Path, steps: int) -> Callable[[], Any]:
    given: dict[str, Any] = {
        "training_data": home / "small_train.pt",
        "validation_data": home / "small_val.pt",
        "output_dir": output,
        "output_data_dir": output / "metrics",
        "train_batch_size": 4,
        "max_steps": steps,
        "save_steps": 2,
        "eval_steps": 2,
        "eval_max_patients": 4,
        "warmup_steps": 1,
    }
    return lambda: pretrain.run(resolve(PretrainSettings, given | TINY))


def fine_tuning(home: Path, output: Path, sizes: str = "16") -> Callable[[], Any]:
    given: dict[str, Any] = {
        "model_dir": home / "start",
        "input": home / "patients.json",
        "output_dir": output,
        "task": "plos",
        "baselines": "none",
        "train_sizes": sizes,
        "epochs": 1,
        "train_batch_size": 4,
        "min_history": 1,
    }
    return lambda: finetune.run(resolve(FinetuneSettings, given))


class Training:
    """A command that trains, the weights that it ends in, and the points at which it can fail.

    What stands in the folder at first stands there each time.
    """

    def __init__(self, action: Callable[[], Any], home: Path, output: Path) -> None:
        self.action, self.home, self.output = action, home, output
        self.old = content(output)
        outcome = run(action, home)
        assert outcome.code == 0, outcome.errors
        self.weights, self.new = self._weights(), content(output)
        self.points = outcome.points

    def chosen(self) -> list[int]:
        """Return points: all, but of those of the log and of TensorBoard, which are alike, each seventh."""
        alike = [number for number, what in enumerate(self.points) if "output.log" in what or "tfevents" in what]
        chosen = sorted({*range(len(self.points))} - {*alike} | {*alike[::7]})
        return chosen if ALL else chosen[len(chosen) // (2 * SAMPLE) :: -(-len(chosen) // SAMPLE)]

    def check(self, number: int, fault: int) -> None:
        """Fail at a point, look at what is there, and run the same command again."""
        what = f"{self.points[number]} ({number}, {fault})"
        self._restore()
        failed = run(self.action, self.home, number, fault)
        if failed.code == 0:  # it does without, or TensorBoard's thread was faster than before
            assert fault != KILL or len(failed.points) <= number, what
        else:
            assert failed.code == (KILL if fault == KILL else 1), (what, failed.errors)
            assert failed.errors.count("Error: ") == (fault != KILL) and "Traceback" not in failed.errors, what
        self._goes_on(what)

    def sizes(self) -> list[int]:
        """Return sizes of files that are too small by a byte for one that the training writes."""
        found = {len(bytes_) - 1 for bytes_ in self.new.values() if bytes_}
        chosen = sorted(found)
        return chosen if ALL else chosen[-1:]

    def check_size(self, largest: int) -> None:
        """Let files that are too large fail, as on a full disk, also those that are written in C and Rust."""
        what = f"files of at most {largest} bytes"
        self._restore()
        failed = run(self.action, self.home, largest=largest)
        assert failed.code in (0, 1) and "Traceback" not in failed.errors, (what, failed.errors)
        assert failed.errors.count("Error: ") == failed.code, (what, failed.errors)
        self._goes_on(what)

    def run_over(self, damaged: Content, message: str) -> None:
        """Run with other bytes in some files; a line says so, and all ends as it does with theirs."""
        self._restore()
        for name, bytes_ in damaged.items():
            (self.output / name).write_bytes(bytes_ or b"")
        outcome = run(self.action, self.home)
        assert outcome.code == 0 and outcome.errors.count(message) == 1, (damaged.keys(), outcome.errors)
        assert differences(results(content(self.output)), results(self.new)) == []
        assert self._weights() == self.weights

    def _goes_on(self, what: str) -> None:
        if self.output.exists():
            settle(self.output)
        if (self.output / "contents.json").exists():
            assert damage(self.output) is None, what
        if self.old:
            stands = [differences(results(content(self.output)), results(state)) for state in (self.old, self.new)]
            assert [] in stands, (what, stands)
        again = run(self.action, self.home)
        assert again.code == 0, (what, again.errors)
        assert self._weights() == self.weights, what
        left = [path for folder in (self.home, self.output) for path in folder.rglob(".*")]
        assert not left, (what, left)

    def _restore(self) -> None:
        shutil.rmtree(self.output)
        for name, bytes_ in self.old.items():
            path = self.output / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir() if bytes_ is None else path.write_bytes(bytes_)

    def _weights(self) -> bytes:
        assert damage(self.output) is None
        return (self.output / "model.safetensors").read_bytes()


def results(found: Content) -> Content:
    """Return what a run ends in: all but what it keeps to go on with, its log and what it reports meanwhile."""
    return {name: bytes_ for name, bytes_ in visible(found).items() if not re.match(WORKING, name)}


@pytest.mark.parametrize("kind", ["pretraining", "fine-tuning"])
def test_each_point(kind: str, home: Path) -> None:
    output = home / kind
    action = pretraining(home, output, 4) if kind == "pretraining" else fine_tuning(home, output)
    training = Training(action, home, output)
    for turn, number in enumerate(training.chosen()):
        error = (ENOSPC, EIO)[turn % 2]
        for fault in (error, KILL) if ALL else ((error, KILL)[turn // 2 % 2],):
            training.check(number, fault)
    for largest in training.sizes():
        training.check_size(largest)


@pytest.mark.parametrize("kind", ["pretraining", "fine-tuning"] if ALL else ["fine-tuning"])
def test_what_a_finished_run_has_left_stands_until_more_of_it_ends(kind: str, home: Path) -> None:
    output = home / f"more {kind}"
    make: dict[str, Any] = {"pretraining": (pretraining, 2, 4), "fine-tuning": (fine_tuning, "12", "12,16")}
    command, first, second = make[kind]
    assert run(command(home, output, first), home).code == 0
    before = results(content(output))
    more = Training(command(home, output, second), home, output)
    assert len(differences(before, results(more.new))) > 3
    half_way = next(
        number for number, what in enumerate(more.points) if what.endswith("fine-tuning/predictions.parquet")
    )
    for turn, number in enumerate(more.chosen() if ALL else [half_way]):
        more.check(number, (ENOSPC, KILL)[turn % 2])
    for kept in ("best.safetensors", "scores.safetensors") if kind == "fine-tuning" else ():
        [name] = [name for name in more.old if name.endswith(kept)]
        flipped = bytearray(more.old[name] or b"")
        flipped[-20] ^= 1
        more.run_over({name: bytes(flipped)}, "the run starts over")


@pytest.mark.parametrize("kind", ["pretraining", "fine-tuning"])
def test_the_same_command_twice_at_once_leaves_one_good_model(kind: str, home: Path) -> None:
    output, alone = home / f"twice {kind}", home / f"once {kind}"
    make = {"pretraining": lambda folder: pretraining(home, folder, 40), "fine-tuning": partial(fine_tuning, home)}[
        kind
    ]
    one = Training(make(alone), home, alone)
    lock = home / f".{output.name}.lock.json"

    def second() -> None:
        while not lock.exists():
            time.sleep(0.01)
        make(output)()

    with ThreadPoolExecutor(2) as both:
        first, refused = both.submit(run, make(output), home), both.submit(run, second, home)
    assert first.result().code == 0, first.result().errors
    assert refused.result().code == 1 and refused.result().errors.count("\n") == 1
    assert re.fullmatch(
        rf"Error: {output}: process \d+ \(.*\) is writing it; wait until it has ended, or stop it\n",
        refused.result().errors,
    )
    assert (output / "model.safetensors").read_bytes() == one.weights and damage(output) is None
    assert not [*home.glob(f"{output.name}.*"), *home.glob(".*")], "nothing is archived, and nothing is left"
