"""The settings of scripts/explain_patient.py."""

from pathlib import Path

from pydantic import Field

from exmed_bert.settings.base import FilePath, FilePaths
from exmed_bert.settings.reading import INPUT, ReadingSettings


class ExplainSettings(ReadingSettings):
    """scripts/explain_patient.py: one patient with the risk as it develops."""

    section = "explain"

    model_dir: FilePath = Field(
        Path("output/finetune"), description="Folder of a fine-tuned model, or of a pretrained one that forecasts."
    )
    input: FilePaths = Field((Path("data/synthetic_patients.json"),), description=INPUT)
    patient_id: str | None = Field(
        None, description="Who is shown; not given: a generated patient, of others one has to be named."
    )
    endpoint: str | None = Field(
        None, description="Endpoint whose risk is shown, as in fine-tuning; not given: that of the fine-tuned model."
    )
    horizon_days: int | None = Field(
        None, ge=1, description="Days within which it counts; not given: the model's own, of a pretrained one 365."
    )
    output_dir: FilePath | None = Field(
        None, description="Folder of report.html, a page that holds the patient; not given: nothing is written."
    )
