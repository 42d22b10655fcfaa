"""The words and tables of an evaluation, from `Results` to parts that the page and results.md show alike."""

from exmed_bert.evaluation.bootstrap import Estimate
from exmed_bert.evaluation.explain import TOLERANCE
from exmed_bert.evaluation.groups import LEAST_EVENTS
from exmed_bert.evaluation.metrics import BINS, LOWER_IS_BETTER, METRICS
from exmed_bert.evaluation.parts import Part, Table, shown
from exmed_bert.evaluation.results import Difference, ModelResults, Results

BETTER, WORSE, UNCLEAR = "better", "worse", "no clear difference"

_IN_GROUPS = ("auroc", "auprc", "brier", "calibration_intercept", "calibration_error")
_CODES = 50  # rows of attributions


def parts(results: Results) -> list[Part]:
    """Return the parts of the report in their order; what there is nothing for is left out."""
    found = [
        _headline(results),
        _figures(results),
        _discrimination(results),
        _calibration(results),
        _decision(results),
        _efficiency(results),
        _groups(results),
        _attributions(results),
        _cohort(results),
        _budgets(results),
    ]
    return [part for part in found if part is not None]


def verdict(difference: Difference) -> str:
    """Return what the interval of a difference says of the first model."""
    found = difference.difference
    if not found.excludes_zero:
        return UNCLEAR
    return BETTER if (found.value > 0) != (difference.metric in LOWER_IS_BETTER) else WORSE


def _headline(results: Results) -> Part:
    first, test = results.models[0], results.splits[-1]
    auroc, auprc = first.metrics.get("auroc"), first.metrics.get("auprc")
    text = [
        f"Of {test.patients:,} test patients {test.events:,} have the outcome, {_percent(test.events, test.patients)}. "
        + (
            f"{_capital(first.label)}: AUROC {shown(auroc)}, AUPRC {shown(auprc)}."
            if auroc
            else "With one class alone no ranking can be measured."
        ),
        f"In parentheses stand 95 % intervals: percentiles of {results.resamples:,} bootstrap resamples of the "
        "patients. Differences are taken on the same resamples; the verdict is that of the interval.",
    ]
    names = {model.name: model.label for model in results.models}
    rows = [
        (names[d.theirs], METRICS[d.metric], shown(d.difference, sign=True), verdict(d)) for d in results.differences
    ]
    short = [row for row in rows if row[1] in (METRICS["auroc"], METRICS["auprc"], METRICS["brier"])]
    columns = ("Against", "Estimate", f"{_capital(first.label)} minus the other", "Verdict")
    return Part(
        "headline",
        "What came out",
        text,
        tables=[Table(columns, short, (0, 1, 3))] if short else [],
        folded=[("Differences in all figures", Table(columns, rows, (0, 1, 3)))] if len(rows) > len(short) else [],
    )


def _figures(results: Results) -> Part:
    rows = [
        (name, *(shown(model.metrics.get(key)) for model in results.models))
        for key, name in METRICS.items()
        if any(key in model.metrics for model in results.models)
    ]
    return Part(
        "figures",
        "All figures",
        [
            "On the test patients, after every model was recalibrated on the validation patients in the same way. The "
            "partial AUROC is standardized: 0.5 by chance, 1 at best (McClish). Brier score and calibration error are "
            f"best at 0, the slope at 1, the intercept at 0. The calibration error has {BINS} bins of equal numbers.",
        ],
        tables=[Table(("Estimate", *(model.label for model in results.models)), rows)],
    )


def _discrimination(results: Results) -> Part | None:
    if not _drawn(results):
        return None
    return Part(
        "discrimination",
        "Ranking",
        [
            "First, how many with the outcome are found for a share of false alarms; then, how many alarms are right, "
            "which says more where the outcome is rare."
        ],
        plots=["roc", "precision_recall"],
    )


def _calibration(results: Results) -> Part | None:
    if not _drawn(results):
        return None
    rows = [
        (
            model.label,
            f"{model.calibration.temperature:.2f}",
            f"{model.calibration.bias:+.2f}".replace("-", "−"),
            *(_number(model.before.get(key)) for key in ("calibration_slope", "calibration_intercept")),
            _number(model.before.get("calibration_error")),
            shown(model.metrics.get("calibration_error")),
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
    return Part(
        "calibration",
        "Calibration",
        [
            "Of patients with a predicted 20 %, does a fifth have the outcome? Logits are divided by a temperature and "
            "shifted by a bias, both fitted on the validation patients.",
            "“By chance” is the mean error of a model whose probabilities are exactly right, on as many patients: an "
            "error near it is none. Resampling adds noise to the error, so its interval lies rather too high.",
        ],
        plots=["calibration"],
        tables=[Table(columns, rows)],
    )


def _decision(results: Results) -> Part | None:
    if not _drawn(results):
        return None
    return Part(
        "decision",
        "Is it of use?",
        [
            "Who acts on patients from a probability of 10 % on takes nine false alarms for one that is right. The net "
            "benefit counts the right ones a patient, less the false ones at that price. A model is of use where its "
            "curve is above both acting on all and acting on nobody (Vickers and Elkin)."
        ],
        plots=["decision_curve"],
    )


def _efficiency(results: Results) -> Part | None:
    if not results.curve:
        return None
    names = {model.name: model.label for model in results.models}
    sizes = sorted({point.labels for point in results.curve})
    rows = []
    for name in dict.fromkeys(point.model for point in results.curve):
        cells = []
        for size in sizes:
            values = [p.auroc for p in results.curve if p.model == name and p.labels == size]
            mean = sum(values) / max(len(values), 1)
            spread = f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
            cells.append(f"{mean:.3f}{spread}" if values else "–")
        rows.append((names.get(name, name), *cells))
    seeds = len({point.seed for point in results.curve})
    text = "AUROC on the test patients" + (
        f": the mean over {seeds} seeds, in parentheses the lowest and highest of them." if seeds > 1 else "."
    )
    return Part(
        "efficiency",
        "How many labels it takes",
        [text],
        plots=["label_efficiency"],
        tables=[Table(("Training labels", *(f"{size:,}" for size in sizes)), rows)],
    )


def _groups(results: Results) -> Part | None:
    if not results.models[0].groups:
        return None

    def table(model: ModelResults) -> Table:
        rows = [
            (
                group.kind,
                group.name,
                f"{group.patients:,}",
                f"{group.events:,}",
                *(shown(group.metrics.get(key)) for key in _IN_GROUPS),
            )
            for group in model.groups
        ]
        return Table(("By", "Group", "Patients", "Events", *(METRICS[key] for key in _IN_GROUPS)), rows, (0, 1))

    first, *others = results.models
    return Part(
        "groups",
        "By group of patients",
        [
            f"{_capital(first.label)}, measured within each group. A group with fewer than {LEAST_EVENTS} patients "
            "with or without the outcome shows its counts alone. Age is that at the index date; codes are those up to "
            "it, divided at the terciles of the test patients. results.json holds every figure."
        ],
        plots=["groups"],
        tables=[table(first)],
        folded=[(f"{_capital(model.label)} by group", table(model)) for model in others],
    )


def _attributions(results: Results) -> Part | None:
    if not results.attributions:
        return None
    rows = [
        (code.code, f"{code.patients:,}", _number(code.mean, sign=True), _number(code.mean_absolute))
        for code in results.attributions[:_CODES]
    ]
    return Part(
        "attributions",
        "Why",
        [
            "What a code adds to the log odds of the outcome: integrated gradients from a history without codes to the "
            "patient's own, summed over the code's occurrences. The attributions of a patient add up to the difference "
            f"in logit within {100 * TOLERANCE:g} %. They say what the model uses, not what causes the outcome."
        ],
        plots=["attributions"],
        folded=[
            (f"The first {len(rows)} codes", Table(("Code", "Patients with it", "Mean", "Mean size"), rows)),
        ],
    )


def _cohort(results: Results) -> Part:
    tables = []
    if results.cohort:
        tables.append(Table(("Patients", "Number"), [(name, f"{count:,}") for name, count in results.cohort]))
    splits = [
        (split.split, f"{split.patients:,}", f"{split.events:,}", _percent(split.events, split.patients))
        for split in results.splits
    ]
    tables.append(Table(("Split", "Patients", "With the outcome", "Share"), splits))
    return Part("cohort", "Who was studied", [], tables=tables)


def _budgets(results: Results) -> Part:
    rows = [(model.label, model.budget or "–") for model in results.models]
    return Part(
        "budgets",
        "What was spent",
        ["Training and search of each model. All were tuned on the same validation patients."],
        tables=[Table(("Model", "Budget"), rows, (0, 1))],
    )


def _drawn(results: Results) -> bool:
    return any(model.series is not None for model in results.models)


def _number(value: float | None, sign: bool = False) -> str:
    return shown(None if value is None else Estimate(value), sign)


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


def _capital(text: str) -> str:
    """Return the text with its first letter as a capital and the others as they are."""
    return text[:1].upper() + text[1:]
