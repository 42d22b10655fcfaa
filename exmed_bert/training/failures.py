"""Errors for want of disk space or memory while training, explained in one line."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from safetensors import SafetensorError

from exmed_bert.console import InputError

# How the libraries word a write that failed: the system, torch's zip writer, safetensors, SQLite.
_DISK = ("No space left", "inline_container", "PytorchStreamWriter", "I/O error", "disk is full")
_MEMORY = ("can't allocate memory", "out of memory")


@contextmanager
def failures_explained() -> Iterator[None]:
    """Turn a full disk or memory inside the block into an `InputError` that says how to go on."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        text = str(error)
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
