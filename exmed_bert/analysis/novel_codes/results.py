"""What an analysis of novel codes found, as plain data: what the page, the plots, the tables and results.json show."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from exmed_bert.analysis.novel_codes.families import CodeFamilies
from exmed_bert.analysis.novel_codes.inputs import AFTER, BEFORE
from exmed_bert.analysis.novel_codes.masked_codes import MaskedMetrics
from exmed_bert.analysis.novel_codes.neighbors import RELATIONS, Nearness, RankMetrics, mean_estimate, rank_metrics
from exmed_bert.analysis.novel_codes.structure import Silhouettes, TreeCorrelation
from exmed_bert.evaluation.bootstrap import RESAMPLES, Estimate

FORMAT, VERSION = "exmed_bert.novel_codes", 1
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


@dataclass(frozen=True)
class CodeTable:
    """N codes, a value each; what the tables and plots draw from.

    Attributes:
        families, names: the codes, and what they are called.
        novel: (N,) bool.
        in_training: (N,) int64 events; None where the training data is not at hand.
        in_dataset: (N,) int64 events.
        masked, top10: (N,) int64 masked positions, and how often the code was among the first 10 guesses there.
        nearness: by time.
        sample: (n,) the rows that silhouettes and correlations were taken on.
        silhouettes: by time, (n,).
        cosine_quartiles: by time, as `code_structure.cosine_by_distance` gives them.
        on_map: (m,) the rows on the maps.
        maps: ``pca`` and ``tsne`` by time, (m, 2).
    """

    families: CodeFamilies
    names: Sequence[str]
    novel: np.ndarray
    in_training: np.ndarray | None
    in_dataset: np.ndarray
    masked: np.ndarray
    top10: np.ndarray
    nearness: dict[str, Nearness]
    sample: np.ndarray
    silhouettes: dict[str, np.ndarray]
    cosine_quartiles: dict[str, np.ndarray]
    on_map: np.ndarray
    maps: dict[str, dict[str, np.ndarray]]


@dataclass(frozen=True)
class NovelResults:
    """The whole of an analysis.

    Attributes:
        facts: names and values: model, data, what counts as novel.
        notes: what a reader has to know before the figures.
        groups: those that have codes; the first is all novel codes, where there are any.
        correlations: by time.
        silhouettes: by time, of code systems and chapters.
        masked: masked-code prediction.
        perplexity: of t-SNE.
        table: code by code.
        resamples: of every interval.
    """

    facts: Sequence[tuple[str, str]]
    notes: Sequence[str]
    groups: Sequence[GroupResults]
    correlations: dict[str, list[TreeCorrelation]]
    silhouettes: dict[str, Silhouettes]
    masked: MaskedMetrics
    perplexity: float
    table: CodeTable
    resamples: int = RESAMPLES

    @property
    def times(self) -> list[str]:
        """``before``, where it is known, and ``after`` training."""
        return list(self.table.nearness)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of results.json; single codes stand in codes.csv."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "facts": dict(self.facts),
            "notes": list(self.notes),
            "resamples": self.resamples,
            "groups": [asdict(group) for group in self.groups],
            "tree_correlations": {time: [asdict(one) for one in found] for time, found in self.correlations.items()},
            "silhouettes": {
                time: {name: {"codes": n, "mean": None if mean is None else asdict(mean)}
                       for name, (n, mean) in found.metrics.items()}
                for time, found in self.silhouettes.items()
            },
            "masked_codes": asdict(self.masked),
            "tsne_perplexity": self.perplexity,
        }  # fmt: skip


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
    """Return the figures of a group of codes, (N,) bool; intervals are those of a bootstrap over its codes."""
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
