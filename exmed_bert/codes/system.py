"""A code system: how its codes are spelled, which stand above a code, and what a vocabulary calls them."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

_NAME = re.compile(r"[a-z][a-z0-9_]*")
VALUE = "|"  # between a code and what its value is
_MEASURED = re.compile(r"(.+)\|(Q[1-9][0-9]?|[LNH])", re.IGNORECASE)
_SEPARATOR = r"\s*(?://?|[:|])\s*"  # between a system and a code: ICD10CM:E11.9, ICD10CM//E119, ICD-10-CM|E11.9


@dataclass(frozen=True, kw_only=True)
class CodeSystem:
    """One code system, such as ICD-10-CM.

    The functions given here see one code at a time and are pure. All but `spelling` get codes in the usual spelling.

    Attributes:
        name: identifier, lower case: ``icd10cm``. Names the system in options, files and tokens.
        title: name for people: ``ICD-10-CM``.
        events: plural noun of what its codes record (``diagnoses``, ``drugs``, ``procedures``, ``measurements``,
            ``findings``). Metrics and tables group by it.
        spelling: takes a code without blanks around it and without prefix; returns it in the usual spelling, or None
            when it is no code of this system.
        entity: name of the system in vocab.json; `name` if not given.
        aliases: other names of the name, in any letter case: ``ICD10``.
        url: the URI that FHIR uses; not given: one of our own.
        vocabulary: what OHDSI's vocabularies call it; not given: the name in capitals.
        parent_of: returns the code one level up, None at the top. Not given: the system is flat.
        chapter_of: returns the coarse group of a code. Not given: all codes are in one group, the title.
        description_of: returns the official name of a code, None where it is not known.
        token_of: returns the name of a code in a vocabulary. Not given: ``name:code``, which is the safe choice.
        measured: whether events have values. A code with what its value is, a quantile or where it lies against a
            reference range, is a code, too, and the code itself stands above it: ``4548-4|Q4``, ``4548-4|H``.

    Raises:
        ValueError: `name` is no lower-case identifier, or `title` or `events` is empty.

    >>> local = CodeSystem(name="local", title="Local codes", events="findings", spelling=lambda text: text)
    >>> local.normalize(" Local | 12 "), local.token("12"), local.chapter("12"), local.ancestors("12")
    ('12', 'local:12', 'Local codes', [])
    >>> CodeSystem(name="My codes", title="Mine", events="findings", spelling=str.upper)
    Traceback (most recent call last):
    ValueError: code system 'My codes': the name is to be lower case letters, digits and _, starting with a letter
    """

    name: str
    title: str
    events: str
    spelling: Callable[[str], str | None] = field(repr=False)
    entity: str = ""
    aliases: tuple[str, ...] = field(default=(), repr=False)
    url: str = field(default="", repr=False)
    vocabulary: str = field(default="", repr=False)
    parent_of: Callable[[str], str | None] | None = field(default=None, repr=False)
    chapter_of: Callable[[str], str] | None = field(default=None, repr=False)
    description_of: Callable[[str], str | None] | None = field(default=None, repr=False)
    token_of: Callable[[str], str] | None = field(default=None, repr=False)
    measured: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"code system {self.name!r}: the name is to be lower case letters, digits and _, starting with a letter"
            )
        if not (self.title and self.events):
            raise ValueError(f"code system {self.name!r}: title and events must not be empty")
        if not self.entity:
            object.__setattr__(self, "entity", self.name)
        if not self.url:
            object.__setattr__(self, "url", f"urn:exmed-bert:{self.name}")
        if not self.vocabulary:
            object.__setattr__(self, "vocabulary", self.name.upper())

    @property
    def has_hierarchy(self) -> bool:
        """Whether codes have parents."""
        return self.parent_of is not None

    @cached_property
    def names(self) -> frozenset[str]:
        """All names of the system, case-folded."""
        return frozenset(name.casefold() for name in (self.name, self.entity, self.title, self.url, *self.aliases))

    def normalize(self, code: str) -> str | None:
        """Return a code in the usual spelling, or None when it is no code of this system.

        Blanks around it, letter case and one prefix that names this system do not matter.
        """
        text = code.strip()
        prefix = self._prefix.match(text)
        code, value = self.parts(text[prefix.end() :] if prefix else text)
        spelled = self.spelling(code)
        return spelled if spelled is None or not value else f"{spelled}{VALUE}{value}"

    def parts(self, code: str) -> tuple[str, str]:
        """Return a code without and what it says of a value, which is empty where it says nothing.

        >>> local = CodeSystem(name="local", title="Local", events="measurements", spelling=str.upper, measured=True)
        >>> local.parts("hb|Q4"), local.parts("hb|X"), local.normalize("hb|q4"), local.parent("HB|Q4")
        (('hb', 'Q4'), ('hb|X', ''), 'HB|Q4', 'HB')
        """
        found = _MEASURED.fullmatch(code) if self.measured else None
        return (found[1], found[2].upper()) if found else (code, "")

    def parent(self, code: str) -> str | None:
        """Return the code one level up, or None at the top and in a flat system."""
        bare, value = self.parts(code)
        if value:
            return bare
        return self.parent_of(code) if self.parent_of else None

    def ancestors(self, code: str) -> list[str]:
        """Return the codes above a code, nearest first."""
        above: list[str] = []
        parent = self.parent(code)
        while parent is not None:
            above.append(parent)
            parent = self.parent(parent)
        return above

    def is_descendant(self, code: str, ancestor: str) -> bool:
        """Tell whether `ancestor` stands above `code`."""
        return ancestor in self.ancestors(code)

    def chapter(self, code: str) -> str:
        """Return the coarse group of a code; the title where the system has none. Unique within the system only."""
        return self.chapter_of(self.parts(code)[0]) if self.chapter_of else self.title

    def description(self, code: str) -> str | None:
        """Return the official name of a code, or None where it is not known."""
        return self.description_of(self.parts(code)[0]) if self.description_of else None

    def token(self, code: str) -> str:
        """Return the name of a code in a vocabulary, unlike that of any other system's code."""
        return self.token_of(code) if self.token_of else f"{self.name}:{code}"

    def code_of(self, token: str) -> str:
        """Return the code that `token` names.

        Raises:
            ValueError: the token is not one of this system.
        """
        _, colon, code = token.partition(":")
        code = code if colon else token
        if self.token(code) != token:
            raise ValueError(f"token {token!r} names no code of {self.title}")
        return code

    @cached_property
    def _prefix(self) -> re.Pattern[str]:
        longest_first = sorted(self.names, key=len, reverse=True)
        return re.compile(rf"(?:{'|'.join(map(re.escape, longest_first))}){_SEPARATOR}", re.IGNORECASE)


def without_last_digit(code: str) -> str | None:
    """Return a code without its last character, or None when nothing stands behind a dot.

    >>> without_last_digit("250.01"), without_last_digit("250.0"), without_last_digit("250")
    ('250.0', '250', None)
    """
    return code[:-1].rstrip(".") if "." in code else None
