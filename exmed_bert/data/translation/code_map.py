"""The user's own map from codes of one system to codes of another, a table in a file."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from exmed_bert.codes import CodeKey, CodeSystem, code_system
from exmed_bert.codes.flat import ndc_forms
from exmed_bert.console import InputError
from exmed_bert.data.bounded import open_bounded
from exmed_bert.files import existing_file
from exmed_bert.reporting.spreadsheet import original

COLUMNS = ("source_system", "source_code", "target_system", "target_code")


@dataclass(frozen=True)
class CodeMap:
    """What each source code is mapped to, both in their systems' usual spellings.

    Attributes:
        path: of the file.
        targets: the targets of a source in the order of the file. A source that is no code of its system is there as
            it is written, since a map may know more than the rules of spelling.
        wrong_targets: number of rows whose target is no code of its system; they are left out.
        example: the first of these targets, and the number of its line.
    """

    path: Path
    targets: dict[CodeKey, tuple[CodeKey, ...]]
    wrong_targets: int
    example: str

    def get(self, system: str, code: str) -> tuple[CodeKey, ...]:
        """Return the targets of a code, none where it is not in the map.

        An NDC of ten digits that is not in the map counts as the one of eleven digits that is, if only one of those
        that it can be is.
        """
        found = self.targets.get((system, code), ())
        if not found and system == "ndc":
            forms = [form for form in ndc_forms(code) if (system, form) in self.targets]
            return self.targets[system, forms[0]] if len(forms) == 1 else ()
        return found


def read_code_map(path: Path) -> CodeMap:
    """Read a map: .csv or .csv.gz with the columns source_system, source_code, target_system and target_code.

    Their names may have any letter case, other columns are ignored, and a row without a target maps nothing.

    Raises:
        InputError: the file cannot be read, lacks a column, or names a system that is not known.
    """
    path = existing_file(path)
    targets: dict[CodeKey, dict[CodeKey, None]] = {}
    systems: dict[str, CodeSystem] = {}
    wrong, example = 0, ""
    for line, row in _rows(path):
        if not row[3]:
            continue
        for column, name in zip(COLUMNS[::2], row[::2], strict=True):
            if name not in systems:
                try:
                    systems[name] = code_system(name)
                except ValueError as error:
                    raise InputError(f"{path}: line {line}: {column}: {error}") from None
        source, target = systems[row[0]], systems[row[2]]
        code = target.normalize(row[3])
        if code is None:
            wrong, example = wrong + 1, example or f"{row[3]!r} in line {line}"
            continue
        targets.setdefault((source.name, source.normalize(row[1]) or row[1]), {})[target.name, code] = None
    return CodeMap(path, {source: tuple(found) for source, found in targets.items()}, wrong, example)


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of each line and its fields of `COLUMNS`, without blanks around them.

    Codes may come from our own unmapped_codes.csv.
    """
    try:
        with _open(path) as lines:
            rows = csv.reader(lines, strict=True)
            header = [name.strip().lower() for name in next(rows, [])]
            for column in COLUMNS:
                if column not in header:
                    raise InputError(f"{path}: has no column {column}, expected {', '.join(COLUMNS)}")
            places = [header.index(column) for column in COLUMNS]
            for row in rows:
                if len(row) == len(header):
                    yield rows.line_num, [original(row[place].strip()) for place in places]
                elif row:
                    raise InputError(
                        f"{path}: line {rows.line_num}: has {len(row)} fields, expected {len(header)} as in its header"
                    )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None


def _open(path: Path) -> TextIO:
    return io.TextIOWrapper(open_bounded(path), encoding="utf-8-sig", newline="")
