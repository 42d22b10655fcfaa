"""The settings of scripts/generate_synthetic_patients.py."""

from datetime import date
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from exmed_bert.settings.base import FilePath, Probability, StepSettings

ExportFormat = Literal["meds", "csv", "fhir", "omop"]
FURTHER_EVENTS = ("procedures", "labs")  # of generated patients


class GenerateSettings(StepSettings):
    """Step 1: scripts/generate_synthetic_patients.py."""

    section = "generate"

    num_patients: int = Field(1000, ge=1, description="Number of patients.", json_schema_extra={"short": "-n"})
    output: FilePath = Field(
        Path("data/synthetic_patients.json"),
        description="File to write; .json, .jsonl, .jsonl.gz or .parquet decides the format. With --shards or --export "
        "a folder.",
        json_schema_extra={"short": "-o"},
    )
    export: ExportFormat | None = Field(
        None,
        description="Write the patients as a dataset of this format in the folder --output, for other programs; every "
        "step here reads it as it reads the file.",
    )
    novel_prob: Probability = Field(
        0.01, description="Probability that a code is replaced by a novel one.", json_schema_extra={"short": "-p"}
    )
    seed: int = Field(42, ge=0, description="Random seed.", json_schema_extra={"short": "-s"})
    end_date: date = Field(
        date(2025, 12, 31),
        strict=False,
        ge=date(1960, 1, 1),  # birth years of all patients stay within what the readers accept
        le=date(2100, 12, 31),
        description="Last day of the five years in which all events lie.",
    )
    novel_kind: Literal["invented", "recent"] = Field(
        "invented",
        description="Novel codes: invented, pseudo-codes in no code list, or recent, real ICD-10-CM codes from "
        "April 2020 on, never before they are valid; no drug is replaced then.",
    )
    events: str = Field(
        "diagnoses,drugs",
        description="Kinds of events, separated by commas: diagnoses,drugs and, if wanted, procedures and labs "
        "(laboratory tests with values). The former are the same either way.",
    )
    realistic: bool = Field(
        False,
        description="No bounds on codes; members enter and leave the plan, some die, some stop their drugs, at "
        "published rates.",
    )
    workers: int = Field(1, ge=1, description="Processes that generate patients in parallel; the file is the same.")
    chunk_size: int = Field(
        2000, ge=1, description="Patients per chunk of work, rounded up to thousands; the file is the same."
    )
    shards: int | None = Field(
        None,
        ge=1,
        description="Write so many files, part-00000 and on, into the folder --output; a run that is killed goes on "
        "with those that are missing.",
    )
    shard_format: Literal["parquet", "jsonl", "jsonl.gz"] = Field("parquet", description="Format of --shards.")
    scheduler: str | None = Field(
        None,
        description="Dask cluster that does the work: tcp://host:8786 of a running one, or local to start one with "
        "--workers processes.",
    )

    @field_validator("events")
    @classmethod
    def _known_events(cls, value: str) -> str:
        kinds = [part.strip() for part in value.split(",")]
        if not {"diagnoses", "drugs"} <= set(kinds) <= {"diagnoses", "drugs", *FURTHER_EVENTS}:
            raise ValueError(f"expected diagnoses,drugs, and if wanted {' and '.join(FURTHER_EVENTS)}")
        return ",".join(kinds)

    @property
    def further_events(self) -> tuple[str, ...]:
        """The kinds of events beside diagnoses and drugs."""
        return tuple(kind for kind in FURTHER_EVENTS if kind in self.events.split(","))
