"""FHIR R4: a bulk export, NDJSON files per type of resource; drugs as RxNorm, some as ATC, by Medication resources."""

import json
from datetime import date, timedelta
from pathlib import Path

from writers._tables import write_map, write_text

ICD10, SNOMED = "http://hl7.org/fhir/sid/icd-10-cm", "http://snomed.info/sct"
RXNORM, ATC = "http://www.nlm.nih.gov/research/umls/rxnorm", "http://www.whocc.no/atc"
TERMINOLOGY = "http://terminology.hl7.org/CodeSystem/"
HYPERTENSION = ("I10", "38341003")  # a condition that has a second coding
SHARDS = 2  # of conditions


def write(folder: Path, records: list[dict]) -> None:
    """Write the files, and code_map.csv beside the folder."""
    drugs = sorted({code for record in records for code in record["drugs"]})
    rxnorm = {code: f"9{number:07d}" for number, code in enumerate(drugs, start=1)}  # no RXCUI is so large
    resources: dict[str, list[dict]] = {"Patient": [], "Encounter": [], "Condition": [], "MedicationRequest": []}
    resources["Medication"] = [medication(code, number, rxnorm) for number, code in enumerate(drugs)]
    for number, record in enumerate(records):
        resources["Patient"].append(patient(number, record))
        days = sorted({*record["diagnosis_dates"], *record["prescription_dates"]})
        visits = {day: f"e{number}-{i}" for i, day in enumerate(days)}
        for i, (day, visit) in enumerate(visits.items()):
            inpatient = i == 0 and record["had_plos"] is not None
            nights = (9 if record["had_plos"] else 2) if inpatient else 0
            resources["Encounter"].append(encounter(visit, number, date.fromisoformat(day), inpatient, nights))
        for i, (code, day) in enumerate(zip(record["diagnoses"], record["diagnosis_dates"], strict=True)):
            resources["Condition"] += conditions(f"c{number}-{i}", number, code, day, visits[day], i)
        for i, (code, day) in enumerate(zip(record["drugs"], record["prescription_dates"], strict=True)):
            found = drugs.index(code)
            resources["MedicationRequest"] += requests(f"m{number}-{i}", number, found, day, visits[day], i)
    for kind, found in resources.items():
        shards = SHARDS if kind == "Condition" else 1
        for shard in range(shards):
            name = f"{kind}.{shard:03d}.ndjson.gz" if shards > 1 else f"{kind}.ndjson.gz"
            part = found[len(found) * shard // shards : len(found) * (shard + 1) // shards]
            lines = (json.dumps(resource, separators=(",", ":")) + "\n" for resource in part)
            write_text(folder / name, "".join(lines))
    write_map(folder.parent, [["rxnorm", drug, "atc", code] for code, drug in rxnorm.items()])


def concept(*codings: tuple[str, str]) -> dict:
    """Return a CodeableConcept."""
    return {"coding": [{"system": system, "code": code} for system, code in codings]}


def patient(number: int, record: dict) -> dict:
    """Return a patient; of some the birth date is a year only."""
    born = str(record["birth_year"]) + (f"-{1 + number % 12:02d}-{1 + number % 28:02d}" if number % 5 else "")
    return {
        "resourceType": "Patient",
        "id": f"p{number}",
        "gender": record["sex"].lower(),
        "birthDate": born,
        "deceasedBoolean": False,
        "address": [{"use": "home", "state": record["patient_state"]}],
    }


def encounter(visit: str, number: int, day: date, inpatient: bool, nights: int) -> dict:
    """Return an encounter of a quarter of an hour, or of some nights."""
    end = f"{day + timedelta(days=nights)}T15:10:00-05:00" if inpatient else f"{day}T09:45:00-05:00"
    return {
        "resourceType": "Encounter",
        "id": visit,
        "status": "finished",
        "class": {"system": TERMINOLOGY + "v3-ActCode", "code": "IMP" if inpatient else "AMB"},
        "subject": {"reference": f"Patient/p{number}"},
        "period": {"start": f"{day}T09:30:00-05:00", "end": end},
    }


def conditions(own: str, number: int, code: str, day: str, visit: str, i: int) -> list[dict]:
    """Return a condition, some with no date but that of the encounter, and a suspicion that was refuted."""
    status = {kind: concept((TERMINOLOGY + "condition-ver-status", kind)) for kind in ("confirmed", "refuted")}
    codings = [(ICD10, code)]
    if code == HYPERTENSION[0]:
        codings.insert(0, (SNOMED, HYPERTENSION[1]))
    found = {
        "resourceType": "Condition",
        "id": own,
        "verificationStatus": status["confirmed"],
        "code": concept(*codings),
        "subject": {"reference": f"Patient/p{number}"},
        "encounter": {"reference": f"Encounter/{visit}"},
    }
    if i % 10:
        found["recordedDate"] = f"{date.fromisoformat(day)}T09:40:00-05:00"
    suspicion = {"id": f"{own}s", "verificationStatus": status["refuted"], "code": concept((ICD10, "I21.9"))}
    return [found, found | suspicion] if i % 15 == 7 else [found]


def medication(code: str, number: int, rxnorm: dict[str, str]) -> dict:
    """Return a medication; one of eight has its ATC code beside that of RxNorm."""
    codings = [(RXNORM, rxnorm[code])] + ([(ATC, code)] if number % 8 == 0 else [])
    return {"resourceType": "Medication", "id": f"drug{number}", "code": concept(*codings)}


def requests(own: str, number: int, drug: int, day: str, visit: str, i: int) -> list[dict]:
    """Return a prescription, sometimes with the order of one dose that a ward makes of it."""
    order = {
        "resourceType": "MedicationRequest",
        "id": own,
        "status": "active",
        "intent": "order",
        "medicationReference": {"reference": f"Medication/drug{drug}"},
        "subject": {"reference": f"Patient/p{number}"},
        "encounter": {"reference": f"Encounter/{visit}"},
        "authoredOn": f"{date.fromisoformat(day)}T09:40:00-05:00",
    }
    return [order, order | {"id": f"{own}d", "intent": "instance-order"}] if i % 9 == 0 else [order]
