"""Two processes that write the same: the second is told who the first is, and changes nothing."""

import ctypes
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest
from conftest import ROOT, wait_for

from exmed_bert import locks, processes
from exmed_bert.console import InputError
from exmed_bert.locks import held
from exmed_bert.processes import is_alive

HOLD = """import sys; from pathlib import Path; from exmed_bert.locks import held
with held(Path(sys.argv[1]), 'cmd'):
    input()
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, which holds ``out/run`` until it is told to end."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "out" / "run")]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, text=True) as process:
        said = tmp_path / "out" / ".run.lock.json"
        wait_for(lambda: said.is_file() and said.stat().st_size > 0, process)
        yield process
        process.kill()


def test_a_second_process_is_told_who_holds_it(other: subprocess.Popen[str], tmp_path: Path) -> None:
    target = tmp_path / "out" / "run"
    before = sorted(tmp_path.rglob("*"))
    line = rf"out/run: process {other.pid} \(cmd, since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d\) is writing it"
    with pytest.raises(InputError, match=line), held(target, "other"):
        pass
    assert sorted(tmp_path.rglob("*")) == before
    with held(tmp_path / "out" / "run2", "other"):
        pass
    other.communicate("\n", timeout=20)
    with held(target, "other"):
        pass
    assert list((tmp_path / "out").iterdir()) == []


def test_the_lock_of_a_killed_process_is_free(other: subprocess.Popen[str], tmp_path: Path) -> None:
    other.kill()
    other.wait()
    assert (tmp_path / "out" / ".run.lock").exists() and not is_alive(other.pid)
    with held(tmp_path / "out" / "run", "other"):
        pass
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="forks")
def test_children_of_a_killed_process_are_waited_for(tmp_path: Path) -> None:
    """A child that was forked has the parent's open files, locks among them."""
    target = tmp_path / "run"
    with held(target, "parent"):
        said = json.loads((tmp_path / ".run.lock.json").read_text())
        gone = subprocess.Popen(["true"])
        gone.wait()
        (tmp_path / ".run.lock.json").write_text(json.dumps(said | {"pid": gone.pid}))
        with pytest.MonkeyPatch.context() as patch, pytest.raises(InputError, match=re.escape(f"process {gone.pid} ")):
            patch.setattr(locks, "_ENDING_SECONDS", 0.6)
            with held(target, "next"):
                pass


def test_the_lock_of_another_host_is_respected(tmp_path: Path) -> None:
    with held(tmp_path / "run", "parent"):
        said = json.loads((tmp_path / ".run.lock.json").read_text())
        assert said["pid"] == os.getpid() and said["host"] == socket.gethostname()
        (tmp_path / ".run.lock.json").write_text(json.dumps(said | {"host": "elsewhere"}))
        with pytest.raises(InputError, match="on elsewhere is writing it"), held(tmp_path / "run", "next"):
            pass


def test_an_error_frees_it_and_a_link_is_the_folder(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    with pytest.raises(KeyError), held(tmp_path / "disk", "one"):
        raise KeyError
    if os.name == "posix":
        (tmp_path / "link").symlink_to(tmp_path / "disk")
        with held(tmp_path / "disk", "one"), pytest.raises(InputError), held(tmp_path / "link", "two"):
            pass
        (tmp_path / "link").unlink()
    assert [path.name for path in tmp_path.iterdir()] == ["disk"]


def test_of_several_processes_the_first_holds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with held(tmp_path / "run", "first"):
        monkeypatch.setenv("RANK", "1")
        with held(tmp_path / "run", "second"):
            pass


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/run: cannot be locked"), held(tmp_path / "file" / "run", "one"):
        pass


@pytest.mark.parametrize(
    ("handle", "error", "ended", "alive"),
    [(7, 0, False, True), (7, 0, True, False), (None, 87, False, False), (None, 5, False, True)],
    ids=["works", "has ended", "is not there", "is another user's"],
)
def test_windows_is_asked_for_a_process(
    handle: int | None, error: int, ended: bool, alive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel, closed = Mock(), []
    kernel.OpenProcess = Mock(return_value=handle)
    kernel.WaitForSingleObject = Mock(return_value=0 if ended else 258)  # WAIT_TIMEOUT
    kernel.CloseHandle = Mock(side_effect=closed.append)
    stand_in = Mock(wraps=ctypes, WinDLL=Mock(return_value=kernel), get_last_error=Mock(return_value=error))
    monkeypatch.setattr(processes, "ctypes", stand_in)
    monkeypatch.setattr(processes, "sys", Mock(platform="win32"))
    monkeypatch.setattr(os, "kill", None)  # it would end the process there
    assert is_alive(4711) == alive
    assert closed == ([handle] if handle else [])


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_process_is_seen_while_it_is_there() -> None:
    assert is_alive(os.getpid()) and is_alive(1)
    with subprocess.Popen(["sleep", "60"]) as process:
        assert is_alive(process.pid)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not is_alive(process.pid)
