"""Patients from ``.parquet`` files: a row per patient, events in list columns, read as a stream."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from exmed_bert.console import InputError
from exmed_bert.data.bounded import check_parquet
from exmed_bert.data.patient import PatientColumns
from exmed_bert.data.readers.headers import column_names
from exmed_bert.data.readers.records import RecordReader, from_table
from exmed_bert.data.readers.source import Source
from exmed_bert.data.readers.validation import RecordFields
from exmed_bert.settings import ReadingSettings

_COLUMNS = {"birth_year", "diagnoses", "drugs"}  # a record has at least one of them


class ParquetReader(RecordReader):
    """Reads a Parquet file of records."""

    name = "parquet"
    title = "our own records, Parquet"
    extensions = (".parquet",)

    def recognizes(self, source: Source, settings: ReadingSettings) -> str | None:
        """Tell by the names of the files, where their columns are not those of something else."""
        foreign = any(columns and not columns & _COLUMNS for columns in map(column_names, self._files(source)))
        return None if foreign else super().recognizes(source, settings)

    def parts(self, path: Path, fields: RecordFields, size: int) -> Iterator[PatientColumns | list[Any]]:
        """Yield ``size`` patients at a time."""
        import pyarrow
        import pyarrow.parquet

        check_parquet([path])
        try:
            with pyarrow.parquet.ParquetFile(path, page_checksum_verification=True) as file:
                for batch in file.iter_batches(batch_size=size):
                    table = pyarrow.Table.from_batches([batch])
                    columns = from_table(table, fields)
                    yield table.to_pylist() if columns is None else columns
        except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:  # damaged pages, impossible dates
            raise InputError(f"{path}: is no Parquet file, or is damaged: {error}") from None
