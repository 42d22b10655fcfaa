"""Conversions as a whole: in parts and shards, with rare codes, of codes that have to be mapped, and what they tell."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import record, write_records

from exmed_bert.config import Resolved
from exmed_bert.console import InputError
from exmed_bert.data.convert import convert, run
from exmed_bert.data.dataset import PatientDataset
from exmed_bert.data.shards import ShardedDataset
from exmed_bert.data.vocabulary import UNK
from exmed_bert.settings import ConvertSettings

CODES = ["I10", "E11.9", "E11.65", "J45.909", "N18.3", "F32.1", "E78.5", "M54.5"]


def people(first: int, count: int) -> list[dict[str, Any]]:
    found = []
    for i in range(first, first + count):
        codes = [CODES[(i * 3 + k * (1 + i % 4)) % len(CODES)] for k in range(5 + i % 9)]
        dates = [f"20{20 + k % 4}{1 + (i + k) % 12:02}{1 + k:02}" for k in range(len(codes))]
        found.append(record(f"P{i}" if i % 2 else i, diagnoses=codes, diagnosis_dates=dates))
    return found


def settings(tmp_path: Path, source: Path, name: str, **changes: Any) -> ConvertSettings:
    return ConvertSettings(input=source, output=tmp_path / name / "d.pt", **changes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with three files of patients."""
    (tmp_path / "people").mkdir()
    for number, (first, count) in enumerate(((0, 30), (30, 1), (31, 49))):
        write_records(tmp_path / "people" / f"part-{number}.json", people(first, count))
    return tmp_path / "people"


def columns_of(dataset: PatientDataset) -> dict[str, torch.Tensor]:
    return dict(dataset.to_dict()["columns"])


def test_files_of_a_folder_are_as_one_file(folder: Path, tmp_path: Path) -> None:
    one = write_records(tmp_path / "one.json", people(0, 80))
    by_file = convert(settings(tmp_path, folder, "parts"))
    whole = convert(settings(tmp_path, one, "whole"))
    for split, dataset in by_file.datasets.items():
        other = columns_of(whole.datasets[split])
        assert all(torch.equal(column, other[name]) for name, column in columns_of(dataset).items())
        assert dataset.info.vocabulary.tokens == whole.datasets[split].info.vocabulary.tokens
    assert vars(by_file.summary) == vars(whole.summary)


def test_shards_hold_what_one_file_holds(folder: Path, tmp_path: Path) -> None:
    whole = convert(settings(tmp_path, folder, "whole"))
    sharded = convert(settings(tmp_path, folder, "shards", shard_size=7))
    for split, dataset in sharded.datasets.items():
        assert isinstance(dataset, ShardedDataset) and sharded.paths[split].is_dir()
        other = columns_of(whole.datasets[split])
        assert all(torch.equal(column, other[name]) for name, column in columns_of(dataset).items())
        assert dataset.stats() == whole.datasets[split].stats()
    assert len(sharded.datasets["train"].shards) > 1  # type: ignore[attr-defined]
    assert not list((tmp_path / "shards").glob(".*"))
    again = convert(settings(tmp_path, folder, "shards", shard_size=1000))  # a folder is replaced by one of one shard
    assert len(again.datasets["train"]) == len(whole.datasets["train"])


def test_static_masks_are_those_of_one_file(folder: Path, tmp_path: Path) -> None:
    whole = convert(settings(tmp_path, folder, "whole", dynamic_masking=False))
    sharded = convert(settings(tmp_path, folder, "shards", dynamic_masking=False, shard_size=10))
    for split in ("train", "val"):
        one, other = columns_of(whole.datasets[split]), columns_of(sharded.datasets[split])
        assert torch.equal(one["masked"], other["masked"]) and torch.equal(one["shown_codes"], other["shown_codes"])


def test_a_damaged_file_leaves_nothing_and_what_stood_there(folder: Path, tmp_path: Path) -> None:
    before = convert(settings(tmp_path, folder, "d")).paths["train"].read_bytes()
    (folder / "part-2.json").write_text('{"patient_id": 7')
    with pytest.raises(InputError, match=r"part-2.json: is not JSON"):
        convert(settings(tmp_path, folder, "d"))
    assert (tmp_path / "d" / "d_train.pt").read_bytes() == before and not list((tmp_path / "d").glob(".*"))


def test_a_patient_in_two_files_is_refused(folder: Path, tmp_path: Path) -> None:
    write_records(folder / "part-3.json", people(4, 1))
    with pytest.raises(InputError, match=r"record 81 \(patient_id 4\).*that of record 5 too"):
        convert(settings(tmp_path, folder, "d"))


def test_rare_codes_are_unknown_or_roll_up(folder: Path, tmp_path: Path) -> None:
    rare = write_records(
        folder / "part-9.json",
        [
            record(
                f"R{i}",
                diagnoses=["I10", "E11.9", "N18.3", "F32.1", code],
                diagnosis_dates=[f"2020010{k}" for k in range(1, 6)],
            )
            for i, code in enumerate(["E11.61", "E11.62", "E11.63", "Q99.9"])
        ],
    )
    assert rare.exists()
    unknown = convert(settings(tmp_path, folder, "unk", min_code_count=3))
    tokens = set(unknown.datasets["train"].info.vocabulary.tokens)
    assert not tokens & {"E11.61", "E11.62", "E11.63", "Q99.9"} and set(unknown.rare) == {
        ("icd10cm", code) for code in ("E11.61", "E11.62", "E11.63", "Q99.9")
    }
    assert sum(int(one.code_counts[UNK]) for one in unknown.datasets.values()) == 4
    rolled = convert(settings(tmp_path, folder, "up", min_code_count=3, rare_codes="roll-up"))
    vocabulary = rolled.datasets["train"].info.vocabulary
    counts = sum(one.code_counts for one in rolled.datasets.values())
    assert counts[vocabulary.ids["E11.6"]] == 3 and counts[UNK] == 1 and "Q99" not in vocabulary.ids


def test_codes_that_become_the_same_on_a_day_are_one(tmp_path: Path) -> None:
    codes = ["E11.61", "E11.62", "I10", "N18.3", "F32.1", "J45.909"]
    days = ["20200101", "20200101", "20200102", "20200103", "20200104", "20200105"]
    path = write_records(tmp_path / "p.json", [record(i, diagnoses=codes, diagnosis_dates=days) for i in range(40)])
    given = settings(tmp_path, path, "d", min_code_count=41, rare_codes="roll-up")
    made = convert(given).datasets.values()  # E11.6 alone is frequent enough
    assert sum(int(one.code_counts[one.info.vocabulary.ids["E11.6"]]) for one in made) == 40
    assert all(one.stats()["distinct codes"] == 1 and one.lengths.max() == 7 for one in made)


def told(tmp_path: Path, source: Path, name: str, **changes: Any) -> Path:
    given = settings(tmp_path, source, name, **changes)
    run(Resolved(given, dict.fromkeys(ConvertSettings.model_fields, "flag")))
    return tmp_path / name / "d_conversion"


def test_what_is_not_mapped_is_listed(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    others = [
        {"system": "rxnorm", "code": "860975", "date": "20200303"},
        {"system": "ndc", "code": "00093101601", "date": "20200304"},
    ]
    records = [one | {"events": others if i % 2 else others[:1]} for i, one in enumerate(people(100, 40))]
    path = write_records(tmp_path / "p.json", records)
    page = told(tmp_path, path, "d", keep_systems="icd10cm,atc", min_cell=0)
    with open(page / "unmapped_codes.csv", newline="") as file:
        assert list(csv.reader(file)) == [
            ["source_system", "source_code", "events"],
            ["rxnorm", "860975", "40"],
            ["ndc", "00093101601", "20"],
        ]
    said = capsys.readouterr()
    assert "events of RxNorm" in said.out and "40 left out" in said.out
    assert (page / "report.html").stat().st_size > 1000
    hidden = told(tmp_path, path, "hidden", keep_systems="icd10cm", min_cell=30)
    assert "ndc,00093101601,<30" in (hidden / "unmapped_codes.csv").read_text()


def test_no_known_code_is_an_error_that_names_systems_and_remedies(tmp_path: Path) -> None:
    events = [{"system": "rxnorm", "code": str(860975 + k), "date": f"2020030{k}"} for k in range(1, 8)]
    records = [
        record(i, diagnoses=[], diagnosis_dates=[], drugs=[], prescription_dates=[], events=events) for i in range(9)
    ]
    path = write_records(tmp_path / "p.json", records)
    with pytest.raises(InputError, match=r"no event has a known code: 63 RxNorm; .*--athena .*--keep-systems rxnorm"):
        convert(settings(tmp_path, path, "d", keep_systems="icd10cm"))
    assert len(convert(settings(tmp_path, path, "kept", keep_systems="rxnorm")).datasets["train"].info.vocabulary) > 6
