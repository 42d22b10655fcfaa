"""Attention: what is added to its logits, and the plain kernel. Others come through transformers' interface."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from exmed_bert.models.config import ExMedBertConfig, visit_slopes
from exmed_bert.models.days import day_powers, log_days_between
from exmed_bert.models.dropout import dropout as cheap_dropout


def kernel(name: str) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """Return the attention kernel that transformers knows by a name; ``eager`` is `plain_attention`."""
    return plain_attention if name == "eager" else ALL_ATTENTION_FUNCTIONS[name]


def attention_bias(
    config: ExMedBertConfig,
    attention_mask: Tensor | None,
    visit_ids: Tensor | None,
    embedded: Tensor,
    visit_days: Tensor | None = None,
) -> Tensor | None:
    """Return padding and visit distances in the form that the configured kernel takes.

    Args:
        config: names the kernel, and says whether heads see the distances between visits.
        attention_mask: (B, L), 1 at real tokens.
        visit_ids: (B, L), visit numbers.
        embedded: (B, L, hidden), gives type and device.
        visit_days: (B, L), days of the visits; not looked at where the configuration knows no days.

    Returns:
        What is added to the logits, (B, heads, L, L) or (B, 1, 1, L); for sdpa without distances the same as truth
        values; for a flash kernel the mask as it is, since it leaves padding out; None where nothing is to be added.

    Raises:
        ValueError: a flash kernel was chosen, which knows no distances between visits.
    """
    name = config._attn_implementation
    if "flash" in name:
        if config.visit_distance_bias:
            raise ValueError(f"visit_distance_bias: attention kernel {name!r} does not take it, expected sdpa or eager")
        return attention_mask
    if attention_mask is None and not config.visit_distance_bias:
        return None
    dtype, device = embedded.dtype, embedded.device
    if attention_mask is None:
        attention_mask = torch.ones(embedded.shape[:2], device=device)
    allowed = attention_mask.bool()[:, None, None, :]
    if config.visit_distance_bias:
        visits = torch.zeros_like(attention_mask) if visit_ids is None else visit_ids
        distances = (visits[:, None, None, :] - visits[:, None, :, None]).abs().to(dtype)  # (B, 1, L, L)
        by_day = day_powers(config.num_attention_heads) if config.visit_days else []
        by_visit = visit_slopes(config.num_attention_heads)[: config.num_attention_heads - len(by_day)]
        bias = distances * -_column(by_visit, distances)
        if by_day:
            assert visit_days is not None  # the model has looked
            logs = log_days_between(visit_days, dtype)[:, None]
            bias = torch.cat((bias, logs * -_column(by_day, logs)), dim=1)
    elif name == "sdpa":
        return allowed
    else:
        bias = torch.zeros_like(allowed, dtype=dtype)
    return bias.masked_fill(~allowed, torch.finfo(dtype).min)


def _column(slopes: list[float], like: Tensor) -> Tensor:
    """Return (heads,) slopes as (heads, 1, 1)."""
    return torch.tensor(slopes, dtype=like.dtype, device=like.device)[:, None, None]


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
    """Softmax attention in so many words: what training takes on a CPU, for its cheap dropout.

    Args:
        module: not used; the interface's.
        query, key, value: (B, heads, L, size).
        attention_mask: added to the logits, (B, heads or 1, L or 1, L).
        scaling: factor of the logits.
        dropout: probability that a weight is dropped.

    Returns:
        (B, L, heads, size), and the weights, (B, heads, L, L).
    """
    batch, heads, length, _size = query.shape
    query, key, value = (x.flatten(0, 1) for x in (query, key, value))
    if attention_mask is None:
        scores = torch.bmm(query, key.transpose(1, 2)) * scaling
    else:
        bias = attention_mask.expand(-1, heads, -1, -1).flatten(0, 1)
        scores = torch.baddbmm(bias, query, key.transpose(1, 2), alpha=scaling)
    weights = torch.softmax(scores, dim=-1)
    if dropout:
        weights = cheap_dropout(weights, dropout)
    attended = torch.bmm(weights, value).view(batch, heads, length, -1).transpose(1, 2)
    return attended, weights.view(batch, heads, length, length)
