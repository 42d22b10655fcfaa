"""Fit what the realistic population draws from: python -m exmed_bert.synthetic.fit_realistic

The method is that of `fit`. Prevalences, odds ratios and drugs are counted among those who live through the five
years, all of whom are observed throughout here; the levels of onsets and the rates of visits among all who live at the
time, those of deaths and stays among the members of a plan that they enter and leave. Needed after a change of the
tables or of how realistic patients are drawn; some ten minutes on two cores.
"""

import functools
from dataclasses import dataclass, fields
from typing import Annotated

import numpy as np
import typer

from exmed_bert import console
from exmed_bert.console import InputError
from exmed_bert.parallel import ordered_map
from exmed_bert.reference import realistic as figures_of
from exmed_bert.reference.realistic import Realistic
from exmed_bert.reference.tables import OLDEST, Tables, load
from exmed_bert.settings import GenerateSettings
from exmed_bert.synthetic import fitted as store
from exmed_bert.synthetic.conditions import correlation_root
from exmed_bert.synthetic.events import first_of_run
from exmed_bert.synthetic.fit import Values, errors_of
from exmed_bert.synthetic.fitted import Fitted, Levels
from exmed_bert.synthetic.life import NEVER, STEPS, ages_in_step, base_hazard
from exmed_bert.synthetic.observation import Observation, draw_observation
from exmed_bert.synthetic.people import YEAR, Window
from exmed_bert.synthetic.population import BLOCK, columns_of, novel_codes
from exmed_bert.synthetic.realistic import Drawn, draw, generator, middle_ages
from exmed_bert.synthetic.report.measures import Measures

FIRST_SEED = 2_000_000  # one per round, far from common seeds
_AVERAGED = 0.5  # share of the rounds, the last ones, whose values are averaged
_FACTORS = 0.05, 8.0  # limits of a factor of the rate of visits


@dataclass
class _Sums:
    """What the levels follow from: hazards that were in force, and what they would be with all relative hazards 1."""

    onset: np.ndarray
    death: np.ndarray
    stay: np.ndarray
    visits: np.ndarray

    @classmethod
    def empty(cls, tables: Tables, figures: Realistic) -> "_Sums":
        groups = (2, len(figures.death_rate), 2)
        return cls(
            np.zeros((2, len(tables.diagnoses.codes), 4, 2)),
            np.zeros(groups),
            np.zeros(2),
            np.zeros((2, len(figures.visits), 2)),
        )

    def add(self, drawn: Drawn, plan: Observation, tables: Tables, figures: Realistic, fitted: Fitted) -> None:
        """Count patients in who are all observed from the beginning to the end or to their death.

        Deaths and stays are counted while they are members of the ``plan``: who enters late has not been at risk of
        dying before, so members are sicker than those who are left of a closed group.
        """
        people, life = drawn.people, drawn.life
        base = base_hazard(people, tables, figures, fitted)
        for step in range(STEPS):
            first, end = life.starts[step], life.starts[step + 1]
            waiting = (drawn.observation.death >= first)[:, None] & ~life.present(step)
            for row, hazard in enumerate((life.hazard[step], base)):
                np.add.at(self.onset[row].transpose(1, 2, 0), (people.bands, people.sexes), hazard * waiting)
            lived = _years(plan, np.arange(len(people)), first, end)
            group = figures.death_group[ages_in_step(people, life.starts, step)[1]], people.sexes
            np.add.at(self.death[0], group, life.death_hazard[step] * lived)
            np.add.at(self.death[1], group, figures.death_rate[group] * lived)
            self.stay += (life.stay_hazard[step] @ lived, figures.rates["stays_per_person_year"] * lived.sum())
        early = life.early
        lived = _years(plan, early.patients, early.first, early.last + 1)
        ages = ((early.first - people.birth_days[early.patients]) / YEAR).astype(np.int64).clip(0, OLDEST)
        np.add.at(self.death[0], (figures.death_group[ages], people.sexes[early.patients]), early.hazard * lived)
        key = drawn.diagnoses.patients << 24 | drawn.diagnoses.days
        visitor = drawn.diagnoses.patients[first_of_run(key)]
        group = figures.visit_group[middle_ages(people)]
        np.add.at(self.visits[0], (group[visitor], people.sexes[visitor]), 1)
        np.add.at(self.visits[1], (group, people.sexes), drawn.observation.years)

    def merge(self, other: "_Sums") -> None:
        for field in fields(self):
            getattr(self, field.name).__iadd__(getattr(other, field.name))

    def moved(self, levels: Levels, figures: Realistic) -> Levels:
        """Return the levels with which these patients would have had the published rates."""

        def ratio(sums: np.ndarray) -> np.ndarray:
            return np.divide(sums[0], sums[1], out=np.ones_like(sums[0]), where=sums[1] > 0).clip(0.2, 5)

        return Levels(
            levels.onset * ratio(self.onset),
            levels.death * ratio(self.death),
            levels.stay * float(ratio(self.stay[:, None])[0]),
            (levels.visits * figures.visits / (self.visits[0] / self.visits[1])).clip(*_FACTORS),
        )


def _years(plan: Observation, patients: np.ndarray, first: np.ndarray | int, end: np.ndarray | int) -> np.ndarray:
    """Return the years that patients are members from ``first`` on and before ``end``."""
    return (np.minimum(plan.end[patients] + 1, end) - np.maximum(plan.start[patients], first)).clip(0) / YEAR


def run(patients: int, rounds: int, workers: int) -> None:
    """Fit with ``rounds`` populations of so many ``patients`` and write `fitted_realistic.json`."""
    tables = load()
    figures = figures_of.load(tables)
    fitted, levels = _start(tables, figures)
    root = correlation_root(fitted)
    values = Values(root @ root.T, fitted.prevalence, fitted.given, fitted.without_diagnosis)
    last: list[tuple[Values, Levels]] = []
    with console.progress(total=rounds, label="Fitting", unit="rounds") as bar:
        for number in range(rounds):
            if number >= rounds * (1 - _AVERAGED):
                last.append((values, levels))
            counted, sums = _simulate(FIRST_SEED + number, patients, workers, values.fitted(tables), levels)
            values = values.moved(counted, tables, step=(1 + number) ** -0.2)
            levels = sums.moved(levels, figures)
            bar.update(1)
    fitted, levels = Values.mean([one for one, _ in last]).fitted(tables), _mean([level for _, level in last])
    counted, sums = _simulate(FIRST_SEED + rounds, patients, workers, fitted, levels)
    off = np.abs(sums.visits[0] / sums.visits[1] / figures.visits - 1)
    errors = errors_of(counted, tables) | {"visits by age and sex, worst relative error": round(float(off.max()), 4)}
    store.save_realistic(fitted, levels, tables, figures, {"patients": patients, **errors})
    console.table("Fitted", [*errors.items(), ("written", store.REALISTIC_PATH)])


def _start(tables: Tables, figures: Realistic) -> tuple[Fitted, Levels]:
    """Return the values that are there, else those of the bounded population with all levels 1."""
    try:
        return store.load_realistic(tables, figures)
    except (InputError, FileNotFoundError):
        ones = np.ones((len(tables.diagnoses.codes), 4, 2))
        return store.load(tables), Levels(ones, np.ones(figures.death_rate.shape), 1.0, np.ones(figures.visits.shape))


def _simulate(seed: int, patients: int, workers: int, fitted: Fitted, levels: Levels) -> tuple[Measures, _Sums]:
    tables = load()
    blocks = np.array_split(np.arange(-(-patients // BLOCK)), workers)
    measures, sums = Measures(tables), _Sums.empty(tables, figures_of.load(tables))
    for part, part_of_sums in ordered_map(functools.partial(_count, seed, fitted, levels), blocks, workers):
        measures.merge(part)
        sums.merge(part_of_sums)
    return measures, sums


def _count(seed: int, fitted: Fitted, levels: Levels, blocks: np.ndarray) -> tuple[Measures, _Sums]:
    tables, end_date = load(), GenerateSettings().end_date
    figures, novel = figures_of.load(tables), novel_codes(seed)
    measures, sums = Measures(tables), _Sums.empty(tables, figures)
    for block in blocks.tolist():
        rng = generator(seed, block)
        drawn = draw(rng, BLOCK, end_date, tables, (fitted, levels), leaving=False)
        plan = draw_observation(rng, drawn.people, drawn.life, Window.until(end_date), figures)
        sums.add(drawn, plan, tables, figures, fitted)
        patients = columns_of(rng, block, drawn.people, drawn.diagnoses, drawn.drugs, novel, 0.0)
        measures.add(patients.take(np.flatnonzero(drawn.observation.death == NEVER)))
    return measures, sums


def _mean(several: list[Levels]) -> Levels:
    return Levels(*(np.mean([getattr(one, field.name) for one in several], axis=0) for field in fields(Levels)))


def main(
    patients: Annotated[int, typer.Option(help="Patients per round.")] = 100_000,
    rounds: Annotated[int, typer.Option(help="Rounds.")] = 20,
    workers: Annotated[int, typer.Option(help="Processes.")] = 2,
) -> None:
    """Fit the realistic draws to the tables and write fitted_realistic.json."""
    run(patients, rounds, workers)


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command()(main)
    app()
