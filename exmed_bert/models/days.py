"""The days between visits, in the forms in which a model sees them: differences alone, so that no date shows."""

import torch
from torch import Tensor
from torch.nn import functional as F

_STARTS = sorted({round(2 ** (half / 2)) for half in range(31)})  # two a doubling, up to 90 years
BUCKETS = len(_STARTS) + 1
STEEPEST, FLATTEST = 1.5, 0.45  # powers of the days between, with which attention falls
_BY_VISITS = 2  # heads that look at visits: one at all of them alike, one at its own


def day_powers(heads: int) -> list[float]:
    """Return with which power of the days between two tokens the attention of the heads beyond the second falls.

    >>> day_powers(2), day_powers(4)
    ([], [1.5, 0.45])
    """
    count = max(heads - _BY_VISITS, 0)
    ratio = (FLATTEST / STEEPEST) ** (1 / max(count - 1, 1))
    return [STEEPEST * ratio**head for head in range(count)]


def log_days_between(days: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the logarithms of one plus the days between any two tokens, (B, L) -> (B, L, L)."""
    return (days[:, None, :] - days[:, :, None]).abs().to(dtype).log1p()


def until_end(days: Tensor) -> Tensor:
    """Return the bucket of the days from each token to the patient's last, (B, L) -> (B, L).

    The last is the query where there is one, so that a history shows how long ago all of it was.

    >>> until_end(torch.tensor([[0, 30, 33, 33]])).tolist()
    [[10, 3, 0, 0]]
    """
    return _buckets(days.amax(dim=1, keepdim=True) - days)


def since_previous_visit(days: Tensor, visit_ids: Tensor) -> Tensor:
    """Return the bucket of the days from the visit before to each token's, (B, L), (B, L) -> (B, L); 0 at the first.

    >>> since_previous_visit(torch.tensor([[0, 30, 30, 33]]), torch.tensor([[1, 2, 2, 3]])).tolist()
    [[0, 9, 9, 3]]
    """
    begins = F.pad(visit_ids[:, 1:] != visit_ids[:, :-1], (1, 0))
    steps = F.pad(days[:, 1:] - days[:, :-1], (1, 0))
    first_token = (torch.arange(days.shape[1], device=days.device) * begins).cummax(dim=1).values
    return _buckets(steps.gather(1, first_token))


def _buckets(days: Tensor) -> Tensor:
    """Return the numbers of buckets, 0 for less than a day."""
    return torch.bucketize(days, torch.tensor(_STARTS, device=days.device), right=True)
