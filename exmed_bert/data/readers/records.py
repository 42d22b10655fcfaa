"""What the readers of our own record share, whatever kind of file it lies in.

Work is done on columns of a few thousand patients: files come as Arrow tables where that is possible, and only what is
unusual about them is looked at as records, to read it with care or to name it.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from exmed_bert.console import InputError, warn
from exmed_bert.data.formats import POPULATION_META, file_format
from exmed_bert.data.origin import Origin
from exmed_bert.data.patient import PatientColumns
from exmed_bert.data.readers import arrow
from exmed_bert.data.readers.base import Reading
from exmed_bert.data.readers.source import Source
from exmed_bert.data.readers.summary import ROWS
from exmed_bert.data.readers.validation import RecordFields, columns_of, kind_of
from exmed_bert.files import read_json
from exmed_bert.garbage import no_garbage_collection
from exmed_bert.settings import ReadingSettings

_GENERATED = "exmed-bert-synthetic-patients"  # the format of the generator's meta file
_COUNTED = ("patients", "diagnoses", "prescriptions", "procedures", "labs")  # what it says it wrote


class RecordReader(ABC):
    """Base of the readers of our own record; a subclass yields its file part by part.

    Attributes:
        name: of the format, after --input-format.
        title: of the format, for messages.
        extensions: ends of the names of its files.
    """

    name: str
    title: str
    own_record = True
    extensions: tuple[str, ...]

    def recognizes(self, source: Source, settings: ReadingSettings) -> str | None:
        """Tell by the names of the files."""
        return f"file names {', '.join(self.extensions)}" if source.files == self._files(source) else None

    def divide(self, source: Source) -> list[Source]:
        """Return each file by itself."""
        return [Source((path,), (path,)) for path in self._files(source)]

    def origin(self, source: Source) -> Origin:
        """Return the digest of the files' bytes, and what the generator wrote beside them."""
        files = self._files(source)
        meta = generator_meta(files)
        return Origin(source.fingerprint(files), meta.get("format") == _GENERATED, meta, own_record=True)

    @abstractmethod
    def parts(self, path: Path, fields: RecordFields, size: int) -> Iterator[PatientColumns | list[Any]]:
        """Yield ``size`` patients at a time, as columns, or as records that have to be looked at one by one."""

    def chunks(self, reading: Reading, size: int) -> Iterator[PatientColumns]:
        """Yield the patients as columns; see `base.Reader.chunks`."""
        for path in self._files(reading.source):
            fields = RecordFields(reading.static_columns)
            count = 0
            for patients in self._of_file(path, fields, size):
                count += len(patients)
                yield patients
            reading.summary.of(path.name)[ROWS] += count
            if fields.repeated:
                keys = ", ".join(sorted(fields.repeated))
                warn(
                    f"{reading.source.place(path)}: {fields.repeated.total():,} keys stand a second time in their "
                    f"record, of which the last is read: {keys}"
                )
            if fields.unused:
                unused = ", ".join(sorted(fields.unused))
                warn(f"{reading.source.place(path)}: fields that are not used: {unused}")

    def _of_file(self, path: Path, fields: RecordFields, size: int) -> Iterator[PatientColumns]:
        parts = self.parts(path, fields, size)
        first = 1
        while True:
            with no_garbage_collection():
                patients = next(parts, None)
                if patients is None:
                    return
                if isinstance(patients, list):
                    patients = columns_of(path, patients, first, fields)
                first += len(patients)
            yield patients

    def _files(self, source: Source) -> tuple[Path, ...]:
        return source.of_kind(*self.extensions)


def generator_meta(files: Sequence[Path]) -> dict[str, Any]:
    """Return what our generator wrote beside its file, or beside the shards that the files are; {} if nothing.

    Raises:
        InputError: the meta file is damaged.
    """
    if not files:
        return {}
    beside = files[0].with_name(files[0].name.removesuffix(file_format(files[0])) + ".meta.json")
    in_shards = len(files) > 1 or not beside.is_file()
    if in_shards:
        beside = files[0].with_name(POPULATION_META)
    if not beside.is_file():
        return {}
    meta = read_json(beside)
    if not isinstance(meta, dict):
        raise InputError(f"{beside}: expected an object as our generator writes it, got {kind_of(meta)}")
    if in_shards and not _are_shards(files, beside.parent, meta.get("shards")):
        return {}
    novel = meta.get("novel_codes", {})
    if not isinstance(novel, dict) or not all(
        isinstance(entry, dict) and isinstance(entry.get("source"), str) for entry in novel.values()
    ):
        raise InputError(f"{beside}: novel_codes: expected codes with the 'source' of each")
    for name in ("options", "counts", "bounds"):
        if not isinstance(meta.get(name, {}), dict):
            raise InputError(f"{beside}: {name}: expected an object, got {kind_of(meta[name])}")
    counts = meta.get("counts", {})
    if any(type(counts.get(name, 0)) is not int for name in _COUNTED):
        raise InputError(f"{beside}: counts: expected whole numbers of {', '.join(_COUNTED)}")
    return meta


def _are_shards(files: Sequence[Path], folder: Path, shards: Any) -> bool:
    """Return whether files are shards of a population, some of them or all, and nothing else."""
    return isinstance(shards, list) and all(file.parent == folder and file.name in shards for file in files)


def from_table(table: Any | None, fields: RecordFields) -> PatientColumns | None:
    """Return the patients of an Arrow table, None where the records have to be looked at one by one."""
    if table is None:
        return None
    columns = arrow.patient_columns(table, fields)
    if columns is None:
        return None
    fields.unused.update(set(table.column_names) - fields.known)
    return columns
