"""Real ICD-10-CM codes that took effect from April 2020 on, read from ``tables/recent_codes.csv`` and validated."""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from exmed_bert.codes import ICD10CM
from exmed_bert.reference.rows import Rows
from exmed_bert.reference.tables import FOLDER


@dataclass(frozen=True, eq=False)
class RecentCodes:
    """R recent codes: what each came from or replaces, (R,) first days of use since 1970-01-01, our names for them."""

    path: Path
    codes: tuple[str, ...]
    sources: tuple[str, ...]
    valid_from: np.ndarray
    names: tuple[str, ...]


@functools.cache
def load(folder: Path = FOLDER) -> RecentCodes:
    """Read and check the table of recent codes.

    Raises:
        InputError: a value is no code, a code stands twice, or a day is none.
    """
    rows = Rows(folder / "recent_codes.csv")
    return RecentCodes(
        path=rows.path,
        codes=rows.distinct_codes(ICD10CM),
        sources=rows.codes("source_code", ICD10CM),
        valid_from=rows.days("valid_from"),
        names=tuple(rows.each("name", str)),
    )
