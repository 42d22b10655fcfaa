"""The settings of scripts/analyze_novel_codes.py."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from exmed_bert.settings.base import FilePath, StepSettings
from exmed_bert.settings.reading import _MIN_CELL


class AnalyzeSettings(StepSettings):
    """scripts/analyze_novel_codes.py: what a model makes of codes that it has hardly or never seen."""

    section = "analyze"
    shared: ClassVar[dict[str, str]] = {"min_cell": "min_cell"}

    model_dir: FilePath = Field(Path("output/synthetic_pretrain"), description="Folder of a pretrained model.")
    dataset: FilePath = Field(
        Path("pretrain_stuff/synthetic_val.pt"),
        description="Dataset made by step 2 whose codes are masked; patients that the model was not trained on.",
    )
    training_data: FilePath | None = Field(
        None,
        description="Dataset that the model was trained on, for how often each code occurs there; not given: the one "
        "that the model's settings.json names, if it is still there.",
    )
    output_dir: FilePath = Field(
        Path("output/novel_codes"), description="Folder of report.html, results.json, the tables, plots and projector."
    )
    max_patients: int = Field(5000, ge=1, description="Most patients of the dataset whose codes are masked.")
    min_cell: int | None = Field(None, ge=0, description=_MIN_CELL)
    seed: int = Field(42, ge=0, description="Seed of the t-SNE map, of samples and of the intervals' resamples.")
