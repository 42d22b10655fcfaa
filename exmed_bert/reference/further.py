"""Laboratory tests and procedures that generated patients may have, read from ``tables/`` and validated."""

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from exmed_bert.codes import CodeKey, code_system
from exmed_bert.reference.rows import Rows, split
from exmed_bert.reference.tables import FOLDER, SEX_MASKS

LABS, PROCEDURES = "labs.csv", "procedures.csv"


@dataclass(frozen=True, eq=False)
class Labs:
    """L laboratory tests.

    Attributes:
        codes, names: of LOINC, and what they are in our words.
        decimals: (L,) int, with which values are reported.
        mean: (L, 2) geometric mean by sex at 50 years.
        low, high: (L, 2) reference range.
        per_decade: (L,) factor of the value by ten years of age.
        between, within: (L,) standard deviations of the logarithm, between people and between the tests of one.
        min_age: (L,) in years.
        share: (L,) of the visits at which the test is made.
        share_given, factor_given: by the code of a condition, a test's index and the share, or the factor, from the
            condition's first record on.
    """

    codes: tuple[str, ...]
    names: tuple[str, ...]
    decimals: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    per_decade: np.ndarray
    between: np.ndarray
    within: np.ndarray
    min_age: np.ndarray
    share: np.ndarray
    share_given: tuple[tuple[str, int, float], ...]
    factor_given: tuple[tuple[str, int, float], ...]

    @property
    def conditions(self) -> tuple[str, ...]:
        """The codes of all conditions that matter."""
        return tuple(sorted({code for code, _, _ in (*self.share_given, *self.factor_given)}))


@dataclass(frozen=True, eq=False)
class Procedures:
    """P procedures: codes, our names, who can have them, the code that visits need for each, and its share of these."""

    keys: tuple[CodeKey, ...]
    names: tuple[str, ...]
    sexes: np.ndarray
    min_age: np.ndarray
    max_age: np.ndarray
    needs: tuple[str, ...]
    share: np.ndarray


@functools.cache
def labs(folder: Path = FOLDER) -> Labs:
    """Read and check the table of laboratory tests.

    Raises:
        InputError: a code is none, or a value is no number.
    """
    rows = Rows(folder / LABS)

    def by_sex(name: str) -> np.ndarray:
        return np.stack([rows.numbers(f"{name}_male"), rows.numbers(f"{name}_female")], axis=1)

    def given(column: str) -> tuple[tuple[str, int, float], ...]:
        read = rows.each(column, lambda text: [part.split(":") for part in split(text)])
        return tuple((code, lab, float(value)) for lab, pairs in enumerate(read) for code, value in pairs)

    return Labs(
        codes=rows.distinct_codes("loinc"),
        names=tuple(rows.each("name", str)),
        decimals=rows.numbers("decimals").astype(np.int64),
        mean=by_sex("mean"),
        low=by_sex("low"),
        high=by_sex("high"),
        per_decade=rows.numbers("factor_per_decade"),
        between=rows.numbers("spread_between"),
        within=rows.numbers("spread_within"),
        min_age=rows.numbers("min_age"),
        share=rows.shares("share_of_visits"),
        share_given=given("share_given"),
        factor_given=given("factor_given"),
    )


@functools.cache
def procedures(folder: Path = FOLDER) -> Procedures:
    """Read and check the table of procedures.

    Raises:
        InputError: a code is none, or a value is no number.
    """
    rows = Rows(folder / PROCEDURES)
    systems = rows.each("system", lambda text: code_system(text).name)
    spelled = iter(systems)

    def read(text: str) -> str:
        return text if code_system(next(spelled)).normalize(text) == text else rows.wrong("is no code of its system")

    return Procedures(
        keys=tuple(zip(systems, rows.each("code", read), strict=True)),
        names=tuple(rows.each("name", str)),
        sexes=np.array(rows.each("sex", SEX_MASKS.__getitem__)),
        min_age=rows.numbers("min_age"),
        max_age=rows.numbers("max_age"),
        needs=tuple(rows.each("with", str)),
        share=rows.shares("share"),
    )


def digest(folder: Path = FOLDER) -> str:
    """Return a digest of both tables."""
    content = b"".join((folder / name).read_bytes() for name in (LABS, PROCEDURES))
    return hashlib.blake2b(content, digest_size=16).hexdigest()
