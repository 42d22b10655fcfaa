"""Parts of `gpu.py` that take whole training steps with other attention kernels, compiled, and as CUDA graphs.

Padded batches hold patients of similar length, as in training. Packed ones hold patients in random order one after
another in a single row of constant length; a patient is a document that sees itself alone, and what is over at the end
is one more. Batches are on the device before the clock starts.
"""

import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from common import Measurement, in_one_line
from gpu_training import CODES, LENGTH, LONG, SHORT, configuration, draw_patients, synchronize
from torch import Tensor
from torch.autograd import DeviceType
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from exmed_bert.data.batches import LengthGroupedBatchSampler, MaskedCodeCollator
from exmed_bert.data.dataset import PatientDataset
from exmed_bert.data.masking import IGNORED
from exmed_bert.models import ExMedBertForMaskedLM
from exmed_bert.models.config import visit_slopes
from exmed_bert.training.optimizer import FusedAdamW

Batch = dict[str, Tensor]
BUCKETS = (32, 64, 128)  # lengths to which batches are padded for CUDA graphs
BLOCK = 128  # FlexAttention's
EIGHTS = "padded to multiples of 8"


class Packing:
    """The documents of a packed row, kept in the same memory from batch to batch, so that nothing is compiled anew.

    Attributes:
        documents, visits: (T,) which patient a token is of, and the number of its visit.
        starts: (B + 2,) int32, where the documents start, and T.
        slopes: (heads,) what the logits lose per visit; None where they lose nothing.
        same_document, by_distance: both in the forms that FlexAttention takes.
        blocks: its mask of documents.
    """

    def __init__(self, documents: Tensor, visits: Tensor, slopes: Tensor | None) -> None:
        self.documents, self.visits, self.slopes = documents, visits, slopes
        self.starts = self.blocks = None

        def same_document(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return documents[query] == documents[key]

        def by_distance(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            assert slopes is not None
            return score - slopes[head] * (visits[query] - visits[key]).abs()

        self.same_document, self.by_distance = same_document, by_distance


def dense(query: Tensor, key: Tensor, value: Tensor, packing: Packing, scaling: float) -> Tensor:
    """Attention within documents in so many words, (1, heads, T, size); stands in on a CPU."""
    scores = query @ key.transpose(2, 3) * scaling
    if packing.slopes is not None:
        distances = (packing.visits[:, None] - packing.visits).abs()
        scores = scores - packing.slopes[:, None, None] * distances
    apart = packing.documents[:, None] != packing.documents
    return scores.masked_fill(apart, -torch.inf).softmax(dim=-1).to(value.dtype) @ value


@cache
def flex_functions(compiled: bool) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return FlexAttention and the function that makes its mask, on a GPU compiled for one shape."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    if not compiled:
        return flex_attention, create_block_mask
    return torch.compile(flex_attention, dynamic=False), torch.compile(create_block_mask, dynamic=False)


def flex(
    module: Any, query: Tensor, key: Tensor, value: Tensor, packing: Packing, scaling: float, **_: object
) -> tuple[Tensor, None]:
    """FlexAttention over a packed row, in the form of transformers' attention interface."""
    if query.device.type == "cpu" and torch.is_grad_enabled():  # there is no backward pass on a CPU
        return dense(query, key, value, packing, scaling).transpose(1, 2), None
    run, _ = flex_functions(query.device.type == "cuda" and not torch.compiler.is_compiling())
    change = None if packing.slopes is None else packing.by_distance
    attended = run(query, key, value, score_mod=change, block_mask=packing.blocks, scale=scaling)
    return attended.transpose(1, 2), None


def varlen(
    module: Any, query: Tensor, key: Tensor, value: Tensor, packing: Packing, scaling: float, **_: object
) -> tuple[Tensor, None]:
    """torch's varlen attention over a packed row, in the same form; without distances between visits."""
    if query.device.type == "cpu":
        return dense(query, key, value, packing, scaling).transpose(1, 2), None
    from torch.nn.attention.varlen import varlen_attn

    rows = [x[0].transpose(0, 1).contiguous() for x in (query, key, value)]  # (T, heads, size)
    attended = varlen_attn(*rows, packing.starts, packing.starts, LENGTH, LENGTH)
    return attended[None], None


ALL_ATTENTION_FUNCTIONS.register("packed_flex", flex)
ALL_ATTENTION_FUNCTIONS.register("packed_varlen", varlen)


def pack(batch: Batch, size: int) -> Batch:
    """Put the patients of a padded batch one after another: (1, size) of each field, ``document`` among them."""
    real = batch["attention_mask"].bool()
    over = size - int(real.sum())
    rows = torch.arange(len(real), device=real.device)[:, None]
    packed = {
        name: F.pad(values.expand_as(real)[real], (0, over), value=IGNORED if name == "code_labels" else 0)[None]
        for name, values in (batch | {"document": rows}).items()
        if name != "attention_mask"
    }
    packed["document"][0, size - over :] = len(real)
    lengths = real.sum(dim=1).cpu()
    packed["starts"] = F.pad(lengths.cumsum(0), (1, 1), value=0).int().to(real.device)
    packed["starts"][-1] = size
    return packed


class Steps:
    """Training steps of one model with one kernel; ``kernel`` None takes padded batches and torch's sdpa.

    cuDNN's kernel, which torch prefers on some GPUs, is one that training leaves out.
    """

    def __init__(
        self, dataset: PatientDataset, device: str, tiny: bool, kernel: str | None, cudnn: bool = False, **changes: Any
    ) -> None:
        torch.backends.cuda.enable_cudnn_sdp(cudnn)
        torch.manual_seed(0)
        config = configuration(dataset.info, tiny, **({"attention_probs_dropout_prob": 0.0} | changes))
        self.model = ExMedBertForMaskedLM(config).to(device).train()
        self.model.set_attn_implementation("sdpa")
        self.kernel, self.device = kernel, device
        if kernel:
            self.model.config._attn_implementation = kernel
        self.optimizer = FusedAdamW([p for p in self.model.parameters() if p.requires_grad], lr=1e-4)
        self.packing: Packing | None = None

    def encode(self, batch: Batch) -> Tensor:
        """Return the hidden states, (B, L, hidden), or (1, T, hidden) of a packed row."""
        bert = self.model.bert
        if self.kernel is None:
            return bert(**{name: ids for name, ids in batch.items() if name != "code_labels"}).last_hidden_state
        fields = ("input_ids", "entity_ids", "age_ids", "visit_ids")
        static = {name: batch[f"{name}_ids"] for name in self.model.config.static_vocab_sizes}
        embedded = bert.embeddings(*(batch[name] for name in fields), static)
        return bert.encoder(embedded, self.prepare(batch))

    def prepare(self, batch: Batch) -> Packing:
        """Return the documents of a packed row, in the memory of those before."""
        documents, visits, starts = batch["document"][0], batch["visit_ids"][0], batch["starts"]
        if self.packing is None or len(documents) != len(self.packing.documents):
            slopes = None
            if self.model.config.visit_distance_bias:
                slopes = torch.tensor(visit_slopes(self.model.config.num_attention_heads), device=self.device)
            self.packing = Packing(documents.clone(), visits.clone(), slopes)
        else:
            self.packing.documents.copy_(documents)
            self.packing.visits.copy_(visits)
        self.packing.starts = starts
        if self.kernel == "packed_flex":
            size, mask = len(documents), self.packing.same_document
            _, make = flex_functions(self.device == "cuda")
            self.packing.blocks = make(mask, None, None, size, size, device=self.device, BLOCK_SIZE=BLOCK)
        return self.packing

    def step(self, batch: Batch) -> None:
        """Take one training step."""
        with torch.autocast(self.device, torch.bfloat16):
            masked = batch["code_labels"] != IGNORED
            states, labels = self.encode(batch)[masked], batch["code_labels"][masked]
            loss = F.cross_entropy(self.model.code_classifier(states).float(), labels)
        loss.backward()
        self.optimizer.clip(1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


def padded_batches(dataset: PatientDataset, batch: int, device: str, count: int, longest: int = LENGTH) -> list[Batch]:
    """Return batches of patients of similar length, those alone that are full."""
    collator = MaskedCodeCollator(dataset.info, False)
    chosen = np.flatnonzero(dataset.lengths <= longest)
    sampler = LengthGroupedBatchSampler(dataset.lengths[chosen], batch, seed=1)
    full = [rows for rows in sampler if len(rows) == batch][:count]
    return [to(collator(dataset.batch(chosen[rows])), device) for rows in full]


def padded_to(batch: Batch, size: int) -> Batch:
    """Return a batch with more padding, of ``size`` tokens."""
    length = batch["input_ids"].shape[1]
    return {
        name: F.pad(ids, (0, size - length), value=IGNORED if name == "code_labels" else 0)
        if ids.shape[1] == length
        else ids
        for name, ids in batch.items()
    }


def packed_batches(dataset: PatientDataset, batch: int, device: str, count: int) -> list[Batch]:
    """Return packed rows of as many tokens as ``batch`` patients have on average, patients in random order."""
    collator = MaskedCodeCollator(dataset.info, False)
    size = -(-int(batch * dataset.lengths.mean()) // BLOCK) * BLOCK
    order = np.random.default_rng(1).permutation(len(dataset))
    ends, found = np.cumsum(dataset.lengths[order]), []
    first = 0
    while len(found) < count:
        before = ends[first - 1] if first else 0
        last = int(np.searchsorted(ends, before + size, side="right"))
        if last == len(order):
            break
        found.append(pack(to(collator(dataset.batch(order[first:last])), device), size))
        first = last
    return found


def to(batch: Batch, device: str) -> Batch:
    """Return a batch on a device."""
    return {name: tensor.to(device) for name, tensor in batch.items()}


def real_tokens(batch: Batch) -> int:
    """Return how many tokens of a batch are no padding."""
    return int((batch["input_ids"] != 0).sum())


def rates(make: Callable[[], Steps], batches: list[Batch], tiny: bool) -> list[float]:
    """Return the real tokens per second of some rounds, after one that does not count and compiles."""
    steps, tokens = make(), [real_tokens(batch) for batch in batches]
    found = []
    for number in range(2 if tiny else 4):
        synchronize()
        done, start = 0, time.perf_counter()
        while True:
            for batch, count in zip(batches, tokens, strict=True):
                torch.compiler.cudagraph_mark_step_begin()
                steps.step(batch)
                done += count
            synchronize()
            if time.perf_counter() - start > (0 if tiny or not number else 1.0):
                break
        if number:
            found.append(done / (time.perf_counter() - start))
    return found


def guarded(name: str, work: Callable[[], list[float]], unit: str = "real tokens/s") -> Iterator[Measurement | str]:
    """Measure one variant; where it fails, say why."""
    try:
        yield Measurement(name, work(), unit)
    except Exception as error:
        yield f"{name}: {in_one_line(error)}"
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def disagreement(dataset: PatientDataset, device: str, tiny: bool, kernel: str, distance: bool) -> list[float]:
    """Return how far hidden states of a packed row are from those of fp32 over padded patients, in bf16, relative."""
    collator = MaskedCodeCollator(dataset.info, False)
    batch = to(collator(dataset.batch(range(6))), device)
    real = batch["attention_mask"].bool()
    plain = Steps(dataset, device, tiny, None, visit_distance_bias=distance)
    packed = Steps(dataset, device, tiny, kernel, visit_distance_bias=distance)
    packed.model.load_state_dict(plain.model.state_dict())
    plain.model.eval()
    packed.model.eval()
    with torch.no_grad():
        expected = plain.encode(batch)[real]
        row = pack(batch, -(-int(real.sum()) // BLOCK) * BLOCK)
        with torch.autocast(device, torch.bfloat16):
            found = packed.encode(row)[0, : len(expected)].float()
    return [float((found - expected).norm() / expected.norm())]


KERNELS: list[tuple[str, str | None, dict[str, Any]]] = [
    ("padded, sdpa, visit distances, dropout", None, {"attention_probs_dropout_prob": 0.1}),
    ("padded, sdpa, visit distances", None, {}),
    ("padded, sdpa with cuDNN, visit distances", None, {"cudnn": True}),
    (f"{EIGHTS}, sdpa, visit distances", None, {}),
    ("padded, sdpa", None, {"visit_distance_bias": False}),
    ("packed, flex, visit distances", "packed_flex", {}),
    ("packed, flex", "packed_flex", {"visit_distance_bias": False}),
    ("packed, varlen", "packed_varlen", {"visit_distance_bias": False}),
]


def attention(device: str, tiny: bool) -> Iterator[Measurement | str]:
    """Measure steps with each kernel, for histories of usual length and for long ones."""
    batch, count = (4, 2) if tiny else (256, 16)
    usual, long = (
        draw_patients(batch * (count + 4) if tiny else batch * 64, 300 if tiny else CODES, median)
        for median in (SHORT, LONG)
    )
    for which in (None, "packed"):
        for dataset in (usual, long):
            padded = padded_batches(dataset, batch, device, count)
            eights = [padded_to(one, -(-one["input_ids"].shape[1] // 8) * 8) for one in padded]
            packed = packed_batches(dataset, batch, device, count) if which else []
            for name, kernel, changes in KERNELS:
                if bool(kernel) == bool(which):
                    batches = packed if kernel else eights if name.startswith(EIGHTS) else padded
                    make = partial(Steps, dataset, device, tiny, kernel, **changes)
                    work = partial(rates, make, batches, tiny)
                    yield from guarded(f"{dataset.lengths.mean():.0f} tokens, {name}", work)
    for name, kernel, changes in KERNELS:
        if kernel:
            work = partial(disagreement, usual, device, tiny, kernel, changes.get("visit_distance_bias", True))
            yield from guarded(f"{name}: relative difference from fp32", work, "")


def compiled(device: str, tiny: bool) -> Iterator[Measurement | str]:
    """Measure steps as they are, with the encoder compiled, and as CUDA graphs of batches in buckets of lengths."""
    batch, count = (4, 3) if tiny else (256, 16)
    backend: dict[str, Any] = {"backend": "eager"} if tiny else {}
    graphs: dict[str, Any] = backend or {"mode": "reduce-overhead"}
    dataset = draw_patients(batch * (count + 4) if tiny else batch * 64, 300 if tiny else CODES)
    batches = padded_batches(dataset, batch, device, count, BUCKETS[-1])

    def in_bucket(of: Batch) -> Batch:
        length = of["input_ids"].shape[1]
        return padded_to(of, next(size for size in BUCKETS if size >= length))

    def steps(kernel: str | None = None, **options: Any) -> Steps:
        found = Steps(dataset, device, tiny, kernel)
        if options:
            found.model.bert.encoder.compile(**options)
        return found

    bucketed = [in_bucket(one) for one in batches]
    packed = packed_batches(dataset, batch, device, count)
    plain = partial(steps, dynamic=True, **backend)
    graph = partial(steps, dynamic=False, **graphs)
    yield from guarded("as it is", partial(rates, steps, batches, tiny))
    yield from guarded("as it is, in buckets", partial(rates, steps, bucketed, tiny))
    yield from guarded("compiled (--compile)", partial(rates, plain, batches, tiny))
    yield from guarded("CUDA graphs, in buckets", partial(rates, graph, bucketed, tiny))
    yield from guarded("CUDA graphs, packed, flex", partial(rates, partial(graph, "packed_flex"), packed, tiny))


def launches(device: str, tiny: bool) -> Iterator[Measurement | str]:
    """Measure what a step of usual length is made of: its time, that of its kernels, and how many are launched."""
    for batch in (4,) if tiny else (256, 1024):
        dataset = draw_patients(batch * 24, 300 if tiny else CODES)
        batches = padded_batches(dataset, batch, device, 2 if tiny else 12)
        steps = Steps(dataset, device, tiny, None)
        for _ in range(2):  # the first round does not count
            synchronize()
            start = time.perf_counter()
            for one in batches:
                steps.step(one)
            synchronize()
            seconds = (time.perf_counter() - start) / len(batches)
        with profile(
            activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
        ) as found:
            for one in batches:
                steps.step(one)
            synchronize()
        kernels = [event for event in found.events() if event.device_type != DeviceType.CPU]
        busy = sum(event.time_range.elapsed_us() for event in kernels)
        yield Measurement(f"batch {batch}: a step", [1e3 * seconds], "ms")
        yield Measurement(f"batch {batch}: kernels of a step", [len(kernels) / len(batches)], "")
        yield Measurement(f"batch {batch}: their time", [busy / len(batches) / 1e3], "ms")


PARTS: dict[str, Callable[[str, bool], Iterator[Measurement | str]]] = {
    "launches": launches,
    "attention": attention,
    "compile": compiled,
}
