"""Names of codes: the official ones of ICD-10-CM, and those of the reference tables' drugs."""

import functools

from exmed_bert.codes import ATC, ICD10CM, CodeKey, ancestors, code_system, normalize
from exmed_bert.codes.icd10cm_list import official_list
from exmed_bert.reference.tables import load


@functools.cache
def drug_names() -> dict[CodeKey, str]:
    """Return the name of each drug of the reference tables."""
    drugs = load().drugs
    return {(ATC, code): name for code, name in zip(drugs.codes, drugs.names, strict=True)}


@functools.cache
def plain_names() -> dict[CodeKey, str]:
    """Return our names of the reference tables' codes; the official list, which takes a second to read, is not read."""
    diagnoses = load().diagnoses
    return drug_names() | {(ICD10CM, c): name for c, name in zip(diagnoses.codes, diagnoses.names, strict=True)}


def name_of(system: str, code: str) -> str:
    """Return the official name of a code or a drug's; of one that no list has, its nearest ancestor's, else "".

    >>> name_of("icd10cm", "I10"), name_of("atc", "C10AA05"), name_of("snomedct", "29857009")
    ('Essential (primary) hypertension', 'atorvastatin', '')
    """
    found, drugs = code_system(system), drug_names()
    for one in (code, *found.ancestors(code)):
        if name := found.description(one) or drugs.get((system, one)):
            return name
    return ""


def code_names() -> dict[CodeKey, str]:
    """Return the name of each ICD-10-CM code, of each drug of the reference tables and of the ATC groups above it.

    Raises:
        InputError: the package with ICD-10-CM's list is not installed.
    """
    official = official_list()
    names = {
        (ICD10CM, code): official.get_description(code)
        for code in official.get_all_codes(True)
        if normalize(code, ICD10CM) == code  # and no chapter or block
    }
    for (_, code), name in drug_names().items():
        names[ATC, code] = name
        for above in ancestors(code, ATC):
            names.setdefault((ATC, above), f"ATC group {above}")
    return names


def indications() -> list[tuple[CodeKey, CodeKey, float]]:
    """Return drugs, diagnoses they are given for, and the probability of the drug given the diagnosis."""
    drugs, diagnoses = load().drugs, load().diagnoses
    links = zip(drugs.link_drug, drugs.link_diagnosis, drugs.link_probability.tolist(), strict=True)
    return [((ATC, drugs.codes[drug]), (ICD10CM, diagnoses.codes[of]), probability) for drug, of, probability in links]
