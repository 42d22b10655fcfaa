"""The options of sharing a model that can be checked before torch is imported."""

from exmed_bert.console import InputError, OptionError
from exmed_bert.data.formats import existing_dataset
from exmed_bert.files import check_writable
from exmed_bert.settings import ShareSettings
from exmed_bert.startup import called


def check(settings: ShareSettings) -> None:
    """Refuse what needs no torch to be refused.

    Raises:
        InputError, OptionError: the model or the dataset is missing, or the copy cannot be written, or would be the
            model itself.
    """
    if not (settings.model_dir / "config.json").is_file():
        raise InputError(
            f"{settings.model_dir}: --model-dir: holds no config.json, expected the folder of a pretrained ExMed-BERT"
        )
    if settings.output_dir.resolve() == settings.model_dir.resolve():
        raise OptionError(f"--output-dir: {settings.output_dir} is the model itself, expected another folder")
    existing_dataset(settings.training_data, f"make it with: {called('convert')}")
    check_writable(settings.output_dir)
