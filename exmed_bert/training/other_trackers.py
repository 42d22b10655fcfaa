"""Trackers beside TensorBoard and MLflow, such as Weights & Biases: transformers' own callbacks, where asked for."""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from exmed_bert.console import OptionError

if TYPE_CHECKING:
    from transformers import TrainerCallback

TRACKERS = ("clearml", "comet_ml", "dvclive", "neptune", "swanlab", "trackio", "wandb")  # packages of their names
NONE = "none"


def tracker_names(text: str) -> list[str]:
    """Read --report-to.

    >>> tracker_names("none")
    []

    Raises:
        OptionError: a name is not known, or its package is not installed.
    """
    names = [name for part in text.split(",") if (name := part.strip()) and name != NONE]
    for name in names:
        if name not in TRACKERS:
            raise OptionError(f"--report-to: {name!r}, expected {', '.join(TRACKERS)} or {NONE}")
        if find_spec(name) is None:
            raise OptionError(f"--report-to: {name} is not installed; install it with: python -m pip install {name}")
    return names


def tracker_callbacks(text: str) -> "list[type[TrainerCallback]]":
    """Return transformers' callbacks for --report-to, which pass on metrics and settings, and no patient.

    Raises:
        OptionError: as `tracker_names`.
    """
    from transformers.integrations import get_reporting_integration_callbacks

    return get_reporting_integration_callbacks(tracker_names(text))
