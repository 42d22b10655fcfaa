"""Imported first by every script: finds the library beside it, and runs the script's command."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def run(command: str) -> None:
    """Run a command of `exmed_bert.commands`, which tells its options, its help and what it does."""
    from exmed_bert.commands import run_script

    run_script(command)
