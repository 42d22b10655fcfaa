"""The end of fine-tuning: scores become figures, the model and its predictions are written, the user is told."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from exmed_bert import console
from exmed_bert.cohorts.cohort import Cohort, FirstOccurrence, ModelInput, Task, subset
from exmed_bert.cohorts.collator import LabeledRows
from exmed_bert.cohorts.labeled import SPLITS, TEST, LabeledPatients
from exmed_bert.config import FinetuneSettings
from exmed_bert.evaluation import baselines
from exmed_bert.evaluation.assemble import ModelScores, assemble
from exmed_bert.evaluation.metrics import Predictions, sigmoid
from exmed_bert.evaluation.results import CurvePoint, Results
from exmed_bert.evaluation.results_page import write_report
from exmed_bert.files import atomic_write, write_json
from exmed_bert.finetuning.explanations import explain
from exmed_bert.finetuning.outcome_model import predict
from exmed_bert.finetuning.plan import Subset, draw_subset
from exmed_bert.finetuning.runs import Experiment, Finished, Run, load_best
from exmed_bert.models import ExMedBertForSequenceClassification
from exmed_bert.training.tracking import LOGGER

FINETUNING = "finetuning.json"  # beside the model: what it predicts, and how its logits become probabilities
LABELS = {"fine-tuned": "ExMed-BERT", "scratch": "ExMed-BERT from scratch"}


def print_cohort(settings: FinetuneSettings, cohort: Cohort, experiment: Experiment) -> None:
    """Print the attrition from all patients to those that are left, and the splits."""
    patients = cohort.patients
    rows: list[tuple[str, Any]] = list(cohort.attrition)
    for number, name in enumerate(SPLITS):
        own = patients.rows(number)
        rows.append((f"  {name}", f"{len(own):,}, {int(patients.labels[own].sum()):,} with the outcome"))
    if experiment.pretrained.new:
        rows.append(("codes that the model never saw", experiment.pretrained.new))
        rows.append(("  of them with relatives to start from", experiment.pretrained.estimated))
    console.table(f"Cohort of {settings.input}", rows)


def evaluate_and_write(
    experiment: Experiment,
    cohort: Cohort,
    form: ModelInput,
    task: Task,
    done: Mapping[Run, Finished],
    compared: Sequence[str],
) -> None:
    """Fit the baselines, measure everything on the test patients, and write model, results and predictions."""
    settings, patients = experiment.settings, cohort.patients
    main = next(iter(done))
    part = draw_subset(patients, main.size, main.seed)
    model = load_best(done[main], experiment)
    everyone = np.arange(len(patients))
    logits = predict(model, LabeledRows(patients, everyone), experiment.collator, settings.eval_batch_size)

    names = [name for name in compared if name in baselines.BASELINES]
    fitted: dict[Run, baselines.BaselineResult] = {}
    for one in dict.fromkeys(replace(run, kind=name) for run in done for name in names):
        own = draw_subset(patients, one.size, one.seed)
        fitted[one] = baselines.fit(one.kind, patients, own.train, own.validation, one.seed)  # type: ignore[arg-type]

    used = np.sort(np.concatenate((part.train, part.validation, patients.rows(TEST))))
    models = [ModelScores(main.kind, LABELS[main.kind], logits[used], done[main].budget)]
    for name in compared:
        twin = replace(main, kind=name)
        if twin in fitted:
            scores = ModelScores.of_baseline(fitted[twin])
            models.append(replace(scores, logits=scores.logits[used]))
        elif twin in done and twin != main:
            theirs = predict(
                load_best(done[twin], experiment),
                LabeledRows(patients, used),
                experiment.collator,
                settings.eval_batch_size,
            )
            models.append(ModelScores(name, LABELS[name], theirs, done[twin].budget))
    evaluation = assemble(
        subset(patients, used),
        models,
        title=_title(settings),
        facts=_facts(settings, cohort, main),
        cohort=cohort.attrition,
        notes=_notes(form, part, settings),
        curve=_curve(patients, done, fitted),
        attributions=explain(model, experiment, settings.explain, settings.output_dir) if settings.explain else (),
        log_odds_offset=part.log_odds_offset,
        seed=settings.seed,
    )
    calibration = evaluation.results.models[0].calibration
    _write_model(settings.output_dir, model, experiment, task, calibration.temperature, calibration.bias)
    write_predictions(
        settings.output_dir / "predictions.parquet",
        patients,
        calibration.probabilities(logits),
        [SPLITS[split] for split in patients.splits],
        patients.labels,
    )
    write_report(settings.output_dir, evaluation.results)
    _print_summary(settings, evaluation.results)


def write_predictions(
    path: Path,
    patients: LabeledPatients,
    probabilities: np.ndarray,
    splits: Sequence[str] | None,
    labels: np.ndarray | None,
) -> None:
    """Write patient_id, index_date and probability of N patients, label and split where there are such, as Parquet."""
    import pyarrow
    import pyarrow.parquet

    ids = [patients.dataset.patient_id(row) for row in range(len(patients))]
    columns: dict[str, Any] = {
        "patient_id": ids if all(type(i) is int for i in ids) else [str(i) for i in ids],
        "index_date": pyarrow.array(patients.index_days, type=pyarrow.int32()).cast(pyarrow.date32()),
    }
    if labels is not None:
        columns["label"] = labels
    columns["probability"] = probabilities
    if splits is not None:
        columns["split"] = list(splits)
    with atomic_write(path) as part:
        pyarrow.parquet.write_table(pyarrow.table(columns), part)


def _curve(
    patients: LabeledPatients, done: Mapping[Run, Finished], fitted: Mapping[Run, baselines.BaselineResult]
) -> list[CurvePoint]:
    """Return the test AUROC of every run, where there is more than one number of labels or one seed."""
    if len({(run.size, run.seed) for run in done}) == 1:
        return []
    test = patients.rows(TEST)
    labels = patients.labels[test]
    points = []
    for run, found in done.items():
        points.append(CurvePoint(LABELS[run.kind], found.labels, run.seed, _auroc(labels, sigmoid(found.logits))))
    for run, fit in fitted.items():
        count = len(draw_subset(patients, run.size, run.seed).train)
        points.append(CurvePoint(baselines.LABELS[run.kind], count, run.seed, _auroc(labels, fit.probabilities[test])))
    return points


def _auroc(labels: np.ndarray, probabilities: np.ndarray) -> float:
    return Predictions(labels, probabilities).measure()["auroc"]


def _title(settings: FinetuneSettings) -> str:
    if settings.task == "plos":
        return "Prolonged length of stay"
    if settings.labels is not None:
        return f"Outcome of {settings.labels.name}"
    return f"First occurrence of {settings.endpoint} within {settings.horizon_days} days"


def _facts(settings: FinetuneSettings, cohort: Cohort, main: Run) -> list[tuple[str, str]]:
    facts = [("patients", str(settings.input)), ("pretrained model", str(settings.model_dir))]
    if settings.endpoint is not None:
        facts += [
            ("index date", settings.index_date or "last-visit-before"),
            ("washout", f"{settings.gap_days} days"),
        ]
    facts += [("head", settings.head), ("seed", str(main.seed))]
    if cohort.new_codes:
        facts.append(("codes that the model never saw", f"{len(cohort.new_codes):,}"))
    return facts


def _notes(form: ModelInput, part: Subset, settings: FinetuneSettings) -> list[str]:
    notes = []
    if form.pretraining is None:
        notes.append(
            "Whom the pretraining was trained on is unknown. It may have seen the futures of test patients, so the "
            "figures of the fine-tuned model may be too good."
        )
    else:
        notes.append("Validation and test patients are among those that the pretraining never trained on.")
    if settings.endpoint is not None and form.pretraining is not None:
        notes.append(
            "The pretraining saw the whole histories of the training patients, so the endpoint's codes among them, "
            "whether or not a label was given."
        )
    if part.log_odds_offset:
        notes.append(
            "Training and validation patients were sampled so that a tenth have the outcome; what that adds to the log "
            f"odds, {part.log_odds_offset:.2f}, is taken off all models' predictions."
        )
    return notes


def _write_model(
    folder: Path,
    model: ExMedBertForSequenceClassification,
    experiment: Experiment,
    task: Task,
    temperature: float,
    bias: float,
) -> None:
    staged = folder / ".model-being-written"
    model.save_pretrained(staged)
    for file in staged.iterdir():
        os.replace(file, folder / file.name)
    staged.rmdir()
    write_json(folder / "vocab.json", experiment.pretrained.vocabulary.to_dict())
    settings = experiment.settings
    codes = sorted(f"{s.upper()}:{c}" for s, c in task.endpoint.found) if isinstance(task, FirstOccurrence) else []
    write_json(
        folder / FINETUNING,
        {
            "title": _title(settings),
            "task": settings.task,
            "endpoint": codes,
            "horizon_days": settings.horizon_days if codes else None,
            "gap_days": settings.gap_days if codes else None,
            "index_date": (settings.index_date or "last-visit-before") if codes else None,
            "min_history": settings.min_history,
            "max_length": experiment.patients.dataset.info.max_length,
            "age_unit": experiment.patients.dataset.info.age_unit,
            "temperature": temperature,
            "bias": bias,
        },
    )


def _print_summary(settings: FinetuneSettings, results: Results) -> None:
    rows = []
    for model in results.models:
        figure = model.metrics["auroc"]
        rows.append((model.label, f"AUROC {figure.value:.4f} ({figure.low:.4f} to {figure.high:.4f})"))
    console.table(f"{results.title}: {results.splits[TEST].patients:,} test patients", rows)
    console.table(
        "Written",
        [
            ("report", settings.output_dir / "report.html"),
            ("figures", settings.output_dir / "results.json"),
            ("predictions", settings.output_dir / "predictions.parquet"),
            ("model", settings.output_dir),
            ("TensorBoard", f"tensorboard --logdir {settings.output_dir / 'logs'}"),
        ],
    )
    LOGGER.info("finished")
