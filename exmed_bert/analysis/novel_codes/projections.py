"""Maps of embeddings in two dimensions: principal components, and t-SNE (van der Maaten and Hinton, 2008)."""

import numpy as np

from exmed_bert.analysis.novel_codes.neighbors import unit_rows

_PERPLEXITY = 30.0  # scikit-learn's default


def perplexity_for(n: int) -> float:
    """Return a perplexity for n points: a third of them at most, as t-SNE's neighborhoods reach three times as far.

    >>> perplexity_for(1000), perplexity_for(31), perplexity_for(2)
    (30.0, 10.0, 1.0)
    """
    return float(min(_PERPLEXITY, max((n - 1) // 3, 1)))


def principal_components(vectors: np.ndarray) -> np.ndarray:
    """Return the first two principal components of the directions of (n, d) vectors, (n, 2)."""
    unit = unit_rows(vectors).astype(np.float64)
    unit -= unit.mean(axis=0)
    left, values, _ = np.linalg.svd(unit, full_matrices=False)
    found = (left * values)[:, :2]
    return np.pad(found, ((0, 0), (0, 2 - found.shape[1])))


def tsne(vectors: np.ndarray, seed: int) -> np.ndarray:
    """Return a t-SNE map of the directions of (n, d) vectors, (n, 2); few points get principal components."""
    if len(vectors) < 4:
        return principal_components(vectors)
    from sklearn.manifold import TSNE

    # Between unit vectors the squared Euclidean distance is twice the cosine distance.
    start = principal_components(vectors)
    start *= 1e-4 / max(start[:, 0].std(), 1e-12)  # scikit-learn's scale for a start
    model = TSNE(perplexity=perplexity_for(len(vectors)), init=start.astype(np.float32), random_state=seed)
    return model.fit_transform(unit_rows(vectors))
