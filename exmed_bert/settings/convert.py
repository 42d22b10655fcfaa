"""The settings of scripts/convert_synthetic_to_dataset.py."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from exmed_bert.settings.base import FilePath, Location, Locations
from exmed_bert.settings.generate import ExportFormat
from exmed_bert.settings.reading import INPUT, ReadingSettings


class ConvertSettings(ReadingSettings):
    """Step 2: scripts/convert_synthetic_to_dataset.py."""

    section = "convert"
    shared: ClassVar[dict[str, str]] = ReadingSettings.shared | {
        "max_length": "max_length",
        "dynamic_masking": "dynamic_masking",
        "static_columns": "static_columns",
    }

    input: Locations = Field(
        (Path("data/synthetic_patients.json"),),
        description=f"{INPUT} May be in an object store: s3://bucket/folder/, gs://, abfss://.",
    )
    output: Location = Field(
        Path("pretrain_stuff/synthetic.pt"),
        description="Base path of the datasets; `--split all` writes <stem>_train.pt and <stem>_val.pt. May be in an "
        "object store, as --input.",
    )
    export: ExportFormat | None = Field(
        None,
        description="Write --input as a dataset of this format in the folder --output instead of converting it.",
    )
    split: Literal["all", "train", "val"] = Field("all", description="Which datasets to write.")
    max_length: int = Field(50, ge=2, le=32_767, description="Most codes per patient; the latest visits are kept.")
    train_ratio: float = Field(0.8, gt=0, lt=1, description="Share of the patients in the training split.")
    split_from: Literal["hash", "input"] = Field(
        "hash",
        description="Who is in which split: hash, by the patient's id and --train-ratio; or input, as the input says: "
        "train and tuning (validation); held_out and patients without a split are in neither.",
    )
    dynamic_masking: bool = Field(
        True, description="Draw new masks each epoch; static masks are drawn once, here, and stored."
    )
    seed: int = Field(42, ge=0, description="Seed of the split and of static masks.")
    min_observations: int = Field(5, ge=2, description="Patients with fewer codes are excluded.")
    masked_lm_prob: float = Field(0.15, gt=0, lt=1, description="Share of the codes that are masked per patient.")
    max_masked: int = Field(20, ge=1, description="Most codes that are masked per patient.")
    age_unit: Literal["years", "months"] = Field("years", description="Unit of a patient's age at each code.")
    min_code_count: int = Field(
        1, ge=1, description="Codes that occur fewer times are rare: UNK, or rolled up (--rare-codes)."
    )
    rare_codes: Literal["unk", "roll-up"] = Field(
        "unk", description="What stands for rare codes: UNK, or the nearest ancestor that is frequent enough."
    )
    lab_values: Literal["quantiles", "range", "none"] = Field(
        "quantiles",
        description="What the values of measurements (LOINC) become part of their codes by: quantiles of the training "
        "patients (4548-4|Q5), the reference range (4548-4|H), or none.",
    )
    lab_bins: int = Field(5, ge=2, le=99, description="Quantiles that values are divided into.")
    shard_size: int = Field(250_000, ge=1, description="Patients per shard; datasets with more are folders of shards.")
    workers: int = Field(1, ge=1, description="Processes that read files and write shards; the datasets are the same.")
    scheduler: str | None = Field(
        None,
        description="Dask cluster that does the work: tcp://host:8786 of a running one, or local to start one with "
        "--workers processes.",
    )
    vocab_from: FilePath | None = Field(
        None,
        description="Take the vocabulary of this model's folder or dataset (.pt), so that ids agree; other codes are "
        "UNK. Not given: the codes of the input.",
    )
    extend_vocab: bool = Field(
        False, description="Append the codes that are not in the vocabulary of --vocab-from instead."
    )
    static_columns: dict[str, list[str]] = Field(
        {},
        description="Further static columns: the name of a field of the records, and the values it can have.",
        json_schema_extra={"file_only": True},
    )
