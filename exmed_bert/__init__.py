"""ExMed-BERT: pretrain BERT models on patients' medical codes.

Importing the package is cheap: torch and transformers are loaded only when a name that needs them is used. To load
models through transformers' Auto classes, ``import exmed_bert.models``.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "Patient": "exmed_bert.data.patient",
    "PatientDataset": "exmed_bert.data.dataset",
    "load_model": "exmed_bert.interface",
    "PatientModel": "exmed_bert.interface",
    "PatientEmbedder": "exmed_bert.interface",
    "PatientTokenizer": "exmed_bert.interface",
    "ExMedBertConfig": "exmed_bert.models",
    "ExMedBertModel": "exmed_bert.models",
    "ExMedBertForMaskedLM": "exmed_bert.models",
    "ExMedBertForSequenceClassification": "exmed_bert.models",
}
__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
