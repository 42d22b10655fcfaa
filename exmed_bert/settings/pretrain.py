"""The settings of scripts/pretrain-exmed-bert-clinvec.py."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from exmed_bert.settings.base import REPORT_TO, FilePath, Probability
from exmed_bert.settings.clinvec import ClinVecSettings


class PretrainSettings(ClinVecSettings):
    """Step 3: scripts/pretrain-exmed-bert-clinvec.py."""

    section = "pretrain"
    shared: ClassVar[dict[str, str]] = {"max_seq_length": "max_length", "dynamic_masking": "dynamic_masking"}

    training_data: FilePath = Field(
        Path("pretrain_stuff/synthetic_train.pt"), description="Training dataset made by step 2."
    )
    validation_data: FilePath = Field(
        Path("pretrain_stuff/synthetic_val.pt"), description="Validation dataset made by step 2."
    )
    output_dir: FilePath = Field(Path("output/synthetic_pretrain"), description="Folder of the model and checkpoints.")
    output_data_dir: FilePath = Field(
        Path("output/synthetic_pretrain_data"), description="Folder of metrics, TensorBoard and MLflow."
    )
    model_dir: FilePath | None = Field(
        None, description="Folder of a pretrained ExMed-BERT whose weights and sizes the training starts from."
    )
    train_batch_size: int = Field(16, ge=1, description="Patients per training step and device.")
    eval_batch_size: int | None = Field(
        None,
        ge=1,
        description="Patients per evaluation step and device; not given: 64, or as in training if that is more.",
    )
    num_attention_heads: int | None = Field(
        None, ge=1, description="Attention heads; not given: the number nearest to 48 dimensions per head, 6 for 288."
    )
    num_hidden_layers: int = Field(6, ge=1, description="Encoder layers.")
    hidden_size: int = Field(288, ge=4, description="Hidden size of the model.")
    intermediate_size: int | None = Field(
        None, ge=1, description="Size of the feed-forward layers; not given: 16/9 of the hidden size, 512 for 288."
    )
    epochs: int = Field(10, ge=1, description="Passes over the training data.")
    max_steps: int = Field(-1, ge=-1, description="Optimizer steps; above 0 it overrides --epochs.")
    learning_rate: float | None = Field(
        None, gt=0, description="Peak learning rate; not given: 0.001 at a hidden size of 64, less for wider models."
    )
    gradient_accumulation_steps: int = Field(1, ge=1, description="Batches per optimizer step.")
    max_seq_length: int | None = Field(
        None, ge=2, description="Must match the dataset's --max-length; not given: the dataset's."
    )
    seed: int = Field(42, ge=0, description="Seed of initialization, sampling, masks and dropout.")
    num_workers: int | None = Field(
        None, ge=0, description="Processes that prepare batches; not given: 2 with a GPU, 0 without."
    )
    logging_steps: int | None = Field(None, ge=1, description="Steps between logged losses; not given: 50 per run.")
    eval_steps: int | None = Field(None, ge=1, description="Steps between evaluations; not given: 20 per run.")
    eval_max_patients: int = Field(
        5000,
        ge=1,
        description="Most validation patients per evaluation during training; the last takes all.",
    )
    save_steps: int | None = Field(None, ge=1, description="Steps between checkpoints; not given: 20 per run.")
    warmup_steps: int | None = Field(None, ge=0, description="Warm-up steps; not given: 10 % of all steps.")
    warmup_ratio: Probability | None = Field(None, description="Warm-up as a share of all steps.")
    initialization: Literal["orthogonal", "normal"] = Field("orthogonal", description="Initialization of the weights.")
    visit_distance_bias: bool = Field(
        True, description="Bias attention by the number of visits between two codes; the original does not."
    )
    visit_days: bool = Field(
        True, description="Show the model the days between visits; the original knows their order alone."
    )
    dynamic_masking: bool | None = Field(
        None, description="Must match the dataset's masking; not given: the dataset's."
    )
    max_masked: int | None = Field(
        None, ge=1, description="Most codes that are masked per patient (dynamic masking); not given: the dataset's."
    )
    forecast_prob: Probability = Field(
        0.25,
        description="Share of the patients, drawn anew each epoch, whose history is cut to forecast when codes occur "
        "for the first time after the cut; for risks of first occurrences, with labels or without.",
        json_schema_extra={"formerly": ["ahead_prob"]},
    )
    forecast_weight: float = Field(
        0.2,
        ge=0,
        description="Weight of the loss of forecasts beside that of masked codes; 1 forecasts better, and predicts "
        "masked codes a percentage point less well.",
    )
    plos: bool | None = Field(
        None, description="Also predict prolonged length of stay; not given: when the dataset has labels."
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="Precision of matrix products; auto: bf16 where the machine is faster with it."
    )
    compile: bool = Field(
        False, description="Compile the encoder with torch.compile, which takes a minute; for long runs on a GPU."
    )
    code_ancestors: bool | None = Field(
        None,
        description="Make the row of each code, in embeddings and output layer, the sum of its own and its ancestors'; "
        "not given: for new models, and for those of --model-dir that have it.",
    )
    report_to: str = Field("none", description=REPORT_TO)
    profile: int | None = Field(
        None, ge=1, description="Write a profiler trace of this many steps, for TensorBoard or Perfetto."
    )
    overwrite: bool = Field(False, description="Archive a finished run and train anew.")
