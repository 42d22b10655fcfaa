"""Differences of a model to others: verdicts that are corrected for their number, and none where events are few."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from exmed_bert.evaluation.bootstrap import LEVEL, Estimate
from exmed_bert.evaluation.formatting import estimate_cell
from exmed_bert.evaluation.metrics import LOWER_IS_BETTER
from exmed_bert.evaluation.results import Difference
from exmed_bert.reporting.content import Caution, Cell, ReportSection, Table, Verdict, capital
from exmed_bert.reporting.small_cells import Counted, as_count

FEWEST_EVENTS = 50  # test patients with the outcome, below which no verdict is given
BETTER, WORSE = Verdict("better", "good"), Verdict("worse", "bad")
UNCLEAR, TOO_FEW = Verdict("no clear difference", "none"), Verdict("too few events", "none")

_MEANINGS = {
    BETTER: "the interval of the difference excludes zero and favors the first model, also after the correction",
    WORSE: "the interval of the difference excludes zero and favors the other model, also after the correction",
    UNCLEAR: "zero is not excluded, or not after the correction; the two need not be equal",
    TOO_FEW: f"fewer than {FEWEST_EVENTS} test patients with the outcome: no verdict",
}


@dataclass(frozen=True)
class Judged:
    """A difference with its verdict.

    Attributes:
        difference: as it was measured.
        p: corrected for the number of differences that were judged together; None without an interval.
        verdict: one of the above.
    """

    difference: Difference
    p: float | None
    verdict: Verdict


def p_value(difference: Estimate) -> float | None:
    """Return the two-sided p-value of no difference, None without an interval.

    The resamples' standard error is taken from the width of the interval, and the difference for normal.

    >>> round(p_value(Estimate(0.0196, 0.0, 0.0392)), 3), p_value(Estimate(0.1))
    (0.05, None)
    """
    if difference.interval is None:
        return None
    low, high = difference.interval
    if low == high:
        return 1.0 if difference.value == 0 else 0.0
    reach = NormalDist().inv_cdf((1 + LEVEL) / 2)
    return 2 * NormalDist().cdf(-abs(difference.value) / ((high - low) / (2 * reach)))


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm, Scandinavian Journal of Statistics 6, 1979).

    >>> [round(one, 3) for one in holm([0.01, 0.04, 0.03])], holm([])
    ([0.03, 0.06, 0.06], [])
    """
    corrected, least = [0.0] * len(p), 0.0
    for place, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        least = max(least, min(1.0, (len(p) - place) * p[i]))
        corrected[i] = least
    return corrected


def judged(differences: Sequence[Difference], events: Counted) -> list[Judged]:
    """Return differences with verdicts, corrected for as many as they are.

    Args:
        differences: those that are judged together.
        events: test patients with the outcome.
    """
    tested = [(one, p_value(one.difference)) for one in differences]
    corrected = iter(holm([p for _, p in tested if p is not None]))
    found = []
    for one, own in tested:
        p = None if own is None else next(corrected)
        verdict = UNCLEAR
        if too_few(events):
            verdict = TOO_FEW
        elif p is not None and p < 1 - LEVEL and one.difference.excludes_zero:
            favors = (one.difference.value > 0) != one.metric.startswith(LOWER_IS_BETTER)
            verdict = BETTER if favors else WORSE
        found.append(Judged(one, p, verdict))
    return found


def too_few(events: Counted) -> bool:
    """Return whether so few have the outcome that no verdict is given."""
    return as_count(events).high < FEWEST_EVENTS


def banner(events: Counted) -> list[str]:
    """Return what a reader has to know where events are few, else nothing."""
    if not too_few(events):
        return []
    return [
        Caution(
            f"{capital(f'{events:,}')} test patients have the outcome. So few tell no model from another: what looks "
            "like a difference may be chance, and intervals rest on a handful of patients."
        )
    ]


def compared(found: Sequence[Judged], labels: Mapping[str, str]) -> str:
    """Return the end of a sentence on the first model: which others it is better or worse than.

    Args:
        found: differences in one metric.
        labels: names for people by model.
    """
    if not found:
        return ""
    if any(one.verdict == TOO_FEW for one in found):
        return ", too few to tell it from another model"
    parts = []
    for verdict, words in ((BETTER, "better than"), (WORSE, "worse than"), (UNCLEAR, "no clear difference from")):
        names = [labels[one.difference.theirs] for one in found if one.verdict == verdict]
        if names:
            parts.append(f"{words} {' and '.join([', '.join(names[:-1])] * (len(names) > 1) + names[-1:])}")
    return f": {'; '.join(parts)}"


def section(
    differences: Sequence[Difference],
    shown: Sequence[Judged],
    labels: Mapping[str, str],
    name: Callable[[str], str],
    resamples: int,
) -> ReportSection | None:
    """Return the section on differences, None where there is nothing to compare.

    Args:
        differences: all that were measured.
        shown: those that get a verdict.
        labels: names for people by model, the first model's first.
        name: of a metric's key.
        resamples: of the bootstrap.
    """
    if not differences:
        return None
    first = capital(next(iter(labels.values())))
    judged_rows: list[tuple[Cell, ...]] = [
        (one.verdict, labels[one.difference.theirs], name(one.difference.metric), *_numbers(one)) for one in shown
    ]
    every: list[tuple[Cell, ...]] = [
        (labels[one.theirs], name(one.metric), estimate_cell(one.difference, sign=True)) for one in differences
    ]
    columns = ("Verdict", "Compared with", "Metric", f"{first} minus the other", "p, corrected")
    plain = Table(
        (*columns[1:3], columns[3]), every, {0: "word", 1: "text"}, "Differences in all metrics, without verdicts"
    )
    return ReportSection(
        "differences",
        "Differences between the models",
        [
            "Differences are paired: both models on the same "
            f"{resamples:,} bootstrap resamples of the patients, with 95 % intervals. p-values are corrected for the "
            f"{len(shown)} comparisons of this table by Holm's method; intervals are not.",
        ],
        tables=[Table(columns, judged_rows, {0: "word", 1: "word", 2: "text"})] if shown else [],
        legend=[(said, meaning) for said, meaning in _MEANINGS.items() if any(said == one.verdict for one in shown)],
        folded=[plain] if len(differences) > len(shown) else [],
    )


def _numbers(one: Judged) -> tuple[Cell, Cell]:
    p = "–" if one.p is None else "< 0.001" if one.p < 0.001 else f"{one.p:.3f}"
    return estimate_cell(one.difference.difference, sign=True), p
