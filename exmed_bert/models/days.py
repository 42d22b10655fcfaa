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
    days, before = _last_days_exported(days) if torch.compiler.is_exporting() else _last_days(days)
    passed = torch.stack((days - before, days[:, -1:] - days))
    starts = torch.tensor(_STARTS, device=days.device)
    if torch.compiler.is_exporting():
        buckets = (passed[:, :, :, None] >= starts).sum(dim=3)
    else:
        buckets = torch.bucketize(passed, starts, right=True)
    return buckets + torch.tensor([0, BUCKETS], device=days.device)[:, None, None]


def _last_days(days: Tensor) -> tuple[Tensor, Tensor]:
    """Return the day of each token, where padded the last one, and that of the visit before; of the first its own."""
    days = days.cummax(dim=1).values
    first_of_day = torch.searchsorted(days, days)
    return days, days.gather(1, (first_of_day - 1).clamp_(min=0))


def _last_days_exported(days: Tensor) -> tuple[Tensor, Tensor]:
    """Return what `_last_days` does, in operations that ONNX has; slower, as every pair of tokens is compared."""
    earlier = torch.ones(days.shape[1], days.shape[1], dtype=torch.bool, device=days.device).tril()
    days = torch.where(earlier, days[:, None, :], days[:, :1, None]).amax(dim=2)
    below = days[:, None, :] < days[:, :, None]
    return days, torch.where(below, days[:, None, :], days[:, :1, None]).amax(dim=2)
