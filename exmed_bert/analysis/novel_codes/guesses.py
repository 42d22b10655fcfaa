"""What a model takes masked codes for: of each code the guesses with the highest probability on average."""

from collections import defaultdict

import numpy as np
import torch

Guesses = dict[int, list[tuple[int, float]]]
"""By code the likeliest others or itself, each with its mean probability, the highest first."""

_KEPT = 5  # of a position
_TOLD = 3  # of a code


class GuessCounter:
    """Collects the guesses at masked positions of some codes; `evaluation.masked_codes.predict` may look through it.

    Args:
        wanted: (V,) bool by code id.
    """

    def __init__(self, wanted: np.ndarray) -> None:
        self._wanted = torch.from_numpy(wanted)
        self._sums: defaultdict[int, defaultdict[int, float]] = defaultdict(lambda: defaultdict(float))
        self._positions: defaultdict[int, int] = defaultdict(int)

    def __call__(self, labels: torch.Tensor, logits: torch.Tensor) -> None:
        """Take the labels (m,) and logits (m, V) of masked positions."""
        chosen = self._wanted.to(labels.device)[labels]
        if not chosen.any():
            return
        found = logits[chosen].softmax(dim=1).topk(min(_KEPT, logits.shape[1]), dim=1)
        for label, ids, shares in zip(
            labels[chosen].tolist(), found.indices.tolist(), found.values.tolist(), strict=True
        ):
            self._positions[label] += 1
            for code, share in zip(ids, shares, strict=True):
                self._sums[label][code] += share

    def guesses(self) -> Guesses:
        """Return the guesses by code id; a guess counts 0 where it is not among a position's likeliest."""
        return {
            label: [
                (code, total / self._positions[label])
                for code, total in sorted(sums.items(), key=lambda item: (-item[1], item[0]))[:_TOLD]
            ]
            for label, sums in self._sums.items()
        }
