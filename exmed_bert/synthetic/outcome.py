"""Prolonged length of stay: a label drawn from a logistic model of age and conditions (``tables/plos.csv``)."""

import numpy as np

from exmed_bert.reference.tables import ProlongedStay, Tables
from exmed_bert.synthetic.events import Events
from exmed_bert.synthetic.people import People


def draw_prolonged_stay(rng: np.random.Generator, people: People, diagnoses: Events, tables: Tables) -> np.ndarray:
    """Return an (N,) bool array drawn from the logistic model."""
    has = np.zeros((len(people), len(tables.diagnoses.codes)))
    has[diagnoses.patients, diagnoses.codes] = 1
    log_odds = of_ages(tables.prolonged_stay, people.ages) + has @ of_diagnoses(tables)
    return rng.random(len(people)) < 1 / (1 + np.exp(-log_odds))


def of_ages(model: ProlongedStay, ages: np.ndarray) -> np.ndarray:
    """Return the log odds of each age in years, intercept included."""
    return model.intercept + model.decade_of_age_over_40 * (ages - 40).clip(0) / 10


def of_diagnoses(tables: Tables) -> np.ndarray:
    """Return the log odds ratio of each diagnosis, (K,): its own and, if chronic, that per chronic condition."""
    model = tables.prolonged_stay
    return model.diagnoses + model.chronic_condition * (tables.diagnoses.kinds == "chronic")
