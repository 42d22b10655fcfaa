"""Changing the dimension of vectors, so that embeddings of one width start a model of another."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from exmed_bert.console import OptionError

ResizeMethod = Literal["auto", "pca", "truncate", "pad_random"]

# Standard deviation of padding against that of the vectors' own values. At a tenth, 160 dimensions of noise added to
# 128 lengthen a typical distance between two vectors by 0.6 %: neighbours stay neighbours.
_NOISE = 0.1


@dataclass(frozen=True)
class Resized:
    """Vectors of the new size, (n, size) float32, and one line for the log about how they were made."""

    vectors: np.ndarray
    note: str


def resize(vectors: np.ndarray, size: int, method: ResizeMethod, seed: int) -> Resized:
    """Give vectors another dimension; those that have it already are returned as they are.

    - ``auto``: ``pca`` to shrink, ``pad_random`` to grow.
    - ``pca``: centred and projected on the principal axes of all the vectors. There are at most min(n, d) of them;
      dimensions beyond these are zero, so that growing is a rotation and keeps every distance. The sign of
      an axis, which is arbitrary, is taken so that its largest loading is positive.
    - ``truncate``: the first dimensions, with zeros behind them to grow.
    - ``pad_random``: normal noise behind the vectors, a tenth of their spread.

    Args:
        vectors: (n, d) float32, n at least 1.
        size: the new dimension.
        method: see above.
        seed: seed of the noise.

    Raises:
        OptionError: ``pad_random`` is asked to shrink.
    """
    dimension = vectors.shape[1]
    if size == dimension:
        return Resized(vectors, f"ClinVec vectors keep their {dimension} dimensions")
    if method == "auto":
        method = "pca" if size < dimension else "pad_random"
    if method == "pca":
        return _pca(vectors, size)
    if method == "truncate":
        return _truncate(vectors, size)
    return _pad_random(vectors, size, seed)


def _pca(vectors: np.ndarray, size: int) -> Resized:
    centred = vectors - vectors.mean(axis=0, dtype=np.float64)
    _, singular_values, axes = np.linalg.svd(centred, full_matrices=False)  # axes: (min(n, d), d), largest first
    axes = axes[:size]
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1, keepdims=True), axis=1)  # (axes, 1)
    projected = _with_zeros(centred @ (axes * np.sign(largest)).T, size)

    variances = singular_values**2
    total = variances.sum()
    explained = variances[:size].sum() / total if total > 0 else 1.0
    note = f"{_change(vectors, size)} by pca: {len(axes)} principal axes explain {explained:.1%} of the variance"
    return Resized(projected, note + _zeros_note(size - len(axes)))


def _truncate(vectors: np.ndarray, size: int) -> Resized:
    kept = min(size, vectors.shape[1])
    note = f"{_change(vectors, size)} by truncate: the first {kept} dimensions are kept"
    return Resized(_with_zeros(vectors[:, :size], size), note + _zeros_note(size - kept))


def _pad_random(vectors: np.ndarray, size: int, seed: int) -> Resized:
    n, dimension = vectors.shape
    if size < dimension:
        raise OptionError(
            f"--resize-method: pad_random cannot shrink vectors from {dimension} to {size} dimensions; use pca, "
            f"truncate or auto, or a --hidden-size of at least {dimension}"
        )
    scale = _NOISE * float(np.sqrt(vectors.var(axis=0, dtype=np.float64).mean()))
    noise = np.random.default_rng(seed).normal(0, scale, (n, size - dimension)).astype(np.float32)
    note = f"{_change(vectors, size)} by pad_random: {size - dimension} of noise (standard deviation {scale:.3g})"
    return Resized(np.hstack([vectors, noise]), note)


def _with_zeros(vectors: np.ndarray, size: int) -> np.ndarray:
    return np.pad(vectors, ((0, 0), (0, size - vectors.shape[1]))).astype(np.float32)


def _change(vectors: np.ndarray, size: int) -> str:
    return f"ClinVec vectors resized from {vectors.shape[1]} to {size} dimensions"


def _zeros_note(zeros: int) -> str:
    return f", the other {zeros} dimensions are zero" if zeros else ""
