"""A model as an ONNX file that computes what the model does, for batches of any size and length.

Inputs, int64; B patients, L tokens:

input_ids, entity_ids, age_ids, visit_ids, attention_mask   (B, L)
visit_days                                                  (B, L), of a model that sees days
sex_ids, state_ids, ...                                     (B, 1), the static columns

They are what `PatientTokenizer.encode` gives. Outputs, float32, are those of `EncoderAndCodeHead` or `Outcome`. The
distances between visits and days that attention takes, and the prompt, are computed within the graph.
"""

import copy
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from exmed_bert import __version__
from exmed_bert.cohorts.model_input import ModelInput
from exmed_bert.console import InputError
from exmed_bert.data.vocabulary import MASK
from exmed_bert.finetuning.prompt import prompt_collator
from exmed_bert.models import ExMedBertConfig, ExMedBertForMaskedLM, ExMedBertForSequenceClassification
from exmed_bert.models.hazards import cumulative_incidence
from exmed_bert.staging import atomic_write

TOLERANCE = 1e-4
_MOST_BYTES = 2**31 - 2**20  # of weights in one file
_LEAST_RISK = 1e-6


class Graph(nn.Module):
    """What is exported: inputs in the order of ``names`` to ``outputs``.

    Attributes:
        outputs: their names.
        names: of the inputs.
        config: of the model.
        metadata: what the file says of it besides.
    """

    outputs: tuple[str, ...]

    def __init__(self, config: ExMedBertConfig, metadata: dict[str, str]) -> None:
        """Take what is the same of all models."""
        super().__init__()
        self.names = ["input_ids", "entity_ids", "age_ids", "visit_ids", "attention_mask"]
        self.names += ["visit_days"] if config.visit_days else []
        self.names += [f"{name}_ids" for name in config.static_vocab_sizes]
        self.config, self.metadata = config, metadata


class EncoderAndCodeHead(Graph):
    """A pretrained model: ``last_hidden_state`` (B, L, hidden) and ``code_logits`` (B, L, V)."""

    outputs = ("last_hidden_state", "code_logits")

    def __init__(self, model: ExMedBertForMaskedLM) -> None:
        """Take a copy."""
        super().__init__(model.config, {})
        self.model = _plain(model)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the outputs."""
        hidden = self.model.bert(**dict(zip(self.names, inputs, strict=True))).last_hidden_state
        return hidden, self.model.code_classifier(hidden)


class Outcome(Graph):
    """A fine-tuned model, at each patient's last visit: ``logits`` and the recalibrated ``probability``.

    Both are (B,); of time to event ``logits`` are the log hazards per day (B, causes, bins), and ``probability`` (B, H)
    is that of the outcome by each of the horizons in the metadata. What the prompt asks stands behind the history.
    """

    outputs = ("logits", "probability")

    def __init__(self, model: ExMedBertForSequenceClassification, form: ModelInput, finetuning: dict[str, Any]) -> None:
        """Take a copy.

        Args:
            model: the weights.
            form: in which it takes histories.
            finetuning: the content of its finetuning.json.
        """
        super().__init__(model.config, {"title": str(finetuning["title"])})
        self.model = _plain(model)
        self.calibration = finetuning["temperature"], finetuning["bias"]
        self.prompt = prompt_collator(model.config, form.vocabulary, list(model.config.target_codes)).entities
        if model.bins is not None:
            task = finetuning["task"]
            self.metadata["horizons"] = json.dumps(task["horizons"])
            self.days = [float(horizon - task["gap_days"]) for horizon in task["horizons"]]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the outputs."""
        model, fields = self.model, dict(zip(self.names, inputs, strict=True))
        places = fields["attention_mask"].sum(dim=1, keepdim=True) + torch.arange(len(self.prompt))  # (B, queries)
        if self.prompt:
            fields = self._with_prompt(fields, places)
        hidden = model.bert(**fields).last_hidden_state
        embedded = model.get_input_embeddings()(fields["input_ids"])
        wide = model.bag_of_codes(fields["input_ids"], embedded, fields["age_ids"])
        queries = hidden.gather(1, places[:, :, None].expand(-1, -1, hidden.shape[2])) if self.prompt else None
        logits = model.outcome(hidden, fields["attention_mask"], wide, queries).logits
        assert logits is not None
        calibrated = logits
        if model.bins is not None:
            risk = cumulative_incidence(logits, model.bins, logits.new_tensor(self.days))[:, 0]
            risk = risk.clamp(min=_LEAST_RISK, max=1 - _LEAST_RISK)
            calibrated = risk.log() - torch.log1p(-risk)
        temperature, bias = self.calibration
        return logits, (calibrated / temperature + bias).sigmoid()

    def _with_prompt(self, fields: dict[str, Tensor], places: Tensor) -> dict[str, Tensor]:
        """Return the fields with the prompt at its places, as `data.batches.put_query` writes it at the last visit."""
        last = (places[:, :1] - 1).clamp(min=0)
        values = {
            "input_ids": torch.full_like(places, MASK),
            "entity_ids": torch.tensor(self.prompt).expand_as(places),
            "visit_ids": (fields["visit_ids"].gather(1, last) + 1).clamp(max=self.config.max_position_embedding - 1),
            "attention_mask": torch.ones_like(places),
        }
        values |= {name: fields[name].gather(1, last) for name in ("age_ids", "visit_days") if name in fields}
        longer = {
            name: F.pad(fields[name], (0, len(self.prompt))).scatter(1, places, value.expand_as(places))
            for name, value in values.items()
        }
        return fields | longer


def _plain(model: Any) -> Any:
    """Return a copy of a model whose attention is plain."""
    model = copy.deepcopy(model).float().cpu().eval()
    model.set_attn_implementation("eager")
    return model


def write_onnx(path: Path, graph: Graph, form: ModelInput) -> float:
    """Write the file once onnxruntime has computed with it what the model does; return the largest difference.

    Its metadata have the vocabulary, the length of histories and the unit of ages.

    Args:
        path: of the file.
        graph: what is exported.
        form: in which the model takes histories.

    Raises:
        InputError: the model is too large for one file, the file cannot be written, or it computes something else.
    """
    if (size := 4 * sum(one.numel() for one in graph.parameters())) > _MOST_BYTES:
        raise InputError(f"{path}: the weights have {size:,} bytes, expected less than 2 GiB for one file")
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    longest = max(form.max_length, 2)
    example = _batch(graph, 3, min(longest, 7))
    shapes = tuple({0: batch, 1: length} if tensor.shape[1] > 1 else {0: batch} for tensor in example)
    with _quiet():
        program = torch.onnx.export(
            graph,
            example,
            input_names=graph.names,
            output_names=graph.outputs,
            dynamic_shapes=(shapes,),
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props.update(
        exmed_bert=__version__,
        vocabulary=json.dumps(form.vocabulary.to_dict(), ensure_ascii=False),
        max_length=str(form.max_length),
        age_unit=form.age_unit,
        **graph.metadata,
    )
    with atomic_write(path) as part:
        program.save(part, external_data=False)
        difference = largest_difference(part, graph, [1, 2, (longest + 1) // 2, longest])
        if not difference <= TOLERANCE:
            raise InputError(f"{path}: onnxruntime and the model differ by {difference:.1e}, expected {TOLERANCE:.0e}")
    return difference


def largest_difference(path: Path, graph: Graph, lengths: Sequence[int]) -> float:
    """Return by how much a file's outputs differ from the model's, at batches of each length."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = []
    for count, length in zip((1, 2, 3, 5), lengths, strict=True):
        batch = _batch(graph, count, length)
        outputs = session.run(list(graph.outputs), {n: t.numpy() for n, t in zip(graph.names, batch, strict=True)})
        with torch.inference_mode():
            expected = graph(*batch)
        found += [float(np.abs(a - b.numpy()).max()) for a, b in zip(outputs, expected, strict=True)]
    return max(found)


def _batch(graph: Graph, count: int, length: int) -> tuple[Tensor, ...]:
    """Return a batch of histories drawn at random, all but the first padded."""
    config, random = graph.config, torch.Generator().manual_seed(count)

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
    return tuple(found[name] for name in graph.names)


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
