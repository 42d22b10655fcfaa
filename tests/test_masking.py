"""Masking: how many codes, which, and what stands in their place."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exmed_bert.data.masking import IGNORED, Masking, count_to_mask, mask_batch
from exmed_bert.data.vocabulary import MASK, SPECIAL_TOKENS, UNK

VOCABULARY = 100
FIRST_CODE = len(SPECIAL_TOKENS)


def batch(lengths: list[int], seed: int = 0, unknown: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return code ids (B, L), lengths and keys of random patients."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(FIRST_CODE, VOCABULARY, (len(lengths), max(lengths, default=0)))
    codes[rng.random(codes.shape) < unknown] = UNK
    codes[np.arange(codes.shape[1]) >= np.array(lengths)[:, None]] = 0
    return codes, np.array(lengths), rng.integers(-(2**63), 2**63 - 1, len(lengths))


@settings(max_examples=60)
@given(
    lengths=st.lists(st.integers(2, 60), min_size=1, max_size=20),
    probability=st.floats(0.01, 0.99),
    max_masked=st.integers(1, 30),
    epoch=st.integers(-1, 50),
    unknown=st.sampled_from([0.0, 0.5]),
)
def test_masks_keep_every_promise(
    lengths: list[int], probability: float, max_masked: int, epoch: int, unknown: float
) -> None:
    codes, sizes, keys = batch(lengths, unknown=unknown)
    masking = Masking("dynamic", probability, max_masked, 7)
    inputs, labels = mask_batch(codes, sizes, keys, masking, epoch, VOCABULARY)
    masked = labels != IGNORED

    assert (labels[masked] == codes[masked]).all(), "the label is the original code"
    assert (inputs[~masked] == codes[~masked]).all(), "what is not masked stays"
    assert (codes[masked] >= FIRST_CODE).all(), "special tokens are never masked"
    assert (inputs[codes == 0] == 0).all(), "padding stays padding"
    replaced = masked & (inputs != MASK)
    assert (inputs[replaced] >= FIRST_CODE).all() and (inputs[replaced] < VOCABULARY).all(), "a replacement is a code"
    candidates = (codes >= FIRST_CODE).sum(axis=1)
    counts = masked.sum(axis=1)
    assert (counts == count_to_mask(candidates, sizes, probability, max_masked)).all()
    assert (counts <= max_masked).all() and (counts < sizes).all()
    assert (counts[candidates > 0] >= 1).all()


def test_masks_depend_on_patient_epoch_and_seed_alone() -> None:
    codes, sizes, keys = batch([30] * 40)
    masking = Masking("dynamic", 0.15, 20, 1)
    _, together = mask_batch(codes, sizes, keys, masking, 3, VOCABULARY)
    order = np.random.default_rng(1).permutation(40)
    wider = np.pad(codes[order], ((0, 0), (0, 9)))  # another batch, padded further
    _, apart = mask_batch(wider, sizes[order], keys[order], masking, 3, VOCABULARY)
    assert (apart[:, :30] == together[order]).all()
    assert (mask_batch(codes, sizes, keys, masking, 4, VOCABULARY)[1] != together).any()
    other_seed = Masking("dynamic", 0.15, 20, 2)
    assert (mask_batch(codes, sizes, keys, other_seed, 3, VOCABULARY)[1] != together).any()


@pytest.mark.parametrize("probability", [0.1, 0.15, 0.4])
def test_eighty_ten_ten_over_100_000_codes(probability: float) -> None:
    codes, sizes, keys = batch([50] * 2000)
    inputs, labels = mask_batch(codes, sizes, keys, Masking("dynamic", probability, 50, 0), 0, VOCABULARY)
    masked = labels != IGNORED
    assert masked.mean() == pytest.approx(round(50 * probability) / 50)
    shown, original = inputs[masked], labels[masked]
    # A random code is the original one in 1 of 94; three standard errors at 10,000 masked codes are 0.012.
    assert (shown == MASK).mean() == pytest.approx(0.8, abs=0.012)
    assert (shown == original).mean() == pytest.approx(0.1 + 0.1 / (VOCABULARY - FIRST_CODE), abs=0.012)
    random_codes = shown[(shown != MASK) & (shown != original)]
    assert random_codes.min() == FIRST_CODE and random_codes.max() == VOCABULARY - 1


def test_each_position_is_masked_equally_often() -> None:
    codes, sizes, keys = batch([20] * 4000)
    _, labels = mask_batch(codes, sizes, keys, Masking("dynamic", 0.15, 20, 0), 0, VOCABULARY)
    share = (labels != IGNORED).mean(axis=0)
    assert np.abs(share - 0.15).max() < 4 * np.sqrt(0.15 * 0.85 / 4000)
