"""ExMed-BERT: pretrain BERT models on patients' medical codes.

Importing the package is cheap: torch and transformers are loaded only when a name that needs them is used.
``AutoModel.from_pretrained`` knows the model after ``import exmed_bert``, whichever of the two is imported first.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "Patient": "exmed_bert.data.patient",
    "PatientDataset": "exmed_bert.data.dataset",
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


_AUTO_CONFIG = "transformers.models.auto.configuration_auto"
_AUTO_MODEL = "transformers.models.auto.modeling_auto"
_BASE_MODEL = "transformers.modeling_utils"


class _RegisterWithAutoClasses(importlib.abc.MetaPathFinder):
    """Register our models when transformers' Auto classes are first imported.

    Importing transformers and torch here instead would cost every script four seconds, the ones that only
    generate or read patients included.
    """

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if fullname not in (_AUTO_CONFIG, _AUTO_MODEL):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_then_register(module: Any) -> None:
            execute(module)
            # The models' module imports the configurations' halfway, and so does the base of all models; our own
            # need them whole. Who imports the base first, as the Trainer does, comes to the models' module later.
            if not _is_halfway(_BASE_MODEL) and (fullname == _AUTO_MODEL or _AUTO_MODEL not in sys.modules):
                importlib.import_module("exmed_bert.models")

        spec.loader.exec_module = execute_then_register  # type: ignore[method-assign]
        return spec


def _is_halfway(name: str) -> bool:
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return bool(getattr(spec, "_initializing", False))


if _AUTO_CONFIG in sys.modules:
    importlib.import_module("exmed_bert.models")
else:
    sys.meta_path.insert(0, _RegisterWithAutoClasses())
