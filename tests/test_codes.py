"""ICD-10-CM and ATC: spelling, parents, ancestors and chapters."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exmed_bert import codes

ICD_CODES = st.from_regex(r"[A-Z][0-9][0-9A-Z](\.[0-9A-Z]{1,4})?", fullmatch=True)
ATC_CODES = st.from_regex(r"[ABCDGHJLMNPRSV][0-9]{2}[A-Z]{2}[0-9]{2}", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "system", "code"),
    [
        ("e119", "icd", "E11.9"),
        (" E11.9 ", "icd", "E11.9"),
        ("ICD10CM:I10", "icd", "I10"),
        ("M25561", "icd", "M25.561"),
        ("F32.A", "icd", "F32.A"),
        ("U07.1", "icd", "U07.1"),
        ("250.00", "icd", None),
        ("", "icd", None),
        ("E11.95678", "icd", None),
        ("c10aa05", "atc", "C10AA05"),
        ("ATC:C10", "atc", "C10"),
        ("C10AA0", "atc", None),
        ("aspirin", "atc", None),
        ("E11.9", "atc", None),
    ],
)
def test_normalize(text: str, system: str, code: str | None) -> None:
    assert codes.normalize(text, system) == code


@given(ICD_CODES)
def test_a_normal_icd_code_stays_and_is_found_without_its_dot(code: str) -> None:
    assert codes.normalize(code, "icd") == code
    assert codes.normalize(code.replace(".", "").lower(), "icd") == code


@given(st.text(alphabet=string.printable, max_size=12), st.sampled_from(["icd", "atc"]))
def test_normalizing_twice_changes_nothing(text: str, system: str) -> None:
    once = codes.normalize(text, system)
    assert once is None or codes.normalize(once, system) == once


@given(ICD_CODES)
def test_icd_ancestors_are_valid_prefixes_down_to_the_category(code: str) -> None:
    above = codes.ancestors(code, "icd")
    assert all(codes.normalize(ancestor, "icd") == ancestor for ancestor in above)
    assert all(code.startswith(ancestor) and len(ancestor) < len(code) for ancestor in above)
    assert (above[-1] if above else code) == code[:3]


@given(ATC_CODES)
def test_atc_ancestors_are_its_four_levels(code: str) -> None:
    assert codes.ancestors(code, "atc") == [code[:5], code[:4], code[:3], code[:1]]
    assert codes.is_descendant(code, code[:3], "atc") and not codes.is_descendant(code[:3], code, "atc")


@pytest.mark.slow
def test_the_tree_is_the_official_one() -> None:
    """All codes of ICD-10-CM of April 2026: spelling, parents and chapters."""
    import simple_icd_10_cm as official

    wrong = []
    for code in official.get_all_codes(True):
        if official.is_chapter(code) or "-" in code:  # a block
            continue
        above = official.get_parent(code)
        parent = None if len(code) == 3 else above  # a block of one category has its name
        chapter = official.get_ancestors(code)[-1]
        found = (codes.normalize(code, "icd"), codes.parent(code, "icd"), codes.chapter(code, "icd").split()[0])
        if found != (code, parent, chapter):
            wrong.append((code, parent, chapter, found))
    assert not wrong, wrong[:5]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "description"),
    [
        ("E11.9", "Type 2 diabetes mellitus without complications"),
        ("B20", "Human immunodeficiency virus [HIV] disease"),  # a block has the same name
        ("E99.999", None),
    ],
)
def test_icd_descriptions_are_the_official_names(code: str, description: str | None) -> None:
    assert codes.code_system("icd10cm").description(code) == description
