"""Results of time to event as they may be shared: no count of few patients, and nothing to compute one from."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from exmed_bert.evaluation.censoring import HorizonOutcome
from exmed_bert.evaluation.follow_up import DEATH, OUTCOME, FollowUp
from exmed_bert.evaluation.groups import GroupMetrics
from exmed_bert.evaluation.incidence import calibration_bin
from exmed_bert.evaluation.metrics import equal_bins
from exmed_bert.evaluation.over_time_results import FollowedUp, ModelOverTime, OverTimeResults
from exmed_bert.evaluation.results import CalibrationBin
from exmed_bert.evaluation.series import merged_bins
from exmed_bert.evaluation.small_cells import told_attainable, told_attrition, told_groups, told_splits
from exmed_bert.reporting.small_cells import NONE, MinCell, as_count, number_of


def told_bins(outcome: HorizonOutcome, cells: MinCell) -> Callable[[np.ndarray], list[CalibrationBin]]:
    """Return what makes bins of calibration at a horizon of risks (N,); no bin holds fewer than may be told."""

    def bins(risks: np.ndarray) -> list[CalibrationBin]:
        members = merged_bins(equal_bins(risks), outcome.labels, outcome.known, cells)
        return [calibration_bin(outcome.follow_up.take(own), risks[own], outcome.horizon) for own in members]

    return bins


def told_days(follow_up: FollowUp, days: np.ndarray, cells: MinCell) -> np.ndarray:
    """Return those of rising days (D,) between which enough patients have the outcome, and enough die or none."""
    if not cells.limit:
        return days
    counts = [np.searchsorted(np.sort(follow_up.days[follow_up.events == e]), days, "right") for e in (OUTCOME, DEATH)]
    kept: list[int] = []
    before = [0, 0]
    for i in range(len(days)):
        now = [int(count[i]) for count in counts]
        new = [own - earlier for own, earlier in zip(now, before, strict=True)]
        if new[0] >= cells.limit and not cells.hides(new[1]):
            kept.append(i)
            before = now
    return days[kept]


def told_over_time(results: OverTimeResults, cells: MinCell) -> OverTimeResults:
    """Return results without what tells of few patients.

    Where few test patients have the outcome by a horizon, or are known not to have it, no metric of that horizon is
    told; where few have it by the last, none at all. Shares of patients are counts in another form: they are told
    where the counts are.

    Args:
        results: as they were computed; the curve and the bins in them were made with the same ``cells``.
        cells: which counts are hidden.
    """
    if not cells.limit:
        return results
    horizons = _told_horizons(results, cells)
    enough = [number_of(one.events) >= cells.limit for one in results.horizons]
    splits = told_splits(results.splits, cells, results.attrition)
    note = f"Metrics of fewer than {cells.limit} patients with the outcome are not shown."

    def told(model: ModelOverTime) -> ModelOverTime:
        kept = [
            at if as_count(one.events).is_exact else replace(at, bins=[])
            for at, one, is_enough in zip(model.horizons, horizons, enough, strict=True)
            if is_enough
        ]
        return replace(
            model,
            concordance=model.concordance if enough[-1] else None,
            horizons=kept,
            groups=told_groups(
                _without_shares(model.groups, cells), replace(splits[-1], censored=0), cells, enough[-1]
            ),
        )

    few = {f"_{one.horizon:g}" for one, is_enough in zip(results.horizons, enough, strict=True) if not is_enough}
    return replace(
        results,
        attrition=told_attrition(results.attrition, cells),
        splits=splits,
        horizons=horizons,
        models=[told(model) for model in results.models],
        attainable=told_attainable(results.attainable, cells) if enough[-1] else None,
        differences=[one for one in results.differences if enough[-1] and not one.metric.endswith(tuple(few))],
        notes=[*results.notes, cells.note, note],
        label_efficiency=results.label_efficiency if enough[-1] else (),
        attributions=[code for code in results.attributions if not cells.hides(code.patients)],
    )


def _told_horizons(results: OverTimeResults, cells: MinCell) -> list[FollowedUp]:
    """Return follow-up by horizon: sums of what may be told of the time between one horizon and the next."""
    found = []
    events = deaths = NONE
    before = (0, 0)
    for one in results.horizons:
        now = (number_of(one.events), number_of(one.deaths))
        events += cells.count(now[0] - before[0])
        deaths += cells.count(now[1] - before[1])
        before = now
        incidence = one.incidence if as_count(events).is_exact else None
        died = one.died if as_count(deaths).is_exact else None
        found.append(
            replace(one, events=events.plain, deaths=deaths.plain, followed=None, incidence=incidence, died=died)
        )
    return found


def _without_shares(groups: Sequence[GroupMetrics], cells: MinCell) -> list[GroupMetrics]:
    """Return subgroups without the observed risks of those divisions of which one part has few with the outcome."""

    def few(group: GroupMetrics) -> bool:
        if "observed" not in group.metrics:
            return True
        patients = number_of(group.patients)
        seen = round(group.metrics["observed"].value * patients)
        return cells.hides(seen, patients - seen)

    kinds = {group.kind for group in groups if few(group)}
    return [
        replace(group, metrics={name: found for name, found in group.metrics.items() if name != "observed"})
        if group.kind in kinds
        else group
        for group in groups
    ]
