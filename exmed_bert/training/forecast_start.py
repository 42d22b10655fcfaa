"""Where forecasts start: the rates at which codes, groups of codes and death occur in the training data."""

import numpy as np
import torch

from exmed_bert.data.code_groups import CodeGroups
from exmed_bert.data.dataset import PatientDataset
from exmed_bert.data.forecast import observed_until
from exmed_bert.data.patient import NO_DAY, PERIOD_FIELDS
from exmed_bert.data.vocabulary import SPECIAL_TOKENS
from exmed_bert.models import ExMedBertForMaskedLM

_AT_ONCE = 10_000  # patients
_PRIOR = 0.5  # patients with a code that nobody has


@torch.no_grad()
def start_forecasts(model: ExMedBertForMaskedLM, groups: CodeGroups, dataset: PatientDataset) -> None:
    """Set the hazards of a new model to the rates of the data, and each group's row to the mean of its codes'.

    A hazard of a hundredth of the rate of its neighbor would otherwise take thousands of steps to learn.

    Args:
        model: changed in place.
        groups: of its forecasts.
        dataset: of the training.
    """
    patients, died, days = _counts(dataset, groups)
    head, rows = model.forecast_head, model.code_classifier.predictions.decoder.weight
    size = groups.vocabulary_size
    log_rates = torch.from_numpy(np.log((patients + _PRIOR) / max(days, 1.0)))
    head.code_bias.copy_(log_rates[:size])
    head.code_bias[: len(SPECIAL_TOKENS)] = log_rates.min()
    head.group_bias[:-1] = log_rates[size:].to(head.group_bias)
    head.group_bias[-1] = float(np.log((died + _PRIOR) / max(days, 1.0)))
    norm = rows[len(SPECIAL_TOKENS) :].norm(dim=1).mean()
    for place, codes in enumerate(groups.members):
        if codes:
            mean = rows[sorted(codes)].mean(dim=0)
            head.group_rows[place] = mean / mean.norm().clamp(min=1e-6) * norm


def _counts(dataset: PatientDataset, groups: CodeGroups) -> tuple[np.ndarray, int, float]:
    """Return how many patients have each code and group, (V + A,), how many die, and the days of observation."""
    size = groups.vocabulary_size + len(groups)
    patients, died, days = np.zeros(size, dtype=np.int64), 0, 0.0
    for part in dataset.parts():
        for first in range(0, len(part), _AT_ONCE):
            rows = np.arange(first, min(first + _AT_ONCE, len(part)))
            offsets, columns = part.arrays["offsets"], part.arrays
            owner = np.repeat(np.arange(len(rows)), np.diff(offsets[first : rows[-1] + 2]))
            codes = columns["codes"][offsets[first] : offsets[rows[-1] + 1]].astype(np.int64)
            of_codes = groups.of_codes[codes]
            token, place = np.nonzero(of_codes >= 0)
            target = np.concatenate((codes, groups.vocabulary_size + of_codes[token, place]))
            pairs = np.unique(np.concatenate((owner, owner[token])) * size + target)
            patients += np.bincount(pairs % size, minlength=size)
            visits = part.arrays["visit_offsets"]
            some = rows[np.diff(visits[first : rows[-1] + 2]) > 0]
            start, last = (columns["visit_days"][visits[some + end] - end].astype(np.int64) for end in (0, 1))
            periods: dict[str, np.ndarray] = {name: columns[name][some] for name in PERIOD_FIELDS if name in columns}
            days += float((observed_until(periods, last) - start).clip(0).sum())
            died += int((periods.get("death_date", np.full(1, NO_DAY)) != NO_DAY).sum())
    return patients, died, days
