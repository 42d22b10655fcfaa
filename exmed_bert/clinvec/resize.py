"""Changing the dimension of vectors, so that embeddings of one width start a model of another."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from exmed_bert.console import OptionError

ResizeMethod = Literal["auto", "pca", "truncate", "learned_projection", "pad_smart", "pad_random"]

NEIGHBORS = 10
_SAMPLE = 2000  # vectors whose neighbors are compared, evenly spaced
_STEPS, _BATCH, _RATE = 200, 512, 0.001  # of the learned projection: steps, vectors per step, learning rate
_SHARPNESS = 20.0  # of the neighborhoods that it keeps: weights fall by e with 0.05 of cosine


@dataclass(frozen=True)
class Resized:
    """Vectors of the new size, (n, size) float32, and one line for the log about how they were made."""

    vectors: np.ndarray
    note: str


def resize(vectors: np.ndarray, size: int, method: ResizeMethod, seed: int) -> Resized:
    """Give vectors another dimension; those that have it already are returned as they are.

    - ``auto``: ``pca`` to shrink, ``pad_smart`` to grow.
    - ``pca``: centered and projected on the principal axes of all the vectors: no other linear map keeps more of the
      squared distances. There are at most min(n, d) axes; dimensions beyond these are zero, so that growing is a
      rotation and keeps every distance. The sign of an axis, which is arbitrary, is taken so that its largest loading
      is positive.
    - ``truncate``: the first dimensions, with zeros behind them to grow. Keeps these values themselves.
    - ``learned_projection``: a linear map trained to keep neighborhoods by cosine (the distribution of a vector's
      neighbors, as in stochastic neighbor embedding), and that another linear map can restore the vectors from.
      Starts from ``pca``.
    - ``pad_smart``: the vectors, and behind them their scores on the leading principal axes, shrunk as if the axes'
      variances went on to fall as they do, with as much noise. Keeps neighbors, and no new dimension is empty.
    - ``pad_random``: the vectors, and behind them normal noise as large as their own values, which is what the model
      draws for codes without a vector. Keeps the values; neighbors are blurred.

    Args:
        vectors: (n, d) float32, n at least 1.
        size: the new dimension.
        method: see above.
        seed: seed of noise and training.

    Raises:
        OptionError: ``pad_smart`` or ``pad_random`` is asked to shrink.
    """
    dimension = vectors.shape[1]
    if size == dimension:
        return Resized(vectors, f"ClinVec vectors keep their {dimension} dimensions")
    if method == "auto":
        method = "pca" if size < dimension else "pad_smart"
    if method.startswith("pad") and size < dimension:
        raise OptionError(
            f"--resize-method: {method} cannot shrink vectors from {dimension} to {size} dimensions; use pca, "
            f"learned_projection, truncate or auto, or a --hidden-size of at least {dimension}"
        )
    resized, how = _METHODS[method](vectors, size, seed)
    note = f"ClinVec vectors resized from {dimension} to {size} dimensions by {method}: {how}"
    if len(vectors) > NEIGHBORS:
        kept = neighbor_overlap(vectors, resized)
        note += f"; {kept:.0%} of the {NEIGHBORS} nearest neighbors stay"
    return Resized(resized, note)


def neighbor_overlap(before: np.ndarray, after: np.ndarray) -> float:
    """Return the share of each vector's ten nearest neighbors by cosine, (n, d) and (n, e), that are so in both.

    Of up to 2,000 vectors, evenly spaced, among themselves.
    """
    chosen = np.linspace(0, len(before) - 1, min(len(before), _SAMPLE)).astype(int)
    near = [_nearest(vectors[chosen]) for vectors in (before, after)]
    return float(np.mean([len(np.intersect1d(*rows)) / len(rows[0]) for rows in zip(*near, strict=True)]))


def _nearest(vectors: np.ndarray) -> np.ndarray:
    """Return (n, 10) indices of each row's nearest other rows by cosine."""
    cosines = _unit(vectors) @ _unit(vectors).T
    np.fill_diagonal(cosines, -np.inf)
    return np.argpartition(-cosines, min(NEIGHBORS, len(vectors) - 2), axis=1)[:, :NEIGHBORS]


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def _principal(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the centered vectors, (n, d), their principal axes, (min(n, d), d), and the axes' standard deviations."""
    centered = vectors - vectors.mean(axis=0, dtype=np.float64)
    _, singular_values, axes = np.linalg.svd(centered, full_matrices=False)
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1, keepdims=True), axis=1)  # (axes, 1)
    return centered, axes * np.sign(largest), singular_values / np.sqrt(len(vectors))


def _pca(vectors: np.ndarray, size: int, seed: int) -> tuple[np.ndarray, str]:
    centered, axes, spreads = _principal(vectors)
    axes = axes[:size]
    total = (spreads**2).sum()
    explained = (spreads[:size] ** 2).sum() / total if total > 0 else 1.0
    how = f"{len(axes)} principal axes explain {explained:.1%} of the variance" + _zeros_note(size - len(axes))
    return _with_zeros(centered @ axes.T, size), how


def _truncate(vectors: np.ndarray, size: int, seed: int) -> tuple[np.ndarray, str]:
    kept = min(size, vectors.shape[1])
    return _with_zeros(vectors[:, :size], size), f"the first {kept} dimensions are kept" + _zeros_note(size - kept)


def _learned_projection(vectors: np.ndarray, size: int, seed: int) -> tuple[np.ndarray, str]:
    import torch  # 2 s, and this method alone needs it
    from torch.nn import functional as F

    start, _ = _pca(vectors, size, seed)
    centered, _, _ = _principal(vectors)
    scale = float(np.sqrt((centered**2).mean())) or 1.0
    x = torch.from_numpy(centered / scale).float()
    forward = torch.from_numpy(np.linalg.lstsq(centered, start, rcond=None)[0]).float().requires_grad_()  # (d, size)
    backward = torch.linalg.pinv(forward.detach()).requires_grad_()  # (size, d)
    optimizer = torch.optim.Adam([forward, backward], lr=_RATE)
    generator = torch.Generator().manual_seed(seed)
    with torch.enable_grad():  # callers that initialize a model's parameters have switched gradients off
        for _ in range(_STEPS if len(x) > 2 else 0):
            batch = x[torch.randperm(len(x), generator=generator)[:_BATCH]]
            projected = batch @ forward
            wanted, found = (F.normalize(v) @ F.normalize(v).T * _SHARPNESS for v in (batch, projected))
            kept = F.kl_div(found.log_softmax(dim=1), wanted.log_softmax(dim=1), log_target=True, reduction="batchmean")
            loss = kept + (projected @ backward - batch).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        resized = (x @ forward).numpy() * np.float32(scale)
        lost = float(((x @ forward @ backward - x).square().sum() / x.square().sum().clamp(min=1e-12)).item())
    return resized, f"a map of {_STEPS} training steps, from which {1 - lost:.1%} of the variance can be restored"


def _pad_smart(vectors: np.ndarray, size: int, seed: int) -> tuple[np.ndarray, str]:
    centered, axes, spreads = _principal(vectors)
    real = max(int((spreads > 1e-6 * max(spreads[0], 1e-12)).sum()), 1)  # axes that hold anything
    fall = (spreads[real - 1] / spreads[0]) ** (1 / max(real - 1, 1)) if spreads[0] > 0 else 1.0
    extra = np.arange(size - vectors.shape[1])
    going_on = spreads[real - 1] * fall ** (extra + 1)
    axis = extra % real
    scores = centered @ axes[axis].T / np.where(spreads[axis] > 0, spreads[axis], 1)
    noise = np.random.default_rng(seed).standard_normal(scores.shape)
    padding = (scores + noise) * np.sqrt(0.5) * going_on
    how = f"{len(extra)} of leading principal scores and noise (standard deviation {going_on.mean():.3g})"
    return np.hstack([vectors, padding.astype(np.float32)]), how


def _pad_random(vectors: np.ndarray, size: int, seed: int) -> tuple[np.ndarray, str]:
    scale = float(np.sqrt((vectors.astype(np.float64) ** 2).mean()))
    extra = size - vectors.shape[1]
    noise = np.random.default_rng(seed).normal(0, scale, (len(vectors), extra)).astype(np.float32)
    return np.hstack([vectors, noise]), f"{extra} of noise (standard deviation {scale:.3g})"


_METHODS = {
    "pca": _pca,
    "truncate": _truncate,
    "learned_projection": _learned_projection,
    "pad_smart": _pad_smart,
    "pad_random": _pad_random,
}


def _with_zeros(vectors: np.ndarray, size: int) -> np.ndarray:
    return np.pad(vectors, ((0, 0), (0, size - vectors.shape[1]))).astype(np.float32)


def _zeros_note(zeros: int) -> str:
    return f", the other {zeros} dimensions are zero" if zeros else ""
