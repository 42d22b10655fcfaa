"""The patients behind ``--input``, in whatever format, with codes in the systems that the settings ask for."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import date
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from exmed_bert import console
from exmed_bert.console import InputError
from exmed_bert.data.implausible_dates import DateCheck
from exmed_bert.data.origin import Origin
from exmed_bert.data.patient import PatientColumns
from exmed_bert.data.readers.base import CHUNK, Reading
from exmed_bert.data.readers.registry import reader_of
from exmed_bert.data.readers.source import Source
from exmed_bert.data.readers.stored import called_by_url
from exmed_bert.data.readers.summary import IMPLAUSIBLE_BIRTH_YEAR, NO_BIRTH_YEAR, ReadingSummary
from exmed_bert.data.static_columns import BUILT_IN, StaticColumn
from exmed_bert.data.translation import TranslationSummary, Translator
from exmed_bert.reporting.small_cells import DEFAULT_LIMIT, MinCell
from exmed_bert.settings import ReadingSettings
from exmed_bert.startup import called
from exmed_bert.stores import StorePath

BIRTH_YEARS = (1800, 2300)  # the years that data with shifted dates, such as MIMIC's, lie in are plausible


class PatientInput:
    """Patients that can be read any number of times.

    Attributes:
        source: the files.
        reader: of their format.
        settings: how to read them.
        static_columns: those that are read.
        today: the day of the reading.
        summary: what the latest reading has read and left out so far.
        read: patients and events that it has read.
    """

    def __init__(
        self,
        paths: Sequence[Path | StorePath],
        settings: ReadingSettings | None = None,
        static_columns: Sequence[StaticColumn] = BUILT_IN,
    ) -> None:
        """Find the files and recognize their format.

        Args:
            paths: files and folders, on this machine or, for a conversion, in object stores.
            settings: how to read them; not given: the defaults.
            static_columns: those that are read.

        Raises:
            InputError: a path is missing, or the format is not known.
        """
        settings, hint = settings or ReadingSettings(), f"make it with: {called('generate')}"
        here = [path for path in paths if not isinstance(path, StorePath)]
        if len(here) == len(paths):
            self._set_up(Source.at(here, hint), settings, static_columns)
            return
        self._outlines = TemporaryDirectory(prefix="exmed_bert_")  # they stay as long as this object
        folder = Path(self._outlines.name)
        with called_by_url(folder):
            self._set_up(Source.outlined(paths, folder, hint), settings, static_columns)

    def _set_up(self, source: Source, settings: ReadingSettings, static_columns: Sequence[StaticColumn]) -> None:
        self.settings = settings
        self.static_columns = tuple(static_columns)
        self.source = source
        self.today = date.today()
        self.reader, self._known_by = reader_of(source, settings)
        self.summary = ReadingSummary()
        self.read = (0, 0)
        self._translator: Translator | None = None

    @classmethod
    def of(
        cls, source: Source, settings: ReadingSettings, static_columns: Sequence[StaticColumn], today: date
    ) -> "PatientInput":
        """Return the patients of files that were found before, as they are read on a given day."""
        made = cls.__new__(cls)
        made._set_up(source, settings, static_columns)
        made.today = today
        return made

    def parts(self) -> list[Source]:
        """Return parts of the files, in order, that can be read apart from each other: no patient is in two of them."""
        parts, stored = self.reader.divide(self.source), self.source.stored
        return parts if stored is None else [replace(part, stored=stored.of(part.files)) for part in parts]

    def announce(self) -> None:
        """Say what the files are taken for, where it is not our own record."""
        if not self.reader.own_record:
            console.echo(f"Reading {self} as {self.read_as}")

    def __str__(self) -> str:
        return str(self.source)

    @property
    def name(self) -> str:
        """A short name, for titles."""
        return self.source.name

    @property
    def read_as(self) -> str:
        """The format, and how it was recognized."""
        return f"{self.reader.title} ({self._known_by})"

    @cached_property
    def origin(self) -> Origin:
        """What is known of where the patients come from, their digest included."""
        return self.reader.origin(self.source)

    @property
    def novel_codes(self) -> tuple[str, ...]:
        """The novel codes that our generator made, none for other patients."""
        return tuple(sorted(self.origin.meta.get("novel_codes", {})))

    @property
    def generated(self) -> bool:
        """Whether our generator made the patients, which is known once they have been read.

        Its meta file may stand beside another's patients, so they have to be as many as it says, and their events too.
        """
        return self.origin.generated and self.read == self.origin.wrote

    @property
    def cells(self) -> MinCell:
        """Which counts of these patients reports hide, which is known once they have been read."""
        if self.settings.min_cell is not None:
            return MinCell(self.settings.min_cell)
        return MinCell(0 if self.generated else DEFAULT_LIMIT)

    def chunks(self, size: int = CHUNK) -> Iterator[PatientColumns]:
        """Yield the patients as columns, at most ``size`` at a time, and say what a user has to know of them.

        Raises:
            InputError: a file is damaged, a record is wrong, or there is no patient.
        """
        self.announce()
        yield from self.quiet_chunks(size)
        self.check_any()
        self.warn()

    def quiet_chunks(self, size: int = CHUNK, as_written: bool = False) -> Iterator[PatientColumns]:
        """Yield the patients as columns, at most ``size`` at a time, without a word; there may be none.

        Patients whose birth year is implausible are left out and counted.

        Args:
            size: of a chunk.
            as_written: whether codes and days stay as they are written; if not, days that cannot be are taken care of
                and codes are translated.

        Raises:
            InputError: a file is damaged, or a record is wrong.
        """
        self.summary = ReadingSummary(self.read_as)
        self._translator = None  # a reading of its own, with counts of its own
        dates = DateCheck(self.settings, self.today, self._generated_until)
        read = events = 0
        for patients in self.raw_chunks(size):
            read += len(patients)
            events += len(patients.events.codes)
            plausible = (patients.birth_years >= BIRTH_YEARS[0]) & (patients.birth_years <= BIRTH_YEARS[1])
            if not plausible.all():
                self.summary.excluded[IMPLAUSIBLE_BIRTH_YEAR] += int((~plausible).sum())
                patients = patients.take(np.flatnonzero(plausible))
            if not as_written:
                patients = dates.apply(patients, self.summary)
            if len(patients):
                yield patients if as_written else self.translator.apply(patients)
        self.read = read, events

    def _generated_until(self) -> date | None:
        """Return the last day of patients that our generator made, None for others."""
        end = self.origin.meta.get("options", {}).get("end_date") if self.origin.generated else None
        try:
            return date.fromisoformat(end) if isinstance(end, str) else None
        except ValueError:
            return None

    @property
    def translator(self) -> Translator:
        """Translates the codes of the latest reading; its summary counts what became of them."""
        if self._translator is None:
            self._translator = Translator(self.settings, self.reader.own_record or self.origin.own_record)
        return self._translator

    @property
    def translation(self) -> TranslationSummary:
        """What became of the codes of the latest reading."""
        return self.translator.summary

    def take_counts(self, summary: ReadingSummary, translation: TranslationSummary, read: tuple[int, int]) -> None:
        """Take the counts of a reading that was done in parts."""
        self.summary, self.read = summary, read
        self.translator.summary = translation

    def take_digests(self, digests: Iterable[Sequence[str]]) -> None:
        """Take the digests of the files of each part, known once they have been read, where any is in a store."""
        if self.source.stored is not None:
            for part, of_part in zip(self.parts(), digests, strict=True):
                self.source.stored.digests.update(zip(part.files, of_part, strict=True))

    def check_any(self) -> None:
        """Refuse an input of which no patient is left.

        Raises:
            InputError: so it is.
        """
        excluded = self.summary.excluded.total()
        if not self.read[0] and not excluded:
            raise InputError(f"{self}: holds no patients")
        if excluded == self.read[0] + self.summary.excluded[NO_BIRTH_YEAR]:
            why = "; ".join(f"{count:,} {reason}" for reason, count in self.summary.excluded.items())
            raise InputError(
                f"{self}: no patient is left: {why}; expected birth_year from {BIRTH_YEARS[0]} to {BIRTH_YEARS[1]}"
            )

    def warn(self) -> None:
        """Print a line on each thing that a user has to know of what was read, and of the codes."""
        for note in self.summary.notes:
            console.echo(f"Note: {note}")
        for warning in self.translator.warnings():
            console.warn(f"{self}: {warning}")

    def raw_chunks(self, size: int = CHUNK) -> Iterator[PatientColumns]:
        """Yield all patients as the reader finds them, with codes as they are written."""
        reading = Reading(self.source, self.settings, self.static_columns, self.summary)
        return self.reader.chunks(reading, size)


def read_patients(
    path: Path, static_columns: Sequence[StaticColumn] = BUILT_IN, size: int = CHUNK
) -> Iterator[PatientColumns]:
    """Yield the patients of a file or folder with the default settings, codes and days as they are written.

    Raises:
        InputError: as `PatientInput.chunks` does.
    """
    source = PatientInput([path], static_columns=static_columns)
    yield from source.quiet_chunks(size, as_written=True)
    source.check_any()
