"""What every reader of patients offers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from exmed_bert.codes import code_system
from exmed_bert.console import OptionError
from exmed_bert.data.formats import is_export
from exmed_bert.data.origin import Origin
from exmed_bert.data.patient import PatientColumns
from exmed_bert.data.readers.source import Source
from exmed_bert.data.readers.summary import ReadingSummary
from exmed_bert.data.static_columns import StaticColumn
from exmed_bert.settings import ReadingSettings

VISITS = "visits"  # what events of the types of visits are called
CHUNK = 10_000  # patients worked on at once: large enough for numpy, small enough for the memory


@dataclass(frozen=True)
class Reading:
    """How patients are to be read.

    Attributes:
        source: the files.
        settings: options of the formats.
        static_columns: those that are read.
        summary: takes what is counted on the way.
    """

    source: Source
    settings: ReadingSettings
    static_columns: Sequence[StaticColumn]
    summary: ReadingSummary

    @cached_property
    def kept_systems(self) -> frozenset[str]:
        """The code systems that --keep-systems names.

        Raises:
            OptionError: it names none of ours.
        """
        named = (self.settings.keep_systems or "").split(",")
        try:
            return frozenset(code_system(part.strip()).name for part in named if part.strip())
        except ValueError as error:
            raise OptionError(f"--keep-systems: {error}") from None

    def wants(self, events: str) -> bool:
        """Tell whether events that are called so, such as measurements, may be used; reading them is saved otherwise.

        They are where a system of theirs is named in ``keep_systems``, or all come from our own record.
        """
        if any(map(is_export, self.source.paths)):
            return events != VISITS  # of which a record of ours says as much as it says in its own events
        return any(code_system(name).events == events for name in self.kept_systems)


class Reader(Protocol):
    """Reads one format, as a stream where the format allows it: memory does not grow with the patients.

    Attributes:
        name: of the format, after --input-format.
        title: of the format, for messages.
        own_record: whether the record is our own, which declares the code system of each event: all systems are kept.
    """

    name: str
    title: str
    own_record: bool

    def recognizes(self, source: Source, settings: ReadingSettings) -> str | None:
        """Return by what files are known to be of this format, None where they are not.

        Cheap: by names, by columns, by the first lines.
        """
        ...

    def chunks(self, reading: Reading, size: int) -> Iterator[PatientColumns]:
        """Yield the patients as columns, ``size`` at a time.

        Codes and static values are passed on as they are written, codes with the system in which they are declared;
        what they mean is decided later.

        Raises:
            InputError: the files cannot be read as this format, or a record is wrong. Names file, record and field.
        """
        ...

    def divide(self, source: Source) -> list[Source]:
        """Return parts of the files, in order, that can be read apart from each other: no patient is in two of them."""
        ...

    def origin(self, source: Source) -> Origin:
        """Return what is known of where the patients come from."""
        ...
