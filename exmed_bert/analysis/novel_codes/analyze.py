"""Analysis of novel codes as a whole: from a model and a dataset to the report."""

import numpy as np
from transformers import logging as transformers_logging

from exmed_bert import console
from exmed_bert.analysis.novel_codes.groups import group_results, members
from exmed_bert.analysis.novel_codes.guesses import GuessCounter, Guesses
from exmed_bert.analysis.novel_codes.inputs import AFTER, NovelInputs, descriptions, load
from exmed_bert.analysis.novel_codes.masked_codes import MaskedMetrics, by_frequency, predict_all_codes
from exmed_bert.analysis.novel_codes.neighbors import nearest_siblings, nearness
from exmed_bert.analysis.novel_codes.page import novel_report
from exmed_bert.analysis.novel_codes.projections import perplexity_for, principal_components, tsne
from exmed_bert.analysis.novel_codes.projector import FOLDER, write_projector
from exmed_bert.analysis.novel_codes.results import CodeTable, NovelResults
from exmed_bert.analysis.novel_codes.small_cells import shareable
from exmed_bert.analysis.novel_codes.structure import cosine_by_distance, silhouettes, tree_correlations
from exmed_bert.analysis.novel_codes.summary import printed_summary
from exmed_bert.codes import code_system
from exmed_bert.config import Resolved
from exmed_bert.evaluation.bootstrap import RESAMPLES
from exmed_bert.locks import held
from exmed_bert.reporting.folder import PAGE
from exmed_bert.reporting.small_cells import number_of
from exmed_bert.settings import AnalyzeSettings
from exmed_bert.startup import called
from exmed_bert.training.hardware import on_best_device
from exmed_bert.training.trainer import evaluation_sample

MOST_IN_PAIRS = 1500  # codes whose pairs are taken; memory and time grow with the square
MOST_ON_MAP = 3000


def run(resolved: Resolved[AnalyzeSettings]) -> None:
    """Analyze and write the report, the tables, the plots and the projector's files.

    Raises:
        InputError: a file is missing or damaged, model and dataset do not fit, or the folder cannot be written, or
            another process is writing it.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    settings = resolved.settings
    with held(settings.output_dir, called("analyze")):
        inputs = load(settings)
        results = shareable(analyze(inputs, settings), inputs.cells)
        with novel_report(settings.output_dir, results) as staged:
            write_projector(staged, *_projector_content(inputs, results))
            resolved.save(staged / "settings.json")
    console.table("Novel codes", printed_summary(results))
    console.table(
        "Written",
        [
            ("report", settings.output_dir / PAGE),
            ("metrics and tables", settings.output_dir),
            ("TensorBoard", f"tensorboard --logdir {settings.output_dir / FOLDER}"),
        ],
    )


def analyze(inputs: NovelInputs, settings: AnalyzeSettings) -> NovelResults:
    """Return the results; nothing is written."""
    families, seed = inputs.families, settings.seed
    novel = inputs.novel[inputs.ids]
    in_training = None if inputs.counts is None else inputs.counts[inputs.ids]
    near = {
        time: nearness(families, vectors, f"Relatives, {time} training") for time, vectors in inputs.embeddings.items()
    }
    rng = np.random.default_rng(seed)
    sample = np.sort(rng.permutation(len(families))[:MOST_IN_PAIRS])
    on_map = _map_rows(inputs, novel, rng)
    work = [(time, vectors) for time, vectors in inputs.embeddings.items()]
    correlations, silhouette, quartiles = {}, {}, {}
    maps: dict[str, dict[str, np.ndarray]] = {"pca": {}, "tsne": {}}
    for time, vectors in console.progress(work, label="Trees, chapters, maps", unit=" tables"):
        correlations[time] = tree_correlations(families, vectors, sample, novel, seed)
        silhouette[time] = silhouettes(families, vectors, sample, seed)
        quartiles[time] = cosine_by_distance(families, vectors, sample)
        maps["pca"][time] = principal_components(vectors[on_map])
        maps["tsne"][time] = tsne(vectors[on_map], seed)
    masked, positions, hits, guesses = _masked(inputs, settings)
    table = CodeTable(
        families=families,
        names=descriptions(families.keys),
        novel=novel,
        in_training=in_training,
        in_dataset=inputs.dataset.code_counts[inputs.ids],
        masked=positions,
        top10=hits,
        nearness=near,
        sample=sample,
        silhouettes={time: found.of_code for time, found in silhouette.items()},
        cosine_quartiles=quartiles,
        on_map=on_map,
        maps=maps,
        guesses=guesses,
        siblings=nearest_siblings(families, inputs.embeddings[AFTER], np.flatnonzero(novel)),
    )
    groups = members(novel, in_training)
    return NovelResults(
        facts=_facts(inputs, settings, number_of(masked.patients)),
        notes=inputs.notes + _sampled(len(families), len(on_map)),
        groups=[group_results(name, member, families, near, seed) for name, member in groups.items()],
        correlations=correlations,
        silhouettes=silhouette,
        masked=masked,
        perplexity=perplexity_for(len(on_map)),
        table=table,
        resamples=RESAMPLES,
    )


def _masked(inputs: NovelInputs, settings: AnalyzeSettings) -> tuple[MaskedMetrics, np.ndarray, np.ndarray, Guesses]:
    """Return the metrics, and for each code its masked positions and those with it in the top 10 predictions, (N,).

    Last what novel codes are taken for, by row.
    """
    device = on_best_device(inputs.model).device
    patients = evaluation_sample(inputs.dataset, settings.max_patients, settings.seed)
    counter = GuessCounter(inputs.novel)
    found, owners = predict_all_codes(inputs.model, inputs.dataset, patients, device, counter, len(inputs.vocabulary))
    size = len(inputs.vocabulary)
    positions = np.bincount(found.labels, minlength=size)[inputs.ids]
    hits = np.bincount(found.labels[found.ranks < 10], minlength=size)[inputs.ids]
    row_of = {code: row for row, code in enumerate(inputs.ids.tolist())}
    guesses = {
        row_of[code]: [(row_of[guess], share) for guess, share in told if guess in row_of]
        for code, told in counter.guesses().items()
    }
    return by_frequency(found, owners, inputs.novel, inputs.counts, settings.seed), positions, hits, guesses


def _map_rows(inputs: NovelInputs, novel: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the codes on the maps: novel ones and their parents before all others."""
    parents = inputs.families.parents[novel]
    first = np.union1d(np.flatnonzero(novel), parents[parents >= 0])
    drawn = rng.permutation(len(inputs.families))
    order = np.concatenate([rng.permutation(first), drawn[~np.isin(drawn, first)]])
    return np.sort(order[:MOST_ON_MAP])


def _sampled(codes: int, on_map: int) -> list[str]:
    if codes <= MOST_IN_PAIRS:
        return []
    return [
        f"Of {codes:,} codes, {MOST_IN_PAIRS:,} drawn at random are compared in pairs (tree distances, silhouettes), "
        f"and {on_map:,} are on the maps, novel ones and their parents first."
    ]


def _facts(inputs: NovelInputs, settings: AnalyzeSettings, masked: int) -> list[tuple[str, str]]:
    novel, counts, shown = inputs.novel[inputs.ids], inputs.counts, inputs.cells.show
    unseen = "" if counts is None else f", {int((novel & (counts[inputs.ids] == 0)).sum()):,} of them never in training"
    kinds = ", ".join(
        f"{int((inputs.families.systems == i).sum()):,} {code_system(name).title}"
        for i, name in enumerate(inputs.families.system_names)
    )
    return [
        ("Model", str(settings.model_dir)),
        ("Codes of the model", f"{len(inputs.ids):,} ({kinds}), {inputs.embeddings[AFTER].shape[1]} dimensions"),
        ("Novel codes", f"{int(novel.sum()):,}{unseen}"),
        ("Definition of novel", inputs.novel_by),
        ("Dataset", f"{settings.dataset}: {shown(len(inputs.dataset))} patients, {shown(masked)} of them masked"),
        ("Training data", "not at hand" if inputs.training_data is None else str(inputs.training_data)),
        ("Seed", str(settings.seed)),
    ]


def _projector_content(
    inputs: NovelInputs, results: NovelResults
) -> tuple[dict[str, np.ndarray], list[str], list[list[str]]]:
    """Return the embeddings, the header and the rows of the metadata."""
    table, families = results.table, inputs.families
    header = ["code", "description", "system", "chapter", "novel"]
    chapters = [families.chapter_names[i][1] for i in families.chapters]
    columns = zip(families.keys, table.names, chapters, table.novel.tolist(), strict=True)
    rows = [[code, name, system, chapter, "yes" if new else "no"] for (system, code), name, chapter, new in columns]
    if table.in_training is not None:
        header.append("in_training")
        rows = [[*row, str(count)] for row, count in zip(rows, table.in_training.tolist(), strict=True)]
    return {f"{time}_training": vectors for time, vectors in inputs.embeddings.items()}, header, rows
