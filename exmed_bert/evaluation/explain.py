"""Attributions of a patient's logit to its tokens: integrated gradients over the code embeddings.

Sundararajan, Taly and Yan, "Axiomatic attribution for deep networks", ICML 2017: the gradient of the logit, averaged
along the straight line from a baseline to the patient's embeddings, times the difference of the two. The attributions
of a patient add up to the difference between its logit and the baseline's; what they miss of it says whether the steps
were enough.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from exmed_bert.data.vocabulary import CodeVocabulary
from exmed_bert.evaluation.results import CodeAttribution

TOLERANCE = 0.01  # of the difference in logit that attributions may miss
FLOOR = 1e-3  # or so much in logits: the difference may itself be next to nothing

_FIRST_STEPS, _MOST_STEPS = 8, 256
_TOKENS = 2**15  # a pass, whatever the number of steps: more would need much memory and be no faster

LogitOf = Callable[[Tensor, Tensor], Tensor]
"""Embeddings (b, L, H) and which patients of the batch they are of (b,), to logits of label 1 (b,)."""


@dataclass(frozen=True)
class Attributions:
    """Contributions of each token of B patients to the logit.

    Attributes:
        tokens: (B, L) float64, 0 where padded.
        difference: (B,) logit of the patient minus that of the baseline.
        gap: (B,) sum of the attributions minus ``difference``.
        steps: (B,) points of the quadrature.
    """

    tokens: Tensor
    difference: Tensor
    gap: Tensor
    steps: Tensor

    @property
    def complete(self) -> Tensor:
        """(B,) whether the sum is within `TOLERANCE` of the difference, or within `FLOOR`."""
        return _complete(self.gap, self.difference)


def integrated_gradients(
    logit_of: LogitOf, embedded: Tensor, baseline: Tensor, real: Tensor, most_steps: int = _MOST_STEPS
) -> Attributions:
    """Attribute each patient's logit to its tokens, with twice the points where the sum is not yet right.

    The points are those of Gauss and Legendre, which a smooth path needs far fewer of than equal steps.

    Args:
        logit_of: the model behind its code embeddings, without dropout.
        embedded: (B, L, H) embeddings of the patients' codes.
        baseline: (B, L, H) embeddings that stand for no code.
        real: (B, L) bool, False where padded.
        most_steps: where doubling ends, whether complete or not.
    """
    way = (embedded - baseline).detach()
    everyone = torch.arange(len(embedded), device=embedded.device)
    with torch.no_grad():
        difference = (logit_of(embedded, everyone) - logit_of(baseline, everyone)).double()
    tokens = torch.zeros(real.shape, dtype=torch.float64, device=embedded.device)
    used = torch.zeros(len(embedded), dtype=torch.long, device=embedded.device)
    open_, steps = everyone, _FIRST_STEPS
    while True:
        mean = _mean_gradient(logit_of, baseline, way, open_, steps)
        tokens[open_] = torch.where(real[open_], (mean * way[open_]).sum(dim=-1).double(), 0.0)
        used[open_] = steps
        gap = tokens.sum(dim=1) - difference
        open_ = everyone[~_complete(gap, difference)]
        if not len(open_) or 2 * steps > most_steps:
            return Attributions(tokens, difference, gap, used)
        steps *= 2


def by_code(
    codes: np.ndarray, attributions: np.ndarray, patients: np.ndarray, vocabulary: CodeVocabulary, least: int = 1
) -> list[CodeAttribution]:
    """Sum attributions by code: in each patient over the code's occurrences, then the mean over patients who have it.

    Args:
        codes, attributions, patients: (tokens,) code id, attribution and patient of each real token.
        vocabulary: names the codes.
        least: patients a code must have.

    Returns:
        Codes by falling size of their mean; ties by id.
    """
    pair, place = np.unique(patients.astype(np.int64) * len(vocabulary) + codes, return_inverse=True)
    in_patient = np.bincount(place, weights=attributions, minlength=len(pair))
    code = pair % len(vocabulary)
    count = np.bincount(code, minlength=len(vocabulary))
    total = np.bincount(code, weights=in_patient, minlength=len(vocabulary))
    absolute = np.bincount(code, weights=np.abs(in_patient), minlength=len(vocabulary))
    found = np.flatnonzero(count >= max(least, 1))
    mean = total[found] / count[found]
    return [
        CodeAttribution(
            code=vocabulary.code(found[i]),
            entity=vocabulary.entity_names[vocabulary.entities[found[i]]],
            patients=int(count[found[i]]),
            mean=float(mean[i]),
            mean_absolute=float(absolute[found[i]] / count[found[i]]),
        )
        for i in np.argsort(-np.abs(mean), kind="stable")
    ]


def _mean_gradient(logit_of: LogitOf, baseline: Tensor, way: Tensor, patients: Tensor, steps: int) -> Tensor:
    """Return the gradient of the logit averaged over the path, for each of the b given patients, (b, L, H)."""
    points, weights = np.polynomial.legendre.leggauss(steps)  # on [-1, 1]
    at = torch.as_tensor((points + 1) / 2, dtype=way.dtype, device=way.device)
    weight = torch.as_tensor(weights / 2, dtype=way.dtype, device=way.device)
    mean = torch.zeros_like(way[patients])
    rows = torch.arange(len(patients) * steps, device=way.device)
    for block in rows.split(max(1, _TOKENS // way.shape[1])):
        place, step = block // steps, block % steps
        who = patients[place]
        point = (baseline[who].detach() + at[step, None, None] * way[who]).requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(logit_of(point, who).sum(), point)
        mean.index_add_(0, place, gradient * weight[step, None, None])
    return mean


def _complete(gap: Tensor, difference: Tensor) -> Tensor:
    return gap.abs() <= torch.clamp(TOLERANCE * difference.abs(), min=FLOOR)
