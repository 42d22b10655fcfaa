"""A block of realistic patients: lives by known hazards, of which a plan sees what happens while they are members.

No bounds on the number of events. What patients are diagnosed and given is drawn for the whole five years and cut to
the time in which each is observed.
"""

from dataclasses import dataclass
from datetime import date

import numpy as np

from exmed_bert.reference import realistic as figures_of
from exmed_bert.reference.realistic import Realistic
from exmed_bert.reference.tables import Tables
from exmed_bert.synthetic.events import Events, merge
from exmed_bert.synthetic.fitted import Fitted, Levels, load_realistic
from exmed_bert.synthetic.life import Life, Stays, codes_of_stays, draw_life, draw_stays
from exmed_bert.synthetic.observation import Observation, draw_observation, last_day_everyone, observed
from exmed_bert.synthetic.people import People, Window, draw_people, possible_days
from exmed_bert.synthetic.prescriptions import Persistence, draw_prescriptions
from exmed_bert.synthetic.visits import Care, draw_diagnoses


@dataclass(frozen=True, eq=False)
class Drawn:
    """N patients: who they are, their lives, when they are observed, and their observed events and stays."""

    people: People
    life: Life
    observation: Observation
    diagnoses: Events
    drugs: Events
    stays: Stays
    prolonged: np.ndarray


def generator(seed: int, block: int, *stream: int) -> np.random.Generator:
    """Return the generator of a block's draws; further streams of the block have a number each."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(block, *stream))))


def draw(
    rng: np.random.Generator,
    n: int,
    end_date: date,
    tables: Tables,
    fit: tuple[Fitted, Levels] | None = None,
    leaving: bool = True,
) -> Drawn:
    """Draw n patients.

    Args:
        rng: the source of the draws. Lives and observation come first, so that they can be drawn again alone (`lives`).
        n: number of patients.
        end_date: last day of the five years.
        tables: the reference tables.
        fit: takes the place of the values that come with the tables.
        leaving: whether members enter and leave; the fit needs them from the beginning to the end.
    """
    figures = figures_of.load(tables)
    fit = fit or load_realistic(tables, figures)
    people, life, observation = lives(rng, n, end_date, tables, fit, leaving)
    window, (fitted, levels) = Window.until(end_date), fit

    days = possible_days(people, tables.diagnoses.limits, window)
    pace = levels.visits[figures.visit_group[middle_ages(people)], people.sexes]
    care = Care(life.onset, pace, figures.rates["coded_at_check_ups"], figures.rates["seen_anyway"])
    stays = draw_stays(rng, life, figures)
    diagnoses = merge(
        [
            draw_diagnoses(rng, people, life.has, days, tables, window, care),
            codes_of_stays(rng, stays, life, tables, figures.rates["coded_at_a_stay"]),
        ]
    )
    diagnoses = diagnoses[
        (diagnoses.days >= days[0][diagnoses.patients, diagnoses.codes])
        & (diagnoses.days <= days[1][diagnoses.patients, diagnoses.codes])
    ]
    days = possible_days(people, tables.drugs.limits, window)
    rates = figures.rates
    persistence = Persistence(rates["never_refilled"], rates["stopping_a_year"], rates["restarting_a_year"])
    drugs = draw_prescriptions(rng, people, diagnoses, life.uncoded, days, tables, fitted, persistence)

    seen = observation.stays(stays)
    prolonged = np.zeros(n, dtype=bool)
    prolonged[seen.patients[seen.lengths > rates["long_stay_days"]]] = True
    return Drawn(
        people, life, observation, observed(diagnoses, observation), observed(drugs, observation), seen, prolonged
    )


def lives(
    rng: np.random.Generator,
    n: int,
    end_date: date,
    tables: Tables,
    fit: tuple[Fitted, Levels] | None = None,
    leaving: bool = True,
) -> tuple[People, Life, Observation]:
    """Draw who n patients are, their lives and when they are observed: the first part of `draw`, by the same draws."""
    figures: Realistic = figures_of.load(tables)
    fitted, levels = fit or load_realistic(tables, figures)
    window = Window.until(end_date)
    people = last_day_everyone(draw_people(rng, n, tables.demographics, window), window)
    days = possible_days(people, tables.diagnoses.limits, window)
    life = draw_life(rng, people, days, window, tables, figures, fitted, levels)
    return people, life, draw_observation(rng, people, life, window, figures, leaving)


def middle_ages(people: People) -> np.ndarray:
    """Return the age in whole years in the middle of the five years, (N,)."""
    return (people.ages - int(2.5)).clip(0)
