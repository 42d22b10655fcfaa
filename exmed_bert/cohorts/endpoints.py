"""Endpoints: a code, all codes that begin alike (``E11*``), or several of these."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from exmed_bert.codes import CodeKey, CodeSystem, code_system, code_systems
from exmed_bert.console import OptionError
from exmed_bert.data.vocabulary import CodeVocabulary

_PREFIX = re.compile(r"[0-9A-Z][0-9A-Z_-]*")


@dataclass(frozen=True)
class _Term:
    """One code or prefix as it was given.

    Attributes:
        text: as given.
        spellings: by code system the code in its usual spelling, or what codes begin with, in capitals without dots.
        is_prefix: whether all codes that begin so belong to it.
    """

    text: str
    spellings: Mapping[str, str]
    is_prefix: bool

    def matches(self, code: str, system: str) -> bool:
        """Return whether a code in its usual spelling belongs to the term."""
        spelling = self.spellings.get(system)
        if spelling is None or not self.is_prefix:
            return code == spelling
        return _without_dots(code).startswith(spelling)

    def within(self, system: CodeSystem) -> "_Term":
        """Return the term for one of its code systems."""
        return replace(self, text=f"{_mark(system)}:{self.text}", spellings={system.name: self.spellings[system.name]})


class Endpoint:
    """A set of codes and prefixes of codes, found among whatever codes there are.

    Attributes:
        text: as given.
        found: code system and code of all that belonged to the endpoint so far.
    """

    def __init__(self, text: str, named: Mapping[str, Sequence[str]] = {}) -> None:  # is only read
        """Read an endpoint.

        Args:
            text: codes and prefixes, separated by commas, or the name of a set. ``ICD:C10`` and ``ATC:C10`` name the
                code system, by any of its names; without one a code may be of any system.
            named: the sets by name.

        Raises:
            OptionError: something in it is no code, no prefix and no name, or names no code system.
        """
        terms = named[text] if text in named else [part for part in text.split(",") if part.strip()]
        if not terms:
            raise OptionError(f"--endpoint: {text!r} names no code, expected for instance I50.9, E11* or E11.9,E11.65")
        self.text = text
        self._terms = [_term(str(term).strip(), named) for term in terms]
        self.found: set[CodeKey] = set()
        self._known: dict[CodeKey, bool] = {}

    @property
    def texts(self) -> list[str]:
        """The codes and prefixes, those of a named set spelled out."""
        return [term.text for term in self._terms]

    def among(self, table: Iterable[CodeKey]) -> np.ndarray:
        """Return which of the codes, as they are spelled in a file, belong to the endpoint, (table,) bool."""
        return np.array([self._has(key) for key in table], dtype=bool)

    def target_codes(self, vocabulary: CodeVocabulary) -> list[int]:
        """Return the ids of the endpoint's codes in a vocabulary."""
        return [token for token, key in enumerate(vocabulary.keys) if key is not None and self._has(key)]

    def resolve(self) -> None:
        """Tie each code and prefix that was given without a code system to the one that it was found in.

        Raises:
            OptionError: it was found in several.
        """
        for i, term in enumerate(self._terms):
            matching = {system for system, code in self.found if term.matches(code, system)}
            systems = [system for system in code_systems() if system.name in matching]
            if len(systems) > 1:
                raise OptionError(
                    f"--endpoint: {term.text!r} is a code of {' and of '.join(system.title for system in systems)} "
                    f"here, expected {' or '.join(f'{_mark(system)}:{term.text}' for system in systems)}"
                )
            if systems and len(term.spellings) > 1:
                self._terms[i] = term.within(systems[0])
        self._known.clear()

    def _has(self, key: CodeKey) -> bool:
        if key not in self._known:
            system, text = key
            code = code_system(system).normalize(text)
            self._known[key] = code is not None and any(term.matches(code, system) for term in self._terms)
            if code is not None and self._known[key]:
                self.found.add((system, code))
        return self._known[key]


def _term(text: str, named: Mapping[str, Sequence[str]]) -> _Term:
    mark, colon, rest = text.rpartition(":")
    try:
        systems = (code_system(mark.strip()),) if colon else code_systems()
    except ValueError as error:
        raise OptionError(f"--endpoint: {text!r}: {error}") from None
    is_prefix = rest.endswith("*")
    if is_prefix:  # may end anywhere in a code
        prefix = _without_dots(rest.removesuffix("*").strip())
        spellings = {system.name: prefix for system in systems if _PREFIX.fullmatch(prefix)}
    else:
        codes = {system.name: system.normalize(rest) for system in systems}
        spellings = {system: code for system, code in codes.items() if code is not None}
    if not spellings:
        sets = f", or a set of config.yaml: {', '.join(sorted(named))}" if named else ""
        raise OptionError(f"--endpoint: {text!r} is no code, expected for instance I50.9 or E11*{sets}")
    return _Term(text, spellings, is_prefix)


def _mark(system: CodeSystem) -> str:
    """Return what names a code system before a code, such as ICD."""
    return system.entity.upper()


def _without_dots(code: str) -> str:
    return code.upper().replace(".", "")
