"""Inputs of an analysis of novel codes: a model, its codes before and after training, and patients in its ids."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from exmed_bert import console
from exmed_bert.analysis.novel_codes.families import CodeFamilies
from exmed_bert.codes import CodeKey, ancestors, code_system
from exmed_bert.console import InputError
from exmed_bert.data.dataset import PatientDataset
from exmed_bert.data.shards import open_dataset, patients_in_both, verify
from exmed_bert.data.vocabulary import SPECIAL_TOKENS, UNK, CodeVocabulary
from exmed_bert.models import ExMedBertForMaskedLM
from exmed_bert.models.code_tree import TreeRows, with_sums
from exmed_bert.models.folder import (
    START_EMBEDDINGS,
    check_fit,
    is_of_other_input,
    read_pretrained,
    read_start_embeddings,
)
from exmed_bert.reference.names import code_names
from exmed_bert.reporting.small_cells import MinCell
from exmed_bert.settings import AnalyzeSettings

BEFORE, AFTER = "before", "after"


@dataclass(frozen=True)
class Unknown:
    """Codes of a dataset that the model does not know: how many, and how many events they are."""

    codes: int
    events: int


@dataclass(frozen=True)
class NovelInputs:
    """A model with V ids, N of them codes, and a dataset in the model's ids.

    Attributes:
        model: in evaluation mode.
        vocabulary: the model's.
        ids: (N,) int64, the ids that are codes.
        families: the N codes.
        embeddings: ``before`` (absent where the folder does not hold it) and ``after`` training, (N, d) float32.
        dataset: whose codes are masked; codes that the model does not know are UNK.
        unknown: what became UNK.
        counts: (V,) int64, how often each id occurs in training; None where the training data is not at hand.
        training_data: where the counts come from.
        novel: (V,) bool.
        novel_by: the definition of a novel code here, for the reader.
        notes: what the reader has to know.
        cells: which counts are hidden.
    """

    model: ExMedBertForMaskedLM
    vocabulary: CodeVocabulary
    ids: np.ndarray
    families: CodeFamilies
    embeddings: dict[str, np.ndarray]
    dataset: PatientDataset
    unknown: Unknown
    counts: np.ndarray | None
    training_data: Path | None
    novel: np.ndarray
    novel_by: str
    notes: list[str]
    cells: MinCell


def load(settings: AnalyzeSettings) -> NovelInputs:
    """Open the model and the datasets and bring them to the model's ids.

    Raises:
        InputError: a file is missing or damaged, or model and dataset do not fit.
    """
    notes: list[str] = []
    model, form = read_pretrained(settings.model_dir)
    vocabulary = form.vocabulary
    original = open_dataset(settings.dataset)
    verify(settings.dataset, original)
    visit_ids, info = original.columns["visit_ids"], original.info
    visits = int(visit_ids.max()) if len(visit_ids) else 0
    otherwise = "give another --dataset"
    check_fit(settings.model_dir, model.config, info.age_unit, info.static_columns, visits, otherwise)
    dataset, unknown = in_ids_of(vocabulary, original, model.tree_rows)
    train, training_data = _training_data(settings, original, notes)
    cells = [one.info.cells(settings.min_cell) for one in (original, train) if one is not None]
    hidden = max(cells, key=lambda one: one.limit)
    if unknown.codes:
        seen = "the model sees them as UNK"
        if len(dataset.info.vocabulary) > len(vocabulary):
            seen = "the model sees them as the sum of their ancestors, or as UNK where it knows none"
        notes.append(
            f"{unknown.codes:,} codes of the dataset ({hidden.show(unknown.events)} events) are not in the model's "
            f"vocabulary: {seen}, and they are neither placed nor predicted."
        )
    codes = dataset.columns["codes"]
    if not ((codes >= len(SPECIAL_TOKENS)) & (codes < len(vocabulary))).any():
        raise InputError(f"{settings.dataset}: holds no code that the model {settings.model_dir} knows")

    ids = np.arange(len(SPECIAL_TOKENS), len(vocabulary))
    trained = model.get_input_embeddings().weight.detach().float().cpu().numpy()
    embeddings = {AFTER: trained[ids]}
    if model.tree_rows is not None and len(dataset.info.vocabulary) > len(vocabulary):
        table = model.get_input_embeddings().weight
        grown = with_sums(table, model.tree_rows, dataset.info.vocabulary.keys)
        model.set_input_embeddings(torch.nn.Embedding.from_pretrained(grown))
    start = read_start_embeddings(settings.model_dir, trained.shape)
    if start is None:
        notes.append(f"The model's folder holds no {START_EMBEDDINGS}, so nothing is said of the time before training.")
    else:
        embeddings = {BEFORE: start[ids]} | embeddings

    counts = None if train is None else in_ids_of(vocabulary, train)[0].code_counts
    novel, novel_by = _novel(vocabulary, original, counts)
    if not novel.any():
        notes.append(f"There is no novel code here: {novel_by}. What follows is about all codes of the model.")
    families = CodeFamilies([key for key in vocabulary.keys if key is not None])  # special tokens have none
    return NovelInputs(
        model=model,
        vocabulary=vocabulary,
        ids=ids,
        families=families,
        embeddings=embeddings,
        dataset=dataset,
        unknown=unknown,
        counts=counts,
        training_data=training_data,
        novel=novel,
        novel_by=novel_by,
        notes=notes,
        cells=hidden,
    )


def in_ids_of(
    vocabulary: CodeVocabulary, dataset: PatientDataset, rows: TreeRows | None = None
) -> tuple[PatientDataset, Unknown]:
    """Return the dataset in the ids of another vocabulary, matched by name.

    Codes that it lacks become UNK, but those that are sums of the given rows, which have ids after the vocabulary's.
    """
    labels = dataset.info.vocabulary.tokens
    if labels == vocabulary.tokens:
        return dataset, Unknown(0, 0)
    lacking = [
        key for name, key in zip(labels, dataset.info.vocabulary.keys, strict=True) if name not in vocabulary.ids
    ]
    known = len(vocabulary)
    if rows is not None:
        vocabulary = vocabulary.extended([key for key in lacking if key is not None and rows.place(key)])
    of_id = np.array([vocabulary.ids.get(name, UNK) for name in labels], dtype=np.int32)
    own = of_id[len(SPECIAL_TOKENS) :]
    lost = (own == UNK) | (own >= known)
    counts = dataset.code_counts[len(SPECIAL_TOKENS) :]
    columns = dict(dataset.columns)
    for name in ("codes", "shown_codes"):
        if name in columns:
            columns[name] = torch.from_numpy(of_id[columns[name].numpy()])
    mapped = PatientDataset(replace(dataset.info, vocabulary=vocabulary), columns)
    return mapped, Unknown(int((lost & (counts > 0)).sum()), int(counts[lost].sum()))


def descriptions(keys: Sequence[CodeKey]) -> list[str]:
    """Return the name of each code; of one that is in no code list, the name of its nearest ancestor."""
    names = code_names()

    def name_of(system: str, code: str) -> str | None:
        return names.get((system, code)) or code_system(system).description(code)

    def describe(system: str, code: str) -> str:
        if own := name_of(system, code):
            return own
        for above in ancestors(code, system):
            if name := name_of(system, above):
                # A group that is named by its code alone, as "ATC group C10", says no more than the code.
                return f"in no code list, under {above}" + ("" if above in name else f": {name}")
        return "in no code list"

    return [describe(system, code) for system, code in keys]


def _training_data(
    settings: AnalyzeSettings, dataset: PatientDataset, notes: list[str]
) -> tuple[PatientDataset | None, Path | None]:
    """Return the dataset that the model was trained on, and its file; None where it is not at hand."""
    folder = settings.model_dir
    path = settings.training_data or named_training_data(folder)
    if path is None:
        notes.append(
            "The data that the model was trained on is not at hand (--training-data), so nothing is said of how often "
            "a code occurs there."
        )
        return None, None
    train = open_dataset(path)
    verify(path, train)
    if is_of_other_input(folder, train.info.input_fingerprint):
        if settings.training_data is not None:
            raise InputError(
                f"{path}: --training-data: was made of another input than {folder} was pretrained on, expected the "
                "dataset that the model was trained on"
            )
        note = (
            f"{path} has been replaced since the model was pretrained on it: it was made of another input. Nothing is "
            "said of how often a code occurs in training; convert the input of the model again, or pretrain again."
        )
        console.warn(note)
        notes.append(note)
        return None, None
    if is_of_other_input(folder, dataset.info.input_fingerprint):
        note = f"{settings.dataset} was made of another input than the model was pretrained on."
        console.echo(f"Note: {note}")
        notes.append(note)
    if both := patients_in_both(train, dataset):
        note = f"{both:,} patients of the dataset are in the training data: the model has seen what it predicts here."
        console.warn(note)
        notes.append(note)
    return train, path


def named_training_data(folder: Path) -> Path | None:
    """Return the training data that the model's settings name, None where it is not there."""
    try:
        named = Path(json.loads((folder / "settings.json").read_text(encoding="utf-8"))["settings"]["training_data"])
        return named if named.exists() else None  # which some names do not allow to ask
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # a model from elsewhere has no such file
        return None


def _novel(vocabulary: CodeVocabulary, dataset: PatientDataset, counts: np.ndarray | None) -> tuple[np.ndarray, str]:
    """Return which ids of the model are novel, (V,) bool, and what makes them so."""
    listed = [vocabulary.ids[name] for name in dataset.info.novel_codes if name in vocabulary.ids]
    novel = np.zeros(len(vocabulary), dtype=bool)
    novel[listed] = True
    if dataset.info.novel_codes:
        return novel, "the dataset lists the codes that the generator made"
    if counts is None:
        return (
            novel,
            "the dataset lists none, and the training data that could show which codes it lacks is not at hand",
        )
    novel[len(SPECIAL_TOKENS) :] = counts[len(SPECIAL_TOKENS) :] == 0
    return novel, "the dataset lists none, so the codes of the model that occur nowhere in its training data"
