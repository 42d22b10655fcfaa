"""What ``--columns`` says: in which columns of the user's own tables stands what."""

import difflib
import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from exmed_bert.console import OptionError
from exmed_bert.data.readers.headers import UTF_8
from exmed_bert.data.static_columns import is_name

# What a column can hold, and how it is called where --columns does not say so.
EVENT_ROLES: dict[str, tuple[str, ...]] = {"date": ("date",), "code": ("code",), "system": ("system",)}
EVENT_ROLES |= {"value": ("value",), "flag": ("flag",)}  # of measurements
PEOPLE_ROLES: dict[str, tuple[str, ...]] = {
    "birth": ("birth_year", "birth_date"),
    "sex": ("sex",),
    "state": ("patient_state", "state"),
    "death": ("death_date",),
    "observation_start": ("observation_start",),
    "observation_end": ("observation_end",),
    "plos": ("had_plos",),
}
ROLES: dict[str, tuple[str, ...]] = {"patient": ("patient_id",), **EVENT_ROLES, **PEOPLE_ROLES}

SEPARATORS = {"comma": ",", "semicolon": ";", "pipe": "|", "space": " ", "slash": "/", "tab": "\t", "plus": "+"}
ENCODINGS = {"utf-8": UTF_8, "latin-1": "latin-1", "utf-16": "utf-16"}

_OPTIONS = ("separator", "date_format", "encoding")
EXAMPLE = "patient=PATID,date=SVC_DT,code=DX1..DX8,system=icd10cm"
_PATTERN = re.compile(r"([^=]*?):(?=[^:=]+=)")  # file names, in front of the first key
_WITH_VALUES = re.compile(r"(?P<column>[^\[]+)\[(?P<values>.*)\]", re.DOTALL)
_NUMBERED = re.compile(r"(.*?)([0-9]+)")


@dataclass(frozen=True)
class Columns:
    """One ``--columns``.

    Attributes:
        pattern: of the names of the files that it is for; None: those that no other one is for.
        of_role: columns as given, such as ``DX1..DX8`` and ``DX9``, by what they hold.
        values: by what a column holds, what its values mean.
        separator: of several codes in a cell, None where a cell holds one.
        date_format: of all dates, as for strptime; None: ISO dates and times, and YYYYMMDD.
        encoding: of text files.
        undeclared: keys that are no static columns of this step.
    """

    pattern: str | None = None
    of_role: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    separator: str | None = None
    date_format: str | None = None
    encoding: str = UTF_8
    undeclared: tuple[str, ...] = ()

    @property
    def is_of_events(self) -> bool:
        """Whether columns of events are named, or nothing is, so that columns with the usual names count."""
        named = set(self.of_role) - {"patient"}
        return not named or bool(named & set(EVENT_ROLES))

    def written(self, role: str) -> str:
        """Return how a role was named.

        >>> parse("patient=ID,code=DX1..DX8+PX").written("code")
        'code=DX1..DX8+PX'
        """
        return f"{role}={'+'.join(self.of_role[role])}"

    def is_for(self, file: Path, table: str) -> bool:
        """Tell whether the pattern fits the name of a file, in any letter case, or that of its table.

        >>> rx = Columns(pattern="rx*.csv")
        >>> rx.is_for(Path("d/RX_2019.csv"), "rx"), rx.is_for(Path("d/claims.csv"), "claims")
        (True, False)
        """
        if self.pattern is None:
            return False
        pattern = self.pattern.lower()
        return any(fnmatch.fnmatchcase(known, pattern) for known in (file.name.lower(), table))


def parse(text: str, static: Iterable[str] = ()) -> Columns:
    """Return what one ``--columns`` says.

    Args:
        text: ``key=column`` pairs separated by commas; before them, if need be, file names and a colon.
        static: names of static columns besides sex and state; a step may not read all that config.yaml declares.

    Raises:
        OptionError: a key or a value is unknown, or something is missing.

    >>> found = parse("rx*.csv:patient=PATID,date='Date, filled',code=NDC,system=ndc,separator=semicolon")
    >>> found.pattern, found.of_role["date"], found.separator
    ('rx*.csv', ('Date, filled',), ';')
    >>> parse("code=DX,system=DXVER[9:icd9cm|0:icd10cm]").values
    {'system': {'9': 'icd9cm', '0': 'icd10cm'}}
    >>> parse("patien=ID")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    exmed_bert.console.OptionError: --columns patien=ID: 'patien' is unknown, did you mean 'patient'?
    """
    where = f"--columns {text}"
    pattern = _PATTERN.match(text)
    of_role: dict[str, tuple[str, ...]] = {}
    values: dict[str, Mapping[str, str]] = {}
    options: dict[str, str] = {}
    undeclared: list[str] = []
    roles = [*ROLES, *(name for name in static if name not in ROLES)]
    for pair in _split(text[pattern.end() :] if pattern else text, ","):
        key, equals, value = (part.strip() for part in pair.partition("="))
        key = key.lower()
        if not equals or not value:
            raise OptionError(f"{where}: {pair.strip()!r}: expected a key and a column, such as {EXAMPLE}")
        if key in of_role or key in options:
            raise OptionError(f"{where}: {key} is there twice; join the columns with +, as in {key}=A+B")
        if key in _OPTIONS:
            options[key] = _option(where, key, _unquoted(value))
        elif key in roles:
            if (with_values := _WITH_VALUES.fullmatch(value)) and key not in ("patient", "date", "code"):
                values[key] = _meanings(where, key, with_values["values"])
                value = with_values["column"]
            of_role[key] = tuple(_unquoted(part.strip()) if _is_quoted(part) else part for part in _split(value, "+"))
            if len(of_role[key]) > 1 and key != "code":
                raise OptionError(f"{where}: {key}={value}: expected one column; only code takes several")
        elif close := difflib.get_close_matches(key, [*roles, *_OPTIONS], n=1):
            raise OptionError(f"{where}: {key!r} is unknown, did you mean {close[0]!r}?")
        elif not is_name(key):
            raise OptionError(f"{where}: {key!r} is unknown, expected {', '.join([*roles, *_OPTIONS])}")
        else:
            undeclared.append(key)
    return Columns(
        None if pattern is None else pattern[1].strip(), of_role, values, undeclared=tuple(undeclared), **options
    )


def expand(columns: Sequence[str], of_table: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the columns of a table that are meant, in the order of their numbers, and those that it lacks.

    Args:
        columns: names, or ranges from one name with a number at its end to another.
        of_table: names of the table's columns in lower case.

    >>> expand(["DX1..DX3", "Main"], ["id", "dx01", "dx03", "dx02", "main"])
    (['dx01', 'dx02', 'dx03', 'main'], [])
    >>> expand(["DX9..DX11"], ["dx9", "dx10"])
    ([], ['DX11'])
    """
    names = list(of_table)
    found: list[str] = []
    missing: list[str] = []
    for column in columns:
        if column.lower() in names:
            found.append(column.lower())
        elif span := _range(column):
            prefix, numbers = span
            by_number: dict[int, list[str]] = {}
            for parts in map(_NUMBERED.fullmatch, names):
                if parts and parts[1] == prefix.lower():
                    by_number.setdefault(int(parts[2]), []).append(parts[0])
            lacking = next((number for number in numbers if number not in by_number), None)
            if lacking is None:
                found += [name for number in numbers for name in by_number[number]]
            else:
                missing.append(f"{prefix}{lacking}")
        else:
            missing.append(column)
    return found, missing


def _range(column: str) -> tuple[str, range] | None:
    """Return the name in front of the numbers and the numbers of ``DX1..DX8``, None for another name."""
    ends = [_NUMBERED.fullmatch(end.strip()) for end in column.split("..")]
    if len(ends) != 2 or not ends[0] or not ends[1] or ends[0][1].lower() != ends[1][1].lower():
        return None
    first, last = int(ends[0][2]), int(ends[1][2])
    return (ends[0][1], range(first, last + 1)) if first <= last else None


def _option(where: str, key: str, value: str) -> str:
    if key == "separator":
        value = SEPARATORS.get(value.lower(), value)
        if len(value) > 1:
            raise OptionError(f"{where}: separator={value}: expected one character, or one of {', '.join(SEPARATORS)}")
    elif key == "encoding":
        if value.lower() not in ENCODINGS:
            raise OptionError(f"{where}: encoding={value}: expected one of {', '.join(ENCODINGS)}")
        return ENCODINGS[value.lower()]
    elif "%" not in value:
        raise OptionError(f"{where}: date_format={value}: expected a format as %m/%d/%Y or %d%b%Y")
    return value


def _meanings(where: str, key: str, text: str) -> dict[str, str]:
    """Return what values mean: ``1:M|2:F``."""
    found = {}
    for pair in text.split("|"):
        value, colon, meaning = (part.strip() for part in pair.partition(":"))
        if not colon or not meaning:
            raise OptionError(f"{where}: {key}: [{text}]: expected values and what they mean, such as [1:M|2:F]")
        found[value] = meaning
    return found


def _split(text: str, separator: str) -> list[str]:
    """Split text at a separator that stands neither in quotation marks nor in brackets."""
    return re.findall(rf"""(?:"[^"]*"|'[^']*'|\[[^\]]*\]|[^{re.escape(separator)}])+""", text)


def _is_quoted(text: str) -> bool:
    text = text.strip()
    return len(text) > 1 and text[0] in "\"'" and text[-1] == text[0]


def _unquoted(text: str) -> str:
    return text.strip()[1:-1] if _is_quoted(text) else text.strip()
