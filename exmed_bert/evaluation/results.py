"""Results of an evaluation: the content of results.json, enough to write the tables and draw every plot again."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from exmed_bert.evaluation.attainable import Attainable
from exmed_bert.evaluation.bootstrap import Estimate
from exmed_bert.evaluation.calibration import Calibration
from exmed_bert.evaluation.formatting import format_estimate
from exmed_bert.evaluation.groups import GroupMetrics
from exmed_bert.evaluation.metrics import METRICS
from exmed_bert.evaluation.study import Study
from exmed_bert.reporting.small_cells import Counted, percent, plain_json

_PERFORMANCE = ("auroc", "auprc", "brier", "calibration_slope", "calibration_intercept", "calibration_error")
FORMAT, VERSION = "exmed-bert-evaluation", 2


@dataclass(frozen=True)
class SplitCount:
    """Patients of a split.

    Attributes:
        split: its name.
        patients, events, censored: all, those who are known to have the outcome, and those of whom it is not known.
        risk: share with the outcome where some are censored, estimated with their weights; None where none is, or
            where it would tell a hidden count.
    """

    split: str
    patients: Counted
    events: Counted
    censored: Counted = 0
    risk: float | None = None

    @property
    def share(self) -> str:
        """The share with the outcome in percent."""
        return percent(self.events, self.patients) if self.risk is None else f"{100 * self.risk:.1f} %"


@dataclass(frozen=True)
class CalibrationBin:
    """Patients whose probabilities are neighbors: mean probability and share with the outcome.

    Where some are censored, ``observed`` is the cumulative incidence, with the ends of its 95 % interval.
    """

    patients: int
    predicted: float
    observed: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class PlotSeries:
    """Curves and bins of one model on the test patients.

    Attributes:
        roc: (false-positive rate, sensitivity), at most a few hundred points from (0, 0) to (1, 1).
        precision_recall: (recall, precision).
        bins: of equal numbers, by rising probability; fewer where each has to hold enough patients.
        histogram: (upper end, patients) of equal steps from 0 to the highest probability.
        net_benefit: (threshold, net benefit) of the decision curve.
    """

    roc: Sequence[tuple[float, float]]
    precision_recall: Sequence[tuple[float, float]]
    bins: Sequence[CalibrationBin]
    histogram: Sequence[tuple[float, int]]
    net_benefit: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class ModelResults:
    """One model on the test patients.

    Attributes:
        name: key of the model, such as ``fine-tuned`` or ``logreg``.
        label: its name for people.
        budget: its training and search in a line.
        metrics: of the recalibrated probabilities, with intervals.
        uncalibrated: metrics of the probabilities as the model gave them; recalibration leaves ranks alone.
        calibration: fitted on validation patients.
        by_chance: the mean expected calibration error of a model whose probabilities are right, on so many patients.
        groups: metrics by subgroup.
        series: for the plots; None where the test patients are of one class.
        details: whatever else is worth keeping, such as hyper-parameters and the grid that was tried.
        recalibrated: whether the calibration was fitted on the validation patients.
    """

    name: str
    label: str
    budget: str
    metrics: dict[str, Estimate]
    uncalibrated: dict[str, float]
    calibration: Calibration
    by_chance: float
    groups: list[GroupMetrics]
    series: PlotSeries | None
    details: dict[str, Any] = field(default_factory=dict)
    recalibrated: bool = True

    @property
    def by_key(self) -> dict[str, tuple[str, Estimate]]:
        """Metrics by key, each with its name."""
        return {key: (METRICS[key], found) for key, found in self.metrics.items() if key in METRICS}


@dataclass(frozen=True)
class Difference:
    """The first model minus another in one metric, on the same resamples."""

    ours: str
    theirs: str
    metric: str
    difference: Estimate


@dataclass(frozen=True)
class CurvePoint:
    """One training run of the label-efficiency curve: AUROC of the test patients by number of labels.

    ``model`` is the key of the model, as `ModelResults.name`.
    """

    model: str
    labels: int
    seed: int
    auroc: float


@dataclass(frozen=True)
class CodeAttribution:
    """Contribution of a code to the logit, over the patients who have it.

    Attributes:
        code, entity: the code and its system.
        patients: who have it among those explained.
        mean: mean over these patients of the sum of its attributions.
        mean_absolute: the same of the absolute sums.
    """

    code: str
    entity: str
    patients: int
    mean: float
    mean_absolute: float


class Named(Protocol):
    """A model of an evaluation."""

    @property
    def label(self) -> str: ...
    @property
    def budget(self) -> str: ...


class Reported(Protocol):
    """What every evaluation tells, whatever its labels say; the attributes are those of `Results`.

    Attributes:
        measures: what is measured, for a report.
        explained: what attributions add up to.
        recalibration: which models were recalibrated, and how, in a sentence.
        performance: what each model reaches, a sentence each.
        fairness: what the first reaches in subgroups, a sentence for each division.
    """

    @property
    def title(self) -> str: ...
    @property
    def attrition(self) -> Sequence[tuple[str, Counted]]: ...
    @property
    def splits(self) -> Sequence[SplitCount]: ...
    @property
    def models(self) -> Sequence[Named]: ...
    @property
    def notes(self) -> Sequence[str]: ...
    @property
    def resamples(self) -> int: ...
    @property
    def attributions(self) -> Sequence[CodeAttribution]: ...
    @property
    def measures(self) -> str: ...
    @property
    def explained(self) -> str: ...
    @property
    def recalibration(self) -> str: ...
    @property
    def performance(self) -> Sequence[str]: ...
    @property
    def fairness(self) -> Sequence[str]: ...


@dataclass(frozen=True)
class Results:
    """An evaluation as a whole; everything is computed on the test patients unless it says otherwise.

    Attributes:
        title: heading of the page.
        facts: names and values: the task, the model, the files.
        attrition: from all patients to those with a label: what was counted, how many.
        splits: sizes.
        models: the first is the one that is compared with each of the others.
        differences: the first model minus each other.
        notes: what a reader has to know before the metrics.
        resamples: of every interval.
        label_efficiency: every run of the label-efficiency curve; empty where there is none.
        attributions: by code, largest first; empty where nothing was explained.
        study: what reporting guidelines ask for besides; None where nothing is known.
        attainable: performance of the true risks; None where it is not known.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    attrition: Sequence[tuple[str, Counted]]
    splits: Sequence[SplitCount]
    models: Sequence[ModelResults]
    differences: Sequence[Difference]
    notes: Sequence[str]
    resamples: int
    label_efficiency: Sequence[CurvePoint] = ()
    attributions: Sequence[CodeAttribution] = ()
    study: Study | None = None
    attainable: Attainable | None = None

    @property
    def measures(self) -> str:
        """What is measured, for a report."""
        return "Discrimination, accuracy, calibration and net benefit"

    @property
    def explained(self) -> str:
        """What attributions add up to."""
        return "log odds"

    @property
    def recalibration(self) -> str:
        """Which models were recalibrated, and how, in a sentence."""
        return recalibration([model.label for model in self.models if not model.recalibrated], len(self.models))

    @property
    def performance(self) -> list[str]:
        """What each model reaches, a sentence each."""
        found = []
        for model in self.models:
            shown = [key for key in _PERFORMANCE if key in model.metrics]
            told = [f"{METRICS[key]} {format_estimate(model.metrics[key])}" for key in shown]
            found.append(f"{model.label}: {'; '.join(told) or 'not shown'}.")
        return found

    @property
    def fairness(self) -> list[str]:
        """The AUROC of the first model by subgroup, a sentence for each division."""
        told: dict[str, list[str]] = {}
        for group in self.models[0].groups:
            if "auroc" in group.metrics:
                told.setdefault(group.kind, []).append(f"{group.name} {format_estimate(group.metrics['auroc'])}")
        return [f"AUROC by {kind}: {'; '.join(names)}." for kind, names in told.items()]

    def to_dict(self) -> dict[str, Any]:
        """Return the content of results.json."""
        return {"format": FORMAT, "version": VERSION} | plain_json(self)


def recalibration(others: Sequence[str], models: int) -> str:
    """Return in a sentence how models were recalibrated; ``others`` names those that were not, fitted as they were.

    >>> recalibration(["the model"], 1)
    'Nothing was recalibrated.'
    """
    if len(others) == models:
        return "Nothing was recalibrated."
    exception = f" but {' and '.join(others)}, which was fitted to their labels as well" if others else ""
    return (
        "Logits are divided by a temperature and shifted by a bias, both fitted on the validation patients, in the "
        f"same way for every model{exception}."
    )
