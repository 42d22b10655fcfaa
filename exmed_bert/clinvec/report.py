"""What the codes of a model start from, told as a table and as files."""

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, get_args

import numpy as np

from exmed_bert.clinvec.initialization import CodeInitialization
from exmed_bert.clinvec.relatives import How
from exmed_bert.codes import CodeKey
from exmed_bert.reporting.small_cells import MinCell
from exmed_bert.reporting.spreadsheet import write_csv
from exmed_bert.staging import staged_files, write_json

REPORT, CODES = "clinvec_report.json", "clinvec_codes.csv"
_WORDS: dict[str, str] = {
    "own": "their own vector",
    "ancestor": "an ancestor's and siblings'",
    "siblings": "siblings' alone",
    "chapter": "the mean of their chapter",
    "none": "no vector, drawn at random",
}
_HEADER = ("code", "system", "start", "ancestor", "siblings", "events", "novel")


def table(start: CodeInitialization, events: np.ndarray, cells: MinCell) -> Iterator[str]:
    """Yield lines that say how many codes start from what, and which share of the training events they are.

    Args:
        start: what the codes start from.
        events: (V,) how often each id occurs in the training data.
        cells: which counts are hidden; shares are then those of what is told.
    """
    events = _told(events, cells)
    yield f"{'codes start from':<28}{'codes':>8}{'of events':>11}"
    for how, (codes, share) in _by_how(start, events).items():
        yield f"  {_WORDS[how]:<26}{codes:>8,}{share:>11.1%}"


def write(folder: Path, start: CodeInitialization, events: np.ndarray, novel: AbstractSet[int], cells: MinCell) -> None:
    """Write ``clinvec_report.json`` and ``clinvec_codes.csv``, a line a code.

    Args:
        folder: of the model.
        start: what the codes start from.
        events: (V,) how often each id occurs in the training data.
        novel: ids of codes that the generator made.
        cells: which counts are hidden; shares are then those of what is told.
    """
    told = [cells.value(count) for count in events.tolist()]
    codes = [_code(start, i, key, told[i], i in novel) for i, key in enumerate(start.keys) if key is not None]
    events = _told(events, cells)
    systems: dict[str, Any] = {}
    for system in sorted({code["system"] for code in codes}):
        of_system = np.array([key is not None and key[0] == system for key in start.keys])
        systems[system] = _shares(start, np.where(of_system, events, 0), of_system)
    content = {
        "vectors": start.vocabularies,
        "start": _shares(start, events, np.array([key is not None for key in start.keys])),
        "by_system": systems,
        "novel_codes": [code for code in codes if code["novel"]],
        "notes": [*start.notes, *start.warnings, *([cells.note] if cells.limit else [])],
    }
    with staged_files(folder) as staged:
        write_json(staged / REPORT, content)
        with open(staged / CODES, "w", encoding="utf-8", newline="") as file:
            write_csv(file, _HEADER, (list(code.values()) for code in codes))


def _told(events: np.ndarray, cells: MinCell) -> np.ndarray:
    """Return counts to take shares of: in the place of a hidden one stands the middle of what it may be."""
    return np.where((events > 0) & (events < cells.limit), cells.limit / 2, events)


def _by_how(start: CodeInitialization, events: np.ndarray) -> dict[How, tuple[int, float]]:
    """Return for each way to start the number of codes and their share of the events."""
    medical = np.array([key is not None for key in start.keys])
    total = max(float(events[medical].sum()), 1.0)
    hows = np.array([origin.how for origin in start.origins])
    return {
        how: (int((medical & (hows == how)).sum()), float(events[medical & (hows == how)].sum() / total))
        for how in get_args(How)
    }


def _shares(start: CodeInitialization, events: np.ndarray, chosen: np.ndarray) -> dict[str, Any]:
    keys: Sequence[Any] = [key if taken else None for key, taken in zip(start.keys, chosen.tolist(), strict=True)]
    part = CodeInitialization(keys, start.origins, start.ids, start.vectors)
    return {how: {"codes": n, "share_of_events": share} for how, (n, share) in _by_how(part, events).items()}


def _code(start: CodeInitialization, token: int, key: CodeKey, events: int | str, novel: bool) -> dict[str, Any]:
    (system, code), origin = key, start.origins[token]
    values = (code, system, origin.how, origin.ancestor, origin.siblings, events, novel)
    return dict(zip(_HEADER, values, strict=True))
