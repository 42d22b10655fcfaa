"""Embeddings for TensorBoard's Embedding Projector."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from exmed_bert.files import make_folder

FOLDER = "projector"


def write_projector(
    folder: Path, embeddings: Mapping[str, np.ndarray], header: Sequence[str], rows: Sequence[Sequence[str]]
) -> Path:
    """Write ``folder/projector``, whole or not at all; one that is there is replaced.

    Args:
        folder: where to write.
        embeddings: by name (N, d) vectors of the same codes.
        header: names of the columns of the metadata.
        rows: N rows of metadata.

    Returns:
        What ``tensorboard --logdir`` takes.

    Raises:
        InputError: the folder cannot be made or written.
    """
    from torch.utils.tensorboard import SummaryWriter

    staged, final = folder / f".{FOLDER}-being-written", folder / FOLDER
    make_folder(folder)
    shutil.rmtree(staged, ignore_errors=True)
    metadata = [[" ".join(cell.split()) for cell in row] for row in rows]  # a tab or a line's end would split a cell
    try:
        with SummaryWriter(str(staged)) as writer:
            for step, (name, vectors) in enumerate(embeddings.items()):
                writer.add_embedding(
                    torch.from_numpy(np.asarray(vectors, dtype=np.float32)), metadata, tag=name, global_step=step,
                    metadata_header=list(header),
                )  # fmt: skip
        shutil.rmtree(final, ignore_errors=True)
        staged.rename(final)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return final
