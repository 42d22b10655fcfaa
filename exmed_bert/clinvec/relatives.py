"""Estimates of the vectors of codes that have none: weighted means of their relatives' in the tree.

A code is taken to lie near its parent, as its siblings do. Its estimate is the mean of the siblings' vectors, shrunk to
the parent's vector as if this were so many more siblings (``trust``); where the code has children, it is their mean,
shrunk to that. A parent without a vector is estimated in the same way from its own relatives, up to the mean of the
ICD-10-CM chapter or ATC anatomical group. How far to trust a parent is measured for each code system on the vectors
themselves: each leaf that has one is estimated without it, and the trust that comes closest is taken.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.sparse import csr_matrix

from exmed_bert.codes import CodeKey, ancestors, chapter, code_system, parent

How = Literal["own", "ancestor", "siblings", "chapter", "none"]

TRUSTS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, np.inf)  # 0: siblings alone, infinite: parent alone
_TRUST_IN_ESTIMATE = 1.0  # a parent that has no vector itself counts as one sibling
_TRUST_BESIDE_CHILDREN = 1.0  # parent and siblings together count as one child
_SAMPLE = 2000  # codes of a system that the trust is measured on
DEVIATION = 0.05  # of the distance between siblings and parent


@dataclass(frozen=True)
class Origin:
    """Where a code's vector comes from.

    Attributes:
        how: its own vector; a real ancestor's, with those of siblings; siblings or children alone; the mean of its
            chapter or anatomical group; or nothing.
        ancestor: the nearest ancestor with a vector.
        siblings: codes with a vector that have the same parent.
    """

    how: How
    ancestor: str | None = None
    siblings: int = 0


class Relatives:
    """The codes that have a vector, as trees.

    Args:
        keys: (code system, code) of each row of a table of vectors.
    """

    def __init__(self, keys: Sequence[CodeKey]) -> None:
        self.keys = list(keys)
        self.rows = {key: row for row, key in enumerate(self.keys)}
        self._children: dict[CodeKey, list[int]] = {}
        groups: dict[CodeKey, int] = {}
        members = []
        for row, (system, code) in enumerate(self.keys):
            above = parent(code, system)
            if above is not None:
                self._children.setdefault((system, above), []).append(row)
            members.append(groups.setdefault((system, chapter(code, system)), len(groups)))
        self._groups = groups
        self._members = np.array(members, dtype=np.int64)
        self._group_sizes = np.bincount(self._members, minlength=len(groups))

    def estimates(self, wanted: Iterable[CodeKey], trust: dict[str, float]) -> tuple[csr_matrix, list[Origin]]:
        """Return the weights that `blend` takes, a row for each wanted code, and where each comes from.

        A code that has a vector itself is estimated as if it had none. The weights of a row sum to 1; those of a code
        without any relative are 0.
        """
        weights, origins = [], []
        for system, code in wanted:
            found = self._estimate(system, code, self.rows.get((system, code), -1), trust.get(system, 1.0))
            weights.append(found or {})
            origins.append(self._origin(system, code, bool(found)))
        lengths = np.array([0, *map(len, weights)])
        columns = np.fromiter((column for row in weights for column in row), dtype=np.int64, count=lengths.sum())
        values = np.fromiter((value for row in weights for value in row.values()), dtype=float, count=lengths.sum())
        shape = (len(weights), len(self.keys) + len(self._groups))
        return csr_matrix((values, columns, lengths.cumsum()), shape=shape), origins

    def blend(self, weights: csr_matrix, table: np.ndarray) -> np.ndarray:
        """Return the estimates, (m, d) float32, from weights of `estimates` and a table, (n, d), a row for each key.

        A mean of vectors is shorter than they are; each estimate gets the mean length of what it is made of.
        """
        means = np.zeros((len(self._groups), table.shape[1]))
        np.add.at(means, self._members, table)
        lengths = np.linalg.norm(table, axis=1)
        mean_lengths = np.bincount(self._members, lengths, len(self._groups)) / self._group_sizes.clip(1)
        means /= self._group_sizes.clip(1)[:, None]
        blended = weights @ np.vstack([table, means])
        wanted = weights @ np.concatenate([lengths, mean_lengths])
        own = np.linalg.norm(blended, axis=1)
        return (blended * np.divide(wanted, own, out=np.zeros_like(own), where=own > 0)[:, None]).astype(np.float32)

    def measure_trust(self, table: np.ndarray) -> dict[str, float]:
        """Return for each code system the trust in a parent with which codes of the table are estimated best.

        Best is the highest median cosine between estimates and vectors, over up to 2,000 codes, evenly spaced, that
        have a parent and siblings with a vector and no children: codes without a vector are leaves, too, as a rule,
        and the children of broad groups are less alike.
        """
        chosen = {}
        for system in {system for system, _ in self.keys}:
            rows = [row for row, key in enumerate(self.keys) if key[0] == system and self._has_both(row)]
            rows = rows[:: max(len(rows) // _SAMPLE, 1)]
            if not rows:
                continue
            true, parents, siblings, counts = self._parents_and_siblings(rows, table)

            def median_cosine(
                trust: float, true: np.ndarray = true, parents: np.ndarray = parents, s: np.ndarray = siblings,
                n: np.ndarray = counts,
            ) -> float:  # fmt: skip
                estimate = parents if np.isinf(trust) else (n * s + trust * parents) / (n + trust)
                norms = np.linalg.norm(estimate, axis=1) * np.linalg.norm(true, axis=1)
                return float(np.median((estimate * true).sum(axis=1) / norms.clip(1e-12)))

            chosen[system] = max(TRUSTS, key=median_cosine)
        return chosen

    def spreads(self, wanted: Sequence[CodeKey], table: np.ndarray) -> np.ndarray:
        """Return for each wanted code how far siblings lie from their parent, (m,): root mean square of the distances.

        Of the code's own siblings where at least two and the parent have a vector, else the median over the families
        of its code system; without any family the length of a vector, from which nothing is known to be nearer.
        """
        found: dict[CodeKey, float] = {}
        by_system: dict[str, list[float]] = {}
        for (system, above), children in self._children.items():
            row = self.rows.get((system, above))
            if row is not None:
                spread = float(np.sqrt((np.linalg.norm(table[children] - table[row], axis=1) ** 2).mean()))
                by_system.setdefault(system, []).append(spread)
                if len(children) > 1:
                    found[system, above] = spread
        usual = {system: float(np.median(spreads)) for system, spreads in by_system.items()}
        length = float(np.linalg.norm(table, axis=1).mean())
        families = [(system, parent(code, system) or "") for system, code in wanted]
        return np.array([found.get(family, usual.get(family[0], length)) for family in families])

    def _estimate(self, system: str, code: str, own: int, trust: float, top: bool = True) -> dict[int, float] | None:
        """Return column to weight; None where there is no relative.

        ``own`` is the row that may not be used, ``top`` tells whether the code is the one that was asked for, and not
        an ancestor of it, whose children are its own siblings.
        """
        above = parent(code, system)
        if above is None:
            found = self._chapter_mean(system, code, own)
        else:
            siblings = [row for row in self._children.get((system, above), ()) if row != own]
            if (system, above) in self.rows:
                found = _shrunk(siblings, {self.rows[system, above]: 1.0}, trust)
            else:
                found = _shrunk(siblings, self._estimate(system, above, own, trust, False), _TRUST_IN_ESTIMATE)
        children = self._children.get((system, code), []) if top else []
        return _shrunk(children, found, _TRUST_BESIDE_CHILDREN)

    def _chapter_mean(self, system: str, code: str, own: int) -> dict[int, float] | None:
        group = self._groups.get((system, chapter(code, system)))
        if group is None:
            return None
        size = int(self._group_sizes[group])
        column = len(self.keys) + group
        if own < 0 or self._members[own] != group:
            return {column: 1.0}
        return {column: size / (size - 1), own: -1 / (size - 1)} if size > 1 else None

    def _origin(self, system: str, code: str, found: bool) -> Origin:
        if not found:
            return Origin("none")
        real = next((above for above in ancestors(code, system) if (system, above) in self.rows), None)
        own = self.rows.get((system, code))
        near = parent(code, system)
        siblings = sum(row != own for row in self._children.get((system, near or ""), ()))
        if real is not None:
            return Origin("ancestor", real, siblings)
        family = (code, *ancestors(code, system))
        further = any(self._children.get((system, above), [own]) != [own] for above in family)
        return Origin("siblings" if further else "chapter", None, siblings)

    def _has_both(self, row: int) -> bool:
        system, code = self.keys[row]
        above = parent(code, system)
        is_leaf = (system, code) not in self._children
        return is_leaf and (system, above) in self.rows and len(self._children[system, above or ""]) > 1

    def _parents_and_siblings(
        self, rows: list[int], table: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return for each row its vector, its parent's, the mean of its siblings', (r, d) each, and their number."""
        above = [(self.keys[row][0], parent(self.keys[row][1], self.keys[row][0]) or "") for row in rows]
        sums = {key: table[self._children[key]].sum(axis=0, dtype=np.float64) for key in set(above)}
        counts = np.array([len(self._children[key]) - 1 for key in above], dtype=float)[:, None]
        true = table[rows].astype(np.float64)
        siblings = (np.array([sums[key] for key in above]) - true) / counts
        return true, table[[self.rows[key] for key in above]].astype(np.float64), siblings, counts


def _shrunk(rows: list[int], base: dict[int, float] | None, trust: float) -> dict[int, float] | None:
    """Return the weights of the mean of some rows, shrunk to ``base`` as if that were ``trust`` more of them."""
    if not rows or (base is not None and np.isinf(trust)):
        return base
    share = 0.0 if base is None else trust / (len(rows) + trust)
    found = {column: share * value for column, value in (base or {}).items()} if share > 0 else {}
    for row in rows:
        found[row] = found.get(row, 0.0) + (1 - share) / len(rows)
    return found


def deviations(keys: Sequence[CodeKey], spreads: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Return a small step for each code, (m, size) float32, that depends on the seed and the code alone.

    It keeps apart codes that have the same relatives: a twentieth of the distance between siblings and their parent.
    """
    steps = np.empty((len(keys), size), dtype=np.float32)
    for row, (system, code) in enumerate(keys):
        name = f"{code_system(system).entity}:{code}"
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *name.encode()])))
        steps[row] = rng.standard_normal(size, dtype=np.float32)
    return steps * (DEVIATION * spreads[:, None] / np.sqrt(size)).astype(np.float32)
