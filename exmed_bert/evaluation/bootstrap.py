"""Confidence intervals by resampling patients, and paired differences between two models on the same resamples."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from exmed_bert.evaluation.metrics import METRICS, Predictions

RESAMPLES = 1000
LEVEL = 0.95

Weigh = Callable[[np.ndarray], np.ndarray]
"""Makes of how often each patient is drawn, (R, N), what each counts; `HorizonOutcome.weights` is one."""

_CELLS = 250_000  # weights at a time: what a processor keeps close
_USABLE = 0.9  # an interval needs this share of the resamples to define the metric


@dataclass(frozen=True)
class Estimate:
    """A metric and its percentile interval; no interval where too few resamples define the metric."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends, None without an interval."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]


@dataclass(frozen=True)
class PairedPredictions:
    """Two models' probabilities for the same patients of one endpoint.

    Attributes:
        labels, ours, theirs: (N,) labels and probabilities.
        patient_hashes: (N,) the patient of each row, as `exmed_bert.data.randomness.hash_patient_ids` gives; None
            where all rows are of different patients.
        weigh: what each row counts, however often it is drawn; None where all count the same.
    """

    labels: np.ndarray
    ours: np.ndarray
    theirs: np.ndarray
    patient_hashes: np.ndarray | None = None
    weigh: Weigh | None = None

    def weights(self, drawn: np.ndarray) -> np.ndarray:
        """Return what each row counts, (R, N), of how often it is drawn."""
        return drawn if self.weigh is None else self.weigh(drawn)


def with_intervals(
    labels: np.ndarray,
    probabilities: np.ndarray,
    patient_hashes: np.ndarray | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    names: Iterable[str] = METRICS,
    weigh: Weigh | None = None,
) -> dict[str, Estimate]:
    """Return the metrics that are defined, with the 95 % percentile intervals of a bootstrap by patient.

    All rows of a patient are drawn together. The bins of the calibration error are those of the sample.

    Args:
        labels, probabilities: (N,) as in `metrics.measure`.
        patient_hashes: (N,) the patient of each row; None where no patient has two rows.
        resamples: how many; 0 gives metrics without intervals.
        seed: of the draws.
        names: keys of `METRICS`.
        weigh: what each row counts, however often it is drawn; None where all count the same.
    """
    names = tuple(names)
    predictions = Predictions(labels, probabilities)
    rows = _rows(patient_hashes, len(predictions))
    return estimates(predictions.metrics, names, rows, resamples, seed, weigh)


def estimates(
    metrics: Callable[[np.ndarray, Iterable[str]], dict[str, np.ndarray]],
    names: Iterable[str],
    rows: np.ndarray | int,
    resamples: int = RESAMPLES,
    seed: int = 0,
    weigh: Weigh | None = None,
) -> dict[str, Estimate]:
    """Return whatever metrics of weightings are defined, with the 95 % percentile intervals of a bootstrap by patient.

    Args:
        metrics: of weights (R, N) and names the values of each metric, (R,), NaN where it is not defined.
        names: of the metrics.
        rows: (N,) the patient of each row, or N where all are of different patients.
        resamples, seed, weigh: as in `with_intervals`.
    """
    n = rows if isinstance(rows, int) else len(rows)
    own = weigh or (lambda drawn: drawn)
    measured = metrics(own(np.ones((1, n))), names)
    values = {name: float(value[0]) for name, value in measured.items() if np.isfinite(value[0])}
    drawn = _gather(metrics(own(weights), values) for weights in _weights([rows], resamples, seed))
    return {name: estimate_of(value, drawn.get(name)) for name, value in values.items()}


def paired_difference(
    labels: np.ndarray,
    ours: np.ndarray,
    theirs: np.ndarray,
    metric: str = "auroc",
    patient_hashes: np.ndarray | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate | None:
    """Return ours minus theirs with its interval: both models are measured on the same resamples.

    Returns:
        The difference, None where the metric is not defined. Arguments as in `with_intervals`.
    """
    return mean_paired_difference([PairedPredictions(labels, ours, theirs, patient_hashes)], metric, resamples, seed)


def mean_paired_difference(
    endpoints: Sequence[PairedPredictions], metric: str = "auroc", resamples: int = RESAMPLES, seed: int = 0
) -> Estimate | None:
    """Return the mean over endpoints of ours minus theirs with its interval, None where it is not defined.

    Resampled as in `mean_paired_differences`.
    """
    return mean_paired_differences(endpoints, (metric,), resamples, seed).get(metric)


def mean_paired_differences(
    endpoints: Sequence[PairedPredictions],
    names: Iterable[str] = METRICS,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Return the mean over endpoints of ours minus theirs in several metrics, with intervals.

    Patients are resampled once for all endpoints: a patient who is drawn twice counts twice in each, so that what
    endpoints have in common is not taken for independent evidence. Endpoints without hashes are resampled apart.

    Args:
        endpoints: one or more.
        names: keys of `METRICS`; those that an endpoint does not define are left out.
        resamples, seed: as in `with_intervals`.
    """
    both = [(Predictions(e.labels, e.ours), Predictions(e.labels, e.theirs)) for e in endpoints]
    once = [e.weights(np.ones((1, len(e.labels)))) for e in endpoints]
    measured = [
        (ours.measure(weights), theirs.measure(weights)) for (ours, theirs), weights in zip(both, once, strict=True)
    ]
    values = {
        name: float(np.mean([ours[name] - theirs[name] for ours, theirs in measured]))
        for name in names
        if all(name in ours and name in theirs for ours, theirs in measured)
    }
    rows = [_rows(e.patient_hashes, len(e.labels)) for e in endpoints]
    ends = np.cumsum([len(e.labels) for e in endpoints])[:-1]

    def differences(weights: np.ndarray) -> dict[str, np.ndarray]:
        parts = [e.weights(drawn) for e, drawn in zip(endpoints, np.split(weights, ends, axis=1), strict=True)]
        found = [
            (ours.metrics(own, values), theirs.metrics(own, values))
            for (ours, theirs), own in zip(both, parts, strict=True)
        ]
        return {name: np.mean([ours[name] - theirs[name] for ours, theirs in found], axis=0) for name in values}

    drawn = _gather(map(differences, _weights(rows, resamples, seed)))
    return {name: estimate_of(value, drawn.get(name)) for name, value in values.items()}


def _rows(patient_hashes: np.ndarray | None, n: int) -> np.ndarray | int:
    """Return the patients of the rows, or the number of rows where all are of different patients."""
    return n if patient_hashes is None else np.asarray(patient_hashes)


def _weights(endpoints: list[np.ndarray | int], resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield how often each row of all endpoints, one after another, is drawn, (a few resamples, rows)."""
    hashed = [hashes for hashes in endpoints if not isinstance(hashes, int)]
    distinct = np.unique(np.concatenate(hashed)) if hashed else np.empty(0)
    # A patient that is drawn apart from all others is one of an own population: its number is added to the others'.
    populations, rows = [len(distinct)], []
    for hashes in endpoints:
        if isinstance(hashes, int):
            rows.append(sum(populations) + np.arange(hashes))
            populations.append(hashes)
        else:
            rows.append(np.searchsorted(distinct, hashes))
    row = np.concatenate(rows)
    generator = np.random.default_rng(seed)
    chunk = max(1, _CELLS // max(len(row), 1))
    for start in range(0, resamples, chunk):
        count = min(chunk, resamples - start)
        drawn = [draw_counts(generator, count, n) for n in populations if n]
        yield np.concatenate(drawn, axis=1)[:, row]


def draw_counts(generator: np.random.Generator, resamples: int, n: int) -> np.ndarray:
    """Return how often each of n patients is drawn in n draws, (resamples, n)."""
    drawn = generator.integers(n, size=(resamples, n)) + np.arange(resamples)[:, None] * n
    return np.bincount(drawn.ravel(), minlength=resamples * n).reshape(resamples, n)


def _gather(parts: Iterable[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    parts = list(parts)
    return {name: np.concatenate([part[name] for part in parts]) for name in (parts[0] if parts else ())}


def estimate_of(value: float, drawn: np.ndarray | None) -> Estimate:
    """Return a metric with the percentile interval of its resamples, (R,)."""
    if drawn is None or np.isfinite(drawn).mean() < _USABLE:
        return Estimate(value)
    low, high = np.nanquantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high))


def share_of(value: float, drawn: np.ndarray | None, n: int) -> Estimate:
    """Return a share with the percentile interval of its resamples; of none or all, the exact interval.

    Where none of n has something, none of a resample has: the resamples would say that it cannot be. Clopper and
    Pearson's interval is taken there, "The use of confidence or fiducial limits", Biometrika 26 (1934).

    Args:
        value: 0 to 1.
        drawn: (R,) the same of each resample.
        n: independent units that the share is of.

    >>> round(share_of(0.0, None, 36).high, 4), share_of(0.5, None, 36)
    (0.0974, Estimate(value=0.5, low=None, high=None))
    """
    if value in (0.0, 1.0) and n:
        far = ((1 - LEVEL) / 2) ** (1 / n)
        return Estimate(value, 0.0, 1 - far) if value == 0 else Estimate(value, far, 1.0)
    return estimate_of(value, drawn)


def difference_of(ours: Estimate, theirs: Estimate, drawn: np.ndarray | None) -> Estimate:
    """Return the difference of two shares of `share_of` with the percentile interval of its resamples, (R,).

    Where one is 0 or 1, the interval is made of theirs: Newcombe, "Interval estimation for the difference between
    independent proportions", Statistics in Medicine 17 (1998), method 10.
    """
    value = ours.value - theirs.value
    certain = any(share.value in (0.0, 1.0) for share in (ours, theirs))
    if not certain or ours.interval is None or theirs.interval is None:
        return estimate_of(value, drawn)
    (our_low, our_high), (their_low, their_high) = ours.interval, theirs.interval
    below = np.hypot(ours.value - our_low, their_high - theirs.value)
    above = np.hypot(our_high - ours.value, theirs.value - their_low)
    return Estimate(value, float(value - below), float(value + above))
