"""The model before training: random weights, a pretrained model's, or code embeddings from ClinVec vectors."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from exmed_bert import console
from exmed_bert.clinvec.initialization import CodeInitialization, initialize_codes, initialize_from
from exmed_bert.clinvec.relatives import Origin
from exmed_bert.codes import CodeKey
from exmed_bert.data.code_groups import CodeGroups
from exmed_bert.data.dataset_info import DatasetInfo
from exmed_bert.data.static_columns import BUILT_IN
from exmed_bert.data.vocabulary import SPECIAL_TOKENS, CodeVocabulary
from exmed_bert.models import ExMedBertConfig, ExMedBertForMaskedLM
from exmed_bert.models.code_tree import BIAS, CODE_TABLES, EMBEDDINGS, HEAD, CodeTree, TreeRows
from exmed_bert.models.folder import check_fit, read_pretrained
from exmed_bert.models.hazards import BIN_ENDS
from exmed_bert.settings import PretrainSettings
from exmed_bert.training.composition import ComposedTables
from exmed_bert.training.options import attention_heads, intermediate_size

_VECTOR_SHARE = 0.5  # of a row's squared length that is its ClinVec vector; the rest is the code's own random direction
_ALIGNED_LOGIT = 8.0  # that the head first gives a code whose embedding equals the hidden state
_RATES = "forecast_head.code_bias"
_GROUP_TABLES = ("forecast_head.group_rows", "forecast_head.group_bias")
DEATH = "death"  # the last of the groups, which the configuration does not name
_ENTITY_TABLE = "bert.embeddings.entity_embeddings.weight"


def model_config(settings: PretrainSettings, info: DatasetInfo, plos: bool) -> ExMedBertConfig:
    """Return the configuration that follows from settings and dataset."""
    return ExMedBertConfig(
        code_vocab_size=len(info.vocabulary),
        number_of_codes=len(info.vocabulary.entity_names),
        age_vocab_size=info.age_vocabulary_size,
        static_columns={column.name: list(column.values) for column in info.static_columns if column not in BUILT_IN},
        max_position_embedding=info.max_length + 1,
        hidden_size=settings.hidden_size,
        num_hidden_layers=settings.num_hidden_layers,
        num_attention_heads=attention_heads(settings),
        intermediate_size=intermediate_size(settings),
        initialization=settings.initialization,
        visit_distance_bias=settings.visit_distance_bias,
        visit_days=settings.visit_days,
        predict_los=plos,
        **forecasting(settings, info),
    )


def forecasting(settings: PretrainSettings, info: DatasetInfo) -> dict[str, Any]:
    """Return what the configuration says of forecasts."""
    if not settings.forecast_prob:
        return {"predict_future_codes": False}
    groups = CodeGroups.of(info.vocabulary).names
    weight = settings.forecast_weight
    return {
        "predict_future_codes": True,
        "hazard_bin_ends": BIN_ENDS,
        "forecast_groups": groups,
        "forecast_weight": weight,
    }


@dataclass(frozen=True)
class InitialModel:
    """A model before training.

    Attributes:
        model: the network.
        notes: where its weights come from, a line each.
        codes: what its codes start from, where vectors were given.
        pretrained: ids of the codes that an earlier pretraining knew.
        composed: the tables of its codes, where these are sums over the trees.
        forecasts_are_new: whether an earlier pretraining made no forecasts.
    """

    model: ExMedBertForMaskedLM
    notes: list[str]
    codes: CodeInitialization | None = None
    pretrained: Sequence[int] = ()
    composed: ComposedTables | None = None
    forecasts_are_new: bool = True


@torch.no_grad()
def new_model(
    settings: PretrainSettings, info: DatasetInfo, plos: bool, counts: np.ndarray | None = None
) -> InitialModel:
    """Make the model of a run.

    Args:
        settings: of the run.
        info: of the training dataset.
        plos: whether to predict prolonged length of stay.
        counts: (V,) how often each id occurs in training; None: all do.

    Raises:
        InputError, OptionError: the pretrained model or the ClinVec files do not fit.
    """
    torch.manual_seed(settings.seed)
    keys = info.vocabulary.keys
    unseen = np.flatnonzero(counts == 0) if counts is not None else np.empty(0, dtype=np.int64)
    if settings.model_dir is not None:
        initial = _from_pretrained(settings.model_dir, settings, info, plos)
        model, earlier = initial.model, initial.model.tree_rows
        if not (earlier is not None if settings.code_ancestors is None else settings.code_ancestors):
            return initial
        tree = CodeTree.of(keys, np.setdiff1d(unseen, initial.pretrained).tolist())
        composed = composed_again(model, tree, initial.pretrained, earlier)
        return replace(initial, notes=[*initial.notes, _composed_note(tree)], composed=composed)
    model = ExMedBertForMaskedLM(model_config(settings, info, plos))
    notes = [f"weights: {settings.initialization} initialization, seed {settings.seed}"]
    tree = CodeTree.of(keys, unseen.tolist())
    ancestors = settings.code_ancestors is not False and tree.above.nnz > 0
    table = model.get_input_embeddings().weight
    rows = torch.cat((table, torch.randn(len(tree.nodes) - len(keys), table.shape[1]))) if ancestors else table
    codes = start_from_clinvec(rows, tree.keys[: len(rows)], len(keys), settings) if settings.use_clinvec else None
    notes += codes.notes if codes else []
    if not ancestors:
        align_head(model)
        return InitialModel(model, notes, codes)
    bias = torch.zeros(len(rows), 1)
    composed = ComposedTables(model, {EMBEDDINGS: rows, HEAD: _aligned(rows), BIAS: bias}, tree)
    return InitialModel(model, [*notes, _composed_note(tree)], codes, composed=composed)


def _composed_note(tree: CodeTree) -> str:
    nodes = len(tree.nodes) - len(tree.own)
    return f"codes: sums of own rows and their ancestors', {nodes:,} of which are no codes of the data"


def composed_again(
    model: ExMedBertForMaskedLM, tree: CodeTree, pretrained: Sequence[int], earlier: TreeRows | None
) -> ComposedTables:
    """Make the tables of a pretrained model sums over the trees; codes that it knew keep the rows that they have.

    Args:
        model: its tables of codes are composed anew.
        tree: of its vocabulary.
        pretrained: ids that the earlier pretraining knew.
        earlier: what that learned of nodes; those that it lacks, and all where it had none, start at zero.
    """
    count, rows = len(tree.own), {}
    place = {node: i for i, node in enumerate(tree.nodes) if node}
    found = [(place[node], i) for i, node in enumerate(earlier.nodes if earlier else ()) if node in place]
    for name in CODE_TABLES:
        table = model.get_parameter(name).detach().view(count, -1)
        rows[name] = torch.cat((table, torch.zeros(len(tree.nodes) - count, table.shape[1])))
        if earlier is not None:
            learned = torch.from_numpy(earlier.tables[name])
            rows[name][[here for here, _ in found]] = learned[[there for _, there in found]]
        _decompose(rows[name], table, tree, np.array(pretrained, dtype=np.int64))
    return ComposedTables(model, rows, tree)


def _decompose(rows: torch.Tensor, table: torch.Tensor, tree: CodeTree, ids: np.ndarray) -> None:
    """Set the rows of some codes so that their sums are those of a table, ancestors before what is below them."""
    depths = np.diff(tree.above.indptr)[ids]
    for depth in np.unique(depths):
        level = ids[depths == depth]
        above = torch.from_numpy((tree.above[level] @ rows.numpy()).astype(np.float32))
        rows[level] = (table[level] - above) / torch.from_numpy(tree.own[level])[:, None]


def start_from_clinvec(
    table: torch.Tensor, keys: Sequence[CodeKey | None], codes: int, settings: PretrainSettings
) -> CodeInitialization:
    """Give codes the ClinVec vector of their own or an estimate from their relatives', and return what was done.

    A row is the sum of the vector and of what the initialization drew, each with half of the squared norm: vectors of
    relatives are so alike that by themselves a model learns to tell the codes apart later than from a random start.

    Args:
        table: (n, hidden) rows of the codes of a vocabulary, and of the nodes above them; changed in place.
        keys: (code system, code) of each row, None for special tokens and chapters.
        codes: how many of the rows are the vocabulary's; the others are left out of what is returned.
        settings: where ClinVec is, and how to use it.
    """
    row_norm = float(table.detach().norm(dim=1).mean()) * math.sqrt(_VECTOR_SHARE)
    start = initialize_codes(keys, settings, table.shape[1], row_norm, settings.seed)
    ids = torch.from_numpy(start.ids)
    with torch.no_grad():
        table[ids] = math.sqrt(1 - _VECTOR_SHARE) * table[ids] + torch.from_numpy(start.vectors)
    for warning in start.warnings:
        console.warn(warning)
    if not len(start.ids):
        console.warn(f"{settings.clinvec_dir}: holds no vector for any code of the dataset")
    of_codes = start.ids < codes
    return replace(
        start,
        keys=keys[:codes],
        origins=start.origins[:codes],
        ids=start.ids[of_codes],
        vectors=start.vectors[of_codes],
    )


@torch.no_grad()
def align_head(model: ExMedBertForMaskedLM) -> None:
    """Start the code head from the code embeddings.

    The two are trained separately, as in the original, but start equal (Press and Wolf, 2017, tie them): from the first
    step on, the codes of the history and those with similar embeddings get high logits.
    """
    model.code_classifier.predictions.decoder.weight.copy_(_aligned(model.get_input_embeddings().weight))


def _aligned(embeddings: torch.Tensor) -> torch.Tensor:
    """(..., hidden) embeddings of codes -> rows of the code head."""
    return embeddings * (_ALIGNED_LOGIT / embeddings.shape[-1])


def _from_pretrained(folder: Path, settings: PretrainSettings, info: DatasetInfo, plos: bool) -> InitialModel:
    """Load a pretrained model and give it the dataset's vocabulary; codes it knows keep their vectors."""
    old, form = read_pretrained(folder)
    check_fit(folder, old.config, info.age_unit, info.static_columns, info.max_length, "leave out --model-dir")
    model, shared = with_vocabulary(
        old, form.vocabulary, info.vocabulary, predict_los=plos, **forecasting(settings, info)
    )
    notes = [f"weights: from {folder}, which knows {len(shared)} of {len(info.vocabulary)} codes"]
    codes = None
    if settings.use_hierarchical_init:
        codes = place_codes(model, info.vocabulary.keys, shared, settings.seed)
        notes += codes.notes
    keys, new = info.vocabulary.keys, not old.config.forecasts_hazards
    known = [i for i in shared if keys[i] is not None]
    return InitialModel(model, notes, codes, known, forecasts_are_new=new)


@torch.no_grad()
def with_vocabulary(
    old: ExMedBertForMaskedLM, known: CodeVocabulary, vocabulary: CodeVocabulary, **changes: Any
) -> tuple[ExMedBertForMaskedLM, list[int]]:
    """Return a pretrained model with another vocabulary, and the ids in it that the model knew.

    Args:
        old: the pretrained model.
        known: its vocabulary.
        vocabulary: the other one; codes that are new to the model are drawn at random.
        changes: of the configuration.
    """
    sizes = {"code_vocab_size": len(vocabulary), "number_of_codes": len(vocabulary.entity_names)}
    config = ExMedBertConfig(**(old.config.to_dict() | sizes | changes))
    model = ExMedBertForMaskedLM(config)
    shared = [(token, known.ids[name]) for name, token in vocabulary.ids.items() if name in known.ids]
    here, there = (torch.tensor(side) for side in zip(*shared, strict=True))
    state, old_state = model.state_dict(), old.state_dict()
    for name, tensor in state.items():
        if name in CODE_TABLES:
            tensor[here] = old_state[name][there]
        elif name == _ENTITY_TABLE:
            for entity in set(known.entity_names) & set(vocabulary.entity_names):
                tensor[vocabulary.entity_names.index(entity)] = old_state[name][known.entity_names.index(entity)]
        elif name == _RATES and name in old_state:  # a code that the model never met is as rare as any
            rates = old_state[name]
            tensor.fill_(rates[len(SPECIAL_TOKENS) :].min())
            tensor[here] = rates[there]
        elif name in _GROUP_TABLES and name in old_state:
            before = {group: place for place, group in enumerate((*old.config.forecast_groups, DEATH))}
            both = [(i, before[g]) for i, g in enumerate((*config.forecast_groups, DEATH)) if g in before]
            to, source = (torch.tensor(side) for side in zip(*both, strict=True))
            tensor[to] = old_state[name][source]
        elif name in old_state:
            tensor.copy_(old_state[name])
    model.tree_rows = old.tree_rows
    return model, here.tolist()


def place_codes(
    model: ExMedBertForMaskedLM, keys: Sequence[CodeKey | None], known: Sequence[int], seed: int
) -> CodeInitialization:
    """Give each code that is not known the sum of its ancestors or, in a model without their rows, an estimate.

    Args:
        model, keys, known, seed: as `estimate_codes`.
    """
    if model.tree_rows is None:
        return estimate_codes(model, keys, known, seed)
    has_ancestors, sums = model.tree_rows.sums(keys)
    new = has_ancestors & ~np.isin(np.arange(len(keys)), known)
    with torch.no_grad():
        for name in CODE_TABLES:
            tensor = model.get_parameter(name)
            tensor[torch.from_numpy(new)] = torch.from_numpy(sums[name][new]).reshape(-1, *tensor.shape[1:]).to(tensor)
    ids = np.flatnonzero(new)
    origins = [Origin("ancestor" if placed else "none") for placed in new.tolist()]
    return CodeInitialization(keys, origins, ids, sums[EMBEDDINGS][new])


@torch.no_grad()
def estimate_codes(
    model: ExMedBertForMaskedLM, keys: Sequence[CodeKey | None], known: Sequence[int], seed: int
) -> CodeInitialization:
    """Give each code that is not known the embedding, and the row of the code head, that its relatives suggest.

    Args:
        model: changed in place.
        keys: (code system, code) of each id, None for special tokens.
        known: the ids that have learned their rows; special tokens among them do not count.
        seed: seed of the small steps that keep codes with the same relatives apart.
    """
    tensors = [model.state_dict()[name] for name in CODE_TABLES]
    known_keys = {token: key for token in known if (key := keys[token]) is not None}
    rows_of = torch.tensor(list(known_keys))
    tables = [tensor[rows_of].cpu().numpy().reshape(len(known_keys), -1) for tensor in tensors]
    ids, vectors, origins, notes = initialize_from(keys, list(known_keys.values()), tables, True, seed)
    new = ~np.isin(ids, list(known_keys))
    for tensor, rows in zip(tensors, vectors, strict=True):
        tensor[torch.from_numpy(ids[new])] = torch.from_numpy(rows[new]).reshape(-1, *tensor.shape[1:]).to(tensor)
    return CodeInitialization(keys, origins, ids, vectors[0], notes=notes)
