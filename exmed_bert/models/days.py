"""The days between visits, in the forms in which a model sees them: differences alone, so that no date shows."""

import torch
from torch import Tensor

_STARTS = sorted({round(2 ** (half / 2)) for half in range(31)})  # two a doubling, up to 90 years
BUCKETS = len(_STARTS) + 1
STEEPEST, FLATTEST = 1.5, 0.45  # powers of the days between, with which attention falls
_BY_VISITS = 2  # heads that look at visits: one at all of them alike, one at its own


def day_powers(heads: int) -> list[float]:
    """Return with which power of the days between two tokens the attention of the heads beyond the second falls.

    >>> day_powers(2), [round(power, 2) for power in day_powers(4)]
    ([], [1.5, 0.45])
    """
    count = max(heads - _BY_VISITS, 0)
    ratio = (FLATTEST / STEEPEST) ** (1 / max(count - 1, 1))
    return [STEEPEST * ratio**head for head in range(count)]


def log_days_between(days: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the logarithms of one plus the days between any two tokens, (B, L) -> (B, L, L)."""
    return (days[:, None, :] - days[:, :, None]).abs().to(dtype).log1p()


def day_ids(days: Tensor) -> Tensor:
    """Return the ids of what each token shows of days, (B, L) -> (2, B, L), from two ranges of `BUCKETS` each.

    First, how many days before the patient had been seen last; second, how many it is before the patient's last token,
    which is the query where there is one, so that a history shows how long ago all of it was.

    Args:
        days: since the patient's first visit, rising, 0 where padded.

    >>> day_ids(torch.tensor([[0, 30, 30, 33, 0]])).tolist()
    [[[0, 9, 9, 3, 3]], [[41, 34, 34, 31, 31]]]
    """
    days = days.cummax(dim=1).values  # the last day where padded
    first_of_day = torch.searchsorted(days, days)
    before = days.gather(1, (first_of_day - 1).clamp_(min=0))
    passed = torch.stack((days - before, days[:, -1:] - days))
    buckets = torch.bucketize(passed, torch.tensor(_STARTS, device=days.device), right=True)
    buckets[1] += BUCKETS
    return buckets
