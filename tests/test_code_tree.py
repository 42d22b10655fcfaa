"""Codes as sums over the trees: what is composed, how it is trained, what is written, and codes that come later."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from exmed_bert.codes import code_systems
from exmed_bert.console import InputError
from exmed_bert.data.dataset import PatientDataset
from exmed_bert.data.vocabulary import CodeVocabulary
from exmed_bert.finetuning.outcome_model import extend_outcome_vocabulary, extend_vocabulary, outcome_model
from exmed_bert.finetuning.prompt import Prompt
from exmed_bert.models.code_tree import BIAS, CODE_TABLES, EMBEDDINGS, HEAD, CodeTree, TreeRows, ancestors_of
from exmed_bert.models.folder import CODE_TREE, read_pretrained, write_pretrained
from exmed_bert.settings import PretrainSettings
from exmed_bert.sharing.share import with_codes
from exmed_bert.training.composition import _ALONE_DECAY, ComposedTables
from exmed_bert.training.initial_model import new_model
from exmed_bert.training.optimizer import FusedAdamW
from exmed_bert.training.unseen import UnseenCodes

KEYS = [None, ("icd10cm", "E11"), ("icd10cm", "E11.9"), ("icd10cm", "E11.95"), ("atc", "C10AA05"), ("cpt", "99213")]
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def the_sum(rows: dict[str, torch.Tensor], key: Any, unseen: bool = False) -> torch.Tensor:
    """Return the row of a code, from the rows by the names of their nodes."""
    above = [rows[node] for node in ancestors_of(key) if node in rows]
    own = 0.0 if unseen and above else 0.5 if above else 1.0
    total = sum(above, torch.zeros(())) * ((1 - own) / max(len(above), 1)) ** 0.5
    return total + own**0.5 * (rows[":".join(key)] if own else 0.0)


def test_a_row_is_the_sum_of_its_own_and_its_ancestors() -> None:
    tree = CodeTree.of(KEYS, unseen=[3])
    model = torch.nn.ModuleDict({"table": torch.nn.Embedding(len(KEYS), 4), "bias": torch.nn.Linear(1, len(KEYS))})
    rows = {"table.weight": torch.randn(len(tree.nodes), 4), "bias.bias": torch.randn(len(tree.nodes), 1)}
    ComposedTables(model, rows, tree)
    for name, parts in rows.items():
        named = dict(zip(tree.nodes, parts, strict=True))
        table = model.get_parameter(name).view(len(KEYS), -1)
        assert torch.equal(table[0], parts[0]), "special tokens have no ancestors"
        for token, key in enumerate(KEYS[1:], start=1):
            torch.testing.assert_close(table[token], the_sum(named, key, unseen=token == 3))
    assert tree.keys[: len(KEYS)] == KEYS and None in tree.keys[len(KEYS) :], "chapters are no codes"


def test_every_hierarchy_counts() -> None:
    codes = {"icd9cm": "250.01", "icd10pcs": "0DTJ4ZZ", "phecode": "EM_202.21", "icd10cm": "E11.9", "atc": "C10AA05"}
    deep = {system.name for system in code_systems() if system.has_hierarchy}
    assert deep == codes.keys(), "an example of each"
    for key in codes.items():
        assert len(ancestors_of(key)) >= 2


def test_a_step_moves_rows_as_their_gradients_through_the_sum_say() -> None:
    """Two steps, clipped, beside autograd through the composition and torch's own optimizer."""
    torch.manual_seed(0)
    tree = CodeTree.of(KEYS)
    model = torch.nn.ModuleDict({"table": torch.nn.Embedding(len(KEYS), 4), "other": torch.nn.Linear(4, 3)})
    rows = torch.randn(len(tree.nodes), 4)
    composed = ComposedTables(model, {"table.weight": rows.clone()}, tree)
    reference = rows.clone().requires_grad_()
    twin = torch.nn.Linear(4, 3)
    twin.load_state_dict(model["other"].state_dict())
    theirs = torch.optim.AdamW([reference, *twin.parameters()], lr=0.1, weight_decay=0.01)
    leaves = [3, 4]  # no ancestor of another, and in a system with a hierarchy
    ours = FusedAdamW(model["other"].parameters(), lr=0.1, weight_decay=0.01)
    args = SimpleNamespace(weight_decay=0.01, device=torch.device("cpu"))
    matrix = torch.from_numpy(tree.above.toarray()).float()
    for _ in range(2):
        ids = torch.tensor([1, 2, 2, 4])
        model["other"](model["table"](ids)).square().sum().mul(10).backward()
        table = torch.from_numpy(tree.own)[:, None] * reference[: len(KEYS)] + matrix @ reference
        table.retain_grad()
        twin(table[ids]).square().sum().mul(10).backward()
        norm = torch.cat([table.grad.flatten(), *(p.grad.flatten() for p in twin.parameters())]).norm()
        for parameter in (reference, *twin.parameters()):
            parameter.grad /= max(float(norm), 1.0)
        assert torch.allclose(ours.clip(1.0, composed.parameters()), norm)
        with torch.no_grad():
            reference[leaves] *= (1 - 0.1 * (0.01 + _ALONE_DECAY)) / (1 - 0.1 * 0.01)  # torch's decay comes on top
        composed.on_pre_optimizer_step(args, None, None, optimizer=ours)
        ours.step()
        theirs.step()
        for parameter in (*model.parameters(), reference, *twin.parameters()):
            parameter.grad = None
        torch.testing.assert_close(composed.rows["table.weight"], reference.detach())


@pytest.fixture(scope="module")
def data(small_datasets: Path) -> PatientDataset:
    return PatientDataset.load(small_datasets / "small_train.pt")


@pytest.fixture(scope="module")
def written(data: PatientDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a model that lacks the last code of the vocabulary."""
    vocabulary = data.info.vocabulary
    tokens = [(t, vocabulary.entity_names[e]) for t, e in zip(vocabulary.tokens, vocabulary.entities, strict=True)]
    info = replace(data.info, vocabulary=CodeVocabulary.of_tokens(tokens[6:-1]))
    initial = new_model(PretrainSettings(**SMALL), info, plos=False)
    model, composed = initial.model, initial.composed
    assert composed is not None
    composed.rows[BIAS].normal_()
    composed.compose()
    model.tree_rows = composed.learned(offset=2.0)
    folder = tmp_path_factory.mktemp("model")
    write_pretrained(folder, model, model.state_dict(), info)
    return folder


def test_what_is_written_is_composed(written: Path) -> None:
    model, form = read_pretrained(written)
    rows = load_file(written / CODE_TREE)
    state = load_file(written / "model.safetensors")
    assert model.tree_rows is not None and not any("tree" in name for name in state)
    for name, part in zip(CODE_TABLES, ("embeddings", "head", "bias"), strict=True):
        named = dict(zip(model.tree_rows.nodes, rows[part], strict=True))
        for token, key in list(enumerate(form.vocabulary.keys))[6::7]:
            torch.testing.assert_close(state[name][token].view(-1), the_sum(named, key))


def test_a_code_that_the_model_never_met_is_its_ancestors_sum(written: Path, data: PatientDataset) -> None:
    """In fine-tuning, and in predictions of a fine-tuned model."""
    model, form = read_pretrained(written)
    vocabulary = form.vocabulary.extended([("icd10cm", "E11.9999"[:7]), ("cpt", "99213")])
    key = vocabulary.keys[-2]
    named = {n: torch.from_numpy(model.tree_rows.tables[EMBEDDINGS][i]) for i, n in enumerate(model.tree_rows.nodes)}
    expected = the_sum(named, key, unseen=True)
    grown = extend_vocabulary(model, form.vocabulary, vocabulary, seed=0)
    assert (grown.new, grown.estimated) == (2, 1), "a flat code system has no ancestors"
    torch.testing.assert_close(grown.model.get_input_embeddings().weight[-2].detach(), expected)
    head = torch.from_numpy(model.tree_rows.tables[BIAS])
    bias = the_sum(dict(zip(model.tree_rows.nodes, head, strict=True)), key, unseen=True) - 2.0
    torch.testing.assert_close(grown.model.get_parameter(BIAS)[-2].detach(), bias[0])

    classifier = outcome_model(
        extend_vocabulary(model, form.vocabulary, form.vocabulary, 0), "ffn", Prompt([]), False, 0
    )
    predicting, placed = extend_outcome_vocabulary(classifier, form.vocabulary, vocabulary, 0)
    assert placed == 1
    torch.testing.assert_close(predicting.get_input_embeddings().weight[-2].detach(), expected)


def test_pretraining_goes_on_from_the_rows_that_were_written(written: Path, data: PatientDataset) -> None:
    old, form = read_pretrained(written)
    initial = new_model(PretrainSettings(model_dir=written), data.info, plos=False)
    known = [data.info.vocabulary.ids[token] for token in form.vocabulary.tokens]
    assert initial.composed is not None
    for name in CODE_TABLES:
        torch.testing.assert_close(initial.model.get_parameter(name)[known], old.get_parameter(name))
    place = initial.composed.tree.nodes.index("icd10cm:E11")
    before = old.tree_rows.tables[HEAD][old.tree_rows.nodes.index("icd10cm:E11")]
    torch.testing.assert_close(initial.composed.rows[HEAD][place], torch.from_numpy(before))
    plain = new_model(PretrainSettings(model_dir=written, code_ancestors=False), data.info, plos=False)
    assert plain.composed is None


def test_a_model_without_such_rows_can_be_given_them(data: PatientDataset, tmp_path: Path) -> None:
    model = new_model(PretrainSettings(**SMALL, code_ancestors=False), data.info, plos=False).model
    write_pretrained(tmp_path, model, model.state_dict(), data.info)
    assert not (tmp_path / CODE_TREE).exists()
    assert new_model(PretrainSettings(model_dir=tmp_path), data.info, plos=False).composed is None
    initial = new_model(PretrainSettings(model_dir=tmp_path, code_ancestors=True), data.info, plos=False)
    assert initial.composed is not None
    for name in CODE_TABLES:
        torch.testing.assert_close(initial.model.get_parameter(name), model.get_parameter(name))


def test_a_copy_without_rare_codes_has_no_node_that_names_one(written: Path) -> None:
    model, form = read_pretrained(written)
    kept = np.array([*range(6), *(i for i, key in enumerate(form.vocabulary.keys) if key and key[1][:3] == "E11")])
    smaller, shared = with_codes(model, form.vocabulary, kept)
    allowed = {node for key in smaller.keys if key for node in (":".join(key), *ancestors_of(key))}
    assert shared.tree_rows is not None and set(shared.tree_rows.nodes) <= allowed
    assert shared.tree_rows.tables[HEAD].shape == (len(shared.tree_rows.nodes), 16)


def test_damaged_rows_are_refused(written: Path, tmp_path: Path) -> None:
    rows = TreeRows.read(written / CODE_TREE, 16)
    with pytest.raises(InputError, match=r"code_tree.*is damaged: float32 of shape .*, expected float32 of .*17"):
        TreeRows.read(written / CODE_TREE, 17)
    replace(rows, nodes=rows.nodes[:-1]).write(tmp_path / CODE_TREE)
    with pytest.raises(InputError, match="is damaged"):
        TreeRows.read(tmp_path / CODE_TREE, 16)
    (tmp_path / CODE_TREE).write_bytes(b"no tensors")
    with pytest.raises(InputError, match="expected the rows of the nodes above codes"):
        TreeRows.read(tmp_path / CODE_TREE, 16)


def test_codes_that_never_occur_get_a_share_of_the_probability(data: PatientDataset) -> None:
    counts = data.code_counts.copy()
    counts[-3:] = 0
    initial = new_model(PretrainSettings(**SMALL), data.info, plos=False, counts=counts)
    unseen = UnseenCodes(initial.model, data.info.vocabulary.keys, counts)
    assert set(unseen.ids) >= set(range(len(counts) - 3, len(counts)))
    head = initial.model.code_classifier.predictions
    states = torch.randn(50, 16)
    assert torch.isneginf(head.train()(states)[:, -3:]).all()
    logits = head.eval()(states).detach()
    chosen = torch.zeros(len(counts), dtype=torch.bool)
    chosen[unseen.ids] = True
    unseen.calibrate((logits[:, chosen].logsumexp(1) - logits[:, ~chosen].logsumexp(1)).numpy())
    lowered = head(states).detach().softmax(dim=1)[:, chosen].sum(dim=1).mean()
    assert float(lowered) == pytest.approx(unseen.mass, rel=1e-3)
    bias = unseen.lowered(head.decoder.bias)
    assert torch.allclose(bias[chosen], head.decoder.bias[chosen] - unseen.offset)
    assert torch.equal(bias[~chosen], head.decoder.bias[~chosen])
