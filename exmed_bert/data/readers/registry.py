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
        InputError: there is none, or the files are of several formats.
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
    """Refuse files of which some are of another format: their patients would be left out without a word."""
    unaided = settings.model_copy(update={"columns": ()})  # which may stand in config.yaml for other files
    for other in READERS[READERS.index(reader) + 1 :]:
        if not other.own_record and other.recognizes(source, unaided):
            raise InputError(
                f"{source}: is recognized as {reader.title} and as {other.title}; give the files of one format, or "
                "name it with --input-format"
            )
    for path in source.paths if len(source.paths) > 1 else ():
        alone = Source((path,), tuple(file for file in source.files if path in (file, *file.parents)))
        others = (other for other in READERS if other is not reader and other.recognizes(alone, settings))
        if not reader.recognizes(alone, settings) and (found := next(others, None)):
            raise InputError(
                f"{source}: {path.name} is recognized as {found.title}, the rest as {reader.title}; expected one format"
            )
