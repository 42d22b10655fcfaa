"""What SECURITY.md says of files from elsewhere: they execute nothing, reach for no other file, and fill no memory."""

import importlib.util
from types import ModuleType

from conftest import ROOT


def ci_audit() -> ModuleType:
    """Return .ci/audit.py as a module."""
    spec = importlib.util.spec_from_file_location("audit", ROOT / ".ci" / "audit.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_known_vulnerability_fails_the_checks_and_a_missing_network_does_not() -> None:
    report = ci_audit().report
    sound = {"name": "numpy", "version": "2.4.6", "vulns": []}
    unknown = {"name": "torch", "skip_reason": "Dependency not found on PyPI"}
    weak = {"name": "pip", "version": "1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"]}]}
    assert report([sound, unknown]) == ("pip-audit: 1 of 2 packages audited; PyPI has no report on torch", 0)
    text, code = report([sound, weak])
    assert code == 1 and text.startswith("pip 1.0: PYSEC-1, fixed in 1.1\n")
    assert report(None) == (
        "pip-audit: nothing was audited: PyPI's reports of vulnerabilities cannot be reached",
        0,
    )
