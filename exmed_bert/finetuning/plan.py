"""The plan of a run by its number of labels: subset of the patients, steps and learning rates."""

import math
from dataclasses import dataclass

import numpy as np

from exmed_bert.cohorts.labeled import TRAIN, VALIDATION, LabeledPatients
from exmed_bert.data.randomness import uniform
from exmed_bert.settings import FinetuneSettings
from exmed_bert.training.plan import default_learning_rate

_SUBSET_STREAM = 4
_LEAST_SHARE = 0.1  # of a subset has the outcome, as far as there are so many
_STEPS = (150, 1500)  # fewest and most, where enough labels are there for so many
_EPOCHS = (3, 20)
_EVALUATIONS = 12  # of a run
_FIRST_EVALUATIONS_WITHOUT_GAIN = 5


@dataclass(frozen=True)
class FinetunePlan:
    """Numbers of steps, and the peak learning rates."""

    epochs: int
    total_steps: int
    warmup_steps: int
    eval_steps: int
    patience: int
    learning_rate: float
    head_learning_rate: float
    weight_decay: float


def make_plan(settings: FinetuneSettings, labels: int, hidden_size: int, from_scratch: bool) -> FinetunePlan:
    """Return the plan: settings as given, and for the others what suits the number of labels.

    Args:
        settings: as given.
        labels: number of training labels.
        hidden_size: of the model.
        from_scratch: whether the encoder has everything to learn.
    """
    per_epoch = math.ceil(labels / settings.train_batch_size)
    epochs = settings.epochs or min(max(math.ceil(_STEPS[0] / per_epoch), _EPOCHS[0]), _EPOCHS[1])
    total = epochs * per_epoch
    fresh = default_learning_rate(hidden_size)
    return FinetunePlan(
        epochs=epochs,
        total_steps=total,
        warmup_steps=round(0.1 * total),
        eval_steps=max(total // _EVALUATIONS, 1),
        patience=_FIRST_EVALUATIONS_WITHOUT_GAIN,
        learning_rate=settings.learning_rate or (fresh if from_scratch else 0.3 * fresh),
        head_learning_rate=fresh,
        weight_decay=0.01,
    )


@dataclass(frozen=True)
class Subset:
    """Labeled patients of a run: (n,) rows to train on, (m,) to validate on, m not above n.

    What is validated on costs a label like what is trained on, so the size of a subset counts both.

    Attributes:
        log_odds_offset: what sampling has added to the log odds of the outcome, of the validation patients.
        pooled_offset: the same of all labels together.
    """

    train: np.ndarray
    validation: np.ndarray
    log_odds_offset: float
    pooled_offset: float = 0.0

    @property
    def rows(self) -> np.ndarray:
        """All of them, (n + m,)."""
        return np.sort(np.concatenate((self.train, self.validation)))

    @property
    def labels(self) -> int:
        """How many labels it takes."""
        return len(self.train) + len(self.validation)


def draw_subset(patients: LabeledPatients, size: int | None, seed: int, natural: bool = False) -> Subset:
    """Draw training patients, and half as many to validate on, by a hash: smaller subsets lie within larger ones.

    Where the outcome is rare, hundreds of patients hold hardly one. So at least a tenth of a subset have it, as in a
    case-control study; what that adds to the log odds is known and taken off after recalibration.

    Args:
        patients: all of them; who is censored has no label to learn from.
        size: how many labels in all; None takes all, and at most as many to validate on as to train on.
        seed: another one draws others.
        natural: take as many with the outcome as come.
    """
    train, validation = patients.known_rows(TRAIN), patients.known_rows(VALIDATION)
    if size is None or size >= len(train) + min(len(validation), len(train)):
        return Subset(train, _nested(patients, validation, len(train), seed, natural=True), 0.0)
    trained = min(size - min(size // 3, len(validation)), len(train))
    chosen = _nested(patients, train, trained, seed, natural)
    held_out = _nested(patients, validation, size - trained, seed, natural)
    if natural:
        return Subset(chosen, held_out, 0.0)
    # Recalibration sees the validation patients alone, so it is their sampling that has to be undone.
    sampled = held_out if len(held_out) else chosen
    everyone = _log_odds(patients, np.concatenate((train, validation)))
    pooled = _log_odds(patients, np.concatenate((chosen, held_out)))
    return Subset(chosen, held_out, _log_odds(patients, sampled) - everyone, pooled - everyone)


def _nested(patients: LabeledPatients, rows: np.ndarray, size: int, seed: int, natural: bool = False) -> np.ndarray:
    if size >= len(rows):
        return rows
    keys = patients.dataset.columns["patient_hashes"].numpy()[rows]
    order = rows[np.argsort(uniform(seed, _SUBSET_STREAM, keys, patients.index_days[rows]), kind="stable")]
    cases, others = order[patients.labels[order] == 1], order[patients.labels[order] == 0]
    share = len(cases) / len(rows)
    wanted = max(round(size * (share if natural else max(share, _LEAST_SHARE))), 1)
    wanted = max(min(wanted, len(cases)), size - len(others))
    return np.sort(np.concatenate((cases[:wanted], others[: size - wanted])))


def _log_odds(patients: LabeledPatients, rows: np.ndarray) -> float:
    labels, weights = patients.labels[rows], patients.weights_of(rows)
    cases = float(labels.sum() if weights is None else weights @ labels)
    return math.log((cases + 0.5) / (len(labels) - cases + 0.5))
