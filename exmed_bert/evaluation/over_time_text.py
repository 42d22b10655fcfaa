"""Text and tables of an evaluation of time to event: from `OverTimeResults` to the sections of its report."""

from exmed_bert.evaluation import differences
from exmed_bert.evaluation.bootstrap import Estimate
from exmed_bert.evaluation.differences import Judged
from exmed_bert.evaluation.formatting import estimate_cell, format_estimate, format_number
from exmed_bert.evaluation.groups import LEAST_EVENTS
from exmed_bert.evaluation.metrics import BINS, METRICS
from exmed_bert.evaluation.over_time_results import AtHorizon, ModelOverTime, OverTimeResults
from exmed_bert.evaluation.results_text import attributions, budgets, cohort, efficiency
from exmed_bert.evaluation.time_to_event import AT_HORIZON, CONCORDANCE, named
from exmed_bert.evaluation.tripod import reporting_section
from exmed_bert.reporting.content import Cell, Interval, ReportSection, Table, capital
from exmed_bert.reporting.small_cells import number_of

_JUDGED = ("auroc", "brier")  # metrics at the last horizon that get verdicts, beside the concordance
_AT_LAST = ("auroc", "auprc", "calibration_slope", "calibration_intercept", "calibration_error", "brier")


def lead(results: OverTimeResults) -> str:
    """Return what was found, in a sentence."""
    first, test, last = results.models[0], results.splits[-1], results.horizons[-1]
    of_whom = f"{test.patients:,} test patients, {last.events:,} with the outcome within {last.horizon:g} days"
    if last.incidence is not None:
        of_whom += f", {_percent(last.incidence.value)} by Aalen and Johansen's estimate"
    if first.concordance is None:
        return f"{capital(of_whom)}: so few are not measured."
    ranked = [one for one in _judged(results) if one.difference.metric == CONCORDANCE]
    ending = differences.compared(ranked, _labels(results))
    return f"{capital(first.label)} reaches a concordance of {format_estimate(first.concordance)} on {of_whom}{ending}."


def notes(results: OverTimeResults) -> list[str]:
    """Return what a reader has to know before the rest."""
    few = differences.banner(results.horizons[-1].events) if results.models[0].horizons else []
    return [*few, *results.notes]


def sections(results: OverTimeResults) -> list[ReportSection]:
    """Return the sections of the report in their order; what there is nothing for is left out."""
    found = [
        cohort(results),
        _metrics(results),
        differences.section(results.differences, _judged(results), _labels(results), metric_name, results.resamples),
        _attainable(results),
        _incidence(results),
        _calibration(results),
        _efficiency(results),
        _subgroups(results),
        attributions(results),
        budgets(results),
        reporting_section(results, results.study) if results.study else None,
    ]
    return [section for section in found if section is not None]


def _judged(results: OverTimeResults) -> list[Judged]:
    last = results.horizons[-1]
    chosen = {CONCORDANCE, *(named(metric, last.horizon) for metric in _JUDGED)}
    return differences.judged([one for one in results.differences if one.metric in chosen], last.events)


def _labels(results: OverTimeResults) -> dict[str, str]:
    return {model.name: model.label for model in results.models}


def metric_name(key: str) -> str:
    """Return what a metric is called, such as ``AUROC at 365 days``."""
    if key == CONCORDANCE:
        return "concordance"
    metric, _, horizon = key.rpartition("_")
    return f"{METRICS[metric]} at {horizon} days"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _metrics(results: OverTimeResults) -> ReportSection | None:
    models = results.models
    if not results.models[0].horizons:
        return None

    def rows(metrics: tuple[str, ...]) -> list[tuple[Cell, ...]]:
        found: list[tuple[Cell, ...]] = []
        for metric in metrics:
            for one in results.horizons:
                cells = [estimate_cell(_at(model, one.horizon, metric)) for model in models]
                if any(cell != "–" for cell in cells):
                    found.append((metric_name(named(metric, one.horizon)), *cells))
        return found

    last = results.horizons[-1].horizon
    at_last = [key for key in _AT_LAST if any(_at(model, last, key) for model in models)]
    short = [
        (model.label, estimate_cell(model.concordance), *(estimate_cell(_at(model, last, key)) for key in at_last))
        for model in models
    ]
    names = (capital(metric_name(named(key, last))) for key in at_last)
    every = Table(("Metric", *(model.label for model in models)), rows(AT_HORIZON), {0: "text"}, "At all horizons")
    return ReportSection(
        "metrics",
        "Discrimination and calibration",
        [
            f"On the test patients, followed for {results.median_days:,.0f} days in the median, after every model was "
            "recalibrated on the validation patients in the same way. All metrics are weighted for censoring; in "
            f"parentheses 95 % intervals, percentiles of {results.resamples:,} bootstrap resamples of the patients.",
            "The concordance is the probability that of two patients the one with the outcome first has the higher "
            f"risk (Uno, up to {last:g} days): 0.5 by chance, 1 at best. The AUROC at a horizon compares whoever has "
            "the outcome by then with everybody else. Brier score and calibration error are best at 0, the slope at "
            "1, the intercept at 0.",
        ],
        plots=["auroc_over_time"],
        tables=[Table(("Model", "Concordance", *names), short)],
        folded=[every],
    )


def _attainable(results: OverTimeResults) -> ReportSection | None:
    found = results.attainable
    if found is None:
        return None
    columns = ("Metric", "True risks", *(model.label for model in results.models))
    rows: list[tuple[Cell, ...]] = [
        (
            metric_name(key),
            estimate_cell(value),
            *(estimate_cell(found.models[model.name].get(key)) for model in results.models),
        )
        for key, value in found.true.items()
    ]
    behind = (estimate_cell(found.behind[model.name], sign=True) for model in results.models)
    rows.append(("concordance of the true risks minus the model’s", "", *behind))
    text = [
        "The patients are generated, so the risks that their outcomes were drawn with are known. No model does better "
        f"than these, but by chance. The table has them and the models on the same {found.patients:,} test patients, "
        f"{found.events:,} with the outcome."
    ]
    if number_of(found.others):
        text.append(
            f"The other {found.others:,} test patients, {found.other_events:,} with the outcome, had the condition "
            "before they were first observed and wait for a code to say so. A record cannot tell them, and their risk "
            "is not known. Models predict their codes too, so their risks may be too high beside the true ones."
        )
    return ReportSection("attainable", "Attainable performance", text, tables=[Table(columns, rows, {0: "text"})])


def _at(model: ModelOverTime, horizon: float, metric: str) -> Estimate | None:
    at = _horizon(model, horizon)
    return None if at is None else at.metrics.get(metric)


def _incidence(results: OverTimeResults) -> ReportSection:
    models = results.models
    shown = {at.horizon for at in results.models[0].horizons}
    rows: list[tuple[Cell, ...]] = [
        (
            f"{one.horizon:g} days",
            f"{one.events:,}",
            f"{one.deaths:,}",
            "–" if one.followed is None else f"{one.followed:,}",
            "–" if one.incidence is None else _percents(one.incidence.value, one.incidence.low, one.incidence.high),
            "–" if one.died is None else _percent(one.died),
            *(_percent(at.predicted) if (at := _horizon(model, one.horizon)) else "–" for model in models),
        )
        for one in results.horizons
        if one.horizon in shown
    ]
    columns = (
        "By",
        "With the outcome",
        "Died before it",
        "Still followed",
        "Incidence",
        "Death",
        *(m.label for m in models),
    )
    return ReportSection(
        "incidence",
        "Cumulative incidence",
        [
            "How many test patients have the outcome by a day, where death without it is a competing event (Aalen and "
            "Johansen), with 95 % intervals, and beside it the mean of the risks that the models predict.",
        ],
        plots=["incidence"],
        tables=[Table(columns, rows)] if rows else [],
    )


def _horizon(model: ModelOverTime, horizon: float) -> AtHorizon | None:
    return next((at for at in model.horizons if at.horizon == horizon), None)


def _percents(value: float, low: float | None, high: float | None) -> Cell:
    if low is None or high is None:
        return _percent(value)
    return Interval(_percent(value), f"{100 * low:.1f} to {100 * high:.1f} %")


def _calibration(results: OverTimeResults) -> ReportSection | None:
    keys = ("calibration_slope", "calibration_intercept", "calibration_error")
    rows = [
        (
            model.label,
            f"{at.horizon:g} days",
            f"{model.calibration.temperature:.2f}",
            f"{model.calibration.bias:+.2f}".replace("-", "−"),
            *(format_number(at.uncalibrated.get(key)) for key in keys),
            *(estimate_cell(at.metrics.get(key)) for key in keys),
        )
        for model in results.models
        for at in model.horizons
    ]
    if not rows:
        return None
    parts = ("Slope", "Intercept", "Error")
    columns = ("Model", "Horizon", "Temperature", "Bias", *(f"{part} before" for part in parts), *parts)
    return ReportSection(
        "calibration",
        "Calibration at the horizons",
        [
            "Of the patients with a predicted risk of 20 %, does a fifth have the outcome by the horizon? A model's "
            "log odds are divided by a temperature and shifted by a bias, the same at all horizons, both fitted on the "
            f"validation patients. The plots show up to {BINS} bins of equal numbers; what is observed in a bin is its "
            "cumulative incidence."
        ],
        plots=["calibration_over_time"],
        folded=[Table(columns, rows, {0: "word", 1: "word"}, "Calibration before and after")],
    )


def _efficiency(results: OverTimeResults) -> ReportSection | None:
    points = [(point.model, point.labels, point.seed, point.concordance) for point in results.label_efficiency]
    return efficiency(points, {model.name: model.label for model in results.models}, "Concordance")


def _subgroups(results: OverTimeResults) -> ReportSection | None:
    first, last = results.models[0], results.horizons[-1]
    if not first.groups:
        return None
    rows: list[tuple[Cell, ...]] = []
    for group in first.groups:
        observed, predicted = (group.metrics.get(key) for key in ("observed", "predicted"))
        rows.append(
            (
                group.kind,
                group.name,
                f"{group.patients:,}",
                f"{group.events:,}",
                estimate_cell(group.metrics.get("concordance")),
                "–" if observed is None else _percents(observed.value, observed.low, observed.high),
                "–" if predicted is None else _percent(predicted.value),
            )
        )
    columns = ("By", "Subgroup", "Patients", "With the outcome", "Concordance", "Observed risk", "Predicted risk")
    return ReportSection(
        "groups",
        "Subgroups",
        [
            f"{capital(first.label)}, measured within each subgroup; risks are those by {last.horizon:g} days, the "
            "observed one with death as a competing event. A subgroup in which fewer than "
            f"{LEAST_EVENTS} patients are known to have the outcome by then, or not to have it, shows counts alone. "
            "Age is that at the index date; codes are those up to it, divided at the terciles of the test patients."
        ],
        plots=["groups"],
        tables=[Table(columns, rows, {0: "word", 1: "word"})],
    )
