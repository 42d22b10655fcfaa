"""What a conversion has counted, and the patients of each step from the input to the datasets."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from exmed_bert.codes import CodeKey
from exmed_bert.data.dataset import PatientDataset
from exmed_bert.data.first_pass import PartCounts
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.data.readers.summary import ReadingSummary
from exmed_bert.data.tokenizer import TokenizerSummary
from exmed_bert.reporting.small_cells import Count, MinCell


@dataclass(frozen=True)
class Conversion:
    """What a conversion made of its input.

    Attributes:
        source: the patients.
        datasets: by split.
        paths: of the datasets: files, or folders of shards.
        counts: what was met on the way.
        rare: codes that were too rare, and what stands for them.
    """

    source: PatientInput
    datasets: dict[str, PatientDataset]
    paths: dict[str, Path]
    counts: PartCounts
    rare: Mapping[CodeKey, CodeKey | None]

    @property
    def summary(self) -> TokenizerSummary:
        """The tokenizer's counts."""
        return self.counts.tokens


@dataclass(frozen=True)
class ConversionCounts:
    """What a conversion has counted.

    Attributes:
        input: what was read, for people.
        reading: the reader's summary.
        events: events by system as declared, outcome (`translation.OUTCOMES`) and calendar year.
        unmapped: those that were left out, by system and code.
        tokens: the tokenizer's summary.
        min_observations: patients with fewer codes were excluded.
        datasets: by split, those that were written.
        kept_implausible: whether events on days that cannot be were kept.
    """

    input: str
    reading: ReadingSummary
    events: Mapping[tuple[str, str, int], int]
    unmapped: Mapping[CodeKey, int]
    tokens: TokenizerSummary
    min_observations: int
    datasets: Mapping[str, PatientDataset]
    kept_implausible: bool = False


def attrition(counts: ConversionCounts, cells: MinCell) -> list[tuple[str, Count]]:
    """Return the patients of each step from the input to the datasets; totals tell no more than their parts do."""
    excluded = cells.ranked(counts.reading.excluded)
    excluded.append((f"fewer than {counts.min_observations} codes", counts.tokens.too_short))
    splits = {f"of these in the {split} split": len(dataset) for split, dataset in counts.datasets.items()}
    not_written = counts.tokens.patients - counts.tokens.too_short - sum(splits.values())
    if not_written > 0:
        splits["of these in the split that was not asked for"] = not_written
    return [
        ("in the input", cells.total([*(patients for _, patients in excluded), *splits.values()])),
        *((f"excluded: {reason}", cells.count(patients)) for reason, patients in excluded),
        ("left", cells.total(splits.values())),
        *((step, cells.count(patients)) for step, patients in splits.items()),
    ]
