"""From a dataset back to patients as columns, to tokenize them for a model of another vocabulary, or up to a day."""

from collections.abc import Iterator

import numpy as np

from exmed_bert.codes import CodeKey
from exmed_bert.data.dataset import PatientDataset
from exmed_bert.data.patient import DAY_FIELDS, EventColumns, PatientColumns
from exmed_bert.data.readers.base import CHUNK
from exmed_bert.data.vocabulary import SPECIAL_TOKENS, UNK


def decoded_chunks(dataset: PatientDataset, size: int = CHUNK) -> Iterator[PatientColumns]:
    """Yield the patients of a dataset as columns, at most ``size`` at a time: the events that its tokens stand for."""
    for part in dataset.parts():
        for first in range(0, len(part), size):
            yield decode(part, first, min(first + size, len(part)))


def decode(dataset: PatientDataset, first: int, end: int) -> PatientColumns:
    """Return the patients ``first`` to ``end`` of a dataset that is in one piece.

    A code that the dataset does not know stays one that nobody knows. Tokens of unknown age are events on doubtful
    days. A token of no code system is no event.
    """
    arrays = dataset.arrays
    starts = arrays["offsets"][first : end + 1].astype(np.int64)
    tokens = slice(int(starts[0]), int(starts[-1]))
    codes, entities = (arrays[name][tokens].astype(np.int64) for name in ("codes", "entities"))
    owner = np.repeat(np.arange(end - first), np.diff(starts))
    visits = arrays["visit_offsets"][first:end].astype(np.int64)[owner] + arrays["visit_ids"][tokens] - 1
    table, places = _table(dataset, codes, entities, np.arange(tokens.start, tokens.stop) - starts[:-1][owner])
    known = places >= 0
    doubtful = (arrays["ages"][tokens] == UNK)[known]
    return PatientColumns(
        patient_ids=[dataset.patient_id(row) for row in range(first, end)],
        birth_years=arrays["birth_years"][first:end].astype(np.int32),
        static={
            column.name: [column.value(token) for token in dataset.static_ids(column.name)[first:end].tolist()]
            for column in dataset.info.static_columns
        },
        plos=arrays["plos"][first:end],
        events=EventColumns(
            codes=places[known].astype(np.int32),
            days=arrays["visit_days"][visits][known].astype(np.int32),
            offsets=np.concatenate(([0], np.cumsum(np.bincount(owner[known], minlength=end - first)))),
            table=table,
            doubtful=doubtful if doubtful.any() else None,
        ),
        periods={name: arrays[name][first:end] for name in DAY_FIELDS if name in arrays},
    )


def _table(
    dataset: PatientDataset, codes: np.ndarray, entities: np.ndarray, place: np.ndarray
) -> tuple[list[CodeKey], np.ndarray]:
    """Return the distinct codes of tokens, and for each token its place among them, -1 where it is no event.

    Args:
        dataset: gives the vocabulary.
        codes, entities: (tokens,) ids.
        place: (tokens,) of each token in its history; unknown codes of one history differ by it.
    """
    vocabulary = dataset.info.vocabulary
    table = [("", "") if key is None else key for key in vocabulary.keys]
    places = np.where(codes >= len(SPECIAL_TOKENS), codes, -1)
    unknown = np.flatnonzero(codes < len(SPECIAL_TOKENS))
    for entity, system in enumerate(vocabulary.entity_systems):
        own = unknown[entities[unknown] == entity]
        if system is not None and len(own):
            places[own] = len(table) + place[own]
            table += [(system.name, f"{SPECIAL_TOKENS[UNK]} {i}") for i in range(int(place[own].max()) + 1)]
    return _used(table, places)


def _used(table: list[CodeKey], places: np.ndarray) -> tuple[list[CodeKey], np.ndarray]:
    """Return the entries of a table that are used, and their new places; -1 stays."""
    used = np.unique(places[places >= 0])
    new = np.full(len(table) + 1, -1, dtype=np.int64)  # the last one is that of -1
    new[used] = np.arange(len(used))
    return [table[i] for i in used.tolist()], new[places]
