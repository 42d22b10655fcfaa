"""Novel and unseen codes one by one: a table that one searches, and trees that one unfolds."""

from collections.abc import Callable, Mapping

import numpy as np

from exmed_bert.analysis.novel_codes.groups import OTHER_UNSEEN
from exmed_bert.analysis.novel_codes.inputs import AFTER
from exmed_bert.analysis.novel_codes.results import CodeTable, NovelResults
from exmed_bert.analysis.novel_codes.summary import TIMES
from exmed_bert.codes import code_system, parent
from exmed_bert.evaluation.formatting import format_number
from exmed_bert.reference.names import name_of
from exmed_bert.reporting.content import Branch, ReportSection, Style, Table, Tree, Verdict

MOST_ROWS, MOST_BRANCHES = 1000, 600  # codes in the table and in the trees; codes.csv has them all

_UNSEEN = Verdict("never in training", "none")


def individual_codes(results: NovelResults) -> ReportSection | None:
    """Return the section on single codes, None where none is novel or unseen."""
    table = results.table
    unseen = table.in_training == 0 if table.in_training is not None else np.zeros(len(table.novel), dtype=bool)
    kinds = {
        "novel, never in training": table.novel & unseen,
        "novel": table.novel & ~unseen,
        OTHER_UNSEEN: ~table.novel & unseen,
    }
    kind_of = {
        row: kind
        for kind, member in kinds.items()
        for row in np.flatnonzero(member).tolist()
        if row not in table.hidden
    }
    if not kind_of:
        return None
    shown = dict(list(kind_of.items())[:MOST_ROWS])
    caption = f"{len(kind_of):,} codes" + (f", the first {len(shown):,}" if len(shown) < len(kind_of) else "")
    novel = [row for row in shown if table.novel[row]][:MOST_BRANCHES]
    return ReportSection(
        "codes",
        "Individual codes",
        [
            "Position and prediction of each novel or unseen code. codes.csv has every code.",
            "A branch of the trees tells of a novel code what its embedding is near to, with cosines after training, "
            "and what the model takes it for where it is masked: the guesses with the highest probability on average.",
        ],
        trees=_trees(results, novel),
        tables=[code_table(results, shown, caption)],
    )


def code_table(results: NovelResults, kinds: Mapping[int, str], caption: str) -> Table:
    """Return the table of some codes, by row what kind they are of."""
    table, keys = results.table, results.table.families.keys
    near = table.nearness[AFTER]

    def cosine(time: str) -> Callable[[int], str]:
        cosines = table.nearness[time].cosines["parent"]
        return lambda row: format_number(cosines[row]) if np.isfinite(cosines[row]) else "–"

    columns: dict[str, Callable[[int], str]] = {
        "Code": lambda row: keys[row][1],
        "Name": lambda row: short_name(table.names[row]),
        "Kind": kinds.__getitem__,
        "In training": lambda row: "–" if table.in_training is None else f"{table.in_training[row]:,}",
        "Parent": lambda row: keys[above][1] if (above := _parent(table, row)) >= 0 else "–",
        **{f"Cosine {TIMES[t].lower()}": cosine(t) for t in results.times},
        "Parent's rank": lambda row: _rank(near.parent_ranks, row),
        "Nearest sibling's rank": lambda row: _rank(near.sibling_ranks, row),
        "Masked": lambda row: f"{table.masked[row]:,}",
        "In top 10": lambda row: f"{table.top10[row]:,}",
        "Nearest codes": lambda row: " ".join(keys[i][1] for i in _open(table, near.nearest[row].tolist())[:3]),
    }
    of_name: dict[str, Style] = {
        "Code": "code",
        "Name": "text",
        "Kind": "word",
        "Parent": "word",
        "Nearest codes": "word",
    }
    styles = {i: of_name[name] for i, name in enumerate(columns) if name in of_name}
    return Table(tuple(columns), [tuple(cell(row) for cell in columns.values()) for row in kinds], styles, caption)


def chapter_order(name: str) -> tuple[int, str]:
    """Return a key that puts numbered chapters into the order of their numbers.

    >>> sorted(["10 Respiratory", "B Blood", "9 Circulatory"], key=chapter_order)
    ['B Blood', '9 Circulatory', '10 Respiratory']
    """
    number = name.split()[0]
    return (int(number), "") if number.isdecimal() else (0, name)


def _trees(results: NovelResults, rows: list[int]) -> list[Tree]:
    """Return a tree of each code system: chapters, parents, codes."""
    table = results.table
    families = table.families
    found: dict[str, dict[str, dict[str, list[int]]]] = {}
    for row in sorted(rows, key=lambda row: families.keys[row]):
        system, code = families.keys[row]
        chapter = families.chapter_names[families.chapters[row]][1]
        above = families.keys[known][1] if (known := _parent(table, row)) >= 0 else parent(code, system) or ""
        found.setdefault(system, {}).setdefault(chapter, {}).setdefault(above, []).append(row)
    trees = []
    for system, chapters in found.items():
        branches = []
        for chapter in sorted(chapters, key=chapter_order):
            parents: list[Branch] = []
            for above, own in chapters[chapter].items():
                codes = [_code(table, row) for row in own]
                parents += [Branch(above, short_name(name_of(system, above)), branches=codes)] if above else codes
            number = sum(map(len, chapters[chapter].values()))
            branches.append(Branch(chapter, f"{number:,} novel", branches=parents))
        trees.append(Tree(f"Novel codes of {code_system(system).title}", branches))
    return trees


def _code(table: CodeTable, row: int) -> Branch:
    families, near = table.families, table.nearness[AFTER]
    keys = families.keys

    def named(other: int) -> str:
        return f"{keys[other][1]} {short_name(table.names[other], 40)}"

    facts = []
    if (above := _parent(table, row)) >= 0:
        cosine = format_number(near.cosines["parent"][row])
        facts.append(("Parent", f"{named(above)}: cosine {cosine}, rank {_rank(near.parent_ranks, row)}"))
    if siblings := [one for one in table.siblings.get(row, ()) if one[0] not in table.hidden]:
        told = "; ".join(f"{named(other)} {format_number(cosine)}" for other, cosine in siblings)
        more = len(families.siblings[row]) - len(siblings)
        facts.append(("Siblings, by cosine", told + (f"; {more:,} more" if more else "")))
    facts.append(("Nearest codes", "; ".join(named(other) for other in _open(table, near.nearest[row].tolist())[:3])))
    counts = [] if table.in_training is None else [f"{table.in_training[row]:,} in training"]
    counts.append(f"{table.masked[row]:,} masked, {table.top10[row]:,} of them in the top 10")
    facts.append(("Events", "; ".join(counts)))
    if guesses := [guess for guess in table.guesses.get(row, ()) if guess[0] not in table.hidden]:
        facts.append(("Guesses", "; ".join(f"{named(other)} {100 * share:.0f} %" for other, share in guesses)))
    unseen = table.in_training is not None and table.in_training[row] == 0
    return Branch(keys[row][1], short_name(table.names[row]), _UNSEEN if unseen else None, facts)


def _open(table: CodeTable, rows: list[int]) -> list[int]:
    """Return those of some rows whose codes may be named."""
    return [row for row in rows if row not in table.hidden]


def _parent(table: CodeTable, row: int) -> int:
    """Return the row of a code's parent; -1 where there is none, or it may not be named."""
    above = int(table.families.parents[row])
    return -1 if above in table.hidden else above


def _rank(ranks: np.ndarray, row: int) -> str:
    return f"{ranks[row]:,}" if ranks[row] else "–"


def short_name(name: str, most: int = 60) -> str:
    """Return a name of at most so many characters.

    >>> short_name("Type 2 diabetes mellitus", 16)
    'Type 2 diabetes…'
    """
    return name if len(name) <= most else f"{name[: most - 1].rstrip()}…"
