"""The settings of each step: one class per section of config.yaml.

The classes are the single source: the commands' flags (`exmed_bert.cli`), the keys of ``config.yaml``, their types,
limits and descriptions all come from the fields here. `exmed_bert.config` combines command line, file and defaults.
"""

from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path, PurePath
from typing import Annotated, Any, ClassVar, Literal, Self, TypeGuard, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, InstanceOf, PlainSerializer, field_validator

from exmed_bert import stores
from exmed_bert.stores import StorePath


def _checked(place: Callable[[str | Path], Any]) -> Callable[[Any], Any]:
    """Return a validator that applies a function to paths and leaves what is none to pydantic."""
    return lambda value: place(value) if isinstance(value, str | Path) else value


FilePath = Annotated[Path, Field(strict=False), BeforeValidator(_checked(stores.local))]
# What may also be in an object store.
Location = Annotated[
    Path | InstanceOf[StorePath], BeforeValidator(_checked(stores.location)), PlainSerializer(str, when_used="json")
]
Probability = Annotated[float, Field(ge=0, le=1)]


def _as_tuple(value: Any) -> Any:
    """Return a list as a tuple, and anything else as a tuple of its own."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _one_or_list(values: tuple[Any, ...]) -> Any:
    """Return what stands in config.yaml and settings.json: one value by itself, several as a list."""
    plain = [str(value) for value in values]
    return plain[0] if len(plain) == 1 else plain


# An option that may be repeated; in config.yaml one value, or a list of them.
FilePaths = Annotated[
    tuple[FilePath, ...], Field(strict=False, min_length=1), BeforeValidator(_as_tuple), PlainSerializer(_one_or_list)
]
Locations = Annotated[
    tuple[Location, ...], Field(strict=False, min_length=1), BeforeValidator(_as_tuple), PlainSerializer(_one_or_list)
]
Texts = Annotated[tuple[str, ...], Field(strict=False), BeforeValidator(_as_tuple)]
Days = Annotated[tuple[Annotated[date, Field(strict=False)], ...], Field(strict=False), BeforeValidator(_as_tuple)]

InputFormat = Literal["auto", "json", "jsonl", "parquet", "csv", "meds", "omop", "fhir", "mimic", "synthea"]
ExportFormat = Literal["meds", "csv", "fhir", "omop"]
FURTHER_EVENTS = ("procedures", "labs")  # of generated patients
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


class StepSettings(BaseModel):
    """The settings of a step, a section of config.yaml.

    A field's ``json_schema_extra`` says what its type cannot: ``short``, a second spelling of its flag; ``file_only``,
    that it has no flag; ``formerly``, the names it had, which flags and files may still use.

    Attributes:
        section: its name in the file.
        shared: field to the key at the top of the file that feeds it, for what several steps have in common.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    section: ClassVar[str]
    shared: ClassVar[dict[str, str]] = {}

    @field_validator("*", mode="after")
    @classmethod
    def _of_64_bits(cls, value: Any) -> Any:
        """Refuse whole numbers that nothing behind the settings could hold."""
        if isinstance(value, int) and abs(value) >= 2**63:
            raise ValueError("expected a number of at most 64 bits")
        return value

    @classmethod
    def extra(cls, name: str) -> dict[str, Any]:
        """Return what ``json_schema_extra`` of a field says."""
        said = cls.model_fields[name].json_schema_extra
        return said if isinstance(said, dict) else {}

    def paths(self) -> Iterator[Path]:
        """Yield the paths on this machine that the settings name, of what is read and of what is written."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            yield from (one for one in (value if isinstance(value, tuple) else (value,)) if isinstance(one, Path))

    def with_absolute_paths(self) -> Self:
        """Return the same settings with paths that hold in any process."""
        paths: dict[str, Any] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, Path):
                paths[name] = value.absolute()
            elif isinstance(value, tuple) and any(isinstance(one, Path) for one in value):
                paths[name] = tuple(one.absolute() if isinstance(one, Path) else one for one in value)
        return self.model_copy(update=paths)

    @classmethod
    def former_names(cls) -> dict[str, str]:
        """Return the present name for each name that a field had."""
        return {old: name for name in cls.model_fields for old in cls.extra(name).get("formerly", ())}


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


_INPUT = (
    "Patients to read: a file or a folder, our own records, MEDS, OMOP, FHIR, MIMIC, Synthea or tables; "
    "may be given several times."
)


_REPORT_TO = (
    "Trackers beside TensorBoard and MLflow, separated by commas, where they are installed: wandb, comet_ml, neptune, "
    "clearml, dvclive, swanlab, trackio. They may use the network."
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
    shared = {"min_cell": "min_cell"}

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


class ConvertSettings(ReadingSettings):
    """Step 2: scripts/convert_synthetic_to_dataset.py."""

    section = "convert"
    shared = ReadingSettings.shared | {
        "max_length": "max_length",
        "dynamic_masking": "dynamic_masking",
        "static_columns": "static_columns",
    }

    input: Locations = Field(
        (Path("data/synthetic_patients.json"),),
        description=f"{_INPUT} May be in an object store: s3://bucket/folder/, gs://, abfss://.",
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


class ClinVecSettings(StepSettings):
    """Initialization from ClinVec embeddings; part of step 3."""

    section = "clinvec"

    use_clinvec: bool = Field(False, description="Initialize the code embeddings from ClinVec vectors.")
    clinvec_dir: FilePath | None = Field(
        None, description="Folder with ClinGraph_nodes.csv and ClinVec_<vocabulary>.csv."
    )
    vocab_types: str = Field(
        "auto",
        description="ClinVec vocabularies to read, separated by commas, named as in their files: icd10cm for "
        "ClinVec_icd10cm.csv; auto: those in the folder that the dataset's codes can use.",
    )
    use_hierarchical_init: bool = Field(
        False,
        description="Initialize codes without a vector, in ClinVec or in --model-dir, from their nearest ancestor and "
        "siblings that have one.",
    )
    resize_if_needed: bool = Field(
        False, description="Resize the vectors when their dimension differs from --hidden-size."
    )
    resize_method: Literal["auto", "pca", "truncate", "learned_projection", "pad_smart", "pad_random"] = Field(
        "auto", description="How to resize: auto is pca to fewer dimensions and pad_smart to more."
    )
    clinvec_scale: float | None = Field(
        None,
        gt=0,
        description="Factor on the vectors; not given: the one that makes them as long as randomly initialized rows.",
    )


class HierarchySettings(StepSettings):
    """scripts/make_hierarchy_embeddings.py: embeddings of the code trees in ClinVec's file format."""

    section = "hierarchy"

    output_dir: FilePath = Field(Path("data/hierarchy_embeddings"), description="Folder of the files.")
    dimension: int = Field(128, ge=2, description="Dimension of the vectors; ClinVec's is 128.")
    held_out: float = Field(
        0.1, ge=0, le=0.5, description="Share of the codes that are held out, to evaluate the initialization with."
    )
    seed: int = Field(42, ge=0, description="Seed of the embedding and of the held-out codes.")


class PretrainSettings(ClinVecSettings):
    """Step 3: scripts/pretrain-exmed-bert-clinvec.py."""

    section = "pretrain"
    shared = {"max_seq_length": "max_length", "dynamic_masking": "dynamic_masking"}

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
    report_to: str = Field("none", description=_REPORT_TO)
    profile: int | None = Field(
        None, ge=1, description="Write a profiler trace of this many steps, for TensorBoard or Perfetto."
    )
    overwrite: bool = Field(False, description="Archive a finished run and train anew.")


class FinetuneSettings(ReadingSettings):
    """scripts/finetune-exmed-bert.py: from a pretrained model to an evaluated prediction."""

    section = "finetune"

    model_dir: FilePath = Field(
        Path("output/synthetic_pretrain"),
        description="Folder of the pretrained model; with --predict-only, of the fine-tuned one.",
    )
    input: FilePaths = Field((Path("data/synthetic_patients.json"),), description=_INPUT)
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
    report_to: str = Field("none", description=_REPORT_TO)
    eval_batch_size: int = Field(256, ge=1, description="Patients per prediction step.")
    epochs: int | None = Field(None, ge=1, description="Most passes over the labels; not given: by their number.")
    learning_rate: float | None = Field(None, gt=0, description="Peak learning rate; not given: by the hidden size.")
    seed: int = Field(42, ge=0, description="Seed of subsets, sampling, dropout and heads.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="Precision of matrix products; auto: bf16 where the machine is faster with it."
    )
    overwrite: bool = Field(False, description="Archive a finished run and train anew.")


class EmbedSettings(ReadingSettings):
    """scripts/embed_patients.py: a vector for each patient, or for each of their prediction times."""

    section = "embed"

    model_dir: FilePath = Field(
        Path("output/synthetic_pretrain"), description="Folder of a pretrained or a fine-tuned model."
    )
    input: FilePaths = Field(
        (Path("data/synthetic_patients.json"),), description=f"{_INPUT} Or datasets made by step 2 (.pt)."
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


class ExplainSettings(ReadingSettings):
    """scripts/explain_patient.py: one patient with the risk as it develops."""

    section = "explain"

    model_dir: FilePath = Field(
        Path("output/finetune"), description="Folder of a fine-tuned model, or of a pretrained one that forecasts."
    )
    input: FilePaths = Field((Path("data/synthetic_patients.json"),), description=_INPUT)
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


class ReportSettings(ReadingSettings):
    """scripts/report_synthetic_data.py: a file of patients against the published figures."""

    section = "report"

    input: FilePaths = Field((Path("data/synthetic_patients.json"),), description=_INPUT)
    output_dir: FilePath = Field(
        Path("output/synthetic_report"), description="Folder of report.html, report.json and the plots."
    )


class AnalyzeSettings(StepSettings):
    """scripts/analyze_novel_codes.py: what a model makes of codes that it has hardly or never seen."""

    section = "analyze"
    shared = {"min_cell": "min_cell"}

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


class ShareSettings(StepSettings):
    """scripts/share_model.py: a copy of a pretrained model without its rare codes."""

    section = "share"

    model_dir: FilePath = Field(Path("output/synthetic_pretrain"), description="Folder of a pretrained model.")
    training_data: FilePath = Field(
        Path("pretrain_stuff/synthetic_train.pt"),
        description="Dataset that the model was trained on, for how many patients have each code.",
    )
    output_dir: FilePath = Field(Path("output/shared_model"), description="Folder of the copy.")
    min_count: int = Field(
        20, ge=1, description="Codes of fewer training patients are removed: tokens, embeddings, predictions."
    )


class ExportSettings(StepSettings):
    """scripts/export_model.py: a model for other programs."""

    section = "export"

    model_dir: FilePath = Field(
        Path("output/synthetic_pretrain"), description="Folder of a pretrained or a fine-tuned model."
    )
    hub_folder: FilePath | None = Field(
        None,
        description="Folder to write in the layout of the Hugging Face Hub: weights, model card, tokenizer, code. "
        "Nothing is uploaded.",
    )
    onnx: FilePath | None = Field(
        None,
        description="File to write, .onnx: encoder and code head of a pretrained model, logits and probability of a "
        "fine-tuned one; compared with the model in onnxruntime before it is put in place.",
    )


def listed(paths: tuple[PurePath, ...]) -> str:
    """Return paths as messages name them.

    >>> listed((Path("a.json"), Path("b.json")))
    'a.json, b.json'
    """
    return ", ".join(map(str, paths))


SECTIONS: tuple[type[StepSettings], ...] = (
    GenerateSettings,
    ReadingSettings,
    ConvertSettings,
    ClinVecSettings,
    PretrainSettings,
    FinetuneSettings,
    EmbedSettings,
    ReportSettings,
    HierarchySettings,
    AnalyzeSettings,
    ExplainSettings,
    ShareSettings,
    ExportSettings,
)


def flag(name: str, value: Any = None) -> str:
    """Return the command-line spelling of a field, of a switch the one that gives it this value.

    >>> flag("max_seq_length"), flag("plos", True), flag("plos", False)
    ('--max-seq-length', '--plos', '--no-plos')
    """
    return ("--no-" if value is False else "--") + name.replace("_", "-")
