"""An analysis as it may be shared: no count of few events of a code, and no metric of few patients."""

from dataclasses import replace

import numpy as np

from exmed_bert.analysis.novel_codes.masked_codes import BandMetrics, MaskedMetrics
from exmed_bert.analysis.novel_codes.results import CodeTable, NovelResults
from exmed_bert.reporting.small_cells import MinCell, as_count, number_of


def shareable(results: NovelResults, cells: MinCell) -> NovelResults:
    """Return results without what tells of few patients: a code of few events is one of few.

    Embeddings are the model's, and stay as they are.
    """
    if not cells.limit:
        return results
    return replace(
        results,
        notes=[*results.notes, cells.note],
        masked=_masked(results.masked, cells),
        table=_table(results.table, cells),
    )


def _table(table: CodeTable, cells: MinCell) -> CodeTable:
    counts = [numbers for numbers in (table.in_training, table.in_dataset) if numbers is not None]
    few = {row for numbers in counts for row, number in enumerate(numbers.tolist()) if cells.hides(number)}
    return replace(
        table,
        hidden=frozenset(few),
        in_training=None if table.in_training is None else _told(table.in_training, cells),
        in_dataset=_told(table.in_dataset, cells),
        masked=_told(table.masked, cells),
        top10=_told(table.top10, cells),
        guesses={row: found for row, found in table.guesses.items() if not cells.hides(int(table.masked[row]))},
    )


def _told(numbers: np.ndarray, cells: MinCell) -> np.ndarray:
    """Return counts as objects, numbers and ranges."""
    return np.array([cells.count(number).plain for number in numbers.tolist()], dtype=object)


def _masked(masked: MaskedMetrics, cells: MinCell) -> MaskedMetrics:
    """Return the bands without those of few patients; positions are told so that their total tells no more."""
    bands, whole = [_band(band, cells) for band in masked.bands], _band(masked.whole, cells)
    for kind, total in whole.positions.items():
        told = cells.parts([number_of(band.positions[kind]) for band in masked.bands], as_count(total))
        for i, count in enumerate(told):
            bands[i] = replace(bands[i], positions={**bands[i].positions, kind: count.plain})
    matched = None if masked.matched is None else _band(masked.matched, cells)
    patients = cells.count(number_of(masked.patients)).plain
    return replace(masked, patients=patients, bands=bands, whole=whole, matched=matched)


def _band(band: BandMetrics, cells: MinCell) -> BandMetrics:
    positions, patients = (
        {kind: cells.count(number_of(number)).plain for kind, number in numbers.items()}
        for numbers in (band.positions, band.patients)
    )
    metrics = {kind: found for kind, found in band.metrics.items() if as_count(patients[kind]).is_exact}
    differences = band.differences if len(metrics) == len(band.metrics) else {}
    return replace(band, positions=positions, patients=patients, metrics=metrics, differences=differences)
