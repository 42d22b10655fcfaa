"""Code systems without a hierarchy in their spelling: RxNorm, NDC, SNOMED CT, LOINC, CPT, HCPCS Level II."""

import re

from exmed_bert.codes.system import CodeSystem

_RXNORM = re.compile(r"[1-9][0-9]{0,7}|OMOP[1-9][0-9]{0,7}")  # the latter are RxNorm Extension's, by OHDSI
_NDC_DIGITS = re.compile(r"[0-9]{10,11}")
_NDC_SEGMENTS = re.compile(r"([0-9]{4,5})-([0-9]{3,4})-([0-9]{1,2})")
_NDC_SHORTEST = len("0093-1016-01")
# Of the last three digits the first two tell what an identifier is of, 00 and 10 a concept; the third is for checking.
_SNOMED_CONCEPT = re.compile(r"[1-9][0-9]{2,14}[01]0[0-9]")
_LOINC = re.compile(r"([1-9][0-9]{0,6})-([0-9])")
_CPT = re.compile(r"[0-9]{4}[0-9AFMTU]")  # categories I, II (F) and III (T), vaccination (A), laboratory (M, U)
_HCPCS = re.compile(r"[A-EGHJ-MP-V][0-9]{4}")

# Verhoeff's check digit (J. Verhoeff, Error Detecting Decimal Codes, 1969): products in the dihedral group of ten
# elements, of the digits from the right, each permuted as often as its position says.
_PRODUCT = [[(i + j) % 5 + 5 * (j > 4) if i < 5 else (i - j) % 5 + 5 * (j < 5) for j in range(10)] for i in range(10)]
_PERMUTATION = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)


def _permuted() -> list[dict[str, int]]:
    """Return digit to permuted digit, for each of the eight positions after which the permutations repeat."""
    rows = [list(range(10))]
    for _ in range(7):
        rows.append([_PERMUTATION[digit] for digit in rows[-1]])
    return [{str(digit): value for digit, value in enumerate(row)} for row in rows]


_PERMUTED = _permuted()


def _rxnorm(text: str) -> str | None:
    text = text.upper()
    return text if _RXNORM.fullmatch(text) else None


def _ndc(text: str) -> str | None:
    """Return labeler, product and package as 5 + 4 + 2 digits, the spelling of claims.

    Ten digits without hyphens may lack their zero in any of the three, and stay as they are.
    """
    segments = _NDC_SEGMENTS.fullmatch(text)
    if segments and len(text) >= _NDC_SHORTEST:
        text = segments[1].zfill(5) + segments[2].zfill(4) + segments[3].zfill(2)
    return text if _NDC_DIGITS.fullmatch(text) and text.strip("0") else None


def ndc_forms(code: str) -> tuple[str, ...]:
    """Return what an NDC in its usual spelling can be with eleven digits.

    >>> ndc_forms("00093101601"), ndc_forms("0093101601")
    (('00093101601',), ('00093101601', '00931001601', '00931016001'))
    """
    if len(code) != 10:
        return (code,)
    forms = (f"0{code}", f"{code[:5]}0{code[5:]}", f"{code[:9]}0{code[9]}")
    return tuple(dict.fromkeys(forms))


def _snomedct(text: str) -> str | None:
    if not _SNOMED_CONCEPT.fullmatch(text):
        return None
    check = 0
    for position, digit in enumerate(reversed(text)):
        check = _PRODUCT[check][_PERMUTED[position % 8][digit]]
    return text if check == 0 else None


def _loinc(text: str) -> str | None:
    parts = _LOINC.fullmatch(text)
    if not parts:
        return None
    digits = [int(digit) for digit in reversed(parts[1])]
    total = sum(digits[1::2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[::2])
    return text if (total + int(parts[2])) % 10 == 0 else None


def _cpt(text: str) -> str | None:
    text = text.upper()
    return text if _CPT.fullmatch(text) else None


def _hcpcs(text: str) -> str | None:
    text = text.upper()
    return text if _HCPCS.fullmatch(text) else None


RXNORM = CodeSystem(
    name="rxnorm",
    title="RxNorm",
    events="drugs",
    aliases=("RXCUI",),
    url="http://www.nlm.nih.gov/research/umls/rxnorm",
    vocabulary="RxNorm",
    spelling=_rxnorm,
)
NDC = CodeSystem(
    name="ndc",
    title="NDC",
    events="drugs",
    url="http://hl7.org/fhir/sid/ndc",
    spelling=_ndc,
)
SNOMEDCT = CodeSystem(
    name="snomedct",
    title="SNOMED CT",
    events="findings",
    aliases=("SNOMED", "SNOMED-CT", "SNOMEDCT_US"),
    url="http://snomed.info/sct",
    vocabulary="SNOMED",
    spelling=_snomedct,
)
LOINC = CodeSystem(
    name="loinc",
    title="LOINC",
    events="measurements",
    aliases=("LNC",),
    url="http://loinc.org",
    spelling=_loinc,
    measured=True,
)
CPT = CodeSystem(
    name="cpt",
    title="CPT",
    events="procedures",
    aliases=("CPT4", "CPT-4"),
    url="http://www.ama-assn.org/go/cpt",
    vocabulary="CPT4",
    spelling=_cpt,
)
HCPCS = CodeSystem(
    name="hcpcs",
    title="HCPCS Level II",
    events="procedures",
    url="http://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets",
    spelling=_hcpcs,
)
