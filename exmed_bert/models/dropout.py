"""Dropout from random bytes, and attention with it: torch's own takes a seventh of a training step on a CPU."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface

PLAIN_ATTENTION = "exmed_bert_plain"  # name of `plain_attention` among transformers' kernels
_LEVELS = 256  # of a byte


def dropout(x: Tensor, probability: float) -> Tensor:
    """Return ``x`` with entries set to zero at random and the others scaled up, so that the mean stays.

    On a CPU a byte decides each entry, so the probability is the nearest multiple of 1/256; the scale fits it. The
    bytes come from torch's default generator, whose state a checkpoint holds.
    """
    if x.device.type != "cpu":
        return F.dropout(x, probability)
    dropped = round(probability * _LEVELS)
    if dropped == 0:
        return x
    count = x.numel()
    random = torch.empty(-(-count // 8), dtype=torch.int64).random_(torch.iinfo(torch.int64).min, None)
    kept = random.view(torch.uint8)[:count].view(x.shape) >= dropped
    return x * kept.to(x.dtype).mul_(_LEVELS / (_LEVELS - dropped))


class Dropout(nn.Dropout):
    """`dropout` while training."""

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return dropout(x, self.p) if self.training else x


def use_in(module: nn.Module) -> None:
    """Put `Dropout` in the place of torch's in a module and all below it."""
    for name, child in module.named_children():
        if type(child) is nn.Dropout:
            setattr(module, name, Dropout(child.p))
        else:
            use_in(child)


def plain_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **_: object,
) -> tuple[Tensor, Tensor]:
    """Softmax attention in so many words: (B, heads, L, size) each, the mask is added; returns (B, L, heads, size).

    With dropout torch's own kernel takes the same steps on a CPU, with the slow dropout.
    """
    scores = query @ key.transpose(2, 3) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = torch.softmax(scores, dim=-1)
    if dropout:
        weights = _dropout(weights, dropout)
    return (weights @ value).transpose(1, 2).contiguous(), weights


_dropout = dropout  # the keyword of that name is transformers'
AttentionInterface.register(PLAIN_ATTENTION, plain_attention)
