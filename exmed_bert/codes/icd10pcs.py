"""ICD-10-PCS: inpatient procedures (``0DTJ4ZZ``). Each of the seven characters is a level: section, body system, ..."""

import re

from exmed_bert.codes.system import CodeSystem

_PATTERN = re.compile(r"[0-9B-DF-HX][0-9A-HJ-NP-Z]{0,6}")  # no I and no O
_SECTIONS = {
    "0": "Medical and surgical",
    "1": "Obstetrics",
    "2": "Placement",
    "3": "Administration",
    "4": "Measurement and monitoring",
    "5": "Extracorporeal assistance",
    "6": "Extracorporeal therapies",
    "7": "Osteopathic",
    "8": "Other procedures",
    "9": "Chiropractic",
    "B": "Imaging",
    "C": "Nuclear medicine",
    "D": "Radiation therapy",
    "F": "Rehabilitation and audiology",
    "G": "Mental health",
    "H": "Substance abuse treatment",
    "X": "New technology",
}


def _spelling(text: str) -> str | None:
    text = text.upper()
    return text if _PATTERN.fullmatch(text) else None


def _parent(code: str) -> str | None:
    return code[:-1] or None


def _chapter(code: str) -> str:
    return f"{code[0]} {_SECTIONS[code[0]]}"


ICD10PCS = CodeSystem(
    name="icd10pcs",
    title="ICD-10-PCS",
    events="procedures",
    url="http://www.cms.gov/Medicare/Coding/ICD10",
    spelling=_spelling,
    parent_of=_parent,
    chapter_of=_chapter,
)
