"""What ends a training from outside, explained in one line: no disk space, no memory, another process that is gone."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import torch
from safetensors import SafetensorError

from exmed_bert.console import InputError

# How the libraries word a write that failed: the system, torch's zip writer, safetensors.
_DISK = (
    *("No space left", "File too large", "disk is full", "I/O error"),
    *("PytorchStreamWriter", "unexpected pos", "iostream error"),
)
_MEMORY = ("can't allocate memory", "out of memory")
_CONNECTION = ("gloo", "NCCL")
_OTHER_PROCESS = (
    "stopped, because another process of this run has ended or the launcher stops it; "
    "run the same command again: it goes on from the last checkpoint"
)


@contextmanager
def failures_explained() -> Iterator[None]:
    """Turn a full disk or memory inside the block into an `InputError` that says how to go on.

    With several processes also the end of another one: what connects them fails, or the launcher ends this one, too.
    """
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    before = signal.signal(signal.SIGTERM, _terminated) if several else None
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        text = str(error)
        if several and (isinstance(error, torch.distributed.DistError) or any(word in text for word in _CONNECTION)):
            raise InputError(_OTHER_PROCESS) from error
        if isinstance(error, torch.OutOfMemoryError) or any(word in text for word in _MEMORY):
            raise InputError(
                "out of memory; use a smaller --train-batch-size (with --gradient-accumulation-steps), "
                "--hidden-size or --num-hidden-layers"
            ) from error
        if any(word in text for word in _DISK):
            raise InputError(
                f"results cannot be written, the disk may be full ({text.splitlines()[0][:100]}); "
                "free some space and run the same command again: it goes on from the last checkpoint"
            ) from error
        raise
    finally:
        if several:
            signal.signal(signal.SIGTERM, before)


def _terminated(signal_number: int, frame: FrameType | None) -> NoReturn:
    raise InputError(_OTHER_PROCESS)
