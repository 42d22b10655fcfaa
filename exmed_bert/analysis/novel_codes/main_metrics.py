"""Main metrics of an analysis of novel codes, each beside chance and with the verdict of its interval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from exmed_bert.analysis.novel_codes.groups import NOVEL_UNSEEN, GroupResults
from exmed_bert.analysis.novel_codes.inputs import AFTER, BEFORE
from exmed_bert.analysis.novel_codes.masked_codes import MaskedMetrics
from exmed_bert.analysis.novel_codes.structure import ALL, WITHIN, TreeCorrelation
from exmed_bert.evaluation.bootstrap import Estimate
from exmed_bert.reporting.content import capital

RELATIVES = {"parent": "parent", "sibling": "nearest sibling"}

Side = Literal["above chance", "below chance", "cannot be told from chance"]
ABOVE: Side = "above chance"
BELOW: Side = "below chance"
UNCLEAR: Side = "cannot be told from chance"


def side_of(estimate: Estimate, chance: float) -> Side:
    """Return the side of chance on which the whole interval of an estimate lies.

    >>> [side_of(Estimate(0.2, low, high), 0.1) for low, high in ((0.11, 0.3), (0.1, 0.3), (None, None))]
    ['above chance', 'cannot be told from chance', 'cannot be told from chance']
    >>> side_of(Estimate(0.05, 0.01, 0.09), 0.1)
    'below chance'
    """
    if estimate.interval is None:
        return UNCLEAR
    low, high = estimate.interval
    return ABOVE if low > chance else BELOW if high < chance else UNCLEAR


@dataclass(frozen=True)
class MainMetric:
    """A metric after training, the value that chance would give, and the value before training.

    Attributes:
        kind: ``relatives`` and ``masked`` are shares, ``tree`` is a correlation.
        name: what is measured.
        subject: of which codes.
        after, before: after and before training; None where there is no value before, or it is not known.
        by_chance: of a model that knows nothing.
        verdict: the side of chance on which the interval of ``after`` lies.
    """

    kind: Literal["relatives", "tree", "masked"]
    name: str
    subject: str
    after: Estimate
    before: Estimate | None
    by_chance: float
    verdict: Side

    @property
    def label(self) -> str:
        """Name and subject."""
        return f"{self.name}, {self.subject}"


def main_metrics(
    groups: Sequence[GroupResults],
    correlations: Mapping[str, Sequence[TreeCorrelation]],
    masked: MaskedMetrics,
    codes: int,
) -> list[MainMetric]:
    """Return the main metrics.

    Args:
        groups: the first one and the novel codes that never occur in training are looked at.
        correlations: by time.
        masked: masked-code prediction.
        codes: how many the model chooses from.
    """
    found = []
    for group in groups:
        if group is not groups[0] and group.name != NOVEL_UNSEEN:
            continue
        for relative, label in RELATIVES.items():
            after = group.ranks[AFTER][relative]
            if after.codes:
                before = group.ranks[BEFORE][relative].hits["hit@10"] if BEFORE in group.ranks else None
                name, subject = f"{capital(label)} among the 10 nearest", f"{after.codes:,} {group.name}"
                chance = after.by_chance["hit@10"]
                found.append(_metric("relatives", name, subject, after.hits["hit@10"], before, chance))
    within = {time: _within_chapters(of_time) for time, of_time in correlations.items()}
    if (correlation := within[AFTER]) is not None:
        name = "Spearman's correlation of tree and embeddings"
        found.append(_metric("tree", name, "pairs within chapters", correlation, within.get(BEFORE), 0.0))
    return found + _masked_metrics(masked, min(10 / codes, 1))


def _within_chapters(correlations: Sequence[TreeCorrelation]) -> Estimate | None:
    return next((one.correlation for one in correlations if (one.system, one.pairs_of) == (ALL, WITHIN)), None)


def _masked_metrics(masked: MaskedMetrics, chance: float) -> list[MainMetric]:
    lines = [("novel codes", "novel", masked.whole), ("other codes", "other", masked.whole)]
    lines += [("novel codes, never in training", "novel", band) for band in masked.bands if band.band == "0"]
    if masked.matched is not None:
        lines += [
            ("novel codes, as common as some others", "novel", masked.matched),
            ("others, as common as these", "other", masked.matched),
        ]
    return [
        _metric(
            "masked",
            "Among the top 10 predictions",
            f"{band.positions[kind]:,} masked {label}",
            band.metrics[kind]["top10"],
            None,
            chance,
        )
        for label, kind, band in lines
        if kind in band.metrics
    ]


def _metric(
    kind: Literal["relatives", "tree", "masked"],
    name: str,
    subject: str,
    after: Estimate,
    before: Estimate | None,
    chance: float,
) -> MainMetric:
    return MainMetric(kind, name, subject, after, before, chance, side_of(after, chance))
