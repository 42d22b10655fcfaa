"""One run of fine-tuning: training on a subset of the labels, the best weights, and the logits of the test patients.

A command makes several (numbers of labels, seeds, with and without pretraining). Each has a folder of its own, so that
a killed command goes on within the run that it was in, and never does one twice.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from exmed_bert import console
from exmed_bert.cohorts.collator import LabeledRows, PromptCollator
from exmed_bert.cohorts.labeled import TEST, LabeledPatients
from exmed_bert.console import InputError
from exmed_bert.files import make_folder
from exmed_bert.finetuning.few_labels import are_few, fit_few
from exmed_bert.finetuning.kept import Damaged, read_kept, write_kept
from exmed_bert.finetuning.objective import Objective
from exmed_bert.finetuning.outcome_model import Pretrained, outcome_model, predict
from exmed_bert.finetuning.plan import FinetunePlan, Subset, make_plan
from exmed_bert.finetuning.prompt import Prompt
from exmed_bert.finetuning.trainer import BEST, FinetuningTrainer
from exmed_bert.models import ExMedBertForSequenceClassification
from exmed_bert.settings import FinetuneSettings, listed
from exmed_bert.staging import remove_abandoned
from exmed_bert.training import checkpoints
from exmed_bert.training.arguments import training_arguments
from exmed_bert.training.hardware import on_best_device
from exmed_bert.training.metrics_writer import MetricsWriter
from exmed_bert.training.other_trackers import tracker_callbacks
from exmed_bert.training.tracking import ReportCallback, log

SCORES = "scores.safetensors"  # of a finished run: the test patients' rows and logits, and its training in words


@dataclass(frozen=True)
class Experiment:
    """What all runs of a command share.

    Attributes:
        settings: as given.
        patients: the cohort.
        pretrained: where runs start.
        prompt: what is asked of the pretrained model.
        collator: makes batches.
        objective: what is learned.
        precision, attention: chosen for the machine.
    """

    settings: FinetuneSettings
    patients: LabeledPatients
    pretrained: Pretrained
    prompt: Prompt
    collator: PromptCollator
    objective: Objective
    precision: str
    attention: str

    def new_model(self, from_scratch: bool, seed: int) -> ExMedBertForSequenceClassification:
        """Return the model before training, on the GPU where there is one."""
        further = self.objective.config
        model = outcome_model(self.pretrained, self.settings.head, self.prompt, from_scratch, seed, further)
        model.set_attn_implementation(self.attention)
        return on_best_device(model)

    def rows(self, rows: np.ndarray) -> LabeledRows:
        """Return patients with the targets of the objective."""
        return LabeledRows(self.patients, rows, self.objective.targets)


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        kind: ``fine-tuned`` or ``scratch``.
        size: labels, of training and validation together; None takes all.
        seed: of subset, order, dropout and head.
    """

    kind: str
    size: int | None
    seed: int

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.kind}-{self.size or 'all'}-{self.seed}"


@dataclass(frozen=True)
class Finished:
    """The results of a run that has ended.

    Attributes:
        logits: (n,) float64, or (n, causes, bins), of the test patients.
        labels: number of labels, of training and validation together.
        budget: its training, in a line for people.
        weights: file of its best weights.
        calibrated: whether all labels were fitted to, so that none is left to recalibrate on.
    """

    logits: np.ndarray
    labels: int
    budget: str
    weights: Path
    calibrated: bool = False


def train_one(
    run: Run, experiment: Experiment, folder: Path, writer: Callable[[], MetricsWriter], prefix: str
) -> Finished:
    """Train, resume, or read what an earlier process has finished.

    Args:
        run: the one to do.
        experiment: what all runs share.
        folder: of this run.
        writer: opens TensorBoard and MLflow.
        prefix: of the metrics' names.
    """
    settings, patients = experiment.settings, experiment.patients
    objective = experiment.objective
    subset = objective.draw(run.size, run.seed)
    for split, rows in (("training", subset.train), ("validation", subset.validation)):
        outcomes = int(objective.happened[rows].sum())
        if not 0 < outcomes < len(rows):
            raise InputError(
                f"{listed(settings.input)}: {outcomes:,} of {len(rows):,} {split} patients have the outcome, expected "
                "some with it and some without; take more patients or another endpoint"
            )
    scored = patients.rows(TEST)
    make_folder(folder)
    remove_abandoned(folder)
    checkpoints.remove_leftovers(folder)
    if (found := _finished(folder, scored)) is not None:
        return found

    model = experiment.new_model(run.kind == "scratch", run.seed)
    fits = run.kind != "scratch" and objective.fits_at_once
    if fits and are_few(settings, subset.labels):
        return _at_once(run, experiment, subset, folder, writer, prefix, "too few to train the encoder on")
    train, validation = experiment.rows(subset.train), experiment.rows(subset.validation)
    objective.start(model, train, validation, experiment.collator, pretrained=run.kind != "scratch")
    if settings.freeze_encoder:
        model.bert.requires_grad_(False)
    plan = make_plan(settings, len(train), model.config.hidden_size, run.kind == "scratch")
    args = _arguments(folder, experiment.precision, run.seed, plan, settings)
    trainer = FinetuningTrainer(
        model,
        args,
        train,
        validation,
        experiment.collator,
        objective,
        folder=folder,
        head_learning_rate=plan.head_learning_rate,
        patience=plan.patience,
    )
    trainer.add_callback(ReportCallback(writer(), f"Training {run.name}", _described(objective), prefix))
    for callback in tracker_callbacks(settings.report_to):
        trainer.add_callback(callback)
    checkpoint = _checkpoint(folder)
    if checkpoint is not None:
        log(f"Going on from {checkpoint}")
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    best = trainer.restore_best()
    if fits and not best:
        return _at_once(run, experiment, subset, folder, writer, prefix, "and no step of the encoder lowers their loss")
    logits = trainer.predict_logits(experiment.rows(scored))
    budget = (
        f"{len(train):,} labels, {len(validation):,} to validate on; at most {plan.total_steps:,} steps of "
        f"{settings.train_batch_size} patients, learning rate {plan.learning_rate:.2g} (head "
        f"{plan.head_learning_rate:.2g}), one setting tried; of {trainer.state.global_step:,} steps {best:,} was best "
        f"by {objective.best}"
    )
    return _keep(folder, scored, Finished(logits, subset.labels, budget, folder / BEST))


def _at_once(
    run: Run,
    experiment: Experiment,
    subset: Subset,
    folder: Path,
    writer: Callable[[], MetricsWriter],
    prefix: str,
    why: str,
) -> Finished:
    """Fit the head to all labels, and leave the encoder; arguments as `train_one`, and the reason in words."""
    model, batch_size = experiment.new_model(from_scratch=False, seed=run.seed), experiment.settings.eval_batch_size
    variance, loss = fit_few(model, experiment.rows(subset.rows), experiment.collator, batch_size, run.seed)
    write_kept(folder / BEST, model.state_dict(), step="0")
    if np.isfinite(loss):
        writer().add({f"{prefix}eval_loss": loss}, 0)
    scored = experiment.patients.rows(TEST)
    logits = predict(model, experiment.rows(scored), experiment.collator, batch_size)
    budget = (
        f"{subset.labels:,} labels, {why}: a ridge regression on the prompt's answer and the codes, prior variance "
        f"{variance:g} by cross-validation"
    )
    return _keep(folder, scored, Finished(logits, subset.labels, budget, folder / BEST, calibrated=True))


def _keep(folder: Path, scored: np.ndarray, finished: Finished) -> Finished:
    """Write what `_finished` reads."""
    scores = {"rows": torch.from_numpy(scored), "logits": torch.from_numpy(finished.logits)}
    facts = {"budget": finished.budget, "labels": str(finished.labels)}
    if finished.calibrated:
        facts["calibrated"] = "yes"
    write_kept(folder / SCORES, scores, **facts)
    _remove_checkpoints(folder)
    return finished


def load_best(run: Finished, experiment: Experiment) -> ExMedBertForSequenceClassification:
    """Return the model of a finished run, for predictions."""
    model = experiment.new_model(from_scratch=True, seed=0)
    model.load_state_dict(read_kept(run.weights)[0])
    return model.eval()


def _checkpoint(folder: Path) -> Path | None:
    """Return where a run goes on from: its last whole checkpoint, if the best weights until then are whole, too."""
    checkpoint, damaged = checkpoints.last_whole(folder)
    if checkpoint is not None:
        try:
            read_kept(folder / BEST)
        except Damaged as error:
            damaged.append(f"{error}; the run starts over")
            checkpoint = None
    for line in damaged:
        console.warn(line)
    return checkpoint


def _finished(folder: Path, scored: np.ndarray) -> Finished | None:
    """Return what an earlier process has finished; None where there is nothing, or it is damaged, which is said."""
    if not (folder / SCORES).exists():
        return None
    try:
        found, facts = read_kept(folder / SCORES)
        read_kept(folder / BEST)
        # Earlier releases wrote the training in words to a file of its own.
        facts = facts or json.loads((folder / "budget.json").read_text(encoding="utf-8"))
        rows, logits = found["rows"].numpy(), found["logits"].numpy()
        calibrated = facts.get("calibrated") == "yes"
        finished = Finished(logits, int(facts["labels"]), str(facts["budget"]), folder / BEST, calibrated)
    except (Damaged, OSError, KeyError, TypeError, ValueError) as error:
        reason = str(error) if isinstance(error, Damaged) else f"{folder / SCORES}: is damaged: {error}"
        console.warn(f"{reason}; the run starts over")
        return None
    if not np.array_equal(rows, scored):
        return None
    _remove_checkpoints(folder)
    return finished


def _remove_checkpoints(folder: Path) -> None:
    checkpoints.remove_leftovers(folder)
    for old in checkpoints.checkpoints(folder):
        shutil.rmtree(old, ignore_errors=True)


def _arguments(folder: Path, precision: str, seed: int, plan: FinetunePlan, settings: FinetuneSettings) -> Any:
    args = training_arguments(
        folder,
        precision,
        seed,
        max_steps=plan.total_steps,
        per_device_train_batch_size=settings.train_batch_size,
        per_device_eval_batch_size=settings.eval_batch_size,
        weight_decay=plan.weight_decay,
        eval_on_start=True,
    )
    args.learning_rate = plan.learning_rate
    args.warmup_steps = plan.warmup_steps
    args.logging_steps = plan.eval_steps
    args.eval_steps = args.save_steps = plan.eval_steps
    return args


def _described(objective: Objective) -> Callable[[dict[str, float]], str]:
    told = objective.told.items()
    return lambda metrics: ", ".join(f"{label} {metrics[name]:.4f}" for name, label in told if name in metrics)
