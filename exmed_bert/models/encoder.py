"""BERT's encoder (Devlin et al., 2019) with transformers' parameter names, in few and cheap operations.

Small models spend their time on starting operations, not in them: queries, keys and values are one matrix product,
dropout is added with the residual in one pass.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from exmed_bert.models.attention import kernel
from exmed_bert.models.config import ExMedBertConfig
from exmed_bert.models.dropout import add_dropped_out


class SelfAttention(nn.Module):
    """Multi-head self-attention up to the values that the heads put together."""

    def __init__(self, config: ExMedBertConfig) -> None:
        super().__init__()
        self.config = config
        self.heads = config.num_attention_heads
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout_probability = config.attention_probs_dropout_prob
        self.scaling = (config.hidden_size // self.heads) ** -0.5
        self.is_causal = False  # read by transformers' kernels

    def forward(self, hidden: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(B, L, hidden) -> the same, and the weights where the kernel gives them."""
        batch, length, size = hidden.shape
        parts = (self.query, self.key, self.value)
        weight, offset = torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts])
        projected = F.linear(hidden, weight, offset).view(batch, length, 3, self.heads, size // self.heads)
        query, key, value = projected.permute(2, 0, 3, 1, 4).contiguous().unbind(0)
        dropout = self.dropout_probability if self.training else 0.0
        attend = kernel(self.config._attn_implementation)
        attended, weights = attend(self, query, key, value, bias, scaling=self.scaling, dropout=dropout)
        return attended.reshape(batch, length, size), weights


class ResidualOutput(nn.Module):
    """A projection, added to what went into the block, normalized."""

    def __init__(self, config: ExMedBertConfig, in_features: int) -> None:
        super().__init__()
        self.dense = nn.Linear(in_features, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout_probability = config.hidden_dropout_prob

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """(B, L, in_features), (B, L, hidden) -> (B, L, hidden)."""
        probability = self.dropout_probability if self.training else 0.0
        return self.LayerNorm(add_dropped_out(residual, self.dense(x), probability))


class Attention(nn.Module):
    """The attention block."""

    def __init__(self, config: ExMedBertConfig) -> None:
        super().__init__()
        self.self = SelfAttention(config)
        self.output = ResidualOutput(config, config.hidden_size)

    def forward(self, hidden: Tensor, bias: Tensor | None, weights: list[Tensor | None] | None = None) -> Tensor:
        """(B, L, hidden) -> the same; the weights are appended where a list for them is given."""
        attended, own = self.self(hidden, bias)
        if weights is not None:
            weights.append(own)
        return self.output(attended, hidden)


class Intermediate(nn.Module):
    """The wide layer of the feed-forward block."""

    def __init__(self, config: ExMedBertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, L, hidden) -> (B, L, intermediate)."""
        return self.activation(self.dense(hidden))


class EncoderLayer(GradientCheckpointingLayer):
    """An attention block and a feed-forward block."""

    def __init__(self, config: ExMedBertConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.intermediate = Intermediate(config)
        self.output = ResidualOutput(config, config.intermediate_size)

    def forward(self, hidden: Tensor, bias: Tensor | None, weights: list[Tensor | None] | None = None) -> Tensor:
        """(B, L, hidden) -> the same; ``bias`` as `attention.attention_bias` returns it."""
        attended = self.attention(hidden, bias, weights)
        return self.output(self.intermediate(attended), attended)


class Encoder(nn.Module):
    """The layers one after another."""

    def __init__(self, config: ExMedBertConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_hidden_layers))

    def forward(
        self,
        hidden: Tensor,
        bias: Tensor | None,
        states: list[Tensor] | None = None,
        weights: list[Tensor | None] | None = None,
    ) -> Tensor:
        """(B, L, hidden) -> the same; under autocast in its type.

        Args:
            hidden: what the layers start from.
            bias: as `attention.attention_bias` returns it.
            states: takes what goes into each layer, and what comes out of the last, (B, L, hidden) each.
            weights: takes each layer's attention weights, (B, heads, L, L), None of a kernel that gives none.
        """
        device = hidden.device.type
        if torch.is_autocast_enabled(device):  # or each residual would be carried in fp32 and cast for each product
            hidden = hidden.to(torch.get_autocast_dtype(device))
        for layer in self.layer:
            if states is not None:
                states.append(hidden)
            hidden = layer(hidden, bias) if weights is None else layer(hidden, bias, weights)
        if states is not None:
            states.append(hidden)
        return hidden
