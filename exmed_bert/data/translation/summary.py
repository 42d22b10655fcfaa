"""What became of the events of an input, counted by the code systems in which they were declared."""

from collections import Counter
from dataclasses import dataclass, field

from exmed_bert.codes import CodeKey

KEPT, MAPPED, UNKNOWN, LEFT_OUT = OUTCOMES = ("kept", "mapped", "unknown", "left out")


@dataclass
class TranslationSummary:
    """Counts of events.

    Attributes:
        events: by the system as declared, the outcome (one of `OUTCOMES`) and the calendar year.
        unmapped: those that were left out, by the system as declared and the code.
        read_as_icd9: events of a list of ICD-10-CM codes whose codes are ICD-9-CM's, by code as it is written.
    """

    events: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    unmapped: Counter[CodeKey] = field(default_factory=Counter)
    read_as_icd9: Counter[str] = field(default_factory=Counter)
