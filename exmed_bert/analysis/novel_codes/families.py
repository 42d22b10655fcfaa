"""Codes of a vocabulary as trees: parents, siblings, chapters, and distances in the tree. Arrays, no files."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from exmed_bert.codes import CodeKey, ancestors, chapter, parent


class CodeFamilies:
    """N codes of a vocabulary and their relations.

    Args:
        keys: (code system, code) of each row of a table of embeddings.

    Attributes:
        parents: (N,) int64, row of the parent of each code; where that is not among the codes, of its nearest ancestor
            there; -1 where there is none.
        direct: (N,) bool, whether that is the parent itself.
        siblings: for each code the rows of the others that have the same parent, which need not be among the codes.
        systems: (N,) int64, index into ``system_names``.
        system_names: names of the code systems.
        chapters: (N,) int64, index into ``chapter_names``.
        chapter_names: code system and chapter.
    """

    def __init__(self, keys: Sequence[CodeKey]) -> None:
        self.keys = list(keys)
        rows = {key: row for row, key in enumerate(self.keys)}
        self.parents = np.full(len(self.keys), -1, dtype=np.int64)
        self.direct = np.zeros(len(self.keys), dtype=bool)
        children: dict[CodeKey, list[int]] = {}
        for row, (system, code) in enumerate(self.keys):
            above = ancestors(code, system)
            found = next((a for a in above if (system, a) in rows), None)
            if found is not None:
                self.parents[row] = rows[system, found]
                self.direct[row] = found == above[0]
            if above:
                children.setdefault((system, above[0]), []).append(row)
        families = [children.get((system, parent(code, system) or ""), []) for system, code in self.keys]
        self.siblings = [
            np.array([other for other in family if other != row], dtype=np.int64) for row, family in enumerate(families)
        ]
        self.system_names, self.systems = _numbered([system for system, _ in self.keys])
        self.chapter_names, self.chapters = _numbered([(system, chapter(code, system)) for system, code in self.keys])

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def paths(self) -> np.ndarray:
        """(N, depth) int64: nodes from the top of the code system down to the code, padded with -1.

        The top, then the chapter, then the codes of the tree. Where a chapter is itself a code, as ATC's anatomical
        groups are, it is one node.
        """
        ids: dict[tuple[str, str], int] = {}
        paths = []
        for system, code in self.keys:
            tree, group = [*reversed(ancestors(code, system)), code], chapter(code, system)
            is_code = group.split(maxsplit=1)[0] == tree[0]  # the code and the name of the topmost code
            nodes = ["top", *([] if is_code else [f"chapter {group}"]), *tree]
            paths.append([ids.setdefault((system, node), len(ids)) for node in nodes])
        table = np.full((len(paths), max(map(len, paths), default=1)), -1, dtype=np.int64)
        for row, path in enumerate(paths):
            table[row, : len(path)] = path
        return table

    def tree_distances(self, rows: np.ndarray) -> np.ndarray:
        """Return the steps from code to code in the tree, (n, n) int64; -1 between code systems.

        Args:
            rows: (n,) which codes.
        """
        paths = self.paths[rows]
        depths = (paths >= 0).sum(axis=1)
        common = np.zeros((len(rows), len(rows)), dtype=np.int64)
        for nodes in paths.T:  # a node stands in one place of a tree, so what is equal is equal from the top on
            common += (nodes[:, None] == nodes) & (nodes >= 0)
        return np.where(common > 0, depths[:, None] + depths - 2 * common, -1)


def _numbered(names: list) -> tuple[list, np.ndarray]:
    distinct = sorted(set(names))
    index = {name: i for i, name in enumerate(distinct)}
    return distinct, np.array([index[name] for name in names], dtype=np.int64)
