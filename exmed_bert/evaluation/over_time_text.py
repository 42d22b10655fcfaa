"""Text and tables of an evaluation of time to event: from `OverTimeResults` to the sections of its report."""

from exmed_bert.evaluation.bootstrap import Estimate
from exmed_bert.evaluation.formatting import estimate_cell, format_estimate, format_number
from exmed_bert.evaluation.groups import LEAST_EVENTS
from exmed_bert.evaluation.metrics import BINS, METRICS
from exmed_bert.evaluation.over_time_results import AtHorizon, ModelOverTime, OverTimeResults
from exmed_bert.evaluation.results import Difference
from exmed_bert.evaluation.results_text import MEANINGS, attributions, budgets, cohort, efficiency, verdict
from exmed_bert.evaluation.time_to_event import AT_HORIZON, CONCORDANCE, named
from exmed_bert.evaluation.tripod import reporting_section
from exmed_bert.reporting.content import Cell, Interval, ReportSection, Table, Verdict, capital
from exmed_bert.reporting.small_cells import number_of

_OPEN = ("auroc", "brier")  # metrics at a horizon that are shown at once


def sections(results: OverTimeResults) -> list[ReportSection]:
    """Return the sections of the report in their order; what there is nothing for is left out."""
    found = [
        _summary(results),
        _metrics(results),
        _attainable(results),
        _incidence(results),
        _calibration(results),
        _efficiency(results),
        _subgroups(results),
        attributions(results),
        cohort(results),
        budgets(results),
        reporting_section(results, results.study) if results.study else None,
    ]
    return [section for section in found if section is not None]


def metric_name(key: str) -> str:
    """Return what a metric is called, such as ``AUROC at 365 days``."""
    if key == CONCORDANCE:
        return "concordance"
    metric, _, horizon = key.rpartition("_")
    return f"{METRICS[metric]} at {horizon} days"


def _summary(results: OverTimeResults) -> ReportSection:
    first, test, last = results.models[0], results.splits[-1], results.horizons[-1]
    text = [
        f"Of {test.patients:,} test patients, followed for {results.median_days:,.0f} days in the median, "
        f"{last.events:,} have the outcome within {last.horizon:g} days: {_percent(last.incidence.value)} by Aalen and "
        "Johansen's estimate. "
        + (
            f"{capital(first.label)}: concordance {format_estimate(first.concordance)}."
            if first.concordance is not None
            else "So few are not measured."
        ),
        "The concordance is the probability that of two patients the one with the outcome first has the higher risk "
        f"(Uno, up to {last.horizon:g} days): 0.5 by chance, 1 at best. In parentheses: 95 % intervals, percentiles of "
        f"{results.resamples:,} bootstrap resamples of the patients. Differences are paired: both models on the same "
        "resamples.",
    ]
    names = {model.name: model.label for model in results.models}
    found = [(difference, verdict(difference)) for difference in results.differences]

    def table(chosen: list[tuple[Difference, Verdict]], caption: str = "") -> Table:
        columns = ("Verdict", "Compared with", "Metric", f"{capital(first.label)} minus the other")
        rows: list[tuple[Cell, ...]] = [
            (said, names[d.theirs], metric_name(d.metric), estimate_cell(d.difference, sign=True)) for d, said in chosen
        ]
        return Table(columns, rows, {0: "word", 1: "word", 2: "text"}, caption, stacked=True)

    in_short = {CONCORDANCE, *(named(metric, last.horizon) for metric in _OPEN)}
    short = [(d, said) for d, said in found if d.metric in in_short]
    return ReportSection(
        "summary",
        "Summary",
        text,
        tables=[table(short)] if short else [],
        legend=[(said, meaning) for said, meaning in MEANINGS.items() if any(said == own for _, own in found)],
        folded=[table(found, "Differences in all metrics")] if len(found) > len(short) else [],
    )


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

    columns = ("Metric", *(model.label for model in models))
    ranked = ("concordance", *(estimate_cell(model.concordance) for model in models))
    rest = tuple(metric for metric in AT_HORIZON if metric not in _OPEN)
    text = (
        "On the test patients, after every model was recalibrated on the validation patients in the same way. The "
        "AUROC at a horizon compares whoever has the outcome by then with everybody else. Brier score and calibration "
        "error are best at 0, the slope at 1, the intercept at 0. All are weighted for censoring."
    )
    return ReportSection(
        "metrics",
        "Metrics",
        [text],
        plots=["auroc_over_time"],
        tables=[Table(columns, [ranked, *rows(_OPEN)], {0: "text"})],
        folded=[Table(columns, rows(rest), {0: "text"}, "Precision and calibration at the horizons")],
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
            _percents(one.incidence.value, one.incidence.low, one.incidence.high),
            _percent(one.died),
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
