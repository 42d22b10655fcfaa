"""Baselines of time to event: Cox's regression and boosted trees on the bag of codes of the other baselines.

Each is tuned by Uno's concordance on the validation patients over a small grid that the result lists. Follow-up of test
patients is never looked at. Death has hazards of its own, fitted with the setting that was chosen for the outcome.

Boosted trees minimize the Poisson deviance of event over cumulative baseline hazard, whose maximum is that of a model
of proportional hazards (Aitkin and Clayton, Applied Statistics 29, 1980): scikit-learn's own trees do.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from exmed_bert.cohorts.labeled import LabeledPatients
from exmed_bert.console import InputError, progress
from exmed_bert.evaluation.baselines import DENSE_COLUMNS, ROUNDS, ROUNDS_STEP, search_rows
from exmed_bert.evaluation.concordance import concordance
from exmed_bert.evaluation.cox import Baseline, Hazards, fit_cox, risks
from exmed_bert.evaluation.features import COLUMN_SETS, Features, features, most_used, with_answer
from exmed_bert.evaluation.follow_up import DEATH, OUTCOME, FollowUp
from exmed_bert.settings import WITH_ANSWER

LABELS = {"cox": "Cox regression", "boosted_hazards": "boosted hazards"}

_GRIDS: dict[str, list[dict[str, Any]]] = {
    "cox": [
        {"columns": columns, "C": strength}
        for columns, strength in product(COLUMN_SETS, (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0))
    ],
    "boosted_hazards": [  # a leaf of few expected events says little of their rate, so leaves are shrunk
        {"columns": columns, "learning_rate": 0.05, "max_leaf_nodes": leaves, "l2_regularization": strength}
        for columns, (leaves, strength) in product(COLUMN_SETS[1:], ((4, 1.0), (4, 10.0), (16, 10.0)))
    ],
}


@dataclass(frozen=True)
class SurvivalTrial:
    """One setting that was tried on so many training patients, and the concordance of the validation patients."""

    settings: dict[str, Any]
    patients: int
    validation_concordance: float


@dataclass(frozen=True)
class SurvivalBaseline:
    """A tuned baseline.

    Attributes:
        name: key of `LABELS`.
        risks: (N, H) predicted probability of the outcome by each horizon, of all patients.
        settings: the hyper-parameters that were chosen.
        trials: everything that was tried, in order.
        columns: how many columns the chosen setting has.
        seconds: features, search and predictions together.
    """

    name: str
    risks: np.ndarray
    settings: dict[str, Any]
    trials: list[SurvivalTrial]
    columns: int
    seconds: float

    @property
    def budget(self) -> str:
        """Search and result in a line."""
        chosen = ", ".join(f"{name} {value}" for name, value in self.settings.items())
        return (
            f"{len(self.trials)} settings on {self.trials[0].patients:,} patients tried by validation concordance, "
            f"{self.seconds:.0f} s; chosen: {chosen}, {self.columns:,} columns"
        )


def fit(
    name: str,
    patients: LabeledPatients,
    follow_up: FollowUp,
    horizons: Sequence[float],
    train_rows: np.ndarray,
    validation_rows: np.ndarray,
    seed: int,
    answer: np.ndarray | None = None,
    table: Features | None = None,
) -> SurvivalBaseline:
    """Tune a baseline and predict the risks of all patients.

    Args:
        name: key of `LABELS`.
        patients: N histories; their labels are not looked at.
        follow_up: of the N patients, read at ``train_rows`` and ``validation_rows`` alone.
        horizons: days, rising; concordance is measured up to the last.
        train_rows, validation_rows: indices of patients, fitted on and tuned on.
        seed: of whatever is drawn.
        answer: (N,) log odds that a pretrained model gives without any label, which becomes a column; None: no column.
        table: the features by these training rows, where several baselines share them; None: they are made.

    Raises:
        InputError: no training or no validation patient has the outcome by the last horizon, or all on one day.
    """
    started = time.perf_counter()
    happened = (follow_up.events == OUTCOME) & (follow_up.days <= horizons[-1])
    for rows, part in ((train_rows, "training"), (validation_rows, "validation")):
        if not happened[rows].any():
            raise InputError(
                f"baseline {name}: none of {len(rows):,} {part} patients has the outcome within {horizons[-1]:g} days, "
                "expected some"
            )
    table = table or features(patients, train_rows)
    inputs: dict[str, Any] = {columns: table.of(columns) for columns in COLUMN_SETS}
    if name == "boosted_hazards":
        inputs = {columns: most_used(matrix, train_rows, DENSE_COLUMNS) for columns, matrix in inputs.items()}
    if answer is not None:
        inputs = {columns: with_answer(matrix, answer, train_rows) for columns, matrix in inputs.items()}
    validation = follow_up.take(validation_rows)

    def tried(settings: dict[str, Any], rows: np.ndarray) -> tuple[SurvivalTrial, dict[str, Any]]:
        own = inputs[settings["columns"]]
        predict = _fitted(name, settings, own[rows], follow_up.take(rows), OUTCOME, seed)
        found = []
        for more, scores in predict(own[validation_rows], None):
            reached = concordance(validation, scores, horizons[-1])
            found.append(SurvivalTrial(settings | more, len(rows), 0.5 if reached is None else reached))
        return max(found, key=_reached), settings

    search = search_rows(train_rows, happened[train_rows].astype(np.int8), seed)
    tries = [tried(settings, search) for settings in progress(_GRIDS[name], label=LABELS[name], unit=" fits")]
    chosen, settings = max(tries, key=lambda one: _reached(one[0]))
    if len(search) < len(train_rows):
        chosen, _ = tried(settings, train_rows)
    own, train = inputs[settings["columns"]], follow_up.take(train_rows)

    def hazards(event: int) -> Hazards:
        predict = _fitted(name, settings, own[train_rows], train, event, seed)
        _, scores = next(predict(own, chosen.settings.get("rounds")))
        return Hazards(scores, Baseline.of(train, scores[train_rows], event))

    death = hazards(DEATH) if (train.events == DEATH).any() else None
    return SurvivalBaseline(
        name=name if answer is None else name + WITH_ANSWER,
        risks=risks(hazards(OUTCOME), death, horizons),
        settings=chosen.settings,
        trials=[trial for trial, _ in tries],
        columns=own.shape[1],
        seconds=time.perf_counter() - started,
    )


Predict = Callable[[Any, int | None], Iterator[tuple[dict[str, Any], np.ndarray]]]
"""Yields log hazard ratios of rows, boosted trees' after every so many rounds or after given ones."""


def _fitted(name: str, settings: dict[str, Any], x: Any, follow_up: FollowUp, event: int, seed: int) -> Predict:
    if name == "cox":
        coefficients = fit_cox(x, follow_up, settings["C"], event)
        return lambda rows, _: iter([({}, rows @ coefficients)])
    trees = _boosted(settings, x, follow_up, event, seed)

    def predict(rows: Any, rounds: int | None) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
        for done, ratios in enumerate(trees.staged_predict(rows), start=1):
            if done == rounds or (rounds is None and done % ROUNDS_STEP == 0):
                yield {"rounds": done}, np.log(ratios)

    return predict


def _boosted(settings: dict[str, Any], x: np.ndarray, follow_up: FollowUp, event: int, seed: int) -> Any:
    """Return boosted trees of the hazard ratio: each patient's expected events are ratio times baseline hazard."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    expected = Baseline.of(follow_up, np.zeros(len(follow_up)), event).cumulative(follow_up.days)
    happened = (follow_up.events == event).astype(np.float64)
    ratio = np.divide(happened, expected, out=np.zeros_like(expected), where=expected > 0)
    own = {setting: value for setting, value in settings.items() if setting != "columns"}
    trees = HistGradientBoostingRegressor(
        loss="poisson", max_iter=ROUNDS, early_stopping=False, random_state=seed, **own
    )
    return trees.fit(x, ratio, sample_weight=expected)


def _reached(trial: SurvivalTrial) -> float:
    return trial.validation_concordance
