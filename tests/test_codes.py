"""ICD-10-CM and ATC: spelling, parents, ancestors and chapters."""

import string
import subprocess
import sys

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from exmed_bert import codes
from exmed_bert.codes import icd10cm_list

# Without the letters that exports put behind a code: A, V, Z and G.
ICD_CODES = st.from_regex(r"[A-Z][0-9][0-9A-Z](\.[0-9B-FH-UWXY]{1,4})?", fullmatch=True)
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
        ("ICD10CM//E11.9", "icd", "E11.9"),
        ("ICD-10-CM|E119", "icd", "E11.9"),
        ("icd10 // e119", "icd", "E11.9"),
        ("ATC//C10AA05", "atc", "C10AA05"),
        ("atc | c10aa05", "atc", "C10AA05"),
        ("c10aa05", "atc", "C10AA05"),
        ("ATC:C10", "atc", "C10"),
        ("C10AA0", "atc", None),
        ("aspirin", "atc", None),
        ("E11.9", "atc", None),
    ],
)
def test_normalize(text: str, system: str, code: str | None) -> None:
    assert codes.normalize(text, system) == code


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("I10.", "I10"),
        ("I10.-", "I10"),
        ("I10-", "I10"),
        ("I10.--", "I10"),
        ("E11.90+", "E11.90"),
        ("G63.2*", "G63.2"),
        ("U69.00!", "U69.00"),
        ("ICD10CM//E11.9+", "E11.9"),
        ("T42.6x2D", "T42.6X2D"),
        # the certainty of a diagnosis: excluded, suspected, after, certain
        ("E11.9A", "E11.9"),
        ("E11.9V", "E11.9"),
        ("E11.9Z", "E11.9"),
        ("e119g", "E11.9"),
        ("E11.9 G", "E11.9"),
        ("E11.30+G", "E11.30"),
        ("I10.-G", "I10"),
        ("I10G", "I10"),
        ("I10.90G", "I10.90"),  # ICD-10-GM
        ("M25.561G", "M25.561"),  # needs no seventh character
        ("S93.401AG", "S93.401A"),
        # the code's own
        ("S93.401A", "S93.401A"),
        ("M80.00XG", "M80.00XG"),
        ("C81.0A", "C81.0A"),
        ("C81.0AG", "C81.0A"),
        ("E11.A", "E11.A"),
        ("F32A", "F32.A"),
        ("Z3A", "Z3A"),
        ("O35.G", "O35.G"),
        ("M54.5", "M54.5"),  # no longer a diagnosis to code with
        ("E99.999", "E99.999"),  # in no list
        ("-", None),
        ("+!", None),
        ("A00-A09", None),
        ("E11.9+5", None),
        ("E11.9B", "E11.9B"),
    ],
)
def test_what_an_export_puts_behind_a_diagnosis_is_not_its_codes(written: str, code: str | None) -> None:
    assert codes.normalize(written, "icd") == code


@given(ICD_CODES, st.text(alphabet=".-+*! ", max_size=3), st.sampled_from(["", "A", "V", "Z", "G"]))
def test_marks_and_the_certainty_behind_any_diagnosis_are_read(code: str, marks: str, certainty: str) -> None:
    written = code + marks + certainty
    kept = {code + certainty, code + "." + certainty} & {codes.normalize(code + certainty, "icd")}  # a code of its own
    assert codes.normalize(written, "icd") in {code, *kept}
    assert codes.normalize(code + marks, "icd") == code


def test_codes_that_end_in_a_letter_of_certainty_do_not_load_the_package_of_the_list() -> None:
    program = (
        "import sys; from exmed_bert import codes;"
        "assert codes.normalize('E11.A', 'icd') == 'E11.A' and codes.normalize('E11.9G', 'icd') == 'E11.9';"
        "sys.exit('simple_icd_10_cm' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0


@pytest.mark.slow
def test_the_list_is_the_same_in_a_package_of_another_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    import simple_icd_10_cm as official

    all_codes = [code for code in official.get_all_codes(True) if "-" not in code and not code.isdigit()]
    leaves = {code.replace(".", "") for code in all_codes if official.is_leaf(code)}
    assert icd10cm_list.billable() == leaves
    assert all(icd10cm_list.is_listed(code.replace(".", "")) for code in all_codes[:200])
    with monkeypatch.context() as patch:
        patch.setattr(icd10cm_list, "find_spec", lambda name: None)
        in_another = icd10cm_list._text.__wrapped__()
    assert in_another.split() == icd10cm_list._text().split()


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
