"""Recalibration: one scale and one shift of the logits, fitted on validation patients."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from exmed_bert.evaluation.metrics import sigmoid

_LEAST_SCALE = 0.05  # a model that ranks validation patients the wrong way round keeps its ranking


@dataclass(frozen=True)
class Calibration:
    """Temperature scaling with a bias: ``logit / temperature + bias``.

    The bias is there because class weights shift all logits by a constant, which no temperature undoes. Ranks, and so
    every AUROC, stay as they are.
    """

    temperature: float = 1.0
    bias: float = 0.0

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """Return recalibrated logits."""
        return np.asarray(logits, dtype=np.float64) / self.temperature + self.bias

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return recalibrated probabilities of label 1."""
        return sigmoid(self.apply(logits))


def fit(labels: np.ndarray, logits: np.ndarray, weights: np.ndarray | None = None) -> Calibration:
    """Fit temperature and bias by likelihood.

    The labels are drawn toward each other as by Platt ("Probabilistic outputs for support vector machines", 1999):
    1 becomes (n1 + 1) / (n1 + 2) and 0 becomes 1 / (n0 + 2), so that a few patients, or classes that the logits
    separate, give finite values. Where one class alone occurs there is nothing to fit, and logits stay as they are.

    Args:
        labels: (N,) 0 or 1, of patients the model was not trained on.
        logits: (N,) of label 1, uncalibrated.
        weights: (N,) what each patient counts, as `HorizonOutcome.weights` has it; None for each once.
    """
    labels, logits = np.asarray(labels, dtype=np.float64), np.asarray(logits, dtype=np.float64)
    share = np.ones(len(labels)) if weights is None else np.asarray(weights, dtype=np.float64)
    events, others = float(share @ labels), float(share @ (1 - labels))
    if not (events > 0 and others > 0) or np.ptp(logits) == 0:
        return Calibration()
    target = np.where(labels == 1, (events + 1) / (events + 2), 1 / (others + 2))
    share = share / share.sum()
    # Fitted on standardized logits: the same answer, found in a few steps whatever their size.
    center, spread = logits.mean(), logits.std()
    z = (logits - center) / spread

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        scale, shift = parameters
        eta = scale * z + shift
        residual = share * (sigmoid(eta) - target)
        return float(share @ (np.logaddexp(0, eta) - target * eta)), np.array([residual @ z, residual.sum()])

    bounds = [(_LEAST_SCALE * spread, None), (None, None)]
    scale, shift = minimize(loss, [max(1.0, bounds[0][0]), 0.0], jac=True, method="L-BFGS-B", bounds=bounds).x
    return Calibration(float(spread / scale), float(shift - scale * center / spread))
