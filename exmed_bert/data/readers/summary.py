"""What a reader read, and what it left out and why."""

from collections import Counter
from dataclasses import dataclass, field

# Why a row is no event of a patient.
ROWS, ORPHANS, NO_DATE, NO_CODE = "rows", "of no patient", "without a date", "without a code"
NO_SYSTEM, REPEATS = "of no code system", "exact repeats"
# Why a patient is left out.
NO_BIRTH_YEAR, IMPLAUSIBLE_BIRTH_YEAR = "no birth year", "implausible birth year"
IMPLAUSIBLE_AGE = "implausible age at the first event"


@dataclass
class ReadingSummary:
    """Counts of what was read, by file and reason.

    Attributes:
        read_as: the format, and how it was recognized.
        files: by file or table the rows read, and those that are no events by reason.
        excluded: patients left out, by reason.
        families: events of no known code system, by what they name in its place.
        repeats: events that repeat patient, day and code exactly and are read once.
        implausible_events: events on days that cannot be, by reason.
        implausible_periods: patients by period field whose day cannot be and is read as unknown.
        notes: sentences on what else a user has to know.
    """

    read_as: str = ""
    files: dict[str, Counter[str]] = field(default_factory=dict)
    excluded: Counter[str] = field(default_factory=Counter)
    families: Counter[str] = field(default_factory=Counter)
    repeats: int = 0
    implausible_events: Counter[str] = field(default_factory=Counter)
    implausible_periods: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def of(self, file: str) -> Counter[str]:
        """Return the counts of a file."""
        return self.files.setdefault(file, Counter())
