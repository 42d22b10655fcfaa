"""The plan of a run: steps, warm-up, learning rate and reports, as given or as data and sizes suggest."""

import math
from dataclasses import dataclass

from exmed_bert.settings import PretrainSettings

_REPORTS = 20  # evaluations and checkpoints of a run, where no option says otherwise
_LOGS = 50
_WARMUP = 0.1  # share of the steps


@dataclass(frozen=True)
class Plan:
    """Numbers of optimizer steps, and the peak learning rate."""

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
