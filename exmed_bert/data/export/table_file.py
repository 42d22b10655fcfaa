"""A table as a CSV file that grows chunk by chunk, and columns of patients as it takes them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.csv

from exmed_bert.data.measured import FLAGS, NO_FLAG, nothing_measured
from exmed_bert.data.patient import NO_DAY, EventColumns, PatientColumns
from exmed_bert.data.static_columns import SEX, STATE

LONG_STAY, SHORT_STAY = 9, 2  # nights of a stay that stands for what a record says of prolonged ones


class TableFile:
    """A CSV file; the same rows give the same bytes, however they are cut into chunks."""

    def __init__(self, path: Path) -> None:
        self.rows = 0
        self.name = path.name.partition(".")[0]
        self._path = path
        self._writer: pyarrow.csv.CSVWriter | None = None

    def add(self, columns: Mapping[str, Any]) -> None:
        """Write rows; the first ones decide the columns."""
        table = pyarrow.table(dict(columns))
        if self._writer is None:
            options = pyarrow.csv.WriteOptions(quoting_style="needed", quoting_header="none")
            self._writer = pyarrow.csv.CSVWriter(self._path, table.schema, write_options=options)
        self._writer.write_table(table)
        self.rows += len(table)

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()


@contextmanager
def table_files(folder: Path, *names: str, ending: str = ".csv") -> Iterator[list[TableFile]]:
    """Yield a file for each name, and close them."""
    files = [TableFile(folder / f"{name}{ending}") for name in names]
    try:
        yield files
    finally:
        for file in files:
            file.close()


def texts(values: Sequence[str | None]) -> pyarrow.Array:
    """Return a column of text; what is empty is missing."""
    return pyarrow.array([value if value and value.strip() else None for value in values], pyarrow.string())


def dates(days: np.ndarray) -> pyarrow.Array:
    """Return a column of dates, of days since 1970-01-01; `NO_DAY` is missing."""
    return pyarrow.array(days.astype(np.int32), pyarrow.int32(), mask=days == NO_DAY).cast(pyarrow.date32())


def picked(values: Sequence[Any], which: np.ndarray, kind: pyarrow.DataType | None = None) -> pyarrow.Array:
    """Return for each number in ``which`` the value of that place."""
    return pyarrow.array(values, kind).take(pyarrow.array(which))


def results_of(events: EventColumns) -> tuple[pyarrow.Array, pyarrow.Array]:
    """Return the values and the flags of events."""
    measured = events.measured or nothing_measured(len(events.codes))
    # A number of 32 bits has a shorter spelling than the same number of 64.
    values = pyarrow.array(measured.values, mask=np.isnan(measured.values)).cast(pyarrow.string())
    flags = pyarrow.array(measured.flags, mask=measured.flags == NO_FLAG)
    return values, pyarrow.DictionaryArray.from_arrays(flags, pyarrow.array(FLAGS)).cast(pyarrow.string())


def further_static(patients: PatientColumns) -> dict[str, Sequence[str | None]]:
    """Return the static columns beside sex and state."""
    return {name: values for name, values in patients.static.items() if name not in (SEX.name, STATE.name)}


def stays(patients: PatientColumns) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return patient, first day and last day of the stay of each patient whose length of stay is known.

    The record says no more than that; the stay begins on the day of the first event.
    """
    first, last = patients.events.span()
    who = np.flatnonzero((patients.plos >= 0) & (last != NO_DAY))
    nights = np.where(patients.plos[who] == 1, LONG_STAY, SHORT_STAY)
    return who, first[who].astype(np.int64), first[who].astype(np.int64) + nights
