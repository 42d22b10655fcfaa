"""Piecewise-exponential hazards: constant within each bin of days, exact for any censoring and any horizon.

Friedman, "Piecewise exponential models for survival data with covariates", Annals of Statistics 10 (1982). With
competing events each cause has a hazard of its own, and whatever else ends the follow-up censors it (Prentice et al.,
Biometrics 34, 1978): the log-likelihoods of the causes add up, and the cumulative incidence of each follows from all.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

BIN_ENDS = (30.0, 90.0, 180.0, 365.0, 730.0)
"""Days at which all bins but the last end; the last goes on without end."""


@dataclass(frozen=True)
class HazardBins:
    """Bins (0, e1], (e1, e2], ..., (eK-1, infinity) of days; K of them.

    Attributes:
        ends: of all bins but the last, rising, above 0.
    """

    ends: tuple[float, ...] = BIN_ENDS

    def __post_init__(self) -> None:
        """Raise a ValueError where the ends do not rise from above 0."""
        if any(end <= start for start, end in zip((0.0, *self.ends), self.ends, strict=False)):
            raise ValueError(f"ends of bins {list(self.ends)}, expected days above 0 that rise")

    def __len__(self) -> int:
        return len(self.ends) + 1

    @classmethod
    def cut_to(cls, longest: float, ends: Sequence[float] = BIN_ENDS) -> "HazardBins":
        """Return the bins that begin before the longest follow-up, in days; the last of them has no end."""
        return cls(tuple(end for end in ends if end < longest))

    def of(self, days: Tensor) -> Tensor:
        """Return the bin of each day, (...) -> (...) int64; a day at an end is still in the bin that ends there."""
        return torch.bucketize(days.to(torch.float64), torch.tensor(self.ends, dtype=torch.float64, device=days.device))

    def exposure(self, days: Tensor) -> Tensor:
        """Return how many days of a follow-up fall into each bin, (...) -> (..., K), in float32 at least."""
        days = days if days.is_floating_point() else days.float()
        edges = days.new_tensor((0.0, *self.ends))
        widths = days.new_tensor((*self.ends, torch.inf)) - edges
        return torch.minimum((days[..., None] - edges).clamp(min=0), widths)


def log_likelihood(log_hazards: Tensor, exposure: Tensor, bins: Tensor, happened: Tensor) -> Tensor:
    """Return the log-likelihood of the follow-up of one cause, (...), in nats.

    Args:
        log_hazards: (..., K) per day.
        exposure: (..., K) days in each bin, `HazardBins.exposure` of the end of follow-up.
        bins: (...) int64, the bin of that end, `HazardBins.of`.
        happened: (...) bool, whether the follow-up ended by this cause.
    """
    at_end = log_hazards.gather(-1, bins[..., None])[..., 0]
    return torch.where(happened, at_end, 0) - (log_hazards.exp() * exposure).sum(dim=-1)


def cumulative_incidence(log_hazards: Tensor, bins: HazardBins, horizons: Tensor) -> Tensor:
    """Return the probability of each cause by each horizon, before any other cause, (..., C, K) -> (..., C, H).

    Args:
        log_hazards: of C causes per day; one cause alone gives one minus its survival.
        bins: K of them.
        horizons: (H,) days, in any order.
    """
    hazards = log_hazards.exp()  # (..., C, K)
    total = hazards.sum(dim=-2)  # (..., K)
    exposure = bins.exposure(horizons.to(total))  # (H, K)
    cumulative = total[..., None, :] * exposure  # (..., H, K) of any cause within each bin
    free = (cumulative - cumulative.cumsum(dim=-1)).exp()  # of all causes until the bin begins
    # The share of the days of a bin that is lived free of all causes; in the limit of no hazard, the whole.
    small = cumulative < 1e-6
    lived = torch.where(small, 1 - cumulative / 2, -torch.expm1(-cumulative) / cumulative.where(~small, 1))
    return hazards @ (free * lived * exposure).transpose(-1, -2)


def log_rates(events: Tensor, days: Tensor) -> Tensor:
    """Return the log of events per day in each bin, (..., K): what maximizes the likelihood without predictors.

    Half an event and as many days as it takes at the rate of all bins are added to each, so that none is without rate.

    Args:
        events: (..., K) that happened in each bin.
        days: (..., K) that were lived in it, by people who could have had one; weighted, where hazards are multiplied.
    """
    rate = (events.sum(dim=-1, keepdim=True) + 0.5) / days.sum(dim=-1, keepdim=True).clamp(min=1)
    return ((events + 0.5) / (days + 0.5 / rate)).log()
