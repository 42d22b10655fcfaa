"""Summary of an analysis of novel codes, on its page and on the terminal: what the intervals say, and no more."""

from collections.abc import Sequence

from exmed_bert.analysis.novel_codes.inputs import AFTER, BEFORE
from exmed_bert.analysis.novel_codes.main_metrics import ABOVE, BELOW, UNCLEAR, MainMetric, side_of
from exmed_bert.analysis.novel_codes.results import NovelResults
from exmed_bert.evaluation.bootstrap import Estimate
from exmed_bert.evaluation.formatting import estimate_cell
from exmed_bert.reporting.content import Cell, Interval, ReportSection, Table, Verdict

TIMES = {BEFORE: "Before training", AFTER: "After training", "change": "Change"}

_VERDICTS = {ABOVE: Verdict(ABOVE, "good"), BELOW: Verdict(BELOW, "bad"), UNCLEAR: Verdict(UNCLEAR, "none")}
_MEANINGS = {
    ABOVE: "the whole interval lies above the value by chance",
    BELOW: "the whole interval lies below the value by chance",
    UNCLEAR: "the interval includes the value by chance, or there are too few codes for an interval",
}
_NEAR = {
    ABOVE: "More often than by chance",
    BELOW: "Less often than by chance",
    UNCLEAR: "About as often as by chance, which the interval includes",
}
_ORDERED = {
    ABOVE: "codes that are closer in the tree have embeddings that are closer (at 1 the order would be the same)",
    BELOW: "codes that are closer in the tree have embeddings that are further apart",
    UNCLEAR: "no correlation of tree and embeddings can be told from 0",
}
_PREDICTED = {
    ABOVE: "are predicted better than other codes that are as rare in training",
    BELOW: "are predicted worse than other codes that are as rare in training",
    UNCLEAR: "cannot be told from other codes that are as rare in training",
}


def printed_summary(results: NovelResults) -> list[tuple[str, str]]:
    """Return the main metrics for the terminal, a name and a line each."""
    return [
        (metric.label, f"{_cell(metric, metric.after)}, by chance {_by_chance(metric)}: {metric.verdict}")
        for metric in results.main
    ]


def lead(results: NovelResults) -> str:
    """Return what was found, a sentence for embeddings and one for predictions; the intervals decide."""
    told = []
    for kind in ("relatives", "masked"):
        metric = next((one for one in results.main if one.kind == kind), None)
        if metric is None:
            continue
        what = "The true code is among the top 10 predictions"
        if kind == "relatives":
            what = f"The {metric.name.partition(' among ')[0].lower()} is among the 10 nearest codes"
        value, chance = _cell(metric, metric.after), _by_chance(metric)
        told.append(f"{what} for {value} of {metric.subject}, by chance {chance}: {metric.verdict}.")
    return " ".join(told)


def summary(results: NovelResults) -> ReportSection:
    """Return the first section of the report."""
    rows: list[tuple[Cell, ...]] = [
        (
            _VERDICTS[metric.verdict],
            metric.label,
            _cell(metric, metric.after),
            _by_chance(metric),
            _cell(metric, metric.before),
        )
        for metric in results.main
    ]
    columns = ("Verdict", "Metric", TIMES[AFTER], "By chance", TIMES[BEFORE])
    found = {metric.verdict for metric in results.main}
    return ReportSection(
        "summary",
        "Summary",
        [
            *_about_relatives([metric for metric in results.main if metric.kind == "relatives"]),
            *(f"Within chapters {_ORDERED[metric.verdict]}." for metric in results.main if metric.kind == "tree"),
            _about_masked_codes(results),
        ],
        tables=[Table(columns, rows, {0: "word", 1: "text"}, stacked=True)],
        notes=[
            f"95 % intervals: percentiles of {results.resamples:,} bootstrap resamples, of the codes for embeddings, "
            "of the patients for predictions; where a share is 0 or 100 %, the exact interval of Clopper and Pearson. "
            "They are those of one training run and do not tell how another seed would end.",
        ],
        legend=[(verdict, _MEANINGS[side]) for side, verdict in _VERDICTS.items() if side in found],
    )


def _about_relatives(metrics: Sequence[MainMetric]) -> list[str]:
    """Return a sentence for each verdict after and before training."""
    labels: dict[str, list[str]] = {}
    for metric in metrics:
        beginning = _NEAR[metric.verdict]
        if metric.verdict == ABOVE and metric.before is not None:
            if side_of(metric.before, metric.by_chance) == ABOVE:
                beginning += ", as before training: the initial embeddings had it already (--use-hierarchical-init)"
            else:
                beginning += ", which it was not before training"
        labels.setdefault(beginning, []).append(metric.label[0].lower() + metric.label[1:])
    return [f"{beginning}: {'; '.join(found)}." for beginning, found in labels.items()]


def _about_masked_codes(results: NovelResults) -> str:
    matched = results.masked.matched
    if matched is None:
        return (
            "No other code is as rare in training as the novel codes that were masked, so there is nothing fair to "
            "compare their prediction with; more patients would provide some."
        )
    if not matched.differences:
        return "Too few patients have masked novel codes, or others that are as rare, for the two to be compared here."
    difference = matched.differences["top10"]
    return (
        f"Masked novel codes {_PREDICTED[side_of(difference, 0)]}: difference {_points_text(difference)}. Rare codes "
        "are hard to predict, so this difference, not the accuracy alone, shows what being novel costs."
    )


def _cell(metric: MainMetric, estimate: Estimate | None) -> Cell:
    return estimate_cell(estimate) if metric.kind == "tree" else percent(estimate)


def _by_chance(metric: MainMetric) -> str:
    return "0" if metric.kind == "tree" else f"{_points(metric.by_chance)} %"


def percent(estimate: Estimate | None) -> Cell:
    """Return a share with its interval as the cell of a table.

    >>> str(percent(Estimate(0.5, 0.25, 0.751))), percent(Estimate(0.034)), percent(None)
    ('50 % (25 to 75 %)', '3.4 %', '–')
    """
    if estimate is None:
        return "–"
    value = f"{_points(estimate.value)} %"
    if estimate.interval is None:
        return value
    low, high = map(_points, estimate.interval)
    return Interval(value, f"{low} to {high} %")


def _points(share: float) -> str:
    """Return percent, with a decimal where small.

    >>> _points(0.5), _points(0.034), _points(-0.12), _points(0)
    ('50', '3.4', '−12', '0')
    """
    text = f"{100 * share:.1f}" if 0 < abs(share) < 0.0995 else f"{100 * share:.0f}"
    return text.replace("-", "−")


def _points_text(estimate: Estimate) -> str:
    """Return a difference of shares in percentage points.

    >>> _points_text(Estimate(-0.31, -0.53, -0.019))
    '−31 (−53 to −1.9) percentage points'
    """
    interval = "" if estimate.interval is None else f" ({' to '.join(map(_points, estimate.interval))})"
    return f"{_points(estimate.value)}{interval} percentage points"
