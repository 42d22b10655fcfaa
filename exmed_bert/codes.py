"""Code systems: ICD-10-CM for diagnoses and ATC for drugs. Pure functions on strings, no files.

A code is always a string in its system's usual spelling: ICD-10-CM with the dot (``E11.9``), ATC without
(``C10AA05``). Both systems are trees that can be read from the code itself: the parent of an ICD-10-CM code is the
code without its last character, down to the category of three characters, and without the placeholders X that a
seventh character needs behind a short code; ATC has levels of 1, 3, 4, 5 and 7 characters
(https://www.whocc.no/atc/structure_and_principles/). Above them stand ICD-10-CM's chapters and ATC's anatomical groups.
"""

import bisect
import re
from typing import Literal

CodeSystem = Literal["icd", "atc"]

ICD: CodeSystem = "icd"
ATC: CodeSystem = "atc"

# Three to seven characters. Of the second and third one is a letter at most: C4A, and QA0 since 2026.
_ICD_PATTERN = re.compile(r"[A-Z]([0-9][0-9A-Z]|[A-Z][0-9])(\.[0-9A-Z]{1,4})?")
_ATC_PATTERN = re.compile(r"[A-DGHJLMNPRSV]([0-9]{2}([A-Z]([A-Z]([0-9]{2})?)?)?)?")
_ATC_LEVELS = (1, 3, 4, 5, 7)
_ICD_LONGEST = len("S93.401A")
# ICD-10-CM tabular list: the first category of each chapter. Chapter 22 (U) is printed last but sorts before V.
_ICD_CHAPTERS = (
    ("A00", "1 Infections"),
    ("C00", "2 Neoplasms"),
    ("D50", "3 Blood and immune system"),
    ("E00", "4 Endocrine and metabolic"),
    ("F01", "5 Mental and behavioural"),
    ("G00", "6 Nervous system"),
    ("H00", "7 Eye"),
    ("H60", "8 Ear"),
    ("I00", "9 Circulatory"),
    ("J00", "10 Respiratory"),
    ("K00", "11 Digestive"),
    ("L00", "12 Skin"),
    ("M00", "13 Musculoskeletal"),
    ("N00", "14 Genitourinary"),
    ("O00", "15 Pregnancy and childbirth"),
    ("P00", "16 Perinatal"),
    ("Q00", "17 Congenital"),
    ("R00", "18 Symptoms and findings"),
    ("S00", "19 Injury and poisoning"),
    ("U00", "22 Special purposes"),
    ("V00", "20 External causes"),
    ("Z00", "21 Health status and contacts"),
)
_ICD_CHAPTER_STARTS = [start for start, _ in _ICD_CHAPTERS]
_ATC_GROUPS = {
    "A": "Alimentary tract and metabolism",
    "B": "Blood",
    "C": "Cardiovascular system",
    "D": "Dermatologicals",
    "G": "Genito-urinary and sex hormones",
    "H": "Systemic hormones",
    "J": "Antiinfectives",
    "L": "Antineoplastic and immune",
    "M": "Musculo-skeletal system",
    "N": "Nervous system",
    "P": "Antiparasitic",
    "R": "Respiratory system",
    "S": "Sensory organs",
    "V": "Various",
}
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
    >>> parent("W00.0XXA", "icd"), parent("T36.0X1", "icd")
    ('W00.0', 'T36.0X')
    """
    if system == ICD:
        if len(code) <= 3:
            return None
        return code[:-1].rstrip("X.") if len(code) == _ICD_LONGEST else code[:-1].rstrip(".")
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


def chapter(code: str, system: CodeSystem) -> str:
    """Return the name of the ICD-10-CM chapter or ATC anatomical group of a code, short and in our own words.

    >>> chapter("C50.911", "icd"), chapter("D50", "icd"), chapter("U07.1", "icd"), chapter("C10AA05", "atc")
    ('2 Neoplasms', '3 Blood and immune system', '22 Special purposes', 'C Cardiovascular system')
    """
    if system == ATC:
        return f"{code[0]} {_ATC_GROUPS[code[0]]}"
    return _ICD_CHAPTERS[max(bisect.bisect_right(_ICD_CHAPTER_STARTS, code) - 1, 0)][1]


def is_descendant(code: str, ancestor: str, system: CodeSystem) -> bool:
    """Tell whether ``ancestor`` stands above ``code`` in the tree.

    >>> is_descendant("E11.95", "E11", "icd"), is_descendant("E11", "E11", "icd")
    (True, False)
    """
    return ancestor in ancestors(code, system)


normalize = normalise
