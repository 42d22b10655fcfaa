"""What SECURITY.md says of files from elsewhere: they execute nothing, reach for no other file, and fill no memory."""

import csv
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT

from exmed_bert.data.translation.code_map import COLUMNS, read_code_map
from exmed_bert.reporting.spreadsheet import write_csv


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


@pytest.mark.parametrize("code", ["=1+1", "+A", "-A1", "@SUM(1)", "\tx", "'=1+1", "''-x", "＝1"])
def test_a_code_that_reads_as_a_formula_is_text_in_our_tables_and_itself_in_our_maps(code: str, tmp_path: Path) -> None:
    path = tmp_path / "map.csv"
    with open(path, "w", newline="") as file:
        write_csv(file, COLUMNS, [["snomedct", code, "icd10cm", "I10"]])
    with open(path, newline="") as file:
        assert list(csv.reader(file))[1][1] == f"'{code}"
    assert read_code_map(path).get("snomedct", code) == (("icd10cm", "I10"),)
