"""Membership inference: how well a model's losses tell the patients that it was trained on from others.

Whoever holds a model and a person's record can look at how well the model predicts the record's masked codes. Where
training patients have lower losses than patients who were held out, the model remembers them (Yeom et al., 2018,
doi:10.1109/CSF.2018.00027). 0.5 is a coin: nothing is told.
"""

import math

import numpy as np

_NORMAL = 1.959964  # of a 95 % interval


def patient_losses(losses: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the mean loss of each patient, those without a masked code left out.

    Args:
        losses: (n,) of masked codes, patient by patient.
        counts: (p,) masked codes of each patient.
    """
    counts = counts[counts > 0]
    return np.add.reduceat(losses, np.cumsum(counts) - counts) / counts if len(counts) else np.empty(0)


def membership(trained: np.ndarray, held_out: np.ndarray) -> dict[str, float]:
    """Return the AUC of telling training patients by their lower loss, and its 95 % interval by DeLong's variance.

    Args:
        trained, held_out: (m,), (n,) losses of patients who were in training, and of others.

    >>> found = membership(np.array([0.1, 0.2, 0.3]), np.array([0.25, 0.4, 0.5]))
    >>> {name: round(value, 3) for name, value in found.items()}
    {'membership_auc': 0.889, 'membership_auc_low': 0.581, 'membership_auc_high': 1.0}
    >>> membership(np.array([0.1]), np.array([0.2, 0.3]))
    {}
    """
    m, n = len(trained), len(held_out)
    if min(m, n) < 2:
        return {}
    of_trained = 1 - _share_below(trained, held_out)
    of_held_out = _share_below(held_out, trained)
    auc = float(of_trained.mean())
    margin = _NORMAL * math.sqrt(of_trained.var(ddof=1) / m + of_held_out.var(ddof=1) / n)
    return {
        "membership_auc": auc,
        "membership_auc_low": max(auc - margin, 0.0),
        "membership_auc_high": min(auc + margin, 1.0),
    }


def _share_below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return for each value the share of the others that are smaller; half of a tie is."""
    others = np.sort(others)
    return (np.searchsorted(others, values, "left") + np.searchsorted(others, values, "right")) / (2 * len(others))
