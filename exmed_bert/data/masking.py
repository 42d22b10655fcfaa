"""Masked-code prediction: which codes are hidden, and what stands in their place.

Masks are a pure function of (seed, epoch, patient, position): the batch a patient comes in, the number of workers and
a resume change nothing. All of it is computed for a whole batch at once.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from exmed_bert.console import shown
from exmed_bert.data.randomness import mix, to_uniform
from exmed_bert.data.vocabulary import MASK, SPECIAL_TOKENS

IGNORED = -100  # the label of a position whose code is not to be predicted; torch's cross-entropy skips it
VALIDATION_EPOCH = -1  # validation masks are those of an epoch that training never has

# Devlin et al., BERT (2019): of the chosen positions 80 % show MASK, 10 % a random code, 10 % the code itself.
_SHOW_MASK = 0.8
_SHOW_MASK_OR_RANDOM = 0.9


@dataclass(frozen=True)
class Masking:
    """How codes are masked.

    Attributes:
        mode: ``dynamic`` draws anew each epoch, ``static`` uses what was drawn at conversion.
        probability: share of a patient's codes that are masked.
        max_masked: most codes masked of a patient.
        seed: what else the masks depend on.
    """

    mode: Literal["dynamic", "static"]
    probability: float
    max_masked: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a plain dict."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Masking":
        """Return what `to_dict` wrote.

        Raises:
            TypeError, ValueError: something is missing, or is no such thing.
        """
        masking = cls(**content)
        numbers = (masking.max_masked, masking.seed)
        if (
            masking.mode not in ("dynamic", "static")
            or type(masking.probability) is not float
            or not 0 < masking.probability <= 1
            or any(type(number) is not int for number in numbers)
            or masking.max_masked < 1
            or not -(2**63) <= masking.seed < 2**63
        ):
            raise ValueError(f"masking: {shown(content)} is none")
        return masking


def count_to_mask(candidates: np.ndarray, lengths: np.ndarray, probability: float, max_masked: int) -> np.ndarray:
    """Return how many codes of each patient to mask: at least one, one always left unmasked.

    Args:
        candidates: (B,) codes that may be masked: all but special tokens.
        lengths: (B,) tokens of each patient.
        probability: share of the candidates to mask.
        max_masked: upper limit.

    >>> count_to_mask(np.array([20, 3, 1]), np.array([20, 3, 1]), 0.15, 20)
    array([3, 1, 0])
    """
    wanted = np.clip(np.rint(candidates * probability).astype(np.int64), 1, max_masked)
    return np.minimum(wanted, np.minimum(candidates, np.maximum(lengths - 1, 0)))


def mask_batch(
    code_ids: np.ndarray,
    lengths: np.ndarray,
    hash_patient_ids: np.ndarray,
    masking: Masking,
    epoch: int,
    vocabulary_size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Mask a padded batch.

    Args:
        code_ids: (B, L) code ids, 0 where padded.
        lengths: (B,) real tokens of each patient.
        hash_patient_ids: (B,) int64, who each patient is (`randomness.hash_patient_ids`).
        masking: share, limit and seed.
        epoch: the epoch the masks are for; `VALIDATION_EPOCH` for the fixed ones.
        vocabulary_size: number of code ids; random replacements are drawn from the codes, never a special token.

    Returns:
        Two (B, L) int64 arrays: what the model sees, and the labels: the original code at masked positions,
        `IGNORED` elsewhere.
    """
    patient = mix(masking.seed, epoch, hash_patient_ids)[:, None]  # (B, 1)
    draws = mix(patient, np.arange(code_ids.shape[1]))  # (B, L) uint64

    # The n candidates with the smallest draws are masked: exactly n, each set of n equally likely.
    candidate = code_ids >= len(SPECIAL_TOKENS)
    order = np.where(candidate, draws, np.uint64(2**64 - 1))
    count = count_to_mask(candidate.sum(axis=1), lengths, masking.probability, masking.max_masked)
    ranked = np.sort(order, axis=1)
    threshold = ranked[np.arange(len(count)), np.maximum(count - 1, 0)]
    masked = candidate & (order <= threshold[:, None]) & (count > 0)[:, None]

    rows, columns = np.nonzero(masked)
    original = code_ids[rows, columns]
    bits = mix(draws[rows, columns], 1)
    choice = to_uniform(bits)
    codes_only = vocabulary_size - len(SPECIAL_TOKENS)
    random_code = len(SPECIAL_TOKENS) + (to_uniform(mix(bits, 2)) * codes_only).astype(np.int64)
    shown = np.where(choice < _SHOW_MASK, MASK, np.where(choice < _SHOW_MASK_OR_RANDOM, random_code, original))

    inputs = code_ids.astype(np.int64)
    labels = np.full(code_ids.shape, IGNORED, dtype=np.int64)
    labels[rows, columns] = original
    inputs[rows, columns] = shown
    return inputs, labels
