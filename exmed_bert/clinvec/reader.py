"""Reading ClinVec: the vectors of medical codes that were learned on the ClinGraph knowledge graph.

The published files (Johnson et al., https://github.com/mims-harvard/ClinVec, doi:10.7910/DVN/Z6H1A8):

- ``ClinGraph_nodes.csv``, separated by tabs: ``node_id`` (``<code>:<vocabulary>``, as ``E11.9:icd10cm``),
  ``node_name``, ``ntype``, ``node_index``.
- ``ClinVec_<vocabulary>.csv``, separated by commas: the first column, without a name, is the ``node_index``, the
  others are the vector, 128 values up to about 10 in size, not normalized.

A vector belongs to the node with its ``node_index``, not to the node in the same row: the files' rows do not run in
parallel, and a join by row would quietly give most codes the vector of something else. Files that were saved again by
other programs are read where they leave no doubt what a row belongs to.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from exmed_bert.codes import CodeKey, code_system, code_systems, normalize
from exmed_bert.console import InputError, OptionError
from exmed_bert.data.bounded import open_bounded
from exmed_bert.files import existing_file
from exmed_bert.settings import ClinVecSettings

if TYPE_CHECKING:
    import pyarrow as pa

NODES_FILE = "ClinGraph_nodes.csv"
FOLDER_CONTENT = f"{NODES_FILE} and ClinVec_<vocabulary>.csv"


# ClinVec's vocabularies, and how the ids of their nodes end. Each has the name of the code system that it serves, or an
# alias; umls serves none.
_NODE_TYPES = {"snomedct": "snomedct_us", "umls": "umls_cui"}
VOCABULARIES = ("icd10cm", "icd9cm", "atc", "cpt", "rxnorm", "phecode", "lnc", "snomedct", "umls")
AUTO = "auto"
_DIGITS = 18  # of a node_index, so that it fits into 64 bits
_MOST_WITHOUT = 0.1  # share of a vocabulary's nodes without a vector; above it, a file is likely to be cut short

# Nameless as published; pandas names the column when it saves the file again.
_INDEX_NAMES = ("", "node_index", "Unnamed: 0")
_ID_NAME = "node_id"


@dataclass(frozen=True)
class ClinVecVectors:
    """Vectors of medical codes.

    Attributes:
        rows: (code system, code) to row of ``vectors``; codes in their system's usual spelling. A vocabulary that
            serves none of our systems stands under its own name.
        vectors: (rows, dimension) float32, as published.
        sizes: the number of codes of each vocabulary.
        without: nodes of each vocabulary that have no vector, where there are any.
        warnings: what was left out, a line each.
    """

    rows: dict[CodeKey, int]
    vectors: np.ndarray
    sizes: dict[str, int] = field(default_factory=dict)
    without: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return self.vectors.shape[1]


def read_clinvec(
    folder: Path, vocab_types: str | Sequence[str], systems: AbstractSet[str] | None = None
) -> ClinVecVectors:
    """Read the vectors of some vocabularies. Vectors with a value that is no finite number are left out.

    Args:
        folder: holds ``ClinGraph_nodes.csv`` and a ``ClinVec_<vocabulary>.csv`` for each requested vocabulary; each may
            be compressed, with ``.gz`` behind its name.
        vocab_types: names of ClinVec vocabularies, a list or separated by commas; ``auto`` takes those of the folder
            that serve ``systems``.
        systems: names of the code systems that are to be served; None for all.

    Raises:
        InputError: a file is missing, a row is malformed, a node or vector stands twice, or a vector belongs to no node
            or to a node of another vocabulary.
        OptionError: a vocabulary is unknown or none is given.
    """
    folder = Path(folder)
    files = vector_files(folder, vocab_types, systems)
    tables = {name: _VectorFile.read(path) for name, path in files.items()}
    nodes = None
    if any(not table.by_id for table in tables.values()):
        nodes = _read_nodes(_file(folder, NODES_FILE, f"expected {FOLDER_CONTENT} in this folder"))

    rows: dict[CodeKey, int] = {}
    kept: list[np.ndarray] = []
    sizes, without, warnings = {}, {}, []
    first = next(iter(tables.values()))
    for name, table in tables.items():
        if table.vectors.shape[1] != first.vectors.shape[1]:
            raise InputError(
                f"{table.path}: has vectors of {table.vectors.shape[1]} dimensions, expected {first.vectors.shape[1]} "
                f"as in {first.path.name}"
            )
        codes = table.codes(name, nodes)
        finite = np.isfinite(table.vectors).all(axis=1)
        if not finite.all():
            warnings.append(
                f"{table.path}: {int((~finite).sum()):,} of {len(finite):,} vectors hold a value that is no finite "
                f"number and are left out, the first that of {codes[int(np.argmin(finite))]}"
            )
        if nodes is not None and (missing := (of_type := nodes.count(_node_type(name))) - len(codes)) > 0:
            without[name] = missing
            if missing > _MOST_WITHOUT * of_type:
                warnings.append(
                    f"{table.path}: {missing:,} of the {of_type:,} nodes of {name} in {nodes.path.name} have no "
                    "vector; is the file whole?"
                )
        system = _system_of(name)
        repeated: list[str] = []
        start = sum(map(len, kept))
        taken: list[int] = []
        for row in np.flatnonzero(finite).tolist():
            code = codes[row] if system is None else normalize(codes[row], system)
            if code is None:
                continue
            if (system or name, code) in rows:
                repeated.append(code)
                continue
            rows[system or name, code] = start + len(taken)
            taken.append(row)
        if repeated:
            warnings.append(
                f"{table.path}: {len(repeated):,} codes stand there a second time in another spelling, the first of "
                f"them {repeated[0]}; the vector that comes first is read"
            )
        kept.append(table.vectors[taken])
        sizes[name] = len(taken)
    return ClinVecVectors(rows, np.concatenate(kept), sizes, without, warnings)


def _node_type(vocabulary: str) -> str:
    """Return how the ids of a vocabulary's nodes end."""
    return _NODE_TYPES.get(vocabulary, vocabulary)


def _system_of(vocabulary: str) -> str | None:
    """Return the name of the code system that a vocabulary of ClinVec's serves."""
    try:
        return code_system(vocabulary).name
    except ValueError:
        return None


def _names(vocab_types: str | Sequence[str]) -> list[str]:
    names = vocab_types.split(",") if isinstance(vocab_types, str) else vocab_types
    names = list(dict.fromkeys(name.strip().lower() for name in names))
    if names == [AUTO]:
        return names
    unknown = ", ".join(f"'{name}'" for name in names if name not in VOCABULARIES)
    if unknown or not names:
        raise OptionError(f"--vocab-types: {unknown or 'nothing given'}, expected {AUTO} or {', '.join(VOCABULARIES)}")
    return names


def clinvec_folder(settings: ClinVecSettings) -> Path:
    """Return --clinvec-dir.

    Raises:
        OptionError: it is not given.
    """
    if settings.clinvec_dir is None:
        raise OptionError(f"--use-clinvec needs --clinvec-dir, a folder with {FOLDER_CONTENT}")
    return settings.clinvec_dir


def vector_files(
    folder: Path, vocab_types: str | Sequence[str], systems: AbstractSet[str] | None = None
) -> dict[str, Path]:
    """Return the vector file of each vocabulary, all of which are there; `read_clinvec` explains the arguments.

    Raises:
        InputError: the folder or a file is missing.
        OptionError: a vocabulary is unknown or none is given.
    """
    names = _names(vocab_types)
    if systems is None:
        systems = {system.name for system in code_systems()}
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "folder not found"
        raise InputError(f"{folder}: {problem}, expected a folder with {FOLDER_CONTENT}")
    present = ", ".join(sorted(path.name for path in folder.glob("ClinVec_*.csv*"))) or "no ClinVec_*.csv"
    if names == [AUTO]:
        useful = [name for name in VOCABULARIES if _system_of(name) in systems]
        names = [name for name in useful if _found(folder, f"ClinVec_{name}.csv")]
        if not names:
            wanted = " or ".join(f"ClinVec_{name}.csv" for name in useful)
            raise InputError(f"{folder}: expected {wanted}, there is {present}")
    return {name: _file(folder, f"ClinVec_{name}.csv", f"there is {present}") for name in names}


def _found(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _file(folder: Path, name: str, hint: str) -> Path:
    return _found(folder, name) or existing_file(folder / name, hint)


@dataclass(frozen=True)
class _Nodes:
    """The graph's nodes by ascending node_index."""

    path: Path
    indices: np.ndarray
    ids: list[str]

    def count(self, node_type: str) -> int:
        """Return how many nodes are of a type."""
        return sum(node_id.lower().endswith(f":{node_type}") for node_id in self.ids)


@dataclass(frozen=True)
class _VectorFile:
    """A file of vectors: what each row belongs to, a node_index or (``by_id``) a node_id, and (n, d) float32."""

    path: Path
    keys: list[str]
    by_id: bool
    vectors: np.ndarray
    key_column: int

    @classmethod
    def read(cls, path: Path) -> "_VectorFile":
        header, second = _first_rows(path, ",")
        skipped = 0  # columns before that of the key
        if len(header) > 1 and len(second) == len(header) + 1 and header[0] not in (*_INDEX_NAMES, _ID_NAME):
            header = ["", *header]  # the name of the first column was left out, not left empty
        elif len(header) > 2 and header[0] in _INDEX_NAMES and header[1] in (*_INDEX_NAMES[1:], _ID_NAME):
            skipped = 1  # numbered once more by the program that saved it
        if len(header) < 2 + skipped or header[skipped] not in (*_INDEX_NAMES, _ID_NAME):
            raise InputError(
                f"{path}: line 1: the columns are {_shortened(header)}, expected a first column without a name, the "
                "node_index, and a column for each dimension"
            )
        names = [str(i) for i in range(len(header))]
        table = _read_csv(path, ",", names, names[skipped:], header, skipped)
        keys = table.column(0).to_pylist()
        by_id = header[skipped] == _ID_NAME and not all(map(_is_whole_number, keys))
        vectors = np.empty((len(table), table.num_columns - 1), dtype=np.float32)
        for column in range(vectors.shape[1]):
            vectors[:, column] = table.column(column + 1).to_numpy()
        return cls(path, keys, by_id, vectors, skipped)

    def codes(self, name: str, nodes: _Nodes | None) -> list[str]:
        """Return the code of each row, as the file or the graph spells it; nodes are needed unless ``by_id``."""
        node_type = _node_type(name)
        if self.by_id:
            ids = [key if ":" in key else f"{key}:{node_type}" for key in self.keys]
        else:
            assert nodes is not None
            indices = _node_indices(self.keys, self.path, ",", self.key_column)
            place = np.searchsorted(nodes.indices, indices).clip(max=len(nodes.ids) - 1)
            lost = np.flatnonzero(nodes.indices[place] != indices)
            if len(lost):
                raise InputError(
                    f"{self._where(self.keys[lost[0]])} is not in {nodes.path.name} ({len(lost):,} such vectors), "
                    "expected a node for each vector"
                )
            ids = [nodes.ids[i] for i in place.tolist()]
        codes, seen = [], set()
        for key, node_id in zip(self.keys, ids, strict=True):
            code, _, its_type = node_id.rpartition(":")
            if its_type.lower() != node_type:
                raise InputError(
                    f"{self._where(key)} is node '{node_id}' in {NODES_FILE}, expected a node of type {node_type}: "
                    "are both files of one release, and is the first column the node_index?"
                )
            if node_id in seen:
                raise InputError(
                    f"{self._where(key)}: the code {code.strip()} stands a second time, expected each code once"
                )
            seen.add(node_id)
            codes.append(code.strip())
        return codes

    def _where(self, key: str) -> str:
        kind = "node" if self.by_id else "node_index"
        return f"{self.path}: line {_line_of(self.path, ',', self.key_column, key)}: {kind} {key}"


def _read_nodes(path: Path) -> _Nodes:
    header, _ = _first_rows(path, "\t")
    if not {"node_id", "node_index"} <= set(header):
        raise InputError(
            f"{path}: line 1: the columns are {header}, expected node_id, node_name, ntype and node_index separated "
            "by tabs"
        )
    names = [str(i) for i in range(len(header))]
    wanted = [names[header.index("node_index")], names[header.index("node_id")]]
    table = _read_csv(path, "\t", names, wanted, header, None)
    texts, ids = table.column(0).to_pylist(), table.column(1).to_pylist()
    if not ids:
        raise InputError(f"{path}: holds no node")
    column = header.index("node_index")
    indices = _node_indices(texts, path, "\t", column)
    order = np.argsort(indices, kind="stable")
    indices = indices[order]
    twice = np.flatnonzero(indices[1:] == indices[:-1])
    if len(twice):
        one, other = (ids[order[twice[0] + step]] for step in (0, 1))
        line = _line_of(path, "\t", column, texts[order[twice[0]]])
        raise InputError(
            f"{path}: line {line}: node_index {indices[twice[0]]} of node '{other}' is already that of '{one}', "
            "expected one node for each"
        )
    return _Nodes(path, indices, [ids[i] for i in order.tolist()])


def _first_rows(path: Path, delimiter: str) -> tuple[list[str], list[str]]:
    """Return the header and the first row below it, either may be empty."""
    rows = (row for _, row in _rows(path, delimiter))
    return next(rows, []), next(rows, [])


def _read_csv(
    path: Path, delimiter: str, names: list[str], wanted: list[str], header: list[str], numbers_after: int | None
) -> "pa.Table":
    """Return the wanted columns below the header: strings, or float32 behind the column ``numbers_after``."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    floats = [] if numbers_after is None else names[numbers_after + 1 :]
    types = dict.fromkeys(names, pa.string()) | dict.fromkeys(floats, pa.float32())
    try:
        with open_bounded(path) as file:
            return arrow_csv.read_csv(
                file,
                arrow_csv.ReadOptions(column_names=names, skip_rows=_header_lines(path, delimiter)),
                arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=not floats),
                arrow_csv.ConvertOptions(
                    column_types=types, include_columns=wanted, null_values=[], strings_can_be_null=False
                ),
            )
    except (pa.ArrowInvalid, OSError) as error:
        raise _explained(path, delimiter, header, numbers_after, error) from None


def _header_lines(path: Path, delimiter: str) -> int:
    return next((line for line, _ in _rows(path, delimiter)), 0)


def _explained(
    path: Path, delimiter: str, header: list[str], numbers_after: int | None, error: Exception
) -> InputError:
    """Return an error that names the first row that cannot be read."""
    for number, (line, row) in enumerate(_rows(path, delimiter)):
        if number == 0:
            continue
        if len(row) != len(header):
            return InputError(f"{path}: line {line}: {len(row)} columns, expected {len(header)}")
        for name, text in zip(header, row, strict=True) if numbers_after is not None else ():
            if name not in (*_INDEX_NAMES, _ID_NAME) and not _is_number(text):
                return InputError(f"{path}: line {line}: column {name}: '{text}', expected a number")
    return InputError(f"{path}: cannot be read: {error}")


def _rows(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not blank, each with the number of the line it ends on. Names may stand in quotes."""
    with io.TextIOWrapper(open_bounded(path), encoding="utf-8-sig", newline="") as file:
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
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error}") from None


def _node_indices(texts: list[str], path: Path, delimiter: str, column: int) -> np.ndarray:
    wrong = next((text for text in texts if not _is_whole_number(text)), None)
    if wrong is not None:
        line = _line_of(path, delimiter, column, wrong)
        raise InputError(f"{path}: line {line}: node_index '{wrong}', expected a whole number")
    return np.array(list(map(int, texts)), dtype=np.int64)


def _line_of(path: Path, delimiter: str, column: int, text: str) -> int:
    """Return the last line below the header whose column holds the text."""
    lines = [line for line, row in _rows(path, delimiter) if row[column] == text]
    return lines[-1]


def _is_whole_number(text: str) -> bool:
    digits = text.strip().removeprefix("-")
    return digits.isdecimal() and len(digits) <= _DIGITS


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _shortened(names: list[str]) -> str:
    return f"{names[:3]} and {len(names) - 3} more" if len(names) > 3 else str(names)
