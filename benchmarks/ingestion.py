"""Measure how fast patients are read from the formats that users hold, on one core, and what pandas takes for the same.

    python benchmarks/ingestion.py                      # a quarter of an hour; --events 1000000: two minutes

Each format holds the same events of the same patients: half diagnoses, half drugs, 50 events per patient; tables are
in order of the days, as extracts of claims are, MEDS in its own order. A reading is a process of its own, bound to one
core, from the files to columns of patients; beside it stands what a user would write with pandas: read, merge with the
codes' table, sort, drop repeats, group by patient.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb
from common import ROOT, Measurement, at_least_one, load_average, report

TARGETS = {"meds": 1_000_000, "omop": 500_000, "csv": 500_000, "fhir": 100_000}  # events per second
TIMES_FASTER = 5  # than pandas
PANDAS = ("meds", "omop", "csv")
PER_PATIENT = 50
_CORE = 0

# Numbers of an event decide everything about it, by hashes: the same events in every format.
_EVENTS = """
    CREATE TABLE events AS
    SELECT n, (n // {per_patient})::BIGINT AS patient, n % 2 = 0 AS is_drug,
        DATE '2015-01-01' + (n % {per_patient} * 60 + hash(n) % 50)::INTEGER AS day,
        (hash(n, 1) % 40)::INTEGER * (hash(n, 2) % 40)::INTEGER AS code
    FROM range({events}) t(n) ORDER BY day, n;
    CREATE TABLE patients AS
    SELECT DISTINCT patient, 1930 + (hash(patient) % 70)::INTEGER AS birth, hash(patient, 1) % 2 = 0 AS male FROM events
    ORDER BY patient;
    CREATE MACRO icd(code) AS chr((65 + code % 18)::INTEGER) || lpad((code % 97)::VARCHAR, 2, '0') || '.' || code % 10;
    CREATE MACRO atc(code) AS chr((65 + code % 4)::INTEGER) || lpad((code % 14 + 1)::VARCHAR, 2, '0') || 'AA'
        || lpad((code % 90 + 10)::VARCHAR, 2, '0');
"""


def write_meds(db: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Write ten shards, in order of subject and time."""
    (folder / "data").mkdir()
    rows = """
        SELECT patient AS subject_id, NULL::TIMESTAMP AS time,
            CASE WHEN male THEN 'GENDER//M' ELSE 'GENDER//F' END AS code, NULL::FLOAT AS numeric_value FROM patients
        UNION ALL SELECT patient, make_timestamp(birth, 1, 1, 0, 0, 0), 'MEDS_BIRTH', NULL FROM patients
        UNION ALL SELECT patient, day::TIMESTAMP, CASE WHEN is_drug THEN 'ATC//' || atc(code)
            ELSE 'ICD10CM//' || icd(code) END, NULL FROM events
    """
    most = db.sql("SELECT count(*) FROM patients").fetchall()[0][0]
    for shard in range(10):
        low, high = most * shard // 10, most * (shard + 1) // 10
        db.execute(
            f"COPY (SELECT * FROM ({rows}) WHERE subject_id >= {low} AND subject_id < {high} "
            f"ORDER BY subject_id, time NULLS FIRST) TO '{folder}/data/{shard}.parquet' (COMPRESSION zstd)"
        )


def write_omop(db: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Write the tables of a CDM as CSV; drugs are RxNorm concepts with an ATC ancestor each."""
    tables = {
        "PERSON": "SELECT patient AS person_id, CASE WHEN male THEN 8507 ELSE 8532 END AS gender_concept_id, "
        "birth AS year_of_birth, NULL AS location_id FROM patients",
        "CONDITION_OCCURRENCE": "SELECT n AS condition_occurrence_id, patient AS person_id, "
        "4000000 + code AS condition_concept_id, day AS condition_start_date, "
        "1000000 + code AS condition_source_concept_id, icd(code) AS condition_source_value "
        "FROM events WHERE NOT is_drug",
        "DRUG_EXPOSURE": "SELECT n AS drug_exposure_id, patient AS person_id, 2000000 + code AS drug_concept_id, "
        "day AS drug_exposure_start_date, 0 AS drug_source_concept_id, code AS drug_source_value "
        "FROM events WHERE is_drug",
        "CONCEPT": """
            SELECT DISTINCT 1000000 + code AS concept_id, '' AS concept_name, 'Condition' AS domain_id,
                'ICD10CM' AS vocabulary_id, '4-char billing code' AS concept_class_id, NULL AS standard_concept,
                icd(code) AS concept_code FROM events
            UNION ALL
            SELECT DISTINCT 2000000 + code, '', 'Drug', 'RxNorm', 'Ingredient', 'S', code::VARCHAR FROM events
            UNION ALL SELECT DISTINCT 3000000 + code, '', 'Drug', 'ATC', 'ATC 5th', 'C', atc(code) FROM events""",
        "CONCEPT_ANCESTOR": "SELECT DISTINCT 3000000 + code AS ancestor_concept_id, "
        "2000000 + code AS descendant_concept_id, 1 AS min_levels_of_separation, 1 AS max_levels_of_separation "
        "FROM events",
    }
    for table, sql in tables.items():
        db.execute(f"COPY ({sql}) TO '{folder}/{table}.csv' (HEADER)")


def write_csv(db: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Write a table of events and a table of people."""
    db.execute(
        "COPY (SELECT patient AS patient_id, day AS date, CASE WHEN is_drug THEN 'atc' ELSE 'icd10cm' END AS system, "
        f"CASE WHEN is_drug THEN atc(code) ELSE icd(code) END AS code FROM events) TO '{folder}/events.csv' (HEADER)"
    )
    db.execute(
        "COPY (SELECT patient AS patient_id, birth AS birth_year, CASE WHEN male THEN 'M' ELSE 'F' END AS sex "
        f"FROM patients) TO '{folder}/people.csv' (HEADER)"
    )


def write_fhir(db: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Write bulk NDJSON: Patient, Condition, MedicationRequest."""
    coding = "{{'coding': [{{'system': '{}', 'code': {}, 'display': 'Name of the code'}}]}}"
    clinical = "http://terminology.hl7.org/CodeSystem/condition-clinical"
    active = f"{{'coding': [{{'system': '{clinical}', 'code': 'active'}}]}}"
    icd10 = coding.format("http://hl7.org/fhir/sid/icd-10-cm", "icd(code)")
    atc = coding.format("http://www.whocc.no/atc", "atc(code)")
    subject = "{'reference': 'Patient/' || patient} AS subject"
    resources = {
        "Patient": "SELECT 'Patient' AS resourceType, patient::VARCHAR AS id, "
        "CASE WHEN male THEN 'male' ELSE 'female' END AS gender, birth || '-01-01' AS birthDate FROM patients",
        "Condition": f"SELECT 'Condition' AS resourceType, 'c' || n AS id, {active} AS clinicalStatus, "
        f"{icd10} AS code, {subject}, day::VARCHAR || 'T10:03:00Z' AS recordedDate FROM events WHERE NOT is_drug",
        "MedicationRequest": "SELECT 'MedicationRequest' AS resourceType, 'm' || n AS id, 'active' AS status, "
        f"'order' AS intent, {atc} AS medicationCodeableConcept, {subject}, "
        "day::VARCHAR || 'T10:03:00Z' AS authoredOn FROM events WHERE is_drug",
    }
    for kind, sql in resources.items():
        db.execute(f"COPY ({sql}) TO '{folder}/{kind}.ndjson' (FORMAT json)")


WRITERS = {"meds": write_meds, "omop": write_omop, "csv": write_csv, "fhir": write_fhir}


def read(folder: Path) -> int:
    """Read a folder with our reader; return the number of events."""
    sys.path.insert(0, str(ROOT))
    from exmed_bert.data.patient_input import PatientInput

    return sum(len(patients.events.codes) for patients in PatientInput([folder]).chunks())


def read_with_pandas(name: str, folder: Path) -> int:
    """Read a folder as one would write it with pandas; return the number of events."""
    import pandas

    if name == "meds":
        rows = pandas.concat([pandas.read_parquet(path) for path in sorted((folder / "data").iterdir())])
        birth = rows[rows.code == "MEDS_BIRTH"].set_index("subject_id").time.dt.year
        events = rows[rows.code.str.startswith(("ICD10CM//", "ATC//"))]
        events = events.assign(system=events.code.str.split("//").str[0], code=events.code.str.split("//").str[1])
        events = events.rename(columns={"subject_id": "patient", "time": "date"}).merge(
            birth.rename("birth"), left_on="patient", right_index=True
        )
    elif name == "omop":
        concepts = pandas.read_csv(folder / "CONCEPT.csv", dtype={"concept_code": str})
        codes = concepts[["concept_id", "concept_code"]]
        conditions = pandas.read_csv(folder / "CONDITION_OCCURRENCE.csv", dtype={"condition_source_value": str})
        conditions = conditions.merge(codes, left_on="condition_source_concept_id", right_on="concept_id")
        conditions = conditions.rename(columns={"condition_start_date": "date"})
        ancestors = pandas.read_csv(folder / "CONCEPT_ANCESTOR.csv")
        atc = ancestors.merge(
            concepts[concepts.vocabulary_id == "ATC"], left_on="ancestor_concept_id", right_on="concept_id"
        )
        drugs = pandas.read_csv(folder / "DRUG_EXPOSURE.csv").merge(
            atc[["descendant_concept_id", "concept_code"]], left_on="drug_concept_id", right_on="descendant_concept_id"
        )
        drugs = drugs.rename(columns={"drug_exposure_start_date": "date"})
        events = pandas.concat([part[["person_id", "date", "concept_code"]] for part in (conditions, drugs)])
        events = events.rename(columns={"person_id": "patient", "concept_code": "code"})
        people = pandas.read_csv(folder / "PERSON.csv")
        events = events.merge(people, left_on="patient", right_on="person_id").rename(
            columns={"year_of_birth": "birth"}
        )
    else:
        events = pandas.read_csv(folder / "events.csv").merge(pandas.read_csv(folder / "people.csv"), on="patient_id")
        events = events.rename(columns={"patient_id": "patient", "birth_year": "birth"})
    events["date"] = pandas.to_datetime(events["date"])
    events = events.drop_duplicates(["patient", "date", "code"]).sort_values(["patient", "date"], kind="stable")
    grouped = events.groupby("patient").agg(birth=("birth", "first"), codes=("code", list), dates=("date", list))
    return int(grouped.codes.str.len().sum())


def measured(how: str, name: str, folder: Path) -> tuple[int, float, float]:
    """Read in a process bound to one core; return events, seconds without the imports, and peak memory in MiB."""
    command = [sys.executable, __file__, "--read", how, name, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    last = process.stdout.read().strip().splitlines()[-1]
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, command)
    events, seconds = last.split()
    return int(events), float(seconds), usage.ru_maxrss / 1024


def read_once(how: str, name: str, folder: Path) -> None:
    """Print the number of events and the seconds; the work of `measured`."""
    os.sched_setaffinity(0, {_CORE})
    if how == "pandas":
        import pandas  # noqa: F401, its import is not measured
    else:
        sys.path.insert(0, str(ROOT))
        import exmed_bert.data.patient_input  # noqa: F401
    start = time.perf_counter()
    events = read_with_pandas(name, folder) if how == "pandas" else read(folder)
    print(events, time.perf_counter() - start)


def main() -> None:
    """Write each format, read it, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=at_least_one, default=10_000_000, help="events [default: 10000000]")
    parser.add_argument("--repeats", type=at_least_one, default=3, help="readings of each format [default: 3]")
    parser.add_argument("--formats", default=",".join(WRITERS), help="formats, separated by commas [default: all]")
    parser.add_argument("--read", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.read:
        read_once(given.read[0], given.read[1], Path(given.read[2]))
        return
    del given.read
    load, figures = load_average(), []
    for name in given.formats.split(","):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            db = duckdb.connect(config={"memory_limit": "4GB", "temp_directory": str(folder / "spilled")})
            db.execute(_EVENTS.format(events=given.events, per_patient=PER_PATIENT))
            WRITERS[name](db, folder)
            db.close()
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            ours = [measured("ours", name, folder) for _ in range(given.repeats)]
            rates = [events / seconds for events, seconds, _ in ours]
            figures += [
                Measurement(f"{name}: on disk", [size / 2**20], "MiB"),
                Measurement(f"{name}: read", rates, "events/s", at_least=TARGETS[name]),
                Measurement(f"{name}: peak memory", [peak for *_, peak in ours], "MiB", at_most=2e9 / 2**20),
            ]
            if name in PANDAS:
                theirs = [measured("pandas", name, folder) for _ in range(1)]
                assert {events for events, *_ in theirs} == {events for events, *_ in ours}, "not the same events"
                pandas_rate = theirs[0][0] / theirs[0][1]
                figures += [
                    Measurement(f"{name}: pandas", [pandas_rate], "events/s"),
                    Measurement(f"{name}: pandas, peak memory", [theirs[0][2]], "MiB"),
                    Measurement(
                        f"{name}: times faster than pandas",
                        [rate / pandas_rate for rate in rates],
                        "",
                        at_least=TIMES_FASTER,
                    ),
                ]
    report("ingestion", given, load, figures)


if __name__ == "__main__":
    main()
