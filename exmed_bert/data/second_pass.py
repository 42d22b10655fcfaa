"""The second pass of a conversion: pieces of tokens get their final ids and become datasets or shards.

Shards are independent of each other, as parts of the input are in the first pass.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from exmed_bert.data.assembly import join_pieces, settled
from exmed_bert.data.dataset import PatientDataset
from exmed_bert.data.dataset_info import DatasetInfo
from exmed_bert.data.masking import IGNORED, VALIDATION_EPOCH, mask_batch
from exmed_bert.data.pieces import ColumnKinds, Piece, read_piece
from exmed_bert.data.shards import MadeShard, Shard, read_shard, write_shard
from exmed_bert.data.tokenizer import FinalIds
from exmed_bert.data.vocabulary import SPECIAL_TOKENS
from exmed_bert.files import fingerprint
from exmed_bert.processes import worker_name
from exmed_bert.staging import atomic_write

_STATIC_EPOCH = 0


@dataclass(frozen=True)
class ShardTask:
    """A shard, to be made of pieces.

    Attributes:
        path: the file.
        patients: how many it will hold.
        pieces: each with the number of its part.
        final: by number of a part the final ids of its provisional ones.
        repeats: whether codes may have become others' repetitions, which go.
        info: of the dataset.
        kinds: what the columns have to hold.
    """

    path: Path
    patients: int
    pieces: Sequence[tuple[int, Path]]
    final: dict[int, FinalIds]
    repeats: bool
    info: DatasetInfo
    kinds: ColumnKinds


def encode(task: ShardTask) -> PatientDataset:
    """Return the patients of some pieces with final ids."""
    parts: list[Piece] = []
    for number, path in task.pieces:
        piece = settled(read_piece(path), task.final[number])
        parts.append(_without_repeats(piece) if task.repeats else piece)
    info = task.info
    columns = join_pieces(parts, task.kinds, info.max_length, info.age_unit, len(info.vocabulary))
    return with_static_masks(PatientDataset(info, columns))


def write_encoded(task: ShardTask) -> MadeShard:
    """Encode a shard and write it, whole or not at all; one that stands there from before is looked at instead."""
    start = time.perf_counter()
    if task.path.is_file():
        dataset = PatientDataset(task.info, read_shard(task.path))
    else:
        dataset = encode(task)
        with atomic_write(task.path) as part:
            write_shard(part, dataset.columns)
    plos = int((dataset.columns["plos"] >= 0).sum())
    sizes = (len(dataset), len(dataset.columns["codes"]), len(dataset.columns["visit_days"]), plos)
    shard = Shard(task.path.name, *sizes, fingerprint(task.path))
    lengths = dataset.lengths.astype(np.uint16)
    return MadeShard(shard, lengths, dataset.code_counts, time.perf_counter() - start, worker_name())


def _without_repeats(piece: Piece) -> Piece:
    """Return a piece without the tokens that repeat a code of their visit, UNK aside."""
    codes, visits, lengths = piece["codes"], piece["visit_ids"], piece["lengths"]
    patient = np.repeat(np.arange(len(lengths)), lengths)
    visit = patient * (int(visits.max(initial=0)) + 1) + visits
    key = visit * (int(codes.max(initial=0)) + 1) + codes
    kept = np.zeros(len(codes), dtype=bool)
    kept[np.unique(key, return_index=True)[1]] = True
    kept |= codes < len(SPECIAL_TOKENS)
    if kept.all():
        return piece
    names = ("codes", "entities", "ages", "visit_ids")
    left = {name: piece[name][kept] for name in names}
    return piece | left | {"lengths": np.bincount(patient[kept], minlength=len(lengths))}


def with_static_masks(dataset: PatientDataset) -> PatientDataset:
    """Return a dataset of static masking with its masks drawn, once and for all; another one as it is."""
    masking = dataset.info.needed_masking
    if masking.mode != "static":
        return dataset
    epoch = VALIDATION_EPOCH if dataset.info.split == "val" else _STATIC_EPOCH
    shown, masked = [], []
    for start in range(0, len(dataset), 4096):
        batch = dataset.batch(range(start, min(start + 4096, len(dataset))))
        inputs, labels = mask_batch(
            batch.codes, batch.lengths, batch.patient_hashes, masking, epoch, len(dataset.info.vocabulary)
        )
        real = np.arange(batch.codes.shape[1]) < batch.lengths[:, None]
        shown.append(inputs[real])
        masked.append((labels != IGNORED)[real])
    columns = {
        "shown_codes": torch.from_numpy(np.concatenate(shown)).to(dataset.columns["codes"].dtype),
        "masked": torch.from_numpy(np.concatenate(masked)),
    }
    return PatientDataset(dataset.info, dataset.columns | columns)
