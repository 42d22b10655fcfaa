"""Make the examples: the same 120 synthetic patients in each format that the steps read.

    python examples/make_examples.py             all formats
    python examples/make_examples.py omop fhir   some

Each format has a module in ``writers/`` with a function ``write(folder, records)``; the files are part of the project,
and the same seed gives the same files.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent
PATIENTS = 120
SEED = 11


def records() -> list[dict]:
    """Return the patients as records of our own format."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "patients.json"
        script = EXAMPLES.parent / "scripts" / "generate_synthetic_patients.py"
        command = [sys.executable, str(script), "-n", str(PATIENTS), "-s", str(SEED), "-p", "0", "-o", str(path)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return json.loads(path.read_text())


def main(formats: list[str]) -> None:
    """Write the examples of the given formats, or of all."""
    sys.path[:0] = [str(EXAMPLES), str(EXAMPLES.parent)]
    everyone = records()
    known = sorted(path.stem for path in (EXAMPLES / "writers").glob("[a-z]*.py"))
    for name in formats or known:
        folder = EXAMPLES / name / "data"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        import_module(f"writers.{name}").write(folder, everyone)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        print(f"{folder.relative_to(EXAMPLES.parent)}: {size / 1024:.0f} KiB")


if __name__ == "__main__":
    main(sys.argv[1:])
