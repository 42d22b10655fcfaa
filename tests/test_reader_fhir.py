"""FHIR: bulk exports and Bundles, what is read of each resource, and damaged and odd files."""

import gzip
import json
import os
import shutil
from collections import Counter
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from conftest import ROOT, write_records
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exmed_bert.codes.icd10cm_list import billable
from exmed_bert.console import InputError, OptionError
from exmed_bert.data.patient import EPOCH, NO_DAY, PatientColumns
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.data.readers.registry import reader_of
from exmed_bert.data.readers.source import Source
from exmed_bert.data.static_columns import BUILT_IN, StaticColumn
from exmed_bert.settings import ReadingSettings

EXTRACT = ROOT / "tests" / "fixtures" / "real" / "fhir_clinosim"
ICD10, SNOMED, ATC = "http://hl7.org/fhir/sid/icd-10-cm", "http://snomed.info/sct", "http://www.whocc.no/atc"
RXNORM, NDC = "http://www.nlm.nih.gov/research/umls/rxnorm", "http://hl7.org/fhir/sid/ndc"

Resource = dict[str, Any]
Found = list[tuple[date, str, str]]


def codes(*codings: tuple[str, str]) -> Resource:
    return {"coding": [{"system": system, "code": code} for system, code in codings]}


def patient(id: str = "p", **fields: Any) -> Resource:
    return {"resourceType": "Patient", "id": id, "birthDate": "1960-05-01", "gender": "female"} | fields


def condition(icd10: str = "I10", /, **fields: Any) -> Resource:
    return {
        "resourceType": "Condition",
        "code": codes((ICD10, icd10)),
        "subject": {"reference": "Patient/p"},
        "recordedDate": "2020-03-04",
    } | fields


def drug(kind: str = "MedicationRequest", **fields: Any) -> Resource:
    return {
        "resourceType": kind,
        "status": "completed",
        "intent": "order",
        "medicationCodeableConcept": codes((ATC, "C10AA05")),
        "subject": {"reference": "Patient/p"},
        "authoredOn": "2020-03-04",
        "effectiveDateTime": "2020-03-04",
        "whenHandedOver": "2020-03-04",
    } | fields


def encounter(start: str | None, end: str | None, code: str = "IMP", **fields: Any) -> Resource:
    return {
        "resourceType": "Encounter",
        "id": "e",
        "status": "finished",
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": code},
        "subject": {"reference": "Patient/p"},
        "period": {key: time for key, time in (("start", start), ("end", end)) if time},
    } | fields


def write(folder: Path, *resources: Resource) -> Path:
    """Write resources as a bulk export does."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in {resource["resourceType"] for resource in resources}:
        lines = [orjson.dumps(resource) + b"\n" for resource in resources if resource["resourceType"] == kind]
        (folder / f"{kind}.ndjson").write_bytes(b"".join(lines))
    return folder


def read(
    *paths: Path, static: tuple[StaticColumn, ...] = BUILT_IN, **given: Any
) -> tuple[PatientColumns, PatientInput]:
    """Return the patients, few enough for one chunk, with codes as they are written; and the input."""
    source = PatientInput(paths, ReadingSettings(**given), static)
    (patients,) = source.quiet_chunks(as_written=True)
    return patients, source


def events_of(patients: PatientColumns) -> dict[Any, Found]:
    events = patients.events
    found: dict[Any, Found] = {patient_id: [] for patient_id in patients.patient_ids}
    for row, code, day in zip(events.patients(), events.codes, events.days, strict=True):
        found[patients.patient_ids[row]].append((EPOCH + timedelta(days=int(day)), *events.table[code]))
    return found


def events(*resources: Resource, folder: Path, **given: Any) -> Found:
    """Return the events of the patient ``p``."""
    return events_of(read(write(folder, patient(), *resources), **given)[0])["p"]


def counts(source: PatientInput, file: str) -> Counter[str]:
    return source.summary.files[file]


# --- the extract ---


def test_the_extract() -> None:
    patients, source = read(EXTRACT)
    assert source.read_as == "FHIR (resources in Condition.ndjson.gz)"
    assert len(patients) == 7
    assert set(patients.static["state"]) == {"MA"} and set(patients.static["sex"]) <= {"female", "male"}
    assert patients.birth_years[patients.patient_ids.index("pt-bf7b538c773d")] == 1931
    systems = Counter(system for found in events_of(patients).values() for _, system, _ in found)
    assert systems["icd10cm"] == 65 and set(systems) == {"icd10cm", "rxnorm"}
    assert source.summary.repeats == 0 and not source.summary.notes
    requests = counts(source, "MedicationRequest.ndjson.gz")
    assert (requests["rows"], requests["intent instance-order"]) == (295, 72)
    assert systems["rxnorm"] == 223 - requests["without a code"]
    assert counts(source, "Condition.ndjson.gz") == {"rows": 65}
    assert counts(source, "Encounter.ndjson.gz") == {"rows": 88}
    assert counts(source, "Patient.ndjson") == {"rows": 7}
    # The first condition of the first patient, as it stands in the file.
    assert (date(2019, 6, 1), "icd10cm", "I10") in events_of(patients)["pt-bf7b538c773d"]


def test_the_extract_without_a_map() -> None:
    """No drug has an ATC code; 61 of the conditions have a code that a diagnosis is to be coded with."""
    (patients,) = PatientInput([EXTRACT], ReadingSettings()).chunks()
    found = [event for listed in events_of(patients).values() for event in listed]
    assert Counter(system for _, system, _ in found) == {"icd10cm": 65}
    assert sum(code.replace(".", "") in billable() for *_, code in found) == 61
    assert {"O24.9", "S72.0"} <= {code for *_, code in found if code.replace(".", "") not in billable()}


def test_the_extract_with_all_intents() -> None:
    patients, source = read(EXTRACT, fhir_intents="all")
    systems = Counter(system for found in events_of(patients).values() for _, system, _ in found)
    assert counts(source, "MedicationRequest.ndjson.gz") == {"rows": 295, "without a code": 42}
    assert systems["rxnorm"] + source.summary.repeats == 253


def test_stays_of_the_extract() -> None:
    lines = gzip.decompress((EXTRACT / "Encounter.ndjson.gz").read_bytes()).splitlines()
    stays = [found for found in map(orjson.loads, lines) if found["class"]["code"] == "IMP"]
    lengths = [
        date.fromisoformat(stay["period"]["end"][:10]) - date.fromisoformat(stay["period"]["start"][:10])
        for stay in stays
    ]
    assert sum(length > timedelta(days=7) for length in lengths) == 2
    long = {stay["subject"]["reference"][8:] for stay, days in zip(stays, lengths, strict=True) if days.days > 7}
    short = {stay["subject"]["reference"][8:] for stay in stays} - long
    patients, _ = read(EXTRACT)
    had = dict(zip(patients.patient_ids, patients.plos.tolist(), strict=True))
    assert {p for p, plos in had.items() if plos == 1} == long
    assert {p for p, plos in had.items() if plos == 0} == short


def test_the_extract_by_the_dates_of_the_record() -> None:
    lines = gzip.decompress((EXTRACT / "Condition.ndjson.gz").read_bytes()).splitlines()
    for option, field in (("onset", "onsetDateTime"), ("recorded", "recordedDate")):
        patients, source = read(EXTRACT, fhir_date=option)
        found = sorted(
            (who, *one) for who, listed in events_of(patients).items() for one in listed if one[1] == "icd10cm"
        )
        expected = {
            (
                c["subject"]["reference"][8:],
                date.fromisoformat(c[field][:10]),
                "icd10cm",
                c["code"]["coding"][0]["code"],
            )
            for c in map(orjson.loads, lines)
        }
        assert found == sorted(expected)
        assert len(found) + source.summary.repeats == 65 or field == "recordedDate"


def test_the_extract_as_bundles_is_the_same(tmp_path: Path) -> None:
    """One Bundle per patient, as Synthea writes them; then all in one file of lines."""
    by_patient: dict[str, list[Resource]] = {}
    for path in sorted(EXTRACT.glob("*.ndjson*")):
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        for resource in map(orjson.loads, content.splitlines()):
            who = resource["id"] if resource["resourceType"] == "Patient" else resource["subject"]["reference"][8:]
            by_patient.setdefault(who, []).append(resource)
    bundles, lines = tmp_path / "bundles", tmp_path / "lines"
    bundles.mkdir()
    lines.mkdir()
    for who, resources in by_patient.items():
        entries = [{"fullUrl": f"urn:uuid:{resource['id']}", "resource": resource} for resource in resources]
        bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
        (bundles / f"{who}.json").write_text(json.dumps(bundle, indent=2).replace('"Patient/', '"urn:uuid:'))
    everything = [resource for resources in by_patient.values() for resource in resources]
    with gzip.open(lines / "export.jsonl.gz", "wb") as file:
        file.write(b"\n".join(map(orjson.dumps, everything)))
    patients, _ = read(EXTRACT)
    expected = {who: sorted(found) for who, found in events_of(patients).items()}
    plos = dict(zip(patients.patient_ids, patients.plos.tolist(), strict=True))
    for folder in (bundles, lines):
        patients, source = read(folder)
        assert {who: sorted(found) for who, found in events_of(patients).items()} == expected
        assert dict(zip(patients.patient_ids, patients.plos.tolist(), strict=True)) == plos
        assert counts(source, "Condition (7 files)" if folder == bundles else "Condition (1 file)")["rows"] == 65


# --- files ---


@pytest.mark.parametrize(
    "name",
    [
        "Patient.ndjson",
        "Patient.000.ndjson",
        "1.Patient.ndjson",
        "patient.jsonl",
        "PATIENT-2.NDJSON",
        "Patient/0.ndjson",
    ],
)
def test_names_of_bulk_files(tmp_path: Path, name: str) -> None:
    write(tmp_path, condition())
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(orjson.dumps(patient()))
    _, source = read(tmp_path)
    assert source.summary.files == {Path(name).name: {"rows": 1}, "Condition.ndjson": {"rows": 1}}


def test_shards_and_gzip(tmp_path: Path) -> None:
    for shard in range(3):
        write(tmp_path, patient(f"p{shard}"), condition(f"I1{shard}", subject={"reference": f"Patient/p{shard}"}))
        for kind in ("Patient", "Condition"):
            content = (tmp_path / f"{kind}.ndjson").read_bytes()
            (tmp_path / f"{kind}.{shard:03}.ndjson.gz").write_bytes(gzip.compress(content, mtime=0))
            (tmp_path / f"{kind}.ndjson").unlink()
    (tmp_path / "._Patient.000.ndjson").write_bytes(b"\x00\x05")
    (tmp_path / "MedicationRequest.000.ndjson").touch()  # bulk exports have empty files too
    patients, source = read(tmp_path)
    assert events_of(patients) == {f"p{i}": [(date(2020, 3, 4), "icd10cm", f"I1{i}")] for i in range(3)}
    assert counts(source, "Condition (3 files)") == {"rows": 3}


def test_what_is_not_read_is_said(tmp_path: Path) -> None:
    write(tmp_path, patient(), condition(), {"resourceType": "Observation", "id": "o"})
    (tmp_path / "bundle.json").write_text(
        '{\n "resourceType": "Bundle", "entry": [{"resource": {"resourceType": "Claim"}}]}'
    )
    (tmp_path / "manifest.json").write_text('{"transactionTime": "2021"}')
    _, source = read(tmp_path)
    assert source.summary.notes == [
        "There are no Encounter resources: prolonged stays are not known.",
        "Resources of these types are not read: Claim, Observation.",
        "Files without FHIR resources are not read: manifest.json.",
    ]


def test_the_fingerprint_is_that_of_what_is_read(tmp_path: Path) -> None:
    write(tmp_path, patient(), condition())
    before = PatientInput([tmp_path]).origin
    write(tmp_path, {"resourceType": "Observation", "id": "o"})
    assert PatientInput([tmp_path]).origin == before
    write(tmp_path, condition("E11.9"))
    assert PatientInput([tmp_path]).origin != before and not before.generated


@pytest.mark.parametrize("name", ["patients.json", "Patient.json", "patient.jsonl", "condition.jsonl"])
def test_our_own_records_are_not_taken(tmp_path: Path, name: str) -> None:
    path = write_records(tmp_path / name, [{"patient_id": 1, "resource": '"resourceType'}])
    if name.endswith("jsonl"):
        path.write_text('{"patient_id": 1, "birth_year": 1960}\n')
    assert reader_of(Source.at([path]), ReadingSettings())[0].own_record


@pytest.mark.parametrize(
    ("start", "found"),
    [
        (b'\xef\xbb\xbf\n {"resourceType" : "Patient"', True),
        (b'{"contained":[{"resourceType":"Medication"}],"resourceType":"MedicationRequest"}', True),
        (b'{"id": "' + b"a" * 70_000, False),
        (b'{"resourceType": 5}', False),
        (b'{"resourceType": "no type"}', False),
        (b'"resourceType": "Patient"', False),
        (b"", False),
        (b"\x1f\x8b\x00", False),
    ],
)
def test_beginnings_of_files(tmp_path: Path, start: bytes, found: bool) -> None:
    (tmp_path / "some.json").write_bytes(start)
    assert (reader_of(Source.at([tmp_path]), ReadingSettings())[0].name == "fhir") == found


# --- damaged files ---


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"resourceType":"Condition"}\n\n{"resourceType":', "Condition.ndjson: line 3: is no JSON, or is cut short"),
        (b'{"resourceType":"Condition"}\n[1]\n', "Condition.ndjson: line 2: expected a FHIR resource"),
        (b'{"id":"5"}\n', "Condition.ndjson: line 1: expected a FHIR resource"),
        (b"\x00\x01\n", "Condition.ndjson: line 1: is no JSON"),
        (b'{"resourceType":"Condition","id":"\xff"}', "Condition.ndjson: line 1: is no JSON"),
    ],
)
def test_damaged_lines(tmp_path: Path, content: bytes, problem: str) -> None:
    write(tmp_path, patient())
    (tmp_path / "Condition.ndjson").write_bytes(content)
    with pytest.raises(InputError, match=problem) as refused:
        read(tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("cut", [-10, -1000])
def test_damaged_gzip(tmp_path: Path, cut: int) -> None:
    write(tmp_path, patient())
    lines = b"".join(orjson.dumps(condition(id=os.urandom(9).hex())) + b"\n" for _ in range(500))
    (tmp_path / "Condition.000.ndjson.gz").write_bytes(gzip.compress(lines, mtime=0))
    (tmp_path / "Condition.001.ndjson.gz").write_bytes(gzip.compress(lines, mtime=0)[:cut])
    with pytest.raises(InputError, match=r"Condition\.001\.ndjson\.gz: is no whole gzip file"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("b.json", b'{"resourceType": "Bundle",\n "entry": [', r"b\.json: is no JSON, or is cut short: line 2"),
        ("b.json", b'{"resourceType": "Bundle"}\n{"resourceType":', r"b\.json: line 2: is no JSON"),
        ("b.json", b'{"resourceType": "Bundle", "entry": [{"resource": {"id": "1"}}]}', r"b\.json: expected FHIR"),
        (
            "b.json.gz",
            gzip.compress(b'{"resourceType": "Patient"}\n' * 9, mtime=0)[:-3],
            r"b\.json\.gz: is no whole gzip file",
        ),
    ],
)
def test_damaged_bundles(tmp_path: Path, name: str, content: bytes, problem: str) -> None:
    write(tmp_path, patient(), condition())
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=problem):
        read(tmp_path)


def test_missing_types(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no Patient resources, expected Patient\.ndjson or Bundles"):
        read(write(tmp_path / "a", condition()))
    with pytest.raises(InputError, match="holds no resources with codes of patients, expected Condition, Medication"):
        read(write(tmp_path / "b", patient(), encounter("2020-01-01", None)))
    (tmp_path / "c.json").write_text("{}")
    with pytest.raises(InputError, match="holds no Patient resources"):
        read(tmp_path / "c.json", input_format="fhir")


@pytest.mark.parametrize(
    "fields",
    [
        {"code": "I10"},
        {"code": {"coding": {"system": ICD10, "code": "I10"}}},
        {"code": {"coding": ["I10"]}},
        {"code": None},
        {"code": {"text": "Hypertension"}},
        {"code": codes((ICD10, " "))},
        {"code": {"coding": []}},
    ],
)
def test_codes_of_a_wrong_form_are_counted(tmp_path: Path, fields: Resource) -> None:
    write(tmp_path, patient(), condition(**fields), condition())
    patients, source = read(tmp_path)
    assert events_of(patients)["p"] == [(date(2020, 3, 4), "icd10cm", "I10")]
    assert counts(source, "Condition.ndjson") == {"rows": 2, "without a code": 1}


def test_resources_of_another_type_are_counted(tmp_path: Path) -> None:
    write(tmp_path, patient())
    (tmp_path / "Condition.ndjson").write_bytes(b"\n".join(map(orjson.dumps, (condition(), patient(), drug()))))
    _, source = read(tmp_path)
    assert counts(source, "Condition.ndjson") == {"rows": 3, "of another type": 2}


# --- patients ---


def test_patients(tmp_path: Path) -> None:
    home, old = {"use": "home", "state": "NY"}, {"use": "old", "state": "TX"}
    write(
        tmp_path,
        patient("a", gender="male", birthDate="1950", address=[old, {"state": "MA"}, home], deceasedBoolean=False),
        patient("b", gender="other", birthDate="1950-07", address=[{"use": "home"}, old, {"state": "Ohio"}]),
        patient("c", gender=None, address=[old], deceasedBoolean=True),
        patient("d", address="Boston", deceasedDateTime="2021-02-03T23:50:00-05:00"),
        patient("e", deceasedDateTime="2020-02"),
        patient("f", deceasedDateTime="2020"),
        patient("g", birthDate=None),
        patient(""),
        patient("a"),
        condition(),
    )
    patients, source = read(tmp_path)
    assert patients.patient_ids == list("abcdef")
    assert patients.birth_years.tolist() == [1950, 1950, 1960, 1960, 1960, 1960]
    births = [None if day == NO_DAY else EPOCH + timedelta(days=int(day)) for day in patients.period("birth_date")]
    assert births == [None, date(1950, 7, 1), *[date(1960, 5, 1)] * 4]
    assert patients.static["sex"] == ["female", "other", None, "female", "female", "female"]  # of two, the least
    assert patients.static["state"] == ["NY", "Ohio", "TX", None, None, None]
    deaths = [None if day == NO_DAY else EPOCH + timedelta(days=int(day)) for day in patients.period("death_date")]
    assert deaths == [None, None, None, date(2021, 2, 3), date(2020, 2, 29), date(2020, 12, 31)]
    assert counts(source, "Patient.ndjson") == {"rows": 9, "without an id": 1}
    assert source.summary.excluded == {"no birth year": 1}
    assert counts(source, "Condition.ndjson") == {"rows": 1, "of no patient": 1}


def test_keys_that_stand_twice_in_a_patient_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, patient("a", gender="male"), patient("b", gender="male"), condition(subject={"reference": "a"}))
    path = tmp_path / "Patient.ndjson"
    text = path.read_text()
    read(tmp_path)
    assert "second time" not in capsys.readouterr().err
    path.write_text(text.replace('"gender"', '"gender": "female", "gender"', 1))
    read(tmp_path)
    said = capsys.readouterr().err
    assert "Patient.ndjson: 1 keys stand a second time in their resource, of which the first is read: 'gender'" in said


def test_race_and_ethnicity_where_they_are_declared(tmp_path: Path) -> None:
    url = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-"
    race = [
        {"url": "ombCategory", "valueCoding": {"code": "2106-3", "display": "White"}},
        {"url": "text", "valueString": "Caucasian"},
    ]
    extension = [
        {"url": "http://other", "valueCode": "F"},
        {"url": url + "race", "extension": race},
        {"url": url + "ethnicity", "extension": [{"url": "text", "valueString": "Not Hispanic"}]},
    ]
    columns = (*BUILT_IN, StaticColumn("race", "race", ("WHITE",)), StaticColumn("ethnicity", "ethnicity", ("X",)))
    write(tmp_path, patient("a", extension=extension), patient("b"), condition())
    patients, _ = read(tmp_path, static=columns)
    assert patients.static["race"] == ["White", None] and patients.static["ethnicity"] == ["Not Hispanic", None]


def test_ids_are_numbers_where_all_are(tmp_path: Path) -> None:
    write(tmp_path, patient("12"), patient("-3"), condition(subject={"reference": "Patient/12"}))
    assert events_of(read(tmp_path)[0]) == {12: [(date(2020, 3, 4), "icd10cm", "I10")], -3: []}
    write(tmp_path, patient("012"), patient("12"), condition(subject={"reference": "Patient/012"}))
    assert list(events_of(read(tmp_path)[0])) == ["012", "12"]


@pytest.mark.parametrize(
    ("reference", "found"),
    [
        ("Patient/p", True),
        ("https://host/fhir/Patient/p", True),
        ("https://Patient/fhir/Patient/p/_history/2", True),
        ("Patient/p/_history/1", True),
        ("urn:uuid:p", True),
        ("Group/p", False),
        ("p", False),
        ("Patient/", False),
        ("Patient?identifier=p", False),
        ("#p", False),
        (None, False),
    ],
)
def test_references_to_patients(tmp_path: Path, reference: str | None, found: bool) -> None:
    write(tmp_path, patient(), condition(subject={"reference": reference}))
    patients, source = read(tmp_path)
    assert bool(events_of(patients)["p"]) == found
    assert counts(source, "Condition.ndjson")["of no patient"] == (not found)


# --- conditions ---


def test_verification(tmp_path: Path) -> None:
    def verified(status: str) -> Resource:
        system = "http://terminology.hl7.org/CodeSystem/condition-ver-status"
        return {
            "verificationStatus": {"coding": [{"system": "local", "code": "x"}, {"system": system, "code": status}]}
        }

    statuses = ("confirmed", "provisional", "refuted", "entered-in-error")
    resources = [condition(f"I1{i}", **verified(status)) for i, status in enumerate(statuses)]
    write(tmp_path, patient(), *resources, condition("I15", verificationStatus="refuted"))
    patients, source = read(tmp_path)
    assert [code for *_, code in events_of(patients)["p"]] == ["I10", "I11"]
    expected = {"rows": 5, "status refuted": 2, "status entered-in-error": 1}
    assert counts(source, "Condition.ndjson") == expected


@pytest.mark.parametrize(
    ("fields", "onset", "recorded"),
    [
        ({"onsetDateTime": "2019-06-02T23:30:00-05:00"}, date(2019, 6, 2), date(2020, 3, 4)),
        ({"onsetPeriod": {"start": "2019-06-02", "end": "2020"}}, date(2019, 6, 2), date(2020, 3, 4)),
        ({"onsetDateTime": "2019-06"}, date(2019, 6, 1), date(2020, 3, 4)),
        ({"onsetDateTime": "2019"}, date(2019, 1, 1), date(2020, 3, 4)),
        ({"onsetDateTime": "2019-02-30"}, date(2020, 3, 4), date(2020, 3, 4)),
        ({"onsetAge": {"value": 40}}, date(2020, 3, 4), date(2020, 3, 4)),
        ({"onsetDateTime": "2019-06-02", "recordedDate": None}, date(2019, 6, 2), date(2019, 6, 2)),
        ({"recordedDate": None, "encounter": {"reference": "Encounter/e"}}, date(2018, 1, 9), date(2018, 1, 9)),
        ({"recordedDate": None, "encounter": {"reference": "Encounter/f"}}, None, None),
        ({"recordedDate": None}, None, None),
    ],
)
def test_dates_of_conditions(tmp_path: Path, fields: Resource, onset: date | None, recorded: date | None) -> None:
    stays = [encounter("2018-01-09T10:00:00Z", None), encounter("2017-01-09", None, id="f", status="entered-in-error")]
    for option, expected in (("onset", onset), ("recorded", recorded)):
        found = events(condition(**fields), condition("E11.9"), *stays, folder=tmp_path, fhir_date=option)
        assert [day for day, _, code in found if code == "I10"] == ([expected] if expected else [])


def test_partial_dates_are_counted(tmp_path: Path) -> None:
    write(tmp_path, patient(), *(condition(f"I1{i % 7}", onsetDateTime=f"20{i:02}") for i in range(20)), condition())
    assert read(tmp_path)[1].summary.notes[-1] == (
        "Condition.ndjson: 20 dates are a year or a month only, and are read as its first day."
    )
    write(tmp_path, condition(onsetDateTime="2020"))
    assert "Condition.ndjson: <11 dates" in read(tmp_path)[1].summary.notes[-1]


@pytest.mark.parametrize(
    ("codings", "taken"),
    [
        ([(SNOMED, "38341003"), (ICD10, "I10")], ("icd10cm", "I10")),
        ([(SNOMED, "38341003"), ("http://hl7.org/fhir/sid/icd-9-cm", "401.9")], ("icd9cm", "401.9")),
        ([("http://loinc.org", "8867-4"), (SNOMED, "38341003")], ("snomedct", "38341003")),
        ([("http://local", "X"), ("http://loinc.org", "8867-4")], ("loinc", "8867-4")),
        ([(ICD10, ""), (SNOMED, "38341003")], ("snomedct", "38341003")),
        ([(ICD10, "I10"), (ICD10, "I11.9")], ("icd10cm", "I10")),
        ([(ICD10.upper(), "I10")], ("icd10cm", "I10")),
        ([("urn:oid:2.16.840.1.113883.6.90", "I10")], ("icd10cm", "I10")),
        ([("http://mimic.mit.edu/fhir/mimic/CodeSystem/mimic-diagnosis-icd9", "4019")], ("icd9cm", "4019")),
    ],
)
def test_one_coding_of_several(tmp_path: Path, codings: list[tuple[str, str]], taken: tuple[str, str]) -> None:
    assert events(condition(code=codes(*codings)), folder=tmp_path) == [(date(2020, 3, 4), *taken)]


def test_codings_of_unknown_systems_are_counted(tmp_path: Path) -> None:
    who = "http://hl7.org/fhir/sid/icd-10"  # the WHO's, which is not ICD-10-CM
    write(
        tmp_path,
        patient(),
        condition(),
        condition(code=codes((who, "I10"), ("http://local", "X"))),
        condition(code={"coding": [{"code": "I10"}]}),
    )
    patients, source = read(tmp_path)
    assert len(events_of(patients)["p"]) == 1
    assert source.summary.families == {who: 1}
    assert counts(source, "Condition.ndjson") == {"rows": 3, "of no code system": 1}


def test_repeats_are_read_once(tmp_path: Path) -> None:
    write(tmp_path, patient(), condition(), condition(onsetDateTime="2020-03-04T08:00:00Z"), condition("E11.9"))
    patients, source = read(tmp_path)
    assert [code for *_, code in events_of(patients)["p"]] == ["I10", "E11.9"]
    assert source.summary.repeats == 1


# --- drugs ---


@pytest.mark.parametrize(
    ("kind", "read_statuses", "skipped"),
    [
        (
            "MedicationRequest",
            ("active", "on-hold", "completed", "stopped", "unknown"),
            ("entered-in-error", "cancelled", "draft"),
        ),
        ("MedicationStatement", ("active", "completed", "stopped"), ("entered-in-error", "not-taken", "intended")),
        (
            "MedicationDispense",
            ("completed", "in-progress"),
            ("entered-in-error", "cancelled", "declined", "preparation"),
        ),
        ("MedicationAdministration", ("completed", "in-progress", "stopped"), ("entered-in-error", "not-done")),
    ],
)
def test_statuses(tmp_path: Path, kind: str, read_statuses: tuple[str, ...], skipped: tuple[str, ...]) -> None:
    resources = [
        drug(kind, status=status, medicationCodeableConcept=codes((ATC, f"C10AA0{i}")))
        for i, status in enumerate((*read_statuses, *skipped))
    ]
    write(tmp_path, patient(), *resources)
    patients, source = read(tmp_path)
    assert len(events_of(patients)["p"]) == len(read_statuses)
    assert counts(source, f"{kind}.ndjson") == {"rows": len(resources)} | {f"status {one}": 1 for one in skipped}


@pytest.mark.parametrize(
    ("kind", "fields", "day"),
    [
        ("MedicationRequest", {"authoredOn": "2019-06-02T23:30:00-05:00"}, date(2019, 6, 2)),
        ("MedicationStatement", {"effectiveDateTime": "2019-06-02", "dateAsserted": "2021"}, date(2019, 6, 2)),
        ("MedicationStatement", {"effectivePeriod": {"start": "2019-06"}, "dateAsserted": "2021"}, date(2019, 6, 1)),
        ("MedicationStatement", {"dateAsserted": "2021-05-06"}, date(2021, 5, 6)),
        ("MedicationDispense", {"whenHandedOver": "2019-06-02", "whenPrepared": "2019-06-01"}, date(2019, 6, 2)),
        ("MedicationDispense", {"whenPrepared": "2019-06-01"}, date(2019, 6, 1)),
        ("MedicationAdministration", {"effectiveDateTime": "2019-06-02T10:00:00Z"}, date(2019, 6, 2)),
        ("MedicationAdministration", {"effectivePeriod": {"start": "2019-06-02"}}, date(2019, 6, 2)),
        ("MedicationRequest", {"encounter": {"reference": "Encounter/e"}}, date(2018, 1, 9)),
        ("MedicationDispense", {"context": {"reference": "https://host/Encounter/e"}}, date(2018, 1, 9)),
    ],
)
def test_dates_of_drugs(tmp_path: Path, kind: str, fields: Resource, day: date) -> None:
    undated: Resource = dict.fromkeys(("authoredOn", "effectiveDateTime", "whenHandedOver"))
    found = events(drug(kind, **(undated | fields)), encounter("2018-01-09", "2018-01-10"), folder=tmp_path)
    assert found == [(day, "atc", "C10AA05")]


def test_intents(tmp_path: Path) -> None:
    intents = ("order", "plan", "original-order", None, "made up")
    resources = [
        drug(intent=intent, medicationCodeableConcept=codes((ATC, f"C10AA0{i}"))) for i, intent in enumerate(intents)
    ]
    write(tmp_path, patient(), *resources, drug(doNotPerform=True), drug(doNotPerform=False))
    for option, found, skipped in (
        ("order", "05", {"intent plan": 1, "intent original-order": 1, "of no known intent": 2}),
        ("original-order, Plan", "12", {"intent order": 2, "of no known intent": 2}),
        ("all", "012345", {}),
    ):
        patients, source = read(tmp_path, fhir_intents=option)
        assert "".join(code[-1] for *_, code in events_of(patients)["p"]) == found
        assert counts(source, "MedicationRequest.ndjson") == {"rows": 7, "not to be performed": 1} | skipped
    for option in ("ordre", "", "order,all"):
        with pytest.raises(OptionError, match=r"--fhir-intents: .*, expected all, or some of proposal, plan, order"):
            read(tmp_path, fhir_intents=option)


@pytest.mark.parametrize(
    "fields",
    [
        {"medicationReference": {"reference": "Medication/m"}},
        {"medicationReference": {"reference": "https://host/fhir/Medication/m"}},
        {"medicationReference": {"reference": "Medication/m/_history/2"}},
        {"medicationReference": {"reference": "urn:uuid:m"}},
        {
            "medicationReference": {"reference": "#x"},
            "contained": [
                {"resourceType": "Practitioner", "id": "y", "code": 5},
                {"resourceType": "Medication", "id": "x", "code": codes((RXNORM, "617310"), (ATC, "C10AA07"))},
            ],
        },
        {"medication": {"reference": {"reference": "Medication/m"}}},
        {"medication": {"concept": codes((ATC, "C10AA07"))}},
        {"medicationCodeableConcept": codes((NDC, "0093-1016-01"), (ATC, "C10AA07"), (RXNORM, "617310"))},
    ],
)
def test_medications(tmp_path: Path, fields: Resource) -> None:
    resources: list[Resource] = [
        {"resourceType": "Medication", "id": "m", "code": codes((RXNORM, "617310"), (ATC, "C10AA07"))},
        {"resourceType": "Medication", "id": "m", "code": codes((ATC, "A10BA02"))},  # a second version of it
    ]
    found = events(drug(**({"medicationCodeableConcept": None} | fields)), *resources, folder=tmp_path)
    assert found == [(date(2020, 3, 4), "atc", "C10AA07")]


def test_systems_of_drugs_in_their_order(tmp_path: Path) -> None:
    for codings, system in (
        ([(NDC, "0093-1016-01"), (RXNORM, "617310")], "rxnorm"),
        ([(SNOMED, "373444002"), (NDC, "0093-1016-01")], "ndc"),
        ([("http://local", "X"), (SNOMED, "373444002")], "snomedct"),
    ):
        assert events(drug(medicationCodeableConcept=codes(*codings)), folder=tmp_path)[0][1] == system


def test_medications_that_are_missing_are_counted(tmp_path: Path) -> None:
    def refers(to: str) -> Resource:
        return drug(medicationCodeableConcept=None, medicationReference={"reference": to})

    write(tmp_path, patient(), condition(), refers("Medication/n"), refers("#x"), refers("Substance/m"))
    expected = {"rows": 3, "of a medication that is missing": 1, "without a code": 2}
    assert counts(read(tmp_path)[1], "MedicationRequest.ndjson") == expected
    write(tmp_path, {"resourceType": "Medication", "id": "m"})
    assert counts(read(tmp_path)[1], "MedicationRequest.ndjson") == expected
    write(tmp_path, {"resourceType": "Medication", "id": "n"})
    assert counts(read(tmp_path)[1], "MedicationRequest.ndjson") == {"rows": 3, "without a code": 3}


# --- stays ---


@pytest.mark.parametrize(
    ("start", "end", "fields", "plos"),
    [
        ("2020-01-01T10:00:00Z", "2020-01-08T10:00:00Z", {}, 0),
        ("2020-01-01T10:00:00Z", "2020-01-08T10:00:01Z", {}, 1),
        ("2020-03-28T10:00:00+01:00", "2020-04-04T10:30:00+02:00", {}, 0),  # the clock went forward in between
        ("2020-01-01", "2020-01-08", {}, 0),
        ("2020-01-01", "2020-01-09", {}, 1),
        ("2020-01-01T23:00:00Z", "2020-01-09", {}, 1),
        ("2020-01-01", None, {}, -1),
        ("2019", "2020", {}, -1),
        ("2020-01-01", "2020-01-09", {"status": "cancelled"}, -1),
        ("2020-01-01", "2020-01-09", {"status": "planned"}, -1),
        ("2020-01-01", "2020-01-09", {"status": "entered-in-error"}, -1),
        ("2020-01-01", "2020-01-09", {"class": {"code": "ACUTE"}}, 1),
        ("2020-01-01", "2020-01-09", {"class": {"code": "NONAC"}}, 1),
        ("2020-01-01", "2020-01-09", {"class": {"code": "AMB"}}, -1),
        ("2020-01-01", "2020-01-09", {"class": {"code": "SS"}}, -1),
        ("2020-01-01", "2020-01-09", {"class": [codes(("v3", "IMP"))]}, 1),  # as R5 has it
        (None, None, {"actualPeriod": {"start": "2020-01-01", "end": "2020-01-09"}, "period": None}, 1),
        ("2020-01-01", "2020-01-09", {"class": None}, -1),
    ],
)
def test_stays(tmp_path: Path, start: str | None, end: str | None, fields: Resource, plos: int) -> None:
    patients, _ = read(write(tmp_path, patient(), condition(), encounter(start, end, **fields)))
    assert patients.plos.tolist() == [plos]


def test_encounters_are_counted(tmp_path: Path) -> None:
    write(tmp_path, patient(), condition(), encounter("2020", None), encounter("2020", None, status="cancelled"))
    assert counts(read(tmp_path)[1], "Encounter.ndjson") == {"rows": 2, "status cancelled": 1}


def test_encounters_in_several_shards_give_one_date(tmp_path: Path) -> None:
    undated = condition(recordedDate=None, encounter={"reference": "Encounter/e"})
    write(
        tmp_path, patient(), undated, condition("E11.9"), encounter("2018-01-09", None), encounter("2018-01-09", None)
    )
    patients, source = read(tmp_path)
    assert [code for *_, code in events_of(patients)["p"]] == ["I10", "E11.9"] and source.summary.repeats == 0


# --- Bundles ---


def test_references_within_a_bundle(tmp_path: Path) -> None:
    """Entries without an id, or with another one than that in their address, are known by the address."""
    person, medication = patient(), {"resourceType": "Medication", "code": codes((ATC, "A10BA02"))}
    nameless: Resource = {key: value for key, value in person.items() if key != "id"}
    entries = [
        ("urn:uuid:1", person),
        ("urn:uuid:2", nameless | {"birthDate": "1970"}),
        ("urn:uuid:3", medication),
        ("https://host/fhir/Patient/q", nameless),
        (None, condition("I10", subject={"reference": "urn:uuid:1"})),
        ("urn:uuid:5", condition("I11.9", subject={"reference": "urn:uuid:2"})),
        ("urn:uuid:6", condition("I12.9", subject={"reference": "https://host/fhir/Patient/q"})),
        (
            "urn:uuid:7",
            drug(
                subject={"reference": "Patient/p"},
                medicationCodeableConcept=None,
                medicationReference={"reference": "urn:uuid:3"},
            ),
        ),
        ("urn:uuid:8", None),
    ]
    listed = [{"fullUrl": url, "resource": resource} for url, resource in entries]
    (tmp_path / "b.json").write_bytes(orjson.dumps({"resourceType": "Bundle", "entry": [*listed, "odd"]}))
    day = date(2020, 3, 4)
    assert events_of(read(tmp_path)[0]) == {
        "p": [(day, "icd10cm", "I10"), (day, "atc", "A10BA02")],
        "2": [(day, "icd10cm", "I11.9")],
        "q": [(day, "icd10cm", "I12.9")],
    }


def test_bundles_beside_bulk_files(tmp_path: Path) -> None:
    write(tmp_path, patient("a"), condition(subject={"reference": "Patient/a"}))
    nested = {"resourceType": "Bundle", "entry": [{"resource": patient("b")}]}
    more = condition(subject={"reference": "Patient/b"})
    content = {"resourceType": "Bundle", "entry": [{"resource": nested}, {"resource": more}]}
    (tmp_path / "more.json.gz").write_bytes(gzip.compress(json.dumps(content, indent=1).encode()))
    (tmp_path / "list.json").write_bytes(orjson.dumps([patient("c")]))
    patients, source = read(tmp_path)
    assert {who: len(found) for who, found in events_of(patients).items()} == {"a": 1, "b": 1, "c": 0}
    assert counts(source, "Patient (3 files)") == {"rows": 3} and counts(source, "Condition (2 files)") == {"rows": 2}


def test_nothing_is_left_in_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    (tmp_path / "b.json").write_bytes(orjson.dumps({"resourceType": "Bundle", "entry": [{"resource": patient()}]}))
    with pytest.raises(InputError):
        read(tmp_path / "b.json")
    assert not list(temporary.iterdir())


# --- properties ---

DAYS = st.dates(date(1990, 1, 1), date(2025, 1, 1))
EVENTS = st.lists(st.tuples(st.sampled_from(["a", "b", "7"]), DAYS, st.sampled_from(["I10", "E11.9", "C50.1"])))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(EVENTS, st.integers(1, 4), st.booleans())
def test_whatever_is_written_is_read(
    tmp_path: Path, written: list[tuple[str, date, str]], files: int, bundle: bool
) -> None:
    """The same events come out of any division into files, by patient and day, each once."""
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    people = [patient(who) for who in "ab7"]
    rows = [
        condition(code, subject={"reference": f"Patient/{who}"}, onsetDateTime=day.isoformat())
        for who, day, code in written
    ]
    write(tmp_path, *people, condition(subject={"reference": "Patient/nobody"}))
    for number in range(files):
        part = rows[number::files]
        if bundle:
            content: Any = {"resourceType": "Bundle", "entry": [{"resource": one} for one in part]}
            (tmp_path / f"{number}.json").write_text(json.dumps(content, indent=number or None))
        else:
            (tmp_path / f"Condition.{number}.ndjson").write_bytes(b"\n".join(map(orjson.dumps, part)))
    found = events_of(read(tmp_path)[0])
    for who in "ab7":
        assert Counter(found[who]) == Counter({(day, "icd10cm", code) for name, day, code in written if name == who})
        assert [day for day, *_ in found[who]] == sorted(day for day, *_ in found[who])
