"""The results of a pretraining run: its metrics, its files, and the summary on the terminal."""

import math
import os
import re
from pathlib import Path
from typing import Any

from torch import Tensor

from exmed_bert import console
from exmed_bert.config import Resolved
from exmed_bert.data.vocabulary import SPECIAL_TOKENS
from exmed_bert.evaluation import masked_codes
from exmed_bert.evaluation.membership import membership, patient_losses
from exmed_bert.models.card import Metric, ModelCard, write_card
from exmed_bert.models.folder import START_EMBEDDINGS, write_pretrained
from exmed_bert.settings import PretrainSettings
from exmed_bert.staging import atomic_write, staged_files
from exmed_bert.training.demonstration import print_demonstration
from exmed_bert.training.metrics_writer import PRETRAINING
from exmed_bert.training.plan import Plan
from exmed_bert.training.run_folder import METRICS, SETTINGS, RunFolder
from exmed_bert.training.tracking import LOGGER, viewers
from exmed_bert.training.trainer import PretrainingTrainer

_BY_EVENTS = re.compile(r"eval_\w+_accuracy_top1$")  # of one kind of event, or of novel codes


def final_results(trainer: PretrainingTrainer, plan: Plan, folder: RunFolder, seconds: float) -> dict[str, float]:
    """Return the metrics of all validation patients, what guessing would score, and the speed of training.

    ``train_data_wait_fraction`` is the share of the time in which this process waited for batches. A GPU may have been
    at work on earlier steps meanwhile, so it idled for at most that. ``membership_auc`` compares the losses of as many
    training patients as an evaluation looks at with those of the validation patients (`evaluation.membership`).
    """
    train = trainer.train_dataset
    found = trainer.predict_masked_codes()
    results = masked_codes.summarize(found, trainer.eval_dataset, trainer.model.config.plos_weight)
    results |= masked_codes.intervals(found)
    results |= masked_codes.most_frequent_code_accuracy(train, found.labels)
    remembered = trainer.predict_masked_codes(trainer.train_sample, in_training=True)
    results |= membership(*(patient_losses(part.losses, part.counts) for part in (remembered, found)))
    steps = plan.total_steps - folder.first_step
    epochs = steps / plan.steps_per_epoch
    results |= {
        "train_steps": plan.total_steps,
        "train_epochs": plan.total_steps / plan.steps_per_epoch,
        "train_seconds": seconds,
        "train_steps_per_second": steps / seconds,
        "train_patients_per_second": epochs * len(train) / seconds,
        "train_codes_per_second": epochs * int(train.lengths.sum()) / seconds,
        "train_data_wait_fraction": trainer.data_wait_seconds / seconds,
    }
    return {f"eval_{k}" if not k.startswith("train_") else k: v for k, v in results.items()}


def write_results(
    trainer: PretrainingTrainer,
    state: dict[str, Tensor],
    resolved: Resolved[PretrainSettings],
    folder: RunFolder,
    plan: Plan,
    results: dict[str, float],
) -> None:
    """Write the model, the settings, the metrics and that the run is finished.

    Metrics that have a folder outside the model's are in place just before the rest is.
    """
    settings, info = resolved.settings, trainer.train_dataset.info
    start = settings.output_dir / START_EMBEDDINGS
    with staged_files(settings.output_dir) as staged:
        write_pretrained(staged, trainer.model, state, info, settings.model_dir, start)
        write_card(staged, _card(trainer, results), settings.output_dir)
        resolved.save(staged / SETTINGS)
        folder.remember(staged, finished_steps=plan.total_steps)
        data, place = (Path(os.path.realpath(path)) for path in (settings.output_data_dir, settings.output_dir))
        metrics = (staged / data.relative_to(place) if data.is_relative_to(place) else data) / METRICS
        with atomic_write(metrics) as part:
            part.write_text("".join(f"{name} = {_shown(value)}\n" for name, value in results.items()), encoding="utf-8")


def _card(trainer: PretrainingTrainer, results: dict[str, float]) -> ModelCard:
    """Return the model card of what was trained."""
    train, info, config = trainer.train_dataset, trainer.train_dataset.info, trainer.model.config
    cells, codes = info.cells(), len(info.vocabulary) - len(SPECIAL_TOKENS)
    metrics = []
    for name, key in (
        *((f"masked-code accuracy, top {top}", f"accuracy_top{top}") for top in masked_codes.TOP),
        ("perplexity", "perplexity"),
        ("prolonged stay, AUROC", "plos_auroc"),
        ("always the most frequent code of its kind, top 1", "baseline_entity_top1"),
        ("membership inference by the loss, AUC", "membership_auc"),
    ):
        if f"eval_{key}" in results and math.isfinite(results[f"eval_{key}"]):
            ends = [results[name] for name in (f"eval_{key}_low", f"eval_{key}_high") if name in results]
            interval = f"{ends[0]:.3f} to {ends[1]:.3f}" if ends else ""
            metrics.append(Metric(name, key, results[f"eval_{key}"], interval))
    enough = not cells.hides(len(trainer.eval_dataset))
    ages = f"in {info.age_unit}"
    return ModelCard(
        title="ExMed-BERT, pretrained on patients' medical codes",
        task="fill-mask",
        about=[
            f"It reads a patient's coded history, at most {info.max_length} codes, visit by visit, with age {ages}, "
            f"{', '.join(column.name for column in info.static_columns)}, and predicts masked codes.",
            f"{config.num_hidden_layers} layers, hidden size {config.hidden_size}, {config.num_attention_heads} heads.",
        ],
        data=[
            ("patients it was trained on", cells.show(len(train))),
            ("patients it was validated on", cells.show(len(trainer.eval_dataset))),
            ("codes of the training patients", f"{int(train.lengths.sum()):,}"),
            ("steps, epochs", f"{results['train_steps']:,.0f}, {results['train_epochs']:.1f}"),
            ("distinct codes", f"{codes:,}"),
        ],
        vocabulary=info.vocabulary,
        measured_on=f"Of {cells.show(len(trainer.eval_dataset))} validation patients, unseen in training, "
        f"{results['eval_masked_codes']:,.0f} codes were masked.",
        metrics=metrics if enough else [],
        limits=["It was trained to predict codes, not to predict outcomes: fine-tune it for these."],
        generated=info.generated,
        example=[
            'vectors = model.embed("patients.json")  # records, MEDS, OMOP, FHIR, ... or a DataFrame of events',
            f'model.nearest_codes("{info.vocabulary.tokens[len(SPECIAL_TOKENS)]}")' if codes else "",
        ],
    )


def _shown(value: float) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def print_summary(
    trainer: PretrainingTrainer, settings: PretrainSettings, results: dict[str, float], seconds: float
) -> None:
    """Print the metrics that matter, what the model has learned, and where everything is."""
    shown = [("loss", "eval_loss"), ("perplexity", "eval_perplexity")]
    shown += [(f"masked-code accuracy, top {top}", f"eval_accuracy_top{top}") for top in masked_codes.TOP]
    by_events = (
        name.removeprefix("eval_").removesuffix("_accuracy_top1") for name in results if _BY_EVENTS.match(name)
    )
    shown += [(f"  {events}, top 1", f"eval_{events}_accuracy_top1") for events in by_events if events != "novel_codes"]
    shown += [("  novel codes, top 10", "eval_novel_codes_accuracy_top10")]
    shown += [("always the most frequent diagnosis or drug", "eval_baseline_entity_top1")]
    shown += [("PLOS AUROC", "eval_plos_auroc")]
    rows: list[tuple[str, Any]] = [(label, f"{results[name]:.4f}") for label, name in shown if name in results]
    if "eval_membership_auc" in results:
        low, high = (results[f"eval_membership_auc_{end}"] for end in ("low", "high"))
        rows.append(
            ("membership inference by the loss, AUC", f"{results['eval_membership_auc']:.2f} ({low:.2f} to {high:.2f})")
        )
    rows.append(("codes per second in training", f"{results['train_codes_per_second']:,.0f}"))
    rows.append(("seconds", f"{seconds:.1f}"))
    masked = results["eval_masked_codes"]
    console.table(f"Validation, on {masked:,} masked codes", rows)
    print_demonstration(trainer)
    console.table(
        "Written",
        [
            ("model", settings.output_dir),
            ("metrics", settings.output_data_dir / METRICS),
            *viewers(settings.output_data_dir, PRETRAINING),
        ],
    )
    LOGGER.info("finished: %s", ", ".join(f"{label.strip()} {value}" for label, value in rows))
    if not math.isfinite(results["eval_loss"]):
        console.warn("the loss is no finite number: training diverged; try a lower --learning-rate")


def print_already_finished(settings: PretrainSettings, plan: Plan) -> None:
    """Say that there is nothing to do, and how to go on."""
    console.echo(
        f"{settings.output_dir} already holds this run, finished after {plan.total_steps:,} steps: nothing to do.\n"
        "To go on training, pass more --epochs; to train anew, pass --overwrite (the finished run is archived)."
    )
