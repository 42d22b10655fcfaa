"""Code systems: ICD-10-CM for diagnoses and ATC for drugs. Pure functions on strings, no files.

A code is always a string in its system's usual spelling: ICD-10-CM with the dot (``E11.9``), ATC without
(``C10AA05``). Both systems are trees that can be read from the code itself: the parent of an ICD-10-CM code is the
code without its last character, down to the category of three characters; ATC has levels of 1, 3, 4, 5 and 7
characters (https://www.whocc.no/atc/structure_and_principles/).
"""

import re
from typing import Literal

CodeSystem = Literal["icd", "atc"]

ICD: CodeSystem = "icd"
ATC: CodeSystem = "atc"

# ICD-10-CM Official Guidelines: three to seven characters, the second a digit, the third a digit or a letter.
_ICD_PATTERN = re.compile(r"[A-Z][0-9][0-9A-Z](\.[0-9A-Z]{1,4})?")
_ATC_PATTERN = re.compile(r"[A-DGHJLMNPRSV]([0-9]{2}([A-Z]([A-Z]([0-9]{2})?)?)?)?")
_ATC_LEVELS = (1, 3, 4, 5, 7)
_PREFIX = re.compile(r"(ICD-?10-?CM|ICD-?10|ICD|ATC)\s*[:/]\s*", re.IGNORECASE)


def normalise(code: str, system: CodeSystem) -> str | None:
    """Return ``code`` in its system's usual spelling, or None when it is no code of that system.

    Case, surrounding blanks, a missing ICD dot and a system prefix do not matter.

    >>> normalise("e119", "icd"), normalise("ICD10CM:E11.9", "icd"), normalise(" c10aa05", "atc")
    ('E11.9', 'E11.9', 'C10AA05')
    >>> normalise("250.00", "icd") is None and normalise("aspirin", "atc") is None
    True
    """
    text = _PREFIX.sub("", code.strip(), count=1).upper()
    if system == ICD:
        if len(text) > 3 and "." not in text:
            text = f"{text[:3]}.{text[3:]}"
        return text if _ICD_PATTERN.fullmatch(text) else None
    return text if _ATC_PATTERN.fullmatch(text) else None


def parent(code: str, system: CodeSystem) -> str | None:
    """Return the code one level up, or None at the top (an ICD category, an ATC anatomical group).

    >>> parent("E11.95", "icd"), parent("E11.9", "icd"), parent("E11", "icd"), parent("C10AA05", "atc")
    ('E11.9', 'E11', None, 'C10AA')
    """
    if system == ICD:
        return code[:-1].rstrip(".") if len(code) > 3 else None
    shorter = [level for level in _ATC_LEVELS if level < len(code)]
    return code[: shorter[-1]] if shorter else None


def ancestors(code: str, system: CodeSystem) -> list[str]:
    """Return the codes above ``code``, nearest first.

    >>> ancestors("M25.561", "icd"), ancestors("C10AA05", "atc")
    (['M25.56', 'M25.5', 'M25'], ['C10AA', 'C10A', 'C10', 'C'])
    """
    above = []
    while (code_above := parent(code, system)) is not None:
        above.append(code_above)
        code = code_above
    return above


def is_descendant(code: str, ancestor: str, system: CodeSystem) -> bool:
    """Tell whether ``ancestor`` stands above ``code`` in the tree.

    >>> is_descendant("E11.95", "E11", "icd"), is_descendant("E11", "E11", "icd")
    (True, False)
    """
    return ancestor in ancestors(code, system)
