"""A copy of a pretrained model without its rare codes: their tokens, their rows of the weights, and all that is beside.

A code of few patients tells that these were in the training data (docs/PRIVACY.md). For histories without such codes
the copy computes what the model does.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import logging as transformers_logging

from exmed_bert import console
from exmed_bert.config import Resolved
from exmed_bert.console import InputError
from exmed_bert.data.code_groups import CodeGroups
from exmed_bert.data.dataset import PatientDataset
from exmed_bert.data.shards import open_dataset
from exmed_bert.data.vocabulary import SPECIAL_TOKENS, CodeVocabulary
from exmed_bert.locks import held
from exmed_bert.models import ExMedBertConfig, ExMedBertForMaskedLM
from exmed_bert.models.folder import (
    check_copy_place,
    is_of_other_input,
    read_pretrained,
    read_start_embeddings,
    write_copy,
)
from exmed_bert.settings import ShareSettings
from exmed_bert.sharing.options import check
from exmed_bert.startup import called

_OF_CODES = (  # weights with a row per code
    "bert.embeddings.code_embeddings.weight",
    "code_classifier.predictions.decoder.weight",
    "code_classifier.predictions.decoder.bias",
    "forecast_head.code_bias",
)
_OF_GROUPS = ("forecast_head.group_rows", "forecast_head.group_bias")  # death is their last
_OF_ENTITIES = "bert.embeddings.entity_embeddings.weight"
_AT_ONCE = 100_000  # patients


def run(resolved: Resolved[ShareSettings]) -> None:
    """Write the copy, all of it or nothing.

    Raises:
        InputError: the model or the dataset cannot be read or they are not of each other, no code is left, or the
            folder holds something else or cannot be written.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    settings = resolved.settings
    check(settings)
    check_copy_place(settings.output_dir)
    with held(settings.output_dir, called("share")):
        _share(settings)


def _share(settings: ShareSettings) -> None:
    model, form = read_pretrained(settings.model_dir)
    vocabulary, dataset = form.vocabulary, open_dataset(settings.training_data)
    if dataset.info.vocabulary.tokens != vocabulary.tokens:
        raise InputError(
            f"{settings.training_data}: has other codes than {settings.model_dir}, expected the dataset that the model "
            "was trained on"
        )
    if is_of_other_input(settings.model_dir, dataset.info.input_fingerprint):
        raise InputError(
            f"{settings.training_data}: was made of another input than {settings.model_dir} was pretrained on, "
            "expected the dataset that the model was trained on"
        )
    patients = patients_by_code(dataset)
    special = np.arange(len(vocabulary)) < len(SPECIAL_TOKENS)
    kept = np.flatnonzero(special | (patients >= settings.min_count))
    if len(kept) == len(SPECIAL_TOKENS):
        raise InputError(f"{settings.training_data}: no code is of {settings.min_count:,} patients or more")
    start = read_start_embeddings(settings.model_dir, tuple(model.get_input_embeddings().weight.shape))
    smaller, shared = with_codes(model, vocabulary, kept)
    start = None if start is None else start[kept]
    write_copy(settings.output_dir, shared, smaller, settings.model_dir, start)
    codes = len(vocabulary) - len(SPECIAL_TOKENS)
    console.table(
        f"Copied {settings.model_dir}",
        [
            ("patients it was trained on", len(dataset)),
            (f"codes of {settings.min_count:,} of them or more, kept", len(kept) - len(SPECIAL_TOKENS)),
            ("codes of fewer, removed", codes - len(kept) + len(SPECIAL_TOKENS)),
        ],
    )
    console.table("Written", [("model", settings.output_dir)])


def patients_by_code(dataset: PatientDataset) -> np.ndarray:
    """Return how many patients have each id of the vocabulary, (V,) int64."""
    size = len(dataset.info.vocabulary)
    counts = np.zeros(size, dtype=np.int64)
    for part in dataset.parts():
        codes, offsets = part.arrays["codes"], part.arrays["offsets"]
        for first in range(0, len(part), _AT_ONCE):
            starts = offsets[first : first + _AT_ONCE + 1]
            patients = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
            pairs = np.unique(patients * size + codes[starts[0] : starts[-1]])
            counts += np.bincount(pairs % size, minlength=size)
    return counts


def with_codes(
    model: ExMedBertForMaskedLM, vocabulary: CodeVocabulary, kept: np.ndarray
) -> tuple[CodeVocabulary, ExMedBertForMaskedLM]:
    """Return the vocabulary and the model with some of their codes alone.

    Args:
        model: pretrained.
        vocabulary: of the model, V codes.
        kept: (k,) ids in order, those of all special tokens among them.
    """
    entity_names = vocabulary.entity_names
    tokens = [
        (vocabulary.tokens[i], entity_names[vocabulary.entities[i]]) for i in kept[len(SPECIAL_TOKENS) :].tolist()
    ]
    smaller = CodeVocabulary.of_tokens(tokens).with_cuts(vocabulary.cuts)
    # Entity types are numbered by their first codes, so others may have moved up to the place of one that is gone.
    entities = [entity_names.index(name) for name in smaller.entity_names]
    entities += range(len(entity_names), model.config.number_of_codes)
    state: Mapping[str, Tensor] = model.state_dict()
    rows = dict.fromkeys(_OF_CODES, torch.from_numpy(kept)) | {_OF_ENTITIES: torch.tensor(entities)}
    names = tuple(model.config.forecast_groups)
    groups = [place for place, codes in enumerate(CodeGroups.of(smaller, names).members) if codes]
    rows |= dict.fromkeys(_OF_GROUPS, torch.tensor([*groups, len(names)]))
    changed: dict[str, Any] = {"code_vocab_size": len(kept), "number_of_codes": len(entities)}
    changed |= {"forecast_groups": [names[place] for place in groups]}
    shared = ExMedBertForMaskedLM(ExMedBertConfig.from_dict(model.config.to_dict() | changed))
    shared.load_state_dict({name: tensor[rows[name]] if name in rows else tensor for name, tensor in state.items()})
    if model.tree_rows is not None:
        shared.tree_rows = model.tree_rows.of(smaller.keys)
    return smaller, shared.eval()
