"""Tensors that a run keeps for later processes: whole files with a digest inside, by which damage is noticed."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from exmed_bert.console import InputError
from exmed_bert.staging import atomic_write

_DIGEST = "blake2b"


class Damaged(InputError):
    """A file is not as it was written; the message names it and says in which way."""


def write_kept(path: Path, tensors: Mapping[str, Tensor], **facts: str) -> None:
    """Write tensors and facts as safetensors, whole or not at all."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_write(path) as part:
        save_file(contiguous, part, facts | {_DIGEST: _digest(contiguous, facts)})


def read_kept(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return tensors and facts; a file of an earlier release has no facts, and no digest to be checked.

    Raises:
        Damaged: the file is missing or another one than was written.
    """
    try:
        with safe_open(path, "pt") as file:
            facts = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise Damaged(f"{path}: is missing") from None
    except (OSError, SafetensorError) as error:
        raise Damaged(f"{path}: is damaged: {error}") from None
    if facts and facts.pop(_DIGEST, None) != _digest(tensors, facts):
        raise Damaged(f"{path}: is damaged: it does not match its digest")
    return tensors, facts


def _digest(tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> str:
    found = hashlib.blake2b(digest_size=16)
    found.update(repr(sorted(facts.items())).encode())
    for name, tensor in sorted(tensors.items()):
        found.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
