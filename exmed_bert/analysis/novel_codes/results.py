"""Results of an analysis of novel codes: the content of the page, the plots, the tables and results.json."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from exmed_bert.analysis.novel_codes.families import CodeFamilies
from exmed_bert.analysis.novel_codes.groups import GroupResults
from exmed_bert.analysis.novel_codes.guesses import Guesses
from exmed_bert.analysis.novel_codes.main_metrics import MainMetric, main_metrics
from exmed_bert.analysis.novel_codes.masked_codes import MaskedMetrics
from exmed_bert.analysis.novel_codes.neighbors import Nearness
from exmed_bert.analysis.novel_codes.structure import ALL, Silhouettes, TreeCorrelation
from exmed_bert.evaluation.bootstrap import RESAMPLES, Estimate
from exmed_bert.reporting.small_cells import plain_json

FORMAT, VERSION = "exmed_bert.novel_codes", 2


@dataclass(frozen=True)
class CodeTable:
    """N codes, a value each; the source of the tables and plots.

    Attributes:
        families, names: the codes, and their names for people.
        novel: (N,) bool.
        in_training: (N,) int64 events; None where the training data is not at hand.
        in_dataset: (N,) int64 events. These counts are objects where some are hidden.
        masked, top10: (N,) int64 masked positions, and those at which the code was among the top 10 predictions.
        nearness: by time.
        sample: (n,) the rows that silhouettes and correlations were taken on.
        silhouettes: by time, (n,).
        cosine_quartiles: by time, as `structure.cosine_by_distance` gives them.
        on_map: (m,) the rows on the maps.
        maps: ``pca`` and ``tsne`` by time, (m, 2).
        guesses: what the model takes masked novel codes for, by row; all codes are rows.
        hidden: rows of codes that pages do not name, since they tell of few patients.
        siblings: of novel codes the nearest siblings after training, each with its cosine, by row.
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
    guesses: Guesses = field(default_factory=dict)
    siblings: Mapping[int, Sequence[tuple[int, float]]] = field(default_factory=dict)
    hidden: Collection[int] = frozenset()


@dataclass(frozen=True)
class NovelResults:
    """An analysis as a whole.

    Attributes:
        facts: names and values: model, data, what counts as novel.
        notes: what a reader has to know before the metrics.
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

    def correlation(self, time: str, pairs_of: str, system: str = ALL) -> Estimate | None:
        """Return a correlation of tree and embeddings, None where there is none."""
        found = self.correlations.get(time, [])
        return next((one.correlation for one in found if (one.system, one.pairs_of) == (system, pairs_of)), None)

    @cached_property
    def main(self) -> list[MainMetric]:
        """The metrics of the summary."""
        return main_metrics(self.groups, self.correlations, self.masked, len(self.table.families))

    def to_dict(self) -> dict[str, Any]:
        """Return the content of results.json; single codes stand in codes.csv."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "facts": dict(self.facts),
            "notes": list(self.notes),
            "resamples": self.resamples,
            "summary": [asdict(metric) for metric in self.main],
            "groups": [asdict(group) for group in self.groups],
            "tree_correlations": {time: [asdict(one) for one in found] for time, found in self.correlations.items()},
            "silhouettes": {time: [asdict(one) for one in found.means] for time, found in self.silhouettes.items()},
            "masked_codes": plain_json(self.masked),
            "tsne_perplexity": self.perplexity,
        }
