"""What a reading tells of days that cannot be: rows for the console, and facts for the settings file."""

from collections.abc import Iterator
from typing import Any

from exmed_bert.data.patient_input import PatientInput
from exmed_bert.data.readers.summary import ReadingSummary
from exmed_bert.reporting.small_cells import Count, MinCell


def reading_facts(source: PatientInput) -> dict[str, Any]:
    """Return what the settings file says of a reading: the day, and what was implausible, small counts hidden."""
    summary, cells = source.summary, source.cells
    return {
        "today": source.today.isoformat(),
        "implausible_dates": {reason: cells.show(count) for reason, count in summary.implausible_events.items()},
        "unknown_periods": {name: cells.show(count) for name, count in summary.implausible_periods.items()},
    }


def date_rows(summary: ReadingSummary, kept: bool, cells: MinCell) -> Iterator[tuple[str, Count]]:
    """Yield a row for each kind of day that cannot be.

    Args:
        summary: of the reading.
        kept: whether the events were kept, of unknown age; if not, they were dropped.
        cells: which counts are hidden.
    """
    what = "kept as UNK age" if kept else "dropped"
    for reason, count in summary.implausible_events.items():
        yield f"{what}: events {reason}", cells.count(count)
    for name, count in summary.implausible_periods.items():
        yield f"patients with an implausible {name}, read as unknown", cells.count(count)
