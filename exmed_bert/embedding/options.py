"""The options of embedding that can be checked before torch is imported."""

from pathlib import Path

from exmed_bert.cohorts.label_file import label_source
from exmed_bert.console import InputError, OptionError
from exmed_bert.data.formats import MANIFEST, existing_dataset
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.data.vocabulary_file import DATASET
from exmed_bert.files import check_writable_file
from exmed_bert.settings import EmbedSettings, listed
from exmed_bert.startup import called


def check(settings: EmbedSettings) -> None:
    """Refuse what needs no torch to be refused.

    Raises:
        InputError, OptionError: a file is missing, the output cannot be written, or options contradict each other.
    """
    if not (settings.model_dir / "config.json").is_file():
        raise InputError(
            f"{settings.model_dir}: --model-dir: holds no config.json, expected the folder of an ExMed-BERT"
        )
    if settings.output.suffix != ".parquet":
        raise OptionError(f"--output: {settings.output}, expected a name that ends in .parquet")
    datasets = [path for path in settings.input if is_dataset(path)]
    if datasets and len(datasets) < len(settings.input):
        raise OptionError(
            f"--input: {listed(settings.input)}: expected datasets or patients, not both; {datasets[0]} is a dataset"
        )
    for path in datasets:
        existing_dataset(path, f"make it with: {called('convert')}")
    if not datasets:
        PatientInput(settings.input, settings)
    if settings.labels is not None:
        label_source(settings.labels)
    check_writable_file(settings.output)


def is_dataset(path: Path) -> bool:
    """Tell whether a path is that of a dataset, a file or a folder of shards, and not of patients."""
    return (path / MANIFEST).is_file() if path.is_dir() else path.suffix == DATASET
