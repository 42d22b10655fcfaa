"""The population: blocks of patients, each a function of the seed and its own number alone.

Blocks are independent, so the same seed gives the same first patients whatever their number.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date

import numpy as np

from exmed_bert import codes
from exmed_bert.data.patient import EventColumns, PatientColumns, merge_events
from exmed_bert.data.static_columns import SEX, STATE
from exmed_bert.data.writers import Fields
from exmed_bert.reference.tables import SEXES, load
from exmed_bert.settings import GenerateSettings
from exmed_bert.synthetic import bounds
from exmed_bert.synthetic.conditions import draw_conditions
from exmed_bert.synthetic.events import Events, merge
from exmed_bert.synthetic.fitted import Fitted
from exmed_bert.synthetic.fitted import load as load_fitted
from exmed_bert.synthetic.further import LABS, with_further_events
from exmed_bert.synthetic.novel import NovelCodes, NovelKind, no_novel_codes, pseudo_codes, recent_codes, replace_some
from exmed_bert.synthetic.outcome import draw_prolonged_stay
from exmed_bert.synthetic.people import People, Window, draw_people, possible_days
from exmed_bert.synthetic.prescriptions import draw_prescriptions
from exmed_bert.synthetic.realistic import draw, generator
from exmed_bert.synthetic.visits import draw_diagnoses

BLOCK = 1000  # patients; another size would give other patients
BOUNDS = {  # key in the meta file: what it is called in the summary
    "diagnoses thinned out": f"truncated to {bounds.DIAGNOSES[-1]} diagnoses",
    "diagnoses filled up": f"extended to {bounds.DIAGNOSES[0]} diagnoses",
    "prescriptions thinned out": f"truncated to {bounds.PRESCRIPTIONS[-1]} prescriptions",
    "prescriptions filled up": f"extended to {bounds.PRESCRIPTIONS[0]} prescriptions",
}


@dataclass(frozen=True)
class Observed:
    """What the record of realistic patients does not say: (N,) years observed, and patient and days of each stay."""

    years: np.ndarray
    patients: np.ndarray
    stays: np.ndarray


@dataclass(frozen=True)
class Block:
    """N patients, which of them each of `BOUNDS` changed, (N, 4) bool, and how the realistic ones fared."""

    patients: PatientColumns
    bound: np.ndarray
    observed: Observed | None = None


def fields_of(settings: GenerateSettings) -> Fields:
    """Return what a file of the population holds beside the basic fields."""
    kinds = settings.further_events
    return Fields(periods=settings.realistic, events=bool(kinds), values=LABS in kinds)


def generate(settings: GenerateSettings) -> Iterator[PatientColumns]:
    """Yield the patients, at most `BLOCK` at a time."""
    return (block.patients for block in generate_blocks(settings))


def generate_blocks(settings: GenerateSettings, numbers: range | None = None) -> Iterator[Block]:
    """Yield the blocks, or those of the given ``numbers``; the last one truncated to the number of patients."""
    for number in range(-(-settings.num_patients // BLOCK)) if numbers is None else numbers:
        block = generate_block(
            settings.seed,
            number,
            settings.novel_prob,
            settings.end_date,
            novel_kind=settings.novel_kind,
            realistic=settings.realistic,
        )
        if settings.further_events:
            further = with_further_events(block.patients, settings.seed, number, settings.further_events)
            block = replace(block, patients=further)
        yield _head(block, min(BLOCK, settings.num_patients - number * BLOCK))


def generate_block(
    seed: int,
    block: int,
    novel_prob: float,
    end_date: date,
    fitted: Fitted | None = None,
    novel_kind: NovelKind = "invented",
    realistic: bool = False,
) -> Block:
    """Return the `BLOCK` patients of a block; their ids go on from ``block * BLOCK``.

    ``fitted`` takes the place of the values that come with the tables.
    """
    rng = generator(seed, block)
    if realistic:
        drawn = draw(rng, BLOCK, end_date, load())
        columns = columns_of(
            rng, block, drawn.people, drawn.diagnoses, drawn.drugs, novel_codes(seed, novel_kind), novel_prob
        )
        patients = replace(columns, plos=drawn.prolonged.astype(np.int8), periods=drawn.observation.periods())
        unbound = np.zeros((BLOCK, len(BOUNDS)), dtype=bool)
        return Block(patients, unbound, Observed(drawn.observation.years, drawn.stays.patients, drawn.stays.lengths))
    return _bounded(rng, block, end_date, fitted, novel_codes(seed, novel_kind), novel_prob)


def _bounded(
    rng: np.random.Generator,
    block: int,
    end_date: date,
    fitted: Fitted | None,
    novel: dict[str, NovelCodes],
    novel_prob: float,
) -> Block:
    """Return a block whose histories are extended or truncated to the bounds."""
    tables, window = load(), Window.until(end_date)
    fitted = fitted or load_fitted(tables)
    people = draw_people(rng, BLOCK, tables.demographics, window)

    days = possible_days(people, tables.diagnoses.limits, window)
    has, uncoded = draw_conditions(rng, people, window, tables, fitted)
    diagnoses = draw_diagnoses(rng, people, has, days, tables, window)
    diagnosis_counts = diagnoses.per_patient(BLOCK)
    diagnoses = bounds.extend_diagnoses(rng, diagnoses, people, days, tables, window)
    diagnoses = bounds.truncate(rng, diagnoses, bounds.DIAGNOSES[-1], BLOCK)

    days = possible_days(people, tables.drugs.limits, window)
    drugs = draw_prescriptions(rng, people, diagnoses, uncoded, days, tables, fitted)
    drug_counts = drugs.per_patient(BLOCK)
    drugs = bounds.extend_prescriptions(rng, drugs, diagnoses, days, tables.drugs)
    drugs = bounds.truncate(rng, drugs, bounds.PRESCRIPTIONS[-1], BLOCK)

    plos = draw_prolonged_stay(rng, people, diagnoses, tables)
    columns = columns_of(rng, block, people, diagnoses, drugs, novel, novel_prob)
    bound = [
        diagnosis_counts > bounds.DIAGNOSES[-1],
        diagnosis_counts < bounds.DIAGNOSES[0],
        drug_counts > bounds.PRESCRIPTIONS[-1],
        drug_counts < bounds.PRESCRIPTIONS[0],
    ]
    return Block(replace(columns, plos=plos.astype(np.int8)), np.stack(bound, axis=1))


def columns_of(
    rng: np.random.Generator,
    block: int,
    people: People,
    diagnoses: Events,
    drugs: Events,
    novel: dict[str, NovelCodes],
    novel_prob: float,
) -> PatientColumns:
    """Return drawn patients as columns, some of their codes replaced by novel ones; stays are not recorded yet."""
    demographics = load().demographics
    return PatientColumns(
        patient_ids=list(range(block * BLOCK, block * BLOCK + len(people))),
        birth_years=people.birth_years.astype(np.int32),
        static={
            SEX.name: [SEXES[sex] for sex in people.sexes],
            STATE.name: [demographics.states[state] for state in people.states],
        },
        plos=np.full(len(people), -1, dtype=np.int8),
        events=merge_events(
            [
                _columns(replace_some(rng, events, novel[system], novel_prob), system, novel[system])
                for system, events in ((codes.ICD10CM, diagnoses), (codes.ATC, drugs))
            ]
        ),
    )


@functools.cache
def novel_codes(seed: int, kind: NovelKind = "invented") -> dict[str, NovelCodes]:
    """Return the novel codes of a kind, by code system; pseudo-codes depend on the seed."""
    tables = load()
    if kind == "recent":
        return {codes.ICD10CM: recent_codes(tables.diagnoses), codes.ATC: no_novel_codes(tables.drugs.codes)}
    return {
        codes.ICD10CM: pseudo_codes(tables.diagnoses.codes, codes.ICD10CM, seed),
        codes.ATC: pseudo_codes(tables.drugs.codes, codes.ATC, seed),
    }


def _columns(events: Events, system: str, novel: NovelCodes) -> EventColumns:
    """Return events as columns, in order of patient, day and code, with a table of the codes that occur."""
    events = merge([events])
    used, compact = np.unique(events.codes, return_inverse=True)
    return EventColumns(
        codes=compact.astype(np.int32),
        days=events.days.astype(np.int32),
        offsets=np.concatenate(([0], np.cumsum(events.per_patient(BLOCK)))),
        table=[(system, novel.table[code]) for code in used],
    )


def _head(block: Block, n: int) -> Block:
    """Return the first n patients of a block."""
    if n == len(block.patients):
        return block
    observed = block.observed
    if observed is not None:
        kept = observed.patients < n
        observed = Observed(observed.years[:n], observed.patients[kept], observed.stays[kept])
    return Block(block.patients.take(np.arange(n)), block.bound[:n], observed)
