"""The options of the conversion that can be checked before torch is imported."""

from exmed_bert import cluster, stores
from exmed_bert.console import OptionError
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.data.vocabulary_file import check_source
from exmed_bert.files import check_writable
from exmed_bert.settings import ConvertSettings
from exmed_bert.stores import StorePath


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
    in_stores = [place for place in (*settings.input, settings.output) if isinstance(place, StorePath)]
    if in_stores and settings.export is not None:
        raise OptionError(f"--export {settings.export}: is from and to this machine, got {in_stores[0]}")
    if not set(settings.input) & set(in_stores):  # to recognize files in a store takes many requests, once is enough
        PatientInput(settings.input, settings)
    if isinstance(settings.output, StorePath):
        stores.check_writable(settings.output)
    else:
        check_writable(settings.output.parent)
