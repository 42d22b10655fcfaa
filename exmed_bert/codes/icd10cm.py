"""ICD-10-CM: diagnoses, with the dot (``E11.9``).

The parent of a code is the code without its last character, down to the category of three characters, and without the
placeholders X that a seventh character needs behind a short code.
"""

import bisect
import re
from types import ModuleType

from exmed_bert.codes.system import CodeSystem
from exmed_bert.console import InputError

# Three to seven characters. Of the second and third one is a letter at most: C4A, and QA0 since 2026.
_PATTERN = re.compile(r"[A-Z]([0-9][0-9A-Z]|[A-Z][0-9])(\.[0-9A-Z]{1,4})?")
_LONGEST = len("S93.401A")
# Tabular list: the first category of each chapter. Chapter 22 (U) is printed last but sorts before V.
_CHAPTERS = (
    ("A00", "1 Infections"),
    ("C00", "2 Neoplasms"),
    ("D50", "3 Blood and immune system"),
    ("E00", "4 Endocrine and metabolic"),
    ("F01", "5 Mental and behavioral"),
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
_CHAPTER_STARTS = [start for start, _ in _CHAPTERS]


def official_list() -> ModuleType:
    """Return the package that holds the official code list; loading it takes two seconds.

    Raises:
        InputError: it is not installed.
    """
    try:
        import simple_icd_10_cm
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed; install it with: pip install simple-icd-10-cm") from None
    return simple_icd_10_cm


def _spelling(text: str) -> str | None:
    text = text.upper()
    if len(text) > 3 and "." not in text:
        text = f"{text[:3]}.{text[3:]}"
    return text if _PATTERN.fullmatch(text) else None


def _parent(code: str) -> str | None:
    if len(code) <= 3:
        return None
    return code[:-1].rstrip("X.") if len(code) == _LONGEST else code[:-1].rstrip(".")


def _chapter(code: str) -> str:
    return _CHAPTERS[max(bisect.bisect_right(_CHAPTER_STARTS, code) - 1, 0)][1]


def _description(code: str) -> str | None:
    official = official_list()
    return official.get_description(code) if official.is_valid_item(code) else None


def _token(code: str) -> str:
    return code


ICD10CM = CodeSystem(
    name="icd10cm",
    title="ICD-10-CM",
    events="diagnoses",
    entity="icd",
    aliases=("ICD-10", "ICD10", "http://hl7.org/fhir/sid/icd-10-cm"),
    spelling=_spelling,
    parent_of=_parent,
    chapter_of=_chapter,
    description_of=_description,
    token_of=_token,
)
