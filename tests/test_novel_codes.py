"""The analysis of novel codes: planted embeddings give known answers, and a tiny model goes through the script."""

import csv
import json
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, assert_one_line_error, run_here
from documents import blocks, without_figures

from exmed_bert.analysis.novel_codes.analyze import analyze
from exmed_bert.analysis.novel_codes.code_list import individual_codes
from exmed_bert.analysis.novel_codes.families import CodeFamilies
from exmed_bert.analysis.novel_codes.groups import GroupResults, members
from exmed_bert.analysis.novel_codes.guesses import GuessCounter
from exmed_bert.analysis.novel_codes.inputs import AFTER, BEFORE, in_ids_of, load
from exmed_bert.analysis.novel_codes.masked_codes import by_frequency, predict_all_codes
from exmed_bert.analysis.novel_codes.neighbors import RankMetrics, chance_of, nearest_siblings, nearness, rank_metrics
from exmed_bert.analysis.novel_codes.page import novel_report
from exmed_bert.analysis.novel_codes.plots import DRAWINGS
from exmed_bert.analysis.novel_codes.projections import principal_components, tsne
from exmed_bert.analysis.novel_codes.results import CodeTable, NovelResults
from exmed_bert.analysis.novel_codes.small_cells import shareable
from exmed_bert.analysis.novel_codes.structure import ALL, WITHIN, TreeCorrelation, silhouettes, tree_correlations
from exmed_bert.analysis.novel_codes.summary import printed_summary, summary
from exmed_bert.codes import CodeSystem, registered
from exmed_bert.config import resolve
from exmed_bert.console import InputError
from exmed_bert.data.dataset import PatientDataset
from exmed_bert.data.masking import IGNORED
from exmed_bert.data.vocabulary import MASK, SPECIAL_TOKENS, UNK, CodeVocabulary
from exmed_bert.evaluation.bootstrap import Estimate, difference_of, share_of
from exmed_bert.evaluation.masked_codes import MaskedCodePredictions
from exmed_bert.models.code_tree import CodeTree, TreeRows
from exmed_bert.reporting.small_cells import MinCell
from exmed_bert.settings import AnalyzeSettings, PretrainSettings
from exmed_bert.training.pretrain import run as pretrain

SCRIPT = "analyze_novel_codes.py"


def tree_codes() -> list[tuple[str, str]]:
    """Categories of three chapters with two codes each, and three codes below each of these; two families of drugs."""
    keys = []
    for category in ("E10", "E11", "E13", "I10", "I20", "I25", "M16", "M17"):
        keys.append(("icd10cm", category))
        for branch in "12":
            keys += [("icd10cm", f"{category}.{branch}{leaf}") for leaf in ("", "3", "4", "7")]
    return keys + [("atc", f"C10AA0{i}") for i in range(1, 6)] + [("atc", f"N02BE0{i}") for i in range(1, 6)]


def tree_vectors(families: CodeFamilies) -> np.ndarray:
    """Return vectors that follow the tree: the sum of a direction of its own for each node of a code's path."""
    paths = families.paths
    directions = np.eye(paths.max() + 1)
    # A lower node weighs less, so that a code lies nearest to its parent.
    weights = 0.8 ** np.arange(paths.shape[1])
    return np.stack([sum(weights[d] * directions[node] for d, node in enumerate(path) if node >= 0) for path in paths])


@pytest.fixture(scope="module")
def families() -> CodeFamilies:
    return CodeFamilies(tree_codes())


def test_parents_siblings_and_distances() -> None:
    keys = [("icd10cm", "E11"), ("icd10cm", "E11.9"), ("icd10cm", "E11.8"), ("icd10cm", "I10"), ("icd10cm", "E11.621")]
    found = CodeFamilies([*keys, ("atc", "C10AA05"), ("atc", "C10AA07")])
    assert found.parents.tolist() == [-1, 0, 0, -1, 0, -1, -1]
    assert found.direct.tolist() == [False, True, True, False, False, False, False]
    assert [siblings.tolist() for siblings in found.siblings] == [[], [2], [1], [], [], [6], [5]]
    distances = found.tree_distances(np.arange(7))
    assert (distances == distances.T).all() and (np.diag(distances) == 0).all()
    assert distances[0, [1, 4]].tolist() == [1, 3]  # E11.6 and E11.62 lie between
    assert distances[1, 2] == 2 and distances[0, 3] == 4 and distances[5, 6] == 2
    assert (distances[:5, 5:] == -1).all()


def test_a_registered_code_system_appears_by_itself(tmp_path: Path) -> None:
    """Chapters that are codes of the tree are one node, others stand above it; titles come from the registry."""
    local = CodeSystem(
        name="local", title="Local findings", events="findings", spelling=str,
        parent_of=lambda code: code[:-1] or None, chapter_of=lambda code: f"{code[0]} Group {code[0]}",
    )  # fmt: skip
    keys = [("local", a + b + c) for a in "XY" for b in "123" for c in ("", "4", "5", "6")]
    with registered(local):
        families = CodeFamilies([*keys, *tree_codes()])
        assert families.tree_distances(np.arange(3)).tolist() == [[0, 1, 1], [1, 0, 2], [1, 2, 0]]
        assert families.tree_distances(np.array([0, 12]))[0, 1] == 4  # X1, X, top, Y, Y1
        with novel_report(tmp_path, made_results(families, Estimate(0.5), Estimate(0.3), 0.0)):
            pass
    page = (tmp_path / "report.html").read_text()
    assert "Local findings" in page and "X Group X" in page and "ICD-10-CM" in page


def test_tree_shaped_vectors_are_recognized(families: CodeFamilies) -> None:
    vectors = tree_vectors(families)
    found = nearness(families, vectors)
    leaf = np.array([families.parents[row] >= 0 and len(code) == 6 for row, (_, code) in enumerate(families.keys)])
    assert (found.parent_ranks[leaf] == 1).all()
    ranks = rank_metrics(found.parent_ranks[leaf], np.ones(leaf.sum(), dtype=int), len(families), seed=0)
    assert ranks.hits["hit@1"].value == ranks.hits["mrr"].value == 1.0
    assert 0.9 < ranks.hits["hit@1"].low < 1.0  # of 48 codes, the exact interval
    assert (found.cosines["parent"][leaf] > found.cosines["siblings"][leaf]).all()
    assert (found.cosines["siblings"][leaf] > found.cosines["chapter"][leaf]).all()
    assert (found.cosines["chapter"][leaf] > found.cosines["any"][leaf]).all()

    rows, novel = np.arange(len(families)), np.zeros(len(families), dtype=bool)
    correlations = tree_correlations(families, vectors, rows, novel, seed=0, resamples=50)
    within = next(one for one in correlations if (one.system, one.pairs_of) == (ALL, WITHIN))
    assert within.correlation.value > 0.9 and within.correlation.low > 0.85
    islands = silhouettes(families, vectors, rows, seed=0)
    assert islands.mean_of("icd10cm").mean.value > 0.2 and islands.mean_of("atc").mean.value > 0.5


def test_random_vectors_give_chance(families: CodeFamilies) -> None:
    rng = np.random.default_rng(0)
    hits, correlations, means = [], [], []
    rows, novel = np.arange(len(families)), np.zeros(len(families), dtype=bool)
    for _ in range(30):
        vectors = rng.standard_normal((len(families), 32))
        found = nearness(families, vectors)
        siblings = np.array([len(of_code) for of_code in families.siblings])
        for ranks, relatives in ((found.parent_ranks, np.ones_like(siblings)), (found.sibling_ranks, siblings)):
            metrics = rank_metrics(ranks, relatives, len(families), seed=0)
            hits.append([metrics.hits[name].value - metrics.by_chance[name] for name in ("hit@5", "hit@10", "mrr")])
        all_pairs = tree_correlations(families, vectors, rows, novel, seed=0, resamples=0)[0]
        correlations.append(all_pairs.correlation.value)
        means.append(np.nanmean(found.cosines["parent"]))
    assert np.abs(np.mean(hits, axis=0)).max() < 0.02
    assert abs(np.mean(correlations)) < 0.02 and abs(np.mean(means)) < 0.02


def test_the_cosines_are_those_of_a_loop(families: CodeFamilies) -> None:
    vectors = np.random.default_rng(1).standard_normal((len(families), 8))
    found = nearness(families, vectors)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for row in (0, 2, 5, 40):
        cosine = unit @ unit[row]
        relatives = {row, int(families.parents[row]), *families.siblings[row].tolist()}
        others = [i for i in range(len(families)) if families.chapters[i] == families.chapters[row]]
        rest = [cosine[i] for i in others if i not in relatives]
        assert found.cosines["chapter"][row] == pytest.approx(np.mean(rest), abs=1e-5)
        assert found.cosines["any"][row] == pytest.approx(np.mean(np.delete(cosine, row)), abs=1e-5)
        assert found.nearest[row].tolist() == [i for i in np.argsort(-cosine) if i != row][:5]


def test_chance_is_that_of_shuffled_orders() -> None:
    rng = np.random.default_rng(2)
    first = np.array([rng.permutation(40)[:3].min() + 1 for _ in range(20_000)])
    expected = [(first <= 1).mean(), (first <= 5).mean(), (first <= 10).mean(), (1 / first).mean()]
    assert chance_of(3, 40) == pytest.approx(expected, abs=0.01)


def test_intervals_of_none_and_all_are_exact() -> None:
    nothing = np.zeros(100)
    none, everyone = share_of(0.0, nothing, 30), share_of(1.0, nothing + 1, 30)
    assert (none.low, everyone.high) == (0.0, 1.0)
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 30)) and everyone.low == pytest.approx(1 - none.high)
    difference = difference_of(none, Estimate(0.4, 0.3, 0.5), np.full(100, -0.4))
    assert difference.low == pytest.approx(-0.5) and difference.high == pytest.approx(-0.4 + np.hypot(none.high, 0.1))


def predictions(labels: Any, ranks: Any) -> MaskedCodePredictions:
    labels, ranks = np.array(labels), np.array(ranks)
    empty = np.empty(0)
    return MaskedCodePredictions(
        labels, ranks, ranks.astype(float), empty.astype(int), empty.astype(int), empty.reshape(0, 2)
    )


def test_codes_are_matched_by_frequency() -> None:
    """Rare codes are never right and common ones always: novel codes are as good as others of their frequency."""
    counts = np.array([0] * 6 + [2, 2, 50, 50, 5000])  # of each id; ids 6 and 8 are novel
    novel = np.isin(np.arange(11), (6, 8))
    labels = np.repeat([6, 7, 8, 9, 10], [90, 40, 10, 40, 400])
    ranks = np.where(counts[labels] > 10, 0, 20)
    found = by_frequency(predictions(labels, ranks), np.arange(len(labels)) % 60, novel, counts, seed=0, resamples=200)
    bands = {band.band: band for band in found.bands}
    assert bands["1-2"].positions == {"novel": 90, "other": 40} and bands["31-100"].codes == {"novel": 1, "other": 1}
    assert bands["1-2"].metrics["novel"]["top10"].value == 0.0 < bands["1-2"].metrics["novel"]["top10"].high
    assert bands["over 100"].differences == {} and "novel" not in bands["over 100"].metrics
    # Over all positions others look far better; at equal frequency there is no difference.
    assert found.whole.differences["top10"].low > -0.95 and found.whole.differences["top10"].high < -0.7
    assert found.matched.metrics["novel"]["top10"].value == pytest.approx(0.1)
    assert found.matched.metrics["other"]["top10"].value == pytest.approx(0.1)
    assert found.matched.positions == {"novel": 100, "other": 80}
    assert found.matched.differences["top10"].low <= 0 <= found.matched.differences["top10"].high


def test_without_training_counts_there_is_one_band() -> None:
    novel = np.isin(np.arange(9), 8)
    found = by_frequency(predictions([6, 7, 8], [0, 20, 3]), np.array([0, 1, 1]), novel, None, seed=0, resamples=20)
    assert [band.band for band in found.bands] == ["any"]
    assert found.bands[0].metrics["other"]["top5"].value == 0.5 and found.bands[0].positions["novel"] == 1


def test_groups_keep_novel_and_unseen_apart() -> None:
    found = members(np.array([True, True, False, False]), np.array([0, 3, 0, 7]))
    assert [member.tolist() for member in found.values()] == [
        [True, True, False, False], [True, False, False, False], [False, True, False, False],
        [False, False, True, False], [False, False, False, True],
    ]  # fmt: skip


@pytest.mark.parametrize("n", [1, 3, 12])
def test_maps_of_few_codes(n: int) -> None:
    vectors = np.random.default_rng(0).standard_normal((n, 6))
    for at in (principal_components(vectors), tsne(vectors, seed=1)):
        assert at.shape == (n, 2) and np.isfinite(at).all()
    assert (tsne(vectors, seed=1) == tsne(vectors, seed=1)).all()


class RecordingModel(torch.nn.Module):
    """Keeps the batches it is given and finds all codes equally likely."""

    def __init__(self, codes: int) -> None:
        super().__init__()
        self.codes, self.batches = codes, []

    def forward(self, **batch: torch.Tensor) -> Any:
        self.batches.append(batch)
        masked = int((batch["code_labels"] != IGNORED).sum())
        return type("Output", (), {"masked_logits": torch.zeros(masked, self.codes), "plos_logits": None})


def test_every_code_is_masked_once(small_datasets: Path) -> None:
    dataset = PatientDataset.load(small_datasets / "small_val.pt")
    model = RecordingModel(len(dataset.info.vocabulary))
    patients = np.arange(len(dataset))
    found, owners = predict_all_codes(model, dataset, patients, torch.device("cpu"))
    codes = dataset.columns["codes"].numpy()
    assert sorted(found.labels.tolist()) == sorted(codes[codes >= len(SPECIAL_TOKENS)].tolist())
    assert (np.bincount(owners, minlength=len(dataset)) == dataset.lengths).all()
    for batch in model.batches:
        masked = batch["code_labels"] != IGNORED
        assert (batch["input_ids"][masked] == MASK).all() and (batch["input_ids"][~masked] != MASK).all()
        lengths = batch["attention_mask"].sum(dim=1)
        assert (masked.sum(dim=1) <= -(-lengths // 7)).all()


def test_codes_are_matched_by_name(small_datasets: Path) -> None:
    dataset = PatientDataset.load(small_datasets / "small_val.pt")
    labels, entities = dataset.info.vocabulary.tokens, dataset.info.vocabulary.entities
    lost, other = 8, list(reversed(range(len(SPECIAL_TOKENS), len(labels))))
    order = [*range(len(SPECIAL_TOKENS)), *(i for i in other if i != lost)]
    vocabulary = CodeVocabulary(tuple(labels[i] for i in order), entities[order])
    mapped, unknown = in_ids_of(vocabulary, dataset)
    before, after = dataset.columns["codes"].numpy(), mapped.columns["codes"].numpy()
    assert (after[before == lost] == UNK).all() and unknown.events == (before == lost).sum()
    kept = before != lost
    assert [labels[i] for i in before[kept]] == [vocabulary.tokens[i] for i in after[kept]]
    assert in_ids_of(dataset.info.vocabulary, dataset)[0] is dataset
    nodes = CodeTree.of(vocabulary.keys).nodes  # with what the model's codes are sums of it sees the code, too
    mapped, also = in_ids_of(vocabulary, dataset, TreeRows(nodes, {}, 0.0))
    after = mapped.columns["codes"].numpy()
    assert also == unknown and (after[before == lost] == len(vocabulary)).all()
    assert [labels[i] for i in before] == [mapped.info.vocabulary.tokens[i] for i in after]


def made_results(
    families: CodeFamilies, share: Estimate, correlation: Estimate, novel_minus_other: float
) -> NovelResults:
    """Return results with given metrics: a share among the 10 nearest, where chance is 0.1, and a correlation."""
    n = len(families)
    novel = np.arange(n) % 5 == 0
    near = nearness(families, tree_vectors(families))
    ranks = RankMetrics(
        40,
        3.0,
        dict.fromkeys(("hit@1", "hit@5", "hit@10", "mrr"), share),
        {"hit@10": 0.1} | dict.fromkeys(("hit@1", "hit@5", "mrr"), 0.01),
    )
    cosines = dict.fromkeys(("parent", "siblings", "chapter", "any"), (0, None))
    group = GroupResults(
        "novel codes", int(novel.sum()), {AFTER: cosines}, {AFTER: {"parent": ranks, "sibling": ranks}}
    )
    right = np.arange(200) % 2 == 0  # half of the other codes' positions
    ranked = np.concatenate([np.where(np.arange(200) < 200 * (0.5 + novel_minus_other), 0, 20), np.where(right, 0, 20)])
    ids = np.repeat([6, 7], 200)
    masked = by_frequency(
        predictions(ids, ranked), np.arange(400), np.isin(np.arange(9), 6), None, seed=0, resamples=200
    )
    rows = np.arange(n)
    table = CodeTable(
        families=families, names=[code for _, code in families.keys], novel=novel, in_training=None,
        in_dataset=rows, masked=rows, top10=rows, nearness={AFTER: near}, sample=rows,
        silhouettes={AFTER: np.zeros(n)}, cosine_quartiles={AFTER: np.zeros((0, 4))}, on_map=rows,
        maps={kind: {AFTER: np.random.default_rng(0).random((n, 2))} for kind in ("pca", "tsne")},
    )  # fmt: skip
    return NovelResults(
        facts=[("Model", "made")], notes=[], groups=[group],
        correlations={AFTER: [TreeCorrelation(ALL, WITHIN, 100, correlation)]},
        silhouettes={AFTER: silhouettes(families, tree_vectors(families), rows, seed=0)},
        masked=masked, perplexity=10.0, table=table,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("share", "correlation", "novel_minus_other", "verdict", "said"),
    [
        (Estimate(0.5, 0.4, 0.6), Estimate(0.3, 0.2, 0.4), 0.4, "above chance",
         ("More often than by chance", "have embeddings that are closer", "predicted better than")),
        (Estimate(0.05, 0.02, 0.09), Estimate(-0.3, -0.4, -0.2), -0.4, "below chance",
         ("Less often than by chance", "have embeddings that are further apart", "predicted worse than")),
        (Estimate(0.2, 0.05, 0.4), Estimate(0.1, -0.1, 0.3), 0.0, "cannot be told from chance",
         ("which the interval includes", "can be told from 0", "cannot be told from other codes")),
        (Estimate(0.5), Estimate(0.3), 0.0, "cannot be told from chance",
         ("which the interval includes", "can be told from 0", "cannot be told from other codes")),
    ],
)  # fmt: skip
def test_verdicts_come_from_the_intervals(
    families: CodeFamilies,
    share: Estimate,
    correlation: Estimate,
    novel_minus_other: float,
    verdict: str,
    said: tuple[str, ...],
) -> None:
    results = made_results(families, share, correlation, novel_minus_other)
    section = summary(results)
    (table,) = section.tables
    verdicts = {str(row[1]).split(",")[0]: str(row[0]) for row in table.rows}
    of_embeddings = ("Parent among the 10 nearest", "Nearest sibling among the 10 nearest")
    assert [verdicts[name] for name in (*of_embeddings, "Spearman's correlation of tree and embeddings")] == [
        verdict
    ] * 3
    assert verdict in [str(shown) for shown, _ in section.legend]
    text = " ".join(section.text)
    assert all(words in text for words in said)
    claims = {"above chance": ("More often", "better than"), "below chance": ("Less often", "worse than")}
    unsaid = [words for side, of_side in claims.items() if side != verdict for words in of_side]
    assert not [words for words in unsaid if words in text]
    printed = dict(printed_summary(results))
    assert all(
        line.endswith(f": {verdict}") for name, line in printed.items() if "nearest" in name or "Spearman" in name
    )
    of_json = {metric["name"]: metric["verdict"] for metric in results.to_dict()["summary"]}
    assert of_json["Parent among the 10 nearest"] == verdict


def test_guesses_are_those_of_highest_mean_probability() -> None:
    counter = GuessCounter(np.isin(np.arange(9), [6, 7]))
    logits = torch.log(torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.1, 0.8]]))
    logits = torch.cat([torch.full((3, 6), -1e9), logits], dim=1)
    counter(torch.tensor([6, 6, 8]), logits)
    counter(torch.tensor([8]), logits[:1])
    assert {code: [(g, round(p, 3)) for g, p in told] for code, told in counter.guesses().items()} == {
        6: [(7, 0.5), (6, 0.4), (8, 0.1)]
    }


def test_a_tree_tells_of_each_novel_code_what_it_is_near_to(families: CodeFamilies) -> None:
    results = made_results(families, Estimate(0.5), Estimate(0.3), 0.0)
    novel = np.flatnonzero(results.table.novel)
    siblings = nearest_siblings(families, tree_vectors(families), novel)
    guesses = {int(row): [(0, 0.25)] for row in novel}
    results = replace(results, table=replace(results.table, siblings=siblings, guesses=guesses))
    section = individual_codes(results)
    (table,) = section.tables
    assert len(table.rows) == len(novel) and {row[2] for row in table.rows} == {"novel"}
    leaves = {}
    todo = [branch for tree in section.trees for branch in tree.branches]
    assert all(branch.text.endswith(" novel") for branch in todo)
    while todo:
        branch = todo.pop()
        todo += branch.branches
        leaves |= {branch.name: dict(branch.facts)} if branch.facts else {}
    assert leaves.keys() == {families.keys[row][1] for row in novel}
    told = next(facts for facts in leaves.values() if "Parent" in facts)
    assert "cosine 0." in told["Parent"] and told["Guesses"].endswith("25 %")
    row = next(row for row, found in siblings.items() if len(found) > 1)
    assert siblings[row][0][1] >= siblings[row][1][1] and families.parents[siblings[row][0][0]] == families.parents[row]
    hidden = shareable(results, MinCell(11)).table.guesses
    assert hidden.keys() == {row for row in guesses if not 0 < results.table.masked[row] < 11}


def test_pictures_of_an_earlier_report_are_removed(families: CodeFamilies, tmp_path: Path) -> None:
    for name in ("map_tsne_before.png", "my_plot.png", "notes.txt"):
        (tmp_path / name).write_text("old")
    with novel_report(tmp_path, made_results(families, Estimate(0.5), Estimate(0.3), 0.0)):
        pass
    written = {path.name for path in tmp_path.iterdir()}
    assert {"my_plot.png", "notes.txt", "map_tsne_after.png", "report.html"} <= written
    assert "map_tsne_before.png" not in written


def test_counts_of_few_events_are_hidden_in_every_file(families: CodeFamilies, tmp_path: Path) -> None:
    whole = made_results(families, Estimate(0.5), Estimate(0.3), 0.1)
    counts = np.where(np.arange(len(families)) % 2 == 0, 7, 12345)
    table = replace(whole.table, in_training=counts, in_dataset=counts, masked=counts, top10=counts)
    few = replace(whole.masked.bands[0], positions={"novel": 15, "other": 2000}, patients={"novel": 4, "other": 900})
    masked = replace(whole.masked, bands=[few], whole=few, matched=few)
    results = shareable(replace(whole, table=table, masked=masked), MinCell(11))
    assert shareable(whole, MinCell(0)) is whole
    with novel_report(tmp_path, results):
        pass
    of_codes = rows_of(tmp_path / "codes.csv")
    assert (
        {row["events_in_training"] for row in of_codes} == {"<11", "12345"} == {r["masked_positions"] for r in of_codes}
    )
    assert {row["codes"] for row in rows_of(tmp_path / "masked_codes.csv")} == {"other"}
    content = json.loads((tmp_path / "results.json").read_text())["masked_codes"]
    for band in (content["bands"][0], content["whole"], content["matched"]):
        assert band["patients"] == {"novel": "<11", "other": 900} and band["metrics"].keys() == {"other"}
        assert band["differences"] == {}
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "&lt;11" in page and "Counts from 1 to 10 are hidden" in page and "Too few patients have masked" in page
    assert ">7<" not in page


@pytest.fixture(scope="module")
def pretrained(small_datasets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny model that was trained for a few steps."""
    folder = tmp_path_factory.mktemp("pretrained")
    given = {
        "training_data": small_datasets / "small_train.pt",
        "validation_data": small_datasets / "small_val.pt",
        "output_dir": folder / "model",
        "output_data_dir": folder / "data",
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "train_batch_size": 8,
        "max_steps": 12,
        "save_steps": 12,
        "eval_steps": 12,
    }
    pretrain(resolve(PretrainSettings, given))
    return folder / "model"


@pytest.fixture(scope="module")
def analyzed(small_datasets: Path, pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder that the script wrote; what it printed stands in ``printed.txt``."""
    folder = tmp_path_factory.mktemp("analyzed")
    arguments = ("--model-dir", pretrained, "--dataset", small_datasets / "small_val.pt", "--output-dir", folder)
    result = run_here(SCRIPT, *arguments, cwd=folder)
    assert result.returncode == 0, result.stderr
    (folder / "printed.txt").write_text(result.stdout)
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_the_script_leaves_everything(analyzed: Path, pretrained: Path, small_datasets: Path) -> None:
    vocabulary = json.loads((pretrained / "vocab.json").read_text())
    codes = {row["code"]: row for row in rows_of(analyzed / "codes.csv")}
    assert len(codes) == len(vocabulary) - len(SPECIAL_TOKENS)
    dataset = PatientDataset.load(small_datasets / "small_val.pt")
    novel = {code for code, row in codes.items() if row["novel"] == "yes"}
    assert novel == set(dataset.info.novel_codes) & set(vocabulary)
    assert {row["code"] for row in rows_of(analyzed / "novel_codes.csv")} == novel
    train = PatientDataset.load(small_datasets / "small_train.pt")
    for code, row in list(codes.items())[::20]:
        token = vocabulary[code]["id"]
        assert int(row["events_in_training"]) == train.code_counts[token]
        assert int(row["masked_positions"]) == int(row["events_in_dataset"]) == dataset.code_counts[token]

    results = json.loads((analyzed / "results.json").read_text())
    groups = {group["name"]: group["codes"] for group in results["groups"]}
    assert groups["novel codes"] == len(novel)
    assert groups["novel codes, never in training"] + groups["novel codes, in training"] == len(novel)
    assert results["masked_codes"]["positions"] == int(dataset.lengths.sum())
    assert set(results["tree_correlations"]) == {BEFORE, AFTER}
    printed = (analyzed / "printed.txt").read_text()
    assert f"tensorboard --logdir {analyzed / 'projector'}" in printed and "report.html" in printed
    assert json.loads((analyzed / "settings.json").read_text())["step"] == "analyze"


@pytest.mark.slow
def test_the_projector_has_every_code(analyzed: Path, pretrained: Path) -> None:
    codes = len(json.loads((pretrained / "vocab.json").read_text())) - len(SPECIAL_TOKENS)
    config = (analyzed / "projector" / "projector_config.pbtxt").read_text()
    for folder in ("00000/before_training", "00001/after_training"):
        assert folder in config
        metadata = (analyzed / "projector" / folder / "metadata.tsv").read_text().splitlines()
        assert metadata[0].split("\t") == ["code", "description", "system", "chapter", "novel", "in_training"]
        assert len(metadata) == codes + 1 and {len(line.split("\t")) for line in metadata} == {6}
        tensors = np.loadtxt(analyzed / "projector" / folder / "tensors.tsv", delimiter="\t")
        assert tensors.shape == (codes, 16)
    assert "Essential (primary) hypertension" in "\n".join(metadata)


class Page(HTMLParser):
    """Collects headings, pictures and whatever a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.tags, self.pictures, self.links = [], [], []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.tags.append(tag)
        if tag == "svg":
            self.pictures.append(given["aria-label"])
        outside = ("data:", "#")
        self.links += [value for name, value in attributes if name in ("href", "src") and not value.startswith(outside)]


@pytest.mark.slow
def test_the_page_is_whole_and_self_contained(analyzed: Path) -> None:
    page = Page()
    page.feed((analyzed / "report.html").read_text())
    assert page.links == [] and page.tags.count("script") == 1
    assert (analyzed / "report.html").stat().st_size < 3_000_000
    drawn = {DRAWINGS[path.stem][1] for path in analyzed.glob("*.png")}
    assert set(page.pictures) == drawn and len(drawn) == 9


@pytest.mark.slow
def test_the_same_seed_gives_the_same_figures(analyzed: Path, pretrained: Path, small_datasets: Path) -> None:
    settings = AnalyzeSettings(model_dir=pretrained, dataset=small_datasets / "small_val.pt", output_dir=analyzed)
    again = json.loads(json.dumps(analyze(load(settings), settings).to_dict()))
    assert again == json.loads((analyzed / "results.json").read_text())


@pytest.mark.slow
def test_a_dataset_without_novel_codes(tmp_path: Path, pretrained: Path, small_datasets: Path) -> None:
    """Codes that occur nowhere in training take their place; without training data nothing is novel, and says so."""
    dataset = PatientDataset.load(small_datasets / "small_val.pt")
    PatientDataset(replace(dataset.info, novel_codes=()), dataset.columns).save(tmp_path / "real.pt")
    settings = AnalyzeSettings(model_dir=pretrained, dataset=tmp_path / "real.pt")
    inputs = load(settings)
    assert inputs.novel[inputs.ids].sum() == (inputs.counts[inputs.ids] == 0).sum() > 0
    assert "nowhere in its training data" in inputs.novel_by

    model = shutil.copytree(pretrained, tmp_path / "model", ignore=shutil.ignore_patterns("checkpoint-*"))
    for name in ("settings.json", "start_embeddings.safetensors"):
        (model / name).unlink()
    settings = AnalyzeSettings(model_dir=model, dataset=tmp_path / "real.pt")
    results = analyze(load(settings), settings)
    assert [group.name for group in results.groups] == ["other codes"] and results.times == [AFTER]
    with novel_report(tmp_path / "out", results):
        pass
    text = (tmp_path / "out" / "report.html").read_text()
    assert "no novel code" in text and "not at hand" in text and "start_embeddings.safetensors" in text


@pytest.mark.slow
def test_the_readme_shows_what_is_printed(analyzed: Path) -> None:
    """But for figures and verdicts."""

    def shape(line: str) -> str:
        return without_figures(line.rsplit(":", 1)[0])

    (shown,) = [block for block in blocks(ROOT / "README.md", "txt") if block.text.startswith("Novel codes\n")]
    expected = [line for line in shown.text.splitlines() if line.strip() != "..."]
    assert len(expected) == 5
    assert set(map(shape, expected)) <= set(map(shape, (analyzed / "printed.txt").read_text().splitlines()))


@pytest.mark.slow
def test_errors_are_one_line(tmp_path: Path, pretrained: Path, small_datasets: Path) -> None:
    val = small_datasets / "small_val.pt"
    result = run_here(SCRIPT, "--model-dir", tmp_path, "--dataset", val, "--output-dir", tmp_path / "o", cwd=tmp_path)
    assert_one_line_error(result, 1, str(tmp_path), "config.json", "folder of a pretrained ExMed-BERT")


@pytest.mark.slow
def test_what_does_not_fit_is_refused(tmp_path: Path, pretrained: Path, small_datasets: Path) -> None:
    val = small_datasets / "small_val.pt"
    model = shutil.copytree(pretrained, tmp_path / "model", ignore=shutil.ignore_patterns("checkpoint-*"))
    with pytest.raises(InputError, match=r"missing\.pt: file not found"):
        load(AnalyzeSettings(model_dir=model, dataset=tmp_path / "missing.pt"))
    with pytest.raises(InputError, match=r"missing\.pt: file not found"):
        load(AnalyzeSettings(model_dir=model, dataset=val, training_data=tmp_path / "missing.pt"))

    record, contents = (model / "pretraining.json").read_text(), (model / "contents.json").rename(tmp_path / "contents")
    (model / "pretraining.json").write_text(json.dumps(json.loads(record) | {"input_fingerprint": "0" * 32}))
    with pytest.raises(InputError, match=r"--training-data: was made of another input than .* was pretrained on"):
        load(AnalyzeSettings(model_dir=model, dataset=val, training_data=small_datasets / "small_train.pt"))
    replaced = load(AnalyzeSettings(model_dir=model, dataset=val))
    assert replaced.counts is None and any("_train.pt has been replaced since" in note for note in replaced.notes)
    (model / "pretraining.json").write_text(record)
    contents.rename(model / "contents.json")

    start = (model / "start_embeddings.safetensors").read_bytes()
    (model / "start_embeddings.safetensors").write_bytes(start[:50])
    with pytest.raises(InputError, match=r"start_embeddings\.safetensors: is damaged"):
        load(AnalyzeSettings(model_dir=model, dataset=val))
    (model / "start_embeddings.safetensors").write_bytes(start)

    vocabulary = json.loads((model / "vocab.json").read_text())
    fewer = dict(list(vocabulary.items())[:-1])
    (model / "vocab.json").write_text(json.dumps(fewer))
    with pytest.raises(InputError, match=rf"has {len(fewer)} codes, the model {len(vocabulary)}"):
        load(AnalyzeSettings(model_dir=model, dataset=val))
    (model / "vocab.json").write_text("[1]")
    with pytest.raises(InputError, match=r"vocab\.json: is damaged"):
        load(AnalyzeSettings(model_dir=model, dataset=val))
