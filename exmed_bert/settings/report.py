"""The settings of scripts/report_synthetic_data.py."""

from pathlib import Path

from pydantic import Field

from exmed_bert.settings.base import FilePath, FilePaths
from exmed_bert.settings.reading import INPUT, ReadingSettings


class ReportSettings(ReadingSettings):
    """scripts/report_synthetic_data.py: a file of patients against the published figures."""

    section = "report"

    input: FilePaths = Field((Path("data/synthetic_patients.json"),), description=INPUT)
    output_dir: FilePath = Field(
        Path("output/synthetic_report"), description="Folder of report.html, report.json and the plots."
    )
