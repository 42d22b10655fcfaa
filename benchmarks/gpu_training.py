"""Parts of `gpu.py` that train through the real trainer: throughput, MFU, waiting, memory, and BertForMaskedLM."""

import math
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Measurement
from pretraining import Configuration, Theirs, flop_a_token, seconds_of
from runs import DEMO, PRODUCTION
from transformers import TrainerCallback
from transformers import logging as transformers_logging

from exmed_bert.data.dataset import PatientDataset
from exmed_bert.data.dataset_info import DatasetInfo
from exmed_bert.data.masking import Masking
from exmed_bert.data.randomness import hash_patient_ids
from exmed_bert.data.static_columns import BUILT_IN, STATIC
from exmed_bert.data.vocabulary import SPECIAL_TOKENS, CodeVocabulary
from exmed_bert.models import ExMedBertConfig, ExMedBertForMaskedLM
from exmed_bert.training.arguments import training_arguments
from exmed_bert.training.hardware import StepShape, choose_attention, hardware_settings
from exmed_bert.training.trainer import PretrainingTrainer

CODES, MANY_CODES = 1000, 30_000
SHORT, LONG = 25, 200  # the median of tokens per patient; the mean is a third more
LENGTH = 512  # at most
PER_VISIT = 3  # codes
NEVER = 10**9


def draw_patients(count: int, codes: int, median: int = SHORT, seed: int = 0) -> PatientDataset:
    """Return patients whose lengths are log-normal and whose codes follow Zipf's law, with masks drawn anew."""
    rng = np.random.default_rng(seed)
    lengths = np.clip(rng.lognormal(np.log(median), 0.8, count).astype(np.int64), 5, LENGTH)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    place = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    visits = -(-lengths // PER_VISIT)
    visit_offsets = np.concatenate(([0], np.cumsum(visits)))
    days = 18_000 + 30 * (np.arange(visit_offsets[-1]) - np.repeat(visit_offsets[:-1], visits))
    rank = np.exp(rng.random(offsets[-1]) * np.log(codes)).astype(np.int64) - 1  # density 1 / rank
    first = len(SPECIAL_TOKENS)
    columns = {
        "codes": (first + rank).astype(np.int32),
        "entities": (1 + rank % 2).astype(np.uint8),
        "ages": (first + 50 + place // 60).astype(np.int32),
        "visit_ids": (1 + place // PER_VISIT).astype(np.int32),
        "visit_days": days.astype(np.int32),
        "patient_hashes": hash_patient_ids(range(count)).copy(),
        "birth_years": np.full(count, 1960, dtype=np.int32),
        "plos": np.full(count, -1, dtype=np.int8),
        "id_numbers": np.arange(count),
        "offsets": offsets,
        "visit_offsets": visit_offsets,
        **{f"{STATIC}{column.name}": np.full(count, first, dtype=np.uint8) for column in BUILT_IN},
    }
    vocabulary = CodeVocabulary(
        (*SPECIAL_TOKENS, *(f"code{i}" for i in range(codes))),
        np.concatenate((np.zeros(first, dtype=np.int64), 1 + np.arange(codes) % 2)),
    )
    masking = Masking("dynamic", 0.15, 20, 42)
    info = DatasetInfo("train", LENGTH, "years", masking, vocabulary, (), "", 42, 0.8)
    return PatientDataset(info, {name: torch.from_numpy(values) for name, values in columns.items()})


def configuration(info: DatasetInfo, tiny: bool, **changes: Any) -> ExMedBertConfig:
    """Return the original's sizes with the defaults of pretraining; tiny: the demonstration's."""
    sizes = DEMO if tiny else PRODUCTION
    options: dict[str, Any] = {
        "code_vocab_size": len(info.vocabulary),
        "age_vocab_size": info.age_vocabulary_size,
        "max_position_embedding": LENGTH + 1,
        "hidden_size": sizes.hidden,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "intermediate_size": sizes.feed_forward,
        "visit_distance_bias": True,
    }
    return ExMedBertConfig(**(options | changes))


def matmul_limit(device: str, tiny: bool) -> float:
    """Return the operations per second of a large product of bf16 matrices."""
    size = 256 if tiny else 8192
    one, other = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    one @ other
    return 2 * size**3 / min(seconds_of(lambda: one @ other) for _ in range(10))


class Rounds(TrainerCallback):
    """Times rounds of a run, lets something else run between them, and ends it."""

    def __init__(self, count: int, seconds: float, between: Callable[[], None]) -> None:
        self.count, self.seconds, self.between = count, seconds, between
        self.rounds: list[tuple[int, int, float, float]] = []  # first step, last step, seconds, of them waiting
        self.trainer: Any = None
        self.warm = False

    def begin(self, step: int) -> None:
        """Start the clock when all before is done."""
        synchronize()
        self.step, self.waited, self.start = step, self.trainer.data_wait_seconds, time.perf_counter()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the round that does not count."""
        self.begin(0)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """End the round whose time is over."""
        if time.perf_counter() - self.start < self.seconds:
            return
        synchronize()
        seconds, waited = time.perf_counter() - self.start, self.trainer.data_wait_seconds - self.waited
        if self.warm:
            self.rounds.append((self.step, state.global_step, seconds, waited))
        self.warm = True
        self.between()
        control.should_training_stop = len(self.rounds) == self.count
        self.begin(state.global_step)


def synchronize() -> None:
    """Wait until the GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def train(
    dataset: PatientDataset, batch: int, device: str, tiny: bool, between: Callable[[], None] = lambda: None
) -> tuple[Rounds, list[float], float]:
    """Train through the project's trainer; return its rounds, the real tokens of each, and the peak memory in GiB."""
    transformers_logging.set_verbosity_error()
    torch.manual_seed(42)
    model = ExMedBertForMaskedLM(configuration(dataset.info, tiny))
    model.set_attn_implementation(choose_attention(model.config, "bf16").name)
    rounds = Rounds(2 if tiny else 5, 0.05 if tiny else 2.0, between)
    config = model.config
    shape = StepShape(batch * LENGTH, config.hidden_size, config.intermediate_size)
    with tempfile.TemporaryDirectory() as folder, hardware_settings(shape, "bf16"):
        args = training_arguments(
            Path(folder),
            "bf16",
            42,
            max_steps=NEVER,
            per_device_train_batch_size=batch,
            learning_rate=1e-4,
            logging_steps=50,
            eval_steps=NEVER,
            save_steps=NEVER,
            dataloader_num_workers=0 if device == "cpu" else 2,
        )
        trainer = PretrainingTrainer(model, args, dataset, dataset.subset(range(2)), 1)
        trainer.add_callback(rounds)
        rounds.trainer = trainer
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        trainer.train()
    sampler, per_step = trainer.sampler, []
    lengths = dataset.lengths
    for epoch in range(rounds.rounds[-1][1] // len(sampler) + 1):
        sampler.set_epoch(epoch)
        per_step += [int(lengths[rows].sum()) for rows in sampler]
    tokens = [sum(per_step[first:last]) for first, last, _, _ in rounds.rounds]
    return rounds, tokens, torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else math.nan


def figures_of(name: str, batch: int, codes: int, device: str, tiny: bool, beside: bool = False) -> list[Measurement]:
    """Measure our training, with ``beside`` in turns with BertForMaskedLM as a user would write it."""
    batch = min(batch, 8) if tiny else batch
    dataset = draw_patients(batch * (20 if tiny else 400), min(codes, 3000) if tiny else codes)
    sizes = DEMO if tiny else PRODUCTION
    limit = matmul_limit(device, tiny)
    seconds_of_theirs: list[float] = []
    few = dataset.subset(range(batch * (3 if tiny else 10)))
    between: Callable[[], None] = lambda: None  # noqa: E731
    if beside:
        theirs = Theirs(Configuration(replace(sizes, batch=batch), LENGTH, 0), few, 1000, True)
        between = lambda: seconds_of_theirs.append(seconds_of(theirs.epoch))  # noqa: E731
    rounds, tokens, memory = train(dataset, batch, device, tiny, between)
    seconds = [taken for _, _, taken, _ in rounds.rounds]
    rates = [count / taken for count, taken in zip(tokens, seconds, strict=True)]
    flop = flop_a_token(sizes, len(dataset.info.vocabulary), dataset.lengths)
    waiting = [100 * waited / taken for _, _, taken, waited in rounds.rounds]
    many = name.startswith("production")
    found = [
        Measurement(f"{name}: ExMed-BERT", rates, "real tokens/s", at_least=2e6 if many else None),
        Measurement(f"{name}: MFU", [flop * rate / limit for rate in rates], "share", at_least=0.5 if many else None),
        Measurement(f"{name}: large matrix product", [limit / 1e12], "TFLOP/s"),
        Measurement(f"{name}: waiting for data", waiting, "% of the time", at_most=5),
        Measurement(f"{name}: steps", [(b - a) / taken for a, b, taken, _ in rounds.rounds], "steps/s"),
    ]
    if device == "cuda" and not beside:  # else theirs is part of it
        found.append(Measurement(f"{name}: peak memory", [memory], "GiB"))
    if beside:
        of_theirs = [int(few.lengths.sum()) / taken for taken in seconds_of_theirs[1:]]
        times = [ours / other for ours, other in zip(rates, of_theirs, strict=True)]
        found += [
            Measurement(f"{name}: BertForMaskedLM", of_theirs, "real tokens/s"),
            Measurement(f"{name}: times as fast", times, "", at_least=10),
        ]
    return found


def production(device: str, tiny: bool) -> Iterator[Measurement]:
    """Measure the original's sizes at two batches."""
    for batch in (256, 1024):
        yield from figures_of(f"production, batch {batch}", batch, CODES, device, tiny)


PARTS: dict[str, Callable[[str, bool], Iterable[Measurement | str]]] = {
    "production": production,
    "theirs": lambda device, tiny: figures_of("in turns, batch 256", 256, CODES, device, tiny, beside=True),
    "large-vocabulary": lambda device, tiny: figures_of(
        f"{MANY_CODES:,} codes, batch 256", 256, MANY_CODES, device, tiny, beside=True
    ),
}
