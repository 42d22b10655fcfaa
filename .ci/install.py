"""Packages of requirements.txt, installed in .venv by uv, which takes seconds for what takes pip minutes.

    python3 .ci/install.py

uv looks for packages where pip's configuration says. Where it cannot install them nothing is left, and
scripts/setup_environment.sh installs them with pip, as it does for users.
"""

import ast
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

UV = "uv==0.13.9"
ROOT = Path(__file__).resolve().parent.parent
SHARED = ("index-url", "extra-index-url", "find-links", "constraint")  # options that uv has in common with pip


def options(config: str) -> list[str]:
    """Return uv's options for what `pip config list` prints: lines of ``global.name='value value'``."""
    by_weight = sorted(config.splitlines(), key=lambda line: line.startswith(":env:"))  # variables beat files
    settings = [line.partition("=") for line in by_weight]
    values = {name.rpartition(".")[2]: ast.literal_eval(value) for name, _, value in settings}
    return [word for name in SHARED for value in values.get(name, "").split() for word in (f"--{name}", value)]


def install(environment: Path) -> None:
    """Make the environment; raises `subprocess.CalledProcessError` where a program fails."""
    venv.create(environment, with_pip=True)
    python = str(environment / "bin" / "python")
    pip = [python, "-m", "pip"]
    listed = subprocess.run([*pip, "config", "list"], check=True, capture_output=True, text=True).stdout
    with tempfile.TemporaryDirectory() as tools:
        subprocess.run([*pip, "install", "--quiet", "--target", tools, UV], check=True)
        uv = [f"{tools}/bin/uv", "pip", "install", "--quiet", "--python", python]
        choice = ["--index-strategy", "unsafe-best-match"]  # the newest of all indexes, as pip
        subprocess.run([*uv, *choice, *options(listed), "--requirement", ROOT / "requirements.txt"], check=True)
    shutil.copy(ROOT / "requirements.txt", environment / "requirements.stamp")


if __name__ == "__main__":
    environment = ROOT / ".venv"
    if not environment.exists():
        try:
            install(environment)
        except (OSError, subprocess.CalledProcessError) as error:
            shutil.rmtree(environment, ignore_errors=True)
            print(f"uv could not install the packages, pip will: {error}", file=sys.stderr)
