"""Values of measurements and procedures in each format, read where their code systems are kept."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reading import write_tables

from exmed_bert.data.measured import FLAGS
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.settings import ReadingSettings

A1C, DAY = "4548-4", "2020-01-11"
KEPT = "loinc,icd10pcs,cpt,hcpcs"
Found = list[tuple[str, str, float | None, str | None]]


def read(folder: Path, keep: str | None = KEPT, **options: Any) -> Found:
    """Return code system, code, value and flag of the events that are kept beside diagnoses and drugs."""
    (patients,) = PatientInput([folder], ReadingSettings(keep_systems=keep, **options)).chunks()
    events, found = patients.events, []
    for place, code in enumerate(events.codes.tolist()):
        system, text = events.table[code]
        if system not in ("icd10cm", "atc"):
            value = np.nan if events.measured is None else float(events.measured.values[place])
            flag = -1 if events.measured is None else int(events.measured.flags[place])
            shown = None if np.isnan(value) else round(value, 4)
            found.append((system, text, shown, None if flag < 0 else FLAGS[flag]))
    return found


def test_own_tables(tmp_path: Path) -> None:
    people = [["patient_id", "birth_year"], [1, 1950]]
    header = ["patient_id", "date", "system", "code", "value", "flag"]
    labs = [
        header,
        [1, DAY, "loinc", A1C, "7.2", "High"],
        [1, DAY, "loinc", A1C, "5", ""],
        [1, DAY, "cpt", "83036", "", ""],
    ]
    folder = write_tables(tmp_path / "usual", people=people, labs=labs)
    expected = [("loinc", A1C, 7.2, "H"), ("loinc", A1C, 5.0, None), ("cpt", "83036", None, None)]
    assert read(folder) == expected
    renamed = [["patient_id", "date", "system", "code", "RESULT", "ABN"], *labs[1:]]
    columns = ("patient=patient_id,date=date,system=system,code=code,value=RESULT,flag=ABN[High:H]",)
    folder = write_tables(tmp_path / "renamed", people=people, labs=renamed)
    assert read(folder, columns=(*(f"labs.csv:{text}" for text in columns), "people.csv:birth=birth_year")) == expected
    wide = [["patient_id", "date", "A", "B", "value"], [1, DAY, A1C, "718-7", "3.5"]]
    folder = write_tables(tmp_path / "wide", people=people, labs=wide)
    columns = ("labs.csv:patient=patient_id,date=date,code=A+B,system=loinc", "people.csv:birth=birth_year")
    assert read(folder, columns=columns) == [("loinc", A1C, 3.5, None), ("loinc", "718-7", 3.5, None)]


def fhir(folder: Path, *resources: dict[str, Any]) -> Path:
    """Write resources, and a patient with a diagnosis."""
    subject = {"reference": "Patient/p1"}
    i10 = {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "I10"}]}
    condition = {"resourceType": "Condition", "subject": subject, "code": i10, "onsetDateTime": DAY}
    every = [{"resourceType": "Patient", "id": "p1", "birthDate": "1950"}, condition]
    every += [{"subject": subject, "status": "final"} | resource for resource in resources]
    folder.mkdir()
    for resource in every:
        with open(folder / f"{resource['resourceType']}.ndjson", "a") as file:
            file.write(json.dumps(resource) + "\n")
    return folder


def test_fhir(tmp_path: Path) -> None:
    lab = {"resourceType": "Observation", "effectiveDateTime": f"{DAY}T08:00:00Z"}
    lab["code"] = {"coding": [{"system": "urn:lab", "code": "x"}, {"system": "http://loinc.org", "code": A1C}]}
    ranged = {"valueQuantity": {"value": 7.2}, "referenceRange": [{"low": {"value": 4}, "high": {"value": 5.6}}]}
    said = {"valueQuantity": {"value": 5.1}, "interpretation": [{"coding": [{"code": "LL"}]}]}
    other = ranged | {
        "valueQuantity": {"value": 7.5},
        "interpretation": [{"coding": [{"code": "NEG"}]}],
    }  # begins like N, and is another thing
    done = {"resourceType": "Procedure", "performedPeriod": {"start": DAY}, "status": "completed"}
    done["code"] = {"coding": [{"system": "http://www.cms.gov/Medicare/Coding/ICD10", "code": "0DTJ4ZZ"}]}
    others = [lab | {"status": "cancelled"}, done | {"status": "not-done"}]
    folder = fhir(
        tmp_path / "fhir", lab | ranged, lab | said, lab | other, lab | {"valueString": "high"}, done, *others
    )
    labs = [("loinc", A1C, 7.2, "H"), ("loinc", A1C, 5.1, "L"), ("loinc", A1C, None, None)]
    labs.insert(2, ("loinc", A1C, 7.5, "H"))
    assert read(folder) == [("icd10pcs", "0DTJ4ZZ", None, None), *labs]
    visit = {"resourceType": "Encounter", "id": "e", "class": {"code": "EMER"}, "period": {"start": DAY}}
    seen = fhir(tmp_path / "seen", visit | {"status": "finished"}, visit | {"id": "f", "status": "planned"})
    assert read(seen, "visit") == [("visit", "EMER", None, None)]
    assert read(folder, "loinc") == labs and read(folder, None) == []


def test_omop(tmp_path: Path) -> None:
    concepts = [["concept_id", "vocabulary_id", "concept_class_id", "concept_code"]]
    concepts += [[1, "ICD10CM", "", "I10"], [2, "LOINC", "", A1C], [3, "CPT4", "", "83036"], [4, "Local", "", "x"]]
    of = ["person_id", "measurement_concept_id", "measurement_source_concept_id", "measurement_date"]
    labs = [[*of, "value_as_number", "range_low", "range_high"]]
    labs += [
        [1, 2, 4, DAY, 7.2, 4, 5.6],
        [1, 2, 0, DAY, 5, 4, 5.6],
        [1, 2, 0, DAY, "", "", ""],
        [1, 4, 4, DAY, 1, 0, 2],
    ]
    of = ["person_id", "procedure_concept_id", "procedure_source_concept_id", "procedure_date"]
    conditions = ["person_id", "condition_concept_id", "condition_source_concept_id", "condition_start_date"]
    folder = write_tables(
        tmp_path,
        person=[["person_id", "year_of_birth"], [1, 1950]],
        condition_occurrence=[conditions, [1, 0, 1, DAY]],
        procedure_occurrence=[of, [1, 3, 0, DAY]],
        measurement=labs,
        concept=concepts,
    )
    expected = [("loinc", A1C, 7.2, "H"), ("loinc", A1C, 5.0, "N"), ("loinc", A1C, None, None)]
    assert read(folder) == [("cpt", "83036", None, None), *expected]
    visits = [["person_id", "visit_concept_id", "visit_start_date", "visit_end_date"], [1, 9203, DAY, DAY]]
    write_tables(folder, visit_occurrence=[*visits, [1, 9201, DAY, DAY]])
    assert read(folder, "visit") == [("visit", "EMER", None, None), ("visit", "IMP", None, None)]
    assert read(folder, "loinc") == expected and read(folder, None) == []


def test_synthea(tmp_path: Path) -> None:
    observations = [["DATE", "PATIENT", "ENCOUNTER", "CODE", "DESCRIPTION", "VALUE", "UNITS", "TYPE"]]
    observations += [[DAY, "a", "", A1C, "", "7.2", "%", "numeric"], [DAY, "a", "", "72166-2", "", "Never", "", "text"]]
    observations += [[DAY, "a", "", "QALY", "", "3.1", "a", "numeric"]]
    folder = write_tables(
        tmp_path,
        patients=[["Id", "BIRTHDATE", "GENDER"], ["a", "1950-04-30", "F"]],
        encounters=[["Id", "PATIENT"], ["e", "a"]],
        conditions=[["START", "PATIENT", "CODE"], [DAY, "a", "44054006"]],
        observations=observations,
    )
    assert read(folder) == [("loinc", A1C, 7.2, None), ("loinc", "72166-2", None, None)]
    assert read(folder, "snomedct") == [("snomedct", "44054006", None, None)]
    encounters = [["Id", "START", "PATIENT", "ENCOUNTERCLASS"], ["e", f"{DAY}T08:00:00Z", "a", "wellness"]]
    assert read(write_tables(folder, encounters=encounters), "visit") == [("visit", "AMB", None, None)]


@pytest.mark.parametrize("mapped", [True, False])
def test_mimic(mapped: bool, tmp_path: Path) -> None:
    labs = [["subject_id", "itemid", "charttime", "valuenum", "ref_range_lower", "ref_range_upper"]]
    labs += [[1, 50852, f"{DAY} 08:00:00", 7.2, 4, 5.6], [1, 50852, f"{DAY} 18:00:00", 3, 4, 5.6]]
    labs += [[1, 50853, f"{DAY} 08:00:00", 9, "", ""]]
    items = [["itemid", "label", *(["loinc_code"] * mapped)]]
    items += [[50852, "A1c", *([A1C] * mapped)], [50853, "D", *([""] * mapped)]]
    admission = ["subject_id", "hadm_id", "admittime", "dischtime", "deathtime", "admission_type"]
    folder = write_tables(
        tmp_path,
        patients=[["subject_id", "gender", "anchor_age", "anchor_year"], [1, "F", 60, 2020]],
        admissions=[admission, [1, 7, f"{DAY} 07:00:00", f"{DAY} 20:00:00", "", "URGENT"]],
        diagnoses_icd=[["subject_id", "hadm_id", "icd_code", "icd_version"], [1, 7, "I10", 10]],
        procedures_icd=[
            ["subject_id", "chartdate", "icd_code", "icd_version"],
            [1, DAY, "0DTJ4ZZ", 10],
            [1, DAY, "47", 9],
        ],
        labevents=labs,
        d_labitems=items,
    )
    procedures = [("icd10pcs", "0DTJ4ZZ", None, None)]
    assert read(folder, "visit") == [("visit", "IMP", None, None)]
    assert read(folder) == procedures + [("loinc", A1C, 7.2, "H"), ("loinc", A1C, 3.0, "L")] * mapped
    assert read(folder, None) == []
