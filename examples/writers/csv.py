"""Tables of one's own: tidy ones with the usual names in data/, a claims extract with names of its own in claims/."""

import shutil
from datetime import date
from pathlib import Path

from writers._tables import write_table

DIAGNOSES_PER_CLAIM = 4


def write(folder: Path, records: list[dict]) -> None:
    """Write people.csv and events.csv, and beside the folder claims/ with members, claims and pharmacy."""
    people, events = [], []
    for record in records:
        people.append([record[field] for field in ("patient_id", "birth_year", "sex", "patient_state", "had_plos")])
        for day, system, code in history(record):
            events.append([record["patient_id"], day, system, code])
    write_table(folder / "people.csv", [["patient_id", "birth_year", "sex", "state", "had_plos"], *people])
    write_table(folder / "events.csv", [["patient_id", "date", "system", "code"], *events])
    claims = folder.parent / "claims"
    shutil.rmtree(claims, ignore_errors=True)
    claims.mkdir()
    write_claims(claims, records)


def history(record: dict) -> list[tuple[date, str, str]]:
    """Return day, system and code of each event in order of the days."""
    lists = (("icd10cm", "diagnoses", "diagnosis_dates"), ("atc", "drugs", "prescription_dates"))
    events = [
        (date.fromisoformat(day), system, code)
        for system, codes, days in lists
        for code, day in zip(record[codes], record[days], strict=True)
    ]
    return sorted(events, key=lambda event: event[0])


def write_claims(folder: Path, records: list[dict]) -> None:
    """Write members.csv, and with a row per claim claims.csv, with a row per fill pharmacy.csv."""
    members, claims, fills = [], [], []
    for record in records:
        member = f"M{record['patient_id']:04d}"
        sex = {"MALE": 1, "FEMALE": 2}[record["sex"]]
        members.append([member, record["birth_year"], sex, record["patient_state"], "NY"[record["had_plos"]]])
        of_day: dict[date, list[str]] = {}
        for day, system, code in history(record):
            if system == "icd10cm":
                of_day.setdefault(day, []).append(code.replace(".", ""))
            else:
                fills.append([member, f"{day:%m/%d/%Y}", code])
        for day, codes in of_day.items():
            for start in range(0, len(codes), DIAGNOSES_PER_CLAIM):
                on_claim = codes[start : start + DIAGNOSES_PER_CLAIM]
                blank = [""] * (DIAGNOSES_PER_CLAIM - len(on_claim))
                claims.append([member, f"{day:%m/%d/%Y}", *on_claim, *blank])
    write_table(folder / "members.csv", [["MEMBER", "YOB", "SEX", "STATE", "LONG_STAY"], *members])
    diagnoses = [f"DX{number}" for number in range(1, DIAGNOSES_PER_CLAIM + 1)]
    write_table(folder / "claims.csv", [["MEMBER", "SVC_DT", *diagnoses], *claims])
    write_table(folder / "pharmacy.csv", [["MEMBER", "FILL_DT", "ATC"], *fills])
