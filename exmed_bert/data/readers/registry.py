"""The readers there are, and which of them files are for."""

from exmed_bert.console import InputError
from exmed_bert.data.readers.base import Reader
from exmed_bert.data.readers.csv import CsvReader
from exmed_bert.data.readers.fhir import FhirReader
from exmed_bert.data.readers.json import JsonReader
from exmed_bert.data.readers.jsonl import JsonLinesReader
from exmed_bert.data.readers.meds import MedsReader
from exmed_bert.data.readers.mimic import MimicReader
from exmed_bert.data.readers.omop import OmopReader
from exmed_bert.data.readers.parquet import ParquetReader
from exmed_bert.data.readers.source import Source
from exmed_bert.data.readers.synthea import SyntheaReader
from exmed_bert.settings import ReadingSettings

# In the order in which they are asked: those that look into the files before those that go by their names.
READERS: tuple[Reader, ...] = (
    MedsReader(),
    OmopReader(),
    MimicReader(),
    SyntheaReader(),
    FhirReader(),
    CsvReader(),
    JsonReader(),
    JsonLinesReader(),
    ParquetReader(),
)


def reader_of(source: Source, settings: ReadingSettings) -> tuple[Reader, str]:
    """Return the reader of files, and by what it knows them.

    Args:
        source: the files.
        settings: how to read them, --input-format first.

    Raises:
        InputError: there is none, or the paths are of several formats.
    """
    if settings.input_format != "auto":
        return next(reader for reader in READERS if reader.name == settings.input_format), "--input-format"
    for reader in READERS:
        if by := reader.recognizes(source, settings):
            _refuse_another_format(source, reader, settings)
            return reader, by
    shown = ", ".join(file.name for file in source.files[:5]) + (", ..." if len(source.files) > 5 else "")
    known = ", ".join(reader.name for reader in READERS)
    raise InputError(
        f"{source}: not recognized ({shown}); name the format with --input-format ({known}), or the "
        "columns of your own tables with --columns"
    )


def _refuse_another_format(source: Source, reader: Reader, settings: ReadingSettings) -> None:
    """Refuse paths of which one is of another format: its patients would be left out without a word."""
    if len(source.paths) == 1:
        return
    for path in source.paths:
        alone = Source.at([path])
        known = (other for other in READERS if other.recognizes(alone, settings))
        other = next(known, reader)
        if other is not reader and not reader.recognizes(alone, settings):
            raise InputError(
                f"{path}: is read as {other.title}, the rest of --input as {reader.title}; expected one format"
            )
