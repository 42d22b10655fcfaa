"""What a conversion tells its user: tables on the console, a page, and a file of the codes that were left out."""

from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

from exmed_bert import console
from exmed_bert.codes import code_system
from exmed_bert.data.conversion_counts import Conversion, ConversionCounts
from exmed_bert.data.conversion_page import conversion_page
from exmed_bert.data.conversion_plots import DRAWINGS
from exmed_bert.data.coverage import unknown_rows, warn_of_unknown
from exmed_bert.data.reading_report import date_rows
from exmed_bert.data.translation import KEPT, LEFT_OUT, MAPPED
from exmed_bert.data.vocabulary import MAX_AGE_YEARS, SPECIAL_TOKENS, UNK
from exmed_bert.reporting import folder as report_folder
from exmed_bert.reporting.folder import PAGE, plot_files
from exmed_bert.reporting.small_cells import MinCell
from exmed_bert.reporting.spreadsheet import write_csv
from exmed_bert.settings import ConvertSettings

UNMAPPED = "unmapped_codes.csv"


def write_page(result: Conversion, settings: ConvertSettings, folder: Path, name: str) -> list[str]:
    """Write the page and the codes that nothing maps into a folder whose files are put in place later.

    Args:
        result: of the conversion.
        settings: of the conversion.
        folder: for the folder of the page.
        name: of the datasets without their ending.

    Returns:
        All plots that a page may have, by their paths in ``folder``.
    """
    cells = result.source.cells
    counts = ConversionCounts(
        str(result.source),
        replace(result.counts.reading, excluded=result.counts.reading.excluded + result.counts.excluded),
        result.counts.translation.events,
        result.counts.translation.unmapped,
        result.summary,
        settings.min_observations,
        result.datasets,
        settings.keep_implausible_dates,
    )
    pages = _page_folder(name)
    (folder / pages).mkdir()
    report_folder.write_page(folder / pages, conversion_page(counts, cells))
    _write_unmapped(folder / pages / UNMAPPED, result, cells)
    return [(pages / plot).as_posix() for plot in plot_files(DRAWINGS)]


def print_conversion(result: Conversion, settings: ConvertSettings, folder: PurePath, name: str) -> None:
    """Print what was made and left out.

    Args:
        result: of the conversion.
        settings: of the conversion.
        folder: where the datasets are for the user.
        name: of the datasets without their ending.
    """
    cells = result.source.cells
    console.table(f"Converted {result.source}", _rows(result, settings, cells))
    warn_of_unknown(result.source, result.counts.translation.unmapped, result.summary, cells)
    for split, dataset in result.datasets.items():
        path = result.paths[split]
        size = sum(file.stat().st_size for file in path.iterdir()) if path.is_dir() else path.stat().st_size
        shown = [*_shown(dataset.stats(), cells), ("bytes per patient", round(size / len(dataset)))]
        console.table(f"{folder / path.name}", shown)
    pages = folder / _page_folder(name)
    datasets = ", ".join(str(folder / path.name) for path in result.paths.values())
    written: list[tuple[str, Any]] = [("datasets", datasets), ("page", pages / PAGE)]
    if result.counts.translation.unmapped:
        written.append(("codes left out", pages / UNMAPPED))
    console.table("Written", written)


def _page_folder(name: str) -> PurePath:
    """Return the folder of the page beside datasets of this name, which is without their ending."""
    return PurePath(f"{name}_conversion")


def _rows(result: Conversion, settings: ConvertSettings, cells: MinCell) -> list[tuple[str, Any]]:
    summary = result.summary
    excluded = result.counts.reading.excluded + result.counts.excluded
    excluded[f"fewer than {settings.min_observations} codes"] = summary.too_short
    left = [len(dataset) for dataset in result.datasets.values()]
    left.append(summary.patients - summary.too_short - sum(left))  # of the split that is not written
    vocabulary = next(iter(result.datasets.values())).info.vocabulary
    in_datasets = sum(int(dataset.code_counts[UNK]) for dataset in result.datasets.values())
    rows: list[tuple[str, Any]] = [
        ("patients read", cells.total([*excluded.values(), *left])),
        *((f"excluded: {reason}", cells.count(count)) for reason, count in excluded.items()),
        (f"cut to the latest {settings.max_length} codes", cells.count(summary.truncated)),
        *date_rows(result.counts.reading, settings.keep_implausible_dates, cells),
        *_translated(result, cells),
        ("codes in the vocabulary", len(vocabulary) - len(SPECIAL_TOKENS)),
        *([(f"codes that occur fewer than {settings.min_code_count} times", len(result.rare))] if result.rare else []),
        *([("codes whose values are told by quantiles", len(vocabulary.cuts))] if vocabulary.cuts else []),
        ("masking", "dynamic" if settings.dynamic_masking else "static"),
        *((f"unknown {name}, kept as UNK", cells.count(count)) for name, count in summary.unknown_static.items()),
        *unknown_rows(summary, settings.max_length, in_datasets, cells, settings.vocab_from),
    ]
    if summary.unknown_ages:
        name = f"codes of unknown age, UNK (0 to {MAX_AGE_YEARS} years are known)"
        rows.append((name, cells.count(summary.unknown_ages)))
    return rows


def _translated(result: Conversion, cells: MinCell) -> list[tuple[str, Any]]:
    """Return rows on the events of other code systems: how many of each are translated, and how many left out."""
    totals: dict[tuple[str, str], int] = {}
    for (system, outcome, _), count in result.counts.translation.events.items():
        totals[system, outcome] = totals.get((system, outcome), 0) + count
    rows: list[tuple[str, Any]] = []
    for system in dict.fromkeys(system for system, outcome in sorted(totals) if outcome in (MAPPED, LEFT_OUT)):
        title = code_system(system).title
        shown = [
            (outcome, totals[system, outcome]) for outcome in (MAPPED, KEPT, LEFT_OUT) if (system, outcome) in totals
        ]
        rows.append((f"events of {title}", ", ".join(f"{cells.count(count)} {outcome}" for outcome, count in shown)))
    return rows


def _write_unmapped(path: Path, result: Conversion, cells: MinCell) -> None:
    """Write the codes that no map translates and that are not kept, the most frequent first, all of them."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        ranked = sorted(result.counts.translation.unmapped.items(), key=lambda item: (-item[1], item[0]))
        rows = ([system, code, cells.count(count).value] for (system, code), count in ranked)
        write_csv(file, ["source_system", "source_code", "events"], rows)


def _shown(stats: dict[str, int | float | str], cells: MinCell) -> list[tuple[str, Any]]:
    """Return the counts of a dataset as they may be told; the longest history is one patient's."""
    told = {name: value for name, value in stats.items() if not (cells.limit and name.endswith("(max)"))}
    return [
        (name, cells.count(value) if isinstance(value, int) and name != "distinct codes" else value)
        for name, value in told.items()
    ]
