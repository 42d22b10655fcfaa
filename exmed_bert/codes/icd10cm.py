"""ICD-10-CM: diagnoses, with the dot (``E11.9``).

The parent of a code is the code without its last character, down to the category of three characters, and without the
placeholders X that a seventh character needs behind a short code.

Any code of the right form is one, so that obsolete codes and those of the next release are kept. The official list
decides only whether a last letter belongs to the code.
"""

import bisect
import re

from exmed_bert.codes.icd10cm_list import billable, is_listed, official_list
from exmed_bert.codes.system import CodeSystem

# Three to seven characters. Of the second and third one is a letter at most: C4A, and QA0 since 2026.
_PATTERN = re.compile(r"[A-Z]([0-9][0-9A-Z]|[A-Z][0-9])(\.[0-9A-Z]{1,4})?")
_CATEGORY, _LONGEST = len("S93"), len("S93.401A")
_MARKS = ".-+*! "  # I10.- for any code below it, E11.30+ and H36.0* of a pair, U69.00! never alone
_CERTAINTY = ("A", "V", "Z", "G")  # excluded, suspected, after, certain; German exports put it behind the code
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


def _spelling(text: str) -> str | None:
    code = _dotted(text.upper())
    fits = _PATTERN.fullmatch(code) is not None
    if fits and _is_whole(code):
        return code
    bare = _dotted(code[:-1])
    if code[-1:] in _CERTAINTY and _PATTERN.fullmatch(bare) and _is_whole(bare):
        return bare
    return code if fits else None


def _dotted(text: str) -> str:
    """Return a code with its dot and without the marks that some exports put behind it."""
    text = text.rstrip(_MARKS)
    return f"{text[:3]}.{text[3:]}" if len(text) > 3 and "." not in text else text


def _is_whole(code: str) -> bool:
    """Tell whether the last character is the code's own, and no letter for the certainty of a diagnosis."""
    if len(code) == _CATEGORY or code[-1] not in _CERTAINTY:
        return True
    plain = code.replace(".", "")
    if len(code) == _LONGEST:  # the A or G of an injury's encounter, unless the code before it is complete
        return plain[:-1] not in billable()
    return is_listed(plain)


def _parent(code: str) -> str | None:
    if len(code) <= _CATEGORY:
        return None
    above = code[:-1].rstrip("X.") if len(code) == _LONGEST else code[:-1].rstrip(".")
    return above if _is_whole(above) else _parent(above)  # a letter of certainty amid a code that nobody lists


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
    aliases=("ICD-10", "ICD10"),
    url="http://hl7.org/fhir/sid/icd-10-cm",
    spelling=_spelling,
    parent_of=_parent,
    chapter_of=_chapter,
    description_of=_description,
    token_of=_token,
)
