"""Codes of the vocabulary that do not occur in the training data, novel codes above all.

A code that is never a label is pushed down at each step whose label is one of its relatives. So the logits of unseen
codes are masked in training. For evaluations and in the written model they are lowered by one offset. Good and Turing
estimate the probability of all of them together as the share of what occurred once (Good, 1953). So it would be if the
patients to come were as those before; but a code that a vocabulary holds and its patients do not have is often a new
one, so they get ten times that (docs/CLINVEC.md has the price).
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from exmed_bert.codes import CodeKey
from exmed_bert.models import ExMedBertForMaskedLM
from exmed_bert.training.initial_model import estimate_codes

_RANGE = 30.0  # nats, in which the offset is sought
_MORE_LIKELY = 10.0  # than Good and Turing estimate
_MOST = 0.5  # of the probability, in tiny data


class UnseenCodes:
    """The codes that do not occur in training.

    Attributes:
        ids: (u,) those that no earlier pretraining knew.
        offset: what their logits are lowered by in evaluation, in nats.
        mass: the probability that they get together, on average over masked codes.
    """

    def __init__(
        self,
        model: ExMedBertForMaskedLM,
        keys: Sequence[CodeKey | None],
        counts: np.ndarray,
        pretrained: Sequence[int] = (),
    ) -> None:
        """Mask the codes' logits in training.

        Args:
            model: before training.
            keys: (code system, code) of each id, None for special tokens.
            counts: (V,) how often each id occurs in training.
            pretrained: ids whose rows an earlier pretraining has trained; evaluations take them as they are.
        """
        self._keys = keys
        medical = np.array([key is not None for key in keys])
        absent = np.flatnonzero(medical & (counts == 0))
        self.ids = np.setdiff1d(absent, pretrained).astype(np.int64)
        self._known = np.setdiff1d(np.flatnonzero(medical), self.ids)
        once, all_codes = int((counts[medical] == 1).sum()), int(counts[medical].sum())
        self.mass = min(_MORE_LIKELY * max(once, 0.5) / max(all_codes, 1), _MOST)
        self._head = model.code_classifier.predictions
        self._absent = torch.from_numpy(absent)
        self.offset = 0.0
        self.lower(0.0)

    def lower(self, offset: float) -> None:
        """Mask the codes' logits in training, and lower them by an offset in evaluation."""
        self.offset = offset
        if len(self._absent):
            self._head.mask_logits(self._absent, torch.from_numpy(self.ids), offset)

    @torch.no_grad()
    def log_odds(
        self, model: ExMedBertForMaskedLM, batches: Iterable[dict[str, torch.Tensor]], device: torch.device
    ) -> np.ndarray:
        """Return the log odds that a masked code is an unseen one, (n,) at all masked positions, without the offset."""
        found = []
        unseen = torch.zeros(len(self._keys), dtype=torch.bool, device=device)
        unseen[torch.from_numpy(self.ids).to(device)] = True
        was_training = model.training
        model.eval()
        for batch in batches:
            logits = model(**{name: tensor.to(device) for name, tensor in batch.items()}).masked_logits.float()
            odds = logits[:, unseen].logsumexp(dim=1) - logits[:, ~unseen].logsumexp(dim=1)
            found.append(odds.double().cpu().numpy() + self.offset)
        model.train(was_training)
        return np.concatenate(found) if found else np.empty(0)

    @torch.no_grad()
    def estimate(self, model: ExMedBertForMaskedLM, seed: int) -> None:
        """Estimate each code's rows from its relatives' in a model whose codes are no sums over the trees."""
        if len(self.ids) and len(self._known):
            estimate_codes(model, self._keys, self._known.tolist(), seed)

    def lowered(self, bias: torch.Tensor) -> torch.Tensor:
        """Return the bias of the code head, (V,), with which the offset is no longer needed."""
        ids = torch.from_numpy(self.ids).to(bias.device)
        return bias.index_add(0, ids, torch.full((len(ids),), -self.offset).to(bias))

    def calibrate(self, log_odds: np.ndarray) -> None:
        """Lower the logits so that the codes get their mass."""
        low, high = -_RANGE, _RANGE
        while high - low > 1e-4:
            middle = (low + high) / 2
            too_likely = float((1 / (1 + np.exp(middle - log_odds))).mean()) > self.mass
            low, high = (middle, high) if too_likely else (low, middle)
        self.lower(low)
