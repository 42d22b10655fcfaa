"""Reading ClinVec: the vectors of medical codes that were learned on the ClinGraph knowledge graph.

The published files (Johnson et al., https://github.com/mims-harvard/ClinVec, doi:10.7910/DVN/Z6H1A8):

- ``ClinGraph_nodes.csv``, separated by tabs: ``node_id`` (``<code>:<vocabulary>``, as ``E11.9:icd10cm``),
  ``node_name``, ``ntype``, ``node_index``.
- ``ClinVec_<vocabulary>.csv``, separated by commas: the first column, without a name, is the ``node_index``, the
  others are the vector, which is not normalised (values up to about 10 in size).

A vector belongs to the node with its ``node_index``, not to the node in the same row: the files' rows do not run in
parallel, and a join by row would quietly give most codes the vector of something else.
"""

import csv
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from exmed_bert.codes import ATC, ICD, CodeSystem, ancestors, normalise
from exmed_bert.console import InputError, OptionError
from exmed_bert.files import existing_file

CodeKey = tuple[CodeSystem, str]

NODES_FILE = "ClinGraph_nodes.csv"
FOLDER_CONTENT = f"{NODES_FILE} and ClinVec_<vocabulary>.csv"

_SYSTEMS: dict[str, CodeSystem] = {"icd10cm": ICD, "atc": ATC}
# Nameless as published; pandas and other programs name the column when they save the file again.
_INDEX_NAMES = ("", "node_index", "Unnamed: 0")


@dataclass(frozen=True)
class ClinVecVectors:
    """Vectors of medical codes.

    Attributes:
        rows: (code system, code) to row of ``vectors``; codes in their system's usual spelling.
        vectors: (rows, dimension) float32, as published.
    """

    rows: dict[CodeKey, int]
    vectors: np.ndarray

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self.vectors.shape[1]


def read_clinvec(folder: Path, vocab_types: str | Sequence[str], wanted: AbstractSet[CodeKey] | None) -> ClinVecVectors:
    """Read the vectors of the wanted codes and their ancestors.

    Every row of a requested file is checked, also those that are not kept.

    Args:
        folder: holds ``ClinGraph_nodes.csv`` and a ``ClinVec_<vocabulary>.csv`` for each requested vocabulary.
        vocab_types: names of ClinVec vocabularies (``icd10cm``, ``atc``), a list or separated by commas.
        wanted: (code system, code) in the system's usual spelling; None keeps every code.

    Raises:
        InputError: a file is missing, a row is malformed, a node_index stands twice, or a vector belongs to no node or
            to a node of another vocabulary.
        OptionError: a vocabulary is unknown or none is given.
    """
    folder = Path(folder)
    files = _vector_files(folder, _vocabularies(vocab_types))
    nodes = _read_nodes(folder / NODES_FILE)
    kept = None if wanted is None else wanted | {(s, above) for s, code in wanted for above in ancestors(code, s)}

    keys: list[CodeKey] = []
    matrices: list[np.ndarray] = []
    for vocabulary, path in files.items():
        found, matrix = _read_vectors(path, vocabulary, nodes, kept)
        if matrices and matrix.shape[1] != matrices[0].shape[1]:
            raise InputError(
                f"{path}: has vectors of {matrix.shape[1]} dimensions, expected {matrices[0].shape[1]} as in "
                f"{next(iter(files.values())).name}"
            )
        keys += found
        matrices.append(matrix)
    return ClinVecVectors({key: row for row, key in enumerate(keys)}, np.concatenate(matrices))


def _vocabularies(vocab_types: str | Sequence[str]) -> list[str]:
    names = vocab_types.split(",") if isinstance(vocab_types, str) else vocab_types
    names = [name.strip().lower() for name in names]
    unknown = ", ".join(f"'{name}'" for name in names if name not in _SYSTEMS)
    if unknown or not names:
        raise OptionError(f"--vocab-types: {unknown or 'nothing given'}, expected {' or '.join(_SYSTEMS)}")
    return names


def _vector_files(folder: Path, vocabularies: list[str]) -> dict[str, Path]:
    """Return the vector file of each vocabulary; check that all files are there before any is read."""
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "folder not found"
        raise InputError(f"{folder}: {problem}, expected a folder with {FOLDER_CONTENT}")
    existing_file(folder / NODES_FILE, f"expected {FOLDER_CONTENT} in this folder")
    present = ", ".join(sorted(path.name for path in folder.glob("ClinVec_*.csv"))) or "no ClinVec_*.csv"
    return {name: existing_file(folder / f"ClinVec_{name}.csv", f"there is {present}") for name in vocabularies}


def _read_nodes(path: Path) -> dict[int, str]:
    """Return node_index to node_id."""
    records = _records(path, "\t")
    _, header = next(records, (1, []))
    if not {"node_id", "node_index"} <= set(header):
        raise InputError(
            f"{path}: line 1: the columns are {header}, expected node_id, node_name, ntype and node_index separated "
            "by tabs"
        )
    id_column, index_column = header.index("node_id"), header.index("node_index")
    nodes: dict[int, str] = {}
    for line, row in records:
        where = f"{path}: line {line}"
        if len(row) != len(header):
            raise InputError(f"{where}: {len(row)} columns, expected {len(header)}")
        index = _node_index(row[index_column], where)
        if index in nodes:
            raise InputError(
                f"{where}: node_index {index} of node '{row[id_column]}' is already that of '{nodes[index]}', "
                "expected one node for each"
            )
        nodes[index] = row[id_column]
    return nodes


def _read_vectors(
    path: Path, vocabulary: str, nodes: dict[int, str], kept: AbstractSet[CodeKey] | None
) -> tuple[list[CodeKey], np.ndarray]:
    """Return the codes of ``kept`` that have a vector, and the vectors, (codes, dimension) float32."""
    system = _SYSTEMS[vocabulary]
    records = _records(path, ",")
    _, header = next(records, (1, []))
    if len(header) < 2 or header[0] not in _INDEX_NAMES:
        raise InputError(
            f"{path}: line 1: the columns are {_shortened(header)}, expected a first column without a name, the "
            "node_index, and a column for each dimension"
        )
    seen: set[int] = set()
    found: dict[CodeKey, np.ndarray] = {}
    for line, row in records:
        where = f"{path}: line {line}"
        if len(row) != len(header):
            raise InputError(f"{where}: {len(row)} columns, expected {len(header)}: node_index and vector")
        index = _node_index(row[0], where)
        if index in seen:
            raise InputError(f"{where}: node_index {index} stands a second time, expected one vector for each node")
        seen.add(index)
        if index not in nodes:
            raise InputError(f"{where}: node_index {index} is not in {NODES_FILE}, expected a node for each vector")
        code, _, node_type = nodes[index].rpartition(":")
        if node_type.lower() != vocabulary:
            raise InputError(
                f"{where}: node_index {index} is node '{nodes[index]}' in {NODES_FILE}, expected a node of type "
                f"{vocabulary}: are both files of one release, and is the first column the node_index?"
            )
        vector = _vector(row[1:], header[1:], f"{where}: node_index {index}")
        usual_code = normalise(code, system)
        if usual_code is not None and (kept is None or (system, usual_code) in kept):
            found[system, usual_code] = vector
    return list(found), np.array(list(found.values()), dtype=np.float32).reshape(len(found), len(header) - 1)


def _records(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not blank, each with the number of the line it ends on. Names may stand in quotes."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter)
        try:
            for row in reader:
                if row:
                    yield reader.line_num, row
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: is not UTF-8 text: {error.reason}") from None
        except csv.Error as error:
            raise InputError(
                f"{path}: line {reader.line_num}: {error}, expected columns apart by {delimiter!r}"
            ) from None


def _node_index(text: str, where: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(f"{where}: node_index '{text}', expected a whole number") from None


def _vector(values: list[str], columns: list[str], where: str) -> np.ndarray:
    """Return the values as float32, all of them finite."""
    try:
        vector = _as_float32(values)
        if np.isfinite(vector).all():
            return vector
    except ValueError:
        pass
    column, value = next(pair for pair in zip(columns, values, strict=True) if not _is_finite(pair[1]))
    raise InputError(f"{where}: column {column}: '{value}', expected a finite number")


def _is_finite(text: str) -> bool:
    try:
        return bool(np.isfinite(_as_float32(text)))
    except ValueError:
        return False


@np.errstate(over="ignore")  # a number beyond float32 becomes infinite, which the callers refuse
def _as_float32(text: str | list[str]) -> np.ndarray:
    return np.array(text, dtype=np.float32)


def _shortened(names: list[str]) -> str:
    return f"{names[:3]} and {len(names) - 3} more" if len(names) > 3 else str(names)
