"""Results as they may be shared: no count of few patients, no metric of so few, and nothing to compute either from."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar

from exmed_bert.evaluation.attainable import Attainable
from exmed_bert.evaluation.bootstrap import Estimate
from exmed_bert.evaluation.groups import GroupMetrics
from exmed_bert.evaluation.metrics import SENSITIVITIES
from exmed_bert.evaluation.over_time_results import AttainableOverTime
from exmed_bert.evaluation.results import ModelResults, Results, SplitCount
from exmed_bert.reporting.small_cells import Count, Counted, MinCell, as_count, number_of

M = TypeVar("M", Estimate, float)
A = TypeVar("A", Attainable, AttainableOverTime)


class _Numbers(NamedTuple):
    """How many patients have the outcome, how many have it not, and how many are censored."""

    events: int
    others: int
    censored: int


def shareable(results: Results, cells: MinCell) -> Results:
    """Return results without what tells of few patients.

    Where few test patients have the outcome, or have it not, no metric is told.

    Args:
        results: as they were computed; the curves and bins in them were made with the same ``cells``.
        cells: which counts are hidden.
    """
    if not cells.limit:
        return results
    test = results.splits[-1]
    enough = not _few(test, cells)
    note = f"A subgroup with fewer than {cells.limit} patients with the outcome, or without it, shows its counts alone."
    if not enough:
        note = f"Fewer than {cells.limit} test patients have the outcome, or do not have it: metrics are not shown."
    splits = told_splits(results.splits, cells, results.attrition)
    models = [_model(model, test, splits[-1], enough, cells) for model in results.models]
    metrics = {model.name: model.metrics.keys() for model in models}
    return replace(
        results,
        attrition=told_attrition(results.attrition, cells),
        splits=splits,
        models=models,
        differences=[one for one in results.differences if one.metric in metrics[one.ours] & metrics[one.theirs]],
        notes=[*results.notes, cells.note, note],
        label_efficiency=results.label_efficiency if enough else (),
        attainable=told_attainable(results.attainable, cells) if enough else None,
        attributions=[code for code in results.attributions if not cells.hides(code.patients)],
    )


def told_splits(
    splits: Sequence[SplitCount], cells: MinCell, attrition: Sequence[tuple[str, Counted]] = ()
) -> list[SplitCount]:
    """Return splits as they may be told beside the attrition, which counts those of the cohort who are in none, too.

    >>> steps = [("patients left", 1000), ("  with the outcome", 160), ("  censored", 5)]
    >>> splits = [SplitCount("training", 700, 100), SplitCount("test", 295, 60)]
    >>> [str(split.patients) for split in told_splits(splits, MinCell(11), steps)]
    ['695 to 704', '295']
    """
    parts = [_numbers(one) for one in splits]
    totals: Sequence[Count | None] = (None, None, None)
    left, of_left = _left(attrition)
    if left:
        known = _Numbers(*map(sum, zip(*parts, strict=True)))
        events = sum(n for name, n in of_left if "outcome" in name) if of_left else known.events
        censored = sum(n for name, n in of_left if "censored" in name) if of_left else known.censored
        whole = (events, left - events - censored, censored)
        parts.append(_Numbers(*(number - used for number, used in zip(whole, known, strict=True))))
        totals = cells.parts(whole)
    found = []
    for one, (patients, with_outcome, without_label) in zip(splits, _told(parts, cells, totals, open_=0), strict=False):
        risk = one.risk if as_count(with_outcome).is_exact else None
        found.append(SplitCount(one.split, patients, with_outcome, without_label, risk))
    return found


def told_attrition(steps: Sequence[tuple[str, Counted]], cells: MinCell) -> list[tuple[str, Counted]]:
    """Return the steps of a cohort as they may be told: those who were read are the sum of what is told of the others.

    Args:
        steps: as `Cohort.attrition` has them: ``... read``, exclusions, ``... left``, and at the end parts of those who
            are left, with a space in front.
        cells: which counts are hidden.

    >>> steps = [("patients read", 103), ("excluded: no event", 3), ("patients left", 100), ("  with the outcome", 95)]
    >>> [str(count) for _, count in told_attrition(steps, MinCell(11))]
    ['101 to 110', '<11', '100', '90 to 99']
    """
    if not cells.limit:
        return list(steps)
    told: list[tuple[str, Counted]] = []
    read: int | None = None
    for name, known in steps:
        if name.startswith(" "):
            continue
        count = cells.count(number_of(known))
        if name.endswith(" read"):
            read = len(told)
        elif name.endswith(" left") and read is not None:
            told[read] = (told[read][0], sum((as_count(part) for _, part in told[read + 1 :]), count).plain)
            read = None
        told.append((name, count.plain))
    left, of_left = _left(steps)
    numbers = [number for _, number in of_left]
    parts = cells.parts([*numbers, left - sum(numbers)])
    return told + [(name, part.plain) for (name, _), part in zip(of_left, parts, strict=False)]


def _left(steps: Iterable[tuple[str, Counted]]) -> tuple[int, list[tuple[str, int]]]:
    """Return how many the last step leaves, 0 without a step, and parts of these."""
    left, of_left = 0, []
    for name, known in steps:
        if name.startswith(" "):
            of_left.append((name, number_of(known)))
        elif name.endswith(" left"):
            left = number_of(known)
    return left, of_left


def told_attainable(found: A | None, cells: MinCell) -> A | None:
    """Return what is attainable; nothing where few patients, with or without the outcome, are at risk or are not."""
    if found is None:
        return None
    counts = [number_of(one) for one in (found.events, found.patients, found.other_events, found.others)]
    few = cells.hides(counts[0], counts[1] - counts[0], counts[2], counts[3] - counts[2])
    return None if few else found


def told_groups(groups: Sequence[GroupMetrics], told: SplitCount, cells: MinCell, enough: bool) -> list[GroupMetrics]:
    """Return subgroups as they may be told beside what is ``told`` of all; with metrics where these are ``enough``."""
    events, censored = as_count(told.events), as_count(told.censored)
    totals = (events, as_count(told.patients) - events - censored, censored)
    found: list[GroupMetrics] = []
    for kind in dict.fromkeys(group.kind for group in groups):
        own = [group for group in groups if group.kind == kind]
        for group, (patients, *counts) in zip(own, _told(list(map(_numbers, own)), cells, totals), strict=True):
            metrics = {} if _few(group, cells) else _metrics(group.metrics, lambda found: found.value, group, cells)
            metrics = metrics if enough else {}
            found.append(replace(group, patients=patients, events=counts[0], censored=counts[1], metrics=metrics))
    return found


def _model(model: ModelResults, test: SplitCount, told: SplitCount, enough: bool, cells: MinCell) -> ModelResults:
    groups = told_groups(model.groups, told, cells, enough)
    if not enough:
        return replace(model, metrics={}, uncalibrated={}, groups=groups, series=None)
    return replace(
        model,
        metrics=_metrics(model.metrics, lambda found: found.value, test, cells),
        uncalibrated=_metrics(model.uncalibrated, lambda found: found, test, cells),
        groups=groups,
    )


def _numbers(part: SplitCount | GroupMetrics) -> _Numbers:
    events, censored = number_of(part.events), number_of(part.censored)
    return _Numbers(events, number_of(part.patients) - events - censored, censored)


def _few(part: SplitCount | GroupMetrics, cells: MinCell) -> bool:
    return cells.hides(*_numbers(part)[:2])


def _told(
    parts: Sequence[_Numbers], cells: MinCell, totals: Sequence[Count | None], open_: int | None = None
) -> list[tuple[Counted, Counted, Counted]]:
    """Return patients, events and the censored of a whole's parts, so that none that is hidden follows from others.

    Patients without the outcome are counted apart, since they are what the three columns leave.

    Args:
        parts: of the whole.
        cells: which counts are hidden.
        totals: of the three numbers, as they are told; None: their sums.
        open_: the part that is told as a range, where one has to be and it can.
    """
    columns = [
        cells.parts(column, total, open_) for column, total in zip(zip(*parts, strict=True), totals, strict=True)
    ]
    return [
        ((events + others + censored).plain, events.plain, censored.plain)
        for events, others, censored in zip(*columns, strict=True)
    ]


def _metrics(
    metrics: dict[str, M], value: Callable[[M], float], of: SplitCount | GroupMetrics, cells: MinCell
) -> dict[str, M]:
    """Return the metrics, without sensitivities that tell how few patients were found or missed."""
    events, *_ = _numbers(of)
    found = {name: round(events * value(metric)) for name, metric in metrics.items() if name in SENSITIVITIES}
    few = {name for name, hits in found.items() if cells.hides(hits, events - hits)}
    return {name: metric for name, metric in metrics.items() if name not in few}
