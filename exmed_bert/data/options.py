"""The options of the conversion that can be checked before torch is imported."""

from exmed_bert.data.formats import file_format
from exmed_bert.files import check_writable, existing_file
from exmed_bert.settings import ConvertSettings
from exmed_bert.startup import called


def check(settings: ConvertSettings) -> None:
    """Refuse what needs no torch to be refused.

    Raises:
        InputError: the input is missing or of an unknown kind, or the folder of the datasets cannot be written.
    """
    existing_file(settings.input, f"make it with: {called('generate')}")
    file_format(settings.input)
    check_writable(settings.output.parent)
