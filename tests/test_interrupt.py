"""Ctrl-C at a terminal: the progress bar ends its line, one line says what to do, and nothing half-written stays."""

import os
import select
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, run_here

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are POSIX")]

STOPPED = "Error: stopped by the keyboard; run the same command again to go on"


def interrupt(folder: Path, when: str, script: str, *arguments: Any) -> tuple[int, str]:
    """Run a script at a terminal, press Ctrl-C once it has shown ``when``; return exit code and what was shown."""
    import fcntl
    import pty
    import termios

    program, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))  # without a width there is no bar

    def at_the_terminal() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a background job, as these tests may be, ignores it
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / script), *map(str, arguments)],
        cwd=folder,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=at_the_terminal,
    )
    os.close(terminal)
    shown, pressed, end = b"", False, time.monotonic() + 120
    while time.monotonic() < end:
        if select.select([program], [], [], 0.2)[0]:
            try:
                shown += os.read(program, 65536)
            except OSError:  # the other side is closed
                break
        if not pressed and when.encode() in shown:
            pressed = True
            os.write(program, b"\x03")
    os.close(program)
    assert pressed, shown
    return process.wait(timeout=10), shown.decode()


def assert_stopped(result: tuple[int, str], label: str) -> None:
    code, shown = result
    lines = [line for line in shown.replace("\r\n", "\n").split("\n") if line]
    assert code == 130 and lines[-1] == STOPPED, shown
    assert lines[-2].startswith(("\r" + label, label)) and shown.count("Error") == 1, shown


@pytest.mark.parametrize("workers", [1, 2])
def test_generation(workers: int, tmp_path: Path) -> None:
    arguments = ("-n", 1_000_000, "--workers", workers, "-o", "patients.jsonl")
    assert_stopped(interrupt(tmp_path, "Generating:", "generate_synthetic_patients.py", *arguments), "Generating")
    assert not list(tmp_path.iterdir())


def test_conversion(tmp_path: Path) -> None:
    made = run_here("generate_synthetic_patients.py", "-n", 20_000, "-o", "patients.jsonl", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    before = sorted(tmp_path.iterdir())
    arguments = ("--input", "patients.jsonl", "--output", "dataset.pt")
    assert_stopped(interrupt(tmp_path, "Converting:", "convert_synthetic_to_dataset.py", *arguments), "Converting")
    assert sorted(tmp_path.iterdir()) == before


def test_pretraining_at_its_first_step(small_datasets: Path, tmp_path: Path) -> None:
    """MLflow's process is still being started then."""
    data = ("--training-data", small_datasets / "small_train.pt", "--validation-data", small_datasets / "small_val.pt")
    arguments = (*data, "--max-seq-length", 30, "--output-dir", "model", "--output-data-dir", "metrics")
    result = interrupt(tmp_path, "Pretraining:", "pretrain-exmed-bert-clinvec.py", *arguments, "--epochs", 500)
    assert_stopped(result, "Pretraining")
