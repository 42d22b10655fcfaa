"""Measure pretraining side by side with transformers' BertForMaskedLM, in one process, round by round.

    python benchmarks/pretraining.py                                    # on this machine's CPU or GPU
    python benchmarks/pretraining.py --configurations demo --rounds 9
    python benchmarks/pretraining.py --bf16                             # where it would not be chosen, too

Ours is a run of scripts/pretrain-exmed-bert-clinvec.py, an epoch a round, with its logging; evaluations and
checkpoints are left out, and so is the last epoch, which ends with both. Theirs is the loop that one would write around
BertForMaskedLM: patients in random order, padded to the longest of the batch, sdpa attention, AdamW, clipping, a linear
schedule. Both see the same patients, the same sizes and the same vocabulary; theirs embeds the code alone. After each
epoch of ours comes one of theirs; the first of each does not count. Tokens are real ones, padding does not count.
The patients are the bounded ones, so that figures compare with earlier ones.

MFU is the share of the peak: a token costs 3 * (layers * (2 * (4 h^2 + 2 h f) + 4 h L) + 2 m (h^2 + h V)) operations
(a multiplication and an addition each count; backward costs twice forward), where L is the length that the average
token attends to, and m = 0.15 of the positions reach the head. The peak is what a product of 2048 x 2048 matrices
reaches between the rounds.
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from common import Measurement, at_least_one, load_average, report
from runs import DEMO, PRODUCTION, Model, make_datasets, pretrain, save, with_vocabulary

if TYPE_CHECKING:
    from exmed_bert.data.dataset import PatientDataset

MASKED = 0.15


@dataclass(frozen=True)
class Configuration:
    """What is trained, on how many patients a round, and what it must reach: tokens a second and times theirs."""

    model: Model
    max_length: int
    patients: int
    vocabulary: int | None = None
    tokens: dict[str, float] | None = None
    times_theirs: dict[str, float] | None = None
    mfu: dict[str, float] | None = None


CONFIGURATIONS = {
    "demo": Configuration(DEMO, 50, 800),
    "production": Configuration(
        PRODUCTION,
        512,
        1000,
        tokens={"fp32": 5500, "bf16": 10_000},
        times_theirs={"fp32": 2, "bf16": 2.5},
        mfu={"bf16": 0.3},
    ),
    "large-vocabulary": Configuration(PRODUCTION, 512, 400, 30_000, times_theirs={"fp32": 3.5, "bf16": 3.5}),
}
ON_A_GPU = {
    "production-256": Configuration(
        Model(**(vars(PRODUCTION) | {"batch": 256})), 512, 20_000, tokens={"bf16": 2_000_000}
    ),
}


class Theirs:
    """A training loop around BertForMaskedLM."""

    def __init__(self, of: Configuration, dataset: "PatientDataset", epochs: int, bf16: bool) -> None:
        import torch
        from transformers import BertConfig, BertForMaskedLM, get_linear_schedule_with_warmup

        offsets, codes = (dataset.columns[name].numpy() for name in ("offsets", "codes"))
        self.patients = [codes[a:b].astype(np.int64) for a, b in itertools.pairwise(offsets)]
        self.vocabulary = len(dataset.info.vocabulary)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        sizes = BertConfig(
            vocab_size=self.vocabulary,
            hidden_size=of.model.hidden,
            num_hidden_layers=of.model.layers,
            num_attention_heads=of.model.heads,
            intermediate_size=of.model.feed_forward,
            max_position_embeddings=of.max_length,
        )
        self.model = BertForMaskedLM(sizes).to(self.device).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        steps = epochs * -(-len(self.patients) // of.model.batch)
        self.schedule = get_linear_schedule_with_warmup(self.optimizer, steps // 10, steps)
        self.loader = torch.utils.data.DataLoader(
            self.patients, batch_size=of.model.batch, shuffle=True, collate_fn=self.collate
        )
        self.bf16 = bf16
        self.positions = 0  # of the last epoch, padding included

    def collate(self, patients: list[np.ndarray]) -> dict[str, Any]:
        """Pad to the longest, and mask as BERT does."""
        import torch

        from exmed_bert.data.masking import IGNORED
        from exmed_bert.data.vocabulary import MASK, PAD, SPECIAL_TOKENS

        ids = torch.nn.utils.rnn.pad_sequence(
            [torch.from_numpy(patient) for patient in patients], batch_first=True, padding_value=PAD
        )
        real = ids != PAD
        masked = (torch.rand(ids.shape) < MASKED) & real
        labels = ids.masked_fill(~masked, IGNORED)
        draw = torch.rand(ids.shape)
        random = torch.randint(len(SPECIAL_TOKENS), self.vocabulary, ids.shape)
        ids = torch.where(masked & (draw < 0.8), MASK, torch.where(masked & (draw >= 0.9), random, ids))
        return {"input_ids": ids, "attention_mask": real.long(), "labels": labels}

    def epoch(self) -> None:
        """Train on every patient once."""
        import torch

        self.positions = 0
        for batch in self.loader:
            self.positions += batch["input_ids"].numel()
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                loss = self.model(**{name: tensor.to(self.device) for name, tensor in batch.items()}).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.schedule.step()
            self.optimizer.zero_grad()


def seconds_of(work: Any) -> float:
    """Return how long a call takes, on a GPU until it is done."""
    import torch

    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_flops(bf16: bool) -> float:
    """Return the operations a second of a product of large matrices."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    matrix = torch.randn(2048, 2048, device=device, dtype=torch.bfloat16 if bf16 else torch.float32)
    return 2 * 2048**3 / min(seconds_of(lambda: matrix @ matrix) for _ in range(5))


@contextmanager
def settings_of_a_user(default_threads: int) -> Iterator[None]:
    """Leave the threads and products that our run chose, for as long as theirs runs."""
    import torch

    threads, products = torch.get_num_threads(), torch.backends.mkldnn.matmul.fp32_precision
    torch.set_num_threads(default_threads)
    torch.backends.mkldnn.matmul.fp32_precision = "none"
    yield
    torch.set_num_threads(threads)
    torch.backends.mkldnn.matmul.fp32_precision = products


def rounds(of: Configuration, paths: dict[str, Path], dataset: "PatientDataset", precision: str, count: int) -> Any:
    """Return the seconds of each round of ours and of theirs, the peaks, and theirs itself."""
    import torch
    from transformers import TrainerCallback, trainer

    threads = torch.get_num_threads()
    theirs = Theirs(of, dataset, count + 1, precision == "bf16")
    seconds: dict[str, list[float]] = {"ours": [], "theirs": [], "peak": []}

    class Alternate(TrainerCallback):
        def on_epoch_begin(self, *_: Any, **__: Any) -> None:
            self.start = time.perf_counter()

        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            if len(seconds["ours"]) > count:
                return
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds["ours"].append(time.perf_counter() - self.start)
            with settings_of_a_user(threads):
                seconds["theirs"].append(seconds_of(theirs.epoch))
                seconds["peak"].append(peak_flops(precision == "bf16"))

    trainer.DEFAULT_CALLBACKS.append(Alternate)
    try:
        with tempfile.TemporaryDirectory() as folder:
            pretrain(of.model, Path(folder), **paths, epochs=count + 2, precision=precision, eval_max_patients=1)
    finally:
        trainer.DEFAULT_CALLBACKS.remove(Alternate)
    return {name: samples[1:] for name, samples in seconds.items()}, theirs


def flop_a_token(model: Model, vocabulary: int, lengths: np.ndarray) -> float:
    """Return the operations that training takes a token; the formula stands above."""
    attended = float((lengths.astype(float) ** 2).sum() / lengths.sum())
    h, f = model.hidden, model.feed_forward
    layer = 2 * (4 * h**2 + 2 * h * f) + 4 * h * attended
    return 3 * (model.layers * layer + 2 * MASKED * (h**2 + h * vocabulary))


def figures_of(name: str, of: Configuration, folder: Path, precision: str, count: int) -> list[Measurement]:
    """Measure one configuration in one precision."""
    from exmed_bert.data.batches import LengthGroupedBatchSampler

    train, val = make_datasets(folder, round(of.patients / 0.75), of.max_length)
    train = train.subset(range(min(of.patients, len(train))))
    val = val.subset(range(20))
    if of.vocabulary:
        train, val = (with_vocabulary(dataset, of.vocabulary) for dataset in (train, val))
    seconds, theirs = rounds(of, save(folder, train, val), train, precision, count)
    tokens = int(train.lengths.sum())
    steps = -(-len(train) // of.model.batch)
    padded = LengthGroupedBatchSampler(train.lengths, of.model.batch, 42).padding_fraction()
    flop = flop_a_token(of.model, len(train.info.vocabulary), train.lengths)
    ours = [tokens / s for s in seconds["ours"]]
    both = list(zip(seconds["theirs"], seconds["ours"], strict=True))
    mfu = [flop * rate / peak for rate, peak in zip(ours, seconds["peak"], strict=True)]

    def target(of_all: dict[str, float] | None) -> float | None:
        return (of_all or {}).get(precision)

    prefix = f"{name}, {precision}"
    return [
        Measurement(f"{prefix}: ExMed-BERT", ours, "tokens/s", at_least=target(of.tokens)),
        Measurement(f"{prefix}: BertForMaskedLM", [tokens / s for s in seconds["theirs"]], "tokens/s"),
        Measurement(f"{prefix}: times as fast", [a / b for a, b in both], "", at_least=target(of.times_theirs)),
        Measurement(f"{prefix}: steps", [steps / s for s in seconds["ours"]], "steps/s"),
        Measurement(f"{prefix}: padding, ExMed-BERT", [100 * padded], "% of positions"),
        Measurement(f"{prefix}: padding, BertForMaskedLM", [100 * (1 - tokens / theirs.positions)], "% of positions"),
        Measurement(f"{prefix}: peak", [peak / 1e9 for peak in seconds["peak"]], "GFLOP/s"),
        Measurement(f"{prefix}: MFU, ExMed-BERT", mfu, "share of the peak", at_least=target(of.mfu)),
    ]


def agreement(folder: Path) -> list[Measurement]:
    """Train the demonstration in fp32 and in bf16, with two seeds each; return what the precision and a seed change."""
    paths = save(folder, *make_datasets(folder, 1000, CONFIGURATIONS["demo"].max_length))
    losses = {}
    for precision in ("fp32", "bf16"):
        for seed in (1, 2):
            with tempfile.TemporaryDirectory() as name:
                found = pretrain(DEMO, Path(name), **paths, epochs=2, seed=seed, precision=precision)
            losses[precision, seed] = found["eval_loss"]
    by_precision = [abs(losses["bf16", seed] - losses["fp32", seed]) for seed in (1, 2)]
    by_seed = [abs(losses[precision, 1] - losses[precision, 2]) for precision in ("fp32", "bf16")]
    return [
        *(Measurement(f"validation loss, {p}", [losses[p, 1], losses[p, 2]], "nats") for p in ("fp32", "bf16")),
        Measurement("changed by the precision", by_precision, "nats"),
        Measurement("changed by the seed", by_seed, "nats"),
    ]


def main() -> None:
    """Measure each configuration in each precision."""
    import torch

    known = CONFIGURATIONS | (ON_A_GPU if torch.cuda.is_available() else {})
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=at_least_one, default=5, help="rounds that count [default: 5]")
    parser.add_argument("--configurations", default=",".join(known), help=f"[default: {','.join(known)}]")
    parser.add_argument("--bf16", action="store_true", help="measure bf16 where it would not be chosen, too")
    given = parser.parse_args()
    load = load_average()
    from exmed_bert.training.hardware import StepShape, choose_precision

    chosen = choose_precision("auto", StepShape(560, PRODUCTION.hidden, PRODUCTION.feed_forward)).name
    precisions = ["fp32", "bf16"] if given.bf16 or chosen == "bf16" else ["fp32"]
    figures = []
    with tempfile.TemporaryDirectory() as name:
        for configuration in given.configurations.split(","):
            for precision in precisions:
                print(f"{configuration}, {precision}", flush=True)
                found = known[configuration]
                figures += figures_of(configuration, found, Path(name), precision, given.rounds)
        print("fp32 beside bf16", flush=True)
        figures += agreement(Path(name))
    report("pretraining", given, load, figures)


if __name__ == "__main__":
    main()
