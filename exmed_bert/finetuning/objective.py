"""What is learned of a cohort: the targets of the loss, where training starts, and how an evaluation is judged.

One class per kind of label; `finetuning.hazards` has that of time to event.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from exmed_bert.cohorts.collator import LabeledRows, PromptCollator
from exmed_bert.cohorts.labeled import LabeledPatients
from exmed_bert.evaluation.metrics import Predictions, sigmoid
from exmed_bert.finetuning.outcome_model import fit_prompt
from exmed_bert.finetuning.plan import Subset, draw_subset
from exmed_bert.models import ExMedBertForSequenceClassification
from exmed_bert.settings import FinetuneSettings


class Objective(ABC):
    """The objective of all runs of a command.

    Attributes:
        best: what the kept weights are the best of, for people.
        fits_at_once: whether `few_labels` can fit the head to all labels.
        told: metrics of an evaluation to print, by key, with their names.
    """

    best: str
    fits_at_once: bool = False
    told: ClassVar[Mapping[str, str]]

    @property
    @abstractmethod
    def config(self) -> dict[str, Any]:
        """What the configuration of the model holds besides sizes and prompt."""

    @property
    @abstractmethod
    def targets(self) -> np.ndarray:
        """What the loss compares with, (N, ...) of all patients of the cohort."""

    @property
    @abstractmethod
    def happened(self) -> np.ndarray:
        """Who is known to have the outcome, (N,) bool."""

    @abstractmethod
    def draw(self, size: int | None, seed: int) -> Subset:
        """Return the patients of a run; arguments as `plan.draw_subset`."""

    @abstractmethod
    def start(
        self,
        model: ExMedBertForSequenceClassification,
        train: LabeledRows,
        validation: LabeledRows,
        collator: PromptCollator,
        pretrained: bool,
    ) -> None:
        """Set the head of a new model before training; whether its encoder is ``pretrained`` is told."""

    @abstractmethod
    def measure(self, rows: LabeledRows, outputs: np.ndarray) -> dict[str, float]:
        """Return the metrics of an evaluation from the model's logits, the ``loss`` among them."""

    @abstractmethod
    def rank(self, metrics: Mapping[str, float]) -> tuple[float, ...]:
        """Return what is lower for a better evaluation; keys of ``metrics`` as `measure` gives them, with eval_."""


class OutcomeByHorizon(Objective):
    """Whether the outcome comes: cross-entropy, by which evaluations are judged too, but with class weights."""

    told: ClassVar[Mapping[str, str]] = {"eval_loss": "validation loss", "eval_auroc": "AUROC", "eval_auprc": "AUPRC"}

    def __init__(self, patients: LabeledPatients, settings: FinetuneSettings) -> None:
        self._patients, self._settings = patients, settings
        self._by_loss = not settings.class_weights  # which raise the loss
        self.best = "validation loss" if self._by_loss else "AUPRC"
        self.fits_at_once = self._by_loss

    @property
    def config(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    @property
    def targets(self) -> np.ndarray:
        """The labels, (N,)."""
        return self._patients.labels

    @property
    def happened(self) -> np.ndarray:
        """Whose label is 1."""
        return self._patients.labels == 1

    def draw(self, size: int | None, seed: int) -> Subset:
        """Return a subset of which a tenth has the outcome."""
        return draw_subset(self._patients, size, seed)

    def start(
        self,
        model: ExMedBertForSequenceClassification,
        train: LabeledRows,
        validation: LabeledRows,
        collator: PromptCollator,
        pretrained: bool,
    ) -> None:
        """Fit the prompt to the labels, where something was pretrained, and weigh the classes where asked to."""
        if pretrained:
            fit_prompt(model, train, validation, collator, self._settings.eval_batch_size)
        if self._settings.class_weights:
            share = float(np.average(train.labels, weights=train.weights))
            model.class_weights = (0.5 / (1 - share), 0.5 / share)

    def measure(self, rows: LabeledRows, outputs: np.ndarray) -> dict[str, float]:
        """Return loss in nats and, where both classes occur, AUROC and AUPRC."""
        return outcome_metrics(rows.labels, outputs, rows.weights)

    def rank(self, metrics: Mapping[str, float]) -> tuple[float, ...]:
        """Return the loss: of a few dozen outcomes it tells more than a ranking by them does."""
        loss = metrics["eval_loss"]
        return (loss,) if self._by_loss else (-metrics["eval_auprc"], loss)


def outcome_metrics(labels: np.ndarray, logits: np.ndarray, weights: np.ndarray | None = None) -> dict[str, float]:
    """Return the loss in nats and, where both classes occur, AUROC and AUPRC; ``weights`` say what each counts."""
    found = {"loss": float(np.average(np.logaddexp(0, logits) - labels * logits, weights=weights))}
    if 0 < labels.sum() < len(labels):
        measured = Predictions(labels, sigmoid(logits)).measure(weights)
        found |= {name: measured[name] for name in ("auroc", "auprc")}
    return found
