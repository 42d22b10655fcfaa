"""Codes of the vocabulary that do not occur in the training data, novel codes above all.

A code that is never a label is pushed down at each step whose label is one of its relatives. So the logits of unseen
codes are masked in training, and lowered by a constant in evaluations meanwhile. After training each gets an embedding
and a row of the code head that are estimated from its relatives' trained ones. The head then predicts such codes more
often than they occur (docs/CLINVEC.md has the figures): the price of being able to predict them at all.
"""

from collections.abc import Sequence

import numpy as np
import torch

from exmed_bert.codes import CodeKey
from exmed_bert.models import ExMedBertForMaskedLM
from exmed_bert.training.initial_model import estimate_codes

# How much the logit of an unseen code is lowered, in nats: were it as common as its relatives, it would have occurred.
_ESTIMATED_OFFSET = 1.0  # once its row is estimated
_RANDOM_OFFSET = 5.0  # before: all of them together then get about the probability that they should have


class UnseenCodes:
    """The codes that do not occur in training; their logits are masked until `estimate` is called."""

    def __init__(
        self,
        model: ExMedBertForMaskedLM,
        keys: Sequence[CodeKey | None],
        counts: np.ndarray,
        pretrained: Sequence[int] = (),
    ) -> None:
        """Mask the codes' logits.

        Args:
            model: before training.
            keys: (code system, code) of each id, None for special tokens.
            counts: (V,) how often each id occurs in training.
            pretrained: ids whose rows an earlier pretraining has trained; they keep them.
        """
        self._keys = keys
        medical = np.array([key is not None for key in keys])
        self.ids = np.flatnonzero(medical & (counts == 0))
        self._pretrained = np.intersect1d(self.ids, pretrained).astype(np.int64)
        self._known = np.union1d(np.flatnonzero(medical & (counts > 0)), self._pretrained)
        self._new = np.setdiff1d(self.ids, self._pretrained)
        if len(self.ids):
            ids, new = torch.from_numpy(self.ids), torch.from_numpy(self._new)
            model.code_classifier.predictions.mask_logits(ids, new, _RANDOM_OFFSET)

    @torch.no_grad()
    def estimate(self, model: ExMedBertForMaskedLM, seed: int) -> None:
        """Estimate each code's rows from its relatives' and unmask its logit; codes without relatives stay random."""
        model.code_classifier.predictions.unmask_logits()
        if not len(self._new) or not len(self._known):
            return
        start = estimate_codes(model, self._keys, self._known.tolist(), seed)
        estimated = torch.from_numpy(np.intersect1d(self._new, start.ids))
        model.code_classifier.predictions.decoder.bias[estimated] -= _ESTIMATED_OFFSET
