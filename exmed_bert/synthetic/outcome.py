"""Prolonged length of stay: a label that depends on age and conditions."""

import numpy as np

from exmed_bert.synthetic.events import Events
from exmed_bert.synthetic.people import People
from exmed_bert.synthetic.tables import Tables


def draw_prolonged_stay(rng: np.random.Generator, people: People, diagnoses: Events, tables: Tables) -> np.ndarray:
    """Return an (N,) bool array drawn from a logistic model, its log odds in ``tables/plos.csv``."""
    has = np.zeros((len(people), len(tables.diagnoses.codes)))
    has[diagnoses.patients, diagnoses.codes] = 1
    model = tables.prolonged_stay
    log_odds = (
        model.intercept
        + model.decade_of_age_over_40 * (people.ages - 40).clip(0) / 10
        + model.chronic_condition * has[:, tables.diagnoses.kinds == "chronic"].sum(axis=1)
        + has @ model.diagnoses
    )
    return rng.random(len(people)) < 1 / (1 + np.exp(-log_odds))
