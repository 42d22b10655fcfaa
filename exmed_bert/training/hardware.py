"""Number format, attention kernel, threads and compilation that suit the machine, measured where they can be."""

import ctypes
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.utils import is_flash_attn_2_available

from exmed_bert.console import OptionError
from exmed_bert.models import ExMedBertConfig

_FLOP_WORTH_THREADS = 10e6
# What is to be taken must be this much faster: a choice near the limit would change from run to run.
_BF16_GAIN = 1.25
_ONEDNN_GAIN = 1.25
_FP32_ERROR = 1e-5  # relative; fp32 products stay below, rounded ones do not
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # malloc.h: M_TRIM_THRESHOLD, M_MMAP_MAX
_COMPILERS = ("c++", "g++", "clang++", "cl")
_MKLDNN: Any = torch.backends.mkldnn  # puts its settings where its annotations do not show them


@dataclass(frozen=True)
class Choice:
    """A choice, and its reason in a few words for the log."""

    name: str
    reason: str


@dataclass(frozen=True)
class StepShape:
    """The sizes that decide how a training step is fastest.

    Attributes:
        codes: tokens per step and process, on average.
        hidden_size, intermediate_size: widths of the model.
    """

    codes: int
    hidden_size: int
    intermediate_size: int

    @property
    def is_small(self) -> bool:
        """Whether even the largest matrix product takes no longer than starting a thread for it.

        >>> StepShape(60, 64, 128).is_small, StepShape(560, 288, 512).is_small
        (True, False)
        """
        return 2 * self.codes * self.hidden_size * self.intermediate_size < _FLOP_WORTH_THREADS


def choose_precision(wanted: str, shape: StepShape) -> Choice:
    """Return ``fp32`` or ``bf16``; ``auto`` takes bf16 on GPUs that compute it, and on CPUs that are faster with it.

    Raises:
        OptionError: bf16 was asked for on a GPU that lacks it.
    """
    if torch.cuda.is_available():
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        if wanted == "bf16" and not has_bf16:
            raise OptionError("--precision: this GPU does not compute bf16, use fp32")
        if wanted == "auto":
            return Choice("bf16", "this GPU computes it") if has_bf16 else Choice("fp32", "this GPU has no bf16")
    if wanted != "auto":
        return Choice(wanted, "as asked for")
    if shape.is_small:
        return Choice("fp32", "the model is small")
    gain = _best_seconds(lambda: _feed_forward(shape, bf16=False)) / _best_seconds(
        lambda: _feed_forward(shape, bf16=True)
    )
    return Choice("bf16" if gain >= _BF16_GAIN else "fp32", f"bf16 takes {1 / gain:.1f} times as long here")


def choose_attention(config: ExMedBertConfig, precision: str) -> Choice:
    """Return the attention kernel that trains fastest.

    On a CPU the plain one with the cheap dropout. On a GPU flash attention, which leaves the padding out, where the
    package flash-attn is installed and the model's heads see no distances between visits; else torch's own (sdpa).
    """
    if not torch.cuda.is_available():
        return Choice("eager", "fastest on a CPU")
    if config.visit_distance_bias:
        return Choice("sdpa", "flash kernels take no distances between visits")
    if precision != "bf16":
        return Choice("sdpa", "flash kernels take no fp32")
    if not is_flash_attn_2_available():
        return Choice("sdpa", "flash-attn is not installed")
    return Choice("flash_attention_2", "leaves the padding out")


def best_device() -> torch.device:
    """Return this process's GPU, or the CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


_Model = TypeVar("_Model", bound=torch.nn.Module)


def on_best_device(model: _Model) -> _Model:
    """Move a model to `best_device`, in place, and return it."""
    torch.nn.Module.to(model, best_device())  # transformers' own `to` has no type that takes a device
    return model


def check_compiler() -> None:
    """Raise an OptionError where torch.compile has nothing to compile with."""
    if not torch.cuda.is_available() and not os.environ.get("CXX") and not any(map(shutil.which, _COMPILERS)):
        raise OptionError("--compile: found no C++ compiler (g++, clang++ or cl); install one, or train without")


@contextmanager
def hardware_settings(shape: StepShape, precision: str) -> Iterator[list[str]]:
    """Set threads and the libraries of matrix products and attention for a run; yield what was chosen, a line each.

    Small models run on one thread: handing a product that takes microseconds to several costs as much as it saves, and
    on a busy machine, where each waits for the slowest, many times more. ``OMP_NUM_THREADS`` overrides.

    Products that are sent to oneDNN are faster on some CPUs. Where these would compute them with rounded numbers, or
    no faster, they stay where they are.

    Memory that is freed stays with the process, also afterward.

    On GPUs torch's attention leaves cuDNN out, whose kernels are planned anew for each length of a batch.
    """
    _keep_freed_memory()
    threads, products = torch.get_num_threads(), _MKLDNN.matmul.fp32_precision
    with_cudnn = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(False)
    notes = []
    if not torch.cuda.is_available():
        if shape.is_small:
            if "OMP_NUM_THREADS" not in os.environ:
                torch.set_num_threads(1)
        elif precision == "fp32":
            notes.append(f"fp32 matrix products: {_choose_products(shape).reason}")
        notes.append(f"threads: {torch.get_num_threads()}")
    try:
        yield notes
    finally:
        torch.set_num_threads(threads)
        _MKLDNN.matmul.fp32_precision = products
        torch.backends.cuda.enable_cudnn_sdp(with_cudnn)


def _keep_freed_memory() -> None:
    """Have glibc keep what is freed for the next step; other allocators stay as they are.

    By default it returns large blocks to the system at each step and gets them back page by page, cleared.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_MMAP_MAX, 0)


def _choose_products(shape: StepShape) -> Choice:
    """Send fp32 products to oneDNN where that is as exact and faster; return where they go."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape.codes, shape.hidden_size, generator=generator)
    weight = torch.randn(shape.intermediate_size, shape.hidden_size, generator=generator)
    before = _MKLDNN.matmul.fp32_precision
    default = _best_seconds(lambda: F.linear(x, weight))
    _MKLDNN.matmul.fp32_precision = "bf16"
    gain = default / _best_seconds(lambda: F.linear(x, weight))
    exact = x.double() @ weight.double().T
    error = float((F.linear(x, weight) - exact).abs().max() / exact.abs().max())
    if error <= _FP32_ERROR and gain >= _ONEDNN_GAIN:
        return Choice("onednn", f"by oneDNN, {gain:.2f} times as fast, relative error {error:.0e}")
    _MKLDNN.matmul.fp32_precision = before
    return Choice("default", f"torch's own, oneDNN would be {gain:.2f} times as fast, relative error {error:.0e}")


def _feed_forward(shape: StepShape, bf16: bool) -> Tensor:
    """Go forward and backward through a feed-forward block of the model's shape."""
    wide = torch.ones(shape.intermediate_size, shape.hidden_size, requires_grad=True)
    narrow = torch.ones(shape.hidden_size, shape.intermediate_size, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        output = F.linear(F.linear(torch.ones(shape.codes, shape.hidden_size), wide), narrow)
    output.sum().backward()
    return output


def _best_seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Return the shortest of some repetitions, after one that does not count."""
    work()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
