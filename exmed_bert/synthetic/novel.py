"""Novel codes: codes that a model or a set of vectors may never have met, but whose place in the tree is known.

*Invented* ones are cousins of the tables' codes that stand in no code list. A code of the diagnosis table is a leaf of
the ICD-10-CM list of April 2026, so the code with one more character is in no list: E11.9 gives E11.95, I10 gives
I10.5. A drug's cousin has the same ATC level 4 and a last pair from 90 to 99, which the index of human drugs leaves to
ATCvet: C10AA05 gives C10AA97.

*Recent* ones are real ICD-10-CM codes that took effect from April 2020 on (``tables/recent_codes.csv``), most likely
too late for the sources of ClinVec. Some are codes of the diagnosis table, and simply count as novel; the others are
rarer neighbors of its codes and take their place from the day on which they are valid. There are none for drugs: no
ATC code at hand is surely too new.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from exmed_bert import codes
from exmed_bert.console import InputError
from exmed_bert.reference import recent as recent_codes
from exmed_bert.reference import tables
from exmed_bert.synthetic.events import Events

NovelKind = Literal["invented", "recent"]

_FALL_OFF = 0.6  # each cousin of a code is taken this much less often than the one before: a long tail of counts
_ATC_ENDINGS = [str(pair) for pair in range(90, 100)]
_ICD_ENDINGS = list("0123456789")
_ALWAYS = np.iinfo(np.int64).min


@dataclass(frozen=True, eq=False)
class Cousins:
    """What can stand in the place of C codes of one system.

    Attributes:
        table: the C codes, then all that can replace one of them.
        sources: for each entry of ``table`` the index of the code that it replaces; its own for the C codes.
        choices: (C, M) index into ``table``, what is taken most often first.
        weights: (C, M) how often each choice is taken relative to the others; 0 where a code has fewer than M.
        valid_from: for each entry of ``table`` the first day on which it may replace a code, days since 1970-01-01.
        origins: the code that each novel code was made from or, where it is real, came from.
    """

    table: tuple[str, ...]
    sources: np.ndarray
    choices: np.ndarray
    weights: np.ndarray
    valid_from: np.ndarray
    origins: dict[str, str]


def make_cousins(known: tuple[str, ...], system: str, seed: int) -> Cousins:
    """Return the invented cousins of the ``known`` codes, the same for a seed wherever they are drawn.

    No cousin is a known code, or the cousin of two codes, so that replacing codes never makes two of a visit equal.
    """
    made = {}
    for code in known:
        stem, endings = _endings(code, known, system, seed)
        cousins = [stem + ending for ending in endings]
        made[code] = [cousin for cousin in cousins if cousin not in known and codes.normalize(cousin, system) == cousin]
    return _cousins(known, made)


def recent_cousins(diagnoses: tables.Diagnoses, folder: Path = tables.FOLDER) -> Cousins:
    """Return the recent codes as cousins of the ``diagnoses``.

    Each stands in for one diagnosis and is none itself, so that a visit never holds a code twice.

    Raises:
        InputError: the table is wrong, or disagrees with the ``diagnoses``.
    """
    recent = recent_codes.load(folder)
    made: dict[str, list[str]] = {code: [] for code in diagnoses.codes}
    for code, source, valid_from in zip(recent.codes, recent.sources, recent.valid_from.tolist(), strict=True):
        if code in diagnoses.codes:
            if valid_from != diagnoses.limits.valid_from[diagnoses.codes.index(code)]:
                raise InputError(f"{recent.path}: {code}: valid_from: expected the day that diagnoses.csv gives")
        elif source in made:
            made[source].append(code)
        else:
            raise InputError(f"{recent.path}: {code}: source_code: {source!r} is not in diagnoses.csv")
    origins = dict(zip(recent.codes, recent.sources, strict=True))
    return _cousins(diagnoses.codes, made, origins, dict(zip(recent.codes, recent.valid_from.tolist(), strict=True)))


def no_cousins(known: tuple[str, ...]) -> Cousins:
    """Return cousins that replace nothing."""
    return _cousins(known, {code: [] for code in known})


def replace_some(rng: np.random.Generator, events: Events, cousins: Cousins, probability: float) -> Events:
    """Replace each event's code with the given probability by one of its cousins that are valid on its day."""
    replaced = np.flatnonzero(rng.random(len(events)) < probability)
    source = events.codes[replaced]
    choices = cousins.choices[source]  # (R, M)
    valid = cousins.valid_from[choices] <= events.days[replaced, None]
    cumulated = np.cumsum(cousins.weights[source] * valid, axis=1)
    total = cumulated[:, -1:]
    share = np.divide(cumulated, total, out=np.ones_like(cumulated), where=total > 0)
    choice = (rng.random((len(replaced), 1)) >= share).sum(axis=1)
    chosen = events.codes.copy()
    chosen[replaced] = np.where(total[:, 0] > 0, choices[np.arange(len(replaced)), choice], source)
    return Events(events.patients, chosen, events.days)


def _cousins(
    known: tuple[str, ...],
    made: dict[str, list[str]],
    origins: dict[str, str] | None = None,
    valid_from: dict[str, int] | None = None,
) -> Cousins:
    """Return `Cousins` from a list for each known code, what is taken most often first.

    ``origins`` are the sources where not given; a code without a day in ``valid_from`` is always valid.
    """
    table, sources = list(known), list(range(len(known)))
    most = max(1, *map(len, made.values()))
    choices = np.tile(np.arange(len(known))[:, None], (1, most))
    weights = np.zeros(choices.shape)
    for source, code in enumerate(known):
        choices[source, : len(made[code])] = np.arange(len(table), len(table) + len(made[code]))
        weights[source, : len(made[code])] = _FALL_OFF ** np.arange(len(made[code]))
        table += made[code]
        sources += [source] * len(made[code])
    return Cousins(
        table=tuple(table),
        sources=np.array(sources),
        choices=choices,
        weights=weights,
        valid_from=np.array([(valid_from or {}).get(code, _ALWAYS) for code in table]),
        origins=origins or {cousin: code for code in known for cousin in made[code]},
    )


def _endings(code: str, known: tuple[str, ...], system: str, seed: int) -> tuple[str, list[str]]:
    """Return what the cousins of a code begin with, and their last characters in shuffled order."""
    if system == codes.ICD10CM:
        stem, endings, share = (code if "." in code else f"{code}."), _ICD_ENDINGS, slice(None)
    else:
        stem, endings = code[:5], _ATC_ENDINGS
        siblings = sorted(sibling for sibling in known if sibling.startswith(stem))
        share = slice(siblings.index(code), None, len(siblings))  # siblings share the free pairs out among them
    order = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *stem.encode()]))).permutation(10)
    return stem, [endings[i] for i in order][share]
