"""The objective of time to event: hazards over bins of days, their likelihood, and where training starts.

Training starts at the best that can be said without it: Poisson regression, which has the likelihood of
piecewise-exponential hazards (Laird and Olivier, JASA 76, 1981), of the events on the answer of the prompt, the codes
and age, with a rate for each bin. The kept weights are those of the highest likelihood of the validation patients. It
judges ranks and risks at all horizons and hardly moves by chance, where a concordance of few events does, and says
nothing of risks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.optimize import minimize

from exmed_bert.cohorts.collator import LabeledRows, PromptCollator
from exmed_bert.cohorts.labeled import LabeledPatients
from exmed_bert.evaluation.concordance import concordance
from exmed_bert.evaluation.follow_up import DEATH, OUTCOME, FollowUp
from exmed_bert.finetuning.objective import Objective
from exmed_bert.finetuning.outcome_model import PROMPT_SPREAD, STRENGTHS, first_inputs
from exmed_bert.finetuning.plan import Subset, draw_subset
from exmed_bert.models import ExMedBertForSequenceClassification
from exmed_bert.models.hazards import HazardBins, cumulative_incidence, log_likelihood, log_rates
from exmed_bert.settings import FinetuneSettings


class TimeToEventObjective(Objective):
    """When the outcome comes, with death as a competing event where it occurs among the training patients."""

    best = "likelihood"
    told: ClassVar[Mapping[str, str]] = {"eval_loss": "validation loss", "eval_concordance": "concordance"}

    def __init__(
        self,
        patients: LabeledPatients,
        follow_up: FollowUp,
        train_rows: np.ndarray,
        gap: int,
        longest: int,
        settings: FinetuneSettings,
    ) -> None:
        """Choose bins and causes by the training patients.

        Args:
            patients: N of them.
            follow_up: of the N patients, days since the index date.
            train_rows: indices of the training patients.
            gap: days after the index date without events, before which no hazard begins.
            longest: horizon in days up to which the concordance of an evaluation is measured.
            settings: of fine-tuning.
        """
        self._patients, self._settings, self._longest = patients, settings, longest
        self._follow_up = follow_up
        since = follow_up.days.astype(np.int64) - gap
        self.bins = HazardBins.cut_to(float(since[train_rows].max()))
        self.causes = 2 if (follow_up.events[train_rows] == DEATH).any() else 1
        self._targets = np.stack((since, follow_up.events.astype(np.int64)), axis=1)

    @property
    def config(self) -> dict[str, Any]:
        """The bins, and how many causes there are."""
        return {"outcome_bins": list(self.bins.ends), "outcome_causes": self.causes}

    @property
    def targets(self) -> np.ndarray:
        """(N, 2): days since the end of the gap, and what ended the follow-up."""
        return self._targets

    @property
    def happened(self) -> np.ndarray:
        """Of whom the outcome was seen."""
        return self._follow_up.events == OUTCOME

    def draw(self, size: int | None, seed: int) -> Subset:
        """Return a subset as it comes: hazards of patients who were chosen by their outcome would be too high."""
        seen = replace(self._patients, labels=self.happened.astype(np.int8))
        return draw_subset(seen, size, seed, natural=True)

    def start(
        self,
        model: ExMedBertForSequenceClassification,
        train: LabeledRows,
        validation: LabeledRows,
        collator: PromptCollator,
        pretrained: bool,
    ) -> None:
        """Start at what the pretrained parts say, or without any at the rates of the training patients."""
        batch_size = self._settings.eval_batch_size
        own, held_out = (Events.of(rows.targets, self.bins, self.causes) for rows in (train, validation))
        if pretrained:
            fit_start(model, train, validation, own, held_out, collator, batch_size)
            return
        ratios = np.exp(first_inputs(model, train, collator, batch_size)[:, 0])  # the same of all causes
        rates = [own.rates(cause, ratios) for cause in range(self.causes)]
        with torch.no_grad():
            model.rates.copy_(torch.from_numpy(np.stack(rates)))

    def measure(self, rows: LabeledRows, outputs: np.ndarray) -> dict[str, float]:
        """Return the negative log-likelihood in nats a patient, and Uno's concordance."""
        logits, targets = torch.from_numpy(outputs), torch.from_numpy(rows.targets)
        days, event = targets[:, :1].expand(logits.shape[:2]), targets[:, 1:]
        happened = event == torch.arange(1, logits.shape[1] + 1)
        exposure, bins = self.bins.exposure(days.double()), self.bins.of(days)
        found = {"loss": -float(log_likelihood(logits, exposure, bins, happened).sum(dim=1).mean())}
        risks = cumulative_incidence(logits[:, :1], self.bins, torch.tensor([float(self._longest)]))[:, 0, 0].numpy()
        reached = concordance(self._follow_up.take(rows.rows), risks, self._longest)
        return found if reached is None else found | {"concordance": reached}

    def rank(self, metrics: Mapping[str, float]) -> tuple[float, ...]:
        """Return the loss."""
        return (metrics["eval_loss"],)


@dataclass(frozen=True)
class Events:
    """Follow-up of n patients as a Poisson regression takes it.

    Attributes:
        exposure: (n, K) days in each bin.
        happened: (C, n, K) 1 in the bin in which the follow-up ended by the cause, else 0.
    """

    exposure: np.ndarray
    happened: np.ndarray

    @classmethod
    def of(cls, targets: np.ndarray, bins: HazardBins, causes: int) -> "Events":
        """Return those of targets (n, 2), days and event."""
        days = torch.from_numpy(targets[:, 0])
        place = bins.of(days).numpy()
        numbers = (OUTCOME, DEATH)[:causes]
        ended = [(targets[:, 1] == number)[:, None] & (place[:, None] == np.arange(len(bins))) for number in numbers]
        return cls(bins.exposure(days.double()).numpy(), np.stack(ended).astype(np.float64))

    def rates(self, cause: int, ratios: np.ndarray) -> np.ndarray:
        """Return the log rates of a cause that fit best where hazards are multiplied by ratios (n,), (K,)."""
        events, days = self.happened[cause].sum(axis=0), ratios @ self.exposure
        return log_rates(torch.from_numpy(events), torch.from_numpy(days)).numpy()

    def loss(self, cause: int, log_hazards: np.ndarray) -> float:
        """Return the negative log-likelihood of a cause by log hazards (n, K), in nats a patient."""
        value = (self.happened[cause] * log_hazards).sum() - (np.exp(log_hazards) * self.exposure).sum()
        return -float(value) / len(log_hazards)


def fit_start(
    model: ExMedBertForSequenceClassification,
    train: LabeledRows,
    validation: LabeledRows,
    events: Events,
    held_out_events: Events,
    collator: PromptCollator,
    batch_size: int,
) -> None:
    """Fit the prompt's answer and the wide part to the follow-up, for each cause with a ridge of its own.

    The ridge is that of the highest likelihood of the validation patients. The answer has the spread of several inputs,
    so that the ridge hardly shrinks it.

    Args:
        model: changed in place.
        train, validation: patients.
        events, held_out_events: what ended their follow-up.
        collator: makes batches.
        batch_size: of prediction.
    """
    inputs, held_out = (first_inputs(model, rows, collator, batch_size) for rows in (train, validation))
    center, spread = inputs[:, 0].mean(), max(float(inputs[:, 0].std()), 1e-6) / PROMPT_SPREAD
    for table in (inputs, held_out):
        table[:, 0] = (table[:, 0] - center) / spread
    for cause in range(len(events.happened)):
        tried = []
        weights = np.zeros(inputs.shape[1])
        for strength in STRENGTHS:  # the strongest ridge first: each search begins where the last one ended
            weights = _regression(inputs, events, cause, strength, weights)
            rates = events.rates(cause, np.exp(inputs @ weights))
            loss = held_out_events.loss(cause, (held_out @ weights)[:, None] + rates)
            tried.append((loss, strength, weights, rates))
        _, _, weights, rates = min(tried, key=lambda one: one[:2])
        _take(model, cause, weights, rates, center, spread)


def _regression(inputs: np.ndarray, events: Events, cause: int, strength: float, start: np.ndarray) -> np.ndarray:
    """Return coefficients of log hazard ratios, (columns,); the rates of the bins are those that fit them best."""
    happened = events.happened[cause]
    in_bin, ever = happened.sum(axis=0), happened.sum(axis=1)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        scores = inputs @ weights
        top = scores.max()
        ratio = np.exp(scores - top)
        at_risk = ratio @ events.exposure  # (K,)
        some = in_bin > 0
        value = (in_bin[some] * (np.log(at_risk[some]) + top)).sum() - scores @ ever
        share = np.divide(in_bin, at_risk, out=np.zeros_like(at_risk), where=some)
        gradient = inputs.T @ (ratio * (events.exposure @ share) - ever)
        return float(value + weights @ weights / (2 * strength)), gradient + weights / strength

    return minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 500}).x


@torch.no_grad()
def _take(
    model: ExMedBertForSequenceClassification,
    cause: int,
    weights: np.ndarray,
    rates: np.ndarray,
    center: float,
    spread: float,
) -> None:
    """Give the model the coefficients of a cause, (hidden + 2,), and its rates, (K,)."""
    scale = float(weights[0] / spread)
    model.classifier.weight[cause, : model.wide] = torch.from_numpy(weights[1:]).to(model.classifier.weight)
    model.classifier.bias[cause] = -scale * center
    if model.config.target_codes:
        model.prompt_scale[cause] = scale
    model.rates[cause] = torch.from_numpy(rates).to(model.rates)
