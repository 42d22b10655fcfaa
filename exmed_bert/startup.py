"""The start of every program: nothing goes over the network, and a missing package is one line. Standard library only.

Also how each program is called, for messages that name a command: as it was started, by a script or by `exmed-bert`.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

# Names of the commands, and their scripts in a checkout.
SCRIPTS = {
    "generate": "generate_synthetic_patients.py",
    "convert": "convert_synthetic_to_dataset.py",
    "pretrain": "pretrain-exmed-bert-clinvec.py",
    "finetune": "finetune-exmed-bert.py",
    "embed": "embed_patients.py",
    "explain": "explain_patient.py",
    "analyze": "analyze_novel_codes.py",
    "hierarchy": "make_hierarchy_embeddings.py",
    "report": "report_synthetic_data.py",
    "share": "share_model.py",
    "export": "export_model.py",
}
_OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
_CHECKOUT = Path(__file__).resolve().parent.parent

_show_traceback = sys.excepthook


@dataclass(frozen=True)
class Command:
    """A step of the pipeline as a user calls it.

    Attributes:
        name: behind ``exmed-bert``.
        settings: the class of its settings, which are its options.
        check: called with the settings before ``run`` is imported; refuses what can be refused without torch.
        run: called with the resolved settings.
        summary: what it does, the first thing that ``--help`` shows.
        examples: lines that a reader can copy, the last thing that ``--help`` shows. ``{convert}`` stands for how the
            user calls that command, ``{convert.program}`` for the same without a leading ``python``.
    """

    name: str
    settings: str
    check: str
    run: str
    summary: str
    examples: str


def prepare() -> None:
    """Keep the libraries off the network, and explain a package that is missing. Before anything else is imported."""
    for name, value in _OFFLINE.items():
        os.environ.setdefault(name, value)
    sys.excepthook = _explain_missing_package


def in_checkout() -> bool:
    """Return whether the package lies beside the scripts, not among installed packages."""
    return (_CHECKOUT / "scripts" / SCRIPTS["generate"]).is_file()


def called(name: str, program: str = "") -> str:
    """Return how the user calls a command, in the way in which ``program``, or else this program, was started.

    >>> called("convert", "/usr/bin/exmed-bert"), called("convert", "/site-packages/exmed_bert/__main__.py")
    ('exmed-bert convert', 'python -m exmed_bert convert')
    """
    started = Path(program or sys.argv[0])
    if started.name == "__main__.py" and started.parent.name == "exmed_bert":
        return f"python -m exmed_bert {name}"
    if started.stem == "exmed-bert" or not in_checkout():
        return f"exmed-bert {name}"
    return f"python scripts/{SCRIPTS[name]}"


def _explain_missing_package(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not isinstance(error, ModuleNotFoundError) or (error.name or "").startswith("exmed_bert"):
        _show_traceback(kind, error, trace)
        return
    advice = "install exmed-bert again with pip, together with its dependencies"
    if in_checkout():
        advice = "run 'bash scripts/setup_environment.sh' or 'pip install -r requirements.txt'"
    print(f"Error: No module named '{error.name}'; {advice}", file=sys.stderr)
