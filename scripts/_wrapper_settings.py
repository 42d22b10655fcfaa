"""Print the settings of the three steps as KEY=VALUE lines for train_on_synthetic_data.sh and .bat.

    python scripts/_wrapper_settings.py 2000 0.02 100 42
    python scripts/_wrapper_settings.py "" "" "" ""

The arguments are patients, novel_prob, max_len and seed; an empty one comes from config.yaml.
"""

import _bootstrap  # noqa: F401, I001
import sys
from collections.abc import Callable
from typing import Any

from exmed_bert.config import resolve
from exmed_bert.settings import ConvertSettings, GenerateSettings, PretrainSettings
from exmed_bert.console import OptionError, one_line_errors


def wrapper_settings(patients: str, novel_prob: str, max_len: str, seed: str) -> dict[str, Any]:
    """Return what the wrappers pass to the steps and name in their messages.

    Raises:
        OptionError: an argument is wrong.
        InputError: config.yaml is wrong.
    """
    seeds = _given("seed", seed, int)
    lengths = _given("max_length", max_len, int)
    generate = resolve(
        GenerateSettings,
        seeds | _given("num_patients", patients, int) | _given("novel_prob", novel_prob, float),
    ).settings
    convert = resolve(ConvertSettings, seeds | lengths).settings
    pretrain = resolve(PretrainSettings, seeds).settings
    dataset = convert.output
    return {
        "num_patients": generate.num_patients,
        "novel_prob": generate.novel_prob,
        "max_length": convert.max_length,
        "masking": "--dynamic-masking" if convert.dynamic_masking else "--no-dynamic-masking",
        "generate_seed": generate.seed,
        "convert_seed": convert.seed,
        "pretrain_seed": pretrain.seed,
        "patients_file": generate.output,
        "dataset": dataset,
        "training_data": dataset.with_name(f"{dataset.stem}_train.pt"),
        "validation_data": dataset.with_name(f"{dataset.stem}_val.pt"),
        "conversion_page": dataset.with_name(f"{dataset.stem}_conversion") / "report.html",
        "output_dir": pretrain.output_dir,
        "output_data_dir": pretrain.output_data_dir,
    }


def _given(name: str, text: str, kind: Callable[[str], Any]) -> dict[str, Any]:
    """Return the argument as a setting, or nothing when it was not given."""
    try:
        return {name: kind(text)} if text else {}
    except ValueError:
        raise OptionError(f'{name}: expected a number, got "{text}"') from None


if __name__ == "__main__":
    with one_line_errors():
        for key, value in wrapper_settings(*sys.argv[1:]).items():
            print(f"{key}={value}")
