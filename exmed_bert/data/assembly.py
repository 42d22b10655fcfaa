"""From pieces of tokenized patients to the columns of a dataset."""

import numpy as np
import torch

from exmed_bert.console import InputError, shown
from exmed_bert.data.patient import DAY_FIELDS, PERIOD_FIELDS, PatientId
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.data.pieces import ColumnKinds, Piece
from exmed_bert.data.randomness import hash_patient_ids
from exmed_bert.data.static_columns import STATIC
from exmed_bert.data.tokenizer import FinalIds
from exmed_bert.data.vocabulary import AgeUnit


def settled(piece: Piece, final: FinalIds) -> Piece:
    """Return a piece with the final ids of its provisional ones, as the tokenizer gives them."""
    return piece | {"codes": final.codes[piece["codes"]], "entities": final.entities[piece["entities"]]}


def join_pieces(
    parts: list[Piece], kinds: ColumnKinds, max_length: int, age_unit: AgeUnit, vocabulary_size: int
) -> dict[str, torch.Tensor]:
    """Join pieces into the columns of a dataset, in the smallest types that hold them; the pieces are used up.

    Args:
        parts: what `select_piece` returned, with final ids.
        kinds: what the columns have to hold.
        max_length: most tokens per patient.
        age_unit: of the ages.
        vocabulary_size: number of final ids.
    """
    fields = PERIOD_FIELDS if age_unit == "years" else DAY_FIELDS  # no birthdays where nothing needs them
    static = [name for name in parts[0] if name.startswith(STATIC)]

    def join(name: str) -> np.ndarray:
        return np.concatenate([part.pop(name) for part in parts])

    columns = {
        "offsets": np.concatenate(([0], np.cumsum(join("lengths")))),
        "visit_offsets": np.concatenate(([0], np.cumsum(join("visits")))),
        "codes": join("codes").astype(np.int16 if vocabulary_size <= 2**15 else np.int32),
        "entities": join("entities").astype(np.uint8),
        "visit_ids": join("visit_ids").astype(np.uint8 if max_length < 2**8 else np.int16),
        "ages": join("ages").astype(np.uint8 if age_unit == "years" else np.int16),
        "visit_days": join("visit_days").astype(np.int32 if kinds.far_days else np.int16),
        **{name: join(name) for name in ("patient_hashes", "birth_years", *static, "plos")},
        **{name: join(name) for name in fields if kinds.periods[name]},
        **_id_columns(join("ids").tolist(), bool(kinds.text_ids)),
    }
    return {name: torch.from_numpy(column) for name, column in columns.items()}


def _id_columns(ids: list[PatientId], as_text: bool) -> dict[str, np.ndarray]:
    """Return ids as one column of integers, or as UTF-8 bytes with offsets."""
    if not as_text:
        return {"id_numbers": np.array(ids, dtype=np.int64)}
    texts = [str(i).encode() for i in ids]
    return {
        "id_bytes": np.frombuffer(b"".join(texts), dtype=np.uint8).copy(),
        "id_offsets": np.concatenate(([0], np.cumsum([len(text) for text in texts]))),
    }


def refuse_duplicates(source: PatientInput, hashes: np.ndarray) -> None:
    """Raise an InputError that names the first record whose patient stands in the input before.

    Args:
        source: the patients.
        hashes: (N,) `randomness.hash_patient_ids` of those that were read, in order.
    """
    distinct, first, counts = np.unique(hashes, return_index=True, return_counts=True)
    if len(distinct) == len(hashes):
        return
    repeated = hashes[first[counts > 1].min()]
    rows: list[int] = []
    start = 1  # records are numbered as they stand in the files, those that were left out included
    for patients in source.raw_chunks():
        own = hash_patient_ids(patients.patient_ids)
        for row in np.flatnonzero(own == repeated).tolist():
            rows.append(start + row)
            patient_id = patients.patient_ids[row]
            if len(rows) == 2:
                raise InputError(
                    f"{source}: record {rows[1]} (patient_id {shown(patient_id)}): patient_id: "
                    f"is that of record {rows[0]} too, expected each patient once"
                )
        start += len(patients)
