"""The figures of an analysis of novel codes that matter most, in words."""

from exmed_bert.analysis.novel_codes.inputs import AFTER, BEFORE
from exmed_bert.analysis.novel_codes.results import NOVEL_UNSEEN, NovelResults
from exmed_bert.analysis.novel_codes.structure import ALL, WITHIN, TreeCorrelation
from exmed_bert.evaluation.bootstrap import Estimate
from exmed_bert.evaluation.parts import Part, Table, shown

RELATIVES = {"parent": "parent", "sibling": "nearest sibling"}
TIMES = {BEFORE: "Before training", AFTER: "After training", "change": "Change"}


def headline(results: NovelResults) -> list[tuple[str, str]]:
    """Return the figures that matter most, a name and a value each, for the terminal."""
    return [(name, f"{after}; by chance {chance}") for name, after, chance, _ in _main(results)]


def percent(figure: Estimate | None) -> str:
    """Return a share with its interval.

    >>> percent(Estimate(0.5, 0.25, 0.751)), percent(Estimate(0.034)), percent(None)
    ('50 % (25 to 75 %)', '3.4 %', '–')
    """
    if figure is None:
        return "–"
    if figure.low is None or figure.high is None:
        return f"{_points(figure.value)} %"
    return f"{_points(figure.value)} % ({_points(figure.low)} to {_points(figure.high)} %)"


def _points(share: float) -> str:
    """Return percent, with a decimal where small.

    >>> _points(0.5), _points(0.034), _points(-0.12), _points(0)
    ('50', '3.4', '−12', '0')
    """
    text = f"{100 * share:.1f}" if 0 < abs(share) < 0.0995 else f"{100 * share:.0f}"
    return text.replace("-", "−")


def _difference(figure: Estimate) -> str:
    """Return a difference of shares in percentage points.

    >>> _difference(Estimate(-0.31, -0.53, -0.019))
    '−31 (−53 to −1.9) percentage points'
    """
    interval = "" if figure.low is None else f" ({_points(figure.low)} to {_points(figure.high)})"
    return f"{_points(figure.value)}{interval} percentage points"


def correlation_of(results: NovelResults, time: str, pairs_of: str, system: str = ALL) -> TreeCorrelation | None:
    """Return a correlation of the results, None where it was not taken."""
    found = results.correlations.get(time, [])
    return next((one for one in found if (one.system, one.pairs_of) == (system, pairs_of)), None)


def _main(results: NovelResults) -> list[tuple[str, str, str, str]]:
    """Return the name of a figure, what it is after training, by chance, and before training."""
    rows = []
    for group in results.groups:
        if group is not results.groups[0] and group.name != NOVEL_UNSEEN:
            continue
        for relative, label in RELATIVES.items():
            found = {time: group.ranks[time][relative] for time in results.times}
            if found[AFTER].codes:
                before, after = (percent(found[t].hits["hit@10"]) if t in found else "–" for t in (BEFORE, AFTER))
                name = f"{capital(label)} among the 10 nearest, {found[AFTER].codes:,} {group.name}"
                rows.append((name, after, f"{_points(found[AFTER].by_chance['hit@10'])} %", before))
    within = {time: correlation_of(results, time, WITHIN) for time in (BEFORE, AFTER)}
    if within[AFTER] is not None and within[AFTER].correlation is not None:
        before, after = (shown(one.correlation if one else None) for one in within.values())
        rows.append(("Spearman's correlation of tree and embeddings, within chapters", after, "0", before))
    return rows + _main_guesses(results)


def _main_guesses(results: NovelResults) -> list[tuple[str, str, str, str]]:
    chance = f"{_points(min(10 / len(results.table.novel), 1))} %"
    masked = results.masked
    lines = [("novel codes", "novel", masked.whole), ("other codes", "other", masked.whole)]
    lines += [("novel codes, never in training", "novel", band) for band in masked.bands if band.band == "0"]
    if masked.matched is not None:
        lines += [
            ("novel codes, as common as some others", "novel", masked.matched),
            ("others, as common as these", "other", masked.matched),
        ]
    found = []
    for label, kind, band in lines:
        if kind in band.metrics:
            name = f"Among 10 guesses, {band.positions[kind]:,} masked {label}"
            found.append((name, percent(band.metrics[kind]["top10"]), chance, "–"))
    return found


def what_came_out(results: NovelResults) -> Part:
    """Return the part of the report that comes first."""
    matched = results.masked.matched
    guessing = (
        "no other code is as rare in training as the novel codes that were masked, so there is nothing fair to hold "
        "them against; more patients would have some."
    )
    if matched is not None:
        guessing = (
            "rare codes are hard to guess; what counts is the difference to others that are as rare in training, "
            f"{_difference(matched.differences['top10'])}. At 0 being novel costs nothing beyond being rare."
        )
    return Part(
        "headline",
        "What came out",
        [
            "Parent and siblings: far above chance, the model knows where in the code tree a code belongs. What stands "
            "before training already was put there by the start (--use-hierarchical-init), not learned.",
            "Correlation: at 1 the embeddings order the codes of a chapter as the tree does, at 0 not at all.",
            f"Guessing: {guessing}",
        ],
        tables=[
            Table(("Estimate", TIMES[AFTER], "By chance", TIMES[BEFORE]), _main(results), (0,), (0,)),
        ],
        notes=[
            f"95 % intervals: percentiles of {results.resamples:,} bootstrap resamples, of the codes for what is said "
            "of embeddings, of the patients for what is said of guesses; where a share is 0 or 100 %, the exact "
            "interval of Clopper and Pearson. It is one training run: how another seed would end is not in them.",
        ],
    )


def capital(text: str) -> str:
    """Return a text that begins a cell."""
    return text[:1].upper() + text[1:]
