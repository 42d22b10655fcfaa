"""Baselines: logistic regression, random forest and boosted trees on a bag of codes.

Each is tuned on the same validation patients as the network, by AUROC over a small grid that the result lists. Labels
of test patients are never looked at. With a column more, the answer of the pretrained model, it says whether the model
knows what the codes do not tell, or merely uses few labels better.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from exmed_bert.cohorts.labeled import LabeledPatients
from exmed_bert.console import InputError, progress
from exmed_bert.evaluation.features import COLUMN_SETS, Features, features, most_used, with_answer
from exmed_bert.evaluation.metrics import Predictions
from exmed_bert.settings import WITH_ANSWER, BaselineName

LABELS = {"logreg": "logistic regression", "rf": "random forest", "hgb": "boosted trees"}
LABELS |= {name + WITH_ANSWER: f"{label} + model's answer" for name, label in LABELS.items()}

_SEARCH_PATIENTS = 10_000  # most training patients of the search; the chosen setting is fitted on all
_TREES = 300
_TREE_PATIENTS = 20_000  # most patients that one tree of a forest sees
ROUNDS = 200  # of boosting; the best number is found on validation
ROUNDS_STEP = 10
DENSE_COLUMNS = 300  # boosted trees take dense columns: those that most training patients have

# What is tried. ``columns`` is a set of `features`: the groups above the codes help some outcomes and harm others.
_GRIDS: dict[str, list[dict[str, Any]]] = {
    "logreg": [
        {"columns": columns, "penalty": penalty, "C": strength}
        for penalty, sets, strengths in (
            ("l2", COLUMN_SETS, (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)),
            ("l1", COLUMN_SETS[1:], (0.03, 0.1, 0.3, 1.0, 3.0)),
        )
        for columns, strength in product(sets, strengths)
    ],
    "rf": [
        {"columns": columns, "min_samples_leaf": leaf, "max_features": "sqrt"}
        for columns, leaf in product(COLUMN_SETS[1:], (3, 10, 30))
    ],
    "hgb": [  # the rate and the number of rounds make up for each other, so only the rounds are tuned
        {"columns": columns, "learning_rate": 0.05, "max_leaf_nodes": leaves}
        for columns, leaves in product(COLUMN_SETS[1:], (4, 16))
    ],
}


@dataclass(frozen=True)
class Trial:
    """One setting that was tried on so many training patients, and the AUROC of the validation patients."""

    settings: dict[str, Any]
    patients: int
    validation_auroc: float


@dataclass(frozen=True)
class BaselineResult:
    """A tuned baseline.

    Attributes:
        name: one of `settings.BASELINES`, or of these with `settings.WITH_ANSWER`.
        probabilities: (N,) float64 of label 1 for all patients, not yet recalibrated.
        settings: the hyper-parameters that were chosen.
        trials: everything that was tried, in order.
        columns: how many columns the chosen setting has.
        seconds: features, search and predictions together.
    """

    name: str
    probabilities: np.ndarray
    settings: dict[str, Any]
    trials: list[Trial]
    columns: int
    seconds: float

    @property
    def budget(self) -> str:
        """Search and result in a line."""
        chosen = ", ".join(f"{name} {value}" for name, value in self.settings.items())
        return (
            f"{len(self.trials)} settings on {self.trials[0].patients:,} patients tried by validation AUROC, "
            f"{self.seconds:.0f} s; chosen: {chosen}, {self.columns:,} columns"
        )


def fit(
    name: BaselineName,
    patients: LabeledPatients,
    train_rows: np.ndarray,
    validation_rows: np.ndarray,
    seed: int,
    answer: np.ndarray | None = None,
    table: Features | None = None,
) -> BaselineResult:
    """Tune a baseline and predict all patients.

    Args:
        name: which.
        patients: N histories; labels and weights are read at ``train_rows`` and ``validation_rows`` alone.
        train_rows, validation_rows: indices of patients, fitted on and tuned on.
        seed: of whatever is drawn.
        answer: (N,) log odds that a pretrained model gives without any label, which becomes a column; None: no column.
        table: the features by these training rows, where several baselines share them; None: they are made.

    Raises:
        InputError: the training or validation patients are all of one class.
    """
    for rows, part in ((train_rows, "training"), (validation_rows, "validation")):
        events = int(patients.labels[rows].sum())
        if not 0 < events < len(rows):
            raise InputError(
                f"baseline {name}: {events:,} of {len(rows):,} {part} patients have the outcome, expected some with it "
                "and some without"
            )
    started = time.perf_counter()
    table = table or features(patients, train_rows)
    inputs: dict[str, Any] = {columns: table.of(columns) for columns in COLUMN_SETS}
    if name == "hgb":
        inputs = {columns: most_used(matrix, train_rows, DENSE_COLUMNS) for columns, matrix in inputs.items()}
    if answer is not None:
        inputs = {columns: with_answer(matrix, answer, train_rows) for columns, matrix in inputs.items()}
    labels, weights = patients.labels[validation_rows], patients.weights_of(validation_rows)

    def tried(settings: dict[str, Any], rows: np.ndarray) -> tuple[Trial, Any]:
        own = inputs[settings["columns"]]
        model = _model(name, settings, len(rows), seed).fit(own[rows], patients.labels[rows], patients.weights_of(rows))
        if name == "rf":
            model.set_params(n_jobs=1)  # threads add the trees up in any order, which changes the last bits
        rounds = (
            Trial(settings | more, len(rows), Predictions(labels, probabilities).measure(weights)["auroc"])
            for more, probabilities in _predictions(name, model, own[validation_rows])
        )
        return max(rounds, key=_auroc), model  # of boosting the best number of rounds; of the others there is one

    searched = search_rows(train_rows, patients.labels[train_rows], seed)
    trials: list[Trial] = []
    best: tuple[Trial, Any, dict[str, Any]] | None = None
    for settings in progress(_GRIDS[name], label=LABELS[name].capitalize(), unit=" fits"):
        trial, fitted = tried(settings, searched)
        trials.append(trial)
        if best is None or _auroc(trial) > _auroc(best[0]):
            best = trial, fitted, settings
    assert best is not None, "a grid holds settings"
    chosen, model, settings = best
    if len(searched) < len(train_rows):
        chosen, model = tried(settings, train_rows)
    own = inputs[chosen.settings["columns"]]
    _, probabilities = next(_predictions(name, model, own, chosen.settings.get("rounds")))
    named = name if answer is None else name + WITH_ANSWER
    return BaselineResult(named, probabilities, chosen.settings, trials, own.shape[1], time.perf_counter() - started)


def search_rows(rows: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    """Return the rows the search sees: all, or `_SEARCH_PATIENTS` with events in proportion, one at the least."""
    if len(rows) <= _SEARCH_PATIENTS:
        return rows
    order = np.random.default_rng(seed).permutation(len(rows))
    order = order[np.argsort(labels[order], kind="stable")]
    return rows[order[np.linspace(0, len(rows) - 1, _SEARCH_PATIENTS).astype(int)]]


def _auroc(trial: Trial) -> float:
    return trial.validation_auroc


def _model(name: BaselineName, settings: dict[str, Any], n: int, seed: int) -> Any:
    """Return the unfitted scikit-learn model for n training patients."""
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression

    own = {setting: value for setting, value in settings.items() if setting != "columns"}
    if name == "rf":
        drawn = None if n <= _TREE_PATIENTS else _TREE_PATIENTS
        return RandomForestClassifier(_TREES, max_samples=drawn, random_state=seed, n_jobs=-1, **own)
    if name == "hgb":
        return HistGradientBoostingClassifier(max_iter=ROUNDS, early_stopping=False, random_state=seed, **own)
    if own.pop("penalty") == "l1":  # liblinear shrinks the intercept too, unless its column is large
        own |= {"l1_ratio": 1.0, "solver": "liblinear", "intercept_scaling": 10}
    return LogisticRegression(max_iter=1000, random_state=seed, **own)


def _predictions(
    name: BaselineName, model: Any, inputs: Any, rounds: int | None = None
) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Yield the probabilities of a fitted model, (n,), boosted trees' after every so many rounds or ``rounds``."""
    if name != "hgb":
        yield {}, model.predict_proba(inputs)[:, 1]
        return
    for done, probabilities in enumerate(model.staged_predict_proba(inputs), start=1):
        if done == rounds or (rounds is None and done % ROUNDS_STEP == 0):
            yield {"rounds": done}, probabilities[:, 1]
