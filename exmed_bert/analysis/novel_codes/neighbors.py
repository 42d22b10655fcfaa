"""Similarity of codes to their relatives: cosines, and the rank of a relative among all codes, beside chance."""

from dataclasses import dataclass

import numpy as np

from exmed_bert.analysis.novel_codes.families import CodeFamilies
from exmed_bert.console import progress
from exmed_bert.evaluation.bootstrap import RESAMPLES, Estimate, draw_counts, estimate_of, share_of

HITS = (1, 5, 10)
NEAREST = 5  # neighbors that are kept for reading
RELATIONS = ("parent", "siblings", "chapter", "any")

_BLOCK = 512  # codes whose cosines to all codes are in memory at a time
_RESAMPLES_AT_ONCE = 100


@dataclass(frozen=True)
class Nearness:
    """N codes and the position of their relatives; NaN, or rank 0, where a code has no such relative.

    Attributes:
        cosines: by relation, (N,) float64: to the parent; the mean to the siblings; the mean to the codes of the same
            chapter that are neither parent nor sibling; the mean to any other code.
        parent_ranks: (N,) int64, 1 where no code but itself lies nearer than the parent.
        sibling_ranks: (N,) int64, the same of the nearest sibling.
        nearest: (N, at most 5) rows of the nearest codes, nearest first.
    """

    cosines: dict[str, np.ndarray]
    parent_ranks: np.ndarray
    sibling_ranks: np.ndarray
    nearest: np.ndarray


@dataclass(frozen=True)
class RankMetrics:
    """Ranks of a kind of relative over a group of codes, beside those of a random order.

    Attributes:
        codes: how many have such a relative.
        median: of the ranks.
        hits: share of ranks up to 1, 5 and 10, by name: ``hit@1``; and ``mrr``, the mean of 1 / rank.
        by_chance: the same by chance.
    """

    codes: int
    median: float | None
    hits: dict[str, Estimate]
    by_chance: dict[str, float]


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Return rows of length 1, float32; a row of zeros stays."""
    vectors = np.asarray(vectors, dtype=np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def nearness(families: CodeFamilies, vectors: np.ndarray, label: str = "Cosines") -> Nearness:
    """Measure cosines and ranks of the relatives of all codes.

    Args:
        families: N codes.
        vectors: (N, d), their embeddings.
        label: of the progress bar.
    """
    n = len(families)
    unit = unit_rows(vectors)
    cosines = {name: np.full(n, np.nan) for name in RELATIONS}
    parent_ranks, sibling_ranks = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
    kept = min(NEAREST, max(n - 1, 0))
    nearest = np.zeros((n, kept), dtype=np.int64)
    in_chapter = families.chapters[:, None] == np.arange(len(families.chapter_names))  # (N, chapters)
    chapter_sums, chapter_sizes = in_chapter.T.astype(np.float64) @ unit, in_chapter.sum(axis=0)
    total = unit.sum(axis=0, dtype=np.float64)
    bar = progress(total=n, label=label, unit=" codes")
    for start in range(0, n, _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, n))
        scores = unit[rows] @ unit.T  # (block, N)
        scores[np.arange(len(rows)), rows] = -np.inf  # itself
        near = np.argpartition(-scores, range(kept), axis=1)[:, :kept] if kept else nearest[rows]
        nearest[rows] = near
        for place, row in enumerate(rows.tolist()):
            parent, siblings, score = families.parents[row], families.siblings[row], scores[place]
            own = float(unit[row] @ unit[row])
            relatives = siblings[families.chapters[siblings] == families.chapters[row]]
            if parent >= 0:
                cosines["parent"][row] = score[parent]
                parent_ranks[row] = 1 + int((score > score[parent]).sum())
                relatives = np.append(relatives, parent)
            if len(siblings):
                cosines["siblings"][row] = score[siblings].mean()
                sibling_ranks[row] = 1 + int((score > score[siblings].max()).sum())
            others = chapter_sizes[families.chapters[row]] - len(relatives) - 1
            if others:
                summed = chapter_sums[families.chapters[row]] @ unit[row] - own - score[relatives].sum()
                cosines["chapter"][row] = summed / others
            if n > 1:
                cosines["any"][row] = (total @ unit[row] - own) / (n - 1)
        bar.update(len(rows))
    bar.close()
    return Nearness(cosines, parent_ranks, sibling_ranks, nearest)


def nearest_siblings(
    families: CodeFamilies, vectors: np.ndarray, rows: np.ndarray
) -> dict[int, list[tuple[int, float]]]:
    """Return the nearest siblings of some codes, at most 5 with their cosines, nearest first.

    Args:
        families: N codes.
        vectors: (N, d), their embeddings.
        rows: (n,) the codes.
    """
    unit, found = unit_rows(vectors), {}
    for row in rows.tolist():
        siblings = families.siblings[row]
        if len(siblings):
            cosines = unit[siblings] @ unit[row]
            order = np.argsort(-cosines, kind="stable")[:NEAREST]
            found[row] = list(zip(siblings[order].tolist(), cosines[order].tolist(), strict=True))
    return found


def mean_estimate(values: np.ndarray, seed: int, resamples: int = RESAMPLES) -> tuple[int, Estimate | None]:
    """Return the number of values and their mean, with the interval of a bootstrap over codes.

    Args:
        values: (n,) one per code, NaN where a code has none.
        seed: of the draws.
        resamples: how many.
    """
    values = values[np.isfinite(values)]
    if not len(values):
        return 0, None
    # The interval of a single code would be a point, and say nothing.
    drawn = _resampled_means(values[:, None], seed, resamples)[:, 0] if len(values) > 1 else None
    return len(values), estimate_of(float(values.mean()), drawn)


def _resampled_means(values: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """Return the means of (n, k) values over each resample of the rows, (R, k)."""
    n = len(values)
    generator = np.random.default_rng(seed)
    starts = range(0, resamples, _RESAMPLES_AT_ONCE)
    drawn = (draw_counts(generator, min(_RESAMPLES_AT_ONCE, resamples - start), n) @ values / n for start in starts)
    return np.concatenate([np.empty((0, values.shape[1])), *drawn])


def rank_metrics(ranks: np.ndarray, relatives: np.ndarray, codes: int, seed: int) -> RankMetrics:
    """Return the metrics of some ranks, with intervals of a bootstrap over codes.

    Args:
        ranks: (n,) from 1; 0 where a code has no such relative.
        relatives: (n,) how many such relatives each code has.
        codes: how many codes there are, itself included.
        seed: of the draws.
    """
    has = ranks > 0
    ranks, relatives = ranks[has], relatives[has]
    names = [*(f"hit@{top}" for top in HITS), "mrr"]
    if not len(ranks):
        return RankMetrics(0, None, {}, {})
    values = np.column_stack([*(ranks <= top for top in HITS), 1 / ranks]).astype(np.float64)
    means = _resampled_means(values, seed, RESAMPLES)
    *hits, mrr = zip(names, values.mean(axis=0).tolist(), means.T, strict=True)
    metrics = {name: share_of(mean, drawn, len(ranks)) for name, mean, drawn in hits}
    metrics[mrr[0]] = estimate_of(mrr[1], mrr[2])
    kinds, number = np.unique(relatives, return_counts=True)
    chance = number @ np.array([chance_of(int(kind), codes - 1) for kind in kinds]) / number.sum()
    return RankMetrics(
        len(ranks),
        float(np.median(ranks)),
        metrics,
        dict(zip(names, chance.tolist(), strict=True)),
    )


def chance_of(relatives: int, others: int) -> list[float]:
    """Return hit@1, hit@5, hit@10 and the mean of 1 / rank of the first of some relatives in a random order.

    Args:
        relatives: how many, at least 1.
        others: how many codes are in the order, the relatives among them.

    >>> chance_of(1, 4)[:3], round(chance_of(1, 4)[3], 4), chance_of(4, 4)
    ([0.25, 1.0, 1.0], 0.5208, [1.0, 1.0, 1.0, 1.0])
    """
    place = np.arange(others)
    # The first r places hold none of the relatives: C(others - r, relatives) / C(others, relatives).
    step = np.clip(1 - relatives / (others - place), 0, 1)
    none_yet = np.concatenate(([1.0], np.cumprod(step)))
    hits = [float(1 - none_yet[min(top, others)]) for top in HITS]
    return [*hits, float((-np.diff(none_yet) / (place + 1)).sum())]
