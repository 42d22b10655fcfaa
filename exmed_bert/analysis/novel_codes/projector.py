"""Embeddings for TensorBoard's Embedding Projector."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

FOLDER = "projector"


def write_projector(
    folder: Path, embeddings: Mapping[str, np.ndarray], header: Sequence[str], rows: Sequence[Sequence[str]]
) -> Path:
    """Write ``folder/projector``.

    Args:
        folder: where to write.
        embeddings: by name (N, d) vectors of the same codes.
        header: names of the columns of the metadata.
        rows: N rows of metadata.

    Returns:
        The folder for ``tensorboard --logdir``.
    """
    from torch.utils.tensorboard import SummaryWriter

    metadata = [[" ".join(cell.split()) for cell in row] for row in rows]  # a tab or a line's end would split a cell
    with SummaryWriter(str(folder / FOLDER)) as writer:
        for step, (name, vectors) in enumerate(embeddings.items()):
            writer.add_embedding(
                torch.from_numpy(np.asarray(vectors, dtype=np.float32)), metadata, tag=name, global_step=step,
                metadata_header=list(header),
            )  # fmt: skip
    return folder / FOLDER
