"""ICD-9-CM: diagnoses before October 2015, with the dot (``250.00``, ``V58.61``, ``E950.1``).

Volumes 1 and 2 only: the procedures of volume 3 are another system, whose codes look alike. Nothing is padded, as a
missing leading zero cannot be told from a shorter code.
"""

import bisect
import re

from exmed_bert.codes.system import CodeSystem, without_last_digit

# Categories 001-999, V01-V91, and of external causes E000-E030 (status and activity) and E800-E999.
_PATTERN = re.compile(
    r"((?!000)[0-9]{3}|V(?!00)[0-8][0-9]|V9[01])(\.[0-9]{1,2})?|E(0[0-2][0-9]|030|[89][0-9]{2})(\.[0-9])?"
)
# Tabular list: the first category of each chapter.
_CHAPTERS = (
    ("001", "1 Infections"),
    ("140", "2 Neoplasms"),
    ("240", "3 Endocrine and metabolic"),
    ("280", "4 Blood"),
    ("290", "5 Mental"),
    ("320", "6 Nervous system and sense organs"),
    ("390", "7 Circulatory"),
    ("460", "8 Respiratory"),
    ("520", "9 Digestive"),
    ("580", "10 Genitourinary"),
    ("630", "11 Pregnancy and childbirth"),
    ("680", "12 Skin"),
    ("710", "13 Musculoskeletal"),
    ("740", "14 Congenital"),
    ("760", "15 Perinatal"),
    ("780", "16 Symptoms and ill-defined"),
    ("800", "17 Injury and poisoning"),
    ("E", "E External causes"),
    ("V", "V Health status and contacts"),
)
_CHAPTER_STARTS = [start for start, _ in _CHAPTERS]


def _spelling(text: str) -> str | None:
    text = text.upper()
    category = 4 if text[:1] == "E" else 3
    if len(text) > category and "." not in text:
        text = f"{text[:category]}.{text[category:]}"
    return text if _PATTERN.fullmatch(text) else None


def _chapter(code: str) -> str:
    return _CHAPTERS[max(bisect.bisect_right(_CHAPTER_STARTS, code) - 1, 0)][1]


ICD9CM = CodeSystem(
    name="icd9cm",
    title="ICD-9-CM",
    events="diagnoses",
    aliases=("ICD-9", "ICD9"),
    url="http://hl7.org/fhir/sid/icd-9-cm",
    spelling=_spelling,
    parent_of=without_last_digit,
    chapter_of=_chapter,
)
