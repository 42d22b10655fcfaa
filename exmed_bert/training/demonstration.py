"""What a pretrained model has learned, in a few lines: masked codes with its surest guesses, and near codes."""

from collections import Counter
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

_SHOWN = 3  # patients, guesses for each, near codes
_PATIENTS = 64  # of the validation patients, the first: those shown are chosen among them
_OTHERS = 2  # codes of a patient that are named beside the masked one
_WELL_KNOWN: tuple[CodeKey, ...] = ((ICD10CM, "E11.9"), (ATC, "A10BA02"), (ATC, "C10AA05"))  # frequent everywhere


@dataclass(frozen=True)
class MaskedCode:
    """A masked code of a patient.

    Attributes:
        visit: its number.
        token: the code.
        guesses: the codes guessed, the surest first, each with its probability.
        codes: how many codes of the patient the model sees.
        others: the most frequent of these, each with its number.
    """

    visit: int
    token: int
    guesses: list[tuple[int, float]]
    codes: int
    others: list[tuple[int, int]]


def print_demonstration(trainer: PretrainingTrainer) -> None:
    """Print masked codes of validation patients with the model's guesses, and the codes nearest to well-known ones.

    Patients are shown only if they were generated, and nothing where the model is spread over several processes.
    """
    train = trainer.train_dataset
    if trainer.args.world_size > 1:
        return
    names = _Names(train)
    if train.info.generated and trainer.eval_dataset.info.generated and (masked := masked_codes(trainer)):
        rows = []
        for one in masked:
            others = ", ".join(f"{names.of(token)} ({number})" for token, number in one.others)
            rows.append((f"patient of {one.codes:,} codes", others))
            rows.append((f"  visit {one.visit}, masked", names.of(one.token)))
            rows += [
                (f"    guess, {_percent(share)}", names.of(token) + ", correct" * (token == one.token))
                for token, share in one.guesses
            ]
        console.table("Masked codes of validation patients, and what the model guesses", rows)
        console.echo(
            f"  These guesses are the surest, right or wrong, for the first {_PATIENTS} patients, without those of a "
            "patient's most frequent code."
        )
    vectors = trainer.model.get_input_embeddings().weight.detach().float().cpu().numpy()
    candidates = _common(train)
    for token in _examples(train, candidates):
        if near := near_codes(vectors, token, _SHOWN, candidates):
            rows = [(f"cosine {cosine:.2f}", names.of(other)) for other, cosine in near]
            console.table(f"Nearest to {names.of(token)}", rows)


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.005 else "<1%"


def masked_codes(trainer: PretrainingTrainer) -> list[MaskedCode]:
    """Return the masked codes of the first validation patients at which the model's first guess is surest.

    Whether it is right is not looked at. A guess at what the patient has most often anyway says little, so it is left
    out. No patient is there twice, and no first guess.
    """
    model, special = trainer.model, len(SPECIAL_TOKENS)
    batch = trainer.validation_batch(np.arange(min(len(trainer.eval_dataset), _PATIENTS)))
    was_training = model.training
    with torch.no_grad(), trainer.accelerator.autocast():
        logits = model.eval()(**{name: t.to(trainer.args.device) for name, t in batch.items()}).masked_logits
    model.train(was_training)
    best = logits.float()[:, special:].softmax(dim=1).topk(_SHOWN)  # (masked, 3)
    shares, guesses = best.values.cpu(), best.indices.cpu() + special
    ids, labels = batch["input_ids"], batch["code_labels"]
    patients, places = (labels != IGNORED).nonzero(as_tuple=True)
    found: dict[int, MaskedCode] = {}
    guessed: set[int] = set()
    for i in shares[:, 0].argsort(descending=True, stable=True).tolist():
        patient, place, first = int(patients[i]), int(places[i]), int(guesses[i, 0])
        if ids[patient, place] != MASK or patient in found or first in guessed:
            continue
        seen = [token for token in ids[patient].tolist() if token >= special]
        others = Counter(seen).most_common(_OTHERS)
        if others and others[0][0] == first:
            continue
        guessed.add(first)
        found[patient] = MaskedCode(
            visit=int(batch["visit_ids"][patient, place]),
            token=int(labels[patient, place]),
            guesses=list(zip(guesses[i].tolist(), shares[i].tolist(), strict=True)),
            codes=len(seen),
            others=others,
        )
        if len(found) == _SHOWN:
            break
    return list(found.values())


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
