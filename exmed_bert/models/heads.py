"""Heads: from hidden states to logits of codes and of prolonged stays. Parameter names are the original's."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.bert.modeling_bert import BertPredictionHeadTransform

from exmed_bert.data.vocabulary import SPECIAL_TOKENS
from exmed_bert.models.config import ExMedBertConfig

_CODES = 8.0  # about the square root of the codes of a history: their sum is divided by it
_AGES = 10.0  # the ages of the vocabulary become 0 to so much


class BagOfCodes(nn.Module):
    """A history without its order: the sum of its distinct codes' embeddings, and the age at its end.

    Attention averages: a code that occurs once among forty is a fortieth of its output. A sum keeps it.
    """

    def __init__(self, config: ExMedBertConfig) -> None:
        super().__init__()
        self.age_scale = _AGES / config.age_vocab_size

    def forward(self, input_ids: Tensor, embedded: Tensor, age_ids: Tensor | None) -> Tensor:
        """(B, L) codes, (B, L, hidden) their embeddings, (B, L) ages or None -> (B, hidden + 1)."""
        same = input_ids[:, :, None] == input_ids[:, None, :]
        earlier = torch.ones(same.shape[1:], dtype=torch.bool, device=same.device).tril(-1)
        repeated = (same & earlier).any(dim=2)  # stands earlier in the history, too
        counts = ~repeated & (input_ids >= len(SPECIAL_TOKENS))
        codes = (embedded * counts[:, :, None]).sum(dim=1) / _CODES
        ages = torch.zeros_like(input_ids) if age_ids is None else age_ids
        return torch.cat((codes, ages.amax(dim=1, keepdim=True).to(codes.dtype) * self.age_scale), dim=1)


class CodePredictionHead(nn.Module):
    """From hidden states to a logit for each code."""

    logit_mask: Tensor | None
    logit_offset: Tensor | None

    def __init__(self, config: ExMedBertConfig) -> None:
        super().__init__()
        self.transform = BertPredictionHeadTransform(config)
        self.decoder = nn.Linear(config.hidden_size, config.code_vocab_size)
        self.register_buffer("logit_mask", None, persistent=False)
        self.register_buffer("logit_offset", None, persistent=False)

    def mask_logits(self, ids: Tensor, random_ids: Tensor, offset: float) -> None:
        """Mask the logits of codes in training, which would push them down; in evaluation lower some of them.

        Args:
            ids: (k,) codes whose logits are masked in training.
            random_ids: (l,) those of them whose rows are random; evaluation lowers their logits.
            offset: by how much, in nats.
        """
        nothing = torch.zeros_like(self.decoder.bias.detach())
        self.logit_mask = nothing.index_fill(0, ids.to(nothing.device), -torch.inf)
        self.logit_offset = nothing.index_fill(0, random_ids.to(nothing.device), -offset)

    def unmask_logits(self) -> None:
        """Undo `mask_logits`."""
        self.logit_mask = self.logit_offset = None

    def states(self, hidden: Tensor, more: Tensor | None = None) -> Tensor:
        """Return what the codes' rows are compared with, (..., hidden); ``more``, (..., hidden), is added to it."""
        states = self.transform(hidden)
        return states if more is None else states + more

    def forward(self, hidden: Tensor, more: Tensor | None = None) -> Tensor:
        """(..., hidden) -> (..., V); ``more``, (..., hidden), is added to what the codes are compared with."""
        bias = self.decoder.bias
        offset = self.logit_mask if self.training else self.logit_offset
        return F.linear(self.states(hidden, more), self.decoder.weight, bias if offset is None else bias + offset)


class CodeClassifier(nn.Module):
    """Holds the head under the original's parameter names."""

    def __init__(self, config: ExMedBertConfig) -> None:
        super().__init__()
        self.predictions = CodePredictionHead(config)

    def forward(self, hidden: Tensor, more: Tensor | None = None) -> Tensor:
        """(..., hidden) -> (..., V), as `CodePredictionHead.forward`."""
        return self.predictions(hidden, more)


class PlosClassifier(nn.Module):
    """From the mean hidden state of a patient's real tokens to two scores: no prolonged stay, prolonged stay."""

    def __init__(self, config: ExMedBertConfig) -> None:
        super().__init__()
        self.los_classifier = nn.Linear(config.hidden_size, 2)

    def forward(self, hidden: Tensor, attention_mask: Tensor | None) -> Tensor:
        """(B, L, hidden) -> (B, 2)."""
        return self.los_classifier(mean_of_real(hidden, attention_mask))


def mean_of_real(hidden: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Return the mean hidden state of each patient's real tokens, (B, L, hidden) -> (B, hidden)."""
    if attention_mask is None:
        return hidden.mean(dim=1)
    real = attention_mask[:, :, None].to(hidden.dtype)
    return (hidden * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)
