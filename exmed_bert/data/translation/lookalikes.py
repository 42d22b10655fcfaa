"""ICD-9-CM codes in a list of ICD-10-CM codes.

``V58.61`` is the use of an anticoagulant in one system and has the form of a transport accident in the other. Which of
the two it is is told by its form, by the official list, by its day, since ICD-10-CM began in October 2015, and by its
neighbors: codes such as ``250.00``, which are ICD-9-CM's without a doubt.
"""

from enum import IntEnum

from exmed_bert.codes import ICD10CM, CodeKey, normalize
from exmed_bert.codes.icd10cm_list import billable

ICD9CM = "icd9cm"
ICD10CM_BEGINS = 16_709  # 2015-10-01, in days since 1970-01-01

_MARK = "ICD9CM//"


class Reading(IntEnum):
    """How a code of a list of ICD-10-CM codes reads."""

    ICD10 = 0
    NUMERIC = 1  # ICD-9-CM's, of no form of ICD-10-CM
    ICD9 = 2  # of ICD-9-CM's form, and no diagnosis that the list has, so ICD-9-CM's if it is of its time
    EITHER = 3  # of ICD-9-CM's form, and a diagnosis that the list has: its neighbors decide


def reading(text: str) -> Reading:
    """Return how a code reads.

    >>> [reading(code).name for code in ("250.00", "V58.61", "E8809", "E88.09", "E11.9", "Z79.01")]
    ['NUMERIC', 'ICD9', 'EITHER', 'ICD10', 'ICD10', 'ICD10']
    """
    code = normalize(text, ICD9CM)
    if code is None:
        return Reading.ICD10
    if code[0].isdigit():
        return Reading.NUMERIC
    other = normalize(text, ICD10CM)
    return Reading.EITHER if other is not None and other.replace(".", "") in billable() else Reading.ICD9


def marked(text: str) -> CodeKey:
    """Return the code as one that ICD-10-CM does not have, so that it counts as unknown."""
    return ICD10CM, _MARK + text


def as_written(text: str) -> str:
    """Return the code that `marked` was given, and other codes as they are.

    >>> as_written(marked("V58.61")[1]), as_written("E11.9")
    ('V58.61', 'E11.9')
    """
    return text.removeprefix(_MARK)
