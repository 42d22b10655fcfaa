"""The options of fine-tuning that can be checked before torch is imported."""

import math

from exmed_bert.cohorts.label_file import label_source
from exmed_bert.cohorts.tasks.base import LabelType, prediction_rule
from exmed_bert.cohorts.tasks.registry import requested_task
from exmed_bert.console import InputError, OptionError
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.files import check_writable
from exmed_bert.settings import BASELINES, BASELINES_WITH_ANSWER, SURVIVAL_BASELINES, FinetuneSettings
from exmed_bert.training.other_trackers import tracker_names

SCRATCH = "scratch"  # among the baselines: the same network without pretraining


def check(settings: FinetuneSettings) -> None:
    """Refuse what needs no torch to be refused.

    Raises:
        InputError, OptionError: a file is missing, a folder cannot be written, or options contradict each other.
    """
    holds, kind = "config.json", "the folder of a pretrained ExMed-BERT"
    if settings.predict_only and settings.endpoint is None:
        holds, kind = "finetuning.json", "the --output-dir of a fine-tuning, or --endpoint with a model that forecasts"
    if not (settings.model_dir / holds).is_file():
        raise InputError(f"{settings.model_dir}: --model-dir: holds no {holds}, expected {kind}")
    if settings.predict_only and settings.output_dir.resolve() == settings.model_dir.resolve():
        raise OptionError(
            f"--output-dir: {settings.model_dir} holds the model and its own predictions, expected another folder"
        )
    PatientInput(settings.input, settings)
    if settings.predict_only:
        prediction_rule(settings)
        if settings.labels is not None:
            label_source(settings.labels)
    else:
        over_time = requested_task(settings).label_type == LabelType.TIME_TO_EVENT
        if settings.censoring_strata and settings.censored == "drop":
            raise OptionError("--censoring-strata: --censored drop gives no weights, expected --censored weight")
        tracker_names(settings.report_to)
        train_sizes(settings.train_sizes)
        baseline_names(settings.baselines, over_time)
        if over_time and settings.class_weights:
            raise OptionError("--class-weights: time to event has no classes, expected --no-class-weights")
        if over_time and settings.censored == "drop":
            raise OptionError("--censored: time to event learns from the censored, expected weight")
    check_writable(settings.output_dir)


def train_sizes(text: str) -> list[int | None]:
    """Read --train-sizes; None stands for all.

    >>> train_sizes("all,100,300")
    [100, 300, None]

    Raises:
        OptionError: something in it is no number above 9 and not ``all``.
    """
    sizes = set()
    for part in (part.strip() for part in text.split(",")):
        if part != "all" and not (part.isdecimal() and int(part) >= 10):
            raise OptionError(f"--train-sizes: {part!r}, expected numbers from 10 on and all, such as 100,300,1000,all")
        sizes.add(None if part == "all" else int(part))
    return sorted(sizes, key=lambda size: math.inf if size is None else size)


def baseline_names(text: str, over_time: bool) -> list[str]:
    """Read --baselines.

    >>> baseline_names("logreg,scratch", over_time=False), baseline_names("none", over_time=True)
    (['logreg', 'scratch'], [])
    >>> baseline_names("all", over_time=True)
    ['cox', 'boosted_hazards', 'scratch']

    Args:
        text: as given.
        over_time: whether times to the event are predicted.

    Raises:
        OptionError: an unknown name, or one of a baseline of other labels.
    """
    known = (*SURVIVAL_BASELINES, SCRATCH) if over_time else (*BASELINES, SCRATCH, *BASELINES_WITH_ANSWER)
    if text.strip() in ("all", "none"):
        return [] if text.strip() == "none" else list(known)
    names = [part.strip() for part in text.split(",")]
    for name in names:
        if name not in known:
            raise OptionError(f"--baselines: {name!r}, expected {', '.join(known)}, or all, or none")
    return list(dict.fromkeys(names))
