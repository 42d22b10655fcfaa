"""A pretrained model as an ONNX file: encoder and code head, for batches of any size and length.

Inputs and outputs, int64 and float32; B patients, L tokens, V codes:

input_ids, entity_ids, age_ids, visit_ids, attention_mask   (B, L)
visit_days                                                  (B, L), of a model that sees days
sex_ids, state_ids, ...                                     (B, 1), the static columns
last_hidden_state                                           (B, L, hidden)
code_logits                                                 (B, L, V)

They are what `PatientTokenizer.encode` gives. The distances between visits and days that attention takes are computed
within the graph.
"""

import copy
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from exmed_bert import __version__
from exmed_bert.cohorts.model_input import ModelInput
from exmed_bert.console import InputError
from exmed_bert.models import ExMedBertForMaskedLM
from exmed_bert.staging import atomic_write

OUTPUTS = ("last_hidden_state", "code_logits")
TOLERANCE = 1e-4
_MOST_BYTES = 2**31 - 2**20  # of weights in one file


class EncoderAndCodeHead(nn.Module):
    """What is exported, with its inputs in the order of `input_names`."""

    def __init__(self, model: ExMedBertForMaskedLM) -> None:
        """Take a copy, whose attention is plain."""
        super().__init__()
        self.model = copy.deepcopy(model).float().cpu().eval()
        self.model.set_attn_implementation("eager")
        self.names = input_names(model)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return `OUTPUTS`."""
        hidden = self.model.bert(**dict(zip(self.names, inputs, strict=True))).last_hidden_state
        return hidden, self.model.code_classifier(hidden)


def input_names(model: ExMedBertForMaskedLM) -> list[str]:
    """Return the inputs of a model's graph."""
    names = ["input_ids", "entity_ids", "age_ids", "visit_ids", "attention_mask"]
    names += ["visit_days"] if model.config.visit_days else []
    return [*names, *(f"{name}_ids" for name in model.config.static_vocab_sizes)]


def write_onnx(path: Path, model: ExMedBertForMaskedLM, form: ModelInput) -> float:
    """Write the file once onnxruntime has computed with it what the model does; return the largest difference.

    Its metadata have the vocabulary, the length of histories and the unit of ages.

    Args:
        path: of the file.
        model: the weights.
        form: in which it takes histories.

    Raises:
        InputError: the model is too large for one file, the file cannot be written, or it computes something else.
    """
    if (size := 4 * sum(one.numel() for one in model.parameters())) > _MOST_BYTES:
        raise InputError(f"{path}: the weights have {size:,} bytes, expected less than 2 GiB for one file")
    exported, names = EncoderAndCodeHead(model), input_names(model)
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    longest = max(form.max_length, 2)
    example = _batch(model, 3, min(longest, 7))
    shapes = tuple({0: batch, 1: length} if tensor.shape[1] > 1 else {0: batch} for tensor in example)
    with _quiet():
        program = torch.onnx.export(
            exported, example, input_names=names, output_names=OUTPUTS, dynamic_shapes=(shapes,), verbose=False
        )
    assert program is not None
    program.model.metadata_props.update(
        exmed_bert=__version__,
        vocabulary=json.dumps(form.vocabulary.to_dict(), ensure_ascii=False),
        max_length=str(form.max_length),
        age_unit=form.age_unit,
    )
    with atomic_write(path) as part:
        program.save(part, external_data=False)
        difference = largest_difference(part, exported, [1, 2, (longest + 1) // 2, longest])
        if not difference <= TOLERANCE:
            raise InputError(f"{path}: onnxruntime and the model differ by {difference:.1e}, expected {TOLERANCE:.0e}")
    return difference


def largest_difference(path: Path, exported: EncoderAndCodeHead, lengths: list[int]) -> float:
    """Return by how much a file's outputs differ from the model's, at batches of each length."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = []
    for count, length in zip((1, 2, 3, 5), lengths, strict=True):
        batch = _batch(exported.model, count, length)
        outputs = session.run(list(OUTPUTS), {n: t.numpy() for n, t in zip(exported.names, batch, strict=True)})
        with torch.inference_mode():
            expected = exported(*batch)
        found += [float(np.abs(a - b.numpy()).max()) for a, b in zip(outputs, expected, strict=True)]
    return max(found)


def _batch(model: ExMedBertForMaskedLM, count: int, length: int) -> tuple[Tensor, ...]:
    """Return a batch of histories drawn at random, all but the first padded."""
    config, random = model.config, torch.Generator().manual_seed(count)

    def drawn(below: int, columns: int = length) -> Tensor:
        return torch.randint(below, (count, columns), generator=random)

    real = torch.arange(length) < (length - torch.arange(count)[:, None] % length)
    found = {
        "input_ids": drawn(config.code_vocab_size),
        "entity_ids": drawn(config.number_of_codes),
        "age_ids": drawn(config.age_vocab_size),
        "visit_ids": drawn(config.max_position_embedding).sort(dim=1).values,
        "visit_days": drawn(3000).sort(dim=1).values,
    }
    found = {name: ids * real for name, ids in found.items()} | {"attention_mask": real.long()}
    found |= {f"{name}_ids": drawn(size, 1) for name, size in config.static_vocab_sizes.items()}
    return tuple(found[name] for name in input_names(model))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's notes on its own workings from the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
