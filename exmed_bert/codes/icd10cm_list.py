"""The codes of ICD-10-CM's official list, read in milliseconds from the package that holds it, which takes seconds."""

import functools
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from types import ModuleType

from exmed_bert.console import InputError


def official_list() -> ModuleType:
    """Return the package that holds the official code list; loading it takes two seconds.

    Raises:
        InputError: it is not installed.
    """
    try:
        import simple_icd_10_cm
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed; install it with: pip install simple-icd-10-cm") from None
    return simple_icd_10_cm


@functools.cache
def listed() -> frozenset[str]:
    """Return all codes without their dots, categories and subcategories included.

    Raises:
        InputError: the package that holds the list is not installed.
    """
    return frozenset(_in_order())


@functools.cache
def billable() -> frozenset[str]:
    """Return the codes, without their dots, that no code stands below: those that a diagnosis is to be coded with.

    Raises:
        InputError: the package that holds the list is not installed.
    """
    return frozenset(code for code, following in pairwise([*_in_order(), ""]) if not following.startswith(code))


def _in_order() -> list[str]:
    """Return the codes of the list, each before those below it."""
    return [entry for entry in _entries() if "-" not in entry and not entry.isdigit()]  # no block and no chapter


def _entries() -> list[str]:
    spec = find_spec("simple_icd_10_cm")
    folders = spec.submodule_search_locations if spec else None
    files = [path for folder in folders or () for path in Path(folder, "data").glob("code-list-*.txt")]
    if len(files) == 1:
        return files[0].read_text(encoding="utf-8").split()
    return list(official_list().get_all_codes(False))  # of another layout
