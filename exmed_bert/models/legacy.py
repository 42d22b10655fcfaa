"""Names that models were saved under by earlier releases, and ours for them: configuration keys and parameters."""

from collections.abc import Mapping
from typing import Any

CONFIG_KEYS = {
    "predict_ahead": "predict_future_codes",
    "question_codes": "target_codes",
    "answer_scale": "prompt_scale",
    "answer_bias": "prompt_bias",
}
PARAMETERS = {  # regular expressions, as transformers' ``key_mapping`` takes them
    r"^ahead_classifier\.": "forecast_head.",
    r"^answer_scale$": "prompt_scale",
}
FINETUNING_KEYS = {"washout_days": "gap_days"}  # of finetuning.json


def with_current_names(content: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return a copy of a dictionary with our names for its old keys; what is there under our name already stays.

    >>> with_current_names({"washout_days": 7, "title": "PLOS"}, FINETUNING_KEYS)
    {'gap_days': 7, 'title': 'PLOS'}
    """
    return {names[key]: value for key, value in content.items() if key in names} | {
        key: value for key, value in content.items() if key not in names
    }
