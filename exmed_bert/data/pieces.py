"""Tokenized patients between the two passes of a conversion: pieces with provisional ids, in files of their own.

The first pass reads and tokenizes the input part by part; which codes there are is known when the last part is read.
The second pass gives the codes their final ids and writes the datasets. In between stand these files.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from exmed_bert.data.patient import PatientId

Piece = dict[str, np.ndarray]
"""Columns of some patients, as `assembly.select_piece` returns them."""

_IDS = "ids"
_TEXT_IDS = "text_ids"


def write_piece(path: Path, piece: Piece) -> None:
    """Write a piece; nothing in the file can be executed."""
    columns = {name: column for name, column in piece.items() if name != _IDS}
    ids: Sequence[PatientId] = piece[_IDS].tolist()
    if all(type(one) is int and -(2**63) <= one < 2**63 for one in ids):
        columns[_IDS] = np.array(ids, dtype=np.int64)
    else:
        columns[_TEXT_IDS] = np.frombuffer(json.dumps(ids).encode(), dtype=np.uint8)
    with open(path, "wb") as file:
        np.savez(file, allow_pickle=False, **columns)


def read_piece(path: Path) -> Piece:
    """Read a piece."""
    with np.load(path, allow_pickle=False) as columns:
        piece = {name: columns[name] for name in columns.files}
    if _TEXT_IDS in piece:
        piece[_IDS] = np.array(json.loads(piece.pop(_TEXT_IDS).tobytes()), dtype=object)
    else:
        piece[_IDS] = piece[_IDS].astype(object)
    return piece
