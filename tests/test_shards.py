"""A dataset in shards is the dataset in one file: the same patients, batches and counts, opened as they are used."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_records

from exmed_bert.console import InputError
from exmed_bert.data.convert import convert
from exmed_bert.data.dataset import PatientDataset
from exmed_bert.data.formats import MANIFEST
from exmed_bert.data.shards import (
    MadeShard,
    Shard,
    ShardedDataset,
    fill_folder,
    open_dataset,
    write_shard,
)
from exmed_bert.data.vocabulary_file import check_source, vocabulary_from
from exmed_bert.settings import ConvertSettings

PATIENTS = 60


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> PatientDataset:
    folder = tmp_path_factory.mktemp("whole")
    codes = [f"E{i:02}.{i % 10}" for i in range(100)]
    rng = np.random.default_rng(1)
    records = []
    for i in range(PATIENTS):
        chosen = rng.integers(0, len(codes), rng.integers(5, 30)).tolist()
        records.append(
            {
                "patient_id": f"P{i}",
                "birth_year": 1950 + i % 30,
                "sex": "FEMALE" if i % 2 else "MALE",
                "patient_state": "CA",
                "diagnoses": [codes[c] for c in chosen],
                "diagnosis_dates": [f"2020{1 + c % 12:02}{1 + c % 28:02}" for c in chosen],
                "drugs": [],
                "prescription_dates": [],
                "had_plos": bool(i % 3) if i > 10 else None,
                "death_date": "20210101" if i % 7 == 0 else None,
            }
        )
    path = write_records(folder / "p.json", records)
    return PatientDataset.load(convert(ConvertSettings(input=path, output=folder / "d.pt")).paths["train"])


def in_shards(dataset: PatientDataset, folder: Path, sizes: Sequence[int]) -> ShardedDataset:
    folder.mkdir()
    shards, start = [], 0
    for number, size in enumerate(sizes):
        part = dataset[start : start + size]
        start += size
        name = f"shard-{number:05}.pt"
        write_shard(folder / name, part.columns)
        known = int((part.columns["plos"] >= 0).sum())
        shard = Shard(name, len(part), len(part.columns["codes"]), len(part.columns["visit_days"]), known, "")
        shards.append(MadeShard(shard, part.lengths.astype(np.uint16), part.code_counts))
    fill_folder(folder, dataset.info, folder, shards)
    found = open_dataset(folder)
    assert isinstance(found, ShardedDataset)
    return found


@pytest.fixture
def sharded(whole: PatientDataset, tmp_path: Path) -> ShardedDataset:
    return in_shards(whole, tmp_path / "shards", [7, 1, 20, len(whole) - 28])


def test_batches_are_those_of_the_file(whole: PatientDataset, sharded: ShardedDataset) -> None:
    rng = np.random.default_rng(2)
    for rows in ([3], [0, 7, 8, 27, 28], rng.integers(0, len(whole), 16), [5, 6, 5]):
        one, other = whole.batch(rows), sharded.batch(rows)
        real = np.arange(one.codes.shape[1]) < one.lengths[:, None]
        for name in ("codes", "entities", "ages", "visit_ids", "lengths", "patient_hashes", "plos"):
            assert np.array_equal(getattr(one, name), getattr(other, name)), name
        assert np.array_equal(one.days[real], other.days[real])
        assert all(np.array_equal(one.static[name], other.static[name]) for name in one.static)
        items, others = whole.__getitems__(list(rows)), sharded.__getitems__(list(rows))
        assert all(torch.equal(a[name], b[name]) for a, b in zip(items, others, strict=True) for name in a)


def test_all_else_is_that_of_the_file(whole: PatientDataset, sharded: ShardedDataset) -> None:
    assert len(sharded) == len(whole) and sharded.stats() == whole.stats() and sharded.has_plos == whole.has_plos
    assert np.array_equal(sharded.lengths, whole.lengths) and np.array_equal(sharded.code_counts, whole.code_counts)
    assert [sharded.patient(i) for i in range(len(whole))] == [whole.patient(i) for i in range(len(whole))]
    assert set(sharded.columns) == set(whole.columns)
    assert all(torch.equal(sharded.columns[name], whole.columns[name]) for name in whole.columns)
    rows = np.random.default_rng(3).permutation(len(whole))[:20]
    one, other = whole.subset(rows), sharded.subset(rows)
    assert all(torch.equal(one.columns[name], other.columns[name]) for name in one.columns)
    assert sharded.with_masking(seed=9).info.needed_masking.seed == 9


def test_a_vocabulary_may_be_that_of_a_folder_of_shards(sharded: ShardedDataset) -> None:
    check_source(sharded.folder)
    assert vocabulary_from(sharded.folder).tokens == sharded.info.vocabulary.tokens


def test_shards_are_opened_when_they_are_used(sharded: ShardedDataset) -> None:
    for shard in sharded.shards[1:]:
        (sharded.folder / shard.file).unlink()
    assert len(sharded.batch([0, 3]).codes) == 2 and len(sharded.lengths) == len(sharded)
    with pytest.raises(InputError, match=r"shard-00001.pt.*not found"):
        sharded.batch([0, 7])


def test_opening_looks_at_the_manifest_alone(whole: PatientDataset, tmp_path: Path) -> None:
    few = in_shards(whole, tmp_path / "few", [len(whole)])
    path = few.folder / MANIFEST
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"shards": content["shards"] * 400}))
    (few.folder / few.shards[0].file).unlink()  # not even looked at
    assert len(open_dataset(few.folder)) == 400 * len(whole)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda content: content | {"version": 1}, "version 1"),
        (lambda content: content | {"format": "other"}, "no manifest"),
        (lambda content: content | {"shards": [{"file": "a"}]}, "damaged"),
        (lambda content: content | {"shards": [content["shards"][0] | {"file": "../x.pt"}]}, "outside"),
        (lambda content: [content], "no manifest"),
    ],
)
def test_a_wrong_manifest_is_one_line(change: object, part: str, sharded: ShardedDataset) -> None:
    path = sharded.folder / MANIFEST
    path.write_text(json.dumps(change(json.loads(path.read_text()))))  # type: ignore[operator]
    with pytest.raises(InputError, match=part) as error:
        open_dataset(sharded.folder)
    assert str(path) in str(error.value)


def test_a_shard_that_is_another_or_damaged_is_one_line(sharded: ShardedDataset) -> None:
    first, second = (sharded.folder / shard.file for shard in sharded.shards[:2])
    second.write_bytes(first.read_bytes())
    with pytest.raises(InputError, match=r"shard-00001.pt: is damaged: holds 7 patients, the manifest says 1"):
        sharded.batch([7])
    second.write_bytes(first.read_bytes()[:500])
    with pytest.raises(InputError, match=r"shard-00001.pt: is damaged"):
        open_dataset(sharded.folder).batch([7])
