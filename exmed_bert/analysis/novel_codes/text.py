"""Text and tables of an analysis of novel codes: from `NovelResults` to the sections of its report."""

from collections.abc import Sequence

from exmed_bert.analysis.novel_codes.code_list import individual_codes
from exmed_bert.analysis.novel_codes.inputs import AFTER, BEFORE
from exmed_bert.analysis.novel_codes.main_metrics import RELATIVES
from exmed_bert.analysis.novel_codes.masked_codes import MEASURES, BandMetrics
from exmed_bert.analysis.novel_codes.neighbors import HITS
from exmed_bert.analysis.novel_codes.results import NovelResults
from exmed_bert.analysis.novel_codes.structure import ALL, BETWEEN, NOVEL, WITHIN
from exmed_bert.analysis.novel_codes.summary import TIMES, summary
from exmed_bert.codes import code_system
from exmed_bert.evaluation.formatting import estimate_cell, format_number
from exmed_bert.reporting.content import Cell, ReportSection, Style, Table, capital

_RELATIONS = {"parent": "parent", "siblings": "siblings", "chapter": "rest of the chapter", "any": "any other code"}
_PAIRS = {
    ALL: "all pairs",
    WITHIN: "within a chapter",
    BETWEEN: "in different chapters",
    NOVEL: "with a novel code",
}
_MEASURES = {"top1": "top 1", "top5": "top 5", "top10": "top 10", "loss": "loss, nats"}


def sections(results: NovelResults) -> list[ReportSection]:
    """Return the sections of the report in their order; what there is nothing for is left out."""
    found = [
        summary(results),
        _cosines(results),
        _ranks(results),
        _masked(results),
        _structure(results),
        _chapters(results),
        _maps(results),
        individual_codes(results),
    ]
    return [section for section in found if section is not None]


def _cosines(results: NovelResults) -> ReportSection:
    rows: list[tuple[Cell, ...]] = []
    times = [*results.times, *(["change"] if BEFORE in results.times else [])]
    for group in results.groups:
        for relation, name in _RELATIONS.items():
            count = group.cosines[AFTER][relation][0]
            if count:
                cells = [estimate_cell(group.cosines[time][relation][1], sign=time == "change") for time in times]
                rows.append((capital(group.name), name, f"{count:,}", *cells))
    columns = ("Codes", "To", "Number", *(TIMES[time] for time in times))
    return ReportSection(
        "cosines",
        "Similarity to relatives",
        [
            "Cosine of a code's embedding to that of its parent, mean cosine to its siblings, to the rest of its "
            "chapter and to any other code; the mean over codes. 1 is the same direction. Embeddings may all lean the "
            "same way, so compare each line with “any other code”.",
            "The parent is the code one level up, or its nearest ancestor that the model knows; siblings have the same "
            "parent. Where training was started with --use-hierarchical-init, codes that never occur in training are "
            "placed by their relatives: their similarity was put in, and masked-code prediction is the test.",
        ],
        plots=["cosines"],
        folded=[Table(columns, rows, {0: "text", 1: "word"}, "The numbers of the plot")],
    )


def _ranks(results: NovelResults) -> ReportSection | None:
    short: list[tuple[Cell, ...]] = []
    rows: list[tuple[Cell, ...]] = []
    names = [*(f"hit@{top}" for top in HITS), "mrr"]
    for group in results.groups:
        for relative, label in RELATIVES.items():
            found = {time: group.ranks[time][relative] for time in results.times}
            after = found[AFTER]
            if not after.codes:
                continue
            start = (capital(group.name), label, f"{after.codes:,}")
            medians = [f"{found[time].median:,.0f}" for time in results.times]
            hits = [estimate_cell(found[time].hits["hit@10"]) for time in results.times]
            short.append((*start, *medians, *hits, format_number(after.by_chance["hit@10"])))
            for name in names:
                cells = [estimate_cell(found[time].hits[name]) for time in results.times]
                shown = name.upper() if name == "mrr" else name
                rows.append((*start, shown, *cells, format_number(after.by_chance[name])))
    if not short:
        return None
    moments = [TIMES[time].lower() for time in results.times]
    columns = ("Codes", "Relative", "Number", *(f"Median rank {m}" for m in moments), *(f"hit@10 {m}" for m in moments))
    every = ("Codes", "Relative", "Number", "Metric", *(TIMES[time] for time in results.times), "By chance")
    return ReportSection(
        "ranks",
        "Rank of relatives among all codes",
        [
            "All codes are ordered by their cosine to a code, the nearest first; the rank of its parent, and of its "
            "nearest sibling, says whether relatives come before other codes. hit@10 is the share of codes whose "
            "relative has a rank up to 10, MRR the mean of 1 / rank. By chance: in a random order, where a code with "
            "many siblings meets one early.",
        ],
        plots=["ranks"],
        tables=[Table((*columns, "hit@10 by chance"), short, {0: "text", 1: "word"})],
        folded=[Table(every, rows, {0: "text", 1: "word", 3: "word"}, "hit@1, hit@5, hit@10 and MRR")],
    )


def _masked(results: NovelResults) -> ReportSection:
    masked = results.masked

    def row(band: BandMetrics, measure: str) -> tuple[Cell, ...]:
        cells: list[Cell] = [band.band]
        for kind in ("novel", "other"):
            cells += [f"{band.codes[kind]:,}", f"{band.positions[kind]:,}"]
            cells.append(estimate_cell(band.metrics[kind][measure] if kind in band.metrics else None))
        return (*cells, estimate_cell(band.differences.get(measure), sign=True))

    def table(measure: str, caption: str = "") -> Table:
        of = _MEASURES[measure]
        columns = (
            "In training",
            "Novel codes",
            "Positions",
            f"Novel, {of}",
            "Other codes",
            "Positions",
            f"Others, {of}",
            "Novel minus others",
        )
        return Table(columns, [row(band, measure) for band in masked.rows()], caption=caption)

    return ReportSection(
        "masked",
        "Masked-code prediction by training frequency",
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
        folded=[table(measure, capital(_MEASURES[measure])) for measure in MEASURES if measure != "top10"],
    )


def _structure(results: NovelResults) -> ReportSection | None:
    rows: list[tuple[Cell, ...]] = []
    by_system: list[tuple[Cell, ...]] = []
    for one in results.correlations[AFTER]:
        if one.correlation is None:
            continue
        found = [results.correlation(time, one.pairs_of, one.system) for time in results.times]
        cells = [estimate_cell(correlation, sign=True) for correlation in found]
        listed = rows if one.system == ALL else by_system
        listed.append((_system(one.system), _PAIRS[one.pairs_of], f"{one.pairs:,}", *cells))
    if not rows:
        return None
    columns = ("Code system", "Pairs", "Number", *(f"Spearman, {TIMES[time].lower()}" for time in results.times))
    styles: dict[int, Style] = {0: "word", 1: "word"}
    return ReportSection(
        "structure",
        "Tree distance and embedding distance",
        [
            "Distance in the tree counts the steps from code to code: E11.8 and E11.9 are 2 apart, by way of E11. "
            "Above the topmost codes stand the chapters, where these are no codes themselves, and the top of the code "
            "system. Codes of different systems are never paired.",
            "Over pairs in different chapters the tree's distance only says how deep both codes lie, so no correlation "
            "is to be expected there. The plot shows all pairs: quartiles of the cosine at each distance.",
        ],
        plots=["distances"],
        tables=[Table(columns, rows, styles)],
        folded=[Table(columns, by_system, styles, "By code system")],
    )


def _chapters(results: NovelResults) -> ReportSection | None:
    silhouettes = results.silhouettes

    def rows(keys: Sequence[tuple[str, str]]) -> list[tuple[Cell, ...]]:
        return [
            (
                chapter or _system(system),
                f"{after.codes:,}",
                *(estimate_cell(silhouettes[time].mean_of(system, chapter).mean, sign=True) for time in results.times),
            )
            for system, chapter in keys
            if (after := silhouettes[AFTER].mean_of(system, chapter)).codes
        ]

    families = results.table.families
    systems = rows([(ALL, ""), *((name, "") for name in families.system_names)])
    if not systems:
        return None
    columns = ("Codes", "Number", *(TIMES[time] for time in results.times))
    return ReportSection(
        "chapters",
        "Silhouettes of chapters",
        [
            "The silhouette of a code compares its mean distance to its own chapter with that to the nearest other "
            "chapter: near 1 the chapters are islands, at 0 they overlap, below it codes are nearer to another "
            "chapter. Codes that occur together in patients cross chapters, so training need not raise it.",
        ],
        plots=["silhouettes"],
        tables=[Table(columns, systems)],
        folded=[Table(columns, rows(families.chapter_names), caption="By chapter")],
    )


def _maps(results: NovelResults) -> ReportSection:
    return ReportSection(
        "maps",
        "Maps",
        [
            "A point is a code, its color and label the chapter. Novel codes have a black ring, filled where they "
            "never occur in training; a line leads to the parent.",
            f"t-SNE (perplexity {results.perplexity:g}) shows neighborhoods; distances between islands and their "
            "sizes mean nothing. Principal components show the two directions of most variance and keep distances as "
            "far as two dimensions can. TensorBoard's projector shows the same embeddings in three dimensions.",
        ],
        plots=[f"map_{kind}_{time}" for kind in ("tsne", "pca") for time in results.times],
    )


def _system(name: str) -> str:
    return "all" if name == ALL else code_system(name).title
