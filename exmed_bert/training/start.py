"""Where a model starts: from random weights, from a pretrained model, or from ClinVec vectors."""

import json
import math
from pathlib import Path

import torch

from exmed_bert import console
from exmed_bert.clinvec.initialise import initialise_codes
from exmed_bert.config import ClinVecSettings, PretrainSettings
from exmed_bert.console import InputError, OptionError
from exmed_bert.data.dataset import DatasetInfo
from exmed_bert.data.vocabulary import ENTITIES, SEX_TOKENS, STATE_TOKENS, CodeVocabulary
from exmed_bert.models import ExMedBertConfig, ExMedBertForMaskedLM

_HEAD_WIDTH = 48  # dimensions a head in the original's configuration: 288 over 6 heads
_ALIGNED_SCORE = 8.0  # score that the head first gives a code whose embedding is what a position holds
_CODE_TABLES = (
    "bert.embeddings.code_embeddings.weight",
    "code_classifier.predictions.decoder.weight",
    "code_classifier.predictions.decoder.bias",
)


def default_heads(hidden_size: int) -> int:
    """Return the number of heads that divides the width and leaves each head nearest to 48 dimensions.

    >>> default_heads(288), default_heads(64), default_heads(32)
    (6, 2, 1)
    """
    divisors = [heads for heads in range(1, hidden_size + 1) if hidden_size % heads == 0]
    return min(divisors, key=lambda heads: (abs(hidden_size / heads - _HEAD_WIDTH), -heads))


def default_intermediate(hidden_size: int) -> int:
    """Return the width of the feed-forward layers: 16/9 of the hidden size, rounded up to a multiple of 64.

    >>> default_intermediate(288), default_intermediate(64), default_intermediate(32)
    (512, 128, 64)
    """
    return math.ceil(hidden_size * 16 / 9 / 64) * 64


def model_config(settings: PretrainSettings, info: DatasetInfo, plos: bool) -> ExMedBertConfig:
    """Return the configuration that settings and dataset ask for.

    Raises:
        OptionError: the heads do not divide the width.
    """
    heads = settings.num_attention_heads or default_heads(settings.hidden_size)
    if settings.hidden_size % heads:
        raise OptionError(
            f"--num-attention-heads: {heads} does not divide --hidden-size {settings.hidden_size}, "
            f"for instance {default_heads(settings.hidden_size)} does"
        )
    return ExMedBertConfig(
        code_vocab_size=len(info.vocabulary),
        number_of_codes=len(ENTITIES),
        age_vocab_size=info.age_vocabulary_size,
        sex_vocab_size=len(SEX_TOKENS),
        region_vocab_size=len(STATE_TOKENS),
        max_position_embedding=info.max_length + 1,
        hidden_size=settings.hidden_size,
        num_hidden_layers=settings.num_hidden_layers,
        num_attention_heads=heads,
        intermediate_size=settings.intermediate_size or default_intermediate(settings.hidden_size),
        initialization=settings.initialization,
        visit_distance_bias=settings.visit_distance_bias,
        predict_los=plos,
    )


def new_model(settings: PretrainSettings, info: DatasetInfo, plos: bool) -> tuple[ExMedBertForMaskedLM, list[str]]:
    """Make the model of a run and say where its weights come from, a line each.

    Raises:
        InputError, OptionError: the pretrained model or the ClinVec files do not fit.
    """
    if settings.model_dir is not None and settings.use_clinvec:
        raise OptionError("--use-clinvec: --model-dir brings the codes' embeddings already, give one of the two")
    torch.manual_seed(settings.seed)
    if settings.model_dir is not None:
        return _from_pretrained(settings.model_dir, info, plos)
    model = ExMedBertForMaskedLM(model_config(settings, info, plos))
    notes = [f"weights: {settings.initialization} initialisation, seed {settings.seed}"]
    if settings.use_clinvec:
        notes += start_from_clinvec(model, info.vocabulary, settings, settings.seed)
    align_head(model)
    return model, notes


@torch.no_grad()
def start_from_clinvec(
    model: ExMedBertForMaskedLM, vocabulary: CodeVocabulary, settings: ClinVecSettings, seed: int
) -> list[str]:
    """Give codes the ClinVec vector of their own or of an ancestor, and return what was done.

    The rows get the mean norm that the initialisation gave the code embeddings.
    """
    table = model.bert.embeddings.code_embeddings.weight
    start = initialise_codes(
        codes=[vocabulary.code(token) for token in range(len(vocabulary))],
        systems=vocabulary.systems(),
        settings=settings,
        hidden_size=model.config.hidden_size,
        row_norm=float(table.norm(dim=1).mean()),
        seed=seed,
    )
    table[torch.from_numpy(start.ids)] = torch.from_numpy(start.vectors)
    if not len(start.ids):
        console.warn(f"{settings.clinvec_dir}: holds no vector for any code of the dataset")
    return start.notes


@torch.no_grad()
def align_head(model: ExMedBertForMaskedLM) -> None:
    """Start the code head from the code embeddings, so that a code's score first asks how present it is.

    The two are trained apart, as in the original, but begin alike (Press and Wolf, 2017, tie them for good): a code of
    the history is then a good guess from the first step on, and codes that start near each other are guessed together.
    """
    embeddings = model.bert.embeddings.code_embeddings.weight
    model.code_classifier.predictions.decoder.weight.copy_(embeddings * (_ALIGNED_SCORE / model.config.hidden_size))


def _from_pretrained(folder: Path, info: DatasetInfo, plos: bool) -> tuple[ExMedBertForMaskedLM, list[str]]:
    """Load a pretrained model and give it the dataset's vocabulary; codes it knows keep their vectors."""
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: --model-dir: holds no config.json, expected the folder of a pretrained ExMed-BERT")
    try:
        config = ExMedBertConfig.from_pretrained(folder)
        old = ExMedBertForMaskedLM.from_pretrained(folder)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{folder}: --model-dir: cannot be loaded: {error}") from None
    for name, have, need in (
        ("age ids", config.age_vocab_size, info.age_vocabulary_size),
        ("sex ids", config.sex_vocab_size, len(SEX_TOKENS)),
        ("state ids", config.region_vocab_size, len(STATE_TOKENS)),
        ("visit positions", config.max_position_embedding, info.max_length + 1),
    ):
        if have < need:
            raise InputError(f"{folder}: --model-dir: the model has {have} {name}, the dataset needs {need}")
    known = _saved_vocabulary(folder)
    config.code_vocab_size = len(info.vocabulary)
    config.predict_los = plos
    model = ExMedBertForMaskedLM(config)
    shared = [(token, known[name]) for name, token in info.vocabulary.ids.items() if name in known]
    here, there = (torch.tensor(side) for side in zip(*shared, strict=True))
    with torch.no_grad():
        state, old_state = model.state_dict(), old.state_dict()
        for name, tensor in state.items():
            if name in _CODE_TABLES:
                tensor[here] = old_state[name][there]
            elif name in old_state:
                tensor.copy_(old_state[name])
    return model, [f"weights: from {folder}, which knows {len(shared)} of {len(info.vocabulary)} codes"]


def _saved_vocabulary(folder: Path) -> dict[str, int]:
    try:
        content = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
        return {name: int(entry["id"]) for name, entry in content.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{folder}: --model-dir: vocab.json cannot be read ({type(error).__name__}), "
            'expected {"code": {"id": number, "entity": "icd"}}'
        ) from None
