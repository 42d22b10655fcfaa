"""Forecasts: hazards of the first occurrence of every code, group of codes, and death, from the state at a query.

All codes at once are many, and hazards are as many again for each bin of days. So a forecast is of low rank: each bin
scales and shifts the state, and the rows of the code head are compared with the result. The log-likelihood takes the
pairs of a forecast and a bin in chunks.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import initialization as init

from exmed_bert.data.masking import IGNORED
from exmed_bert.data.vocabulary import SPECIAL_TOKENS
from exmed_bert.models.config import ExMedBertConfig
from exmed_bert.models.hazards import HazardBins, cumulative_incidence

_RARE = -14.0  # log hazard a day of what is not known to occur: once in 3,000 years
_CERTAIN = 5.0  # log hazard a day at which all is decided within hours; fine-tuning may go beyond what exp can take
_LEAST_RISK = 1e-9


@dataclass(frozen=True)
class FollowedUp:
    """What followed the prediction times of n forecasts.

    Attributes:
        observed: (n,) days of observation.
        targets: (n, J) ids of codes, of groups after these, and of death after the groups, which are not at risk for
            all of these days; -100 beyond the last.
        days: (n, J) days until they occurred for the first time; 0: they are not at risk at all.
    """

    observed: Tensor
    targets: Tensor
    days: Tensor

    @property
    def happened(self) -> Tensor:
        """(n, J) whether a target occurred."""
        return (self.targets != IGNORED) & (self.days > 0)


class ForecastHead(nn.Module):
    """From a bag of codes to what is added to the state at the query of a forecast, and from that to hazards.

    Groups of codes and death, which are in no vocabulary, have rows of their own. Models of earlier releases have the
    layer ``history`` alone.
    """

    def __init__(self, config: ExMedBertConfig) -> None:
        super().__init__()
        self.history = nn.Linear(config.hidden_size + 1, config.hidden_size)
        if config.forecasts_hazards:
            assert config.hazard_bin_ends is not None
            self.bins = HazardBins(tuple(config.hazard_bin_ends))
            groups = len(config.forecast_groups) + 1  # death is the last
            self.bin_scale = nn.Parameter(torch.empty(len(self.bins), config.hidden_size))
            self.bin_shift = nn.Parameter(torch.empty(len(self.bins), config.hidden_size))
            self.bin_bias = nn.Parameter(torch.empty(len(self.bins)))
            self.code_bias = nn.Parameter(torch.empty(config.code_vocab_size))
            self.group_rows = nn.Parameter(torch.empty(groups, config.hidden_size))
            self.group_bias = nn.Parameter(torch.empty(groups))

    def initialize(self) -> None:
        """Set the parameters of the hazards: rare, alike for all, and constant over time."""
        if hasattr(self, "bins"):
            init.ones_(self.bin_scale)
            for parameter in (self.bin_shift, self.bin_bias, self.group_rows):
                init.zeros_(parameter)
            for parameter in (self.code_bias, self.group_bias):
                init.constant_(parameter, _RARE)

    def forward(self, bag: Tensor) -> Tensor:
        """(B, hidden + 1) as `BagOfCodes` gives it -> (B, hidden)."""
        return self.history(bag)

    def of_bins(self, states: Tensor) -> Tensor:
        """(B, hidden) -> (B, K, hidden)."""
        return states[:, None] * self.bin_scale + self.bin_shift

    def log_hazards(self, states: Tensor, targets: list[int], code_rows: Tensor) -> Tensor:
        """Return the log hazards of some targets and, last, of death, (B, m + 1, K) per day.

        Args:
            states: (B, hidden).
            targets: m ids of codes, and of groups after these.
            code_rows: (V, hidden) of the code head.
        """
        size = len(code_rows)
        codes = [target for target in targets if target < size]
        groups = [*(target - size for target in targets if target >= size), len(self.group_rows) - 1]
        rows = torch.cat((code_rows[codes], self.group_rows[groups]))
        bias = torch.cat((self.code_bias[codes], self.group_bias[groups]))
        logits = F.linear(self.of_bins(states), rows).float() + bias + self.bin_bias[:, None]  # (B, K, m + 1)
        return logits.transpose(1, 2)

    def log_odds(self, states: Tensor, targets: list[int], code_rows: Tensor, days: tuple[float, float]) -> Tensor:
        """Return the log odds that a target occurs for the first time within a horizon, before death, (B,).

        The targets' hazards are added up: what of them occurs together is to be one target, a group.

        Args:
            states, targets, code_rows: as in `log_hazards`.
            days: gap and horizon; of those who live through the gap without a target.
        """
        with torch.autocast(states.device.type, enabled=False):  # in bfloat16 a risk close to 1 is 1, its odds infinite
            log_hazards = self.log_hazards(states.float(), targets, code_rows).clamp(max=_CERTAIN)
            causes = torch.stack((log_hazards[:, :-1].logsumexp(dim=1), log_hazards[:, -1]), dim=1)
            by = cumulative_incidence(causes, self.bins, causes.new_tensor(days))  # (B, 2 causes, 2 days)
        risk = (by[:, 0, 1] - by[:, 0, 0]) / (1 - by[:, :, 0].sum(dim=1)).clamp(min=_LEAST_RISK)
        risk = risk.clamp(min=_LEAST_RISK, max=1 - 1e-6)
        return risk.log() - torch.log1p(-risk)

    def summed_loss(
        self, states: Tensor, followed: FollowedUp, code_rows: Tensor, code_mask: Tensor | None, at_once: int
    ) -> Tensor:
        """Return minus the log-likelihood of n follow-ups, summed over all targets, a scalar.

        Args:
            states: (n, hidden).
            followed: what was observed.
            code_rows: (V, hidden) of the code head.
            code_mask: (V,) added to the codes' log hazards; None adds nothing.
            at_once: most numbers in a tensor of hazards; in training chunks of so many are computed again for their
                gradients.
        """
        exposure = self.bins.exposure(followed.observed)  # (n, K)
        own_exposure, own_bins = self.bins.exposure(followed.days.clamp(min=0)), self.bins.of(followed.days)
        query, kind = (exposure > 0).nonzero(as_tuple=True)  # r pairs of a forecast and a bin
        days, targets = exposure[query, kind], followed.targets[query]
        code_bias = self.code_bias if code_mask is None else self.code_bias + code_mask
        pairs = (
            states[query] * self.bin_scale[kind] + self.bin_shift[kind],
            self.bin_bias[kind],
            days,
            targets.clamp(min=0),
            (own_exposure[query, :, kind] - days[:, None]) * (targets != IGNORED),
            followed.happened[query] & (own_bins[query] == kind[:, None]),
        )
        parameters = (code_rows, self.group_rows, torch.cat((code_bias, self.group_bias)))
        size = max(at_once // len(parameters[2]), 1)
        if len(query) <= size or not self.training:
            return _chunk_loss(*parameters, *pairs)
        chunks = zip(*(tensor.split(size) for tensor in pairs), strict=True)
        return torch.stack(
            [
                checkpoint(_chunk_loss, *parameters, *chunk, use_reentrant=False, preserve_rng_state=False)
                for chunk in chunks
            ]
        ).sum()


def _chunk_loss(
    code_rows: Tensor,
    group_rows: Tensor,
    bias: Tensor,
    states: Tensor,
    level: Tensor,
    exposure: Tensor,
    targets: Tensor,
    correction: Tensor,
    happened: Tensor,
) -> Tensor:
    """Return minus the log-likelihood of all targets in r pairs of a forecast and a bin.

    Args:
        code_rows, group_rows: (V, hidden), (G, hidden).
        bias: (V + G,).
        states, level: (r, hidden), and (r,) what is added to all log hazards.
        exposure: (r,) days at risk of the targets that are not named.
        targets: (r, J) those that are.
        correction: (r, J) by how much their days at risk differ from the others'; 0 where ``targets`` names none.
        happened: (r, J) whether they occurred.
    """
    logits = torch.cat((F.linear(states, code_rows), F.linear(states, group_rows)), dim=1)
    log_hazards = logits.float() + bias + level[:, None]  # (r, V + G)
    named = log_hazards.gather(1, targets)
    expected = log_hazards[:, len(SPECIAL_TOKENS) :].exp().sum(dim=1) @ exposure
    return expected + (named.exp() * correction).sum() - named.masked_fill(~happened, 0).sum()
