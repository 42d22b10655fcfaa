"""The model that is fine-tuned: from a pretrained model, its vocabulary extended by a cohort's new codes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from exmed_bert.clinvec.initialization import initialize_from
from exmed_bert.cohorts.collator import LabeledRows, PromptCollator
from exmed_bert.data.vocabulary import CodeVocabulary
from exmed_bert.finetuning.prompt import Prompt
from exmed_bert.models import ExMedBertConfig, ExMedBertForMaskedLM, ExMedBertForSequenceClassification
from exmed_bert.models.code_tree import EMBEDDINGS
from exmed_bert.training.initial_model import align_head, place_codes, with_vocabulary

STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)  # of the first fit: inverse of the ridge
PROMPT_SPREAD = 5.0  # of the first logit among inputs of about unit spread


@dataclass(frozen=True)
class Pretrained:
    """A pretrained model that knows the codes of a cohort.

    Attributes:
        model: with ``vocabulary``.
        vocabulary: the model's own, with the cohort's new codes at its end.
        new: how many codes the model never saw.
        estimated: how many of these are placed by their ancestors or relatives; the others are drawn at random.
    """

    model: ExMedBertForMaskedLM
    vocabulary: CodeVocabulary
    new: int
    estimated: int


def extend_vocabulary(
    model: ExMedBertForMaskedLM, known: CodeVocabulary, vocabulary: CodeVocabulary, seed: int
) -> Pretrained:
    """Give a pretrained model the codes of a cohort; those it never saw are placed by their ancestors."""
    grown, shared = with_vocabulary(model, known, vocabulary)
    if len(vocabulary) == len(known):
        return Pretrained(grown, vocabulary, 0, 0)
    keys = vocabulary.keys
    known_ids = [token for token in shared if keys[token] is not None]
    placed = place_codes(grown, keys, known_ids, seed).ids
    return Pretrained(grown, vocabulary, len(vocabulary) - len(known), len(np.setdiff1d(placed, known_ids)))


@torch.no_grad()
def outcome_model(
    pretrained: Pretrained,
    head: str,
    prompt: Prompt,
    from_scratch: bool,
    seed: int,
    further: Mapping[str, Any] | None = None,
) -> ExMedBertForSequenceClassification:
    """Return the network that is fine-tuned.

    The pretrained head of prolonged stays is not used: it has seen the labels of the patients that it would be
    fine-tuned on, and is surer of them than of any others.

    Args:
        pretrained: gives the weights and the sizes.
        head: ``ffn``, ``gru`` or ``lstm``.
        prompt: what is asked of the pretrained model.
        from_scratch: draw the weights anew, as pretraining would; the sizes alone are the pretrained model's.
        seed: of what is drawn.
        further: what the configuration holds besides.
    """
    torch.manual_seed(seed)
    base = pretrained.model
    if from_scratch:
        base = ExMedBertForMaskedLM(base.config)
        align_head(base)
    own = {"classifier_head": head, "target_codes": prompt.targets, "prompt_days": prompt.days, **(further or {})}
    config = ExMedBertConfig(**base.config.to_dict() | own)
    model = ExMedBertForSequenceClassification(config)
    model.bert.load_state_dict(base.bert.state_dict())
    model.tree_rows = base.tree_rows
    if prompt.targets:
        model.code_classifier.load_state_dict(base.code_classifier.state_dict())
        if config.predict_future_codes:
            model.forecast_head.load_state_dict(base.forecast_head.state_dict())
    return model


@torch.no_grad()
def fit_prompt(
    model: ExMedBertForSequenceClassification,
    train: LabeledRows,
    validation: LabeledRows,
    collator: PromptCollator,
    batch_size: int,
) -> float:
    """Fit the prompt logit and the wide part to the labels; return the inverse ridge penalty that was chosen.

    A ridge regression of the training labels on the model's first logit, the sum of the codes and age. The penalty is
    that of the lowest loss on validation patients. The first logit has the spread of several inputs, so that the ridge
    hardly shrinks it.

    Args:
        model: changed in place.
        train, validation: patients with both outcomes among them.
        collator: makes batches.
        batch_size: of prediction.
    """
    from sklearn.linear_model import LogisticRegression

    inputs, held_out = (first_inputs(model, rows, collator, batch_size) for rows in (train, validation))
    center, spread = inputs[:, 0].mean(), max(float(inputs[:, 0].std()), 1e-6) / PROMPT_SPREAD
    for table in (inputs, held_out):
        table[:, 0] = (table[:, 0] - center) / spread
    fits = {}
    for strength in STRENGTHS:
        fit = LogisticRegression(C=strength, max_iter=1000).fit(inputs, train.labels, train.weights)
        logits = fit.decision_function(held_out)
        losses = np.logaddexp(0, logits) - validation.labels * logits
        fits[float(np.average(losses, weights=validation.weights))] = strength, fit
    strength, fit = fits[min(fits)]
    weights = fit.coef_[0]
    scale = float(weights[0] / spread)
    model.classifier.weight.mul_(scale)
    model.classifier.weight[0, : model.wide] += torch.from_numpy(weights[1:]).to(model.classifier.weight)
    model.classifier.bias.mul_(scale).add_(float(fit.intercept_[0] - scale * center))
    if model.config.target_codes:
        model.prompt_scale.mul_(scale)
    return strength


@torch.no_grad()
def first_inputs(
    model: ExMedBertForSequenceClassification, rows: LabeledRows, collator: PromptCollator, batch_size: int
) -> np.ndarray:
    """Return the first score and the wide part of each patient, (n, hidden + 2) float64."""
    model.eval()
    table = np.empty((len(rows), model.wide + 1))
    for order, batch in _batches(rows, collator, batch_size):
        output = model(**{name: tensor.to(model.device) for name, tensor in batch.items()})
        table[order, 0] = output.scores[:, 0].double().cpu().numpy()
        table[order, 1:] = output.wide.double().cpu().numpy()
    return table


def _batches(
    rows: LabeledRows, collator: PromptCollator, batch_size: int
) -> Iterator[tuple[np.ndarray, dict[str, torch.Tensor]]]:
    """Yield indices and batches without labels, patients of like length together, so that there is little padding."""
    order = np.argsort(rows.lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = collator(rows.batch(chosen))
        batch.pop("labels")
        yield chosen, batch


@torch.no_grad()
def predict(
    model: ExMedBertForSequenceClassification,
    patients: LabeledRows,
    collator: PromptCollator,
    batch_size: int,
) -> np.ndarray:
    """Return the logits of each patient, (n,) float64, or (n, causes, bins) of time to event, without dropout."""
    was_training = model.training
    model.eval()
    shape = () if model.bins is None else (model.config.outcome_causes, len(model.bins))
    logits = np.empty((len(patients), *shape), dtype=np.float64)
    for rows, batch in _batches(patients, collator, batch_size):
        on_device = {name: tensor.to(model.device) for name, tensor in batch.items()}
        logits[rows] = model(**on_device).logits.double().cpu().numpy()
    model.train(was_training)
    return logits


@torch.no_grad()
def extend_outcome_vocabulary(
    model: ExMedBertForSequenceClassification, known: CodeVocabulary, vocabulary: CodeVocabulary, seed: int
) -> tuple[ExMedBertForSequenceClassification, int]:
    """Give a fine-tuned model the codes of new patients, and return how many are placed by ancestors or relatives.

    The code head gets no new codes: its logits keep the scale that they were fine-tuned with.
    """
    if len(vocabulary) == len(known):
        return model.eval(), 0
    size = len(known)
    old = model.get_input_embeddings().weight
    keys = vocabulary.keys
    table = torch.nn.Embedding(len(vocabulary), old.shape[1])
    torch.nn.init.normal_(table.weight)
    table.weight[:size] = old
    if model.tree_rows is not None:
        has_ancestors, sums = model.tree_rows.sums(keys[size:])
        ids, vectors = np.flatnonzero(has_ancestors) + size, sums[EMBEDDINGS][has_ancestors]
    else:
        medical = {token: key for token, key in enumerate(keys[:size]) if key is not None}
        learned = old[torch.tensor(list(medical))].numpy()
        ids, (vectors,), _, _ = initialize_from(keys, list(medical.values()), [learned], True, seed)
        ids, vectors = ids[ids >= size], vectors[ids >= size]
    table.weight[torch.from_numpy(ids)] = torch.from_numpy(vectors)
    model.set_input_embeddings(table)
    entities = model.bert.embeddings.entity_embeddings
    further = len(vocabulary.entity_names) - entities.num_embeddings
    if further > 0:  # of a code system that the model never saw nothing is known but what the others have in common
        mean = entities.weight[1:].mean(dim=0, keepdim=True).expand(further, -1)
        model.bert.embeddings.entity_embeddings = torch.nn.Embedding.from_pretrained(torch.cat((entities.weight, mean)))
    return model.eval(), len(ids)
