"""The options of the analysis that can be checked before torch is imported."""

from exmed_bert.console import InputError
from exmed_bert.data.formats import existing_dataset
from exmed_bert.files import check_writable
from exmed_bert.settings import AnalyzeSettings
from exmed_bert.startup import called


def check(settings: AnalyzeSettings) -> None:
    """Refuse what needs no torch to be refused.

    Raises:
        InputError: the model or a dataset is missing, or the folder of the report cannot be written.
    """
    if not (settings.model_dir / "config.json").is_file():
        raise InputError(
            f"{settings.model_dir}: --model-dir: holds no config.json, expected the folder of a pretrained ExMed-BERT"
        )
    for data in (settings.dataset, settings.training_data):
        if data is not None:
            existing_dataset(data, f"make it with: {called('convert')}")
    check_writable(settings.output_dir)
