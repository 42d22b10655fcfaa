"""Codes of the vocabulary that occur nowhere in the training data: novel ones above all.

Nothing in training speaks for them, and each step against: what is never the answer is pushed down wherever its
relatives are the answer. So they are left out of the guesses while training, and evaluations meanwhile take them for
rare. Afterwards each takes the place that its relatives, as trained, suggest: their embedding and their row in the code
head. The head then expects such codes more often than they come (docs/CLINVEC.md has the figures): the price for being
able to name them.
"""

from collections.abc import Sequence

import numpy as np
import torch

from exmed_bert.codes import CodeKey
from exmed_bert.models import ExMedBertForMaskedLM
from exmed_bert.training.initial_model import estimate_codes

# What a code's score loses against its relatives', in nats: as common as they are it is not, or it would have occurred.
_RARER = 1.0
_UNPLACED = 5.0  # the same before it takes its place; all of them together then get about what they deserve


class UnseenCodes:
    """The codes that occur nowhere in training, held back until `place` is called."""

    def __init__(
        self,
        model: ExMedBertForMaskedLM,
        keys: Sequence[CodeKey | None],
        counts: np.ndarray,
        pretrained: Sequence[int] = (),
    ) -> None:
        """Hold the codes back.

        Args:
            model: before training.
            keys: (code system, code) of each id, None for special tokens.
            counts: (V,) how often each id occurs in training.
            pretrained: ids that have learned their rows before; they keep them.
        """
        self._keys = keys
        medical = np.array([key is not None for key in keys])
        self.ids = np.flatnonzero(medical & (counts == 0))
        self._pretrained = np.intersect1d(self.ids, pretrained).astype(np.int64)
        self._known = np.union1d(np.flatnonzero(medical & (counts > 0)), self._pretrained)
        self._new = np.setdiff1d(self.ids, self._pretrained)
        if len(self.ids):
            ids, new = torch.from_numpy(self.ids), torch.from_numpy(self._new)
            model.code_classifier.predictions.mask_logits(ids, new, _UNPLACED)

    @torch.no_grad()
    def place(self, model: ExMedBertForMaskedLM, seed: int) -> None:
        """Give each code what its relatives suggest; those without relatives stay as they are."""
        model.code_classifier.predictions.release()
        if not len(self._new) or not len(self._known):
            return
        start = estimate_codes(model, self._keys, self._known.tolist(), seed)
        placed = torch.from_numpy(np.intersect1d(self._new, start.ids))
        model.code_classifier.predictions.decoder.bias[placed] -= _RARER
