"""Groups of codes, novel or not and in training or not, and what is measured of each."""

from dataclasses import dataclass

import numpy as np

from exmed_bert.analysis.novel_codes.families import CodeFamilies
from exmed_bert.analysis.novel_codes.inputs import AFTER, BEFORE
from exmed_bert.analysis.novel_codes.neighbors import RELATIONS, Nearness, RankMetrics, mean_estimate, rank_metrics
from exmed_bert.evaluation.bootstrap import Estimate

NOVEL = "novel codes"
NOVEL_UNSEEN, NOVEL_SEEN = "novel codes, never in training", "novel codes, in training"
OTHER_UNSEEN, OTHER_SEEN, OTHER = "other codes, never in training", "other codes, in training", "other codes"


@dataclass(frozen=True)
class GroupResults:
    """Codes of one kind among their relatives.

    Attributes:
        name: one of the names above.
        codes: how many.
        cosines: ``before``, ``after`` and ``change`` (after minus before, of the same codes), by relation the number of
            codes that have such a relative and the mean.
        ranks: ``before`` and ``after``, for ``parent`` and ``sibling`` (the nearest one).
    """

    name: str
    codes: int
    cosines: dict[str, dict[str, tuple[int, Estimate | None]]]
    ranks: dict[str, dict[str, RankMetrics]]


def members(novel: np.ndarray, in_training: np.ndarray | None) -> dict[str, np.ndarray]:
    """Return the groups of codes that have members, each (N,) bool; all novel codes come first."""
    groups = {NOVEL: novel}
    if in_training is None:
        groups[OTHER] = ~novel
    else:
        unseen = in_training == 0
        groups |= {NOVEL_UNSEEN: novel & unseen, NOVEL_SEEN: novel & ~unseen}
        groups |= {OTHER_UNSEEN: ~novel & unseen, OTHER_SEEN: ~novel & ~unseen}
    return {name: member for name, member in groups.items() if member.any()}


def group_results(
    name: str, member: np.ndarray, families: CodeFamilies, nearness: dict[str, Nearness], seed: int
) -> GroupResults:
    """Return the metrics of a group of codes, (N,) bool, with intervals of a bootstrap over its codes."""
    of_time = {time: {r: found.cosines[r][member] for r in RELATIONS} for time, found in nearness.items()}
    if BEFORE in of_time:
        of_time["change"] = {r: of_time[AFTER][r] - of_time[BEFORE][r] for r in RELATIONS}
    siblings = np.array([len(found) for found in families.siblings])[member]
    ranks = {
        time: {
            "parent": rank_metrics(found.parent_ranks[member], np.ones(member.sum(), dtype=int), len(families), seed),
            "sibling": rank_metrics(found.sibling_ranks[member], siblings, len(families), seed),
        }
        for time, found in nearness.items()
    }
    cosines = {time: {r: mean_estimate(values, seed) for r, values in found.items()} for time, found in of_time.items()}
    return GroupResults(name, int(member.sum()), cosines, ranks)
