"""Procedures and laboratory tests of generated patients: what they depend on, and what they leave as it is."""

from pathlib import Path

import numpy as np
import pytest

from exmed_bert.codes import code_system
from exmed_bert.config import Resolved
from exmed_bert.data.patient import PatientColumns
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.files import read_json
from exmed_bert.reference import further
from exmed_bert.settings import GenerateSettings
from exmed_bert.synthetic import generate
from exmed_bert.synthetic.population import generate as patients_of

A1C, CREATININE = "4548-4", "2160-0"
SETTINGS = GenerateSettings(num_patients=2000, realistic=True, seed=7, events="diagnoses,drugs,procedures,labs")


@pytest.fixture(scope="module")
def blocks() -> list[PatientColumns]:
    """Patients with all kinds of events."""
    return list(patients_of(SETTINGS))


def test_diagnoses_and_drugs_stay(blocks: list[PatientColumns]) -> None:
    plain_blocks = patients_of(SETTINGS.model_copy(update={"events": "diagnoses,drugs"}))
    for block, plain in zip(blocks, plain_blocks, strict=True):
        for system in ("icd10cm", "atc"):
            kept, expected = block.events.of_system(system), plain.events.of_system(system)
            assert (kept.codes == expected.codes).all() and (kept.offsets == expected.offsets).all()
        assert {name for name, _ in block.events.table} == {"icd10cm", "atc", "hcpcs", "icd10pcs", "loinc"}


def values(block: PatientColumns, code: str, condition: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of a test before a condition is on record, or without it, and those from then on."""
    labs, events = block.events.of_system("loinc"), block.events.of_system("icd10cm")
    assert labs.measured is not None
    first = np.full(len(block), 2**31 - 1)
    own = np.array([text.startswith(condition) for _, text in events.table])[events.codes]
    np.minimum.at(first, events.patients()[own], events.days[own])
    test = labs.codes == [text for _, text in labs.table].index(code)
    after = labs.days >= first[labs.patients()]
    return labs.measured.values[test & ~after], labs.measured.values[test & after]


@pytest.mark.parametrize(("code", "condition", "ratio"), [(A1C, "E11", 1.37), (CREATININE, "N18", 1.5)])
def test_values_depend_on_conditions(blocks: list[PatientColumns], code: str, condition: str, ratio: float) -> None:
    found = [values(block, code, condition) for block in blocks]
    without, with_it = (np.log(np.concatenate(one)) for one in zip(*found, strict=True))
    assert len(without) > 50 and len(with_it) > 50
    assert np.exp(with_it.mean() - without.mean()) == pytest.approx(ratio, rel=0.12)


def test_procedures_are_at_visits_with_their_diagnosis(blocks: list[PatientColumns]) -> None:
    table = further.procedures()
    needed = dict(zip(table.keys, table.needs, strict=True))
    events = blocks[0].events
    visits: dict[tuple[int, int], set[str]] = {}
    owners = events.patients().tolist()
    keys = [events.table[code] for code in events.codes.tolist()]
    for owner, day, (system, code) in zip(owners, events.days.tolist(), keys, strict=True):
        if system == "icd10cm":
            visits.setdefault((owner, day), set()).add(code)
    found = 0
    for owner, day, key in zip(owners, events.days.tolist(), keys, strict=True):
        if code_system(key[0]).events == "procedures":
            assert any(code.startswith(needed[key]) for code in visits[owner, day])
            found += 1
    assert found > 100


def test_flags_are_those_of_the_reference_ranges(blocks: list[PatientColumns]) -> None:
    table, labs = further.labs(), blocks[0].events.of_system("loinc")
    assert labs.measured is not None
    test = np.array([table.codes.index(code) for _, code in labs.table])[labs.codes]
    high = labs.measured.values > table.high.max(axis=1)[test] + 1e-4
    assert high.any() and (labs.measured.flags[high] == 2).all()


def test_a_file_is_known_as_generated(tmp_path: Path) -> None:
    output = tmp_path / "p.parquet"
    generate.run(Resolved(replace_settings(output), {}))
    source = PatientInput([output])
    (chunk,) = source.chunks()
    assert source.generated and chunk.events.measured is not None
    counts = read_json(tmp_path / "p.meta.json")["counts"]
    assert counts["labs"] == sum(counts["codes"]["loinc"].values()) > 0 and counts["procedures"] > 0


def replace_settings(output: Path) -> GenerateSettings:
    """Return the settings of a smaller population in a file."""
    return SETTINGS.model_copy(update={"num_patients": 300, "output": output})


@pytest.mark.parametrize("events", ["diagnoses", "diagnoses,drugs,visits", ""])
def test_other_events_are_refused(events: str) -> None:
    with pytest.raises(ValueError, match="expected diagnoses,drugs"):
        GenerateSettings(events=events)
