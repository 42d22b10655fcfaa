"""The options of the patient page that can be checked before torch is imported."""

from exmed_bert.console import InputError
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.files import check_writable
from exmed_bert.settings import ExplainSettings


def check(settings: ExplainSettings) -> None:
    """Refuse what needs no torch to be refused.

    Raises:
        InputError: the model or the patients are missing, or the folder of the page cannot be written.
    """
    if not (settings.model_dir / "config.json").is_file():
        raise InputError(
            f"{settings.model_dir}: --model-dir: holds no config.json, expected the folder of an ExMed-BERT that was "
            "fine-tuned or forecasts"
        )
    PatientInput(settings.input, settings)
    if settings.output_dir is not None:
        check_writable(settings.output_dir)
