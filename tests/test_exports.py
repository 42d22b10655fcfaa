"""Patients as tables of CSV, FHIR and OMOP: read back by our own readers they give the same datasets."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import record, write_records

from exmed_bert.config import Resolved
from exmed_bert.console import InputError, OptionError
from exmed_bert.data.convert import convert
from exmed_bert.data.dataset import PatientDataset
from exmed_bert.data.export.registry import EXPORTERS
from exmed_bert.data.export.run import export_patients
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.settings import ConvertSettings, GenerateSettings
from exmed_bert.staging import staged_folder
from exmed_bert.synthetic import generate

FORMATS = ("csv", "fhir", "omop")
ALL = "diagnoses,drugs,procedures,labs"
POPULATION = {"num_patients": 300, "realistic": True, "events": ALL, "novel_prob": 0.05}


@pytest.fixture(scope="module")
def population(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Realistic patients with all kinds of events."""
    output = tmp_path_factory.mktemp("population") / "patients.parquet"
    generate.run(Resolved(GenerateSettings.model_validate({**POPULATION, "output": output}), {}))
    return output


@pytest.fixture(scope="module")
def expected(population: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, PatientDataset]:
    """Their datasets."""
    return convert(ConvertSettings(input=(population,), output=tmp_path_factory.mktemp("expected") / "d")).datasets


def export(source: Path, folder: Path, name: str, size: int = 10_000) -> Path:
    """Export patients in chunks of a size; return the folder."""
    read = PatientInput([source])
    with staged_folder(folder, EXPORTERS[name].check_replaceable) as staged:
        EXPORTERS[name].write(staged, folder.name, read.chunks(size), read.origin)
    return folder


@pytest.mark.parametrize("name", FORMATS)
def test_an_export_gives_the_same_datasets(
    name: str, population: Path, expected: dict[str, PatientDataset], tmp_path: Path
) -> None:
    folder = export(population, tmp_path / name, name)
    result = convert(ConvertSettings(input=(folder,), output=tmp_path / "d"))
    assert result.source.reader.name == name and result.source.generated
    for split, dataset in result.datasets.items():
        assert dataset.columns.keys() == expected[split].columns.keys()
        for column, values in expected[split].columns.items():
            assert np.array_equal(dataset.columns[column], values), (split, column)
        assert dataset.info.to_dict() == expected[split].info.to_dict()


@pytest.mark.parametrize("name", FORMATS)
def test_chunks_do_not_matter(name: str, population: Path, tmp_path: Path) -> None:
    one, many = export(population, tmp_path / "one", name), export(population, tmp_path / "many", name, 77)
    for path in one.rglob("*"):
        assert path.read_bytes() == (many / path.relative_to(one)).read_bytes(), path


@pytest.mark.parametrize("name", FORMATS)
def test_other_files_are_not_replaced(name: str, population: Path, tmp_path: Path) -> None:
    folder = export(population, tmp_path / "export", name)
    export(population, folder, name)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt"):
        export(population, folder, name)
    assert not PatientInput([folder]).origin.generated  # what was added may be patients


@pytest.mark.parametrize("name", FORMATS)
def test_the_option(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_records(tmp_path / "p.json", [record(number) for number in range(12)])
    export_patients(Resolved(ConvertSettings(input=(source,), output=tmp_path / "out"), {}), name)
    assert "coded events" in capsys.readouterr().out and (tmp_path / "out.settings.json").is_file()
    assert len(next(PatientInput([tmp_path / "out"]).chunks())) == 12


@pytest.mark.parametrize("name", EXPORTERS)
def test_the_generator_exports_what_the_conversion_would(name: str, population: Path, tmp_path: Path) -> None:
    settings = GenerateSettings.model_validate({**POPULATION, "output": tmp_path / "direct", "export": name})
    generate.run(Resolved(settings, {}))
    by_way_of_a_file = export(population, tmp_path / "by_way" / "direct", name)
    assert contents(tmp_path / "direct") == contents(by_way_of_a_file)
    assert {path.name for path in tmp_path.iterdir()} == {"by_way", "direct", "direct.settings.json"}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"output": Path("p.json")}, "--output p.json names a file, expected a folder such as data/synthetic_csv"),
        ({"output": Path("p"), "shards": 2}, "--export csv: cannot be combined with --shards"),
    ],
)
def test_an_export_that_cannot_be_made(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(OptionError, match=problem):
        generate.check(GenerateSettings(export="csv", **changes))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", FORMATS)
def test_a_patient_that_occurs_twice_is_refused(name: str, tmp_path: Path) -> None:
    source = write_records(tmp_path / "p.json", [record(1), record(2), record("1")])
    with pytest.raises(InputError, match=r"record 3 \(patient_id '1'\).* record 1"):
        export_patients(Resolved(ConvertSettings(input=(source,), output=tmp_path / "out"), {}), name)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", FORMATS)
def test_ids_of_two_kinds_and_events_without_a_place(name: str, tmp_path: Path) -> None:
    visit = {"date": "20220315", "system": "visit", "code": "IMP"}
    source = write_records(tmp_path / "p.json", [record(1, events=[visit]), record("a")])
    read = PatientInput([source])
    (tmp_path / name).mkdir()
    counts = EXPORTERS[name].write(tmp_path / name, name, read.chunks(), read.origin)
    patients = next(PatientInput([tmp_path / name]).chunks())
    assert len(patients) == counts.patients == 2 and patients.patient_ids[0] == "1"
    assert counts.events == len(patients.events.codes) == (11 if name == "csv" else 10)


def test_fhir_is_valid_by_its_schema(population: Path, tmp_path: Path) -> None:
    from fhir.resources.R4B import get_fhir_model_class

    folder, kinds = export(population, tmp_path / "fhir", "fhir"), set()
    for path in folder.glob("*.ndjson"):
        lines = path.read_bytes().splitlines()
        for line in lines[:: max(len(lines) // 20, 1)]:
            get_fhir_model_class(path.stem).model_validate_json(line)
        kinds.add(path.stem)
    events = {"Condition", "MedicationRequest", "Procedure", "Observation"}
    assert kinds == events | {"Patient", "Coverage", "Encounter"}
