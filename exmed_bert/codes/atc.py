"""ATC: drugs, without a dot (``C10AA05``). Levels of 1, 3, 4, 5 and 7 characters below the anatomical groups.

https://www.whocc.no/atc/structure_and_principles/
"""

import re

from exmed_bert.codes.system import CodeSystem

_PATTERN = re.compile(r"[A-DGHJLMNPRSV]([0-9]{2}([A-Z]([A-Z]([0-9]{2})?)?)?)?")
_LEVELS = (7, 5, 4, 3, 1)  # characters
_GROUPS = {
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


def _spelling(text: str) -> str | None:
    text = text.upper()
    return text if _PATTERN.fullmatch(text) else None


def _parent(code: str) -> str | None:
    return next((code[:level] for level in _LEVELS if level < len(code)), None)


def _chapter(code: str) -> str:
    return f"{code[0]} {_GROUPS[code[0]]}"


def _token(code: str) -> str:
    return f"ATC:{code}" if len(code) == 3 else code  # C10 is a category of ICD-10-CM as well


ATC = CodeSystem(
    name="atc",
    title="ATC",
    events="drugs",
    aliases=("WHO ATC",),
    url="http://www.whocc.no/atc",
    spelling=_spelling,
    parent_of=_parent,
    chapter_of=_chapter,
    token_of=_token,
)
