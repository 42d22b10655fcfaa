"""OMOP CDM 5.4: conditions with ICD-10-CM source concepts, drugs as RxNorm concepts below those of ATC.

Concepts have numbers above two billion, which OMOP leaves to each site, and codes of RxNorm are invented.
"""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

from writers._tables import write_table

_LOCAL = 2_000_000_000
_ICD10CM, _RXNORM, _ATC = _LOCAL + 1, _LOCAL + 100_001, _LOCAL + 200_001  # each vocabulary's first concept
_INPATIENT, _OUTPATIENT = 9201, 9202
_RECORDED, _PERIOD = 32817, 32880  # types: from a health record, a period by an algorithm
_SEXES = {"MALE": 8507, "FEMALE": 8532}
_FIRST, _LAST = date(2021, 1, 1), date(2025, 12, 31)  # of the synthetic population


def write(folder: Path, records: list[dict]) -> None:
    """Write the tables of the CDM, and those of the vocabularies in a folder of their own as Athena writes them."""
    diagnoses = {code: _ICD10CM + i for i, code in enumerate(distinct(records, "diagnoses"))}
    drugs = {code: _RXNORM + i for i, code in enumerate(distinct(records, "drugs"))}
    states = {state: i for i, state in enumerate(sorted({record["patient_state"] for record in records}), start=1)}
    tables: dict[str, list[list[Any]]] = {
        "PERSON": [
            ["person_id", "gender_concept_id", "year_of_birth", "race_concept_id", "location_id", "gender_source_value"]
        ],
        "LOCATION": [["location_id", "state"], *([number, state] for state, number in states.items())],
        "OBSERVATION_PERIOD": [
            [
                "observation_period_id",
                "person_id",
                "observation_period_start_date",
                "observation_period_end_date",
                "period_type_concept_id",
            ]
        ],
        "VISIT_OCCURRENCE": [
            [
                "visit_occurrence_id",
                "person_id",
                "visit_concept_id",
                "visit_start_date",
                "visit_start_datetime",
                "visit_end_date",
                "visit_end_datetime",
                "visit_type_concept_id",
            ]
        ],
        "CONDITION_OCCURRENCE": [_columns("condition_occurrence_id", "condition", "condition_start")],
        "OBSERVATION": [_columns("observation_id", "observation", "observation")],
        "DRUG_EXPOSURE": [_columns("drug_exposure_id", "drug", "drug_exposure_start")],
    }
    for person, record in enumerate(records, start=1):
        sex = record["sex"]
        tables["PERSON"].append([person, _SEXES[sex], record["birth_year"], 0, states[record["patient_state"]], sex[0]])
        tables["OBSERVATION_PERIOD"].append([person, person, _FIRST, _LAST, _PERIOD])
        visit_of = {}
        for i, written in enumerate(sorted({*record["diagnosis_dates"], *record["prescription_dates"]})):
            start = end = date.fromisoformat(written)
            if is_stay := i == 0 and record["had_plos"] is not None:
                end += timedelta(days=9 if record["had_plos"] else 2)
            visit_of[written] = visit = len(tables["VISIT_OCCURRENCE"])
            kind = _INPATIENT if is_stay else _OUTPATIENT
            tables["VISIT_OCCURRENCE"].append(
                [visit, person, kind, start, f"{start} 00:00:00", end, f"{end} 00:00:00", _RECORDED]
            )
        for code, written in zip(record["diagnoses"], record["diagnosis_dates"], strict=True):
            # The standard concepts of these codes are of another domain, so is their table.
            table = tables["OBSERVATION" if code.startswith("Z") else "CONDITION_OCCURRENCE"]
            day = date.fromisoformat(written)
            table.append([len(table), person, 0, day, _RECORDED, visit_of[written], code, diagnoses[code]])
        for code, written in zip(record["drugs"], record["prescription_dates"], strict=True):
            table, day = tables["DRUG_EXPOSURE"], date.fromisoformat(written)
            table.append([len(table), person, drugs[code], day, _RECORDED, visit_of[written], "", 0])
    for name, rows in tables.items():
        write_table(folder / f"{name}.csv{'.gz' if len(rows) > 200 else ''}", rows)
    (folder / "vocabulary").mkdir()
    _write_vocabulary(folder / "vocabulary", diagnoses, drugs)


def _columns(id_: str, prefix: str, day: str) -> list[str]:
    return [
        id_,
        "person_id",
        f"{prefix}_concept_id",
        f"{day}_date",
        f"{prefix}_type_concept_id",
        "visit_occurrence_id",
        f"{prefix}_source_value",
        f"{prefix}_source_concept_id",
    ]


def _write_vocabulary(folder: Path, diagnoses: dict[str, int], drugs: dict[str, int]) -> None:
    concepts = [
        [
            "concept_id",
            "concept_name",
            "domain_id",
            "vocabulary_id",
            "concept_class_id",
            "standard_concept",
            "concept_code",
            "valid_start_date",
            "valid_end_date",
            "invalid_reason",
        ]
    ]
    valid = ["19700101", "20991231", ""]
    for code, concept in diagnoses.items():
        concepts.append([concept, "", "Condition", "ICD10CM", "ICD10CM code", "", code, *valid])
    relations = [
        ["concept_id_1", "concept_id_2", "relationship_id", "valid_start_date", "valid_end_date", "invalid_reason"]
    ]
    ancestors = [
        ["ancestor_concept_id", "descendant_concept_id", "min_levels_of_separation", "max_levels_of_separation"]
    ]
    for code, concept in drugs.items():
        above = concept - _RXNORM + _ATC
        concepts.append([concept, "", "Drug", "RxNorm", "Ingredient", "S", f"9{concept - _RXNORM + 1:07d}", *valid])
        concepts.append([above, "", "Drug", "ATC", "ATC 5th", "C", code, *valid])
        relations.append([concept, concept, "Maps to", *valid])
        ancestors.append([above, concept, 1, 1])
    for name, rows in (("CONCEPT", concepts), ("CONCEPT_RELATIONSHIP", relations), ("CONCEPT_ANCESTOR", ancestors)):
        (folder / f"{name}.csv").write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))


def distinct(records: list[dict], field: str) -> list[str]:
    """Return the codes of a field of all records, sorted."""
    return sorted({code for record in records for code in record[field]})
