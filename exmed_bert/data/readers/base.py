"""What every reader of patients offers."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from exmed_bert.data.patient import PatientColumns
from exmed_bert.data.static_columns import StaticColumn

CHUNK = 10_000  # patients worked on at once: large enough for numpy, small enough for the memory


class Reader(Protocol):
    """Reads one format, as a stream where the format allows it: memory does not grow with the patients.

    Attributes:
        name: of the format, for messages.
    """

    name: str

    def recognizes(self, path: Path) -> bool:
        """Tell whether a path is of this format."""
        ...

    def chunks(self, path: Path, static_columns: Sequence[StaticColumn], size: int) -> Iterator[PatientColumns]:
        """Yield the patients of a path as columns, ``size`` at a time.

        Codes and static values are passed on as they are written; what they mean is decided where they are tokenized.

        Raises:
            InputError: the path cannot be read as this format, or a record is wrong. Names record, field and value.
        """
        ...

    def fingerprint(self, path: Path) -> str:
        """Return a digest of the content, 32 hexadecimal digits."""
        ...
