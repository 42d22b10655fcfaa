"""Results of an evaluation of time to event: the content of results.json, enough to draw every table and plot again."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from exmed_bert.evaluation.bootstrap import Estimate
from exmed_bert.evaluation.calibration import Calibration
from exmed_bert.evaluation.formatting import format_estimate
from exmed_bert.evaluation.groups import GroupMetrics
from exmed_bert.evaluation.metrics import METRICS
from exmed_bert.evaluation.results import CalibrationBin, CodeAttribution, Difference, SplitCount, recalibration
from exmed_bert.evaluation.study import Study
from exmed_bert.reporting.small_cells import Counted, plain_json

FORMAT, VERSION = "exmed-bert-time-to-event", 1


@dataclass(frozen=True)
class AtHorizon:
    """A model at one horizon.

    Attributes:
        horizon: days after the index date.
        predicted: mean predicted risk.
        metrics: of the recalibrated risks, by keys of `time_to_event.AT_HORIZON`.
        uncalibrated: the same of the risks as the model gave them.
        bins: of calibration.
    """

    horizon: float
    predicted: float
    metrics: dict[str, Estimate]
    uncalibrated: dict[str, float]
    bins: Sequence[CalibrationBin]


@dataclass(frozen=True)
class ModelOverTime:
    """One model on the test patients.

    Attributes:
        name, label, budget, details: as in `results.ModelResults`.
        concordance: Uno's, up to the last horizon; None where it is not defined or would tell of few patients.
        horizons: in order.
        calibration: fitted on validation patients, for all horizons.
        groups: by subgroup its concordance, observed incidence and mean predicted risk at the last horizon; of the
            first model alone.
    """

    name: str
    label: str
    budget: str
    concordance: Estimate | None
    horizons: Sequence[AtHorizon]
    calibration: Calibration
    groups: Sequence[GroupMetrics] = ()
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def by_key(self) -> dict[str, tuple[str, Estimate]]:
        """Metrics by key, such as ``auroc_365``, each with its name."""
        ranked = {} if self.concordance is None else {"concordance": ("concordance", self.concordance)}
        return ranked | {
            f"{key}_{at.horizon:g}": (f"{METRICS[key]} at {at.horizon:g} days", found)
            for at in self.horizons
            for key, found in at.metrics.items()
        }


@dataclass(frozen=True)
class FollowedUp:
    """Test patients up to a horizon.

    Attributes:
        horizon: days.
        events, deaths: who had the outcome by then, and who died without it.
        followed: who were still followed then; None where it would tell of few.
        effective_patients, largest_weight: how far those who are known have to stand for the censored.
        incidence: Aalen and Johansen's estimate of those who have the outcome by then; None where it would tell of few.
        died: the same of those who die without it.
    """

    horizon: float
    events: Counted
    deaths: Counted
    followed: Counted | None
    effective_patients: float
    largest_weight: float
    incidence: Estimate | None
    died: float | None


@dataclass(frozen=True)
class OnDay:
    """Cumulative incidence of the outcome, with its interval, and of death without it by the end of a day."""

    day: float
    observed: Estimate
    died: float


@dataclass(frozen=True)
class ConcordancePoint:
    """One training run of the label-efficiency curve; ``model`` is the key of the model."""

    model: str
    labels: int
    seed: int
    concordance: float


@dataclass(frozen=True)
class AttainableOverTime:
    """The true risks as a model, on the test patients who are at risk, and the models on the same patients.

    Attributes:
        patients, events: test patients at risk, and those of them of whom the outcome was seen.
        others, other_events: the same of those who are not at risk.
        true: ``concordance``, and AUROC and Brier score at the horizons, of the true risks.
        models: the same of each model, by its key.
        behind: by model the concordance of the true risks minus its own, on the same resamples; None where not defined.
    """

    patients: Counted
    events: Counted
    others: Counted
    other_events: Counted
    true: dict[str, Estimate]
    models: dict[str, dict[str, Estimate]]
    behind: dict[str, Estimate | None]


@dataclass(frozen=True)
class OverTimeResults:
    """An evaluation as a whole; everything is computed on the test patients unless it says otherwise.

    Attributes:
        title, facts, attrition, splits, notes, resamples, attributions, study: as in `results.Results`.
        horizons: follow-up by horizon.
        median_days: of follow-up, as if nobody had the outcome or died (reverse Kaplan-Meier).
        incidence: the curve of the cohort.
        models: the first is compared with each of the others.
        differences: the first minus each other, by ``concordance`` and keys of `time_to_event.named`.
        attainable: what the risks reach that the patients were generated with; None where they are not known.
        label_efficiency: every run of the label-efficiency curve; empty where there is none.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    attrition: Sequence[tuple[str, Counted]]
    splits: Sequence[SplitCount]
    horizons: Sequence[FollowedUp]
    median_days: float
    incidence: Sequence[OnDay]
    models: Sequence[ModelOverTime]
    differences: Sequence[Difference]
    notes: Sequence[str]
    resamples: int
    attainable: AttainableOverTime | None = None
    label_efficiency: Sequence[ConcordancePoint] = ()
    attributions: Sequence[CodeAttribution] = ()
    study: Study | None = None

    @property
    def measures(self) -> str:
        """What is measured, for a report."""
        return "Concordance, and at each horizon discrimination, accuracy and calibration, weighted for censoring"

    @property
    def explained(self) -> str:
        """What attributions add up to."""
        return "log hazard"

    @property
    def recalibration(self) -> str:
        """Which models were recalibrated, and how, in a sentence."""
        return recalibration([], len(self.models))

    @property
    def performance(self) -> list[str]:
        """What each model reaches, a sentence each."""
        found = []
        for model in self.models:
            told = [] if model.concordance is None else [f"concordance {format_estimate(model.concordance)}"]
            for at in model.horizons:
                names = {"auroc": "AUROC", "brier": "Brier score", "calibration_slope": "calibration slope"}
                of_horizon = [f"{names[key]} {format_estimate(at.metrics[key])}" for key in names if key in at.metrics]
                told += [f"at {at.horizon:g} days {', '.join(of_horizon)}"] if of_horizon else []
            found.append(f"{model.label}: {'; '.join(told) or 'not shown'}.")
        return found

    @property
    def fairness(self) -> list[str]:
        """The concordance of the first model by subgroup, a sentence for each division."""
        told: dict[str, list[str]] = {}
        for group in self.models[0].groups:
            if "concordance" in group.metrics:
                value = format_estimate(group.metrics["concordance"])
                told.setdefault(group.kind, []).append(f"{group.name} {value}")
        return [f"Concordance by {kind}: {'; '.join(names)}." for kind, names in told.items()]

    def to_dict(self) -> dict[str, Any]:
        """Return the content of results.json."""
        return {"format": FORMAT, "version": VERSION} | plain_json(self)
