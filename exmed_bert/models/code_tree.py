"""The trees above a vocabulary's codes: which rows each code's row is a sum of, and what these have learned.

A row of a code table, of the embeddings or of the code head, is the sum of a row that is the code's own and of those of
its ancestors and its chapter, which are trained, too; an ancestor that is a code of the vocabulary has one row in both
roles. The code's own and all others together have half of the expected squared length each. What is learned of one code
is learned of its family, and a code that the model never met is the sum of its ancestors alone.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from scipy.sparse import csr_matrix
from torch import Tensor
from torch.nn import functional as F

from exmed_bert.codes import CodeKey, code_system
from exmed_bert.console import InputError

OWN_SHARE = 0.5  # of a row's expected squared length
EMBEDDINGS = "bert.embeddings.code_embeddings.weight"
HEAD = "code_classifier.predictions.decoder.weight"
BIAS = "code_classifier.predictions.decoder.bias"
CODE_TABLES = (EMBEDDINGS, HEAD, BIAS)  # parameters with a row for each code
_NAMES = dict(zip(("embeddings", "head", "bias"), CODE_TABLES, strict=True))  # in the file


def ancestors_of(key: CodeKey) -> list[str]:
    """Return the names of the nodes above a code: its ancestors, nearest first, and its chapter; none in a flat system.

    Above a measurement with its value stands the measurement.

    >>> ancestors_of(("icd10cm", "E11.9")), ancestors_of(("cpt", "99213")), ancestors_of(("loinc", "4548-4|Q4"))
    (['icd10cm:E11', 'icd10cm/4 Endocrine and metabolic'], [], ['loinc:4548-4'])
    """
    name, code = key
    system = code_system(name)
    above = [f"{name}:{higher}" for higher in system.ancestors(code)]
    return [*above, f"{name}/{system.chapter(code)}"] if system.has_hierarchy else above


@dataclass(frozen=True)
class CodeTree:
    """Which rows the row of each code is a sum of.

    Attributes:
        nodes: names of N rows: those of the V ids of a vocabulary (empty for special tokens), then those of ancestors
            that are no codes of it, and of chapters.
        own: (V,) float32, how much the row of an id takes of its own.
        above: (V, N), how much it takes of the rows of its ancestors and its chapter.
    """

    nodes: tuple[str, ...]
    own: np.ndarray
    above: csr_matrix

    @classmethod
    def of(cls, keys: Sequence[CodeKey | None], unseen: Collection[int] = ()) -> "CodeTree":
        """Return the trees above a vocabulary.

        Args:
            keys: (code system, code) of each id, None for special tokens.
            unseen: ids whose own row training does not reach; they are sums of their ancestors alone.
        """
        names = ["" if key is None else ":".join(key) for key in keys]
        column = {name: i for i, name in enumerate(names) if name}
        for node in (node for key in keys if key is not None for node in ancestors_of(key)):
            if node not in column:
                column[node] = len(names)
                names.append(node)
        shares = np.full(len(keys), OWN_SHARE)
        shares[list(unseen)] = 0.0
        above = _sums(keys, column, len(names), 1 - shares)
        shares[np.diff(above.indptr) == 0] = 1.0
        return cls(tuple(names), np.sqrt(shares).astype(np.float32), above)

    @property
    def keys(self) -> list[CodeKey | None]:
        """(code system, code) of each row, None for special tokens and chapters."""
        parts = [node.partition(":") for node in self.nodes]
        return [(system, code) if colon and "/" not in system else None for system, colon, code in parts]


def _sums(
    keys: Sequence[CodeKey | None], column: Mapping[str, int], width: int, shares: np.ndarray | None = None
) -> csr_matrix:
    """Return what the row of each code takes of the rows of the named nodes above it, (V, width).

    ``shares``, (V,), are those of the row's expected squared length; not given: all of it.
    """
    found = [
        [] if key is None else sorted(column[node] for node in ancestors_of(key) if node in column) for key in keys
    ]
    counts = np.array([len(columns) for columns in found], dtype=np.int64)
    values = np.repeat(np.sqrt((1.0 if shares is None else shares) / counts.clip(1)), counts)
    columns = np.array([column for columns in found for column in columns], dtype=np.int64)
    return csr_matrix((values, columns, np.concatenate(([0], counts.cumsum()))), shape=(len(keys), width))


class RowSums:
    """Weighted sums of rows: the product of a sparse matrix with a dense one, by torch's sums of embeddings."""

    def __init__(self, matrix: csr_matrix) -> None:
        """Take the weights, (m, n)."""
        self._columns, self._starts = (
            torch.from_numpy(part.astype(np.int64)) for part in (matrix.indices, matrix.indptr)
        )
        self._weights = torch.from_numpy(matrix.data.astype(np.float32))

    def to(self, device: torch.device) -> None:
        """Move the weights to a device."""
        self._columns, self._starts, self._weights = (
            tensor.to(device) for tensor in (self._columns, self._starts, self._weights)
        )

    def __call__(self, rows: Tensor) -> Tensor:
        """(n, d) -> (m, d)."""
        return F.embedding_bag(
            self._columns, rows, self._starts, mode="sum", per_sample_weights=self._weights, include_last_offset=True
        )


@dataclass(frozen=True)
class TreeRows:
    """What the codes and the nodes above them have learned, before they are summed up.

    Attributes:
        nodes: their names.
        tables: by the name of a parameter, `CODE_TABLES`, (N, d) float32; d is 1 for the bias.
        offset: what the logits of codes that training never met are lowered by, in nats.
    """

    nodes: tuple[str, ...]
    tables: Mapping[str, np.ndarray]
    offset: float

    def sums(self, keys: Sequence[CodeKey | None]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return which of the codes have a node above them, (n,) bool, and by parameter the sums of these, (n, d).

        The bias is lowered by the offset.
        """
        above = _sums(keys, {node: i for i, node in enumerate(self.nodes)}, len(self.nodes))
        rows = {name: (above @ table).astype(np.float32) for name, table in self.tables.items()}
        rows[BIAS] -= np.float32(self.offset)
        return np.diff(above.indptr) > 0, rows

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.nodes)

    def place(self, key: CodeKey) -> bool:
        """Return whether a code has a node above it, so that its row can be told."""
        return not self._known.isdisjoint(ancestors_of(key))

    def of(self, keys: Sequence[CodeKey | None]) -> "TreeRows":
        """Return the rows of some codes and of the nodes above them alone."""
        kept = {node for key in keys if key is not None for node in (":".join(key), *ancestors_of(key))}
        chosen = [i for i, node in enumerate(self.nodes) if node in kept]
        tables = {name: table[chosen] for name, table in self.tables.items()}
        return TreeRows(tuple(self.nodes[i] for i in chosen), tables, self.offset)

    def write(self, path: Path) -> None:
        """Write the rows by the names of their nodes."""
        tensors = {name: np.ascontiguousarray(self.tables[parameter]) for name, parameter in _NAMES.items()}
        tensors["offset"] = np.array([self.offset], dtype=np.float32)
        save_file(tensors, path, metadata={"nodes": json.dumps(list(self.nodes))})

    @classmethod
    def read(cls, path: Path, hidden_size: int) -> "TreeRows":
        """Read what `write` wrote.

        Raises:
            InputError: the file is damaged, or of a model of another size.
        """
        try:
            with safe_open(path, "np") as file:
                nodes = json.loads((file.metadata() or {})["nodes"])
                tables = {parameter: file.get_tensor(name) for name, parameter in _NAMES.items()}
                offset = float(file.get_tensor("offset")[0])
            if not isinstance(nodes, list) or any(type(node) is not str for node in nodes):
                raise ValueError("nodes: expected names")
        except (OSError, SafetensorError, KeyError, ValueError, RecursionError) as error:
            raise InputError(f"{path}: is damaged ({error}), expected the rows of the nodes above codes") from None
        for parameter, table in tables.items():
            expected = (len(nodes), 1 if parameter == BIAS else hidden_size)
            if table.shape != expected or table.dtype != np.float32:
                raise InputError(
                    f"{path}: is damaged: {table.dtype} of shape {table.shape}, expected float32 of {expected}"
                )
        return cls(tuple(nodes), tables, offset)


@torch.no_grad()
def with_sums(table: Tensor, rows: TreeRows, keys: Sequence[CodeKey | None]) -> Tensor:
    """Return the embeddings of a model's codes with the sums of further ones at their end, (V + n, d).

    Args:
        table: (V, d), of the first V of the codes.
        rows: of the model's nodes.
        keys: (code system, code) of each id, V + n of them; those that are new have a node above them.
    """
    _, sums = rows.sums(keys[len(table) :])
    return torch.cat((table, torch.from_numpy(sums[EMBEDDINGS]).to(table)))
