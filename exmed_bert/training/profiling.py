"""A trace of a few training steps, which TensorBoard's profiler, Perfetto or chrome://tracing show."""

from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, schedule, tensorboard_trace_handler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from exmed_bert.training.tracking import LOGGER, log

_WAIT = 10  # steps before, in which memory is allocated and compilation happens
_WARMUP = 2  # steps that the profiler itself needs
_LOGGED = 20  # operations in the table of the log


class ProfileCallback(TrainerCallback):
    """Records ``steps`` training steps once a run has settled, and writes their trace to a folder."""

    def __init__(self, steps: int, folder: Path) -> None:
        """Take how many steps, and where the trace goes: ``<folder>/<host>_<process>.<time>.pt.trace.json``."""
        self._steps = steps
        self._folder = folder
        self._profile: profile | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start to count steps; a short run is recorded earlier, or not at all where it ends within the warm-up."""
        spare = state.max_steps - state.global_step - _WARMUP - self._steps
        wait = max(min(spare, _WAIT), 0)
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
        self._profile = profile(
            activities=activities,
            schedule=schedule(wait=wait, warmup=_WARMUP, active=self._steps, repeat=1),
            on_trace_ready=self._write,
            record_shapes=True,
        )
        self._profile.start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Tell the profiler that a step is over."""
        if self._profile is not None:
            self._profile.step()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop, and write what a run that ended early had recorded."""
        self._stop()

    def _write(self, recorded: profile) -> None:
        tensorboard_trace_handler(str(self._folder))(recorded)
        table = recorded.key_averages().table(sort_by="self_cpu_time_total", row_limit=_LOGGED)
        LOGGER.info("profile of %d steps\n%s", self._steps, table)
        log(f"Profile of {self._steps} steps in {self._folder}: open it in TensorBoard or https://ui.perfetto.dev")

    def _stop(self) -> None:
        if self._profile is not None:
            self._profile.stop()
            self._profile = None
