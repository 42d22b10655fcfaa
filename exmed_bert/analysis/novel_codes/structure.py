"""Structure of embeddings: tree distances against cosine distances, and silhouettes of chapters."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from exmed_bert.analysis.novel_codes.families import CodeFamilies
from exmed_bert.analysis.novel_codes.neighbors import mean_estimate, unit_rows
from exmed_bert.evaluation.bootstrap import RESAMPLES, Estimate, draw_counts, estimate_of

WITHIN, BETWEEN, ALL, NOVEL = "within chapters", "between chapters", "all", "with a novel code"

_LEAST_PAIRS = 10


@dataclass(frozen=True)
class TreeCorrelation:
    """Spearman's correlation of tree distance and cosine distance over pairs of codes of one system.

    Attributes:
        system: a code system, or ``all``: the pairs of all systems, none across.
        pairs_of: which pairs.
        pairs: how many.
        correlation: None where there are too few pairs, or all lie equally far apart.
    """

    system: str
    pairs_of: str
    pairs: int
    correlation: Estimate | None


@dataclass(frozen=True)
class MeanSilhouette:
    """Mean silhouette of some codes.

    Attributes:
        system: a code system, or ``all``.
        chapter: one of its chapters; empty for all of them.
        codes: how many have a silhouette.
        mean: None without any.
    """

    system: str
    chapter: str
    codes: int
    mean: Estimate | None


@dataclass(frozen=True)
class Silhouettes:
    """How much nearer codes are to their own chapter than to the nearest other, -1 to 1.

    Attributes:
        of_code: (n,) NaN where a code is alone in its chapter, or its system has one chapter.
        means: of all codes, of each system, and of each chapter.
    """

    of_code: np.ndarray
    means: list[MeanSilhouette]

    def mean_of(self, system: str, chapter: str = "") -> MeanSilhouette:
        """Return the mean of a system, or of one of its chapters."""
        return next(one for one in self.means if (one.system, one.chapter) == (system, chapter))


def tree_correlations(
    families: CodeFamilies,
    vectors: np.ndarray,
    rows: np.ndarray,
    novel: np.ndarray,
    seed: int,
    resamples: int = RESAMPLES,
) -> list[TreeCorrelation]:
    """Return the correlations by system and by which pairs, with intervals of a bootstrap over codes.

    A resample weights each pair by how often its two codes were drawn; the ranks stay those of the sample, which
    spares sorting each resample and changes nothing to first order.

    Args:
        families: N codes.
        vectors: (N, d), their embeddings.
        rows: (n,) the codes to take; memory grows with the square of their number.
        novel: (N,) bool.
        seed: of the draws.
        resamples: how many; 0 for no intervals.
    """
    unit = unit_rows(vectors[rows])
    tree, cosine = families.tree_distances(rows), 1 - unit @ unit.T
    counts = draw_counts(np.random.default_rng(seed), resamples, len(rows)).astype(np.float32)
    found = []
    for system, pairs_of, chosen in _scopes(families, rows, novel, tree):
        correlation = _spearman(tree, cosine, chosen, counts)
        found.append(TreeCorrelation(system, pairs_of, int(chosen.sum()) // 2, correlation))
    return found


def cosine_by_distance(families: CodeFamilies, vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return for each distance in the tree the quartiles of the cosines of its pairs, (distances, 4).

    A row is the distance, in steps, and the lower quartile, median and upper quartile.
    """
    unit = unit_rows(vectors[rows])
    upper = np.triu(np.ones((len(rows), len(rows)), dtype=bool), 1)
    tree, cosine = families.tree_distances(rows)[upper], (unit @ unit.T)[upper]
    steps = np.unique(tree[tree > 0])
    quartiles = [(step, *np.quantile(cosine[tree == step], (0.25, 0.5, 0.75))) for step in steps]
    return np.array(quartiles, dtype=np.float64).reshape(-1, 4)


def _scopes(
    families: CodeFamilies, rows: np.ndarray, novel: np.ndarray, tree: np.ndarray
) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield system, which pairs, and these pairs as a symmetric (n, n) bool."""
    pairs = tree > 0
    chapters, is_novel, systems = families.chapters[rows], novel[rows], families.systems[rows]
    same = chapters[:, None] == chapters
    for system in (ALL, *families.system_names):
        of_system = pairs
        if system != ALL:
            of_system = pairs & (systems == families.system_names.index(system))[:, None]
        yield system, ALL, of_system
        yield system, WITHIN, of_system & same
        yield system, BETWEEN, of_system & ~same
        if is_novel.any():
            yield system, NOVEL, of_system & (is_novel[:, None] | is_novel)


def _spearman(tree: np.ndarray, cosine: np.ndarray, chosen: np.ndarray, counts: np.ndarray) -> Estimate | None:
    """Return the correlation over the chosen pairs; ``counts``, (R, n), is how often each code is drawn."""
    upper = np.triu(chosen)
    ranks = []
    if upper.sum() < _LEAST_PAIRS:
        return None
    for distances in (tree, cosine):
        of_pairs = rankdata(distances[upper])
        if np.ptp(of_pairs) == 0:
            return None
        matrix = np.zeros(chosen.shape, dtype=np.float32)
        matrix[upper] = (of_pairs - of_pairs.mean()) / of_pairs.std()
        ranks.append(matrix)
    x, y = ranks
    pairs = int(upper.sum())
    value = float((x.astype(np.float64) * y).sum() / pairs)
    # Of each resample the weight of all pairs, and the weighted sums of x, y, xx, yy and xy.
    sums = [((counts @ m) * counts).sum(axis=1, dtype=np.float64) for m in (upper, x, y, x * x, y * y, x * y)]
    weight = np.where(sums[0] > 0, sums[0], np.nan)
    mean_x, mean_y, xx, yy, xy = (total / weight for total in sums[1:])
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = (xy - mean_x * mean_y) / np.sqrt((xx - mean_x**2) * (yy - mean_y**2))
    return estimate_of(value, drawn if len(drawn) else None)


def silhouettes(families: CodeFamilies, vectors: np.ndarray, rows: np.ndarray, seed: int) -> Silhouettes:
    """Return silhouettes by chapter with cosine distances, of each code system apart (Rousseeuw, 1987).

    Intervals are those of a bootstrap over codes with fixed distances.

    Args:
        families: N codes.
        vectors: (N, d), their embeddings.
        rows: (n,) the codes to take.
        seed: of the draws.
    """
    from sklearn.metrics import silhouette_samples

    of_code = np.full(len(rows), np.nan)
    chapters = families.chapters[rows]
    unit = unit_rows(vectors[rows])
    for system in range(len(families.system_names)):
        own = np.flatnonzero(families.systems[rows] == system)
        own = own[np.linalg.norm(unit[own], axis=1) > 0]
        labels, sizes = np.unique(chapters[own], return_counts=True)
        if 1 < len(labels) < len(own):
            alone = np.isin(chapters[own], labels[sizes == 1])  # scikit-learn gives these a 0
            of_code[own] = np.where(alone, np.nan, silhouette_samples(unit[own], chapters[own], metric="cosine"))
    groups = {(ALL, ""): np.ones(len(rows), dtype=bool)}
    groups |= {(name, ""): families.systems[rows] == i for i, name in enumerate(families.system_names)}
    groups |= {key: chapters == i for i, key in enumerate(families.chapter_names)}
    means = [MeanSilhouette(*key, *mean_estimate(of_code[member], seed)) for key, member in groups.items()]
    return Silhouettes(of_code, means)
