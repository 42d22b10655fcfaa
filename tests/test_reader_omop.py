"""OMOP CDM: the right values of a real extract, and the format's rules one by one."""

import csv
import gzip
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reading import read, systems_of

from exmed_bert.console import InputError, OptionError
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.data.readers import reader_of
from exmed_bert.data.readers.source import Source
from exmed_bert.data.static_columns import declared
from exmed_bert.settings import ReadingSettings

EXTRACT = Path(__file__).parent / "fixtures" / "real" / "omop_synthea27nj"
ANCESTORS = EXTRACT / "concept_ancestor_atc_ids_only.csv"

# --- the extract ---


def rows_of(name: str) -> list[dict[str, str]]:
    path = EXTRACT / name
    with gzip.open(path, "rt") if path.suffix == ".gz" else open(path) as file:
        return list(csv.DictReader(file))


def test_right_values_of_the_extract() -> None:
    patients, summary = read(EXTRACT)
    assert len(patients) == 28 and Counter(p["sex"] for p in patients.values()) == {"MALE": 15, "FEMALE": 13}
    assert {p["state"] for p in patients.values()} == {None}
    assert summary.files == {"condition_occurrence": {"rows": 470}, "drug_exposure": {"rows": 883}}
    events = systems_of(patients)
    assert set(events) == {"snomedct", "rxnorm"} and events.total() == 470 + 883 - summary.repeats
    by_system = {
        system: [(key, code) for key, p in patients.items() for _, name, code in p["events"] if name == system]
        for system in events
    }
    assert {system: len({key for key, _ in found}) for system, found in by_system.items()} == {
        "snomedct": 26,
        "rxnorm": 26,
    }
    assert len({code for _, code in by_system["rxnorm"]}) == 79
    assert sum(len(p["events"]) >= 5 for p in patients.values()) == 26
    assert {key: p["death_date"] for key, p in patients.items() if "death_date" in p} == {
        7: "2019-05-28",
        11: "2009-09-14",
        23: "2001-07-13",
    }
    assert not summary.families and not summary.excluded
    assert patients[1]["birth_year"] == 1998


def test_repeats_of_the_extract_are_read_once() -> None:
    patients, summary = read(EXTRACT)
    code = {row["concept_id"]: row["concept_code"] for row in rows_of("CONCEPT.csv")}
    found = {
        (int(row["person_id"]), row["condition_start_date"], "snomedct", code[row["condition_source_concept_id"]])
        for row in rows_of("CONDITION_OCCURRENCE.csv.gz")
    } | {
        (int(row["person_id"]), row["drug_exposure_start_date"], "rxnorm", code[row["drug_concept_id"]])
        for row in rows_of("DRUG_EXPOSURE.csv.gz")
    }
    events = [(key, *event) for key, p in patients.items() for event in p["events"]]
    assert len(events) == len(found) and set(events) == found and summary.repeats == 470 + 883 - len(found)


def test_inpatient_stays_of_the_extract() -> None:
    visits = rows_of("VISIT_OCCURRENCE.csv.gz")
    assert Counter(visit["visit_concept_id"] for visit in visits) == {"9202": 1722, "9203": 56, "9201": 13}
    inpatient = {int(visit["person_id"]) for visit in visits if visit["visit_concept_id"] == "9201"}
    patients, _ = read(EXTRACT)
    # The stay of more than seven days is no inpatient one.
    assert {key: p["had_plos"] for key, p in patients.items()} == {
        key: False if key in inpatient else None for key in patients
    }


def test_the_extract_says_what_its_vocabularies_lack() -> None:
    _, summary = read(EXTRACT)
    no_table, no_atc = summary.notes
    assert no_table == "There is no table OBSERVATION_PERIOD."
    assert "drugs are not mapped to ATC, since CONCEPT has no concepts of ATC's fifth level" in no_atc
    assert all(word in no_atc for word in ("ATC, RxNorm and RxNorm Extension", "CONCEPT_ANCESTOR", "--athena"))


def atc_vocabulary(folder: Path) -> Path:
    """Write the extract's ancestors with concepts of ATC that are made for them, as Athena writes tables."""
    with open(ANCESTORS) as file:
        pairs = [(row["ancestor_concept_id"], row["descendant_concept_id"]) for row in csv.DictReader(file)]
        file.seek(0)
        levels = {(r["ancestor_concept_id"], r["descendant_concept_id"]): r for r in csv.DictReader(file)}
    nearest: dict[str, int] = {}
    for (above, below), row in levels.items():
        level = int(row["min_levels_of_separation"])
        nearest[below] = min(level, nearest.get(below, level))
        assert above != below
    fifth = {a for (a, b), row in levels.items() if int(row["min_levels_of_separation"]) == nearest[b]}
    concepts = [
        [above, "", "Drug", "ATC", "ATC 5th" if above in fifth else "ATC 4th", "C", f"C{i // 90 + 10}AA{i % 90 + 10}"]
        for i, above in enumerate(dict(pairs))
    ]
    folder.mkdir()
    for name, header, rows in (
        ("CONCEPT", CONCEPT, concepts),
        ("CONCEPT_ANCESTOR", ["ancestor_concept_id", "descendant_concept_id"], pairs),
    ):
        (folder / f"{name}.csv").write_text("".join("\t".join(map(str, row)) + "\n" for row in [header, *rows]))
    return folder


def test_drugs_of_the_extract_by_the_ancestors(tmp_path: Path) -> None:
    patients, summary = read(EXTRACT, athena=atc_vocabulary(tmp_path / "athena"))
    below = {row["descendant_concept_id"] for row in rows_of("concept_ancestor_atc_ids_only.csv")}
    exposures = [row for row in rows_of("DRUG_EXPOSURE.csv.gz") if row["drug_concept_id"] in below]
    assert len(exposures) == 664 and len({row["drug_concept_id"] for row in exposures}) == 24
    mapped = {(int(row["person_id"]), row["drug_exposure_start_date"]) for row in exposures}
    found = {(key, day) for key, p in patients.items() for day, system, _ in p["events"] if system == "atc"}
    assert found == mapped
    kept = {
        (int(row["person_id"]), row["drug_exposure_start_date"], row["drug_concept_id"])
        for row in rows_of("DRUG_EXPOSURE.csv.gz")
        if row["drug_concept_id"] not in below
    }
    assert systems_of(patients)["rxnorm"] == len(kept)
    assert summary.files["drug_exposure"] == {"rows": 883}
    assert summary.notes == ["There is no table OBSERVATION_PERIOD."]


@pytest.mark.parametrize("how", ["lower", "gz", "parquet", "shards", "tabs", "crlf"])
def test_other_files_with_the_same_tables(tmp_path: Path, how: str) -> None:
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "PERSON.csv").write_text("rubbish")
    (tmp_path / "._PERSON.csv").write_text("rubbish")
    for path in EXTRACT.glob("[A-Z]*.csv*"):
        name = path.name.split(".")[0]
        text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
        if how == "lower":  # and columns in upper case
            header, body = text.split("\n", 1)
            (tmp_path / f"{name.lower()}.csv").write_text(f"\ufeff{header.upper()}\n{body}", encoding="utf-8")
        elif how == "gz":
            (tmp_path / f"{name}.CSV.GZ").write_bytes(gzip.compress(text.encode()))
        elif how == "parquet":  # with numbers, dates and times
            table = pyarrow.csv.read_csv(
                pyarrow.BufferReader(text.encode()),
                convert_options=pyarrow.csv.ConvertOptions(column_types={"concept_code": pyarrow.string()}),
            )
            pyarrow.parquet.write_table(table, tmp_path / f"{name}.parquet")
        elif how == "shards":
            (tmp_path / name).mkdir()
            header, *rows = text.splitlines()
            for i, part in enumerate((rows[: len(rows) // 2], rows[len(rows) // 2 :])):
                (tmp_path / name / f"part-{i:05}.csv").write_text("\n".join([header, *part]) + "\n")
        elif how == "tabs":
            table = [line.replace("\t", " ") for line in text.splitlines()]
            rows = list(csv.reader(table))
            (tmp_path / f"{name}.csv").write_text("".join("\t".join(row) + "\n" for row in rows))
        else:
            (tmp_path / f"{name}.csv").write_bytes(text.replace("\n", "\r\n").encode())
    assert read(tmp_path)[0] == read(EXTRACT)[0]


def test_chunks_of_any_size() -> None:
    assert read(EXTRACT, size=3)[0] == read(EXTRACT)[0]


def test_what_it_is_recognized_by(tmp_path: Path) -> None:
    reader, by = reader_of(Source.at([EXTRACT]), ReadingSettings())
    assert reader.name == "omop" and by == "tables person, condition_occurrence, drug_exposure"
    digest = reader.origin(Source.at([EXTRACT])).fingerprint
    shutil.copytree(EXTRACT, tmp_path / "all")
    (tmp_path / "all" / "NOTE.csv").write_text("note_id,person_id\n")
    assert reader.origin(Source.at([tmp_path / "all"])).fingerprint == digest  # it would take an hour to read
    assert PatientInput([EXTRACT]).read_as == f"OMOP ({by})"


def test_the_example_has_the_patients_of_the_others() -> None:
    examples = Path(__file__).resolve().parents[1] / "examples"
    ours, theirs = read(examples / "omop" / "data")[0], read(examples / "meds" / "data")[0]
    assert len(ours) == len(theirs) == 120
    for key, mine in ours.items():
        other = theirs[key - 1]
        assert mine["birth_year"] == other["birth_year"] and mine["state"] == other["state"]
        assert mine["sex"][0] == other["sex"][0] and sorted(mine["events"]) == sorted(other["events"])
    assert sum(p["had_plos"] for p in ours.values()) == 7
    assert {p["observation_start"] for p in ours.values()} == {"2021-01-01"}


# --- the rules one by one ---

PERSON = ["person_id", "gender_concept_id", "year_of_birth", "location_id", "gender_source_value"]
CONDITIONS = ["person_id", "condition_start_date", "condition_source_concept_id", "condition_concept_id"]
CONDITIONS += ["condition_source_value"]
DRUGS = ["person_id", "drug_exposure_start_date", "drug_source_concept_id", "drug_concept_id", "drug_source_value"]
VISITS = ["person_id", "visit_concept_id", "visit_start_date", "visit_start_datetime"]
VISITS += ["visit_end_date", "visit_end_datetime"]
CONCEPT = ["concept_id", "concept_name", "domain_id", "vocabulary_id", "concept_class_id", "standard_concept"]
CONCEPT += ["concept_code"]
ANCESTOR = ["ancestor_concept_id", "descendant_concept_id"]
HEADERS = {
    "person": PERSON,
    "condition_occurrence": CONDITIONS,
    "drug_exposure": DRUGS,
    "visit_occurrence": VISITS,
    "concept": CONCEPT,
    "concept_ancestor": ANCESTOR,
}
ONE = [[1, 8507, 1950, "", ""]]
DAY = "2020-01-02"


def concept(concept_id: int, vocabulary: str, code: str, kind: str = "") -> list[Any]:
    return [concept_id, 'a "name", with marks', "", vocabulary, kind, "", code]


# What the tests below use of the vocabularies.
ICD10, ICD9, SNOMED, WHO, READ = 10, 9, 20, 11, 12
RXNORM, EXTENSION, NDC, SEVERAL, IS_ATC, CVX = 30, 31, 32, 33, 41, 35
LISTED = [
    concept(ICD10, "ICD10CM", "E11.9"),
    concept(ICD9, "ICD9CM", "250.00"),
    concept(SNOMED, "SNOMED", "44054006"),
    concept(WHO, "ICD10", "E11"),
    concept(READ, "Read", "C10F.00"),
    concept(RXNORM, "RxNorm", "1191"),
    concept(EXTENSION, "RxNorm Extension", "OMOP1234567"),
    concept(NDC, "NDC", "00093101601"),
    concept(CVX, "CVX", "03"),
    concept(SEVERAL, "RxNorm", "243670"),
    concept(42, "ATC", "N02BA01", "ATC 5th"),
    concept(IS_ATC, "ATC", "B01AC06", "ATC 5th"),
    concept(43, "ATC", "N02BA", "ATC 4th"),
    concept(0, "None", "No matching concept"),
]
ABOVE = [[42, SEVERAL], [IS_ATC, SEVERAL], [43, SEVERAL], [43, RXNORM]]


def write(folder: Path, **tables: Sequence[Sequence[Any]]) -> Path:
    """Write tables, which have the columns above unless a row of names is given first; return the folder."""
    folder.mkdir(exist_ok=True)
    for name, rows in tables.items():
        header = [] if rows and "_id" in str(rows[0][0]) else [HEADERS[name]]
        with open(folder / f"{name.upper()}.csv", "w", newline="") as file:
            csv.writer(file).writerows([*header, *rows])
    return folder


def events(folder: Path, **settings: Any) -> list[tuple[str, str]]:
    """Return system and code of the events of patient 1."""
    return [(system, code) for _, system, code in read(folder, **settings)[0][1]["events"]]


def diagnoses(tmp_path: Path, rows: Sequence[Sequence[Any]], **settings: Any) -> list[tuple[str, str]]:
    """Return what rows mean: source concept, concept, source value."""
    table = [[1, f"2020-01-{i + 1:02}", *row] for i, row in enumerate(rows)]
    return events(write(tmp_path / "cdm", person=ONE, condition_occurrence=table, concept=LISTED), **settings)


def drugs(tmp_path: Path, rows: Sequence[Sequence[Any]], **settings: Any) -> list[tuple[str, str]]:
    """Return what rows mean: source concept, concept, source value."""
    table = [[1, f"2020-01-{i + 1:02}", *row] for i, row in enumerate(rows)]
    folder = write(tmp_path / "cdm", person=ONE, drug_exposure=table, concept=LISTED, concept_ancestor=ABOVE)
    return events(folder, **settings)


@pytest.mark.parametrize(
    ("row", "event"),
    [
        ((ICD10, SNOMED, "anything"), ("icd10cm", "E11.9")),
        ((ICD9, SNOMED, "25000"), ("icd9cm", "250.00")),
        ((SNOMED, SNOMED, "44054006"), ("snomedct", "44054006")),
        ((0, SNOMED, "E11.9"), ("snomedct", "44054006")),  # a source value says nothing of its vocabulary
        (("", SNOMED, "E11.9"), ("snomedct", "44054006")),
        ((99, SNOMED, "E11.9"), ("snomedct", "44054006")),
        ((WHO, SNOMED, "E11"), ("snomedct", "44054006")),  # the international edition is another system
        ((READ, SNOMED, "C10F."), ("snomedct", "44054006")),
        ((SNOMED, ICD10, ""), ("snomedct", "44054006")),
        (("10.0", "20.0", ""), ("icd10cm", "E11.9")),  # as columns with gaps are written
    ],
)
def test_what_a_condition_means(tmp_path: Path, row: tuple[Any, ...], event: tuple[str, str]) -> None:
    assert diagnoses(tmp_path, [row]) == [event]


@pytest.mark.parametrize(
    ("row", "event"),
    [
        ((0, SNOMED, "E11.65"), ("icd10cm", "E11.65")),
        (("", 0, " E11.65 "), ("icd10cm", "E11.65")),
        ((99, 0, "E11.65"), ("icd10cm", "E11.65")),
        ((ICD10, SNOMED, "E11.65"), ("icd10cm", "E11.9")),  # the concept is more than the text
        ((ICD9, SNOMED, "E11.65"), ("icd9cm", "250.00")),
        ((WHO, SNOMED, "E11"), ("snomedct", "44054006")),  # its vocabulary is known, and another
        ((0, SNOMED, ""), ("snomedct", "44054006")),
    ],
)
def test_source_values_of_a_vocabulary_that_is_named(
    tmp_path: Path, row: tuple[Any, ...], event: tuple[str, str]
) -> None:
    assert diagnoses(tmp_path, [row], source_vocabulary="ICD10CM") == [event]
    assert diagnoses(tmp_path, [row], source_vocabulary="icd-10-cm, NDC") == [event]
    assert diagnoses(tmp_path, [row], source_vocabulary="NDC") == diagnoses(tmp_path, [row])  # that is one of drugs


def test_several_codes_with_one_standard_concept_stay_apart(tmp_path: Path) -> None:
    listed = [*LISTED, concept(13, "ICD10CM", "E11.8")]
    table = [[1, DAY, ICD10, SNOMED, ""], [1, DAY, 13, SNOMED, ""], [1, DAY, ICD10, 21, ""]]  # the last is a repeat
    folder = write(tmp_path, person=ONE, condition_occurrence=table, concept=listed)
    assert events(folder) == [("icd10cm", "E11.9"), ("icd10cm", "E11.8")]
    assert read(folder)[1].repeats == 1


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ((0, SEVERAL, ""), [("atc", "B01AC06"), ("atc", "N02BA01")]),  # in their order, none of the fourth level
        ((NDC, SEVERAL, ""), [("atc", "B01AC06"), ("atc", "N02BA01")]),
        ((SEVERAL, 0, ""), [("atc", "B01AC06"), ("atc", "N02BA01")]),
        ((0, RXNORM, ""), [("rxnorm", "1191")]),
        ((NDC, RXNORM, ""), [("rxnorm", "1191")]),
        ((0, EXTENSION, ""), [("rxnorm", "OMOP1234567")]),
        ((NDC, 0, "a pill"), [("ndc", "00093101601")]),
        ((IS_ATC, SEVERAL, ""), [("atc", "B01AC06")]),  # the source declares its ATC code
        ((IS_ATC, 0, ""), [("atc", "B01AC06")]),
        ((0, IS_ATC, ""), [("atc", "B01AC06")]),
    ],
)
def test_what_a_drug_means(tmp_path: Path, row: tuple[Any, ...], found: list[tuple[str, str]]) -> None:
    assert drugs(tmp_path, [row]) == found


@pytest.mark.parametrize(
    ("vocabulary", "row", "found"),
    [
        ("NDC", (0, 0, "0093-1016-01"), [("ndc", "0093-1016-01")]),
        ("NDC", (0, RXNORM, "0093-1016-01"), [("ndc", "0093-1016-01")]),
        ("NDC", (0, SEVERAL, "0093-1016-01"), [("atc", "B01AC06"), ("atc", "N02BA01")]),
        ("ATC", (0, SEVERAL, "N02BA51"), [("atc", "N02BA51")]),  # the code that was declared is more than a way to it
        ("ATC", (NDC, SEVERAL, "N02BA51"), [("atc", "B01AC06"), ("atc", "N02BA01")]),
        ("ICD10CM", (0, 0, "0093-1016-01"), []),
    ],
)
def test_source_values_of_drugs(
    tmp_path: Path, vocabulary: str, row: tuple[Any, ...], found: list[tuple[str, str]]
) -> None:
    assert drugs(tmp_path, [row], source_vocabulary=vocabulary) == found


def test_drugs_of_several_codes_can_be_dropped(tmp_path: Path) -> None:
    rows = [(0, SEVERAL, ""), (0, IS_ATC, "")]
    assert drugs(tmp_path, rows, on_multiple="drop") == [("rxnorm", "243670"), ("atc", "B01AC06")]
    assert len(drugs(tmp_path, rows, on_multiple="first")) == len(drugs(tmp_path, rows, on_multiple="all")) == 3


@pytest.mark.parametrize("vocabulary", ["ICD10", "ICD-11", "my codes"])
def test_source_vocabularies_that_are_not_known(tmp_path: Path, vocabulary: str) -> None:
    with pytest.raises(OptionError, match=f"--source-vocabulary: '{vocabulary}' is no code system that is known"):
        diagnoses(tmp_path, [(0, 0, "E11")], source_vocabulary=vocabulary)


def test_two_source_vocabularies_of_one_table(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="names two for condition_occurrence, expected one"):
        diagnoses(tmp_path, [(0, 0, "E11")], source_vocabulary="ICD10CM,ICD9CM")


def test_rows_that_are_no_events_are_counted(tmp_path: Path) -> None:
    table = [
        [1, DAY, ICD10, SNOMED, ""],
        [2, DAY, ICD10, SNOMED, ""],  # of no person
        [1, "", ICD10, SNOMED, ""],
        [1, "2020-13-01", ICD10, SNOMED, ""],
        [1, DAY, 0, 0, ""],
        [1, DAY, "", "", " "],
        [1, DAY, 0, 0, "diabetes"],
        [1, DAY, 98, 99, ""],
        [1, DAY, 0, READ, ""],
        [1, DAY, CVX, 0, ""],
        [1, DAY, WHO, 0, ""],
    ]
    folder = write(tmp_path, person=ONE, condition_occurrence=table, concept=LISTED)
    patients, summary = read(folder)
    assert patients[1]["events"] == [(DAY, "icd10cm", "E11.9")]
    assert summary.files["condition_occurrence"] == {
        "rows": 11,
        "of no patient": 1,
        "without a date": 2,
        "without a code": 2,
    }
    assert summary.families == {
        "source values of no vocabulary": 1,
        "concepts that CONCEPT lacks": 1,
        "Read": 1,
        "CVX": 1,
        "ICD10 (WHO)": 1,
    }
    said = "\n".join(summary.notes)
    assert "CONDITION_OCCURRENCE: rows with a source value and no concept are not read; --source-vocabulary" in said
    assert "CONDITION_OCCURRENCE: rows whose concepts are not in CONCEPT are not read; --athena" in said
    assert any("codes of no system that is known" in note and "CVX" in note for note in summary.notes)
    assert "diabetes" not in said + str(summary)
    named = read(folder, source_vocabulary="ICD10CM")[1]
    assert named.families == {"concepts that CONCEPT lacks": 1, "Read": 1, "CVX": 1, "ICD10 (WHO)": 1}
    assert "--source-vocabulary" not in "".join(named.notes)


def test_source_values_of_drugs_need_a_vocabulary_too(tmp_path: Path) -> None:
    assert drugs(tmp_path, [(0, 0, "0093-1016-01")]) == []
    _, summary = read(tmp_path)
    assert any("vocabulary of these values, such as NDC" in note for note in summary.notes)


def test_diagnoses_in_tables_of_other_domains(tmp_path: Path) -> None:
    tables = {
        name: [
            ["person_id", f"{prefix}_date", f"{prefix}_source_concept_id", f"{prefix}_concept_id"],
            [1, f"2020-01-0{i}", ICD10, 77],
            [1, f"2020-02-0{i}", ICD9, 77],
            [1, f"2020-03-0{i}", SNOMED, 77],
            [1, f"2020-03-0{i}", 0, ICD10],
            [1, "", ICD10, 77],
        ]
        for i, (name, prefix) in enumerate(
            {"observation": "observation", "procedure_occurrence": "procedure", "measurement": "measurement"}.items(), 1
        )
    }
    folder = write(tmp_path, person=ONE, concept=LISTED, condition_occurrence=[], **tables)
    patients, summary = read(folder)
    assert patients[1]["events"] == [
        *((f"2020-01-0{i}", "icd10cm", "E11.9") for i in (1, 2, 3)),
        *((f"2020-02-0{i}", "icd9cm", "250.00") for i in (1, 2, 3)),
    ]
    # Their other rows are measurements and the like, not events that were lost.
    for name in tables:
        assert summary.files[name] == {"rows": 3, "without a date": 1}
    assert not summary.families


def test_people(tmp_path: Path) -> None:
    person = [
        [*PERSON, "race_source_value"],
        [5, 8507, 1950, "7.0", "F", "white"],
        [-3, 8532, "1960.0", 8, "", ""],
        [0, 0, 1970, 9, "F", "black"],
        [6, "", 1980, "", "male", ""],
        [7, 8521, 1990, "", "M", ""],  # a concept of another sex is what is known
        [8, 8507, "", "", "", ""],
    ]
    location = [["location_id", "STATE"], [7, "MA"], [8, "new york"], [99, "CA"]]
    death = [["person_id", "death_date"], [5, "2020-05-01"], [5, "2020-04-01"], [-3, "20210101"], [99, DAY]]
    periods = [
        ["person_id", "observation_period_start_date", "observation_period_end_date"],
        [5, "2001-01-01", "2002-01-01"],
        [5, "2003-01-01", "2004-01-01"],
        [99, "2003-01-01", "2004-01-01"],
    ]
    condition = [[5, DAY, ICD10, SNOMED, ""]]
    folder = write(
        tmp_path,
        person=person,
        location=location,
        death=death,
        observation_period=periods,
        condition_occurrence=condition,
        concept=LISTED,
    )
    patients, summary = read(folder, static_columns=declared({"race_source_value": ["white"]}))
    found = {key: [p["birth_year"], p["sex"], p["state"], p["race_source_value"]] for key, p in patients.items()}
    assert found == {
        5: [1950, "MALE", "MA", "white"],
        -3: [1960, "FEMALE", "new york", None],
        0: [1970, "F", None, "black"],
        6: [1980, "male", None, None],
        7: [1990, None, None, None],
    }
    assert list(patients) == [5, -3, 0, 6, 7] and summary.excluded == {"no birth year": 1}
    assert patients[5] == patients[5] | {
        "death_date": "2020-04-01",
        "observation_start": "2001-01-01",
        "observation_end": "2004-01-01",
    }
    assert patients[-3]["death_date"] == "2021-01-01" and "observation_start" not in patients[-3]


MIDNIGHT = " 00:00:00"


@pytest.mark.parametrize(
    ("visit", "had_plos"),
    [
        ((9201, "2020-01-01", "2020-01-01 08:00:00", "2020-01-08", "2020-01-08 08:00:00"), False),
        ((9201, "2020-01-01", "2020-01-01 08:00:00", "2020-01-08", "2020-01-08 08:00:01"), True),
        ((9201, "2020-01-01", "2020-01-01T08:00:00Z", "2020-01-08", "2020-01-08T09:00:00Z"), True),
        ((9201, "2020-01-01", "2020-01-01 20:00:00", "2020-01-09", "2020-01-09 08:00:00"), True),
        ((9201, "2020-01-01", "2020-01-01 23:00:00", "2020-01-09", "2020-01-08 08:00:00"), False),
        ((262, "2020-01-01", "", "2020-01-09", ""), True),
        ((262, "2020-01-01", "", "2020-01-08", ""), False),
        ((8717, "2020-01-01", f"2020-01-01{MIDNIGHT}", "2020-01-09", f"2020-01-09{MIDNIGHT}"), True),
        ((8717, "2020-01-01", f"2020-01-01{MIDNIGHT}", "2020-01-08", f"2020-01-08{MIDNIGHT}"), False),
        ((9201, "2020-01-01", f"2020-01-01{MIDNIGHT}", "2020-01-08", "2020-01-08 00:00:01"), True),
        ((9201, "2020-01-01", "2020-01-01 23:00:00", "2020-01-09", ""), True),  # one time alone: by the dates
        ((9201, "2020-01-01", "2020-01-01 23:00:00", "", ""), None),  # an open stay decides nothing
        ((9202, "2020-01-01", "", "2020-02-01", ""), None),
        ((9203, "2020-01-01", "", "2020-02-01", ""), None),
        ((0, "2020-01-01", "", "2020-02-01", ""), None),
        (("", "2020-01-01", "", "2020-02-01", ""), None),
        ((555, "2020-01-01", "", "2020-02-01", ""), True),  # below 9201
        ((556, "2020-01-01", "", "2020-02-01", ""), None),
    ],
)
def test_prolonged_stays(tmp_path: Path, visit: tuple[Any, ...], had_plos: bool | None) -> None:
    folder = write(
        tmp_path,
        person=ONE,
        condition_occurrence=[[1, DAY, ICD10, SNOMED, ""]],
        visit_occurrence=[[1, *visit]],
        concept=LISTED,
        concept_ancestor=[[9201, 555], [9202, 556]],
    )
    assert read(folder)[0][1]["had_plos"] is had_plos


def test_one_long_stay_among_others(tmp_path: Path) -> None:
    visits = [
        [1, 9201, "2020-01-01", "", "2020-01-02", ""],
        [1, 9201, "2020-02-01", "", "2020-02-20", ""],
        [1, 9201, "2020-03-01", "", "", ""],
    ]
    folder = write(tmp_path, person=ONE, condition_occurrence=[], visit_occurrence=visits)
    assert read(folder)[0][1]["had_plos"] is True
    assert read(folder, plos_days=19)[0][1]["had_plos"] is False


def test_version_5_3_and_its_times_in_place_of_dates(tmp_path: Path) -> None:
    condition = [
        ["person_id", "condition_start_datetime", "condition_source_concept_id", "condition_concept_id"],
        [1, "2020-01-02 23:59:00-05:00", ICD10, SNOMED],
    ]
    visit = [
        [*VISITS, "admitting_source_concept_id", "discharge_to_concept_id"],
        [1, 9201, "2020-01-01", "", "2020-01-20", "", 0, 0],
    ]
    folder = write(tmp_path, person=ONE, condition_occurrence=condition, visit_occurrence=visit, concept=LISTED)
    patient = read(folder)[0][1]
    assert patient["events"] == [("2020-01-02", "icd10cm", "E11.9")] and patient["had_plos"] is True


def test_typed_columns_of_parquet(tmp_path: Path) -> None:
    write(tmp_path, person=ONE, concept=LISTED)
    table = pyarrow.table(
        {
            "person_id": pyarrow.array([1, 1], pyarrow.int64()),
            "condition_start_date": pyarrow.array([18263, None], pyarrow.date32()),
            "condition_start_datetime": pyarrow.array([None, 18264 * 86_400_000_000], pyarrow.timestamp("us")),
            "condition_source_concept_id": pyarrow.array([10.0, None], pyarrow.float64()),
            "condition_concept_id": pyarrow.array([20, 20], pyarrow.int32()),
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "condition_occurrence.parquet")
    assert read(tmp_path)[0][1]["events"] == [
        ("2020-01-02", "icd10cm", "E11.9"),
        ("2020-01-03", "snomedct", "44054006"),
    ]


def test_ids_that_are_text(tmp_path: Path) -> None:
    death = [["person_id", "death_date"], ["a1", DAY]]
    folder = write(
        tmp_path,
        person=[["a1", 8507, 1950, "", ""], ["007", 8507, 1950, "", ""]],
        condition_occurrence=[["a1", DAY, ICD10, 0, ""], ["007", DAY, ICD9, 0, ""], ["7", DAY, ICD9, 0, ""]],
        concept=LISTED,
        death=death,
    )
    patients, summary = read(folder)
    assert list(patients) == ["a1", "007"] and patients["a1"]["death_date"] == DAY
    assert summary.files["condition_occurrence"]["of no patient"] == 1


# --- the vocabularies ---


def athena(folder: Path, concepts: Sequence[Sequence[Any]] = LISTED, above: Sequence[Sequence[Any]] = ABOVE) -> Path:
    """Write tables as Athena does: tabs, nothing quoted."""
    folder.mkdir()
    concepts = [[row[0], 'a "name', *row[2:]] for row in concepts]
    for name, rows in (("CONCEPT", [CONCEPT, *concepts]), ("CONCEPT_ANCESTOR", [ANCESTOR, *above])):
        (folder / f"{name}.csv").write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
    return folder


def test_vocabularies_from_athena_in_place_of_the_cdm_s(tmp_path: Path) -> None:
    rows = [[1, DAY, 0, SEVERAL, ""]]
    cdm = write(tmp_path / "cdm", person=ONE, drug_exposure=rows, condition_occurrence=[[1, DAY, ICD10, SNOMED, ""]])
    assert events(cdm) == []
    found = [("icd10cm", "E11.9"), ("atc", "B01AC06"), ("atc", "N02BA01")]
    assert events(cdm, athena=athena(tmp_path / "athena")) == found
    shutil.copytree(tmp_path / "athena", cdm / "vocabulary")  # beside the CDM's tables is as good
    assert events(cdm) == found


def test_what_the_cdm_s_vocabularies_lack_comes_from_athena(tmp_path: Path) -> None:
    cdm = write(tmp_path / "cdm", person=ONE, drug_exposure=[[1, DAY, 0, SEVERAL, ""], [1, "2020-01-03", 0, 900, ""]])
    own = [concept(SEVERAL, "RxNorm", "243670"), concept(900, "RxNorm", "900900"), concept(42, "CVX", "03")]
    write(cdm, concept=own, concept_ancestor=[[IS_ATC, 900]])
    # The concepts of the CDM count where both have one.
    assert events(cdm, athena=athena(tmp_path / "athena")) == [
        ("atc", "B01AC06"),
        ("atc", "N02BA01"),
        ("atc", "B01AC06"),
    ]


@pytest.mark.parametrize(
    ("lacks", "said"),
    [
        ("concept", "there is no table CONCEPT;"),
        ("atc", "CONCEPT has no concepts of ATC's fifth level;"),
        ("ancestor", "there is no table CONCEPT_ANCESTOR;"),
    ],
)
def test_what_is_missing_for_atc_is_said(tmp_path: Path, lacks: str, said: str) -> None:
    tables = {"person": ONE, "drug_exposure": [[1, DAY, NDC, RXNORM, ""]], "concept": LISTED, "concept_ancestor": ABOVE}
    if lacks == "atc":
        tables["concept"] = [row for row in LISTED if row[3] != "ATC"]
    else:
        del tables["concept" if lacks == "concept" else "concept_ancestor"]
    _, summary = read(write(tmp_path, **tables))
    expected = f"drugs are not mapped to ATC, since {said} download ATC, RxNorm and RxNorm Extension"
    assert any(expected in note for note in summary.notes)


def test_nothing_is_said_of_atc_where_the_source_declares_it(
    tmp_path: Path,
) -> None:
    _, drug = read(write(tmp_path, person=ONE, drug_exposure=[[1, DAY, IS_ATC, 0, ""]], concept=LISTED))
    conditions = write(tmp_path / "d", person=ONE, condition_occurrence=[[1, DAY, ICD10, 0, ""]], concept=LISTED[:1])
    assert not any("ATC" in note for note in drug.notes + read(conditions)[1].notes)


# --- what is wrong ---


def test_tables_that_are_missing(tmp_path: Path) -> None:
    settings = {"input_format": "omop"}
    write(tmp_path, condition_occurrence=[])
    with pytest.raises(InputError, match="holds no table person, which OMOP has"):
        read(tmp_path, **settings)
    write(tmp_path / "b", person=ONE)
    with pytest.raises(InputError, match="neither of the tables condition_occurrence and drug_exposure"):
        read(tmp_path / "b", **settings)


@pytest.mark.parametrize(
    ("table", "columns", "lacks"),
    [
        ("person", ["person_id", "birth"], "year_of_birth"),
        ("condition_occurrence", ["condition_source_concept_id", "id"], "person_id"),
        ("condition_occurrence", ["person_id", "condition_source_concept_id"], "condition_start_date"),
        ("visit_occurrence", ["person_id", "visit_start_date"], "visit_concept_id, visit_end_date"),
        ("observation_period", ["person_id"], "observation_period_start_date, observation_period_end_date"),
        ("concept", ["concept_id", "vocabulary_id"], "concept_class_id, concept_code"),
        ("concept_ancestor", ["ancestor_concept_id"], "descendant_concept_id"),
    ],
)
def test_columns_that_are_missing(tmp_path: Path, table: str, columns: list[str], lacks: str) -> None:
    tables = {"person": ONE, "condition_occurrence": [[1, DAY, 0, 0, ""]], table: [columns]}
    with pytest.raises(InputError, match=f"lacks (the columns? )?{lacks}"):
        read(write(tmp_path, **tables), input_format="omop")


def test_damaged_files_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path, person=ONE, condition_occurrence=[[1, DAY, 0, 0, ""]])
    (folder / "CONCEPT.csv").write_text(",".join(CONCEPT) + '\n1,"a name\n')
    with pytest.raises(InputError, match=r"CONCEPT\.csv: .*quotation mark is not closed"):
        read(folder)
    (folder / "CONCEPT.csv").unlink()
    (folder / "DRUG_EXPOSURE.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match=r"DRUG_EXPOSURE\.parquet"):
        read(folder)


def test_an_athena_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        read(EXTRACT, athena=tmp_path / "nowhere")


# --- any rows ---

SOURCES = st.sampled_from([0, "", 99, ICD10, ICD9, SNOMED, WHO, CVX])
STANDARDS = st.sampled_from([0, "", 98, SNOMED, READ])
VALUES = st.sampled_from(["", "E11.65", "x"])
KNOWN = {ICD10: ("icd10cm", "E11.9"), ICD9: ("icd9cm", "250.00"), SNOMED: ("snomedct", "44054006")}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 9), SOURCES, STANDARDS, VALUES), max_size=40),
    named=st.sampled_from([None, "ICD10CM"]),
)
def test_any_rows(tmp_path: Path, rows: list[tuple[Any, ...]], named: str | None) -> None:
    people = [[key, 8507, 1950, "", ""] for key in (1, 2)]
    table = [[key, f"2020-01-{day:02}", source, standard, value] for key, day, source, standard, value in rows]
    patients, summary = read(
        write(tmp_path / "cdm", person=people, condition_occurrence=table, concept=LISTED), source_vocabulary=named
    )
    expected: dict[int, list[tuple[str, str, str]]] = {1: [], 2: []}
    for key, day, source, standard, value in sorted(rows, key=lambda row: row[:2]):  # stable: rows keep their order
        event = KNOWN.get(source)
        if event is None and named and value and source in (0, "", 99):
            event = ("icd10cm", value)
        event = event or KNOWN.get(standard)
        if event and key in expected and (f"2020-01-{day:02}", *event) not in expected[key]:
            expected[key].append((f"2020-01-{day:02}", *event))
    assert {key: p["events"] for key, p in patients.items()} == expected
    of_table = summary.files["condition_occurrence"]
    assert of_table["rows"] == len(rows) and of_table["of no patient"] == sum(row[0] == 3 for row in rows)
    counted = systems_of(patients).total() + summary.repeats + summary.families.total()
    assert counted + of_table.total() - of_table["rows"] == len(rows)


def test_days_of_birth(tmp_path: Path) -> None:
    person = [
        [*PERSON, "month_of_birth", "day_of_birth", "birth_datetime"],
        [1, 8507, 1950, "", "", 5, 17, ""],
        [2, 8507, 1960, "", "", 5, "", ""],
        [3, 8507, 1970, "", "", "", "", "1970-03-04T05:06:07"],
        [4, 8507, 1980, "", "", "", "", ""],
        [5, 8507, 1990, "", "", 1, 1, ""],  # what stands for a year alone
        [6, 8507, 1990, "", "", 2, 30, ""],
    ]
    folder = write(tmp_path, person=person, condition_occurrence=[[1, DAY, ICD10, SNOMED, ""]], concept=LISTED)
    patients, _ = read(folder)
    assert [patient.get("birth_date") for patient in patients.values()] == [
        *("1950-05-17", "1960-05-01", "1970-03-04"),
        *(None, None, None),
    ]
