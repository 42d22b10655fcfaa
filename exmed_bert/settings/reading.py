"""How patients are read: what every step that reads them has in common."""

from datetime import date
from typing import ClassVar, Literal

from pydantic import Field

from exmed_bert.settings.base import Days, FilePath, StepSettings, Texts

InputFormat = Literal["auto", "json", "jsonl", "parquet", "csv", "meds", "omop", "fhir", "mimic", "synthea"]
INPUT = (
    "Patients to read: a file or a folder, our own records, MEDS, OMOP, FHIR, MIMIC, Synthea or tables; "
    "may be given several times."
)
_MIN_CELL = (
    "Counts of patients below this are hidden in reports, as <11, and so is what would give them away; 0 hides none. "
    "Not given: 11, and 0 for patients that our generator made."
)


class ReadingSettings(StepSettings):
    """How patients are read, and which code systems their codes are translated to; part of every step that reads them.

    One section for all, so that fine-tuning reads its patients as the conversion did.
    """

    section = "reading"
    shared: ClassVar[dict[str, str]] = {"min_cell": "min_cell"}

    input_format: InputFormat = Field("auto", description="Format of --input; auto: by its columns or file names.")
    columns: Texts = Field(
        (),
        description="Columns of your own tables (csv, parquet), such as patient=ID,date=DAY,code=DX,system=icd10cm; "
        "once per kind of file, then with its name before: 'rx*.csv:patient=ID,...'. docs/your_data/csv.md has all.",
    )
    keep_systems: str | None = Field(
        None,
        description="Code systems to keep as they are, separated by commas, such as rxnorm,ndc,snomedct,icd9cm; not "
        "given: ICD-10-CM and ATC, and all systems of our own records.",
    )
    code_map: FilePath | None = Field(
        None,
        description="Your own map of codes: .csv with source_system, source_code, target_system, target_code.",
    )
    athena: FilePath | None = Field(
        None, description="Folder of OHDSI vocabularies downloaded from Athena, to map RxNorm, NDC and others to ATC."
    )
    on_multiple: Literal["first", "all", "drop"] = Field(
        "first", description="Which targets to take where an ICD-9-CM code or a code of a map has several."
    )
    icd_level: Literal["full", "category"] = Field(
        "full", description="Level of ICD-10-CM codes: as they are, or their category of three characters."
    )
    atc_level: int = Field(5, ge=3, le=5, description="Level of ATC codes: 5 substance, 4 or 3 groups above it.")
    diagnosis_system: Literal["icd10cm", "icd9cm", "by-date"] = Field(
        "icd10cm",
        description="Code system of the list `diagnoses` of our own records; by-date: ICD-9-CM before October 2015.",
    )
    source_vocabulary: str | None = Field(
        None, description="OMOP: vocabulary of the source values where no source concept is given, such as ICD10CM."
    )
    meds_prefixes: dict[str, str] = Field(
        {},
        description="MEDS: further prefixes of codes, and the code system of each.",
        json_schema_extra={"file_only": True},
    )
    fhir_date: Literal["onset", "recorded"] = Field(
        "onset", description="FHIR: date of a condition: its onset, else the record's; or the record's first."
    )
    fhir_intents: str = Field(
        "order", description="FHIR: intents of medication requests that are read, separated by commas; or all."
    )
    plos_days: float = Field(
        7, gt=0, strict=False, description="A prolonged stay is an inpatient stay longer than this many times 24 hours."
    )
    extract_end: date | None = Field(
        None,
        strict=False,
        description="Last day that the data cover: later events are implausible, and patients whose end of observation "
        "is not recorded are observed until then. Not given: events after today are implausible.",
    )
    days_after_death: int = Field(
        30, ge=0, description="Events more than this many days after the day of death are implausible."
    )
    placeholder_days: Days = Field(
        (),
        description="Further days that stand for an unknown date, beside those before 1900, 1900-01-01, 1970-01-01 and "
        "9999-12-31.",
        json_schema_extra={"file_only": True},
    )
    keep_implausible_dates: bool = Field(
        False,
        description="Keep events on days that cannot be, with an unknown age (UNK); otherwise they are dropped and "
        "counted.",
    )
    max_age: int | None = Field(
        None,
        ge=0,
        le=110,
        description="Age in years that patients have at their first event if they are older, such as 89 where ages "
        "above are masked. Not given: patients older than 120 are left out.",
    )
    min_cell: int | None = Field(None, ge=0, description=_MIN_CELL)
