"""What every exporter of patients offers."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from exmed_bert.data.origin import Origin
from exmed_bert.data.patient import PatientColumns


@dataclass(frozen=True)
class ExportCounts:
    """What was exported: patients, their coded events, all rows, distinct codes, and files of rows.

    Events that the format has no place for do not count.
    """

    patients: int
    events: int
    rows: int
    codes: int
    files: int


class Exporter(Protocol):
    """Module that writes patients as one format, as a stream."""

    def check_replaceable(self, folder: Path) -> None:
        """Refuse to replace anything but an earlier export to which nothing was added.

        Raises:
            InputError: something else is there.
        """
        ...

    def write(self, folder: Path, name: str, chunks: Iterable[PatientColumns], origin: Origin) -> ExportCounts:
        """Write the patients.

        Args:
            folder: empty; it is put in place later.
            name: of the dataset.
            chunks: the patients, each once.
            origin: where they come from.

        Raises:
            InputError: a patient cannot be written so.
            OSError: a file cannot be written.
        """
        ...
