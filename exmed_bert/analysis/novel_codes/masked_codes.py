"""Masked-code prediction by training frequency: novel codes against others that are as rare.

A novel code is rare, and rare codes are hard to predict; only codes of the same frequency are a fair comparison. And a
code that is rare is rarely masked, so here every code of every patient is masked once, a part of the codes at a time.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from exmed_bert.console import progress
from exmed_bert.data.batches import MaskedCodeCollator
from exmed_bert.data.dataset import PaddedBatch, PatientDataset
from exmed_bert.data.masking import IGNORED
from exmed_bert.data.randomness import mix
from exmed_bert.data.vocabulary import MASK, SPECIAL_TOKENS
from exmed_bert.evaluation.bootstrap import RESAMPLES, Estimate, difference_of, draw_counts, estimate_of, share_of
from exmed_bert.evaluation.masked_codes import TOP, MaskedCodePredictions, predict
from exmed_bert.models import ExMedBertForMaskedLM
from exmed_bert.reporting.small_cells import Counted

BANDS = ((0, 0), (1, 2), (3, 10), (11, 30), (31, 100), (101, None))  # occurrences in training, both ends included
MEASURES = (*(f"top{top}" for top in TOP), "loss")

_BATCH = 64  # patients
_CELLS = 20_000_000  # draws that are in memory at a time


@dataclass(frozen=True)
class BandMetrics:
    """Metrics of the masked positions of novel and of other codes that are equally common in training.

    Attributes:
        band: ``0``, ``1-2``, ... occurrences in training; ``any`` where these are not known.
        codes, positions, patients: for ``novel`` and ``other``: distinct codes, masked positions, and patients with
            such a position.
        metrics: for ``novel`` and ``other`` by name: ``top1`` to ``top10``, the share of positions whose code is among
            so many top predictions, and ``loss``, nats per position. Empty without positions.
        differences: novel minus other, on the same resamples; empty where one has no positions.
    """

    band: str
    codes: dict[str, int]
    positions: Mapping[str, Counted]
    patients: Mapping[str, Counted]
    metrics: dict[str, dict[str, Estimate]]
    differences: dict[str, Estimate]


@dataclass(frozen=True)
class MaskedMetrics:
    """The bands, all of them together, and novel codes against others of the same frequencies.

    Attributes:
        patients, positions: how many were masked.
        bands: in the order of `BANDS`.
        whole: all bands as one.
        matched: the bands that both occur in as one, others weighted to the novel codes' positions in each band; None
            where there is no such band.
    """

    patients: Counted
    positions: Counted
    bands: list[BandMetrics]
    whole: BandMetrics
    matched: BandMetrics | None

    def rows(self) -> list[BandMetrics]:
        """Return the bands that have positions, their whole, and the matched one."""
        found = [*self.bands, self.whole, *([self.matched] if self.matched else [])]
        return [band for band in found if band.metrics]


def predict_all_codes(
    model: ExMedBertForMaskedLM,
    dataset: PatientDataset,
    patients: np.ndarray,
    device: torch.device,
    look: Callable[[torch.Tensor, torch.Tensor], None] | None = None,
    codes: int | None = None,
) -> tuple[MaskedCodePredictions, np.ndarray]:
    """Mask each code of the patients once; return the predictions and the patient of each position, (n,).

    A patient's codes are dealt into so many parts that each is about the share that training masks (15 %: seven). The
    codes of a part show MASK, all others stand as they are. ``look`` is that of `evaluation.masked_codes.predict`; ids
    from ``codes`` on are not masked, since the model cannot predict them.
    """
    collator = MaskedCodeCollator(dataset.info, plos=False)
    parts = max(round(1 / collator.masking.probability), 2)
    order = patients[np.argsort(dataset.lengths[patients], kind="stable")]
    owners: list[np.ndarray] = []

    def batches() -> Iterator[dict[str, torch.Tensor]]:
        chunks = np.array_split(order, max(-(-len(order) // _BATCH), 1))
        bar = progress(total=len(order), label="Masked codes", unit=" patients")
        for rows in chunks:
            batch = dataset.batch(rows)
            part_of = _deal(
                batch, collator.masking.seed, parts, len(dataset.info.vocabulary) if codes is None else codes
            )
            fields = collator(batch)
            for part in range(parts):
                masked = part_of == part
                if masked.any():
                    owners.append(rows[np.nonzero(masked)[0]])
                    shown = np.where(masked, MASK, batch.codes).astype(np.int64)
                    labels = np.where(masked, batch.codes, IGNORED).astype(np.int64)
                    yield fields | {"input_ids": torch.from_numpy(shown), "code_labels": torch.from_numpy(labels)}
            bar.update(len(rows))
        bar.close()

    found = predict(model, batches(), device, look)
    return found, np.concatenate([np.empty(0, dtype=np.int64), *owners])


def _deal(batch: PaddedBatch, seed: int, parts: int, codes: int) -> np.ndarray:
    """Return the part of each token, (B, L), -1 for padding, specials and ids from ``codes`` on.

    It depends on seed and patient alone.
    """
    draws = mix(mix(seed, batch.patient_hashes)[:, None], np.arange(batch.codes.shape[1]))
    candidate = (batch.codes >= len(SPECIAL_TOKENS)) & (batch.codes < codes)
    order = np.argsort(np.where(candidate, draws, np.uint64(2**64 - 1)), axis=1, kind="stable")
    place = np.argsort(order, axis=1, kind="stable")  # of each token in its patient's order
    return np.where(candidate, place % parts, -1)


def by_frequency(
    found: MaskedCodePredictions,
    owners: np.ndarray,
    novel: np.ndarray,
    counts: np.ndarray | None,
    seed: int,
    resamples: int = RESAMPLES,
) -> MaskedMetrics:
    """Compare novel codes with others by how often they occur in training; intervals by a bootstrap over patients.

    Args:
        found: n masked positions.
        owners: (n,) the patient of each position.
        novel: (V,) bool by code id.
        counts: (V,) occurrences in training; None where they are not known, which makes one band of all.
        seed: of the draws.
        resamples: how many.
    """
    bands = [(0, None)] if counts is None else BANDS
    names = ["any"] if counts is None else [band_name(*band) for band in bands]
    occurrences = np.zeros(len(found.labels), dtype=np.int64) if counts is None else counts[found.labels]
    band_of = np.searchsorted([low for low, _ in bands], occurrences, side="right") - 1
    cell = 2 * band_of + ~novel[found.labels]  # novel and other of a band next to each other
    values = np.column_stack([*(found.ranks < top for top in TOP), found.losses, np.ones(len(cell))])
    distinct, patient = np.unique(owners, return_inverse=True)
    shape = (len(distinct), 2 * len(bands))
    where = patient * shape[1] + cell
    # (patients, bands, novel or other, measures and the number of positions)
    of_patient = np.stack(
        [np.bincount(where, weights=column, minlength=shape[0] * shape[1]) for column in values.T], axis=-1
    ).reshape(shape[0], len(bands), 2, len(MEASURES) + 1)
    sums = of_patient.sum(axis=0)
    drawn = _resampled(of_patient, seed, resamples)
    codes = np.stack([_distinct_codes(found.labels[cell == i]) for i in range(shape[1])]).reshape(-1, 2)
    has = of_patient[..., -1] > 0
    patients = has.sum(axis=0)
    made = [_band_metrics(name, codes[i], patients[i], sums[i], drawn[:, i]) for i, name in enumerate(names)]
    whole = _band_metrics("all", codes.sum(axis=0), has.any(axis=1).sum(axis=0), sums.sum(axis=0), drawn.sum(axis=1))
    both = (sums[:, :, -1] > 0).all(axis=1)
    matched = None
    if both.any():
        weighted = (_matched(s[..., both, :, :]) for s in (sums, drawn))
        matched = _band_metrics("matched", codes[both].sum(axis=0), has[:, both].any(axis=1).sum(axis=0), *weighted)
        matched = replace(matched, positions={**matched.positions, "other": int(sums[both, 1, -1].sum())})
    return MaskedMetrics(len(distinct), len(found.labels), made, whole, matched)


def band_name(low: int, high: int | None) -> str:
    """Return the name of a band.

    >>> band_name(0, 0), band_name(3, 10), band_name(101, None)
    ('0', '3-10', 'over 100')
    """
    if high is None:
        return f"over {low - 1}"
    return str(low) if low == high else f"{low}-{high}"


def _resampled(of_patient: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """Return the sums over each resample of the patients, (R, bands, 2, measures + 1)."""
    n = len(of_patient)
    generator = np.random.default_rng(seed)
    chunk = max(_CELLS // max(n, 1), 1)
    flat = of_patient.reshape(n, -1)
    parts = [
        draw_counts(generator, min(chunk, resamples - start), n) @ flat
        for start in range(0, resamples if n else 0, chunk)
    ]
    return np.concatenate([np.empty((0, flat.shape[1])), *parts]).reshape(-1, *of_patient.shape[1:])


def _matched(sums: np.ndarray) -> np.ndarray:
    """Return the sums over bands with the others weighted to as many positions in each band as the novel codes have.

    Args:
        sums: (..., bands, 2, measures + 1).
    """
    novel, other = sums[..., 0, :], sums[..., 1, :]
    with np.errstate(invalid="ignore", divide="ignore"):
        weighted = other * (novel[..., -1:] / other[..., -1:])
    # A band that a resample has no novel codes of counts for nothing; one without others leaves it undefined.
    weighted = np.where((novel[..., -1:] == 0), 0, weighted)
    return np.stack([novel.sum(axis=-2), weighted.sum(axis=-2)], axis=-2)


def _band_metrics(
    name: str, codes: np.ndarray, patients: np.ndarray, sums: np.ndarray, drawn: np.ndarray
) -> BandMetrics:
    """Return the metrics of (2, measures + 1) sums and of their resamples, (R, 2, measures + 1)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        value, resampled = sums[:, :-1] / sums[:, -1:], drawn[..., :-1] / drawn[..., -1:]
    kinds = ("novel", "other")
    metrics: dict[str, dict[str, Estimate]] = {}
    for i, kind in enumerate(kinds):
        if sums[i, -1] > 0:
            of_kind = zip(MEASURES, value[i].tolist(), resampled[:, i].T, strict=True)
            metrics[kind] = {
                measure: estimate_of(mean, column) if measure == "loss" else share_of(mean, column, int(patients[i]))
                for measure, mean, column in of_kind
            }
    differences = {}
    if len(metrics) == 2:
        for measure, column in zip(MEASURES, (resampled[:, 0] - resampled[:, 1]).T, strict=True):
            differences[measure] = difference_of(metrics["novel"][measure], metrics["other"][measure], column)

    def by_kind(numbers: np.ndarray) -> dict[str, int]:
        return {kind: round(float(number)) for kind, number in zip(kinds, numbers, strict=True)}

    return BandMetrics(name, by_kind(codes), by_kind(sums[:, -1]), by_kind(patients), metrics, differences)


def _distinct_codes(labels: np.ndarray) -> int:
    return len(np.unique(labels))
