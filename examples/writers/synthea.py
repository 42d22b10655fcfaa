"""Synthea's CSV: patients, encounters, conditions as SNOMED CT and medications as RxNorm."""

from datetime import date, datetime, time, timedelta
from pathlib import Path
from uuid import UUID

from writers._tables import write_map, write_table

from exmed_bert.codes import code_system
from exmed_bert.data.static_columns import STATE

NAMES = {state: name.title().replace(" Of ", " of ") for name, state in STATE.spellings.items() if "." not in name}
_CLASSES = ("ambulatory", "outpatient", "wellness", "urgentcare")


def write(folder: Path, records: list[dict]) -> None:
    """Write the four tables, and code_map.csv beside the folder."""
    findings = {code: snomed(i) for i, code in enumerate(distinct(records, "diagnoses"), start=1001)}
    drugs = {code: f"9{i:07d}" for i, code in enumerate(distinct(records, "drugs"), start=1)}  # no RXCUI is so large
    patients, encounters, conditions, medications = [], [], [], []
    for number, record in enumerate(records):
        key = identifier(number, 0)
        born = date(record["birth_year"], 1 + number % 12, 1 + number % 28)
        patients.append([key, born, "", record["sex"][0], "Lynn", NAMES[record["patient_state"]]])
        days = sorted({*record["diagnosis_dates"], *record["prescription_dates"]})
        of_day = {}
        for i, written in enumerate(days):
            start = datetime.combine(date.fromisoformat(written), time(9, 30))
            kind, stop = _CLASSES[(number + i) % 4], start + timedelta(minutes=15)
            if i == 0 and record["had_plos"] is not None:
                kind, stop = "inpatient", start + timedelta(days=9 if record["had_plos"] else 2)
            of_day[written] = encounter = identifier(number, i + 1)
            encounters.append([encounter, f"{start:%Y-%m-%dT%H:%M:%SZ}", f"{stop:%Y-%m-%dT%H:%M:%SZ}", key, kind])
        for code, written in zip(record["diagnoses"], record["diagnosis_dates"], strict=True):
            day = date.fromisoformat(written)
            conditions.append([day, "", key, of_day[written], "SNOMED-CT", findings[code]])
        for code, written in zip(record["drugs"], record["prescription_dates"], strict=True):
            start = datetime.combine(date.fromisoformat(written), time(9, 40))
            medications.append([f"{start:%Y-%m-%dT%H:%M:%SZ}", "", key, of_day[written], drugs[code]])
    tables = {
        "patients": (["Id", "BIRTHDATE", "DEATHDATE", "GENDER", "CITY", "STATE"], patients),
        "encounters": (["Id", "START", "STOP", "PATIENT", "ENCOUNTERCLASS"], encounters),
        "conditions": (["START", "STOP", "PATIENT", "ENCOUNTER", "SYSTEM", "CODE"], conditions),
        "medications": (["START", "STOP", "PATIENT", "ENCOUNTER", "CODE"], medications),
    }
    for name, (header, rows) in tables.items():
        write_table(folder / f"{name}.csv.gz", [header, *rows])
    maps = [["snomedct", concept, "icd10cm", code] for code, concept in findings.items()]
    write_map(folder.parent, maps + [["rxnorm", drug, "atc", code] for code, drug in drugs.items()])


def identifier(number: int, part: int) -> UUID:
    """Return the UUID of a patient, part 0, or of an encounter."""
    return UUID(int=number << 96 | part, version=4)


def distinct(records: list[dict], field: str) -> list[str]:
    """Return the codes of a field of all records, sorted."""
    return sorted({code for record in records for code in record[field]})


def snomed(number: int) -> str:
    """Return a concept id that is well-formed but of no concept: its namespace, 9999999, is invented."""
    stem = f"{number}999999910"
    return next(f"{stem}{digit}" for digit in range(10) if code_system("snomedct").normalize(f"{stem}{digit}"))
