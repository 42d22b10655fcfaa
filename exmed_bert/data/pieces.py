"""Tokenized patients between the two passes of a conversion: pieces with provisional ids, in files of their own.

The first pass reads and tokenizes the input part by part; which codes there are is known when the last part is read.
The second pass gives the codes their final ids and writes the datasets. In between stand these files.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from exmed_bert.data.patient import DAY_FIELDS, NO_DAY, PatientColumns, PatientId
from exmed_bert.data.static_columns import STATIC
from exmed_bert.data.tokenizer import TokenColumns
from exmed_bert.processes import worker_name

Piece = dict[str, np.ndarray]
"""Columns of some patients, as `select_piece` returns them."""

_IDS = "ids"
_TEXT_IDS = "text_ids"


@dataclass
class ColumnKinds:
    """What the columns of a dataset have to hold; all of its shards have the same.

    Attributes:
        far_days: pieces with a visit before 1880 or after 2059.
        text_ids: pieces with an id that is no whole number of 64 bits.
        periods: patients with a known day, by its field.
    """

    far_days: int = 0
    text_ids: int = 0
    periods: Counter[str] = field(default_factory=Counter)

    def note(self, piece: Piece) -> None:
        """Take a piece into account."""
        days = piece["visit_days"]
        self.far_days += int(len(days) > 0 and bool((np.abs(days) >= 2**15).any()))
        self.text_ids += int(not are_numbers(piece["ids"].tolist()))
        for name in DAY_FIELDS:
            if known := int((piece[name] != NO_DAY).sum()):
                self.periods[name] += known


def select_piece(patients: PatientColumns, tokens: TokenColumns, hashes: np.ndarray, chosen: np.ndarray) -> Piece:
    """Return the columns of the chosen patients; lengths stand for offsets until all pieces are joined.

    Args:
        patients: a chunk.
        tokens: the same, tokenized.
        hashes: of the chunk's patients (`randomness.hash_patient_ids`).
        chosen: which of the tokenized patients, bool.
    """
    rows = tokens.rows[chosen]
    lengths, visits = np.diff(tokens.offsets), np.diff(tokens.visit_offsets)
    of_token, of_visit = np.repeat(chosen, lengths), np.repeat(chosen, visits)
    ids = [patients.patient_ids[i] for i in rows.tolist()]
    return {
        "codes": tokens.codes[of_token],
        "entities": tokens.entities[of_token].astype(np.uint8),
        "ages": tokens.ages[of_token].astype(np.int16),
        "visit_ids": tokens.visit_ids[of_token].astype(np.int16),
        "visit_days": tokens.visit_days[of_visit],
        "lengths": lengths[chosen],
        "visits": visits[chosen],
        "patient_hashes": hashes[rows],
        "birth_years": patients.birth_years[rows].astype(np.int16),
        **{f"{STATIC}{name}": ids[chosen] for name, ids in tokens.static.items()},
        "plos": patients.plos[rows],
        **{name: patients.period(name)[rows] for name in DAY_FIELDS},
        "ids": np.array(ids, dtype=object),
    }


def write_piece(path: Path, piece: Piece) -> None:
    """Write a piece, whole or not at all; nothing in the file can be executed.

    A worker that a cluster has given up may still be at the same piece as the one in its place.
    """
    columns = {name: column for name, column in piece.items() if name != _IDS}
    ids: Sequence[PatientId] = piece[_IDS].tolist()
    if are_numbers(ids):
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


def are_numbers(ids: Iterable[PatientId]) -> bool:
    """Tell whether ids are whole numbers of 64 bits."""
    return all(type(i) is int and -(2**63) <= i < 2**63 for i in ids)
