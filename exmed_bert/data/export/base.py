"""What every exporter of patients offers."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from exmed_bert.data.patient import PatientColumns
from exmed_bert.data.readers.base import Origin


@dataclass(frozen=True)
class ExportCounts:
    """What was exported: patients, their coded events, all rows, distinct codes, and files of rows."""

    patients: int
    events: int
    rows: int
    codes: int
    files: int


class Exporter(Protocol):
    """Writes patients as one format, as a stream, the folder whole or not at all."""

    def __call__(self, folder: Path, chunks: Iterable[PatientColumns], origin: Origin) -> ExportCounts:
        """Write the patients.

        Args:
            folder: new, empty, or an earlier export, which is replaced.
            chunks: the patients.
            origin: where they come from.

        Raises:
            InputError: the folder cannot be written or holds something else, or a patient occurs twice.
        """
        ...
