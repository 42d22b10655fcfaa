"""Tokenized patients between the two passes of a conversion: pieces with provisional ids, in files of their own.

The first pass reads and tokenizes the input part by part; which codes there are is known when the last part is read.
The second pass gives the codes their final ids and writes the datasets. In between stand these files.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from exmed_bert.data.patient import PatientId
from exmed_bert.parallel import worker_name

Piece = dict[str, np.ndarray]
"""Columns of some patients, as `assembly.select_piece` returns them."""

_IDS = "ids"
_TEXT_IDS = "text_ids"


def write_piece(path: Path, piece: Piece) -> None:
    """Write a piece, whole or not at all; nothing in the file can be executed.

    A worker that a cluster has given up may still be at the same piece as the one in its place.
    """
    columns = {name: column for name, column in piece.items() if name != _IDS}
    ids: Sequence[PatientId] = piece[_IDS].tolist()
    if all(type(one) is int and -(2**63) <= one < 2**63 for one in ids):
        columns[_IDS] = np.array(ids, dtype=np.int64)
    else:
        columns[_TEXT_IDS] = np.frombuffer(json.dumps(ids).encode(), dtype=np.uint8)
    part = path.with_name(f".{path.name}.{worker_name()}.part")
    try:
        with open(part, "wb") as file:
            np.savez(file, allow_pickle=False, **columns)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def read_piece(path: Path) -> Piece:
    """Read a piece."""
    with np.load(path, allow_pickle=False) as columns:
        piece = {name: columns[name] for name in columns.files}
    if _TEXT_IDS in piece:
        piece[_IDS] = np.array(json.loads(piece.pop(_TEXT_IDS).tobytes()), dtype=object)
    else:
        piece[_IDS] = piece[_IDS].astype(object)
    return piece
