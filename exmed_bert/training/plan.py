"""How long a run trains and how often it reports: what was given, and what follows from data and sizes."""

import math
from dataclasses import dataclass

import torch

from exmed_bert.config import PretrainSettings
from exmed_bert.console import OptionError

_REPORTS = 20  # evaluations and checkpoints of a run, where nothing else is asked for
_LOGS = 50
_WARMUP = 0.1  # share of the steps
_FLOP_WORTH_THREADS = 10e6


@dataclass(frozen=True)
class Plan:
    """Numbers of optimiser steps, and the peak learning rate."""

    steps_per_epoch: int
    total_steps: int
    warmup_steps: int
    logging_steps: int
    eval_steps: int
    save_steps: int
    learning_rate: float


def make_plan(settings: PretrainSettings, patients: int, processes: int) -> Plan:
    """Fill in what was not given.

    Args:
        settings: as given.
        patients: in the training data.
        processes: that share each step.
    """
    batches = math.ceil(math.ceil(patients / settings.train_batch_size) / processes)
    per_epoch = math.ceil(batches / settings.gradient_accumulation_steps)
    total = settings.max_steps if settings.max_steps > 0 else settings.epochs * per_epoch
    ratio = _WARMUP if settings.warmup_ratio is None else settings.warmup_ratio
    return Plan(
        steps_per_epoch=per_epoch,
        total_steps=total,
        warmup_steps=round(ratio * total) if settings.warmup_steps is None else settings.warmup_steps,
        logging_steps=settings.logging_steps or max(total // _LOGS, 1),
        eval_steps=settings.eval_steps or max(total // _REPORTS, 1),
        save_steps=settings.save_steps or max(total // _REPORTS, 1),
        learning_rate=settings.learning_rate or default_learning_rate(settings.hidden_size),
    )


def default_learning_rate(hidden_size: int) -> float:
    """Return a peak learning rate for a width: 0.001 at 64, falling with the square root of the width.

    >>> default_learning_rate(64), round(default_learning_rate(288), 5)
    (0.001, 0.00047)
    """
    return 1e-3 * math.sqrt(64 / hidden_size)


def choose_precision(wanted: str) -> str:
    """Return ``fp32`` or ``bf16``; ``auto`` takes bf16 on a GPU that computes it.

    Raises:
        OptionError: bf16 was asked for on a GPU that lacks it.
    """
    has_gpu = torch.cuda.is_available()
    if wanted == "bf16" and has_gpu and not torch.cuda.is_bf16_supported():
        raise OptionError("--precision: this GPU does not compute bf16, use fp32")
    if wanted == "auto":
        return "bf16" if has_gpu and torch.cuda.is_bf16_supported() else "fp32"
    return wanted


def choose_attention() -> str:
    """Return the attention kernel that trains fastest: torch's own on a GPU, one with a cheap dropout on a CPU."""
    return "sdpa" if torch.cuda.is_available() else "eager"


def choose_threads(codes_a_step: float, hidden_size: int, intermediate_size: int) -> int | None:
    """Return 1 where more threads do not pay on the CPU, None to leave the number to torch.

    The largest matrix product of a small model takes microseconds: handing it out to threads costs as much as it
    saves, and on a busy machine, where each waits for the slowest, many times more.

    >>> choose_threads(60, 64, 128), choose_threads(560, 288, 512)
    (1, None)
    """
    return 1 if 2 * codes_a_step * hidden_size * intermediate_size < _FLOP_WORTH_THREADS else None
