"""What ends a command is one line and an exit code."""

import os
import signal

import pytest

from exmed_bert.console import InputError, OptionError, one_line_errors


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("p.json: is\nwrong"), 1, "p.json: is wrong"),
        (OptionError("--seed: is wrong"), 2, "--seed: is wrong"),
        (OSError(28, "No space left on device", "p.json"), 1, "p.json: the disk is full"),
        (MemoryError(), 1, "not enough memory; use fewer patients or a smaller batch"),
        (KeyboardInterrupt(), 130, "stopped by the keyboard; run the same command again to go on"),
    ],
)
def test_expected_errors(error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, one_line_errors():
        raise error
    assert ended.value.code == code and capsys.readouterr().err == f"Error: {line}\n"


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_sigterm_is_as_ctrl_c(capsys: pytest.CaptureFixture[str]) -> None:
    before, cleaned_up = signal.getsignal(signal.SIGTERM), False
    with pytest.raises(SystemExit) as ended, one_line_errors():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        except KeyboardInterrupt:
            os.kill(os.getpid(), signal.SIGTERM)  # an impatient one
            cleaned_up = True
            raise
    assert ended.value.code == 143 and cleaned_up and signal.getsignal(signal.SIGTERM) == before
    assert capsys.readouterr().err == "Error: stopped by SIGTERM; run the same command again to go on\n"
