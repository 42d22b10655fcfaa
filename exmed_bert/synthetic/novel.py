"""Novel codes: cousins of the tables' codes that stand in no code list, but whose place in the tree is known.

A code of the diagnosis table is a leaf of the ICD-10-CM list of April 2026, so the code with one more character is
in no list: E11.9 gives E11.95, I10 gives I10.5. A drug's cousin has the same ATC level 4 and a last pair from 90 to
99, which the index of human drugs leaves to ATCvet: C10AA05 gives C10AA97.
"""

from dataclasses import dataclass

import numpy as np

from exmed_bert import codes
from exmed_bert.synthetic.events import Events

_FALL_OFF = 0.6  # each cousin of a code is taken this much less often than the one before: a long tail of counts
_ATC_ENDINGS = [str(pair) for pair in range(90, 100)]
_ICD_ENDINGS = list("0123456789")


@dataclass(frozen=True, eq=False)
class Cousins:
    """The novel cousins of C codes of one system.

    Attributes:
        table: the C codes, then all cousins.
        sources: for each entry of ``table`` the index of the code it was made from; its own for the C codes.
        choices: (C, M) index into ``table``, the cousin taken most often first; a code without cousins has itself.
        cumulated: (C, M) cumulated probability of the choices.
    """

    table: tuple[str, ...]
    sources: np.ndarray
    choices: np.ndarray
    cumulated: np.ndarray


def make_cousins(known: tuple[str, ...], system: codes.CodeSystem, seed: int) -> Cousins:
    """Return the cousins of the ``known`` codes, the same for a seed wherever they are drawn.

    No cousin is a known code, or the cousin of two codes, so that replacing codes never makes two of a visit equal.
    """
    table, sources = list(known), list(range(len(known)))
    choices = np.tile(np.arange(len(known))[:, None], (1, 10))
    cumulated = np.ones(choices.shape)
    for source, code in enumerate(known):
        stem, endings = _endings(code, known, system, seed)
        made = [stem + ending for ending in endings]
        made = [cousin for cousin in made if cousin not in known and codes.normalise(cousin, system) == cousin]
        if made:
            weights = np.cumsum(_FALL_OFF ** np.arange(len(made)))
            choices[source, : len(made)] = np.arange(len(table), len(table) + len(made))
            cumulated[source, : len(made) - 1] = weights[:-1] / weights[-1]
            table += made
            sources += [source] * len(made)
    return Cousins(tuple(table), np.array(sources), choices, cumulated)


def _endings(code: str, known: tuple[str, ...], system: codes.CodeSystem, seed: int) -> tuple[str, list[str]]:
    """Return what the cousins of a code begin with, and their last characters in shuffled order."""
    if system == codes.ICD:
        stem, endings, share = (code if "." in code else f"{code}."), _ICD_ENDINGS, slice(None)
    else:
        stem, endings = code[:5], _ATC_ENDINGS
        siblings = sorted(sibling for sibling in known if sibling.startswith(stem))
        share = slice(siblings.index(code), None, len(siblings))  # siblings share the free pairs out among them
    order = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *stem.encode()]))).permutation(10)
    return stem, [endings[i] for i in order][share]


def replace_some(rng: np.random.Generator, events: Events, cousins: Cousins, probability: float) -> Events:
    """Replace each event's code with the given probability by one of its cousins."""
    replaced = np.flatnonzero(rng.random(len(events)) < probability)
    source = events.codes[replaced]
    choice = (rng.random((len(replaced), 1)) >= cousins.cumulated[source]).sum(axis=1)
    chosen = events.codes.copy()
    chosen[replaced] = cousins.choices[source, choice]
    return Events(events.patients, chosen, events.days)
