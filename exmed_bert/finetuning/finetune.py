"""Fine-tuning of a pretrained ExMed-BERT to a task, and its comparison with baselines."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from transformers import logging as transformers_logging

from exmed_bert import __version__, console
from exmed_bert.cohorts.cohort import build
from exmed_bert.cohorts.labeled import SPLITS, TRAIN, Cohort
from exmed_bert.cohorts.model_input import ModelInput
from exmed_bert.cohorts.tasks.base import LabelType, Task
from exmed_bert.cohorts.tasks.registry import requested_task
from exmed_bert.cohorts.tasks.time_to_event import TimeToEvent
from exmed_bert.config import Resolved
from exmed_bert.console import InputError
from exmed_bert.data.implausible_dates import AFTER_TODAY
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.data.readers.source import Source
from exmed_bert.data.reading_report import reading_facts
from exmed_bert.evaluation.follow_up import FollowUp
from exmed_bert.evaluation.groups import censoring_strata
from exmed_bert.finetuning.censored import horizon_outcome, weighted
from exmed_bert.finetuning.hazards import TimeToEventObjective
from exmed_bert.finetuning.objective import Objective, OutcomeByHorizon
from exmed_bert.finetuning.options import SCRATCH, baseline_names, check, train_sizes
from exmed_bert.finetuning.outcome_model import extend_vocabulary
from exmed_bert.finetuning.over_time import evaluate_over_time
from exmed_bert.finetuning.predict_only import predict_only
from exmed_bert.finetuning.prompt import Prompt, prompt_collator
from exmed_bert.finetuning.results import OBSOLETE, evaluate, write
from exmed_bert.finetuning.runs import Experiment, Finished, Run, train_one
from exmed_bert.finetuning.summary import print_cohort, print_summary
from exmed_bert.models import ExMedBertForMaskedLM
from exmed_bert.models.folder import check_fit, is_of_other_input, read_pretrained, weight_files
from exmed_bert.settings import FinetuneSettings, listed
from exmed_bert.staging import staged_files
from exmed_bert.startup import called
from exmed_bert.training.failures import failures_explained
from exmed_bert.training.hardware import StepShape, choose_attention, choose_precision, hardware_settings
from exmed_bert.training.metrics_writer import FINETUNING, MetricsWriter, TrackedDataset, signature_of
from exmed_bert.training.run_folder import SETTINGS, RunFolder, locked, open_run, run_identity
from exmed_bert.training.tracking import LOGGER, log, open_log

# What changes no weights: a run keeps its identity when these change, and does only what is still to be done.
_NOT_IDENTITY = {"input", "output_dir", "model_dir", "labels", "endpoints", "eval_batch_size", "overwrite", "report_to"}
_ADDED = {"train_sizes", "seeds", "baselines", "explain", "min_cell", "horizons"}


@failures_explained()
def run(resolved: Resolved[FinetuneSettings]) -> None:
    """Fine-tune and evaluate, or go on where a killed run stopped; or predict with a fine-tuned model.

    Raises:
        InputError, OptionError: settings, files and model do not fit, no patient is left to learn from, or another
            process is writing the folder.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    settings = resolved.settings
    check(settings)
    with locked((settings.output_dir,), called("finetune")):
        if settings.predict_only:
            predict_only(settings)
        else:
            _finetune(resolved)


def _finetune(resolved: Resolved[FinetuneSettings]) -> None:
    settings = resolved.settings
    task = requested_task(settings)
    over_time = task.label_type == LabelType.TIME_TO_EVENT
    sizes, compared = train_sizes(settings.train_sizes), baseline_names(settings.baselines, over_time)
    model, form = read_pretrained(settings.model_dir)
    otherwise = "take another model"
    check_fit(settings.model_dir, model.config, form.age_unit, form.static_columns, form.max_length, otherwise)
    strata = censoring_strata(settings.censoring_strata, form.static_columns)
    source = PatientInput(settings.input, settings, form.static_columns)
    cohort = build(source, task, form, settings.min_history, settings.seed, settings.same_day == "include")
    task.check(source, cohort)
    check_splits(settings, cohort, over_time)
    outcome = horizon_outcome(cohort.patients, task, strata)
    cohort = replace(cohort, patients=weighted(cohort.patients, outcome, strata))

    identity = _identity(settings, task, source)
    folder = open_run(settings.output_dir, settings.output_dir, identity, 1, settings.overwrite)
    wanted = settings.model_dump(mode="json", include=_ADDED)
    if folder.state == "finished" and folder.manifest.get("added") == wanted:
        console.echo(
            f"{settings.output_dir} already holds this run: nothing to do.\n"
            "More --train-sizes, --seeds, --baselines or --explain are added to it, and with another --min-cell the "
            "results are written again; --overwrite trains anew."
        )
        return
    if not folder.has_results:
        resolved.save(settings.output_dir / SETTINGS, reading=reading_facts(source))
    open_log(settings.output_dir / "output.log")
    LOGGER.info(resolved.source)
    experiment, notes = make_experiment(settings, cohort, task, form, model)
    shape = step_shape(settings, cohort, model)
    with (
        _reports(settings, folder, experiment, cohort) as writer,
        hardware_settings(shape, experiment.precision) as hardware_notes,
    ):
        print_cohort(settings, cohort, experiment.pretrained, source)
        if is_of_other_input(settings.model_dir, cohort.patients.dataset.info.input_fingerprint):
            log(
                f"Note: {settings.model_dir} was pretrained on another input than {listed(settings.input)} holds now. "
                "If it was meant to be the same, convert that and pretrain again."
            )
        for note in notes + hardware_notes:
            log(f"  {note}")
        runs: dict[Run, Finished] = {}
        for one in planned(settings, sizes, SCRATCH in compared):
            prefix = f"{one.name}/" if runs else ""
            runs[one] = train_one(one, experiment, settings.output_dir / "runs" / one.name, writer, prefix)
        if isinstance(task, TimeToEvent):
            evaluated = evaluate_over_time(experiment, cohort, form, task, runs, compared, strata)
        else:
            evaluated = evaluate(experiment, cohort, form, task, runs, compared, outcome)
        with staged_files(settings.output_dir, obsolete=OBSOLETE) as staged:
            write(staged, evaluated, experiment, cohort, task)
            resolved.save(staged / SETTINGS, reading=reading_facts(source))
            folder.remember(staged, finished_steps=1, added=wanted)
        print_summary(settings, evaluated.results)
        LOGGER.info("finished")


def planned(settings: FinetuneSettings, sizes: list[int | None], scratch: bool) -> list[Run]:
    """Return the runs in order, the one whose model is kept first: the largest number of labels, the first seed."""
    kinds = [SCRATCH] if settings.from_scratch else ["fine-tuned", *([SCRATCH] if scratch else [])]
    seeds = range(settings.seed, settings.seed + settings.seeds)
    runs = [Run(kind, size, seed) for size in reversed(sizes) for seed in seeds for kind in kinds]
    return runs


def check_splits(settings: FinetuneSettings, cohort: Cohort, over_time: bool) -> None:
    """Raise an InputError where a split is empty or of one class; over time, the censored are without the outcome."""
    patients = cohort.patients
    for number, name in enumerate(SPLITS):
        rows = patients.rows(number) if over_time else patients.known_rows(number)
        events, censored = int((patients.labels[rows] == 1).sum()), len(patients.rows(number)) - len(rows)
        if over_time and not 0 < events < len(rows):
            raise InputError(
                f"{listed(settings.input)}: the outcome is seen of {events:,} of {len(rows):,} {name} patients, "
                "expected some with it and some without; use more patients or a wider --endpoint"
            )
        if not 0 < events < len(rows):
            without = f" who are not censored ({censored:,} are)" if censored else ""
            raise InputError(
                f"{listed(settings.input)}: {events:,} of {len(rows):,} {name} patients{without} have the outcome, "
                f"expected some with it and some without; use more patients, a wider --endpoint or a "
                f"{'shorter or ' if censored else ''}longer --horizon-days"
            )


def step_shape(settings: FinetuneSettings, cohort: Cohort, model: ExMedBertForMaskedLM) -> StepShape:
    """Return what decides which way through a step is fastest."""
    codes = settings.train_batch_size * float(cohort.patients.dataset.lengths.mean())
    return StepShape(round(codes), model.config.hidden_size, model.config.intermediate_size)


def make_experiment(
    settings: FinetuneSettings, cohort: Cohort, task: Task, form: ModelInput, model: ExMedBertForMaskedLM
) -> tuple[Experiment, list[str]]:
    """Return what all runs share, and notes for the log."""
    pretrained = extend_vocabulary(model, form.vocabulary, cohort.patients.dataset.info.vocabulary, settings.seed)
    config = pretrained.model.config
    prompt = Prompt.of(task, config, pretrained.vocabulary) if settings.prompt else Prompt([])
    shape = step_shape(settings, cohort, model)
    precision = choose_precision(settings.precision, shape)
    attention = choose_attention(model.config, precision.name)
    experiment = Experiment(
        settings=settings,
        patients=cohort.patients,
        pretrained=pretrained,
        prompt=prompt,
        collator=prompt_collator(config, pretrained.vocabulary, prompt.targets),
        objective=objective_of(task, cohort, settings),
        precision=precision.name,
        attention=attention.name,
    )
    notes = [f"precision: {precision.name}, {precision.reason}", f"attention: {attention.name}, {attention.reason}"]
    return experiment, notes


def objective_of(task: Task, cohort: Cohort, settings: FinetuneSettings) -> Objective:
    """Return what is learned of a task's labels."""
    patients = cohort.patients
    if not isinstance(task, TimeToEvent):
        return OutcomeByHorizon(patients, settings)
    follow_up = FollowUp.of(patients.timeline, patients.index_days)
    return TimeToEventObjective(patients, follow_up, patients.rows(TRAIN), task.gap, task.horizons[-1], settings)


def _identity(settings: FinetuneSettings, task: Task, source: PatientInput) -> dict[str, Any]:
    """Return what decides the weights; the day of the reading does where events are dropped for being after it."""
    files = {"input": Source.at(settings.input).files, "model": weight_files(settings.model_dir)}
    after_today = {
        f"events {reason.split(',')[0]}": count
        for reason, count in source.summary.implausible_events.items()
        if reason.startswith(AFTER_TODAY)
    }
    return run_identity(settings, _NOT_IDENTITY | _ADDED, files, task.identity() | after_today)


@contextlib.contextmanager
def _reports(
    settings: FinetuneSettings, folder: RunFolder, experiment: Experiment, cohort: Cohort
) -> Iterator[Callable[[], MetricsWriter]]:
    """Yield a function that opens TensorBoard and MLflow, once, when the first run calls it."""
    with contextlib.ExitStack() as stack:
        opened: list[MetricsWriter] = []

        def writer() -> MetricsWriter:
            if not opened:
                key = folder.mlflow_key()
                opened.append(
                    stack.enter_context(
                        MetricsWriter(settings.output_dir, settings.output_dir.name, key, 0, FINETUNING)
                    )
                )
                opened[0].parameters(settings.model_dump(mode="json"))
                _describe(opened[0], settings, cohort)
            return opened[0]

        yield writer
        if opened:
            one = experiment.collator(experiment.rows(np.arange(1)).batch(range(1)))
            opened[0].model(settings.output_dir, signature_of(one, {"logits": [-1, -1]}))


def _describe(writer: MetricsWriter, settings: FinetuneSettings, cohort: Cohort) -> None:
    """Tell MLflow what is trained on what: counts as they may be told, and digests."""
    digest, patients = cohort.patients.dataset.info.input_fingerprint, cohort.cells.show(len(cohort.patients))
    tags = {"step": "fine-tuning", "version": __version__, "input": digest, "generated": str(cohort.generated).lower()}
    facts, source = {"patients": patients}, listed(settings.input)
    writer.describe(tags, [TrackedDataset(settings.input[0].name, digest, source, facts, "training")])
