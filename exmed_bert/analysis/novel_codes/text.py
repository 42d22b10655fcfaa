"""The words and tables of an analysis of novel codes, from `NovelResults` to the parts that the page shows."""

from collections.abc import Callable, Sequence

import numpy as np

from exmed_bert.analysis.novel_codes.headline import RELATIVES, TIMES, capital, correlation_of, what_came_out
from exmed_bert.analysis.novel_codes.inputs import AFTER, BEFORE
from exmed_bert.analysis.novel_codes.masked_codes import MEASURES, BandMetrics
from exmed_bert.analysis.novel_codes.neighbors import HITS
from exmed_bert.analysis.novel_codes.results import OTHER_UNSEEN, NovelResults
from exmed_bert.analysis.novel_codes.structure import ALL, BETWEEN, NOVEL, WITHIN
from exmed_bert.codes import ATC
from exmed_bert.evaluation.bootstrap import Estimate
from exmed_bert.evaluation.parts import Part, Table, shown

MOST_ROWS = 100  # codes of a kind on the page; codes.csv has them all

_RELATIONS = {"parent": "parent", "siblings": "siblings", "chapter": "rest of the chapter", "any": "any other code"}
_PAIRS = {
    ALL: "all pairs",
    WITHIN: "within a chapter",
    BETWEEN: "in different chapters",
    NOVEL: "with a novel code",
}
_MEASURES = {"top1": "top 1", "top5": "top 5", "top10": "top 10", "loss": "loss, nats"}
_SYSTEMS = {ALL: "both", "icd": "ICD-10-CM", ATC: "ATC"}


def parts(results: NovelResults) -> list[Part]:
    """Return the parts of the report in their order; what there is nothing for is left out."""
    found = [
        what_came_out(results),
        _cosines(results),
        _ranks(results),
        _masked(results),
        _structure(results),
        _chapters(results),
        _maps(results),
        _codes(results),
    ]
    return [part for part in found if part is not None]


def _cosines(results: NovelResults) -> Part:
    rows = []
    times = [*results.times, *(["change"] if BEFORE in results.times else [])]
    for group in results.groups:
        for relation, name in _RELATIONS.items():
            count = group.cosines[AFTER][relation][0]
            if count:
                cells = [shown(group.cosines[time][relation][1], sign=time == "change") for time in times]
                rows.append((capital(group.name), name, f"{count:,}", *cells))
    columns = ("Codes", "To", "Number", *(TIMES[time] for time in times))
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
        for relative, label in RELATIVES.items():
            found = {time: group.ranks[time][relative] for time in results.times}
            after = found[AFTER]
            if not after.codes:
                continue
            start = (capital(group.name), label, f"{after.codes:,}")
            medians = [f"{found[time].median:,.0f}" for time in results.times]
            hits = [shown(found[time].hits["hit@10"]) for time in results.times]
            short.append((*start, *medians, *hits, f"{after.by_chance['hit@10']:.3f}"))
            for name in names:
                cells = [shown(found[time].hits[name]) for time in results.times]
                rows.append((*start, name.upper() if name == "mrr" else name, *cells, f"{after.by_chance[name]:.3f}"))
    if not short:
        return None
    moments = [TIMES[time].lower() for time in results.times]
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
                    ("Codes", "Relative", "Number", "Estimate", *(TIMES[t] for t in results.times), "By chance"),
                    rows,
                    (0, 1, 3),
                    (0,),
                ),
            )
        ],
    )


def _masked(results: NovelResults) -> Part:
    masked = results.masked

    def row(band: BandMetrics, measure: str) -> tuple[str, ...]:
        cells: list[str] = [band.band]
        for kind in ("novel", "other"):
            found = band.metrics.get(kind)
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
        folded=[(capital(_MEASURES[measure]), table(measure)) for measure in MEASURES if measure != "top10"],
    )


def _structure(results: NovelResults) -> Part | None:
    rows, by_system = [], []
    for one in results.correlations[AFTER]:
        if one.correlation is None:
            continue
        found = [correlation_of(results, time, one.pairs_of, one.system) for time in results.times]
        cells = [shown(f.correlation if f else None, sign=True) for f in found]
        listed = rows if one.system == ALL else by_system
        listed.append((_SYSTEMS[one.system], _PAIRS[one.pairs_of], f"{one.pairs:,}", *cells))
    if not rows:
        return None
    columns = ("Code system", "Pairs", "Number", *(f"Spearman, {TIMES[time].lower()}" for time in results.times))
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
        tables=[Table(columns, rows, (0, 1))],
        folded=[("By code system", Table(columns, by_system, (0, 1)))],
    )


def _chapters(results: NovelResults) -> Part | None:
    def rows(names: Sequence[str]) -> list[tuple[str, ...]]:
        return [
            (
                _SYSTEMS.get(name, name.removeprefix("icd ").removeprefix("atc ")),
                f"{results.silhouettes[AFTER].metrics[name][0]:,}",
                *(shown(results.silhouettes[time].metrics[name][1], sign=True) for time in results.times),
            )
            for name in names
            if results.silhouettes[AFTER].metrics[name][0]
        ]

    families = results.table.families
    systems, chapters = rows([ALL, *families.system_names]), rows([f"{s} {c}" for s, c in families.chapter_names])
    if not systems:
        return None
    columns = ("Codes", "Number", *(TIMES[time] for time in results.times))
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
            "A point is a code, its color and number the chapter (letters: ATC's anatomical groups). Novel codes have "
            "a black ring, filled where they never occur in training; a line leads to the parent.",
            f"t-SNE (perplexity {results.perplexity:g}) shows who are neighbors; distances between islands and their "
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
        capital(OTHER_UNSEEN): ~table.novel & unseen,
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
        return shown(Estimate(value)) if np.isfinite(value := table.nearness[time].cosines["parent"][row]) else "–"

    def rank(ranks: np.ndarray, row: int) -> str:
        return f"{ranks[row]:,}" if ranks[row] else "–"

    columns: dict[str, Callable[[int], str]] = {
        "Code": lambda row: keys[row][1],
        "Name": lambda row: _short(table.names[row]),
        "In training": lambda row: "–" if table.in_training is None else f"{table.in_training[row]:,}",
        "Parent": lambda row: keys[parent][1] if (parent := table.families.parents[row]) >= 0 else "–",
        **{f"Cosine {TIMES[t].lower()}": (lambda row, t=t: cosine(t, row)) for t in results.times},
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
