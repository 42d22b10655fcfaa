"""What the readers of our own record share, whatever kind of file it lies in.

Work is done on columns of a few thousand patients: files come as Arrow tables where that is possible, and only what is
unusual about them is looked at as records, to read it with care or to name it.
"""

import gc
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from exmed_bert import files
from exmed_bert.console import warn
from exmed_bert.data.formats import file_format
from exmed_bert.data.patient import PatientColumns
from exmed_bert.data.readers import arrow
from exmed_bert.data.readers.validation import BIRTH_YEARS, RecordFields, columns_of
from exmed_bert.data.static_columns import StaticColumn


class RecordReader(ABC):
    """Base of the readers of our own record; a subclass yields its file part by part.

    Attributes:
        name: of the format.
        extensions: ends of the names of its files.
    """

    name: str
    extensions: tuple[str, ...]

    def recognizes(self, path: Path) -> bool:
        """Tell by the file's name whether it is of this format."""
        return path.name.lower().endswith(self.extensions) and file_format(path) in self.extensions

    def fingerprint(self, path: Path) -> str:
        """Return the digest of the file's bytes."""
        return files.fingerprint(path)

    @abstractmethod
    def parts(self, path: Path, fields: RecordFields, size: int) -> Iterator[PatientColumns | list[Any]]:
        """Yield ``size`` patients at a time, as columns, or as records that have to be looked at one by one."""

    def chunks(self, path: Path, static_columns: Sequence[StaticColumn], size: int) -> Iterator[PatientColumns]:
        """Yield the patients as columns; see `base.Reader.chunks`."""
        fields = RecordFields(static_columns)
        parts = self.parts(path, fields, size)
        first = 1
        while True:
            with _no_garbage_collection():
                patients = next(parts, None)
                if patients is None:
                    break
                if isinstance(patients, list):
                    patients = columns_of(path, patients, first, fields)
                first += len(patients)
            yield patients
        if fields.unused:
            warn(f"{path}: fields that are not used: {', '.join(sorted(fields.unused))}")


def from_table(table: Any | None, fields: RecordFields) -> PatientColumns | None:
    """Return the patients of an Arrow table, None where the records have to be looked at one by one."""
    if table is None:
        return None
    columns = arrow.patient_columns(table, fields)
    if columns is None or not {columns.birth_years.min(), columns.birth_years.max()} <= set(BIRTH_YEARS):
        return None
    fields.unused.update(set(table.column_names) - fields.known)
    return columns


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Suspend the search for reference cycles: parsed JSON has none, and looking costs as much as parsing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
