"""The registry of code systems: names, refusals, tokens, and a system of one's own."""

import re
import subprocess
import sys

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from exmed_bert import codes
from exmed_bert.codes import CodeSystem, code_system, code_systems, register, registered
from exmed_bert.codes.system import without_last_digit

BUILT_IN = ["atc", "icd10cm", "cpt", "hcpcs", "icd10pcs", "icd9cm", "loinc", "ndc", "phecode", "rxnorm", "snomedct"]
BUILT_IN += ["visit"]


def organ_system(**fields: object) -> CodeSystem:
    """Return a system with a tree: ORG.1.2 below ORG.1 below ORG."""
    return CodeSystem(
        **{
            "name": "organs",
            "title": "Organ codes",
            "events": "findings",
            "aliases": ("ORGCODE",),
            "spelling": lambda text: text.upper() if re.fullmatch(r"(?i)org(\.[0-9])*", text) else None,
            "parent_of": lambda code: code.rpartition(".")[0] or None,
            **fields,
        }
    )


def test_the_order_is_stable() -> None:
    assert [system.name for system in code_systems()] == BUILT_IN
    with registered(organ_system()):
        assert [system.name for system in code_systems()] == [*BUILT_IN, "organs"]
    assert [system.name for system in code_systems()] == BUILT_IN


@pytest.mark.parametrize(
    ("name", "system"),
    [
        ("icd", "icd10cm"),
        ("ICD10CM", "icd10cm"),
        ("icd-10-cm", "icd10cm"),
        ("ICD10", "icd10cm"),
        ("ICD-10", "icd10cm"),
        ("http://hl7.org/fhir/sid/icd-10-cm", "icd10cm"),
        ("ATC", "atc"),
        ("ICD9", "icd9cm"),
        ("ICD-10-PCS", "icd10pcs"),
        ("RxNorm", "rxnorm"),
        ("NDC", "ndc"),
        ("SNOMED", "snomedct"),
        ("snomed ct", "snomedct"),
        ("LNC", "loinc"),
        ("CPT4", "cpt"),
        ("hcpcs level ii", "hcpcs"),
        ("PhecodeX", "phecode"),
    ],
)
def test_a_system_is_found_by_any_of_its_names(name: str, system: str) -> None:
    assert code_system(name).name == system


def test_entities_of_the_original_keep_their_names() -> None:
    assert [system.entity for system in code_systems()] == ["atc", "icd", *BUILT_IN[2:]]


@pytest.mark.parametrize("name", ["", "icd11", "ICD 10", "default", "E11.9"])
def test_an_unknown_system_lists_the_known_ones(name: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"unknown code system {name!r}, expected one of atc, icd10cm, cpt")):
        code_system(name)
    with pytest.raises(ValueError, match="unknown code system"):
        codes.normalize("E11.9", name)


@pytest.mark.parametrize(
    ("fields", "taken"),
    [
        ({"name": "atc"}, "'atc' is taken by ATC"),
        ({"name": "icd"}, "'icd' is taken by ICD-10-CM"),  # an entity
        ({"name": "icd9"}, "'icd9' is taken by ICD-9-CM"),  # an alias
        ({"entity": "icd"}, "'icd' is taken by ICD-10-CM"),
        ({"entity": "default"}, "'default' is taken by special tokens"),
        ({"aliases": ("Snomed",)}, "'snomed' is taken by SNOMED CT"),
        ({"title": "LOINC"}, "'loinc' is taken by LOINC"),
    ],
)
def test_a_name_that_is_taken_is_refused(fields: dict[str, object], taken: str) -> None:
    with pytest.raises(ValueError, match=re.escape(taken)):
        register(organ_system(**fields))
    assert [system.name for system in code_systems()] == BUILT_IN
    with pytest.raises(ValueError, match="unknown code system"):
        code_system("ORGCODE")


@pytest.mark.parametrize(
    "fields", [{"name": "Organs"}, {"name": "org:ans"}, {"name": ""}, {"title": ""}, {"events": ""}]
)
def test_a_system_without_a_proper_name_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="code system"):
        organ_system(**fields)


def test_a_system_of_ones_own() -> None:
    with registered(organ_system()) as organs:
        assert code_system("orgcode") is organs
        assert organs.has_hierarchy
        assert codes.normalize(" OrgCode // org.1.2", "organs") == "ORG.1.2"
        assert codes.normalize("liver", "organs") is None
        assert codes.ancestors("ORG.1.2", "organs") == ["ORG.1", "ORG"]
        assert codes.is_descendant("ORG.1.2", "ORG", "organs")
        assert codes.chapter("ORG.1", "organs") == "Organ codes"
        assert organs.description("ORG.1") is None
        assert organs.token("ORG.1") == "organs:ORG.1" and organs.code_of("organs:ORG.1") == "ORG.1"
        with pytest.raises(ValueError, match="taken by Organ codes"):
            register(organ_system(name="organs2"))
    with pytest.raises(ValueError, match="unknown code system 'organs'"):
        code_system("organs")
    with registered(organ_system(parent_of=None)) as flat:  # the name is free again
        assert not flat.has_hierarchy and flat.ancestors("ORG.1.2") == []


def test_a_system_is_unregistered_after_an_error() -> None:
    with pytest.raises(RuntimeError), registered(organ_system()):
        raise RuntimeError
    assert [system.name for system in code_systems()] == BUILT_IN


@pytest.mark.parametrize(
    ("system", "code", "token"),
    [
        ("icd10cm", "C10", "C10"),
        ("icd10cm", "E11.9", "E11.9"),
        ("atc", "C", "C"),
        ("atc", "C10", "ATC:C10"),
        ("atc", "C10A", "C10A"),
        ("atc", "C10AA05", "C10AA05"),
        ("icd9cm", "250.00", "icd9cm:250.00"),
        ("phecode", "250.2", "phecode:250.2"),
        ("icd10pcs", "0", "icd10pcs:0"),
        ("ndc", "00093101601", "ndc:00093101601"),
    ],
)
def test_tokens(system: str, code: str, token: str) -> None:
    assert code_system(system).token(code) == token
    assert code_system(system).code_of(token) == code


@pytest.mark.parametrize(
    ("system", "token"),
    [("atc", "C10"), ("icd10cm", "ATC:C10"), ("icd9cm", "250.00"), ("icd9cm", "phecode:250.2"), ("loinc", "")],
)
def test_a_token_of_another_system_is_refused(system: str, token: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"token {token!r} names no code of {code_system(system).title}")):
        code_system(system).code_of(token)


# Shapes of all systems at once: what looks like a code of one may be one of another.
TEXTS = st.one_of(
    st.from_regex(r"[A-Z][0-9]{2}(\.?[0-9A-Z]{1,4})?", fullmatch=True),
    st.from_regex(r"[A-V][0-9]{2}[A-Z]{0,2}([0-9]{2})?", fullmatch=True),
    st.from_regex(r"[0-9]{3,5}(\.[0-9]{1,2})?", fullmatch=True),
    st.from_regex(r"[VE][0-9]{2,3}(\.[0-9]{1,2})?", fullmatch=True),
    st.from_regex(r"[0-9A-HX][0-9A-HJ-NP-Z]{0,6}", fullmatch=True),
    st.from_regex(r"(EM|CA|CM|ID|CV)_[0-9]{3}(\.[0-9]{1,3})?", fullmatch=True),
    st.from_regex(r"[0-9]{1,6}-[0-9]", fullmatch=True),
    st.from_regex(r"[0-9]{4,5}-[0-9]{3,4}-[0-9]{1,2}", fullmatch=True),
    st.from_regex(r"[0-9]{6,18}", fullmatch=True),
    st.text(max_size=10),
)


@given(TEXTS, st.sampled_from(BUILT_IN))
def test_normalizing_twice_changes_nothing(text: str, name: str) -> None:
    system = code_system(name)
    code = system.normalize(text)
    assert code is None or system.normalize(code) == code
    assert system.normalize(f"  {text.lower()} ") == system.normalize(text.lower())


@given(TEXTS, st.sampled_from(BUILT_IN), st.sampled_from([":", "/", "//", "|", " : ", "// "]), st.data())
def test_a_prefix_of_the_system_does_not_matter_and_is_taken_off_once(
    text: str, name: str, separator: str, data: st.DataObject
) -> None:
    system = code_system(name)
    code = system.normalize(text)
    if code is not None:
        prefix = data.draw(st.sampled_from(sorted(system.names))) + separator
        assert system.normalize(prefix + code) == system.normalize(prefix.upper() + code) == code
        assert system.normalize(prefix + prefix + code) is None


@given(TEXTS, st.sampled_from(BUILT_IN), st.sampled_from(BUILT_IN))
def test_a_prefix_of_another_system_makes_it_no_code(text: str, name: str, other: str) -> None:
    if name != other:
        assert code_system(name).normalize(f"{other}:{text}") is None


@given(TEXTS)
def test_ancestors_are_shorter_codes_and_chapters_do_not_change_along_them(text: str) -> None:
    for system in code_systems():
        code = system.normalize(text)
        if code is None:
            continue
        above = system.ancestors(code)
        lengths = [len(ancestor) for ancestor in (code, *above)]
        assert lengths == sorted(set(lengths), reverse=True)
        assert all(system.normalize(ancestor) == ancestor for ancestor in above)
        assert all(system.is_descendant(code, ancestor) for ancestor in above)
        assert above == ([] if system.parent(code) is None else [above[0], *system.ancestors(above[0])])
        assert {system.chapter(ancestor) for ancestor in above} <= {system.chapter(code)}
        assert not above or system.has_hierarchy


@given(TEXTS, TEXTS)
def test_tokens_lead_back_to_their_code_and_never_collide(one: str, other: str) -> None:
    found: dict[str, codes.CodeKey] = {}
    for text in (one, other):
        for system in code_systems():
            code = system.normalize(text)
            if code is not None:
                token = system.token(code)
                assert system.code_of(token) == code
                assert found.setdefault(token, (system.name, code)) == (system.name, code)
                assert token not in ("PAD", "UNK", "CLS", "SEP", "MASK", "NA")


def test_without_last_digit() -> None:
    assert [without_last_digit(code) for code in ("250.01", "250.0", "250")] == ["250.0", "250", None]


def test_importing_the_registry_is_quick() -> None:
    """It imports itself and the standard library, and reads no list of codes: 20 ms, most of it the interpreter's."""
    program = (
        "import exmed_bert, sys; opened, known = [], set(sys.modules);"
        "sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event == 'open' else None);"
        "import exmed_bert.codes;"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - known});"
        "print(*[path for path in opened if not path.endswith(('.py', '.pyc')) and '.pyc.' not in path])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    imported, opened = done.stdout.splitlines()
    assert set(imported.split()) <= {"exmed_bert", *sys.stdlib_module_names} and not opened
    assert "exmed_bert" in imported
