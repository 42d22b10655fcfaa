"""Values of measurements: from a record to codes by cut points of the training patients."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import record, write_records

from exmed_bert.console import InputError
from exmed_bert.data.convert import convert
from exmed_bert.data.dataset import PatientDataset
from exmed_bert.data.export.meds import export_meds
from exmed_bert.data.measured import Measured
from exmed_bert.data.patient import EventColumns
from exmed_bert.data.patient_input import PatientInput, read_patients
from exmed_bert.data.static_columns import BUILT_IN
from exmed_bert.data.tokenizer import Tokenizer
from exmed_bert.data.value_coding import ValueCoding, cut_points, rounded, value_counts
from exmed_bert.data.vocabulary import CodeVocabulary
from exmed_bert.data.vocabulary_file import read_vocabulary
from exmed_bert.data.writers import Fields, write_patients
from exmed_bert.interface.given import columns_of_events
from exmed_bert.settings import ConvertSettings
from exmed_bert.staging import write_json

A1C, POTASSIUM = "4548-4", "2823-3"
PATIENTS = 160


def lab(code: str, day: str, value: float | None = None, flag: str | None = None) -> dict[str, Any]:
    """Return an event of a record."""
    return {"system": "loinc", "code": code, "date": day, "value": value, "flag": flag}


def people() -> list[dict[str, Any]]:
    """Return patients with HbA1c twice, one day with two values, and potassium of some, too few for cut points."""
    rng = np.random.default_rng(5)
    made = []
    for i in range(PATIENTS):
        values = np.round(rng.normal(6.5, 1.2, 3), 1).tolist()
        events = [lab(A1C, "20200111", values[0], "H" if values[0] > 6.5 else "N")]
        events += [lab(A1C, "20210111", values[1]), lab(A1C, "20210111", values[2] + 4)]
        events += [lab(A1C, "20210212"), {"system": "cpt", "code": "83036", "date": "20210111"}]
        if i % 10 == 0:
            events.append(lab(POTASSIUM, "20210111", 4.1, "N"))
        days = ["20200111", "20210111", "20220111"]
        made.append(record(i, diagnoses=["I10", "E11.9", "I10"], diagnosis_dates=days, events=events))
    return made


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of patients with values."""
    path = tmp_path_factory.mktemp("labs") / "patients.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in people()))
    return path


def converted(source: Path, folder: Path, **options: Any) -> dict[str, PatientDataset]:
    """Return the datasets of a file of patients."""
    return convert(ConvertSettings(input=(source,), output=folder / "data", **options)).datasets


def shown(dataset: PatientDataset) -> Counter[str]:
    """Return the tokens of LOINC and how often each occurs."""
    counts = zip(dataset.info.vocabulary.tokens, dataset.code_counts.tolist(), strict=True)
    return Counter({token: n for token, n in counts if n and token.startswith("loinc")})


@pytest.fixture(scope="module")
def datasets(patients: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, PatientDataset]:
    """Its datasets."""
    return converted(patients, tmp_path_factory.mktemp("converted"))


def test_cut_points_are_those_of_the_training_patients(patients: Path, datasets: dict[str, PatientDataset]) -> None:
    info = datasets["train"].info
    assert info.vocabulary.cuts.keys() == {("loinc", A1C)}  # of potassium there are too few values
    chunk = next(read_patients(patients))
    trained = np.isin(chunk.patient_ids, [datasets["train"].patient_id(row) for row in range(len(datasets["train"]))])
    assert 0 < trained.sum() < PATIENTS
    events = chunk.events
    assert events.measured is not None
    own = np.array([code == A1C for _, code in events.table])[events.codes] & trained[events.patients()]
    values = np.sort(events.measured.values[own & ~np.isnan(events.measured.values)].astype(float))
    expected = np.quantile(values, [0.2, 0.4, 0.6, 0.8], method="inverted_cdf")
    assert np.allclose(info.vocabulary.cuts["loinc", A1C], expected, atol=0.001)


def test_every_value_is_in_its_quantile(datasets: dict[str, PatientDataset]) -> None:
    counts = shown(datasets["train"])
    assert set(counts) == {f"loinc:{A1C}", *(f"loinc:{A1C}|Q{i}" for i in range(1, 6)), f"loinc:{POTASSIUM}"}
    assert counts[f"loinc:{A1C}"] == len(datasets["train"])  # the one without a value
    assert sum(counts.values()) > 4 * len(datasets["train"]) * 0.9  # two values of a day are two codes
    assert set(shown(datasets["val"])) <= set(counts)
    assert "cpt:83036" in datasets["train"].info.vocabulary.tokens


def test_a_vocabulary_keeps_cut_points_in_every_file(datasets: dict[str, PatientDataset], tmp_path: Path) -> None:
    vocabulary = datasets["train"].info.vocabulary
    write_json(tmp_path / "vocab.json", vocabulary.to_dict())
    for again in (read_vocabulary(tmp_path / "vocab.json"), CodeVocabulary.from_json(vocabulary.to_json())):
        assert again.cuts == vocabulary.cuts and again.tokens == vocabulary.tokens
    assert vocabulary.extended([("atc", "A10BA02")]).cuts == vocabulary.cuts


@pytest.mark.parametrize("cuts", [[5.0, 5.0], [], ["5"], [float("nan")], 7])
def test_wrong_cut_points_are_refused(cuts: Any, tmp_path: Path, datasets: dict[str, PatientDataset]) -> None:
    content = datasets["train"].info.vocabulary.to_dict()
    content[f"loinc:{A1C}|Q1"]["cuts"] = cuts
    (tmp_path / "vocab.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"vocab\.json"):
        read_vocabulary(tmp_path / "vocab.json")
    text = json.loads(datasets["train"].info.vocabulary.to_json())
    text[3][0][2] = cuts
    with pytest.raises(ValueError, match="cuts"):
        CodeVocabulary.from_json(json.dumps(text))


def test_patients_of_a_model_are_coded_by_its_cut_points(patients: Path, datasets: dict[str, PatientDataset]) -> None:
    dataset = datasets["train"]
    tokenizer = Tokenizer(50, 5, "years", dataset.info.vocabulary, extend=False)
    tokens = tokenizer.encode(next(read_patients(patients)))
    ids = dataset.info.vocabulary.ids
    found = np.bincount(tokens.codes, minlength=len(ids))
    both = shown(dataset) + shown(datasets["val"])
    assert {token: int(found[ids[token]]) for token in both} == dict(both)
    assert not tokenizer.summary.unknown.read


def test_every_format_and_way_gives_the_same_dataset(
    patients: Path, datasets: dict[str, PatientDataset], tmp_path: Path
) -> None:
    chunks = list(read_patients(patients))
    write_patients(tmp_path / "patients.parquet", chunks, Fields(events=True, values=True))
    write_patients(tmp_path / "patients.json", chunks, Fields(events=True, values=True))
    export_meds(tmp_path / "meds", chunks, PatientInput([patients]).origin)
    for name in ("patients.parquet", "patients.json", "meds"):
        for split, dataset in converted(tmp_path / name, tmp_path / f"{name}.converted").items():
            for column, values in datasets[split].columns.items():
                assert (dataset.columns[column] == values).all(), (name, column)
            assert dataset.info.vocabulary.to_json() == datasets[split].info.vocabulary.to_json()


def test_values_in_several_files_are_coded_alike(
    patients: Path, datasets: dict[str, PatientDataset], tmp_path: Path
) -> None:
    lines = patients.read_text().splitlines(keepends=True)
    folder = tmp_path / "shards"
    folder.mkdir()
    for i in range(4):
        (folder / f"part-{i}.jsonl").write_text("".join(lines[i * 40 : (i + 1) * 40]))
    again = converted(folder, tmp_path, min_cell=10)["train"]
    assert again.info.vocabulary.to_json() == datasets["train"].info.vocabulary.to_json()
    assert (again.columns["codes"] == datasets["train"].columns["codes"]).all()


def test_by_reference_range(patients: Path, tmp_path: Path) -> None:
    dataset = converted(patients, tmp_path, lab_values="range")["train"]
    assert set(shown(dataset)) == {f"loinc:{A1C}", f"loinc:{A1C}|H", f"loinc:{A1C}|N", f"loinc:{POTASSIUM}|N"}
    assert not dataset.info.vocabulary.cuts
    tokens = Tokenizer(50, 5, "years", dataset.info.vocabulary, extend=False).encode(next(read_patients(patients)))
    assert (tokens.codes == dataset.info.vocabulary.ids[f"loinc:{POTASSIUM}|N"]).sum() == PATIENTS / 10
    none = converted(patients, tmp_path / "none", lab_values="none")["train"]
    assert set(shown(none)) == {f"loinc:{A1C}", f"loinc:{POTASSIUM}"}


def test_a_vocabulary_taken_as_it_is_decides(
    patients: Path, datasets: dict[str, PatientDataset], tmp_path: Path
) -> None:
    write_json(tmp_path / "vocab.json", datasets["train"].info.vocabulary.to_dict())
    few = write_records(tmp_path / "few.json", people()[:40])
    options = {"vocab_from": tmp_path / "vocab.json", "lab_bins": 2}
    dataset = converted(few, tmp_path, **options)["train"]
    assert f"loinc:{A1C}|Q5" in shown(dataset)
    extended = converted(few, tmp_path / "extended", **options, extend_vocab=True)["train"]
    assert extended.info.vocabulary.cuts == datasets["train"].info.vocabulary.cuts


@pytest.mark.parametrize(
    ("field", "value"), [("value", "7.2"), ("value", True), ("value", 1e39), ("flag", "HH"), ("flag", 1)]
)
def test_wrong_results_are_refused(field: str, value: Any, tmp_path: Path) -> None:
    wrong = record(1, events=[lab(A1C, "20200111") | {field: value}])
    with pytest.raises(InputError, match=rf"record 1 .*events\[0\]\.{field}"):
        list(read_patients(write_records(tmp_path / "p.json", [wrong])))


def test_values_near_a_cut_point_do_not_depend_on_their_bits() -> None:
    values = np.array([7.3, 7.2999, 7.31, -7.3, 0.0, 1e-42, 3e38], dtype=np.float32)
    assert rounded(values)[:5].tolist() == [7.3, 7.3, 7.31, -7.3, 0.0]
    assert np.isfinite(rounded(values)).all()
    table = [("loinc", A1C), ("icd10cm", "I10")]
    measured = Measured(np.array([7.3, 7.31, np.nan, 7.0], np.float32), np.full(4, -1, np.int8))
    events = EventColumns(np.array([0, 0, 0, 1]), np.zeros(4, np.int32), np.array([0, 4]), table, measured=measured)
    coded = ValueCoding({("loinc", A1C): (7.3,)}).apply(events)
    assert [coded.table[code][1] for code in coded.codes] == [f"{A1C}|Q1", f"{A1C}|Q2", A1C, "I10"]
    assert value_counts(events, np.array([True])) == {("loinc", A1C, 7.3): 1, ("loinc", A1C, 7.31): 1}


def test_no_bin_is_empty() -> None:
    counts = Counter({("loinc", A1C, 5.0): 900, ("loinc", A1C, 6.0): 50, ("loinc", A1C, 7.0): 50})
    assert cut_points(counts, 5) == {("loinc", A1C): (5.0,)}
    assert cut_points(counts, 20)["loinc", A1C] == (5.0, 6.0)


def test_a_table_of_events_in_python() -> None:
    import pandas

    rows = [(1, "2020-01-11", "loinc", A1C, 7.2, "H"), (2, "2020-01-11", "loinc", A1C, None, None)]
    rows.append((1, "2020-01-10", "icd10cm", "I10", None, None))
    events = pandas.DataFrame(rows, columns=["patient_id", "date", "system", "code", "value", "flag"])
    measured = columns_of_events(events, BUILT_IN).events.measured
    assert measured is not None and measured.flags.tolist() == [2, -1, -1]
    assert np.isnan(measured.values).tolist() == [False, True, True]
    for wrong in ({"value": "high"}, {"flag": "X"}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            columns_of_events(events.astype(object).assign(**{k: [v] * 3 for k, v in wrong.items()}), BUILT_IN)
