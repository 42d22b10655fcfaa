"""The settings of scripts/finetune-exmed-bert.py, and the names of its baselines."""

from pathlib import Path
from typing import Literal, TypeGuard, get_args

from pydantic import Field

from exmed_bert.settings.base import REPORT_TO, FilePath, FilePaths
from exmed_bert.settings.reading import INPUT, ReadingSettings

BaselineName = Literal["logreg", "rf", "hgb"]
BASELINES: tuple[BaselineName, ...] = get_args(BaselineName)
WITH_ANSWER = "_answer"  # at the end of the name of a baseline that is given the pretrained model's answer as a column
BASELINES_WITH_ANSWER = tuple(name + WITH_ANSWER for name in BASELINES)
SURVIVAL_BASELINES = ("cox", "boosted_hazards")


def without_answer(name: str) -> str:
    """Return the name of the baseline that is not given the model's answer."""
    return name.removesuffix(WITH_ANSWER)


def is_baseline(name: str) -> TypeGuard[BaselineName]:
    """Return whether a name is that of a baseline."""
    return name in BASELINES


class FinetuneSettings(ReadingSettings):
    """scripts/finetune-exmed-bert.py: from a pretrained model to an evaluated prediction."""

    section = "finetune"

    model_dir: FilePath = Field(
        Path("output/synthetic_pretrain"),
        description="Folder of the pretrained model; with --predict-only, of the fine-tuned one.",
    )
    input: FilePaths = Field((Path("data/synthetic_patients.json"),), description=INPUT)
    output_dir: FilePath = Field(
        Path("output/finetune"), description="Folder of the fine-tuned model, the results, TensorBoard and MLflow."
    )
    endpoint: str | None = Field(
        None,
        description="Predict the first occurrence of a code (I50.9), of codes with a prefix (E11*), of several, "
        "separated by commas, or of a set named under `endpoints` in config.yaml.",
    )
    labels: FilePath | None = Field(
        None,
        description="Predict these labels: .csv or .parquet with subject_id, prediction_time, boolean_value (MEDS), or "
        "a folder of them.",
    )
    task: str | None = Field(
        None,
        description="plos: predict prolonged length of stay (had_plos); time-to-event: predict when --endpoint occurs.",
    )
    endpoints: dict[str, list[str]] = Field(
        {}, description="Named sets of codes.", json_schema_extra={"file_only": True}
    )
    horizon_days: int = Field(365, ge=1, description="Days after the index date within which the endpoint counts.")
    horizons: str = Field(
        "180,365,730",
        description="Of time to event: days after the index date at which risks are reported and evaluated, separated "
        "by commas; they decide nothing about the cohort.",
    )
    gap_days: int = Field(
        0,
        ge=0,
        description="Patients whose endpoint occurs within this many days after the index date are excluded.",
    )
    washout_days: int = Field(
        0,
        ge=0,
        description="Patients whose endpoint occurs within this many days before the index date are excluded; 0: those "
        "with the endpoint at any time before.",
    )
    min_observation_days: int = Field(
        0, ge=0, description="Patients observed for fewer days before the index date are excluded."
    )
    same_day: Literal["include", "exclude"] = Field(
        "include",
        description="Whether events of the prediction day itself belong to the history; exclude: for predictions made "
        "as the day begins, such as at admission.",
    )
    index_date: str | None = Field(
        None,
        description="last-visit-before: the last visit with the horizon of observation after it, the default; "
        "first-visit: the first visit; random: any visit, of time to event the default; both with the horizon after it "
        "where --censored is drop; fixed:YYYY-MM-DD; last-visit: the default of --predict-only.",
    )
    censored: Literal["weight", "drop"] = Field(
        "weight",
        description="Patients whose observation ends before the horizon: weight keeps them, and those who stay count "
        "for them, by the inverse of the probability of being observed so long; drop excludes them.",
    )
    censoring_strata: str | None = Field(
        None,
        description="What the probability of being observed may depend on, separated by commas: age, and static "
        "columns such as sex; not given: one probability for all.",
    )
    min_history: int = Field(5, ge=1, description="Patients with fewer codes by the index date are excluded.")
    head: Literal["ffn", "gru", "lstm"] = Field(
        "ffn", description="Head over the history: the mean of the hidden states, or a recurrent network over them."
    )
    prompt: bool = Field(
        True,
        description="Add a prompt: the pretrained code head's logits of the endpoint's codes at a masked position "
        "after the history, which rank patients before any label is seen.",
        json_schema_extra={"formerly": ["ask"]},
    )
    freeze_encoder: bool = Field(False, description="Train the head only.")
    class_weights: bool = Field(
        False,
        description="Give patients with and without the outcome the same total weight; a better ranking at times, "
        "never better calibration.",
    )
    from_scratch: bool = Field(False, description="Train the same network without pretraining.")
    train_sizes: str = Field(
        "all",
        description="Numbers of labels, of training and validation together, such as 100,300,1000,all; the "
        "largest's model is kept.",
    )
    seeds: int = Field(1, ge=1, description="Runs for each number of labels, with seeds from --seed on.")
    baselines: str = Field(
        "all",
        description="Baselines: logreg, rf, hgb, the same with _answer added to the name for those that are given the "
        "pretrained model's answer as a column, of time to event cox and boosted_hazards, and scratch, the network "
        "without pretraining; all, or none.",
    )
    explain: int = Field(0, ge=0, description="Attribute the predictions of this many test patients to their codes.")
    predict_only: bool = Field(False, description="Predict the patients of --input with a fine-tuned model.")
    train_batch_size: int = Field(32, ge=1, description="Patients per training step.")
    report_to: str = Field("none", description=REPORT_TO)
    eval_batch_size: int = Field(256, ge=1, description="Patients per prediction step.")
    epochs: int | None = Field(None, ge=1, description="Most passes over the labels; not given: by their number.")
    learning_rate: float | None = Field(None, gt=0, description="Peak learning rate; not given: by the hidden size.")
    seed: int = Field(42, ge=0, description="Seed of subsets, sampling, dropout and heads.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="Precision of matrix products; auto: bf16 where the machine is faster with it."
    )
    overwrite: bool = Field(False, description="Archive a finished run and train anew.")
