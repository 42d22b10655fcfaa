"""How many of an input's events have codes that are known, what became of the others, and what helps them.

Three kinds of codes are not known: those of a system that is not read and that no map translates (unmapped, their
events are left out), those that are no codes of the system in which they are declared, and those that are not in a
given vocabulary (their events are read as UNK, both).
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exmed_bert import console
from exmed_bert.codes import CodeKey, code_system
from exmed_bert.console import InputError
from exmed_bert.data.tokenizer import TokenizerSummary
from exmed_bert.data.translation import as_written
from exmed_bert.reporting.small_cells import MinCell

_MOST_UNKNOWN = 0.2  # share of the events; above it, a model would learn from a remnant of the histories
_EXAMPLES = 5
_FAMILIES = 12


def no_known_codes(
    where: object,
    unmapped: Mapping[CodeKey, int],
    unknown: Mapping[CodeKey, int],
    families: Mapping[str, int] | None = None,
) -> InputError:
    """Return the error of an input without one known code: what it holds instead, and what would read that.

    Args:
        where: the input.
        unmapped: events by system and code that were left out, since nothing maps them.
        unknown: events by system and text, which is no code of that system.
        families: events that belong to no code system, such as vital signs, by what they are.

    >>> print(no_known_codes("d", {("rxnorm", "161"): 9, ("ndc", "0"): 4}, {}))  # doctest: +NORMALIZE_WHITESPACE
    d: no event has a known code: 9 RxNorm, 4 NDC; map them with --athena or --code-map, or keep them with
    --keep-systems rxnorm,ndc
    >>> print(no_known_codes("d", {}, {("cpt", "x-ray"): 7, ("loinc", "glucose"): 2}))
    d: no event has a known code: 9 such as 'x-ray', 'glucose'; expected CPT in procedures and LOINC in measurements
    >>> print(no_known_codes("d", {}, {}, {"HR": 50, "TEMP": 40, "ADMISSION": 3}))
    d: no event has a known code: found HR, TEMP, ADMISSION; none of them is a code system that is known
    """
    found = []
    if unmapped:
        systems = _by_system(unmapped)
        counts = ", ".join(f"{count:,} {code_system(name).title}" for name, count in systems)
        names = ",".join(name for name, _ in systems)
        found.append(f"{counts}; map them with --athena or --code-map, or keep them with --keep-systems {names}")
    if unknown:
        expected = " and ".join(
            f"{code_system(name).title} in {code_system(name).events}" for name, _ in _by_system(unknown)
        )
        found.append(f"{sum(unknown.values()):,} such as {_examples(unknown)}; expected {expected}")
    if families:
        listed = ", ".join(name for name, _ in Counter(families).most_common(_FAMILIES))
        found.append(f"found {listed}; none of them is a code system that is known")
    return InputError(f"{where}: no event has a known code: {'; '.join(found) or 'it holds no coded events'}")


def warn_of_unknown(where: object, unmapped: Mapping[CodeKey, int], summary: TokenizerSummary, cells: MinCell) -> None:
    """Say in a line that more than a fifth of the events have no known code, and what helps most of them.

    Args:
        where: the input.
        unmapped: events by system and code that were left out, since nothing maps them.
        summary: of the events that were read.
        cells: which counts are hidden; a code of so few events is not named.
    """
    left_out = sum(unmapped.values())
    without, events = left_out + summary.unknown.read, left_out + summary.events.read
    if without <= _MOST_UNKNOWN * events:
        return
    remedies = {_mapped(name): count for name, count in _by_system(unmapped)}
    remedies["not in the vocabulary of --vocab-from: --extend-vocab adds it"] = summary.not_in_vocabulary.total()
    for name, count in _by_system(summary.unknown_codes):
        own = {key: n for key, n in summary.unknown_codes.items() if key[0] == name and not cells.hides(n)}
        such = f", such as {_examples(own)}" if own else ""
        remedies[f"declared as {code_system(name).title} and no codes of it{such}: check the code system"] = count
    most = max(remedies, key=remedies.__getitem__)
    console.warn(f"{where}: {without / events:.0%} of the events have no known code; the largest part is {most}")


def unknown_rows(
    summary: TokenizerSummary, max_length: int, in_datasets: int, cells: MinCell, vocabulary_of: Path | None = None
) -> list[tuple[str, Any]]:
    """Return rows for the summary of a conversion: the way from events that are read as UNK to tokens that are UNK.

    Args:
        summary: of the tokenizer.
        max_length: most tokens per patient.
        in_datasets: unknown codes of the datasets that are written.
        cells: which counts are hidden; a code of so few events is not named.
        vocabulary_of: where the vocabulary came from, None where it is the input's own.
    """
    count = summary.unknown
    if not count.read:
        return [("events of no known code, kept as UNK", 0)]
    rows: list[tuple[str, Any]] = []
    for what, codes in (
        ("events of no known code, read as UNK", summary.unknown_codes),
        (f"events of codes not in the vocabulary of {vocabulary_of}, read as UNK", summary.not_in_vocabulary),
    ):
        if codes:
            frequent = [(key, n) for key, n in codes.most_common(_EXAMPLES) if not cells.hides(n)]
            most = ", ".join(f"{code_system(name).title} {as_written(code)!r} ({n:,})" for (name, code), n in frequent)
            rows += [(what, cells.total(codes.values())), ("  most frequent of them", most or "–")]
    ways = {
        "left out: repeated within a visit": count.repeated,
        "left out: of excluded patients": count.excluded,
        f"left out: before the latest {max_length} codes": count.cut,
        "kept: the unknown codes of the datasets": in_datasets,
    }
    if unwritten := count.kept - in_datasets:
        ways["kept: of the split that is not written"] = unwritten
    told = cells.parts(list(ways.values()), cells.count(count.read))
    return rows + [(f"  {way}", part) for way, part in zip(ways, told, strict=True)]


def _by_system(codes: Mapping[CodeKey, int]) -> list[tuple[str, int]]:
    """Return the number of events of each system, the most frequent first."""
    systems: Counter[str] = Counter()
    for (system, _), count in codes.items():
        systems[system] += count
    return systems.most_common()


def _examples(codes: Mapping[CodeKey, int]) -> str:
    return ", ".join(f"{as_written(code)!r}" for (_, code), _ in Counter(codes).most_common(_EXAMPLES))


def _mapped(system: str) -> str:
    title = code_system(system).title
    return f"{title}: map it with --athena or --code-map, or keep it with --keep-systems {system}"
