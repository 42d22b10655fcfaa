"""A small ClinVec folder, laid out as the published one."""

import csv
from pathlib import Path

import numpy as np


def write_clinvec_folder(folder: Path, codes: dict[str, list[str]], dimension: int = 128, seed: int = 0) -> Path:
    """Write ``ClinGraph_nodes.csv`` and a ``ClinVec_<vocabulary>.csv`` for each vocabulary; return the folder.

    No vocabulary's node_index starts at 0, rows stand in random order, and some names hold quotes or read like a
    missing value: a reader that joins by row, or that guesses types, gets wrong nodes.

    Args:
        folder: made when it is not there.
        codes: vocabulary (``icd10cm``, ``atc``) to codes.
        dimension: length of the vectors.
        seed: seed of the vectors and of the order of rows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    nodes = [("001.0:icd9cm", "Cholera", "ICD9CM"), ("250.0:icd9cm", "NA", "ICD9CM")]
    for vocabulary, its_codes in codes.items():
        indices = np.arange(len(nodes), len(nodes) + len(its_codes))
        nodes += [(f"{code}:{vocabulary}", f'{code} "NOS", unspecified', vocabulary.upper()) for code in its_codes]
        values = random.normal(0, 3, (len(its_codes), dimension)).astype(np.float32)
        rows = [(index, *map(str, vector)) for index, vector in zip(indices.tolist(), values, strict=True)]
        _write(folder / f"ClinVec_{vocabulary}.csv", ",", ["", *range(dimension)], rows, random)
    nodes.append(("C0000727:umls_cui", "", "UMLS_CUI"))
    header = ["node_id", "node_name", "ntype", "node_index"]
    _write(folder / "ClinGraph_nodes.csv", "\t", header, [(*node, i) for i, node in enumerate(nodes)], random)
    return folder


def _write(path: Path, delimiter: str, header: list, rows: list[tuple], random: np.random.Generator) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows[i] for i in random.permutation(len(rows)))
