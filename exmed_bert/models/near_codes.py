"""Codes whose vectors point most nearly in the direction of a code's."""

import numpy as np

from exmed_bert.data.vocabulary import SPECIAL_TOKENS


def near_codes(
    vectors: np.ndarray, token: int, top: int, candidates: np.ndarray | None = None
) -> list[tuple[int, float]]:
    """Return the nearest codes and their cosines, the nearest first; neither special tokens nor the code itself.

    Args:
        vectors: (V, hidden), of all ids.
        token: the id of the code.
        top: how many.
        candidates: (V,) bool, the codes that may be named; None: all.
    """
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    similarity = unit @ unit[token]
    similarity[[*range(len(SPECIAL_TOKENS)), token]] = -np.inf
    if candidates is not None:
        similarity[~candidates] = -np.inf
    nearest = np.argsort(-similarity, kind="stable")[: min(top, int(np.isfinite(similarity).sum()))]
    return [(i, float(similarity[i])) for i in nearest.tolist()]
