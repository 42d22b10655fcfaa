"""The code systems beside ICD-10-CM and ATC: real codes, what is none, and their trees."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exmed_bert.codes import ancestors, chapter, code_system, code_systems, normalize, parent


@pytest.mark.parametrize(
    ("system", "text", "code"),
    [
        # ICD-9-CM: diabetes, hypertension, septicemia, anticoagulant use, fall, stairs, activity
        ("icd9cm", "25000", "250.00"),
        ("icd9cm", "250.00", "250.00"),
        ("icd9cm", "4019", "401.9"),
        ("icd9cm", "0389", "038.9"),
        ("icd9cm", "389", "389"),  # hearing loss: nothing is padded
        ("icd9cm", "v5861", "V58.61"),
        ("icd9cm", "V58", "V58"),
        ("icd9cm", "E9501", "E950.1"),
        ("icd9cm", "e888.9", "E888.9"),
        ("icd9cm", "E8809", "E880.9"),
        ("icd9cm", "E030", "E030"),
        ("icd9cm", "ICD9CM//25000", "250.00"),
        ("icd9cm", "ICD-9-CM|V5861", "V58.61"),
        ("icd9cm", "ICD9:401.9", "401.9"),
        ("icd9cm", "E11.9", None),  # ICD-10-CM
        ("icd9cm", "E119", None),
        ("icd9cm", "I10", None),
        ("icd9cm", "000", None),
        ("icd9cm", "V00", None),
        ("icd9cm", "V92", None),
        ("icd9cm", "E950.11", None),
        ("icd9cm", "38.9", None),  # lost its zero, or a procedure of volume 3
        ("icd9cm", "250.", None),
        ("icd9cm", "250.000", None),
        # ICD-10-PCS: appendectomy, bypass, its first three characters
        ("icd10pcs", "0DTJ4ZZ", "0DTJ4ZZ"),
        ("icd10pcs", "02100z9", "02100Z9"),
        ("icd10pcs", "ICD10PCS//5A1955Z", "5A1955Z"),
        ("icd10pcs", "XW033E5", "XW033E5"),
        ("icd10pcs", "0DT", "0DT"),
        ("icd10pcs", "0DTJ4ZO", None),
        ("icd10pcs", "0DTI4ZZ", None),
        ("icd10pcs", "0DTJ4ZZ0", None),
        ("icd10pcs", "EDTJ4ZZ", None),
        ("icd10pcs", "0DTJ.4ZZ", None),
        # Phecodes: type 2 diabetes, C. difficile, other tests; type 2 diabetes, bicornate uterus
        ("phecode", "250.2", "250.2"),
        ("phecode", "008.52", "008.52"),
        ("phecode", "008", "008"),
        ("phecode", "8.0", "008"),
        ("phecode", "8.52", "008.52"),
        ("phecode", "250.20", "250.2"),
        ("phecode", "1010", "1010"),
        ("phecode", "EM_202.2", "EM_202.2"),
        ("phecode", "em_202", "EM_202"),
        ("phecode", "CM_760.133", "CM_760.133"),
        ("phecode", "ID_097.1", "ID_097.1"),
        ("phecode", "Phecode:250.2", "250.2"),
        ("phecode", "XX_202.2", None),
        ("phecode", "EM202.2", None),
        ("phecode", "EM_20.2", None),
        ("phecode", "2502.1", None),
        ("phecode", "250.234", None),
        ("phecode", "000", None),
        # RxNorm: aspirin, atorvastatin 20 mg
        ("rxnorm", "1191", "1191"),
        ("rxnorm", "RXCUI:617310", "617310"),
        ("rxnorm", " 83367 ", "83367"),
        ("rxnorm", "0", None),
        ("rxnorm", "01191", None),
        ("rxnorm", "123456789", None),
        ("rxnorm", "aspirin", None),
        # NDC
        ("ndc", "0093-1016-01", "00093101601"),  # 4-4-2
        ("ndc", "50090-347-01", "50090034701"),  # 5-3-2
        ("ndc", "60505-2605-8", "60505260508"),  # 5-4-1
        ("ndc", "00093-1016-01", "00093101601"),  # 5-4-2
        ("ndc", "00093101601", "00093101601"),
        ("ndc", "0093101601", "0093101601"),  # ten digits, where a zero is missing is not known
        ("ndc", "NDC//00093101601", "00093101601"),
        ("ndc", "0", None),
        ("ndc", "00000000000", None),
        ("ndc", "0000-0000-00", None),
        ("ndc", "0093-101-01", None),
        ("ndc", "0093-1016", None),
        ("ndc", "0093-1016-1", None),
        ("ndc", "009310160", None),
        ("ndc", "000931016011", None),
        # SNOMED CT: diabetes, type 2 diabetes, hypertension, chest pain, a concept of the US edition
        ("snomedct", "73211009", "73211009"),
        ("snomedct", "44054006", "44054006"),
        ("snomedct", "38341003", "38341003"),
        ("snomedct", "http://snomed.info/sct|29857009", "29857009"),
        ("snomedct", "840539006", "840539006"),
        ("snomedct", "404684003", "404684003"),
        ("snomedct", "900000000000207008", "900000000000207008"),
        ("snomedct", "73211008", None),
        ("snomedct", "73210109", None),  # two digits interchanged
        ("snomedct", "5", None),
        ("snomedct", "073211009", None),
        ("snomedct", "9000000000002070081", None),
        # LOINC: hemoglobin, glucose, hemoglobin A1c, creatinine, blood pressure, body weight, SARS-CoV-2
        ("loinc", "718-7", "718-7"),
        ("loinc", "2345-7", "2345-7"),
        ("loinc", "4548-4", "4548-4"),
        ("loinc", "2160-0", "2160-0"),
        ("loinc", "85354-9", "85354-9"),
        ("loinc", "29463-7", "29463-7"),
        ("loinc", "94500-6", "94500-6"),
        ("loinc", "http://loinc.org|718-7", "718-7"),
        ("loinc", "718-8", None),
        ("loinc", "7187", None),
        ("loinc", "LP14635-4", None),  # a part, not a test
        # CPT: office visit, anesthesia, blood pressure (II), a trial's (III), a laboratory's
        ("cpt", "99213", "99213"),
        ("cpt", "00100", "00100"),
        ("cpt", "3074f", "3074F"),
        ("cpt", "0042T", "0042T"),
        ("cpt", "0240U", "0240U"),
        ("cpt", "CPT4//44950", "44950"),
        ("cpt", "J1885", None),
        ("cpt", "9921", None),
        ("cpt", "0042X", None),
        # HCPCS Level II: ketorolac, syringe, wheelchair, a trial's visit
        ("hcpcs", "J1885", "J1885"),
        ("hcpcs", "a4206", "A4206"),
        ("hcpcs", "HCPCS:G0438", "G0438"),
        ("hcpcs", "U0003", "U0003"),
        ("hcpcs", "99213", None),
        ("hcpcs", "J188", None),
        ("hcpcs", "W1885", None),
        ("hcpcs", "I1885", None),
    ],
)
def test_normalize(system: str, text: str, code: str | None) -> None:
    assert normalize(text, system) == code


@pytest.mark.parametrize(
    ("system", "code", "above"),
    [
        ("icd9cm", "250.00", ["250.0", "250"]),
        ("icd9cm", "401.9", ["401"]),
        ("icd9cm", "038", []),
        ("icd9cm", "V58.61", ["V58.6", "V58"]),
        ("icd9cm", "E950.1", ["E950"]),
        ("icd9cm", "E950", []),
        ("icd10pcs", "0DTJ4ZZ", ["0DTJ4Z", "0DTJ4", "0DTJ", "0DT", "0D", "0"]),
        ("icd10pcs", "0", []),
        ("phecode", "250.21", ["250.2", "250"]),
        ("phecode", "008.52", ["008.5", "008"]),
        ("phecode", "1010", []),
        ("phecode", "EM_202.21", ["EM_202.2", "EM_202"]),
        ("phecode", "CM_760.133", ["CM_760.13", "CM_760.1", "CM_760"]),
        ("snomedct", "73211009", []),
        ("loinc", "718-7", []),
    ],
)
def test_ancestors(system: str, code: str, above: list[str]) -> None:
    assert ancestors(code, system) == above
    assert parent(code, system) == (above[0] if above else None)


@pytest.mark.parametrize(
    ("system", "code", "name"),
    [
        ("icd9cm", "001.0", "1 Infections"),
        ("icd9cm", "139.8", "1 Infections"),
        ("icd9cm", "140", "2 Neoplasms"),
        ("icd9cm", "250.00", "3 Endocrine and metabolic"),
        ("icd9cm", "289.9", "4 Blood"),
        ("icd9cm", "296.20", "5 Mental"),
        ("icd9cm", "389.9", "6 Nervous system and sense organs"),
        ("icd9cm", "401.9", "7 Circulatory"),
        ("icd9cm", "493.90", "8 Respiratory"),
        ("icd9cm", "530.81", "9 Digestive"),
        ("icd9cm", "584.9", "10 Genitourinary"),
        ("icd9cm", "679", "11 Pregnancy and childbirth"),
        ("icd9cm", "680", "12 Skin"),
        ("icd9cm", "715.90", "13 Musculoskeletal"),
        ("icd9cm", "745.5", "14 Congenital"),
        ("icd9cm", "779.9", "15 Perinatal"),
        ("icd9cm", "780", "16 Symptoms and ill-defined"),
        ("icd9cm", "999.9", "17 Injury and poisoning"),
        ("icd9cm", "E000", "E External causes"),
        ("icd9cm", "E999", "E External causes"),
        ("icd9cm", "V01", "V Health status and contacts"),
        ("icd9cm", "V91", "V Health status and contacts"),
        ("icd10pcs", "0DTJ4ZZ", "0 Medical and surgical"),
        ("icd10pcs", "10E0XZZ", "1 Obstetrics"),
        ("icd10pcs", "B2111ZZ", "B Imaging"),
        ("icd10pcs", "XW033E5", "X New technology"),
        ("phecode", "008.5", "Infections"),
        ("phecode", "250.2", "Endocrine and metabolic"),
        ("phecode", "EM_202.2", "Endocrine and metabolic"),
        ("phecode", "401.1", "Circulatory"),
        ("phecode", "CV_401.1", "Circulatory"),
        ("phecode", "745", "Musculoskeletal"),
        ("phecode", "747", "Congenital"),
        ("phecode", "800.1", "Injury and poisoning"),
        ("phecode", "1010", "Other"),
        ("phecode", "GE_981.1", "Genetic"),
        ("loinc", "718-7", "LOINC"),
        ("cpt", "99213", "CPT"),
    ],
)
def test_chapters(system: str, code: str, name: str) -> None:
    assert chapter(code, system) == name


def test_which_systems_are_trees() -> None:
    trees = {system.name for system in code_systems() if system.has_hierarchy}
    assert trees == {"atc", "icd10cm", "icd9cm", "icd10pcs", "phecode"}


def test_what_the_codes_record() -> None:
    assert {system.name: system.events for system in code_systems()} == {
        "icd10cm": "diagnoses",
        "icd9cm": "diagnoses",
        "phecode": "diagnoses",
        "atc": "drugs",
        "rxnorm": "drugs",
        "ndc": "drugs",
        "icd10pcs": "procedures",
        "cpt": "procedures",
        "hcpcs": "procedures",
        "loinc": "measurements",
        "snomedct": "findings",
        "visit": "visits",
    }


@given(st.from_regex(r"[1-9][0-9]{2,14}[01]0", fullmatch=True))
def test_one_check_digit_in_ten_makes_a_snomed_concept(digits: str) -> None:
    valid = [digit for digit in "0123456789" if normalize(digits + digit, "snomedct")]
    assert len(valid) == 1


@given(st.from_regex(r"[1-9][0-9]{3,14}[01]0", fullmatch=True), st.data())
def test_a_snomed_concept_with_two_neighbors_interchanged_is_none(digits: str, data: st.DataObject) -> None:
    code = next(digits + digit for digit in "0123456789" if normalize(digits + digit, "snomedct"))
    i = data.draw(st.integers(0, len(code) - 2))
    wrong = code[:i] + code[i + 1] + code[i] + code[i + 2 :]
    assert wrong == code or normalize(wrong, "snomedct") is None


@given(st.from_regex(r"[1-9][0-9]{0,6}", fullmatch=True), st.data())
def test_one_check_digit_in_ten_makes_a_loinc_code_and_a_wrong_digit_none(digits: str, data: st.DataObject) -> None:
    valid = [digit for digit in "0123456789" if normalize(f"{digits}-{digit}", "loinc")]
    assert len(valid) == 1
    i = data.draw(st.integers(0, len(digits) - 1))
    digit = data.draw(st.sampled_from("123456789"))
    wrong = digits[:i] + digit + digits[i + 1 :]
    assert wrong == digits or normalize(f"{wrong}-{valid[0]}", "loinc") is None


@given(st.from_regex(r"[0-9]{5}", fullmatch=True), st.from_regex(r"[0-9]{4}", fullmatch=True), st.integers(0, 99))
def test_an_ndc_is_the_same_with_and_without_its_leading_zeros(labeler: str, product: str, package: int) -> None:
    full = f"{labeler}{product}{package:02}"
    expected = full if full.strip("0") else None
    assert normalize(f"{labeler}-{product}-{package:02}", "ndc") == expected
    if labeler[0] == "0":
        assert normalize(f"{labeler[1:]}-{product}-{package:02}", "ndc") == expected
    if product[0] == "0":
        assert normalize(f"{labeler}-{product[1:]}-{package:02}", "ndc") == expected
    if package < 10:
        assert normalize(f"{labeler}-{product}-{package}", "ndc") == expected


def test_flat_systems_describe_nothing() -> None:
    assert code_system("loinc").description("718-7") is None
