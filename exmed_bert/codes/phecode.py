"""Phecodes: groups of diagnoses for phenome-wide studies, of version 1.2 (``250.2``) and PhecodeX (``EM_202.2``).

https://phewascatalog.org. Codes of version 1.2 are decimal numbers with three digits before the dot, and tables spell
them as such: ``8.0`` is ``008``, ``250.20`` is ``250.2``. PhecodeX has letters for the chapter and keeps all digits.
"""

import bisect
import re

from exmed_bert.codes.system import CodeSystem, without_last_digit

_CHAPTERS = {
    "ID": "Infections",
    "CA": "Neoplasms",
    "BI": "Blood and immune system",
    "EM": "Endocrine and metabolic",
    "MB": "Mental",
    "NS": "Nervous system",
    "SO": "Sense organs",
    "CV": "Circulatory",
    "RE": "Respiratory",
    "GI": "Digestive",
    "GU": "Genitourinary",
    "DE": "Skin",
    "MS": "Musculoskeletal",
    "CM": "Congenital",
    "SS": "Symptoms and findings",
    "NB": "Neonatal",
    "PP": "Pregnancy and childbirth",
    "GE": "Genetic",
}
# Version 1.2: the first code of each chapter. Its catalog puts two dozen codes elsewhere (860, stem cell transplant,
# with the neoplasms); the number decides here.
_NUMBERED_CHAPTERS = (
    ("001", "Infections"),
    ("140", "Neoplasms"),
    ("240", "Endocrine and metabolic"),
    ("280", "Blood and immune system"),
    ("290", "Mental"),
    ("320", "Nervous system"),
    ("360", "Sense organs"),
    ("390", "Circulatory"),
    ("460", "Respiratory"),
    ("520", "Digestive"),
    ("580", "Genitourinary"),
    ("630", "Pregnancy and childbirth"),
    ("680", "Skin"),
    ("710", "Musculoskeletal"),
    ("747", "Congenital"),
    ("760", "Symptoms and findings"),
    ("800", "Injury and poisoning"),
)
_CHAPTER_STARTS = [start for start, _ in _NUMBERED_CHAPTERS]
_LETTERED = re.compile(rf"({'|'.join(_CHAPTERS)})_[0-9]{{3}}(\.[0-9]{{1,3}})?")
_NUMBERED = re.compile(r"([0-9]{1,3}|1[01][0-9]{2})(?:\.([0-9]{1,2}))?")


def _spelling(text: str) -> str | None:
    numbered = _NUMBERED.fullmatch(text)
    if numbered:
        whole, decimals = numbered[1].zfill(3), (numbered[2] or "").rstrip("0")
        return None if whole == "000" else f"{whole}.{decimals}".rstrip(".")
    text = text.upper()
    return text if _LETTERED.fullmatch(text) else None


def _chapter(code: str) -> str:
    if code[0].isalpha():
        return _CHAPTERS[code[:2]]
    if len(code.partition(".")[0]) > 3:  # 1000 and above: without a chapter in the catalog too
        return "Other"
    return _NUMBERED_CHAPTERS[bisect.bisect_right(_CHAPTER_STARTS, code) - 1][1]


PHECODE = CodeSystem(
    name="phecode",
    title="Phecode",
    events="diagnoses",
    aliases=("Phecodes", "PhecodeX"),
    spelling=_spelling,
    parent_of=without_last_digit,
    chapter_of=_chapter,
)
