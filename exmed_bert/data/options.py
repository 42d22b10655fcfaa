"""The options of the conversion that can be checked before torch is imported."""

from exmed_bert import cluster
from exmed_bert.console import OptionError
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.data.vocabulary_file import check_source
from exmed_bert.files import check_writable
from exmed_bert.settings import ConvertSettings


def check(settings: ConvertSettings) -> None:
    """Refuse what needs no torch to be refused.

    Raises:
        InputError: the input is missing or of an unknown format, or the folder of the datasets cannot be written.
        OptionError: options contradict each other.
    """
    if settings.vocab_from is not None:
        check_source(settings.vocab_from)
    elif settings.extend_vocab:
        raise OptionError("--extend-vocab: extends the vocabulary of --vocab-from, which is not given")
    cluster.check(settings.scheduler)
    PatientInput(settings.input, settings)
    check_writable(settings.output.parent)
