"""The options of fine-tuning that can be checked before torch is imported."""

from exmed_bert.config import FinetuneSettings
from exmed_bert.console import InputError, OptionError
from exmed_bert.data.formats import file_format
from exmed_bert.files import check_writable, existing_file
from exmed_bert.startup import called


def check(settings: FinetuneSettings) -> None:
    """Refuse what needs no torch to be refused.

    Raises:
        InputError, OptionError: a file is missing, a folder cannot be written, or options contradict each other.
    """
    kind = "fine-tuned model, the --output-dir of its fine-tuning" if settings.predict_only else "pretrained ExMed-BERT"
    if not (settings.model_dir / "config.json").is_file():
        raise InputError(f"{settings.model_dir}: --model-dir: holds no config.json, expected the folder of a {kind}")
    if settings.predict_only and settings.output_dir.resolve() == settings.model_dir.resolve():
        raise OptionError(
            f"--output-dir: {settings.model_dir} holds the model and its own predictions, expected another folder"
        )
    existing_file(settings.input, f"make it with: {called('generate')}")
    file_format(settings.input)
    if settings.labels is not None:
        existing_file(settings.labels)
    check_writable(settings.output_dir)
