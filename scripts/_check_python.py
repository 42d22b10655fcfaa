"""Say whether this Python can run the project: ``fit`` or ``unfit``, and then one line on standard error why not.

    python scripts/_check_python.py              its version and word size
    python scripts/_check_python.py --packages   and that it has the packages of requirements.txt

Standard library only, and nothing that an older Python 3 cannot read.
"""

import re
import sys
from pathlib import Path

OLDEST = (3, 11)
REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements.txt"


def problem_with_python():
    """Return what is wrong with the version or the word size, or an empty string."""
    version = ".".join(str(number) for number in sys.version_info[:2])
    if sys.version_info < OLDEST:
        return f"Python {version} is too old"
    if sys.maxsize < 2**32:
        return f"Python {version} is 32-bit"
    return ""


def problem_with_packages():
    """Return which packages of requirements.txt are not installed, or an empty string. Nothing is imported."""
    from importlib.metadata import PackageNotFoundError, version

    missing = []
    for name in re.findall(r"^[A-Za-z0-9][\w.-]*", REQUIREMENTS.read_text(encoding="utf-8"), re.MULTILINE):
        try:
            version(name)
        except PackageNotFoundError:
            missing.append(name)
    return f"it lacks {', '.join(missing)}" if missing else ""


def main(arguments):
    """Print the verdict and return the exit code."""
    problem = problem_with_python()
    if problem:
        advice = "Python 3.11 or newer, 64-bit, is needed: https://www.python.org/downloads/"
        line = f"Error: {sys.executable}: {problem}; {advice}"
    if arguments == ["--packages"]:
        problem = problem or problem_with_packages()
        line = f"The active environment {sys.prefix} is not used: {problem}"
    print("unfit" if problem else "fit")
    if problem:
        print(line, file=sys.stderr)
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
