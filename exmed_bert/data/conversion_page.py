"""Page of a conversion: what was read, mapped and left out, by code system and year, and what the datasets hold."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath

import numpy as np

from exmed_bert.codes import CodeKey, CodeSystem, code_system
from exmed_bert.data.conversion_counts import ConversionCounts, attrition
from exmed_bert.data.conversion_plots import DRAWINGS, Drawn, by_length, by_year
from exmed_bert.data.reading_report import date_rows
from exmed_bert.data.tokenizer import EventCounts
from exmed_bert.data.translation import KEPT, LEFT_OUT, MAPPED, OUTCOMES, UNKNOWN, as_written
from exmed_bert.data.vocabulary import SPECIAL_TOKENS, UNK
from exmed_bert.reporting.content import Cell, Report, ReportSection, Statement, Style, Table, Verdict, capital
from exmed_bert.reporting.plotting import draw_plots
from exmed_bert.reporting.small_cells import NONE, Count, MinCell, percent

_MEANINGS = {
    KEPT: "a code of a system that the datasets hold",
    MAPPED: "a code of another system, translated",
    UNKNOWN: "no code of the system that it was declared in, kept as the token UNK",
    LEFT_OUT: "a code of another system without a translation",
}
_GOOD, _POOR = 0.95, 0.80  # shares of the events that reach the datasets as a code
_LISTED = 20  # codes of a table that stands open
_RARE = 10  # a code with fewer tokens is hardly learned


def conversion_page(counts: ConversionCounts, cells: MinCell) -> Report:
    """Return the page of a conversion.

    Args:
        counts: what was counted.
        cells: which counts are hidden.
    """
    events = _Events(counts.events, cells)
    patients = attrition(counts, cells)
    drawn = _drawn(counts, events, cells)
    sections = [
        _summary(counts, events, patients, cells),
        _systems(events),
        *_codes_without_token(counts, cells),
        _years(),
        _patients(counts, patients, cells),
        _datasets(counts, cells),
        *_dates(counts, cells),
        *_rows(counts, cells),
    ]
    vocabulary = next(iter(counts.datasets.values())).info.vocabulary
    years = sorted(next(iter(drawn.outcomes.values()), ()))
    facts = [
        ("input", counts.input),
        ("read as", counts.reading.read_as),
        ("patients", str(patients[0][1])),
        ("events", str(events.total())),
        ("calendar years", f"{years[0]} to {years[-1]}" if years else "–"),
        ("codes in the vocabulary", f"{len(vocabulary) - len(SPECIAL_TOKENS):,}"),
    ]
    notes = [*counts.reading.notes, *([cells.note] if cells.limit else [])]
    return Report(f"Conversion of {counts.input}", facts, notes, sections, draw_plots(DRAWINGS, drawn))


class _Events:
    """Events by declared system and outcome; each total is the sum of counts as they are shown."""

    def __init__(self, events: Mapping[tuple[str, str, int], int], cells: MinCell) -> None:
        sizes: Counter[str] = Counter()
        pairs: Counter[tuple[str, str]] = Counter()
        for (system, outcome, _), count in events.items():
            sizes[system] += count
            pairs[system, outcome] += count
        self.systems = [system for system, _ in cells.ranked(sizes)]
        self._counts = {pair: cells.count(count) for pair, count in pairs.items()}

    def count(self, system: str, outcome: str) -> Count:
        return self._counts.get((system, outcome), NONE)

    def total(self, systems: Iterable[str] | None = None, outcomes: Iterable[str] = OUTCOMES) -> Count:
        chosen = self.systems if systems is None else list(systems)
        return sum((self.count(system, outcome) for outcome in outcomes for system in chosen), NONE)

    def row(self, name: str, systems: Sequence[str]) -> list[Cell]:
        whole, coded = self.total(systems), self.total(systems, (KEPT, MAPPED))
        return [name, *(str(self.total(systems, [one])) for one in OUTCOMES), str(whole), percent(coded, whole)]


def _drawn(counts: ConversionCounts, events: _Events, cells: MinCell) -> Drawn:
    outcomes: Counter[tuple[str, int]] = Counter()
    systems: Counter[tuple[str, int]] = Counter()
    for (system, outcome, year), count in counts.events.items():
        if not cells.hides(count):
            outcomes[outcome, year] += count
            systems[title(system), year] += count
    lengths = np.concatenate([dataset.lengths for dataset in counts.datasets.values()])
    return Drawn(
        by_year(outcomes, OUTCOMES, cells),
        by_year(systems, [title(system) for system in events.systems], cells),
        by_length(lengths, cells),
    )


def _summary(
    counts: ConversionCounts, events: _Events, patients: Sequence[tuple[str, Count]], cells: MinCell
) -> ReportSection:
    whole, coded = events.total(), events.total(outcomes=(KEPT, MAPPED))
    share = coded.middle / whole.middle if whole.middle else 0.0
    verdict = Verdict("good", "good") if share >= _GOOD else Verdict("worth a look", "near")
    if share < _POOR:
        verdict = Verdict("poor", "bad")
    shares = ", ".join(f"{percent(events.total(outcomes=[one]), whole)} {one}" for one in OUTCOMES)
    left = dict(patients)["left"]
    max_length = next(iter(counts.datasets.values())).info.max_length
    neutral = Verdict("patients", "none")
    return ReportSection(
        "summary",
        "Summary",
        statements=[
            Statement(
                verdict,
                "Events kept or mapped",
                percent(coded, whole),
                shares,
                f"Good from {100 * _GOOD:.0f} % on, poor below {100 * _POOR:.0f} %.",
            ),
            Statement(neutral, "Patients in the datasets", percent(left, patients[0][1]), f"{left} patients"),
            Statement(
                neutral,
                f"Patients with more than {max_length} codes",
                percent(cells.count(counts.tokens.truncated), left),
                f"{cells.show(counts.tokens.truncated)} patients",
                "Their latest visits are kept; --max-length keeps more.",
            ),
        ],
    )


def _systems(events: _Events) -> ReportSection:
    rows = [events.row(title(system), [system]) for system in events.systems]
    if len(rows) > 1:
        rows.append(events.row("all", events.systems))
    columns = ("Declared system", *map(capital, OUTCOMES), "Events", "Kept or mapped")
    return ReportSection(
        "systems",
        "Events by code system",
        ["An event counts for the system that the input declares its code in, whatever the code looks like."],
        tables=[Table(columns, rows)],
        notes=["; ".join(f"{outcome}: {meaning}" for outcome, meaning in _MEANINGS.items()) + "."],
    )


def _codes_without_token(counts: ConversionCounts, cells: MinCell) -> list[ReportSection]:
    sections = []
    if counts.unmapped:
        systems = ",".join(sorted({system for system, _ in counts.unmapped}))
        text = (
            "A map of your own (--code-map) or the vocabularies of OHDSI (--athena) translate them, and "
            f"--keep-systems {systems} keeps them as they are."
        )
        sections.append(_frequent("unmapped", "Codes without a translation", text, counts.unmapped, cells))
    if counts.tokens.unknown_codes:
        text = (
            "No codes of the system that they were declared in: misspelled, of another system, or of none. The "
            "datasets hold them as the token UNK, which says that there was something."
        )
        sections.append(_frequent("unknown", "Unknown codes", text, counts.tokens.unknown_codes, cells))
    if counts.tokens.not_in_vocabulary:
        text = "The datasets hold them as the token UNK; --extend-vocab adds them to the vocabulary."
        outside = counts.tokens.not_in_vocabulary
        sections.append(_frequent("outside", "Codes that are not in the given vocabulary", text, outside, cells))
    return sections


def _frequent(key: str, heading: str, text: str, events: Mapping[CodeKey, int], cells: MinCell) -> ReportSection:
    """Return the section of the most frequent codes. A rare one may be a name or a remark, so it is not shown."""
    listed = [(key, count) for key, count in cells.ranked(events) if not cells.hides(count)]
    named = any(description(*key) for key, _ in listed)
    columns = ("Code", "System", *(("Name",) if named else ()), "Events", "Share")
    styles: dict[int, Style] = {0: "code", 1: "word", **({2: "text"} if named else {})}
    total = cells.total(events.values())
    rows: list[list[Cell]] = []
    for (system, code), count in listed:
        name = [description(system, code)] if named else []
        rows.append([as_written(code), title(system), *name, f"{count:,}", percent(count, total)])
    notes = []
    if hidden := len(events) - len(rows):
        notes.append(f"{hidden:,} of {len(events):,} codes have fewer than {cells.limit} events each: not listed here.")
    caption = f"The {_LISTED} most frequent" if len(rows) > _LISTED else ""
    return ReportSection(
        key,
        heading,
        [text],
        tables=[Table(columns, rows[:_LISTED], styles, caption)] if rows else [],
        folded=[Table(columns, rows, styles, f"All {len(rows):,}")] if len(rows) > _LISTED else [],
        notes=notes,
    )


def _years() -> ReportSection:
    return ReportSection(
        "years",
        "Events by calendar year",
        [
            "Gaps, sudden rises and changes of the code system come from how the records were kept, and a model learns "
            "them too. In the United States ICD-10-CM took the place of ICD-9-CM in October 2015."
        ],
        plots=["outcomes", "systems"],
    )


def _patients(counts: ConversionCounts, patients: Sequence[tuple[str, Count]], cells: MinCell) -> ReportSection:
    whole = patients[0][1]
    unknown = [(f"patients with unknown {name}", count) for name, count in counts.tokens.unknown_static.items()]
    unknown.append(("events of unknown age", counts.tokens.unknown_ages))
    return ReportSection(
        "patients",
        "Patients",
        [
            "From the input to the datasets. A token is a code of a visit; repetitions within a visit are one, and a "
            "history that is too long keeps its latest visits, which is the bar at the right end."
        ],
        plots=["lengths"],
        tables=[
            Table(("Patients", "Number", "Share"), [[step, str(n), percent(n, whole)] for step, n in patients]),
            Table(("In the datasets", "Number"), [[name, cells.show(count)] for name, count in unknown]),
        ],
    )


def _datasets(counts: ConversionCounts, cells: MinCell) -> ReportSection:
    datasets = counts.datasets
    vocabulary = next(iter(datasets.values())).info.vocabulary
    by_split: list[list[Cell]] = []
    for split, dataset in datasets.items():
        few = cells.hides(len(dataset))  # then nothing else about them is told either
        middle = "–" if few else " / ".join(f"{q:.0f}" for q in np.quantile(dataset.lengths, (0.1, 0.5, 0.9)))
        unknown = int(dataset.code_counts[UNK])
        tokens = cells.total([len(dataset.columns["codes"]) - unknown, unknown])
        sizes = [tokens, cells.count(len(dataset.columns["visit_days"])), cells.count(unknown)]
        by_split.append([split, cells.show(len(dataset)), *("–" if few else str(size) for size in sizes), middle])
    counts_of_codes = np.sum([dataset.code_counts for dataset in datasets.values()], axis=0)
    systems, chapters = _vocabulary_rows(vocabulary.keys, counts_of_codes, cells)
    return ReportSection(
        "datasets",
        "Datasets",
        tables=[
            Table(("Split", "Patients", "Tokens", "Visits", "Unknown", "Tokens per patient, 10 / 50 / 90 %"), by_split),
            Table(("From events to tokens", "Number"), _tokens(counts.tokens.events, cells)),
            Table(("Vocabulary", "Codes", "Tokens", f"Codes with fewer than {_RARE} tokens"), systems),
        ],
        folded=[Table(("Chapter", "System", "Codes", "Tokens"), chapters, {0: "text", 1: "word"}, "By chapter")],
    )


def _tokens(events: EventCounts, cells: MinCell) -> list[list[Cell]]:
    """Return the rows of the way from events to tokens."""
    steps = {
        "repeated within a visit": events.repeated,
        "of excluded patients": events.excluded,
        "before the latest visits that fit": events.cut,
        "tokens": events.kept,
    }
    rows: list[list[Cell]] = [["events that were kept, mapped or unknown", str(cells.total(steps.values()))]]
    return rows + [[step, cells.show(count)] for step, count in steps.items()]


def _vocabulary_rows(
    keys: Sequence[CodeKey | None], tokens: np.ndarray, cells: MinCell
) -> tuple[list[list[Cell]], list[list[Cell]]]:
    """Return the rows of the systems and of the chapters of a vocabulary."""
    groups: dict[tuple[str, str], list[int]] = {}
    for key, count in zip(keys, tokens.tolist(), strict=True):
        if key is not None:
            system, code = key
            groups.setdefault((system, code_system(system).chapter(code)), []).append(count)
    chapters: list[list[Cell]] = [
        [chapter, title(system), f"{len(found):,}", cells.show(sum(found))]
        for (system, chapter), found in groups.items()
    ]
    systems: list[list[Cell]] = []
    for name in dict.fromkeys(system for system, _ in groups):
        own = [found for (system, _), found in groups.items() if system == name]
        rare = sum(count < _RARE for found in own for count in found)
        systems.append([title(name), f"{sum(map(len, own)):,}", str(cells.total(map(sum, own))), f"{rare:,}"])
    return systems, chapters


def _dates(counts: ConversionCounts, cells: MinCell) -> list[ReportSection]:
    """Return the section on days that cannot be, none where all can."""
    rows: list[list[Cell]] = [
        [name, str(count)] for name, count in date_rows(counts.reading, counts.kept_implausible, cells)
    ]
    text = "They begin and end no observation. --extract-end says until when the data go, if not until today."
    return [ReportSection("dates", "Days that cannot be", [text], tables=[Table(("What", "Number"), rows)])] * bool(
        rows
    )


def _rows(counts: ConversionCounts, cells: MinCell) -> list[ReportSection]:
    """Return the section on the rows of the input, none where the reader counts no rows."""
    files, families = _by_kind(counts.reading.files), counts.reading.families
    outcomes = list(dict.fromkeys(outcome for rows in files.values() for outcome in rows))
    tables = []
    if outcomes:
        rows: list[list[Cell]] = [
            [name, *(cells.show(found[one]) for one in outcomes)] for name, found in files.items()
        ]
        tables.append(Table(("File", *map(capital, outcomes)), rows))
    shown: list[list[Cell]] = [[name, f"{n:,}"] for name, n in cells.ranked(families) if not cells.hides(n)]
    if shown:
        tables.append(Table(("Rows of no code system", "Rows"), shown[:_LISTED]))
    repeats = counts.reading.repeats
    text = [f"{cells.show(repeats)} events repeat patient, day and code exactly and are read once."] if repeats else []
    return [ReportSection("rows", "Rows of the input", text, tables=tables)] if tables or text else []


def _by_kind(files: Mapping[str, Counter[str]]) -> Mapping[str, Counter[str]]:
    """Return the rows of each file, of many files by their kind: shards are of no interest one by one."""
    if len(files) <= _LISTED:
        return files
    kinds: dict[str, list[Counter[str]]] = {}
    for name, rows in files.items():
        kinds.setdefault("".join(PurePath(name).suffixes[-2:]) or "no extension", []).append(rows)
    return {f"{len(rows):,} files, {kind}": sum(rows, Counter()) for kind, rows in kinds.items()}


def title(system: str) -> str:
    """Return the name of a code system for people, as it is declared where no system is called so.

    >>> title("ndc"), title("our own codes")
    ('NDC', 'our own codes')
    """
    found = _registered(system)
    return found.title if found else system


def description(system: str, code: str) -> str:
    """Return the official name of a code, empty where it is not known."""
    found = _registered(system)
    return (found.description(code) if found else None) or ""


def _registered(system: str) -> CodeSystem | None:
    try:
        return code_system(system)
    except ValueError:
        return None
