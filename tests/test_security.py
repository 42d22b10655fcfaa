"""What SECURITY.md says of files from elsewhere: they execute nothing, reach for no other file, and fill no memory."""

import csv
import importlib.util
from pathlib import Path
from types import ModuleType

import duckdb
import pytest
from conftest import ROOT

from exmed_bert.data.database import connect, file_list
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.data.translation.code_map import COLUMNS, read_code_map
from exmed_bert.reporting.spreadsheet import write_csv
from exmed_bert.settings import ReadingSettings


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


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('{other}')",
        "SELECT * FROM read_text('{other}')",
        "SELECT * FROM glob('{folder}/*')",
        "COPY (SELECT 1) TO '{folder}/written.csv'",
        "ATTACH '{folder}/a.duckdb'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET allowed_paths = ['{other}']",
        "SELECT * FROM here",
    ],
)
def test_sql_reaches_no_file_but_those_that_are_read(sql: str, tmp_path: Path) -> None:
    here = tmp_path / "here [1]*.csv"
    other = tmp_path / "here 1.csv"
    for path in (here, other):
        path.write_text("a\n1\n")
    db = connect([here])
    assert db.sql(f"SELECT * FROM read_csv({file_list([here])})").fetchall() == [(1,)]
    with pytest.raises(duckdb.Error):
        db.sql(sql.format(other=other, folder=tmp_path)).fetchall()
    assert len(list(tmp_path.iterdir())) == 2


def test_names_in_tables_are_names_and_no_sql(tmp_path: Path) -> None:
    folder = tmp_path / "it's; DROP TABLE patients --"
    folder.mkdir()
    patient, day, code = """x" FROM (SELECT 1) --""", "')) UNION ALL SELECT 1 --", 'a "b" (c)'
    with open(folder / "claims' OR 1=1 --.csv", "w", newline="") as file:
        rows = [[f"P{i}", "1960", "2020-01-0" + str(i), "I10') --" if i == 3 else "I10"] for i in (1, 2, 3)]
        csv.writer(file).writerows([[patient, "birth_year", day, code], *rows])
    columns = (f"""patient='{patient}',date="{day}",code='{code}',system=icd10cm""",)
    source = PatientInput([folder], ReadingSettings(columns=columns))
    found = {found for chunk in source.quiet_chunks(translated=False) for _, found in chunk.events.table}
    assert found == {"I10", "I10') --"} and source.read == (3, 3)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["claims' OR 1=1 --.csv"]
