"""Dropout from random bytes: torch's own takes a seventh of a training step on a CPU."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

_LEVELS = 256  # of a byte


def dropout(x: Tensor, probability: float) -> Tensor:
    """Return ``x`` with entries set to zero at random and the others scaled up, so that the mean stays.

    On a CPU a byte decides each entry, so the probability is the nearest multiple of 1/256; the scale fits it. The
    bytes come from torch's default generator, whose state a checkpoint holds.
    """
    if _by_torch(x):
        return F.dropout(x, probability)
    dropped = round(probability * _LEVELS)
    return x * _kept(x, dropped).mul_(_LEVELS / (_LEVELS - dropped)) if dropped else x


def add_dropped_out(residual: Tensor, x: Tensor, probability: float) -> Tensor:
    """Return ``residual + dropout(x)``, on a CPU in one pass."""
    if _by_torch(x):
        return residual + F.dropout(x, probability)
    dropped = round(probability * _LEVELS)
    if not dropped:
        return residual + x
    return torch.addcmul(residual, x, _kept(x, dropped), value=_LEVELS / (_LEVELS - dropped))


def _by_torch(x: Tensor) -> bool:
    return x.device.type != "cpu" or torch.compiler.is_compiling()  # compiled, torch's own is fused and cheap


def _kept(x: Tensor, dropped: int) -> Tensor:
    """Return a tensor like ``x`` of ones, with zeros at random: ``dropped`` of 256."""
    count = math.prod(x.shape)
    random = torch.empty(-(-count // 8), dtype=torch.int64).random_(torch.iinfo(torch.int64).min, None)
    # Compared straight into numbers: a comparison of bytes into booleans is several times slower.
    kept = torch.empty(count, dtype=x.dtype)
    return torch.ge(random.view(torch.uint8)[:count], dropped, out=kept).view(x.shape)
