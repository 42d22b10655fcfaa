"""Imported first by every script: finds the library beside it and says what to do when a package is missing."""

import os
import sys
from pathlib import Path
from types import TracebackType

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

# Nothing is fetched or reported over the network at run time.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

_show_traceback = sys.excepthook


def _explain_missing_package(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if isinstance(error, ModuleNotFoundError):
        print(
            f"Error: No module named '{error.name}'; run 'bash scripts/setup_environment.sh' "
            "or 'pip install -r requirements.txt'",
            file=sys.stderr,
        )
    else:
        _show_traceback(kind, error, trace)


sys.excepthook = _explain_missing_package
