"""What opening and verifying a dataset refuse: columns of a wrong kind, falling starts, values out of range."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import record, write_records

from exmed_bert.console import InputError
from exmed_bert.data.convert import convert
from exmed_bert.data.shards import CODE_COUNTS, LENGTHS, ShardedDataset, open_dataset, verify
from exmed_bert.data.vocabulary import SPECIAL_TOKENS
from exmed_bert.settings import ConvertSettings

Change = Callable[[torch.Tensor], torch.Tensor]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with ids as text, in one file."""
    folder = tmp_path_factory.mktemp("dataset")
    people = [record(f"é{i}", death_date="20240101" if i % 2 else None) for i in range(40)]
    path = write_records(folder / "p.json", people)
    return convert(ConvertSettings(input=(path,), output=folder / "d.pt", dynamic_masking=False)).paths["train"]


@pytest.fixture(scope="module")
def shards(dataset: Path) -> Path:
    """A dataset in shards."""
    folder = dataset.parent / "parts"
    for part in range(3):
        write_records(folder / f"{part}.json", [record(20 * part + i) for i in range(20)])
    made = convert(ConvertSettings(input=(folder,), output=dataset.with_name("s.pt"), shard_size=10))
    assert isinstance(made.datasets["train"], ShardedDataset)
    return made.paths["train"]


def put(place: int, value: int) -> Change:
    def change(column: torch.Tensor) -> torch.Tensor:
        column = column.clone()
        column[place] = value
        return column

    return change


def refused(path: Path, message: str) -> None:
    """Assert that a dataset is refused in one line that names the file."""
    with pytest.raises(InputError, match=message) as error:
        verify(path, open_dataset(path))
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("column", "change", "message"),
    [
        ("offsets", put(3, 1), "column offsets: value 3 is 1, less than 10 before it"),
        ("offsets", put(0, -1), "column offsets begins with -1, expected 0"),
        ("offsets", lambda c: c[:0], "column offsets has 0 values"),
        ("offsets", lambda c: c.to(torch.float64), "column offsets holds float64, expected int64"),
        ("visit_offsets", put(1, -5), "column visit_offsets: value 1 is -5"),
        ("visit_offsets", lambda c: c[1:], "column visit_offsets has"),
        ("id_offsets", put(2, 0), "column id_offsets: value 2 is 0, less than"),
        ("codes", put(5, 32_000), "column codes: 32000, expected 1 to"),
        ("codes", put(5, -1), "column codes: -1, expected"),
        ("codes", lambda c: c.reshape(-1, 1), r"column codes has the shape \[.*, 1\], expected one dimension"),
        ("codes", lambda c: c[:1].expand(len(c)), "column codes has the shape"),
        ("codes", lambda c: c.float(), "column codes holds float32"),
        ("codes", lambda c: c.tolist(), "column codes is no plain tensor"),
        ("codes", lambda c: c.to_sparse(), "column codes is no plain tensor"),
        ("codes", lambda c: c[:-1], "column codes has"),
        ("shown_codes", put(0, 31_000), "column shown_codes: 31000"),
        ("masked", lambda c: c.to(torch.uint8), "column masked holds uint8, expected bool"),
        ("entities", put(0, 3), "column entities: 3, expected 0 to 2"),
        ("ages", put(0, 250), "column ages: 250, expected 1 to 116"),
        ("visit_ids", put(0, 0), "column visit_ids: 0, expected 1 to"),
        ("visit_ids", put(0, 40), "column visit_ids: 40, expected at most the 3 of the patient"),
        ("visit_days", lambda c: put(0, 10**9)(c.int()), "column visit_days: 1000000000"),
        ("static_sex", put(0, 8), "column static_sex: 8, expected 1 to 7"),
        ("static_state", lambda c: c[:-1], "column static_state has"),
        ("plos", put(0, 2), "column plos: 2, expected -1 to 1"),
        ("death_date", put(0, 2**31 - 1), "column death_date: 2147483647"),
        ("birth_years", put(0, 20_000), "column birth_years: 20000"),
        ("patient_hashes", lambda c: c.int(), "column patient_hashes holds int32"),
        ("id_bytes", put(0, 0xFF), "column id_bytes: is no UTF-8"),
        ("id_offsets", put(1, 1), "column id_offsets: an id begins within a character"),
        ("ages", None, "column ages is missing"),
        ("extra", lambda c: torch.zeros(3), "column 'extra' is none of a dataset's"),
    ],
)
def test_a_wrong_column_is_named(
    dataset: Path, tmp_path: Path, column: str, change: Callable[[Any], Any] | None, message: str
) -> None:
    content = torch.load(dataset, weights_only=True)
    columns = dict(content["columns"])
    changed = None if change is None else change(columns.pop(column, None))
    columns = columns | {column: changed} if change is not None else {n: c for n, c in columns.items() if n != column}
    path = tmp_path / "d.pt"
    torch.save(content | {"columns": columns}, path)
    refused(path, message)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("split", "test"),
        ("split", 1),
        ("max_length", 10**9),
        ("max_length", "50"),
        ("age_unit", "days"),
        ("masking", {"mode": "dynamic"}),
        ("masking", {"mode": "dynamic", "probability": float("nan"), "max_masked": 20, "seed": 1}),
        ("masking", [1]),
        ("vocabulary", "[[], [], []]"),
        ("vocabulary", "[" * 100_000),
        ("vocabulary", json.dumps([[*SPECIAL_TOKENS, "I10"], [0] * 7, ["default", "atc", "icd"]])),
        ("static_columns", "{}"),
        ("static_columns", json.dumps([{"name": "sex", "field": "sex", "values": ["A", "A"]}])),
        ("novel_codes", "[1]"),
        ("split_seed", 2**70),
        ("train_ratio", float("inf")),
        ("split_from", "nowhere"),
        ("min_cell", -1.5),
        ("input_fingerprint", None),
        ("columns", []),
        ("columns", None),
    ],
)  # fmt: skip
def test_a_wrong_description_is_one_line(dataset: Path, tmp_path: Path, field: str, value: Any) -> None:
    content = torch.load(dataset, weights_only=True)
    torch.save(content | {field: value}, tmp_path / "d.pt")
    refused(tmp_path / "d.pt", "is damaged")
    torch.save({name: kept for name, kept in content.items() if name != field}, tmp_path / "d.pt")
    if field not in ("split_from", "min_cell"):
        refused(tmp_path / "d.pt", f"it holds no '{field}'")


@pytest.mark.parametrize("value", [torch.tensor([2, 2]), 2.0, True, "2", None])
def test_a_version_is_a_number(dataset: Path, tmp_path: Path, value: Any) -> None:
    torch.save(torch.load(dataset, weights_only=True) | {"version": value}, tmp_path / "d.pt")
    refused(tmp_path / "d.pt", "has dataset version")


def test_a_flipped_bit_is_found_wherever_it_is(dataset: Path, tmp_path: Path) -> None:
    content = dataset.read_bytes()
    codes = torch.load(dataset, weights_only=True)["columns"]["plos"].numpy().tobytes()
    path = tmp_path / "d.pt"
    for place in (content.index(codes), content.index(b"input_fingerprint") + 40):
        damaged = bytearray(content)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        refused(path, "is damaged")


def test_opening_reads_no_tokens(dataset: Path, tmp_path: Path) -> None:
    content = torch.load(dataset, weights_only=True)
    columns = content["columns"]
    torch.save(content | {"columns": columns | {"codes": put(0, 32_000)(columns["codes"])}}, tmp_path / "d.pt")
    assert len(open_dataset(tmp_path / "d.pt")) == len(columns["offsets"]) - 1


def test_a_folder_is_looked_through(shards: Path, tmp_path: Path) -> None:
    whole = open_dataset(shards)
    verify(shards, whole)
    for number, (name, message) in enumerate(((LENGTHS, "it is not of shard"), (CODE_COUNTS, "it is not of these"))):
        copy = tmp_path / str(number)
        shutil.copytree(shards, copy)
        array = np.load(copy / name)
        array[0] += 1
        np.save(copy / name, array)
        refused(copy, re.escape(name) + f": is damaged: {message}")
        np.save(copy / name, array.astype(np.int32))
        refused(copy, re.escape(name) + ": is damaged: it holds int32")
        (copy / name).write_bytes(b"")
        refused(copy, re.escape(name) + ": is damaged")
    copy = tmp_path / "flipped"
    shutil.copytree(shards, copy)
    shard = copy / whole.shards[1].file  # type: ignore[attr-defined]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 4
    shard.write_bytes(content)
    refused(copy, shard.name)


@pytest.mark.parametrize(
    "change",
    [{"shards": []}, {"shards": [1]}, {"shards": {}}, {"shards": None}, {"max_length": 0}, {"version": [2]}],
)
def test_a_wrong_manifest_is_named(shards: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    shutil.copytree(shards, tmp_path / "d")
    path = tmp_path / "d/manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=re.escape(str(path))):
        open_dataset(tmp_path / "d")


@pytest.mark.parametrize("change", [{"file": 1}, {"patients": -1}, {"patients": 2**60}, {"tokens": 1.5}, {"x": 1}])
def test_a_wrong_shard_is_named(shards: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    shutil.copytree(shards, tmp_path / "d")
    path = tmp_path / "d/manifest.json"
    content = json.loads(path.read_text())
    content["shards"][0] |= change
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=re.escape(str(path))):
        open_dataset(tmp_path / "d")
