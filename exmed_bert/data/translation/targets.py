"""What each distinct code of an input becomes: itself, codes of another system, an unknown code, or nothing."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from exmed_bert.codes import ATC, ICD10CM, CodeKey, code_system, code_systems, gem
from exmed_bert.console import OptionError
from exmed_bert.data.translation.athena import Vocabularies
from exmed_bert.data.translation.code_map import CodeMap, read_code_map
from exmed_bert.data.translation.lookalikes import ICD9CM
from exmed_bert.data.translation.summary import KEPT, LEFT_OUT, MAPPED, UNKNOWN
from exmed_bert.settings import ReadingSettings

T = TypeVar("T")
OnMultiple = Literal["first", "all", "drop"]

_FINAL = frozenset({ICD10CM, ATC})  # what all other systems are mapped to
_CATEGORY = 3  # characters of ICD-10-CM's
_CHARACTERS = {3: 4, 4: 5, 5: 7}  # of ATC's levels


@dataclass(frozen=True, slots=True)
class Fate:
    """What a code becomes.

    Attributes:
        outcome: one of `summary.OUTCOMES`.
        targets: the codes in its place.
        code: in its system's usual spelling; as it is written where it is no code of it.
        is_itself: whether it stays as it is written.
    """

    outcome: str
    targets: tuple[CodeKey, ...]
    code: str
    is_itself: bool


class TargetCodes:
    """The fate of codes by the settings of a reading; each is decided once.

    A code goes the first of these ways that leads anywhere:

    1. Its system is in ``keep_systems``: it stays.
    2. The user's map has it: its targets. These go on to ICD-10-CM and ATC if 3 or 4 leads there.
    3. ICD-9-CM goes to ICD-10-CM by the General Equivalence Mappings.
    4. Codes of drugs go to ATC by the vocabularies of OHDSI.
    5. Its system is ICD-10-CM or ATC, or it comes from our own record, whose ``events`` may hold any system: it stays.

    ``on_multiple`` says what to take where a map or the mappings of 3 give several: of the ``first`` alternative all
    codes that belong together, ``all`` codes of all alternatives, or to ``drop`` the code. The ATC codes of a drug in 4
    are no alternatives, each of them is true and none comes first, so all are taken, or none with ``drop``.
    """

    def __init__(self, settings: ReadingSettings, own_record: bool) -> None:
        """Read the map.

        Args:
            settings: of the reading.
            own_record: whether the codes come from our own record.

        Raises:
            OptionError: a system of ``keep_systems`` is not known.
            InputError: the map or the folder of the vocabularies cannot be read.
        """
        self._kept_as_they_are = _systems(settings.keep_systems)
        self._kept = _FINAL | self._kept_as_they_are
        if own_record and settings.keep_systems is None:
            declared = {ICD9CM} if settings.diagnosis_system != ICD10CM else set()  # in order to be mapped
            self._kept |= {system.name for system in code_systems()} - declared
        self.code_map: CodeMap | None = None if settings.code_map is None else read_code_map(settings.code_map)
        self._athena = None if settings.athena is None else Vocabularies(settings.athena)
        self._on_multiple: OnMultiple = settings.on_multiple
        self._longest = {
            ICD10CM: _CATEGORY if settings.icd_level == "category" else None,
            ATC: _CHARACTERS[settings.atc_level],
        }
        self._drugs: dict[CodeKey, tuple[str, ...]] = {}
        self._fates: dict[CodeKey, Fate] = {}

    def fates(self, keys: Sequence[CodeKey]) -> list[Fate]:
        """Return the fate of each code, a key as `EventColumns.table` has it.

        Raises:
            InputError: a package or the vocabularies of OHDSI cannot be read.
        """
        new = [key for key in keys if key not in self._fates]
        if new:
            if self._athena is not None:
                self._drugs |= self._athena.atc(self._may_be_drugs(new))
            for key in new:
                self._fates[key] = self._fate(key)
        return [self._fates[key] for key in keys]

    def _fate(self, key: CodeKey) -> Fate:
        system, text = key
        code = code_system(system).normalize(text)
        spelled = text.strip() if code is None else code
        targets = () if system in self._kept_as_they_are else self._targets(system, spelled)
        if targets:
            outcome = MAPPED
        elif system not in self._kept:
            outcome = LEFT_OUT
        else:
            outcome, targets = (UNKNOWN, (key,)) if code is None else (KEPT, (self._cut((system, code)),))
        return Fate(outcome, targets, spelled, targets == (key,))

    def _targets(self, system: str, code: str) -> tuple[CodeKey, ...]:
        mapped = self.code_map.get(system, code) if self.code_map else ()
        if not mapped:
            found = self._further(system, code)
        else:
            chosen = choose([((target,),) for target in mapped], self._on_multiple)
            found = [end for target in chosen for end in self._further(*target) or [target]]
        return tuple(dict.fromkeys(map(self._cut, found)))

    def _further(self, system: str, code: str) -> list[CodeKey]:
        """Return the targets of a code that no map of the user's has."""
        if system == ICD9CM and ICD9CM not in self._kept:
            return [(ICD10CM, target) for target in choose(gem.alternatives(code), self._on_multiple)]
        drugs = self._drugs.get((system, code), ())
        return [] if len(drugs) > 1 and self._on_multiple == "drop" else [(ATC, drug) for drug in drugs]

    def _may_be_drugs(self, keys: Iterable[CodeKey]) -> Iterator[CodeKey]:
        """Yield the codes that `_further` may be called with."""
        outside = (key for key in keys if key[0] not in self._kept_as_they_are)
        for system, text in outside:
            code = code_system(system).normalize(text) or text.strip()
            for target in (self.code_map.get(system, code) if self.code_map else ()) or [(system, code)]:
                if target[0] not in _FINAL | self._kept_as_they_are:
                    yield target

    def _cut(self, key: CodeKey) -> CodeKey:
        """Return the code at the level that the settings ask for, or itself where it is no deeper."""
        system, code = key
        return system, code[: self._longest.get(system)]


def choose(alternatives: Sequence[Sequence[Sequence[T]]], on_multiple: OnMultiple) -> list[T]:
    """Return the targets to take of a code with several.

    Args:
        alternatives: lists of choices, of each of which one belongs to the alternative; see `gem.Alternative`.
        on_multiple: ``first``, ``all``, or ``drop``, which takes none where there is a choice.

    >>> one, two = [["a", "b"], ["c"]], [["d"]]
    >>> choose([one, two], "first"), choose([one, two], "all"), choose([one, two], "drop"), choose([], "all")
    (['a', 'c'], ['a', 'b', 'c', 'd'], [], [])
    >>> choose([one], "drop"), choose([[["c"], ["d"]]], "drop")
    ([], ['c', 'd'])
    """
    if on_multiple == "all":
        return list(dict.fromkeys(code for one in alternatives for choices in one for code in choices))
    has_choice = len(alternatives) > 1 or any(len(choices) > 1 for one in alternatives for choices in one)
    if not alternatives or (on_multiple == "drop" and has_choice):
        return []
    return [choices[0] for choices in alternatives[0]]


def _systems(text: str | None) -> frozenset[str]:
    """Return the code systems of a list that is separated by commas."""
    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    try:
        return frozenset(code_system(name).name for name in names)
    except ValueError as error:
        raise OptionError(f"--keep-systems: {error}") from None
