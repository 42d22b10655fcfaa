"""Known vulnerabilities of the packages in requirements.txt, as PyPI reports them through pip-audit.

    python .ci/audit.py

Exit code 1 where a pinned version has one. A machine that cannot reach PyPI's reports, or an index without them, learns
nothing of its packages and fails for it no more than for having no network: a line says what was not audited.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements.txt"
SECONDS = 60  # the whole audit; it takes a few
ACCEPTED: dict[str, str] = {}  # id of a vulnerability: why it does not concern us


def audit() -> list[dict[str, Any]] | None:
    """Return what pip-audit says of each package, None where it could not ask."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(REQUIREMENTS), "--no-deps", "--disable-pip"]
    command += ["--format", "json", "--progress-spinner", "off", "--timeout", "5"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        return json.loads(found.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError):
        return None


def report(packages: list[dict[str, Any]] | None) -> tuple[str, int]:
    """Return what to print, and the exit code."""
    if packages is None:
        return "pip-audit: nothing was audited: PyPI's reports of vulnerabilities cannot be reached", 0
    lines = [
        f"{package['name']} {package['version']}: {found['id']}, fixed in {', '.join(found['fix_versions']) or 'none'}"
        for package in packages
        for found in package.get("vulns", ())
        if found["id"] not in ACCEPTED
    ]
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    done = f"pip-audit: {len(packages) - len(skipped)} of {len(packages)} packages audited"
    if skipped:
        done += f"; PyPI has no report on {', '.join(skipped[:5])}{' and others' if len(skipped) > 5 else ''}"
    return "\n".join([*lines, done]), int(bool(lines))


if __name__ == "__main__":
    text, code = report(audit())
    print(text)
    sys.exit(code)
