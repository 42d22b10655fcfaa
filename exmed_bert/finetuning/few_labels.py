"""The fit to few labels: the prompt's answer and the codes alone, by a convex fit in seconds; the encoder stays.

A few hundred labels hold some dozens of outcomes, too few to tell which step of the encoder helps. What they can tell
is how far to trust the pretrained model's answer, and a little of what single codes say besides. Training and
validation labels serve alike: cross-validation among them chooses the ridge.
"""

import numpy as np
import torch

from exmed_bert.cohorts.collator import LabeledRows, PromptCollator
from exmed_bert.evaluation import ridge
from exmed_bert.evaluation.ridge import Prior
from exmed_bert.finetuning.outcome_model import first_inputs
from exmed_bert.models import ExMedBertForSequenceClassification
from exmed_bert.settings import FinetuneSettings

FEW = 1000  # labels, of training and validation together, from which on the encoder is trained

_ANSWER_VARIANCE = 0.25  # about 1 of the answer's scale: it is a risk already
# Of the other coefficients. The inputs keep their spread: where codes differ more they tell more, and age has most.
_VARIANCES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)


def are_few(settings: FinetuneSettings, labels: int) -> bool:
    """Return whether the encoder stays as it is; who sets how it is trained asks for training."""
    asked = settings.epochs or settings.learning_rate or settings.class_weights or settings.head != "ffn"
    return labels < FEW and not asked


@torch.no_grad()
def fit_few(
    model: ExMedBertForSequenceClassification, rows: LabeledRows, collator: PromptCollator, batch_size: int, seed: int
) -> tuple[float, float]:
    """Fit the scale of the prompt's answer, the wide part and the intercept to all labels.

    Args:
        model: pretrained, changed in place.
        rows: patients with both outcomes among them, of training and validation.
        collator: makes batches.
        batch_size: of prediction.
        seed: of the folds.

    Returns:
        The variance that was chosen, and its loss in cross-validation, in nats a patient.
    """
    inputs, labels = first_inputs(model, rows, collator, batch_size), rows.labels.astype(np.float64)
    center = inputs[:, 1:].mean(axis=0)
    inputs[:, 1:] -= center
    means = np.append(1.0, np.zeros(model.wide))
    priors = [Prior(means, np.append(_ANSWER_VARIANCE, np.full(model.wide, variance))) for variance in _VARIANCES]
    chosen, loss = 0, float("nan")
    if min(labels.sum(), (1 - labels).sum()) >= 2:
        losses = ridge.cross_validated(inputs, labels, rows.weights, priors, seed)
        chosen = int(losses.argmin())
        loss = float(losses[chosen])
    found = ridge.fit(inputs, labels, rows.weights, priors[chosen])
    intercept, scale, weights = found[0], float(found[1]), found[2:]
    model.classifier.weight.mul_(scale)
    model.classifier.weight[0, : model.wide] += torch.from_numpy(weights).to(model.classifier.weight)
    model.classifier.bias.mul_(scale).add_(float(intercept - weights @ center))
    if model.config.target_codes:
        model.prompt_scale.mul_(scale)
    return _VARIANCES[chosen], loss
