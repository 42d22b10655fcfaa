"""Masked-code metrics, computed as a stream over batches: overall, by kind of code, and for novel codes apart."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch.nn import functional as F

from exmed_bert.data.dataset import PatientDataset
from exmed_bert.data.masking import IGNORED
from exmed_bert.evaluation.metrics import Predictions
from exmed_bert.models import ExMedBertForMaskedLM

TOP = (1, 5, 10)
NORMAL = 1.959964  # a standard normal lies beyond it with a probability of 2.5 %


@dataclass(frozen=True)
class MaskedCodePredictions:
    """What a model said at the masked positions of a dataset.

    Attributes:
        labels: (n,) int32, the code that was masked.
        ranks: (n,) int32, how many codes scored higher than it; 0 is a hit at 1.
        losses: (n,) float64, its negative log-likelihood in nats.
        counts: (m,) int32, masked positions of each patient, in the order of the positions.
        plos_labels, plos_logits: (p,) 0/1 and (p, 2), of the patients whose length of stay is known.
    """

    labels: np.ndarray
    ranks: np.ndarray
    losses: np.ndarray
    counts: np.ndarray
    plos_labels: np.ndarray
    plos_logits: np.ndarray


@torch.no_grad()
def predict(
    model: ExMedBertForMaskedLM,
    batches: Iterable[dict[str, torch.Tensor]],
    device: torch.device,
    look: Callable[[torch.Tensor, torch.Tensor], None] | None = None,
) -> MaskedCodePredictions:
    """Run the model over batches and keep a few numbers for each masked position, never the logits.

    Args:
        model: what predicts.
        batches: with ``code_labels``.
        device: where.
        look: called with the labels (m,) and logits (m, V) of each batch, for what else is to be known of them.
    """
    labels, ranks, losses = _Column(np.int32), _Column(np.int32), _Column(np.float64)
    counts = _Column(np.int32)
    plos_labels, plos_logits = _Column(np.int64), _Column(np.float32, 2)
    was_training = model.training
    model.eval()
    for batch in batches:
        output = model(**{name: tensor.to(device) for name, tensor in batch.items()})
        masked = batch["code_labels"] != IGNORED
        label = batch["code_labels"][masked].to(device)
        logits = output.masked_logits.float()
        own = logits.gather(1, label[:, None])
        labels.extend(label)
        ranks.extend((logits > own).sum(dim=1))
        losses.extend(F.cross_entropy(logits, label, reduction="none"))
        counts.extend(masked.sum(dim=1))
        if look is not None:
            look(label, logits)
        if output.plos_logits is not None and "plos_label" in batch:
            known = batch["plos_label"] != IGNORED
            plos_labels.extend(batch["plos_label"][known])
            plos_logits.extend(output.plos_logits.float().cpu()[known.cpu()])
    model.train(was_training)
    return MaskedCodePredictions(
        labels.values, ranks.values, losses.values, counts.values, plos_labels.values, plos_logits.values
    )


def merge(parts: list[MaskedCodePredictions]) -> MaskedCodePredictions:
    """Join the predictions of several processes."""
    names = [field.name for field in fields(MaskedCodePredictions)]
    return MaskedCodePredictions(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def summarize(
    found: MaskedCodePredictions, dataset: PatientDataset, plos_weight: Sequence[float] | None
) -> dict[str, float]:
    """Return the metrics of masked-code prediction.

    ``loss`` is what training minimizes; ``perplexity`` is the exponential of the code loss; ``accuracy_top5`` is the
    share of masked codes among the five that score highest. Each kind of event, and novel codes, have the same metrics
    with the number of masked positions that they are computed on. A group that has none has a count of 0 and no
    accuracy.
    """
    entity = dataset.info.vocabulary.entities[found.labels]
    groups = {"": np.ones(len(found.labels), dtype=bool)}
    for events, entities in dataset.info.vocabulary.entities_by_events.items():
        groups[f"{events}_"] = np.isin(entity, entities)
    groups["novel_codes_"] = np.isin(found.labels, dataset.novel_ids)
    code_loss = float(found.losses.mean()) if len(found.losses) else 0.0
    plos_loss = _plos_loss(found, plos_weight) if len(found.plos_labels) else 0.0
    metrics = {"loss": code_loss + plos_loss, "code_loss": code_loss}
    metrics["perplexity"] = float(np.exp(min(code_loss, 700.0)))
    for prefix, chosen in groups.items():
        metrics[f"{prefix}masked_codes"] = int(chosen.sum())
        if chosen.any():
            for top in TOP:
                metrics[f"{prefix}accuracy_top{top}"] = float((found.ranks[chosen] < top).mean())
    if len(found.plos_labels):
        scores = torch.from_numpy(found.plos_logits).softmax(dim=1)[:, 1].numpy()
        metrics |= {"plos_loss": plos_loss} | plos_metrics(found.plos_labels, scores)
    return metrics


def intervals(found: MaskedCodePredictions) -> dict[str, float]:
    """Return the ends of the 95 % intervals of the accuracies, ``accuracy_top1_low`` and so on; none of one patient.

    The positions of a patient are no independent draws: the variance is that of a ratio of sums over patients.
    """
    counts = found.counts[found.counts > 0]
    if len(counts) < 2:
        return {}
    starts, total = np.cumsum(counts) - counts, counts.sum()
    ends: dict[str, float] = {}
    for top in TOP:
        hits = np.add.reduceat((found.ranks < top).astype(np.int64), starts)
        accuracy = hits.sum() / total
        spread = float(np.sqrt(((hits - accuracy * counts) ** 2).sum() * len(counts) / (len(counts) - 1)) / total)
        ends[f"accuracy_top{top}_low"] = max(float(accuracy) - NORMAL * spread, 0.0)
        ends[f"accuracy_top{top}_high"] = min(float(accuracy) + NORMAL * spread, 1.0)
    return ends


def _plos_loss(found: MaskedCodePredictions, weight: Sequence[float] | None) -> float:
    labels, logits = torch.from_numpy(found.plos_labels), torch.from_numpy(found.plos_logits)
    return float(F.cross_entropy(logits, labels, weight=None if weight is None else logits.new_tensor(weight)))


def plos_metrics(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Return accuracy and F1 at a probability of one half, and AUROC, over the patients whose stay is known.

    AUROC is left out where only one class occurs: it is not defined there.
    """
    predicted = scores >= 0.5
    named = int(predicted.sum()) + int(labels.sum())
    metrics: dict[str, float] = {
        "plos_patients": len(labels),
        "plos_positive": int(labels.sum()),
        "plos_accuracy": float((predicted == labels).mean()),
        "plos_f1": 2 * int((predicted & (labels == 1)).sum()) / named if named else 0.0,
    }
    if len(np.unique(labels)) == 2:
        (auroc,) = Predictions(labels, scores).metrics(np.ones((1, len(labels))), ("auroc",))["auroc"]
        metrics["plos_auroc"] = float(auroc)
    return metrics


def most_frequent_code_accuracy(train: PatientDataset, labels: np.ndarray) -> dict[str, float]:
    """Return the accuracy of always predicting the most frequent training code, a baseline for masked codes.

    ``baseline_top1`` predicts the same code everywhere; ``baseline_entity_top1`` the most frequent one of the masked
    code's system, since the model is told the system.
    """
    if not len(labels):
        return {}
    vocabulary = train.info.vocabulary
    counts = train.code_counts.copy()
    counts[vocabulary.entities == 0] = -1
    of_entity = (np.where(vocabulary.entities == entity, counts, -1) for entity in np.unique(vocabulary.entities)[1:])
    predicted = [int(of_one.argmax()) for of_one in of_entity]
    return {
        "baseline_top1": float((labels == counts.argmax()).mean()),
        "baseline_entity_top1": float(np.isin(labels, predicted).mean()),
    }


class _Column:
    """Values that are added batch by batch.

    A list of small tensors would keep the heap from shrinking between the large ones of a batch: of two million
    patients 20 GB.
    """

    def __init__(self, kind: type, *shape: int) -> None:
        self._room: np.ndarray = np.empty((1024, *shape), dtype=kind)
        self._length = 0

    def extend(self, values: torch.Tensor) -> None:
        """Add the values of a batch."""
        end = self._length + len(values)
        if end > len(self._room):
            larger = np.empty((max(end, 2 * len(self._room)), *self._room.shape[1:]), dtype=self._room.dtype)
            larger[: self._length] = self.values
            self._room = larger
        self._room[self._length : end] = values.cpu().numpy()
        self._length = end

    @property
    def values(self) -> np.ndarray:
        """All that were added."""
        return self._room[: self._length]
