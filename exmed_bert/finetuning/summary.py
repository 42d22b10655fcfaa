"""What fine-tuning prints: the cohort before, the results after."""

from typing import Any

from exmed_bert import console
from exmed_bert.cohorts.labeled import TEST, Cohort
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.data.reading_report import date_rows
from exmed_bert.evaluation.assemble import split_counts
from exmed_bert.evaluation.over_time_results import ModelOverTime, OverTimeResults
from exmed_bert.evaluation.results import Results
from exmed_bert.evaluation.small_cells import told_attrition, told_splits
from exmed_bert.finetuning.outcome_model import Pretrained
from exmed_bert.finetuning.predictions import PREDICTIONS
from exmed_bert.reporting.small_cells import number_of
from exmed_bert.settings import FinetuneSettings, listed
from exmed_bert.training.metrics_writer import FINETUNING
from exmed_bert.training.tracking import viewers


def print_cohort(settings: FinetuneSettings, cohort: Cohort, pretrained: Pretrained, source: PatientInput) -> None:
    """Print the attrition, the splits, what was implausible, and how many codes are new to the model."""
    patients = cohort.patients
    rows: list[tuple[str, Any]] = [*told_attrition(cohort.attrition, cohort.cells)]
    rows += date_rows(source.summary, settings.keep_implausible_dates, cohort.cells)
    for split in told_splits(split_counts(patients), cohort.cells, cohort.attrition):
        censored = f", {split.censored:,} censored" if number_of(split.censored) else ""
        rows.append((f"  {split.split}", f"{split.patients:,}, {split.events:,} with the outcome{censored}"))
    console.table(f"Cohort of {listed(settings.input)}", rows + new_codes(pretrained.new, pretrained.estimated))


def new_codes(new: int, estimated: int) -> list[tuple[str, Any]]:
    """Return rows that count the codes that a model never saw, and those of them with relatives to start from."""
    if not new:
        return []
    return [("codes that the model never saw", new), ("  of them with relatives to start from", estimated)]


def print_summary(settings: FinetuneSettings, results: Results | OverTimeResults) -> None:
    """Print the AUROC or the concordance of each model, and where everything is."""
    rows = []
    over_time = isinstance(results, OverTimeResults)
    metric = "concordance" if over_time else "AUROC"
    for model in results.models:
        found = model.concordance if isinstance(model, ModelOverTime) else model.metrics.get("auroc")
        if found is None:
            rows.append((model.label, "too few patients with the outcome, or without it, for metrics to be shown"))
            continue
        interval = "" if found.low is None else f" ({found.low:.4f} to {found.high:.4f})"
        rows.append((model.label, f"{metric} {found.value:.4f}{interval}"))
    if (best := results.attainable) is not None:
        first, key = results.models[0], metric if over_time else "auroc"
        own = best.models[first.name].get(key)
        there = "" if own is None else f"; {first.label} {own.value:.4f} there"
        rows.append(("true risks", f"{metric} {best.true[key].value:.4f} of {best.patients:,} at risk{there}"))
    console.table(f"{results.title}: {results.splits[TEST].patients:,} test patients", rows)
    folder = settings.output_dir
    console.table(
        "Written",
        [
            ("report", folder / "report.html"),
            ("results", folder / "results.json"),
            ("predictions", folder / PREDICTIONS),
            ("model", folder),
            *viewers(folder, FINETUNING),
        ],
    )
