"""The words and tables of an analysis of novel codes, from `NovelResults` to the parts that the page shows."""

from collections.abc import Callable, Sequence

import numpy as np

from exmed_bert.codes import ATC
from exmed_bert.evaluation.bootstrap import Figure
from exmed_bert.evaluation.code_nearness import HITS
from exmed_bert.evaluation.code_structure import ALL, BETWEEN, NOVEL, WITHIN, TreeCorrelation
from exmed_bert.evaluation.masked_codes import MEASURES, BandFigures
from exmed_bert.evaluation.novel_inputs import AFTER, BEFORE
from exmed_bert.evaluation.novel_results import NOVEL_UNSEEN, OTHER_UNSEEN, NovelResults
from exmed_bert.evaluation.parts import Part, Table, shown

MOST_ROWS = 100  # codes of a kind on the page; codes.csv has them all

_RELATIONS = {"parent": "parent", "siblings": "siblings", "chapter": "rest of the chapter", "any": "any other code"}
_RELATIVES = {"parent": "parent", "sibling": "nearest sibling"}
_TIMES = {BEFORE: "Before training", AFTER: "After training", "change": "Change"}
_PAIRS = {
    ALL: "all pairs",
    WITHIN: "within a chapter",
    BETWEEN: "in different chapters",
    NOVEL: "with a novel code",
}
_MEASURES = {"top1": "top 1", "top5": "top 5", "top10": "top 10", "loss": "loss, nats"}
_SYSTEMS = {ALL: "both", "icd": "ICD-10-CM", ATC: "ATC"}


def headline(results: NovelResults) -> list[tuple[str, str]]:
    """Return the figures that matter most, a name and a value each, for the terminal."""
    return [(name, f"{after}; by chance {chance}") for name, after, chance, _ in _main(results)]


def parts(results: NovelResults) -> list[Part]:
    """Return the parts of the report in their order; what there is nothing for is left out."""
    found = [
        _what_came_out(results),
        _cosines(results),
        _ranks(results),
        _masked(results),
        _structure(results),
        _chapters(results),
        _maps(results),
        _codes(results),
    ]
    return [part for part in found if part is not None]


def percent(figure: Figure | None) -> str:
    """Return a share with its interval.

    >>> percent(Figure(0.5, 0.25, 0.751)), percent(Figure(0.034)), percent(None)
    ('50 % (25 to 75 %)', '3.4 %', '–')
    """
    if figure is None:
        return "–"
    if figure.low is None or figure.high is None:
        return f"{_points(figure.value)} %"
    return f"{_points(figure.value)} % ({_points(figure.low)} to {_points(figure.high)} %)"


def _points(share: float) -> str:
    """Return percent, with a decimal where small.

    >>> _points(0.5), _points(0.034), _points(-0.12), _points(0)
    ('50', '3.4', '−12', '0')
    """
    text = f"{100 * share:.1f}" if 0 < abs(share) < 0.0995 else f"{100 * share:.0f}"
    return text.replace("-", "−")


def _difference(figure: Figure) -> str:
    """Return a difference of shares in percentage points.

    >>> _difference(Figure(-0.31, -0.53, -0.019))
    '−31 (−53 to −1.9) percentage points'
    """
    interval = "" if figure.low is None else f" ({_points(figure.low)} to {_points(figure.high)})"
    return f"{_points(figure.value)}{interval} percentage points"


def _correlation(results: NovelResults, time: str, pairs_of: str, system: str = ALL) -> TreeCorrelation | None:
    found = results.correlations.get(time, [])
    return next((one for one in found if (one.system, one.pairs_of) == (system, pairs_of)), None)


def _main(results: NovelResults) -> list[tuple[str, str, str, str]]:
    """Return the name of a figure, what it is after training, by chance, and before training."""
    rows = []
    for group in results.groups:
        if group is not results.groups[0] and group.name != NOVEL_UNSEEN:
            continue
        for relative, label in _RELATIVES.items():
            found = {time: group.ranks[time][relative] for time in results.times}
            if found[AFTER].codes:
                before, after = (percent(found[t].hits["hit@10"]) if t in found else "–" for t in (BEFORE, AFTER))
                name = f"{_capital(label)} among the 10 nearest, {found[AFTER].codes:,} {group.name}"
                rows.append((name, after, f"{_points(found[AFTER].by_chance['hit@10'])} %", before))
    within = {time: _correlation(results, time, WITHIN) for time in (BEFORE, AFTER)}
    if within[AFTER] is not None and within[AFTER].correlation is not None:
        before, after = (shown(one.correlation if one else None) for one in within.values())
        rows.append(("Spearman's correlation of tree and embeddings, within chapters", after, "0", before))
    return rows + _main_guesses(results)


def _main_guesses(results: NovelResults) -> list[tuple[str, str, str, str]]:
    chance = f"{_points(min(10 / len(results.table.novel), 1))} %"
    masked = results.masked
    lines = [("novel codes", "novel", masked.whole), ("other codes", "other", masked.whole)]
    lines += [("novel codes, never in training", "novel", band) for band in masked.bands if band.band == "0"]
    if masked.matched is not None:
        lines += [
            ("novel codes, as common as some others", "novel", masked.matched),
            ("these others, equally common", "other", masked.matched),
        ]
    found = []
    for label, kind, band in lines:
        if kind in band.figures:
            name = f"Among 10 guesses, {band.positions[kind]:,} masked {label}"
            found.append((name, percent(band.figures[kind]["top10"]), chance, "–"))
    return found


def _what_came_out(results: NovelResults) -> Part:
    matched = results.masked.matched
    guessing = (
        "no other code is as rare in training as the novel codes that were masked, so there is nothing fair to hold "
        "them against; more patients would have some."
    )
    if matched is not None:
        guessing = (
            "rare codes are hard to guess; what counts is the difference to others that are as rare in training, "
            f"{_difference(matched.differences['top10'])}. At 0 being novel costs nothing beyond being rare."
        )
    return Part(
        "headline",
        "What came out",
        [
            "Parent and siblings: far above chance, the model knows where in the code tree a code belongs.",
            "Correlation: at 1 the embeddings order the codes of a chapter as the tree does, at 0 not at all.",
            f"Guessing: {guessing}",
        ],
        tables=[
            Table(("Figure", _TIMES[AFTER], "By chance", _TIMES[BEFORE]), _main(results), (0,), (0,)),
        ],
        notes=[
            f"95 % intervals: percentiles of {results.resamples:,} bootstrap resamples, of the codes for what is said "
            "of embeddings, of the patients for what is said of guesses; where a share is 0 or 100 %, the exact "
            "interval of Clopper and Pearson. It is one training run: how another seed would end is not in them.",
        ],
    )


def _cosines(results: NovelResults) -> Part:
    rows = []
    times = [*results.times, *(["change"] if BEFORE in results.times else [])]
    for group in results.groups:
        for relation, name in _RELATIONS.items():
            count = group.cosines[AFTER][relation][0]
            if count:
                cells = [shown(group.cosines[time][relation][1], sign=time == "change") for time in times]
                rows.append((_capital(group.name), name, f"{count:,}", *cells))
    columns = ("Codes", "To", "Number", *(_TIMES[time] for time in times))
    return Part(
        "cosines",
        "How near codes lie to their relatives",
        [
            "Cosine of a code's embedding to that of its parent, mean cosine to its siblings, to the rest of its "
            "chapter and to any other code; the mean over codes. 1 is the same direction. Embeddings may all lean the "
            "same way, so hold each line against “any other code”.",
            "The parent is the code one level up, or its nearest ancestor that the model knows; siblings have the same "
            "parent. Codes that never occur in training get their place from their relatives where training was "
            "started with --use-hierarchical-init: there nearness is what was put in, and the guesses further down are "
            "the test.",
        ],
        plots=["cosines"],
        folded=[("The figures of the plot", Table(columns, rows, (0, 1), (0,)))],
    )


def _ranks(results: NovelResults) -> Part | None:
    short, rows = [], []
    names = [*(f"hit@{top}" for top in HITS), "mrr"]
    for group in results.groups:
        for relative, label in _RELATIVES.items():
            found = {time: group.ranks[time][relative] for time in results.times}
            after = found[AFTER]
            if not after.codes:
                continue
            start = (_capital(group.name), label, f"{after.codes:,}")
            medians = [f"{found[time].median:,.0f}" for time in results.times]
            hits = [shown(found[time].hits["hit@10"]) for time in results.times]
            short.append((*start, *medians, *hits, f"{after.by_chance['hit@10']:.3f}"))
            for name in names:
                cells = [shown(found[time].hits[name]) for time in results.times]
                rows.append((*start, name.upper() if name == "mrr" else name, *cells, f"{after.by_chance[name]:.3f}"))
    if not short:
        return None
    moments = [_TIMES[time].lower() for time in results.times]
    columns = ("Codes", "Relative", "Number", *(f"Median rank {m}" for m in moments), *(f"hit@10 {m}" for m in moments))
    return Part(
        "ranks",
        "The relatives' rank among all codes",
        [
            "All codes are ordered by their cosine to a code, the nearest first; the rank of its parent, and of its "
            "nearest sibling, says whether relatives come before strangers. hit@10 is the share of codes whose "
            "relative has a rank up to 10, MRR the mean of 1 / rank. By chance: what a random order would give; a code "
            "with many siblings meets one early.",
        ],
        plots=["ranks"],
        tables=[Table((*columns, "hit@10 by chance"), short, (0, 1), (0,))],
        folded=[
            (
                "hit@1, hit@5, hit@10 and MRR",
                Table(
                    ("Codes", "Relative", "Number", "Figure", *(_TIMES[t] for t in results.times), "By chance"),
                    rows,
                    (0, 1, 3),
                    (0,),
                ),
            )
        ],
    )


def _masked(results: NovelResults) -> Part:
    masked = results.masked

    def row(band: BandFigures, measure: str) -> tuple[str, ...]:
        cells: list[str] = [band.band]
        for kind in ("novel", "other"):
            found = band.figures.get(kind)
            cells += [f"{band.codes[kind]:,}", f"{band.positions[kind]:,}", shown(found[measure]) if found else "–"]
        return (*cells, shown(band.differences.get(measure), sign=True))

    def table(measure: str) -> Table:
        of = f"{_MEASURES[measure]}"
        columns = (
            "In training",
            "Novel codes",
            "Positions",
            f"Novel, {of}",
            "Other codes",
            "Positions",
            f"Others, {of}",
        )
        return Table((*columns, "Novel minus others"), [row(band, measure) for band in masked.rows()])

    return Part(
        "masked",
        "Guessing masked codes, novel against equally rare",
        [
            f"Every code of {masked.patients:,} patients was masked once, about a seventh of a patient's codes at a "
            f"time (training masks 15 %): {masked.positions:,} positions. Top 10: the share at which the true code is "
            "among the ten that the model finds most likely, out of all that it knows.",
            "Codes are compared within bands of how often they occur in training. Matched: the bands that both have, "
            "the others weighted to the novel codes' positions. Intervals are wide where positions are few; a patient "
            "who has a code tends to have it again, which the resampling of patients takes into account.",
        ],
        plots=["masked"],
        tables=[table("top10")],
        folded=[(_capital(_MEASURES[measure]), table(measure)) for measure in MEASURES if measure != "top10"],
    )


def _structure(results: NovelResults) -> Part | None:
    rows = []
    for one in results.correlations[AFTER]:
        if one.correlation is None:
            continue
        found = [_correlation(results, time, one.pairs_of, one.system) for time in results.times]
        cells = [shown(f.correlation if f else None, sign=True) for f in found]
        rows.append((_SYSTEMS[one.system], _PAIRS[one.pairs_of], f"{one.pairs:,}", *cells))
    if not rows:
        return None
    return Part(
        "structure",
        "Do distances follow the tree?",
        [
            "Distance in the tree counts the steps from code to code: E11.8 and E11.9 are 2 apart, by way of E11. "
            "Above the categories stand ICD-10-CM's chapters, or ATC's anatomical groups, and the top of the system. "
            "Diagnoses and drugs are never paired.",
            "Over pairs in different chapters the tree's distance only says how deep both codes lie, so no correlation "
            "is to be expected there. The plot shows all pairs: quartiles of the cosine at each distance.",
        ],
        plots=["distances"],
        tables=[
            Table(
                ("Code system", "Pairs", "Number", *(f"Spearman, {_TIMES[t].lower()}" for t in results.times)),
                rows,
                (0, 1),
            )
        ],
    )


def _chapters(results: NovelResults) -> Part | None:
    def rows(names: Sequence[str]) -> list[tuple[str, ...]]:
        return [
            (
                _SYSTEMS.get(name, name.removeprefix("icd ").removeprefix("atc ")),
                f"{results.silhouettes[AFTER].figures[name][0]:,}",
                *(shown(results.silhouettes[time].figures[name][1], sign=True) for time in results.times),
            )
            for name in names
            if results.silhouettes[AFTER].figures[name][0]
        ]

    families = results.table.families
    systems, chapters = rows([ALL, *families.system_names]), rows([f"{s} {c}" for s, c in families.chapter_names])
    if not systems:
        return None
    columns = ("Codes", "Number", *(_TIMES[time] for time in results.times))
    return Part(
        "chapters",
        "Do chapters keep together?",
        [
            "The silhouette of a code compares its mean distance to its own chapter with that to the nearest other "
            "chapter: near 1 the chapters are islands, at 0 they overlap, below it codes are nearer to another "
            "chapter. What is found together in patients crosses chapters, so training need not raise it.",
        ],
        plots=["silhouettes"],
        tables=[Table(columns, systems)],
        folded=[("By chapter", Table(columns, chapters))],
    )


def _maps(results: NovelResults) -> Part:
    return Part(
        "maps",
        "Maps",
        [
            "A point is a code, its colour and number the chapter (letters: ATC's anatomical groups). Novel codes have "
            "a black ring, filled where they never occur in training; a line leads to the parent.",
            f"t-SNE (perplexity {results.perplexity:g}) shows who are neighbours; distances between islands and their "
            "sizes mean nothing. Principal components show the two directions of most variance and keep distances as "
            "far as two dimensions can. TensorBoard's projector shows the same embeddings in three dimensions.",
        ],
        plots=[f"map_{kind}_{time}" for kind in ("tsne", "pca") for time in results.times],
    )


def _codes(results: NovelResults) -> Part | None:
    table = results.table
    unseen = table.in_training == 0 if table.in_training is not None else np.zeros(len(table.novel), dtype=bool)
    lists = {
        "Novel codes, never in training": table.novel & unseen,
        "Novel codes, in training" if table.in_training is not None else "Novel codes": table.novel & ~unseen,
        _capital(OTHER_UNSEEN): ~table.novel & unseen,
    }
    folded = []
    for name, member in lists.items():
        rows = np.flatnonzero(member)
        if len(rows):
            caption = f"{name}: {len(rows):,}" + (f", the first {MOST_ROWS}" if len(rows) > MOST_ROWS else "")
            folded.append((caption, code_table(results, rows[:MOST_ROWS])))
    if not folded:
        return None
    return Part(
        "codes",
        "Code by code",
        ["What each novel or unseen code is, where it lies and how it is guessed. codes.csv has every code."],
        folded=folded,
    )


def code_table(results: NovelResults, rows: np.ndarray) -> Table:
    """Return the table of some codes."""
    table, keys = results.table, results.table.families.keys
    near = table.nearness[AFTER]

    def cosine(time: str, row: int) -> str:
        return shown(Figure(value)) if np.isfinite(value := table.nearness[time].cosines["parent"][row]) else "–"

    def rank(ranks: np.ndarray, row: int) -> str:
        return f"{ranks[row]:,}" if ranks[row] else "–"

    columns: dict[str, Callable[[int], str]] = {
        "Code": lambda row: keys[row][1],
        "Name": lambda row: _short(table.names[row]),
        "In training": lambda row: "–" if table.in_training is None else f"{table.in_training[row]:,}",
        "Parent": lambda row: keys[parent][1] if (parent := table.families.parents[row]) >= 0 else "–",
        **{f"Cosine {_TIMES[t].lower()}": (lambda row, t=t: cosine(t, row)) for t in results.times},
        "Parent's rank": lambda row: rank(near.parent_ranks, row),
        "Nearest sibling's rank": lambda row: rank(near.sibling_ranks, row),
        "Masked": lambda row: f"{table.masked[row]:,}",
        "In top 10": lambda row: f"{table.top10[row]:,}",
        "Nearest codes": lambda row: " ".join(keys[i][1] for i in near.nearest[row][:3]),
    }
    words = [i for i, name in enumerate(columns) if name in ("Code", "Name", "Parent", "Nearest codes")]
    return Table(tuple(columns), [tuple(cell(row) for cell in columns.values()) for row in rows.tolist()], words, (1,))


def _short(name: str) -> str:
    return name if len(name) <= 60 else f"{name[:59].rstrip()}…"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
