"""What a pretrained model has learned, in a few lines: a patient's masked codes with its guesses, and near codes."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from exmed_bert import console
from exmed_bert.codes import ATC, ICD10CM, CodeKey
from exmed_bert.data.dataset import PatientDataset
from exmed_bert.data.masking import IGNORED
from exmed_bert.data.vocabulary import MASK, SPECIAL_TOKENS
from exmed_bert.models.near_codes import near_codes
from exmed_bert.reference.names import name_of, plain_names
from exmed_bert.training.trainer import PretrainingTrainer

_SHOWN = 3  # masked codes, guesses for each, near codes
_WELL_KNOWN: tuple[CodeKey, ...] = ((ICD10CM, "E11.9"), (ATC, "C10AA05"))  # frequent nearly everywhere
_AT_ONCE, _LOOKED_AT = 64, 640  # validation patients


@dataclass(frozen=True)
class MaskedCode:
    """A masked code: the number of its visit, the code, and the codes guessed, each with its probability."""

    visit: int
    token: int
    guesses: list[tuple[int, float]]


def print_demonstration(trainer: PretrainingTrainer) -> None:
    """Print masked codes of a validation patient with the model's guesses, and the codes nearest to well-known ones.

    The patient is shown only if it was generated, and nothing where the model is spread over several processes.
    """
    train = trainer.train_dataset
    if trainer.args.world_size > 1:
        return
    names = _Names(train)
    if train.info.generated and trainer.eval_dataset.info.generated and (masked := masked_codes(trainer)):
        rows = []
        for one in masked:
            rows.append((f"visit {one.visit}, masked", names.of(one.token)))
            rows += [
                (f"  guess, {share:.0%}", names.of(token) + ", correct" * (token == one.token))
                for token, share in one.guesses
            ]
        console.table("Masked codes of a validation patient, and what the model guesses", rows)
    vectors = trainer.model.get_input_embeddings().weight.detach().float().cpu().numpy()
    candidates = _common(train)
    for token in _examples(train, candidates):
        if near := near_codes(vectors, token, _SHOWN, candidates):
            rows = [(f"cosine {cosine:.2f}", names.of(other)) for other, cosine in near]
            console.table(f"Nearest to {names.of(token)}", rows)


def masked_codes(trainer: PretrainingTrainer) -> list[MaskedCode]:
    """Return masked codes of the first validation patient with enough different ones, and the model's guesses."""
    model = trainer.model
    for batch in _validation_batches(trainer):
        hidden = (batch["input_ids"] == MASK) & (batch["code_labels"] != IGNORED)
        different = [len(labels[masked].unique()) for labels, masked in zip(batch["code_labels"], hidden, strict=True)]
        first = next((i for i, number in enumerate(different) if number >= _SHOWN), None)
        if first is None:
            continue
        row = {name: tensor[first : first + 1] for name, tensor in batch.items()}
        labels = row["code_labels"]
        was_training = model.training
        with torch.no_grad(), trainer.accelerator.autocast():
            logits = model.eval()(**{name: t.to(trainer.args.device) for name, t in row.items()}).masked_logits
        model.train(was_training)
        best = logits.float()[:, len(SPECIAL_TOKENS) :].softmax(dim=1).topk(_SHOWN)  # (masked, 3)
        places = (labels != IGNORED).nonzero()[:, 1]
        guesses = zip(places.tolist(), best.indices.tolist(), best.values.tolist(), strict=True)
        found: dict[int, MaskedCode] = {}
        for place, tokens, shares in guesses:
            token, visit = int(labels[0, place]), int(row["visit_ids"][0, place])
            if row["input_ids"][0, place] == MASK and token not in found:
                best_first = zip(tokens, shares, strict=True)
                found[token] = MaskedCode(visit, token, [(i + len(SPECIAL_TOKENS), share) for i, share in best_first])
        return list(found.values())[:_SHOWN]
    return []


def _validation_batches(trainer: PretrainingTrainer) -> Iterator[dict[str, torch.Tensor]]:
    last = min(len(trainer.eval_dataset), _LOOKED_AT)
    for first in range(0, last, _AT_ONCE):
        yield trainer.validation_batch(np.arange(first, min(first + _AT_ONCE, last)))


def _common(train: PatientDataset) -> np.ndarray:
    """Return which codes may be named, (V,) bool: those of training that are neither novel nor rare."""
    common = train.code_counts >= max(train.info.cells().limit, 1)
    common[: len(SPECIAL_TOKENS)] = False
    common[train.novel_ids] = False
    return common


def _examples(train: PatientDataset, common: np.ndarray) -> list[int]:
    """Return the well-known codes that the data holds; without one the most frequent."""
    keys = {key: token for token, key in enumerate(train.info.vocabulary.keys) if key is not None and common[token]}
    found = [keys[key] for key in _WELL_KNOWN if key in keys]
    return found or ([int(np.where(common, train.code_counts, 0).argmax())] if common.any() else [])


class _Names:
    """What codes are called; novel ones are only said to be so, since no list has them."""

    def __init__(self, train: PatientDataset) -> None:
        self._vocabulary = train.info.vocabulary
        self._novel = set(train.novel_ids.tolist())

    def of(self, token: int) -> str:
        key = self._vocabulary.keys[token]
        if key is None:
            return self._vocabulary.tokens[token]
        name = "(novel)" if token in self._novel else plain_names().get(key) or name_of(*key)
        return f"{key[1]} {name}".rstrip()
