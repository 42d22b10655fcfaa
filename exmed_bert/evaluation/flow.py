"""The attrition of a cohort as a flow chart: who was read, who left and why, who is left, and in which split."""

from collections.abc import Sequence

from exmed_bert.evaluation.results import SplitCount
from exmed_bert.reporting.content import Flow, FlowBox, FlowStep, capital
from exmed_bert.reporting.small_cells import NONE, Counted, as_count, number_of

_EXCLUDED = "excluded: "


def flow_of(attrition: Sequence[tuple[str, Counted]], splits: Sequence[SplitCount]) -> Flow | None:
    """Return the chart; None where nothing was counted.

    Args:
        attrition: as `Cohort.attrition` has it, told as it may be; reasons that excluded nobody are left out.
        splits: those who are left and used.
    """
    steps: list[FlowStep] = []
    reasons: list[tuple[str, Counted]] = []
    left: Counted = 0
    for name, count in attrition:
        if name.startswith(" "):
            last = steps[-1].box
            line = (name.strip(), f"{count:,}")
            steps[-1] = FlowStep(FlowBox(last.title, last.count, (*last.lines, line)), steps[-1].leaving)
        elif _EXCLUDED in name:
            reasons.append((name.split(_EXCLUDED)[1], count))
        else:
            if steps and reasons:
                steps[-1] = FlowStep(steps[-1].box, _leaving("Excluded", reasons))
            steps.append(FlowStep(FlowBox(capital(name), f"{count:,}")))
            reasons, left = [], count
    if not steps:
        return None
    unused = as_count(left) - sum((as_count(split.patients) for split in splits), NONE)
    if unused.low:
        rest = "censored, so without a label to learn from, or not drawn" if _censored(attrition) else "not drawn"
        steps[-1] = FlowStep(steps[-1].box, _leaving("Not used", [(rest, unused.plain)]))
    return Flow(steps, [_end(split) for split in splits])


def _leaving(title: str, parts: Sequence[tuple[str, Counted]]) -> FlowBox | None:
    shown = tuple((what, f"{count:,}") for what, count in parts if number_of(count))
    total = sum((as_count(count) for _, count in parts), NONE)
    return FlowBox(title, f"{total.plain:,}", shown) if shown else None


def _end(split: SplitCount) -> FlowBox:
    lines = [("with the outcome", f"{split.events:,}")]
    if number_of(split.censored):
        lines.append(("censored", f"{split.censored:,}"))
    return FlowBox(capital(split.split), f"{split.patients:,}", tuple(lines))


def _censored(attrition: Sequence[tuple[str, Counted]]) -> bool:
    return any(name.startswith("  censored") and number_of(count) for name, count in attrition)
