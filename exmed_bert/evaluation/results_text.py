"""Text and tables of an evaluation: from `Results` to the sections of its report."""

from collections.abc import Mapping, Sequence

from exmed_bert.cohorts.labeled import VALIDATION
from exmed_bert.evaluation import differences
from exmed_bert.evaluation.attainable import MEASURED
from exmed_bert.evaluation.differences import Judged
from exmed_bert.evaluation.explain import TOLERANCE
from exmed_bert.evaluation.flow import flow_of
from exmed_bert.evaluation.formatting import estimate_cell, format_estimate, format_number
from exmed_bert.evaluation.groups import LEAST_EVENTS
from exmed_bert.evaluation.metrics import BINS, METRICS
from exmed_bert.evaluation.results import ModelResults, Reported, Results
from exmed_bert.evaluation.tripod import reporting_section
from exmed_bert.reporting.content import Cell, Interval, ReportSection, Table, capital
from exmed_bert.reporting.small_cells import number_of

_JUDGED = ("auroc", "auprc", "brier")
_SHOWN = ("auroc", "auprc", "calibration_slope", "calibration_intercept", "calibration_error", "brier")
_IN_SUBGROUPS = ("auroc", "auprc", "brier", "calibration_intercept", "calibration_error")
_CODES = 50  # rows of attributions


def lead(results: Results) -> str:
    """Return what was found, in a sentence."""
    first, test = results.models[0], results.splits[-1]
    of_whom = f"{test.patients:,} test patients, {test.events:,} with the outcome"
    auroc = first.metrics.get("auroc")
    if auroc is None:
        known = "with one class alone there is no ranking to measure" if first.metrics else "so few are not measured"
        return f"{capital(of_whom)}: {known}."
    ranked = [one for one in _judged(results) if one.difference.metric == "auroc"]
    ending = differences.compared(ranked, _labels(results))
    return f"{capital(first.label)} reaches an AUROC of {format_estimate(auroc)} on {of_whom}{ending}."


def notes(results: Results) -> list[str]:
    """Return what a reader has to know before the rest."""
    few = differences.banner(results.splits[-1].events) if results.models[0].metrics else []
    return [*few, *results.notes]


def sections(results: Results) -> list[ReportSection]:
    """Return the sections of the report in their order; what there is nothing for is left out."""
    found = [
        cohort(results),
        _metrics(results),
        differences.section(
            results.differences, _judged(results), _labels(results), METRICS.__getitem__, results.resamples
        ),
        _attainable(results),
        _discrimination(results),
        _calibration(results),
        _decision(results),
        _efficiency(results),
        _subgroups(results),
        attributions(results),
        budgets(results),
        reporting_section(results, results.study) if results.study else None,
    ]
    return [section for section in found if section is not None]


def _judged(results: Results) -> list[Judged]:
    shown = [one for one in results.differences if one.metric in _JUDGED]
    return differences.judged(shown, results.splits[-1].events)


def _labels(results: Results) -> dict[str, str]:
    return {model.name: model.label for model in results.models}


def _metrics(results: Results) -> ReportSection | None:
    measured = [key for key in METRICS if any(key in model.metrics for model in results.models)]
    if not measured:
        return None
    shown = [key for key in _SHOWN if key in measured]
    short = [(model.label, *(estimate_cell(model.metrics.get(key)) for key in shown)) for model in results.models]
    rows = [(METRICS[key], *(estimate_cell(model.metrics.get(key)) for model in results.models)) for key in measured]
    return ReportSection(
        "metrics",
        "Discrimination and calibration",
        [
            f"On the test patients. {results.recalibration} "
            "Calibration error and Brier score are best at 0, the slope at 1, the intercept at 0. In parentheses: 95 % "
            f"intervals, percentiles of {results.resamples:,} bootstrap resamples of the patients.",
            *(
                ("Patients whose outcome is known count for those who are censored, in every metric and resample.",)
                if _has_censored(results)
                else ()
            ),
        ],
        tables=[Table(("Model", *(capital(METRICS[key]) for key in shown)), short)],
        notes=[
            f"The calibration error has {BINS} bins of equal numbers. The partial AUROC is standardized: 0.5 by "
            "chance, 1 at best (McClish)."
        ],
        folded=[Table(("Metric", *(model.label for model in results.models)), rows, {0: "text"}, "All metrics")],
    )


def _attainable(results: Results) -> ReportSection | None:
    found = results.attainable
    if found is None:
        return None
    columns = ("Metric", "True risks", *(model.label for model in results.models))
    rows = [
        (
            METRICS[key],
            estimate_cell(found.true[key]),
            *(estimate_cell(found.models[m.name].get(key)) for m in results.models),
        )
        for key in MEASURED
        if key in found.true
    ]
    behind = (estimate_cell(found.behind[model.name], sign=True) for model in results.models)
    rows.append(("AUROC of the true risks minus the model’s", "–", *behind))
    text = [
        "The patients are generated, so the risk that each outcome was drawn with is known. No model does better than "
        "these risks, but by chance: on average over draws of such patients an AUROC of "
        f"{found.expected['auroc']:.3f} and a Brier score of {found.expected['brier']:.3f}. The table has the risks "
        f"and the models on the same {found.patients:,} test patients, {found.events:,} with the outcome.",
    ]
    if number_of(found.others):
        text.append(
            f"The other {found.others:,} test patients, {found.other_events:,} with the outcome, had the condition "
            "before they were first observed and wait for a code to say so. A record cannot tell them, and their risk "
            "is not known. Models predict their codes too, so their risks may be too high beside the true ones."
        )
    return ReportSection("attainable", "Attainable performance", text, tables=[Table(columns, rows, {0: "text"})])


def _discrimination(results: Results) -> ReportSection | None:
    if not _has_curves(results):
        return None
    return ReportSection(
        "discrimination",
        "Discrimination",
        [
            "The ROC curve shows how many patients with the outcome are found at each share of false alarms; the "
            "precision-recall curve how many alarms are right, which says more where the outcome is rare."
        ],
        plots=["roc", "precision_recall"],
    )


def _calibration(results: Results) -> ReportSection | None:
    if not _has_curves(results):
        return None
    rows = [
        (
            model.label,
            f"{model.calibration.temperature:.2f}",
            f"{model.calibration.bias:+.2f}".replace("-", "−"),
            *(format_number(model.uncalibrated.get(key)) for key in ("calibration_slope", "calibration_intercept")),
            format_number(model.uncalibrated.get("calibration_error")),
            estimate_cell(model.metrics.get("calibration_error")),
            f"{model.by_chance:.3f}",
        )
        for model in results.models
    ]
    columns = (
        "Model",
        "Temperature",
        "Bias",
        "Slope before",
        "Intercept before",
        "Error before",
        "Error after",
        "By chance",
    )
    return ReportSection(
        "calibration",
        "Calibration",
        [
            f"Of the patients with a predicted risk of 20 %, does a fifth have the outcome? {results.recalibration}",
            "“By chance” is the mean error of a model whose probabilities are exactly right, on as many patients: an "
            "error near it is no miscalibration. Resampling adds noise to the error, so its interval lies rather too "
            "high.",
            *(
                (
                    "Some patients are censored, so the observed risk of a group is its cumulative incidence by Aalen "
                    "and Johansen, with death as a competing event: whoever dies first can have no outcome anymore.",
                )
                if _has_censored(results)
                else ()
            ),
        ],
        plots=["calibration"],
        tables=[Table(columns, rows)],
    )


def _decision(results: Results) -> ReportSection | None:
    if not _has_curves(results):
        return None
    return ReportSection(
        "decision",
        "Clinical utility (decision curve)",
        [
            "Treating every patient whose risk is at least 10 % accepts nine false alarms for one that is right. The "
            "net benefit is the share of patients with a right alarm, less the share with a false one at that price. "
            "A model is useful at the thresholds where its curve lies above both treating all and treating none "
            "(Vickers and Elkin)."
        ],
        plots=["decision_curve"],
    )


def efficiency(
    points: Sequence[tuple[str, int, int, float]], labels: Mapping[str, str], metric: str, plots: Sequence[str] = ()
) -> ReportSection | None:
    """Return the table of a label-efficiency curve.

    Args:
        points: model, number of patients with a label, seed and metric of each training.
        labels: names for people by model.
        metric: its name, as a sentence begins with it.
        plots: names of those that stand beside it.
    """
    if not points:
        return None
    sizes = sorted({size for _, size, _, _ in points})
    rows = []
    for name in dict.fromkeys(model for model, *_ in points):
        cells: list[Cell] = []
        for size in sizes:
            values = [value for model, number, _, value in points if (model, number) == (name, size)]
            mean = sum(values) / max(len(values), 1)
            if len(values) > 1:
                cells.append(Interval(f"{mean:.3f}", f"{min(values):.3f} to {max(values):.3f}"))
            else:
                cells.append(f"{mean:.3f}" if values else "–")
        rows.append((labels.get(name, name), *cells))
    seeds = len({seed for _, _, seed, _ in points})
    text = f"{metric} on the test patients by number of patients with a label, to train and validate on" + (
        f": the mean over {seeds} seeds, in parentheses the lowest and the highest." if seeds > 1 else "."
    )
    columns = ("Labels", *(f"{size:,}" for size in sizes))
    return ReportSection("label_efficiency", "Label efficiency", [text], plots=plots, tables=[Table(columns, rows)])


def _efficiency(results: Results) -> ReportSection | None:
    points = [(point.model, point.labels, point.seed, point.auroc) for point in results.label_efficiency]
    return efficiency(points, {model.name: model.label for model in results.models}, "AUROC", ["label_efficiency"])


def _subgroups(results: Results) -> ReportSection | None:
    if not results.models[0].groups:
        return None
    censored = _has_censored(results)

    def table(model: ModelResults, caption: str = "") -> Table:
        rows = [
            (
                group.kind,
                group.name,
                f"{group.patients:,}",
                f"{group.events:,}",
                *((f"{group.censored:,}",) if censored else ()),
                *(estimate_cell(group.metrics.get(key)) for key in _IN_SUBGROUPS),
            )
            for group in model.groups
        ]
        counted = ("Patients", "Events", *(("Censored",) if censored else ()))
        columns = ("By", "Subgroup", *counted, *(METRICS[key] for key in _IN_SUBGROUPS))
        return Table(columns, rows, {0: "word", 1: "word"}, caption)

    first, *others = results.models
    return ReportSection(
        "groups",
        "Subgroups",
        [
            f"{capital(first.label)}, measured within each subgroup. A subgroup with fewer than {LEAST_EVENTS} "
            "patients with or without the outcome shows its counts alone. Age is that at the index date; codes are "
            "those up to it, divided at the terciles of the test patients. results.json has every metric."
        ],
        plots=["groups"],
        tables=[table(first)],
        folded=[table(model, f"{capital(model.label)} by subgroup") for model in others],
    )


def attributions(results: Reported) -> ReportSection | None:
    if not results.attributions:
        return None
    rows = [
        (code.code, f"{code.patients:,}", format_number(code.mean, sign=True), format_number(code.mean_absolute))
        for code in results.attributions[:_CODES]
    ]
    columns = ("Code", "Patients with it", "Mean", "Mean absolute")
    return ReportSection(
        "attributions",
        "Attributions",
        [
            f"What a code adds to the {results.explained} of the outcome: integrated gradients from a history without "
            "codes to the patient's own, summed over the code's occurrences. The attributions of a patient add up to "
            f"the difference in {results.explained} within {100 * TOLERANCE:g} %. They say what the model uses, not "
            "what causes the outcome."
        ],
        plots=["attributions"],
        folded=[Table(columns, rows, {0: "code"}, f"The first {len(rows)} codes" if len(rows) > 1 else "The code")],
    )


def cohort(results: Reported) -> ReportSection:
    steps = [(name, f"{count:,}") for name, count in results.attrition]
    attrition = Table(("Attrition", "Patients"), steps, {0: "text"}, "Attrition with all reasons")
    censored = _has_censored(results)
    splits = [
        (
            split.split,
            f"{split.patients:,}",
            f"{split.events:,}",
            *((f"{split.censored:,}",) if censored else ()),
            split.share,
        )
        for split in results.splits
    ]
    columns = ("Split", "Patients", "With the outcome", *(("Censored", "Risk") if censored else ("Share",)))
    return ReportSection(
        "cohort",
        "Cohort and events",
        flow=flow_of(results.attrition, results.splits),
        tables=[Table(columns, splits)],
        folded=[attrition] if steps else [],
    )


def budgets(results: Reported) -> ReportSection:
    rows = [(model.label, model.budget or "–") for model in results.models]
    return ReportSection(
        "budgets",
        "Training and tuning budget",
        ["All models were tuned on the same validation patients."]
        * bool(number_of(results.splits[VALIDATION].patients)),
        tables=[Table(("Model", "Budget"), rows, {0: "word", 1: "text"})],
    )


def _has_censored(results: Reported) -> bool:
    return any(number_of(split.censored) for split in results.splits)


def _has_curves(results: Results) -> bool:
    return any(model.series is not None for model in results.models)
