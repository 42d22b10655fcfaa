"""Where patients come from: a digest of them, and what our generator says of those that it made."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Origin:
    """What is known of where patients come from.

    Attributes:
        fingerprint: digest of the content, 32 hexadecimal digits.
        generated: whether our generator made them.
        meta: what the generator says of them, {} for others.
        own_record: whether they come from our own record, as it is or exported.
    """

    fingerprint: str
    generated: bool = False
    meta: Mapping[str, Any] = field(default_factory=dict)
    own_record: bool = False

    @property
    def wrote(self) -> tuple[int, int]:
        """The patients and events that the generator says it wrote."""
        counts = {name: count for name, count in self.meta.get("counts", {}).items() if type(count) is int}
        patients = counts.pop("patients", 0)
        return patients, sum(counts.values())
