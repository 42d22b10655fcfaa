"""The settings of scripts/embed_patients.py."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from exmed_bert.settings.base import FilePath, FilePaths
from exmed_bert.settings.reading import INPUT, ReadingSettings


class EmbedSettings(ReadingSettings):
    """scripts/embed_patients.py: a vector for each patient, or for each of their prediction times."""

    section = "embed"

    model_dir: FilePath = Field(
        Path("output/synthetic_pretrain"), description="Folder of a pretrained or a fine-tuned model."
    )
    input: FilePaths = Field(
        (Path("data/synthetic_patients.json"),), description=f"{INPUT} Or datasets made by step 2 (.pt)."
    )
    output: FilePath = Field(
        Path("output/embeddings.parquet"),
        description="File of the embeddings: patient_id, prediction_time, embedding.",
    )
    labels: FilePath | None = Field(
        None,
        description="Embed at the prediction times of this file: .csv or .parquet with subject_id, prediction_time, "
        "boolean_value (MEDS), or a folder of them; not given: at each patient's last visit.",
    )
    same_day: Literal["include", "exclude"] = Field(
        "include", description="Whether events of the prediction day itself belong to the history."
    )
    pooling: Literal["mean", "last-visit", "query"] | None = Field(
        None,
        description="What is pooled: the mean of the history's hidden states, of those of its last visit, or query, "
        "what the model expects next: the state that forecasts are computed from, of a model without forecasts that at "
        "a MASK after the history; not given: query of a model that makes forecasts, mean of others.",
    )
    eval_batch_size: int = Field(256, ge=1, description="Patients per step.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="Precision of matrix products; auto: bf16 on GPUs that compute it, else fp32."
    )
    projector: bool = Field(False, description="Also write a sample for TensorBoard's Embedding Projector.")
    map: Literal["pca", "tsne"] | None = Field(
        None, description="Also draw a sample in two dimensions: principal components, or t-SNE."
    )
    color_by: str = Field("age", description="What colors the points of --map: age, or a static column such as sex.")
    max_points: int = Field(5000, ge=1, description="Most embeddings of --projector and --map, drawn at random.")
    seed: int = Field(42, ge=0, description="Seed of that sample, and of t-SNE.")
