"""Tables of an analysis of novel codes as CSV."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from exmed_bert.analysis.novel_codes.neighbors import RELATIONS
from exmed_bert.analysis.novel_codes.results import NovelResults
from exmed_bert.evaluation.bootstrap import Estimate
from exmed_bert.reporting.spreadsheet import write_csv

Rows = tuple[list[str], list[list[Any]]]
"""Header and rows."""


def write_tables(folder: Path, results: NovelResults) -> None:
    """Write the tables to a folder."""
    tables = {
        "codes.csv": codes_table(results, np.arange(len(results.table.novel))),
        "novel_codes.csv": codes_table(results, np.flatnonzero(results.table.novel)),
        "relatives.csv": _relatives(results),
        "masked_codes.csv": _masked(results),
        "structure.csv": _structure(results),
    }
    for name, rows in tables.items():
        with open(folder / name, "w", encoding="utf-8", newline="") as file:
            write_csv(file, *rows)


def codes_table(results: NovelResults, rows: np.ndarray) -> Rows:
    """Return header and rows of codes.csv: each code with its relatives, its position and its prediction."""
    table, families = results.table, results.table.families
    columns: dict[str, Iterable[Any]] = {
        "code": [code for _, code in families.keys],
        "system": [system for system, _ in families.keys],
        "chapter": [families.chapter_names[i][1] for i in families.chapters],
        "description": table.names,
        "novel": ["yes" if new else "no" for new in table.novel],
        "events_in_training": [""] * len(families) if table.in_training is None else table.in_training,
        "events_in_dataset": table.in_dataset,
        "parent": [families.keys[i][1] if i >= 0 else "" for i in families.parents],
        "parent_is_one_level_up": ["yes" if direct else "" for direct in families.direct],
        "siblings": [len(found) for found in families.siblings],
    }
    for time, near in table.nearness.items():
        columns |= {f"cosine_{relation}_{time}": _numbers(near.cosines[relation]) for relation in RELATIONS}
        columns[f"parent_rank_{time}"] = [rank or "" for rank in near.parent_ranks]
        columns[f"sibling_rank_{time}"] = [rank or "" for rank in near.sibling_ranks]
        columns[f"nearest_{time}"] = [" ".join(families.keys[i][1] for i in nearest) for nearest in near.nearest]
        columns[f"silhouette_{time}"] = _numbers(_spread(table.silhouettes[time], table.sample, len(families)))
    columns |= {"masked_positions": table.masked, "masked_among_top10": table.top10}
    for kind, of_time in table.maps.items():
        for time, at in of_time.items():
            for axis, values in zip("xy", at.T, strict=True):
                columns[f"{kind}_{axis}_{time}"] = _numbers(_spread(values, table.on_map, len(families)))
    cells = [list(values) for values in columns.values()]
    return list(columns), [[column[row] for column in cells] for row in rows.tolist()]


def _relatives(results: NovelResults) -> Rows:
    rows = []
    for group in results.groups:
        for time, cosines in group.cosines.items():
            for relation, (number, value) in cosines.items():
                rows.append([group.name, time, relation, "cosine", number, *_cells(value), ""])
        for time, of_time in group.ranks.items():
            for relative, ranks in of_time.items():
                for name, value in ranks.hits.items():
                    chance = round(ranks.by_chance[name], 6)
                    rows.append([group.name, time, relative, name, ranks.codes, *_cells(value), chance])
    return ["codes", "time", "relative", "metric", "number", "value", "low", "high", "by_chance"], rows


def _masked(results: NovelResults) -> Rows:
    masked = results.masked
    rows = []
    for band in masked.rows():
        for kind, metrics in band.metrics.items():
            for name, value in metrics.items():
                rows.append([band.band, kind, band.codes[kind], band.positions[kind], name, *_cells(value)])
        for name, value in band.differences.items():
            rows.append([band.band, "novel minus other", "", "", name, *_cells(value)])
    return ["occurrences_in_training", "codes", "number", "positions", "metric", "value", "low", "high"], rows


def _structure(results: NovelResults) -> Rows:
    rows: list[list[Any]] = []
    for time in results.times:
        for one in results.correlations[time]:
            rows.append([time, "spearman", one.system, "", one.pairs_of, one.pairs, *_cells(one.correlation)])
        for mean in results.silhouettes[time].means:
            rows.append([time, "silhouette", mean.system, mean.chapter, "codes", mean.codes, *_cells(mean.mean)])
    return ["time", "metric", "system", "chapter", "over", "number", "value", "low", "high"], rows


def _cells(estimate: Estimate | None) -> list[Any]:
    if estimate is None:
        return ["", "", ""]
    return ["" if value is None else round(value, 6) for value in (estimate.value, estimate.low, estimate.high)]


def _numbers(values: np.ndarray) -> list[Any]:
    return [round(value, 6) if np.isfinite(value) else "" for value in np.asarray(values, dtype=float).tolist()]


def _spread(values: np.ndarray, rows: np.ndarray, n: int) -> np.ndarray:
    """Return (n,) values that are NaN outside ``rows``."""
    spread = np.full(n, np.nan)
    spread[rows] = values
    return spread
