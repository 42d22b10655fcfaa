"""MIMIC-IV: a table per file, dates shifted into the next century, ICD of both versions, drugs as NDC."""

from datetime import date, datetime, time, timedelta
from pathlib import Path

from writers._tables import write_map, write_table

# ICD-9-CM codes that the equivalence maps of CMS translate to one ICD-10-CM code each.
ICD9 = {
    **{"C61": "185", "D64.9": "2859", "E03.9": "2449", "E11.9": "25000", "E55.9": "2689", "E66.9": "27800"},
    **{"E78.2": "2722", "F41.9": "30000", "I10": "4019", "I25.10": "41401", "J06.9": "4659", "J44.9": "496"},
    **{"K21.9": "53081", "N39.0": "5990", "R07.9": "78650", "Z00.00": "V700", "Z00.129": "V202"},
}
LABELER = "99999"  # of our NDC, which are invented


def write(folder: Path, records: list[dict]) -> None:
    """Write hosp/*.csv.gz, and code_map.csv beside the folder."""
    codes = sorted({code for record in records for code in record["drugs"]})
    ndc = {code: f"{LABELER}{number:04d}01" for number, code in enumerate(codes, start=101)}
    patients, admissions, diagnoses, prescriptions = [], [], [], []
    for number, record in enumerate(records):
        subject, shift = 10_000_032 + 7 * number, 140 + 4 * (number % 5)  # leap years stay leap years
        days = sorted({*record["diagnosis_dates"], *record["prescription_dates"]})
        anchor = int(days[0][:4]) + shift
        group = "2011 - 2013" if number % 4 == 0 else "2020 - 2022"
        patients.append([subject, record["sex"][0], anchor - record["birth_year"] - shift, anchor, group, ""])
        insurance = "Medicare" if anchor - record["birth_year"] - shift >= 65 else "Private"
        of_day, previous = {}, None
        for written in days:
            day = shifted(written, shift)
            admission = of_day[written] = 20_000_019 + 13 * len(admissions)
            longest = 9 if record["had_plos"] and previous is None else 2
            nights = longest if previous is None else min(longest, (day - previous).days - 1)
            kind = "EW EMER." if nights > 0 else "EU OBSERVATION"
            left = datetime.combine(day, time(15, 10))
            came = left - timedelta(days=nights, hours=6)
            admissions.append([subject, admission, came, left, "", kind, insurance, "English"])
            previous = day
        places: dict[str, int] = {}
        for code, written in zip(record["diagnoses"], record["diagnosis_dates"], strict=True):
            places[written] = place = places.get(written, 0) + 1
            old = ICD9.get(code) if number % 4 == 0 else None
            row = [old, 9] if old else [code.replace(".", ""), 10]
            diagnoses.append([subject, of_day[written], place, *row])
        for i, (code, written) in enumerate(zip(record["drugs"], record["prescription_dates"], strict=True)):
            start = datetime.combine(shifted(written, shift), time(10, 0))
            of_drug = f"Drug {codes.index(code) + 1}"
            prescriptions.append([subject, of_day[written], start, start + timedelta(days=1), of_drug, ndc[code]])
            if i % 40 == 0:
                fluid = "0.9% Sodium Chloride"
                prescriptions.append([subject, of_day[written], start, start + timedelta(days=1), fluid, "0"])
    (folder / "hosp").mkdir()
    tables = {
        "patients": (["subject_id", "gender", "anchor_age", "anchor_year", "anchor_year_group", "dod"], patients),
        "admissions": (
            ["subject_id", "hadm_id", "admittime", "dischtime", "deathtime", "admission_type", "insurance", "language"],
            admissions,
        ),
        "diagnoses_icd": (["subject_id", "hadm_id", "seq_num", "icd_code", "icd_version"], diagnoses),
        "prescriptions": (["subject_id", "hadm_id", "starttime", "stoptime", "drug", "ndc"], prescriptions),
    }
    for name, (header, rows) in tables.items():
        write_table(folder / "hosp" / f"{name}.csv.gz", [header, *rows])
    write_map(folder.parent, [["ndc", drug, "atc", code] for code, drug in ndc.items()])


def shifted(written: str, years: int) -> date:
    """Return YYYYMMDD some years later."""
    day = date.fromisoformat(written)
    return day.replace(year=day.year + years)
