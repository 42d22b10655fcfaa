"""The options of pretraining that can be checked before torch is imported, and the sizes that follow from them."""

import math

from exmed_bert.clinvec.reader import clinvec_folder, vector_files
from exmed_bert.console import InputError, OptionError
from exmed_bert.data.formats import existing_dataset
from exmed_bert.files import check_writable
from exmed_bert.settings import PretrainSettings
from exmed_bert.startup import called
from exmed_bert.training.other_trackers import tracker_names

_HEAD_WIDTH = 48  # dimensions a head in the original's configuration: 288 over 6 heads


def check(settings: PretrainSettings) -> None:
    """Refuse what needs no dataset and no torch to be refused.

    Raises:
        InputError, OptionError: a file is missing, a folder cannot be written, or options contradict each other.
    """
    if settings.model_dir is not None and settings.use_clinvec:
        raise OptionError("--use-clinvec: --model-dir brings the codes' embeddings already, give one of the two")
    if settings.use_hierarchical_init and not (settings.use_clinvec or settings.model_dir):
        raise OptionError("--use-hierarchical-init needs vectors to start from: give --use-clinvec or --model-dir")
    attention_heads(settings)
    tracker_names(settings.report_to)
    if settings.use_clinvec:
        vector_files(clinvec_folder(settings), settings.vocab_types)
    if settings.model_dir is not None and not (settings.model_dir / "config.json").is_file():
        raise InputError(
            f"{settings.model_dir}: --model-dir: holds no config.json, expected the folder of a pretrained ExMed-BERT"
        )
    for data in (settings.training_data, settings.validation_data):
        existing_dataset(data, f"make it with: {called('convert')}")
    check_writable(settings.output_dir)
    check_writable(settings.output_data_dir)


def attention_heads(settings: PretrainSettings) -> int:
    """Return the number of attention heads, given or by the width.

    Raises:
        OptionError: they do not divide the width.
    """
    suiting = default_heads(settings.hidden_size)
    heads = settings.num_attention_heads or suiting
    if settings.hidden_size % heads:
        raise OptionError(
            f"--num-attention-heads: {heads} does not divide --hidden-size {settings.hidden_size}, "
            f"for instance {suiting} does"
        )
    return heads


def default_heads(hidden_size: int) -> int:
    """Return the number of heads that divides the width and leaves each head nearest to 48 dimensions.

    >>> default_heads(288), default_heads(64), default_heads(32)
    (6, 2, 1)
    """
    divisors = [heads for heads in range(1, hidden_size + 1) if hidden_size % heads == 0]
    return min(divisors, key=lambda heads: (abs(hidden_size / heads - _HEAD_WIDTH), -heads))


def intermediate_size(settings: PretrainSettings) -> int:
    """Return the width of the feed-forward layers: as given, or 16/9 of the hidden size in multiples of 64.

    >>> [intermediate_size(PretrainSettings(hidden_size=size)) for size in (288, 64, 32)]
    [512, 128, 64]
    """
    return settings.intermediate_size or math.ceil(settings.hidden_size * 16 / 9 / 64) * 64
