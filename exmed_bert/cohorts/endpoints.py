"""Endpoints: a code, all codes that begin alike (``E11*``), or several of these."""

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from exmed_bert import codes
from exmed_bert.codes import CodeKey
from exmed_bert.console import OptionError
from exmed_bert.data.vocabulary import CodeVocabulary

_SYSTEM = re.compile(r"([\w-]+):\s*")


@dataclass(frozen=True)
class _Term:
    """One code or prefix as it was given.

    Attributes:
        text: as given.
        spelling: the code in capitals without its dot.
        prefix: whether longer codes belong to it too.
        systems: the code systems that it may be of.
    """

    text: str
    spelling: str
    prefix: bool
    systems: tuple[str, ...]

    def matches(self, code: str, system: str) -> bool:
        spelling = code.replace(".", "")
        return system in self.systems and (
            spelling.startswith(self.spelling) if self.prefix else spelling == self.spelling
        )


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
                system of a code that is of two.
            named: the sets by name.

        Raises:
            OptionError: something in it is no code, no prefix and no name.
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
        return np.array([self._has(text, system) for system, text in table], dtype=bool)

    def target_codes(self, vocabulary: CodeVocabulary) -> list[int]:
        """Return the ids of the endpoint's codes in a vocabulary."""
        return [i for i, key in enumerate(vocabulary.keys) if key is not None and self._has(key[1], key[0])]

    def resolve(self) -> None:
        """Tie each code and prefix that was given without a code system to the one that it was found in.

        Raises:
            OptionError: it was found in two.
        """
        for i, term in enumerate(self._terms):
            matching = {system for system, code in self.found if term.matches(code, system)}
            systems = [system for system in term.systems if system in matching]
            if len(systems) > 1:
                both = [codes.code_system(system) for system in systems]
                raise OptionError(
                    f"--endpoint: {term.text!r} is a code of {' and of '.join(system.title for system in both)} here, "
                    f"expected {' or '.join(f'{system.entity.upper()}:{term.text}' for system in both)}"
                )
            if systems and len(term.systems) > 1:
                text = f"{codes.code_system(systems[0]).entity.upper()}:{term.text}"
                self._terms[i] = replace(term, text=text, systems=(systems[0],))
        self._known.clear()

    def _has(self, text: str, system: str) -> bool:
        if (system, text) not in self._known:
            code = codes.normalize(text, system)
            has = code is not None and any(term.matches(code, system) for term in self._terms)
            self._known[system, text] = has
            if has:
                self.found.add((system, code))  # type: ignore[arg-type]
        return self._known[system, text]


def _term(text: str, named: Mapping[str, Sequence[str]]) -> _Term:
    systems = tuple(system.name for system in codes.code_systems())
    rest = text
    if marked := _SYSTEM.match(text):
        with suppress(ValueError):  # an unknown system: then it is no code, either
            systems, rest = (codes.code_system(marked[1]).name,), text[marked.end() :]
    spelling = rest.removesuffix("*").strip().upper().replace(".", "")
    prefix = rest.endswith("*")
    # A prefix may end anywhere in a code; a code must be one.
    if prefix and re.fullmatch(r"[0-9A-Z][0-9A-Z_-]*", spelling):
        return _Term(text, spelling, prefix, systems)
    systems = tuple(system for system in systems if codes.normalize(spelling, system))
    if prefix or not systems:
        sets = f", or a set of config.yaml: {', '.join(sorted(named))}" if named else ""
        raise OptionError(f"--endpoint: {text!r} is no code, expected for instance I50.9 or E11*{sets}")
    return _Term(text, spelling, prefix, systems)
