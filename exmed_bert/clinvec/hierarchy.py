"""Embeddings of the code trees in ClinVec's file format, to use where ClinVec's own files are not available.

The graph: ICD-10-CM codes of up to seven characters with the dot (ClinVec's limit too), their parents, blocks and
chapters; the ATC codes of the reference tables and the groups above them; the words of the codes' names; and the
tables' indications, from prescription to condition. ICD-10-CM is in the public domain (NCHS). Random walks on the graph
are embedded by random projection (FastRP: Chen et al., 2019, https://doi.org/10.1145/3357384.3357879).

This is not ClinVec: it knows no clinical knowledge graph, and no patients.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix, diags

from exmed_bert import console
from exmed_bert.clinvec.reader import NODES_FILE
from exmed_bert.codes import ATC, ICD10CM, CodeKey, ancestors, code_system, normalize
from exmed_bert.codes.icd10cm_list import official_list
from exmed_bert.config import Resolved
from exmed_bert.files import check_writable
from exmed_bert.locks import held
from exmed_bert.reference.names import code_names, drug_names, indications
from exmed_bert.settings import HierarchySettings
from exmed_bert.staging import staged_files
from exmed_bert.startup import called

HELD_OUT = "held_out"
_LONGEST_ICD, _CATEGORY = 7, 3  # characters
_WALK = 4  # steps of the random walks that are summed up
_HUBS = -0.5  # exponent of a node's degree: a word of thousands of names says little
_SPREAD = 3.0  # standard deviation of the values, about that of ClinVec's
_README = """Embeddings of the ICD-10-CM and ATC trees

These files are NOT ClinVec. They have its format, so that what reads ClinVec reads them, and were made by
    {command}
a random-walk embedding of the code trees, of the words in the codes' names, and of indications. They are for
demonstrations and tests.

ClinGraph_nodes.csv      one line per code: {counts}
ClinVec_<vocabulary>.csv node_index and {dimension} values; the header of each column begins with "hierarchy"
held_out/                the same for {held_out:.0%} of the codes, drawn by the seed, which the files above leave out:
                         the truth with which to compare the initialization of missing codes
"""

Node = tuple[str, str]  # kind (a code system, "group" or "word") and name


@dataclass
class Graph:
    """An undirected graph with weighted edges, built up edge by edge."""

    ids: dict[Node, int] = field(default_factory=dict)
    ends: list[tuple[int, int]] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    def add(self, one: Node, other: Node, weight: float) -> None:
        """Add an edge, and its nodes where they are new."""
        ids = self.ids
        self.ends.append((ids.setdefault(one, len(ids)), ids.setdefault(other, len(ids))))
        self.weights.append(weight)

    def adjacency(self) -> csr_matrix:
        """Return the symmetric matrix of weights, (nodes, nodes), with a loop of weight 1 at each node."""
        rows, columns = np.array(self.ends).T
        weights = np.array(self.weights)
        n = len(self.ids)
        loops = np.arange(n)
        return coo_matrix(
            (
                np.concatenate([weights, weights, np.ones(n)]),
                (np.concatenate([rows, columns, loops]), np.concatenate([columns, rows, loops])),
            ),
            shape=(n, n),
        ).tocsr()


@dataclass(frozen=True)
class HierarchyEmbeddings:
    """Codes as (system, code), their names, their vectors (n, dimension) float32, and which are held out, (n,) bool."""

    keys: list[CodeKey]
    names: list[str]
    vectors: np.ndarray
    held_out: np.ndarray


def build_graph() -> tuple[Graph, dict[CodeKey, str]]:
    """Return the graph, and the name of each code in it.

    Raises:
        InputError: the package with ICD-10-CM's list is not installed.
    """
    official = official_list()
    graph = Graph()
    names = {key: name for key, name in code_names().items() if len(key[1]) <= _LONGEST_ICD}
    for code in official.get_all_codes(True):
        is_code = normalize(code, ICD10CM) == code
        if len(code) > _LONGEST_ICD and is_code:
            continue
        above = official.get_parent(code)
        if above:
            below_category = is_code and len(code) > _CATEGORY  # a block of one category has its name
            node = (ICD10CM if is_code else "group", code)
            graph.add(node, (ICD10CM if below_category else "group", above), 1.0)
    for _, code in drug_names():
        below = code
        for above in ancestors(code, ATC):
            if (ATC, below) not in graph.ids or (ATC, above) not in graph.ids:
                graph.add((ATC, below), (ATC, above), 1.0)
            below = above
    for prescribed, condition, probability in indications():
        graph.add(prescribed, condition, probability)
    _add_words(graph, names)
    return graph, names


def _add_words(graph: Graph, names: dict[CodeKey, str]) -> None:
    words = {node: sorted(set(re.findall(r"[a-z0-9]+", name.lower()))) for node, name in names.items()}
    counts = Counter(word for of_node in words.values() for word in of_node)
    for node, of_node in words.items():
        for word in of_node:
            if counts[word] > 1:
                rarity = float(np.log(len(names) / counts[word]))
                graph.add(node, ("word", word), rarity / np.log(len(names)))


def embed(adjacency: csr_matrix, dimension: int, seed: int) -> np.ndarray:
    """Return vectors of the nodes, (nodes, dimension) float32: near each other where random walks lead alike.

    The sum over one to four steps of the transition matrix times a random matrix, each step's rows normalized.
    """
    degrees = np.asarray(adjacency.sum(axis=1)).ravel()
    transition = diags(1 / degrees) @ adjacency
    rng = np.random.Generator(np.random.Philox(seed))
    at_step = rng.standard_normal((len(degrees), dimension)) * (degrees**_HUBS)[:, None]
    total = np.zeros_like(at_step)
    for _ in range(_WALK):
        at_step = transition @ at_step
        total += at_step / np.linalg.norm(at_step, axis=1, keepdims=True)
    total -= total.mean(axis=0)
    return (total * (_SPREAD / total.std())).astype(np.float32)


def make(dimension: int, held_out: float, seed: int) -> HierarchyEmbeddings:
    """Embed the graph and choose the codes that are held out.

    Args:
        dimension: length of the vectors.
        held_out: share of the codes of each system.
        seed: seed of both.
    """
    graph, names = build_graph()
    vectors = embed(graph.adjacency(), dimension, seed)
    keys = [key for key in names if key[0] == ICD10CM or len(key[1]) > 1]  # ClinVec has no anatomical groups
    rows = np.array([graph.ids[key] for key in keys])
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, 1])))
    left_out = np.zeros(len(keys), dtype=bool)
    systems = np.array([system for system, _ in keys])
    for system in (ICD10CM, ATC):
        of_system = np.flatnonzero(systems == system)
        left_out[rng.permutation(of_system)[: round(held_out * len(of_system))]] = True
    return HierarchyEmbeddings(keys, [names[key] for key in keys], vectors[rows], left_out)


def write(made: HierarchyEmbeddings, folder: Path, chosen: np.ndarray) -> dict[str, int]:
    """Write the chosen codes, (n,) bool, in ClinVec's format; return how many there are of each vocabulary.

    Raises:
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocabularies = {system: code_system(system).name for system in (ICD10CM, ATC)}
    indices = np.flatnonzero(chosen)
    with open(folder / NODES_FILE, "w", encoding="utf-8", newline="") as file:
        file.write("node_id\tnode_name\tntype\tnode_index\n")
        for row, index in enumerate(indices.tolist()):
            system, code = made.keys[index]
            name = vocabularies[system]
            file.write(f"{code}:{name}\t{made.names[index]}\t{name.upper()}\t{row}\n")
    counts = {}
    for system, name in vocabularies.items():
        rows = [row for row, index in enumerate(indices.tolist()) if made.keys[index][0] == system]
        _write_vectors(folder / f"ClinVec_{name}.csv", rows, made.vectors[indices[rows]])
        counts[name] = len(rows)
    return counts


def _write_vectors(path: Path, indices: Iterable[int], vectors: np.ndarray) -> None:
    import pyarrow as pa
    from pyarrow import csv

    columns = [pa.array(indices, pa.int64()), *(pa.array(column) for column in vectors.round(4).T)]
    names = ["", *(f"hierarchy_{i}" for i in range(vectors.shape[1]))]
    csv.write_csv(pa.table(columns, names=names), path)


def check(settings: HierarchySettings) -> None:
    """Refuse a folder that cannot be written, before anything is embedded.

    Raises:
        InputError: it cannot.
    """
    check_writable(settings.output_dir)


def run(resolved: Resolved[HierarchySettings]) -> None:
    """Make the embeddings and write them, those held out apart, all files or none.

    Raises:
        InputError: the folder cannot be written, or another process is writing it.
    """
    settings = resolved.settings
    options = f"--dimension {settings.dimension} --held-out {settings.held_out} --seed {settings.seed}"
    with held(settings.output_dir, called("hierarchy")):
        console.echo("Embedding the code trees")
        made = make(settings.dimension, settings.held_out, settings.seed)
        with staged_files(settings.output_dir) as staged:
            counts = write(made, staged, ~made.held_out)
            left_out = write(made, staged / HELD_OUT, made.held_out)
            readme = _README.format(
                command=f"{called('hierarchy')} {options}",
                counts=", ".join(f"{count:,} of {name}" for name, count in counts.items()),
                dimension=settings.dimension,
                held_out=settings.held_out,
            )
            (staged / "README.txt").write_text(readme, encoding="utf-8")
            resolved.save(staged / "settings.json")
    console.table("Hierarchy embeddings (not ClinVec)", [(name, f"{n:,} codes") for name, n in counts.items()])
    console.table("Held out", [(name, f"{n:,} codes") for name, n in left_out.items()])
    console.table(
        "Written",
        [
            ("embeddings", settings.output_dir),
            ("start from them with", f"--use-clinvec --clinvec-dir {settings.output_dir} --use-hierarchical-init"),
        ],
    )
