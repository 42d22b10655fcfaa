"""Novel codes: codes that no model or set of vectors has seen, but whose place in the hierarchy is known.

*Invented* ones are pseudo-codes: synthetic variants of the tables' codes that are in no code list. A code of the
diagnosis table is a leaf of the ICD-10-CM list of April 2026, so the code with one more character is in no list: E11.9
gives E11.95, I10 gives I10.5. A pseudo-code of a drug has the same ATC level 4 and a last pair from 90 to 99, which the
index of human drugs leaves to ATCvet: C10AA05 gives C10AA97.

*Recent* ones are real ICD-10-CM codes that took effect from April 2020 on (``tables/recent_codes.csv``), most likely
too late for the sources of ClinVec. Some are codes of the diagnosis table, and simply count as novel; the others are
rarer neighbors of its codes and replace them from their first day of validity on. There are none for drugs: no ATC code
available here is certain to be too new.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from exmed_bert import codes
from exmed_bert.console import InputError
from exmed_bert.reference import recent, tables
from exmed_bert.synthetic.events import Events

NovelKind = Literal["invented", "recent"]

_FALL_OFF = 0.6  # frequency of each variant of a code relative to the one before: a long tail of counts
_ATC_ENDINGS = [str(pair) for pair in range(90, 100)]
_ICD_ENDINGS = list("0123456789")
_ALWAYS = np.iinfo(np.int64).min


@dataclass(frozen=True, eq=False)
class NovelCodes:
    """Novel codes that can replace C known codes of one system.

    Attributes:
        table: the C known codes, then the novel codes that can replace one of them.
        sources: for each entry of ``table`` the index of the code that it replaces; its own for the known codes.
        choices: (C, M) index into ``table``, the most frequent first.
        weights: (C, M) relative frequency of each choice; 0 where a code has fewer than M.
        valid_from: for each entry of ``table`` the first day on which it may replace a code, days since 1970-01-01.
        origins: the code that each novel code is a variant of or, where it is real, that it superseded.
    """

    table: tuple[str, ...]
    sources: np.ndarray
    choices: np.ndarray
    weights: np.ndarray
    valid_from: np.ndarray
    origins: dict[str, str]


def pseudo_codes(known: tuple[str, ...], system: str, seed: int) -> NovelCodes:
    """Return pseudo-codes for the ``known`` codes, a function of the seed alone.

    None is a known code or belongs to two of them, so that replacing codes never makes two of a visit equal.
    """
    variants = {}
    for code in known:
        stem, endings = _endings(code, known, system, seed)
        candidates = [stem + ending for ending in endings]
        variants[code] = [new for new in candidates if new not in known and codes.normalize(new, system) == new]
    return _novel_codes(known, variants)


def recent_codes(diagnoses: tables.Diagnoses, folder: Path = tables.FOLDER) -> NovelCodes:
    """Return the recent codes that can replace the ``diagnoses``.

    Each replaces one diagnosis and is none itself, so that no code occurs twice in a visit.

    Raises:
        InputError: the table is wrong, or disagrees with the ``diagnoses``.
    """
    table = recent.load(folder)
    variants: dict[str, list[str]] = {code: [] for code in diagnoses.codes}
    for code, source, valid_from in zip(table.codes, table.sources, table.valid_from.tolist(), strict=True):
        if code in diagnoses.codes:
            if valid_from != diagnoses.limits.valid_from[diagnoses.codes.index(code)]:
                raise InputError(f"{table.path}: {code}: valid_from: expected the day that diagnoses.csv gives")
        elif source in variants:
            variants[source].append(code)
        else:
            raise InputError(f"{table.path}: {code}: source_code: {source!r} is not in diagnoses.csv")
    origins = dict(zip(table.codes, table.sources, strict=True))
    valid_from = dict(zip(table.codes, table.valid_from.tolist(), strict=True))
    return _novel_codes(diagnoses.codes, variants, origins, valid_from)


def no_novel_codes(known: tuple[str, ...]) -> NovelCodes:
    """Return novel codes that replace nothing."""
    return _novel_codes(known, {code: [] for code in known})


def replace_some(rng: np.random.Generator, events: Events, novel: NovelCodes, probability: float) -> Events:
    """Replace each event's code with the given probability by a novel code that is valid on its day."""
    replaced = np.flatnonzero(rng.random(len(events)) < probability)
    source = events.codes[replaced]
    choices = novel.choices[source]  # (R, M)
    valid = novel.valid_from[choices] <= events.days[replaced, None]
    cumulated = np.cumsum(novel.weights[source] * valid, axis=1)
    total = cumulated[:, -1:]
    share = np.divide(cumulated, total, out=np.ones_like(cumulated), where=total > 0)
    choice = (rng.random((len(replaced), 1)) >= share).sum(axis=1)
    chosen = events.codes.copy()
    chosen[replaced] = np.where(total[:, 0] > 0, choices[np.arange(len(replaced)), choice], source)
    return Events(events.patients, chosen, events.days)


def _novel_codes(
    known: tuple[str, ...],
    variants: dict[str, list[str]],
    origins: dict[str, str] | None = None,
    valid_from: dict[str, int] | None = None,
) -> NovelCodes:
    """Return `NovelCodes` from a list of variants of each known code, the most frequent first.

    ``origins`` are the sources where not given; a code without a day in ``valid_from`` is always valid.
    """
    table, sources = list(known), list(range(len(known)))
    most = max(1, *map(len, variants.values()))
    choices = np.tile(np.arange(len(known))[:, None], (1, most))
    weights = np.zeros(choices.shape)
    for source, code in enumerate(known):
        choices[source, : len(variants[code])] = np.arange(len(table), len(table) + len(variants[code]))
        weights[source, : len(variants[code])] = _FALL_OFF ** np.arange(len(variants[code]))
        table += variants[code]
        sources += [source] * len(variants[code])
    return NovelCodes(
        table=tuple(table),
        sources=np.array(sources),
        choices=choices,
        weights=weights,
        valid_from=np.array([(valid_from or {}).get(code, _ALWAYS) for code in table]),
        origins=origins or {variant: code for code in known for variant in variants[code]},
    )


def _endings(code: str, known: tuple[str, ...], system: str, seed: int) -> tuple[str, list[str]]:
    """Return the stem that all pseudo-codes of a code share, and their last characters in shuffled order."""
    if system == codes.ICD10CM:
        stem, endings, share = (code if "." in code else f"{code}."), _ICD_ENDINGS, slice(None)
    else:
        stem, endings = code[:5], _ATC_ENDINGS
        siblings = sorted(sibling for sibling in known if sibling.startswith(stem))
        share = slice(siblings.index(code), None, len(siblings))  # siblings divide the free pairs among them
    order = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *stem.encode()]))).permutation(10)
    return stem, [endings[i] for i in order][share]
