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
def is_listed(code: str) -> bool:
    """Tell whether a code without its dot is in the list, be it a diagnosis to code with or a group of them.

    Raises:
        InputError: the package that holds the list is not installed.
    """
    return f"\n{code}\n" in _text()  # much less than to split it, for the few codes that are looked up


@functools.cache
def billable() -> frozenset[str]:
    """Return the codes, without their dots, that no code stands below: those that a diagnosis is to be coded with.

    Raises:
        InputError: the package that holds the list is not installed.
    """
    entries = _text().split()
    leaves = (entry for entry, following in pairwise([*entries, ""]) if not following.startswith(entry))
    return frozenset(entry for entry in leaves if "-" not in entry and not entry.isdigit())  # no block and no chapter


@functools.cache
def _text() -> str:
    """Return the list, an entry a line, each before those below it."""
    spec = find_spec("simple_icd_10_cm")
    folders = spec.submodule_search_locations if spec else None
    files = [path for folder in folders or () for path in Path(folder, "data").glob("code-list-*.txt")]
    if len(files) == 1:
        return f"\n{files[0].read_text(encoding='utf-8')}\n"
    return "\n".join(["", *official_list().get_all_codes(False), ""])  # a release of another layout
