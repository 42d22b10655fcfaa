"""Runs that are killed at any moment and go on by the same command: how many end in the weights of one left alone.

    python benchmarks/kills.py
    python benchmarks/kills.py --kills 40

Pretraining by one process and by two, and fine-tuning, of a small model. A run is killed (SIGKILL) once to three times,
at a random moment or while it writes a checkpoint, evaluates or writes its model, each time another fork of a process
that has imported everything, so that a kill takes about a second. Of two processes a random one is killed, and the
other one stopped as a launcher does. Then the run is left to its end, and its weights are compared bit by bit. MLflow
has no part in it. Ctrl-C ends it with the kills until then.
Which patients these are plays no part; they are bounded ones.
"""

import argparse
import itertools
import os
import random
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="", HF_HUB_OFFLINE="1")  # forks cannot share a GPU

from common import Measurement, at_least_one, generate, load_average, report, run_quietly, script

from exmed_bert.config import resolve
from exmed_bert.console import one_line_errors
from exmed_bert.finetuning import finetune, results, runs
from exmed_bert.models import folder as model_folder
from exmed_bert.settings import FinetuneSettings, PretrainSettings
from exmed_bert.training import metrics_writer, pretrain, trainer
from exmed_bert.training import results as pretraining_results

PATIENTS = 200
AIMS = ("at random", "writing a checkpoint", "evaluating", "writing the model")
MOST_KILLS = 3  # of a run
LAUNCHER_SECONDS = 3.0  # in which a process whose companion was killed ends by itself


@dataclass
class Kind:
    """A kind of run.

    Attributes:
        name: for the table.
        action: the run, given the folder that it writes.
        processes: that do it together.
        weights: of a run that nobody killed.
        seconds: that it took, and those of the functions that kills aim at, by aim.
        calls: of these.
    """

    name: str
    action: Callable[[Path], Any]
    processes: int
    weights: bytes = b""
    seconds: dict[str, float] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Death:
    """When a process is to be killed: during which call of what a kill aims at, and how long after its beginning."""

    aim: str
    call: int
    seconds: float


def pretraining(home: Path) -> Callable[[Path], Any]:
    """Return a pretraining of 12 steps."""
    given: dict[str, Any] = {
        "training_data": home / "small_train.pt",
        "validation_data": home / "small_val.pt",
        **{"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32},
        **{"train_batch_size": 8, "max_steps": 12, "save_steps": 3, "eval_steps": 4, "max_seq_length": 30},
    }
    return lambda output: pretrain.run(
        resolve(PretrainSettings, given | {"output_dir": output, "output_data_dir": output / "metrics"})
    )


def fine_tuning(home: Path) -> Callable[[Path], Any]:
    """Return a fine-tuning of some 30 steps."""
    given: dict[str, Any] = {"model_dir": home / "model", "input": home / "patients.json", "task": "plos"}
    given |= {"baselines": "none", "train_sizes": "60", "epochs": 4, "train_batch_size": 8, "min_history": 1}
    return lambda output: finetune.run(resolve(FinetuneSettings, given | {"output_dir": output}))


def aimed(death: Death | None, note: Callable[[str, float], None]) -> None:
    """Have this process kill itself in one of the functions that kills aim at, or note how long each call takes."""
    calls: Counter[str] = Counter()

    def watched(aim: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if death is not None and (death.aim, death.call) == (aim, calls[aim]):
                threading.Thread(target=die, args=(death.seconds,), daemon=True).start()
            calls[aim] += 1
            start = time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                note(aim, time.perf_counter() - start)

        return call

    checkpoint, evaluating, model = AIMS[1:]
    for owner, name, aim in (
        (trainer.PatientTrainer, "_save_checkpoint", checkpoint),
        (trainer.PretrainingTrainer, "evaluate", evaluating),
        (runs.FinetuningTrainer, "evaluate", evaluating),
        (pretraining_results, "write_pretrained", model),
        (results, "write_finetuned", model),
    ):
        setattr(owner, name, watched(aim, getattr(owner, name)))


def die(seconds: float) -> None:
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)


def start(kind: Kind, output: Path, death: Death | None, victim: int, notes: Path | None = None) -> list[int]:
    """Start the processes of a run and return them; the victim has to die."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(kind.processes):
        process = os.fork()
        if process:
            started.append(process)
            continue
        code = 1
        try:
            said = os.open(output.with_suffix(f".{rank}.log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(said, 1)
            os.dup2(said, 2)
            if kind.processes > 1:
                os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(kind.processes))
                os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))

            def note(aim: str, seconds: float) -> None:
                if notes is not None:
                    with open(notes, "a", encoding="utf-8") as file:
                        file.write(f"{aim}\t{seconds}\n")

            aimed(death if rank == victim else None, note if rank == 0 else lambda *_: None)
            with one_line_errors():
                kind.action(output)
            code = 0
        except SystemExit as error:
            code = int(error.code or 0)
        finally:
            os._exit(code)
    return started


def wait(processes: list[int], seconds: float | None = None) -> list[int]:
    """Wait for processes and return their exit codes; those that are there after some seconds are killed."""
    codes: dict[int, int] = {}
    end = None if seconds is None else time.monotonic() + seconds
    while len(codes) < len(processes):
        for process in processes:
            if process not in codes:
                found, status = os.waitpid(process, os.WNOHANG)
                if found:
                    codes[process] = os.waitstatus_to_exitcode(status)
                elif end is not None and time.monotonic() > end:
                    os.kill(process, signal.SIGKILL)
        time.sleep(0.01)
    return [codes[process] for process in processes]


def kill_once(kind: Kind, output: Path, aim: str, chance: random.Random) -> bool:
    """Run until it is killed, and return whether it was: a run that comes to its end before was not."""
    victim = chance.randrange(kind.processes)
    if aim == AIMS[3]:
        victim = 0  # which writes it
    death = None
    if aim != AIMS[0]:
        death = Death(aim, chance.randrange(max(kind.calls[aim], 1)), chance.uniform(0, kind.seconds[aim]))
    processes = start(kind, output, death, victim)
    if aim == AIMS[0]:
        time.sleep(chance.uniform(0, kind.seconds[aim]))
        os.kill(processes[victim], signal.SIGKILL)
    (code,) = wait([processes[victim]])
    wait([process for process in processes if process != processes[victim]], LAUNCHER_SECONDS)
    return code == -signal.SIGKILL


def finish(kind: Kind, output: Path, notes: Path | None = None) -> bytes:
    """Run to the end, and return the weights."""
    if any(wait(start(kind, output, None, 0, notes))):
        said = "".join(output.with_suffix(f".{rank}.log").read_text() for rank in range(kind.processes))
        print(f"{kind.name}: {output} does not go on:\n{said}", file=sys.stderr)
        return b""
    return (output / model_folder.SAFETENSORS).read_bytes()


def measure_alone(kind: Kind, home: Path) -> None:
    """Run without a kill, for the weights and the times."""
    notes, begin = home / f"{kind.name}.tsv", time.perf_counter()
    kind.weights = finish(kind, home / f"{kind.name} alone", notes)
    kind.seconds[AIMS[0]] = time.perf_counter() - begin
    for line in notes.read_text(encoding="utf-8").splitlines():
        aim, seconds = line.split("\t")
        kind.calls[aim] += 1
        kind.seconds[aim] = max(float(seconds), kind.seconds.get(aim, 0.0))
    assert kind.weights and set(kind.seconds) == set(AIMS), kind.seconds


def kill_and_compare(
    kinds: list[Kind],
    home: Path,
    number: int,
    chance: random.Random,
    kills: Counter[tuple[str, str]],
    bitwise: Counter[tuple[str, str]],
) -> None:
    """Count kills by kind and aim, and those whose run ended in the weights of one left alone."""
    for turn in itertools.count():
        if kills.total() >= number:
            return
        kind, output = kinds[turn % len(kinds)], home / f"run {turn}"
        done: Counter[tuple[str, str]] = Counter()
        for _ in range(min(chance.randint(1, MOST_KILLS), number - kills.total())):
            aim = chance.choice(AIMS)
            done[kind.name, aim] += kill_once(kind, output, aim, chance)
        same = finish(kind, output) == kind.weights
        kills.update(done)
        bitwise.update(done if same else {})
        print(f"{kills.total()} kills, {bitwise.total()} bitwise", flush=True)


def main() -> None:
    """Kill, go on, compare, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=at_least_one, default=200, help="how many [default: 200]")
    parser.add_argument("--seed", type=int, default=0, help="of the moments [default: 0]")
    given = parser.parse_args()
    load, chance = load_average(), random.Random(given.seed)
    metrics_writer.WRITER = ["sh", "-c", "cat > /dev/null"]
    kills, bitwise = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        patients = generate(home / "patients.json", PATIENTS)
        data = ("--input", patients, "--output", home / "small.pt", "--max-length", 30)
        run_quietly(script("convert_synthetic_to_dataset.py", *data))
        kinds = [Kind("pretraining by one process", pretraining(home), 1)]
        kinds.append(Kind("pretraining by two processes", pretraining(home), 2))
        finish(Kind("pretrained", pretraining(home), 1), home / "model")
        kinds.append(Kind("fine-tuning", fine_tuning(home), 1))
        for kind in kinds:
            measure_alone(kind, home)
        with suppress(KeyboardInterrupt):  # what has been counted until then is reported
            kill_and_compare(kinds, home, given.kills, chance, kills, bitwise)
    figures = [
        Measurement(f"{kind.name}, {aim}: kills", [kills[kind.name, aim]], "kills") for kind in kinds for aim in AIMS
    ]
    figures.append(Measurement("kills in all", [kills.total()], "kills"))
    figures.append(Measurement("ended in the same weights", [bitwise.total()], "kills", at_least=kills.total()))
    report("kills", given, load, figures)


if __name__ == "__main__":
    main()
