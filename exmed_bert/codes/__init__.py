"""Code systems: a registry of how medical codes are spelled and which stand above which. No files, no torch.

A code is always a string in its system's usual spelling: ICD-10-CM with the dot (``E11.9``), ATC without
(``C10AA05``). Codes of different systems may look alike, so a code is known by its `CodeKey`, which names its system.

A system of your own takes one module with a `CodeSystem` and one line, ``register(MY_SYSTEM)``.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from exmed_bert.codes import atc, flat, icd9cm, icd10cm, icd10pcs, phecode, visit
from exmed_bert.codes.system import CodeSystem

__all__ = [
    "ATC",
    "ICD10CM",
    "CodeKey",
    "CodeSystem",
    "ancestors",
    "chapter",
    "code_system",
    "code_systems",
    "is_descendant",
    "normalise",
    "normalize",
    "parent",
    "register",
    "registered",
]

CodeKey = tuple[str, str]  # name of the code system, code
ICD10CM = "icd10cm"
ATC = "atc"

_RESERVED = "default"  # the entity of special tokens
_systems: dict[str, CodeSystem] = {}  # name to system, in the order of registration
_by_name: dict[str, CodeSystem] = {}  # name, entity, title and aliases, case-folded


def register(system: CodeSystem) -> None:
    """Add a code system.

    Raises:
        ValueError: another system has its name, entity, title or one of its aliases.

    >>> register(CodeSystem(name="local", title="Local codes", events="findings", spelling=str, aliases=("ATC",)))
    Traceback (most recent call last):
    ValueError: code system 'local': the name 'atc' is taken by ATC
    """
    for name in sorted(system.names):
        if name in _by_name or name == _RESERVED:
            owner = _by_name[name].title if name in _by_name else "special tokens"
            raise ValueError(f"code system {system.name!r}: the name {name!r} is taken by {owner}")
    _systems[system.name] = system
    _by_name.update(dict.fromkeys(system.names, system))


@contextmanager
def registered(system: CodeSystem) -> Iterator[CodeSystem]:
    """Register a code system for the time of a ``with`` block, as tests do."""
    register(system)
    try:
        yield system
    finally:
        del _systems[system.name]
        for name in system.names:
            del _by_name[name]


def code_system(name: str) -> CodeSystem:
    """Return the code system of a name, an entity, a title or an alias, in any letter case.

    Raises:
        ValueError: no system is called so.

    >>> code_system("icd10cm").title, code_system("icd").title, code_system("ICD-10").title
    ('ICD-10-CM', 'ICD-10-CM', 'ICD-10-CM')
    >>> code_system("icd11")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: unknown code system 'icd11', expected one of atc, icd10cm, cpt, hcpcs, icd10pcs, ...
    """
    system = _systems.get(name) or _by_name.get(name.casefold())
    if system is None:
        raise ValueError(f"unknown code system {name!r}, expected one of {', '.join(_systems)}")
    return system


def code_systems() -> tuple[CodeSystem, ...]:
    """Return all systems in a stable order: ATC, ICD-10-CM, the other built-in ones by name, then registered ones.

    >>> [system.name for system in code_systems()][:4]
    ['atc', 'icd10cm', 'cpt', 'hcpcs']
    """
    return tuple(_systems.values())


def normalize(code: str, system: str) -> str | None:
    """Return a code in its system's usual spelling, or None when it is no code of that system.

    Letter case, surrounding blanks, a missing dot and a prefix that names the system do not matter.

    >>> normalize("e119", "icd10cm"), normalize("ICD10CM//E11.9", "icd10cm"), normalize(" c10aa05", "atc")
    ('E11.9', 'E11.9', 'C10AA05')
    >>> normalize("25000", "icd9cm"), normalize("ICD-9-CM|V5861", "icd9cm"), normalize("0093-1016-01", "ndc")
    ('250.00', 'V58.61', '00093101601')
    >>> normalize("250.00", "icd10cm") is None and normalize("aspirin", "atc") is None
    True
    """
    return code_system(system).normalize(code)


def parent(code: str, system: str) -> str | None:
    """Return the code one level up, or None at the top (a category, an anatomical group) and in a flat system.

    >>> parent("E11.95", "icd10cm"), parent("E11.9", "icd10cm"), parent("E11", "icd10cm"), parent("C10AA05", "atc")
    ('E11.9', 'E11', None, 'C10AA')
    >>> parent("W00.0XXA", "icd10cm"), parent("T36.0X1", "icd10cm"), parent("0DTJ4ZZ", "icd10pcs")
    ('W00.0', 'T36.0X', '0DTJ4Z')
    >>> parent("29857009", "snomedct") is None
    True
    """
    return code_system(system).parent(code)


def ancestors(code: str, system: str) -> list[str]:
    """Return the codes above a code, nearest first.

    >>> ancestors("M25.561", "icd10cm"), ancestors("C10AA05", "atc")
    (['M25.56', 'M25.5', 'M25'], ['C10AA', 'C10A', 'C10', 'C'])
    >>> ancestors("250.00", "icd9cm"), ancestors("EM_202.21", "phecode")
    (['250.0', '250'], ['EM_202.2', 'EM_202'])
    """
    return code_system(system).ancestors(code)


def chapter(code: str, system: str) -> str:
    """Return the coarse group of a code, short and in our own words. Unique within its system only.

    >>> chapter("C50.911", "icd10cm"), chapter("U07.1", "icd10cm"), chapter("C10AA05", "atc")
    ('2 Neoplasms', '22 Special purposes', 'C Cardiovascular system')
    >>> chapter("V58.61", "icd9cm"), chapter("718-7", "loinc")
    ('V Health status and contacts', 'LOINC')
    """
    return code_system(system).chapter(code)


def is_descendant(code: str, ancestor: str, system: str) -> bool:
    """Tell whether `ancestor` stands above `code` in the tree.

    >>> is_descendant("E11.95", "E11", "icd10cm"), is_descendant("E11", "E11", "icd10cm")
    (True, False)
    """
    return code_system(system).is_descendant(code, ancestor)


normalise = normalize

for _system in (
    atc.ATC,
    icd10cm.ICD10CM,
    flat.CPT,
    flat.HCPCS,
    icd10pcs.ICD10PCS,
    icd9cm.ICD9CM,
    flat.LOINC,
    flat.NDC,
    phecode.PHECODE,
    flat.RXNORM,
    flat.SNOMEDCT,
    visit.VISIT,
):
    register(_system)
