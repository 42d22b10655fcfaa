"""Step 3: pretrain ExMed-BERT on the datasets of step 2."""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from transformers import TrainingArguments
from transformers import logging as transformers_logging

from exmed_bert import __version__, console
from exmed_bert.clinvec import report as code_report
from exmed_bert.clinvec.reader import clinvec_folder
from exmed_bert.config import Resolved
from exmed_bert.console import InputError, OptionError
from exmed_bert.data.code_groups import CodeGroups
from exmed_bert.data.dataset import PatientDataset
from exmed_bert.data.shards import deciding_file, open_dataset, patients_in_both, verify
from exmed_bert.data.vocabulary import SPECIAL_TOKENS
from exmed_bert.models.folder import weight_files, write_start_embeddings
from exmed_bert.settings import PretrainSettings, flag
from exmed_bert.staging import staged_files
from exmed_bert.startup import called
from exmed_bert.training.arguments import training_arguments
from exmed_bert.training.failures import failures_explained
from exmed_bert.training.forecast_start import start_forecasts
from exmed_bert.training.hardware import (
    StepShape,
    check_compiler,
    choose_attention,
    choose_precision,
    hardware_settings,
)
from exmed_bert.training.initial_model import InitialModel, new_model
from exmed_bert.training.metrics_writer import MetricsWriter, TrackedDataset, signature_of
from exmed_bert.training.options import check
from exmed_bert.training.other_trackers import tracker_callbacks
from exmed_bert.training.plan import Plan, make_plan
from exmed_bert.training.profiling import ProfileCallback
from exmed_bert.training.results import final_results, print_already_finished, print_summary, write_results
from exmed_bert.training.run_folder import SETTINGS, RunFolder, locked, open_run, run_identity
from exmed_bert.training.tracking import LOGGER, ReportCallback, log, open_log
from exmed_bert.training.trainer import PretrainingTrainer
from exmed_bert.training.unseen import UnseenCodes

WEIGHT_DECAY = 0.01  # the original's
_CHUNK = 10_000  # patients looked at together
EVAL_BATCH = 64  # nothing is kept for a backward pass, so more patients fit than in training

# What changes neither the weights nor the data: a run keeps its identity when these change.
_NOT_IDENTITY = {
    "training_data",
    "validation_data",
    "output_dir",
    "output_data_dir",
    "model_dir",
    "clinvec_dir",
    "eval_batch_size",
    "epochs",
    "max_steps",
    "num_workers",
    "logging_steps",
    "eval_steps",
    "eval_max_patients",
    "save_steps",
    "profile",
    "report_to",
    "overwrite",
}


@failures_explained()
def run(resolved: Resolved[PretrainSettings]) -> None:
    """Pretrain, or go on where a killed run stopped, and leave the model, the metrics and the logs.

    Raises:
        InputError, OptionError: settings and data do not fit, a folder cannot be written, memory or disk is full,
            or another process is writing a folder.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    settings = resolved.settings
    check(settings)
    with locked((settings.output_dir, settings.output_data_dir), called("pretrain")):
        _pretrain(resolved)
    _leave_group()


def _pretrain(resolved: Resolved[PretrainSettings]) -> None:
    settings = resolved.settings
    if settings.clinvec_dir is not None and not settings.use_clinvec:
        console.warn("--clinvec-dir is not used without --use-clinvec")
    train, val = load_datasets(resolved)
    plos = train.has_plos if settings.plos is None else settings.plos
    if plos and not train.has_plos:
        raise InputError(f"{settings.training_data}: --plos: no patient has a recorded length of stay (had_plos)")
    if settings.compile:
        check_compiler()

    initial = new_model(
        settings, train.info, plos, train.code_counts
    )  # before a folder is touched: this checks the sizes
    model, notes = initial.model, initial.notes
    if initial.codes:
        notes += code_report.table(initial.codes, train.code_counts, train.info.cells())
    codes_a_step = round(settings.train_batch_size * float(train.lengths.mean()))
    shape = StepShape(codes_a_step, model.config.hidden_size, model.config.intermediate_size)
    precision = choose_precision(settings.precision, shape)
    attention = choose_attention(model.config, precision.name)
    model.set_attn_implementation(attention.name)
    notes += [f"precision: {precision.name}, {precision.reason}", f"attention: {attention.name}, {attention.reason}"]
    if settings.compile:
        model.bert.encoder.compile(dynamic=True)

    groups = CodeGroups.of(train.info.vocabulary, model.config.forecast_groups)
    if model.config.forecasts_hazards and initial.forecasts_are_new:
        start_forecasts(model, groups, train)
    unseen = None
    if settings.use_hierarchical_init or initial.composed is not None:
        unseen = UnseenCodes(model, train.info.vocabulary.keys, train.code_counts, initial.pretrained)
        place = "relatives initialize them after it" if initial.composed is None else "they are their ancestors' sum"
        notes.append(f"{len(unseen.ids):,} codes occur nowhere in training; {place}")

    args = _training_arguments(settings, precision.name)
    plan = make_plan(settings, len(train), args.world_size)
    _apply_plan(args, plan)
    if plan.warmup_steps >= plan.total_steps and args.should_save:
        console.warn(
            f"--warmup-steps: {plan.warmup_steps:,} of {plan.total_steps:,} steps: the learning rate rises until the "
            "run ends; give fewer, or train longer"
        )
    identity = _identity(settings, plan, plos, args.world_size)
    with args.main_process_first(desc="run folder"):
        folder = open_run(
            settings.output_dir,
            settings.output_data_dir,
            identity,
            plan.total_steps,
            settings.overwrite,
            args.should_save,
        )
    if folder.state == "finished":
        if args.should_save:
            print_already_finished(settings, plan)
        return
    trainer = PretrainingTrainer(
        model, args, train, val, settings.eval_max_patients, unseen, settings.forecast_prob, initial.composed
    )
    with hardware_settings(shape, precision.name) as hardware_notes:
        if args.should_save:
            _write_initial_codes(initial, train, folder, settings)
            _train_and_report(trainer, resolved, folder, plan, notes + hardware_notes)
        else:  # one of several processes: the first one reports
            trainer.train(resume_from_checkpoint=_path(folder.checkpoint))
            trainer.predict_masked_codes()
            trainer.predict_masked_codes(trainer.train_sample, in_training=True)
            trainer.full_state_dict()


def _leave_group() -> None:
    """End the connections to the other processes: gloo's threads can abort a process that exits with them open."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def _write_initial_codes(
    initial: InitialModel, train: PatientDataset, folder: RunFolder, settings: PretrainSettings
) -> None:
    """Write what the codes start from, for looking back at it after training."""
    if folder.first_step == 0:
        with staged_files(settings.output_dir) as staged:
            write_start_embeddings(staged, initial.model.get_input_embeddings().weight)
            if initial.codes:
                novel = set(train.novel_ids.tolist())
                code_report.write(staged, initial.codes, train.code_counts, novel, train.info.cells())


def _train_and_report(
    trainer: PretrainingTrainer, resolved: Resolved[PretrainSettings], folder: RunFolder, plan: Plan, notes: list[str]
) -> None:
    settings = resolved.settings
    if not folder.has_results:
        resolved.save(settings.output_dir / SETTINGS)
    open_log(settings.output_dir / "output.log")
    LOGGER.info(resolved.source)
    for callback in tracker_callbacks(settings.report_to):
        trainer.add_callback(callback)
    if settings.profile:
        trainer.add_callback(ProfileCallback(settings.profile, settings.output_data_dir / "profile"))
    with _open_reports(trainer, settings, folder, plan) as writer:
        _announce_start(trainer, plan, notes, folder)
        start = time.perf_counter()
        trainer.train(resume_from_checkpoint=_path(folder.checkpoint))
        seconds = time.perf_counter() - start
        results = final_results(trainer, plan, folder, seconds)
        writer.add(results, plan.total_steps)
        write_results(trainer, trainer.full_state_dict(), resolved, folder, plan, results)
        inputs = trainer.validation_batch(np.arange(1))
        writer.model(
            settings.output_dir, signature_of(inputs, {"logits": [-1, -1, trainer.model.config.code_vocab_size]})
        )
    print_summary(trainer, settings, results, seconds)


def _path(checkpoint: Path | None) -> str | None:
    return None if checkpoint is None else str(checkpoint)


def load_datasets(resolved: Resolved[PretrainSettings]) -> tuple[PatientDataset, PatientDataset]:
    """Open both datasets and check that they fit each other and the settings.

    Raises:
        InputError: they do not.
    """
    settings = resolved.settings
    train, val = open_dataset(settings.training_data), open_dataset(settings.validation_data)
    if os.environ.get("RANK", "0") == "0":  # one of the processes that torchrun starts looks, and ends them all
        verify(settings.training_data, train)
        verify(settings.validation_data, val)
    for what, in_train, in_val in (
        ("vocabularies", train.info.vocabulary.tokens, val.info.vocabulary.tokens),
        ("max_length", train.info.max_length, val.info.max_length),
        ("age units", train.info.age_unit, val.info.age_unit),
        ("masking", train.info.needed_masking.mode, val.info.needed_masking.mode),
    ):
        if in_train != in_val:
            raise InputError(
                f"{settings.validation_data}: has other {what} than {settings.training_data}; "
                "make both in one conversion (--split all)"
            )
    for path, dataset in ((settings.training_data, train), (settings.validation_data, val)):
        check_maskable(path, dataset)
    if both := patients_in_both(train, val):
        console.warn(f"{both:,} patients are in both datasets; the validation metrics will look better than they are")

    _check_match(resolved, "max_seq_length", train.info.max_length, "max_length", "--max-length {given}")
    mode = train.info.needed_masking.mode == "dynamic"
    _check_match(resolved, "dynamic_masking", mode, "dynamic_masking", "{given}")
    changes: dict[str, Any] = {"seed": settings.seed}
    if settings.max_masked is not None:
        if not mode:
            raise OptionError("--max-masked: the dataset's masks are static; give it to the conversion instead")
        changes["max_masked"] = settings.max_masked
    return train.with_masking(**changes), val


def check_maskable(path: Path, dataset: PatientDataset) -> None:
    """Refuse a dataset in which no patient has two known codes: one to mask and one to predict it from.

    Raises:
        InputError: there is no such patient.
    """
    if len(dataset.info.vocabulary) == len(SPECIAL_TOKENS):
        raise InputError(f"{path}: nothing to mask: its vocabulary holds no code; convert patients with known codes")
    for part in dataset.parts():
        codes, offsets = part.columns["codes"].numpy(), part.columns["offsets"].numpy()
        for first in range(0, len(part), _CHUNK):  # the first decides, but for datasets with hardly a known code
            starts = offsets[first : first + _CHUNK + 1]
            known = np.cumsum(codes[starts[0] : starts[-1]] >= len(SPECIAL_TOKENS))
            before = np.concatenate(([0], known))[starts - starts[0]]
            if (np.diff(before) >= 2).any():
                return
    raise InputError(
        f"{path}: nothing to mask: none of its {len(dataset):,} patients has two known codes; "
        "the conversion's summary says which codes are not known"
    )


def _check_match(resolved: Resolved[PretrainSettings], field: str, in_dataset: Any, name: str, convert: str) -> None:
    """Refuse a flag that differs from the dataset; a value of config.yaml gives way to it, with a warning."""
    given = getattr(resolved.settings, field)
    if given is None or given == in_dataset:
        return

    def spelled(value: Any) -> str:
        return flag(field, value) if isinstance(value, bool) else f"{flag(field)} {value}"

    again = convert.format(given=spelled(given) if isinstance(given, bool) else given)
    data = resolved.settings.training_data
    if resolved.origin[field] == "file":
        console.warn(
            f"{resolved.config} says {name}: {given}, {data} was converted with {in_dataset}; the dataset decides"
        )
        return
    raise InputError(
        f"{name} mismatch error: {spelled(given)} was given, but {data} was converted with {name} {in_dataset}; "
        f"either pass {spelled(in_dataset)}, or convert again with {again}"
    )


def _training_arguments(settings: PretrainSettings, precision: str) -> TrainingArguments:
    return training_arguments(
        settings.output_dir,
        precision,
        settings.seed,
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps if settings.max_steps > 0 else -1,
        per_device_train_batch_size=settings.train_batch_size,
        per_device_eval_batch_size=settings.eval_batch_size or max(settings.train_batch_size, EVAL_BATCH),
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        weight_decay=WEIGHT_DECAY,
        dataloader_num_workers=2 * torch.cuda.is_available() if settings.num_workers is None else settings.num_workers,
    )


def _apply_plan(args: TrainingArguments, plan: Plan) -> None:
    args.learning_rate = plan.learning_rate
    args.warmup_steps = plan.warmup_steps
    args.logging_steps = plan.logging_steps
    args.eval_steps = plan.eval_steps
    args.save_steps = plan.save_steps


def _identity(settings: PretrainSettings, plan: Plan, plos: bool, processes: int) -> dict[str, Any]:
    """Return what decides the weights of a run besides its length."""
    paths = {"training_data": settings.training_data, "validation_data": settings.validation_data}
    files = {name: [deciding_file(path)] for name, path in paths.items()}
    if settings.model_dir is not None:
        files["model_dir"] = weight_files(settings.model_dir)
    if settings.use_clinvec:
        files["clinvec_dir"] = sorted(clinvec_folder(settings).glob("Clin*.csv*"))
    chosen = {"learning_rate": plan.learning_rate, "plos": plos, "processes": processes}
    return run_identity(settings, _NOT_IDENTITY, files, chosen)


def _open_reports(
    trainer: PretrainingTrainer, settings: PretrainSettings, folder: RunFolder, plan: Plan
) -> MetricsWriter:
    key = folder.mlflow_key()
    writer = MetricsWriter(settings.output_data_dir, settings.output_dir.name, key, folder.first_step)
    writer.parameters(settings.model_dump(mode="json") | {f"plan_{k}": v for k, v in vars(plan).items()})
    trainer.add_callback(ReportCallback(writer, "Pretraining", _described))
    _describe(writer, trainer, settings, folder)
    return writer


def _describe(
    writer: MetricsWriter, trainer: PretrainingTrainer, settings: PretrainSettings, folder: RunFolder
) -> None:
    """Tell MLflow what is trained on what: counts as they may be told, and digests."""
    info, config = trainer.train_dataset.info, trainer.model.config
    tags = {
        "step": "pretraining",
        "version": __version__,
        "input": info.input_fingerprint,
        "generated": str(info.generated).lower(),
        "size": f"{config.num_hidden_layers} layers, hidden size {config.hidden_size}",
    }
    datasets = []
    for name, dataset, context in (
        ("training_data", trainer.train_dataset, "training"),
        ("validation_data", trainer.eval_dataset, "validation"),
    ):
        path, told = getattr(settings, name), dataset.info.cells().show(len(dataset))
        facts = {"patients": told, "codes": len(dataset.info.vocabulary), "input": dataset.info.input_fingerprint}
        digest = folder.manifest["identity"][name][0]
        datasets.append(TrackedDataset(path.name, digest, str(path), facts, context))
    writer.describe(tags, datasets)


def _described(metrics: dict[str, float]) -> str:
    return (
        f"validation loss {metrics['eval_loss']:.3f}, accuracy top 1 {metrics.get('eval_accuracy_top1', 0.0):.3f}, "
        f"top 10 {metrics.get('eval_accuracy_top10', 0.0):.3f}"
    )


def _announce_start(trainer: PretrainingTrainer, plan: Plan, notes: list[str], folder: RunFolder) -> None:
    config, train, val = trainer.model.config, trainer.train_dataset, trainer.eval_dataset
    parameters = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    log(
        f"Model: {config.num_hidden_layers} layers, hidden size {config.hidden_size}, {config.num_attention_heads} "
        f"heads, {len(train.info.vocabulary):,} codes, {parameters:,} parameters"
    )
    for note in notes:
        log(f"  {note}")
    sample = len(trainer.eval_sample)
    log(
        f"Data: {len(train):,} patients to train on, {len(val):,} to validate"
        f"{f' ({sample:,} of them during training)' if sample < len(val) else ''}; "
        f"{train.info.needed_masking.mode} masking, at most {train.info.max_length} codes"
    )
    log(
        f"Plan: {plan.total_steps:,} steps, {plan.steps_per_epoch:,} per epoch; learning rate {plan.learning_rate:.2g} "
        f"after {plan.warmup_steps:,} steps; {'bf16' if trainer.args.bf16 else 'fp32'} on {trainer.args.device}; "
        f"{trainer.sampler.padding_fraction():.0%} of positions are padding"
    )
    if folder.checkpoint:
        log(f"Going on from {folder.checkpoint}")
