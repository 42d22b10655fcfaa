"""Attainable performance over time: the true risks of generated patients, measured like a model's."""

from collections.abc import Mapping, Sequence

import numpy as np

from exmed_bert.evaluation.bootstrap import RESAMPLES, Estimate, estimates
from exmed_bert.evaluation.follow_up import OUTCOME, FollowUp
from exmed_bert.evaluation.over_time_results import AttainableOverTime
from exmed_bert.evaluation.time_to_event import CONCORDANCE, RisksOverTime, differences_over_time, named


def compare_over_time(
    follow_up: FollowUp,
    at_risk: np.ndarray,
    truth: np.ndarray,
    risks: Mapping[str, np.ndarray],
    horizons: Sequence[float],
    patient_hashes: np.ndarray,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> AttainableOverTime | None:
    """Measure true risks and models on the patients who are at risk; None where nobody of these has the outcome.

    Args:
        follow_up: of N patients.
        at_risk: (N,) bool; the others had the condition before they were first seen, though no code says so.
        truth: (N, H) probability of the outcome by each horizon, of those at risk.
        risks: by model, (N, H) each.
        horizons: days, rising.
        patient_hashes, resamples, seed: as in `bootstrap.with_intervals`.
    """
    own, hashes = follow_up.take(at_risk), patient_hashes[at_risk]
    seen = int((own.events == OUTCOME).sum())
    names = [CONCORDANCE, *(named(metric, horizon) for metric in ("auroc", "brier") for horizon in horizons)]

    def measured(scores: np.ndarray) -> dict[str, Estimate]:
        return estimates(RisksOverTime(own, scores[at_risk], horizons).metrics, names, hashes, resamples, seed)

    true = measured(truth)
    if CONCORDANCE not in true:
        return None
    behind = {
        name: differences_over_time(
            own, truth[at_risk], scores[at_risk], horizons, None, hashes, resamples, seed, names=(CONCORDANCE,)
        ).get(CONCORDANCE)
        for name, scores in risks.items()
    }
    return AttainableOverTime(
        patients=len(own),
        events=seen,
        others=len(follow_up) - len(own),
        other_events=int((follow_up.events == OUTCOME).sum()) - seen,
        true=true,
        models={name: measured(scores) for name, scores in risks.items()},
        behind=behind,
    )
