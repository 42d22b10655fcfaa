"""The ends of what is possible: very long and very short histories, one patient in a split, odd ids, no rights."""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import record, write_records

from exmed_bert.console import InputError
from exmed_bert.data.convert import convert
from exmed_bert.data.dataset import PatientDataset
from exmed_bert.data.options import check
from exmed_bert.data.shards import open_dataset, verify
from exmed_bert.settings import ConvertSettings

NOBODY = 65534
HISTORY = int(os.environ.get("EXMED_BERT_LONG_HISTORY", "500000"))  # codes of one patient


def converted(path: Path, **changes: object) -> dict[str, PatientDataset]:
    made = convert(ConvertSettings(input=(path,), output=path.with_name("d.pt"), **changes))  # type: ignore[arg-type]
    for split, place in made.paths.items():
        verify(place, open_dataset(place))
        assert len(open_dataset(place)) == len(made.datasets[split])
    return made.datasets


@pytest.mark.slow
def test_a_patient_with_very_many_codes(tmp_path: Path) -> None:
    codes = [f"E{i % 90 + 10}.{i % 10}" for i in range(HISTORY)]
    days = [f"{2000 + i * 20 // HISTORY}{i % 12 + 1:02}{i % 28 + 1:02}" for i in range(HISTORY)]
    long = record(0, diagnoses=codes, diagnosis_dates=days, drugs=[], prescription_dates=[])
    path = tmp_path / "p.jsonl"
    path.write_text("\n".join(map(json.dumps, [long, *(record(i) for i in range(1, 20))])))
    datasets = converted(path, max_length=512)
    assert max(int(dataset.lengths.max()) for dataset in datasets.values()) > 500
    assert sum(map(len, datasets.values())) == 20


@pytest.mark.parametrize("dynamic", [True, False])
def test_histories_of_two_codes(tmp_path: Path, dynamic: bool) -> None:
    path = write_records(tmp_path / "p.json", [record(i) for i in range(40)])
    train = converted(path, max_length=2, dynamic_masking=dynamic)["train"]
    assert set(train.lengths.tolist()) == {2}
    assert train.batch([0, 1]).codes.shape == (2, 2)


def test_one_patient_in_a_split(tmp_path: Path) -> None:
    for count in range(2, 200):  # ids decide the split
        path = write_records(tmp_path / str(count) / "p.json", [record(i) for i in range(count)])
        try:
            datasets = converted(path, train_ratio=0.5)
        except InputError as error:
            assert "no patient is left for the" in str(error)
            continue
        if 1 in map(len, datasets.values()):
            one = next(dataset for dataset in datasets.values() if len(dataset) == 1)
            assert one.patient(0).diagnoses and one.stats()["patients"] == 1
            return
    pytest.fail("no split has one patient")


@pytest.mark.parametrize("name", ["p.json", "p.jsonl", "p.parquet"])
def test_odd_ids_come_back(tmp_path: Path, name: str) -> None:
    ids = [
        "🙂",
        "👩‍👩‍👧‍👦",
        "e\u0301",
        "\u00e9",
        " ",
        "a\tb",
        "0",
        "00",
        "-1",
        "1e5",
        "x" * 200_000,
        "\u202eabc",
        "nan",
        "NULL",
    ]
    people = [record(i) for i in ids]
    path = tmp_path / name
    if name == "p.parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(people), path)
    else:
        text = json.dumps(people) if name == "p.json" else "\n".join(map(json.dumps, people))
        path.write_text(text)
    datasets = converted(path, train_ratio=0.5)
    found = [dataset.patient_id(i) for dataset in datasets.values() for i in range(len(dataset))]
    assert sorted(found) == sorted(ids)  # type: ignore[type-var]
    people.append(record("x" * 200_000))
    twice = write_records(tmp_path / "twice.json", people)
    with pytest.raises(InputError, match="is that of record 11 too") as error:
        converted(twice)
    assert len(str(error.value)) < 1000


def test_odd_ids_of_a_table_come_back(tmp_path: Path) -> None:
    ids = ["🙂", "e\u0301", "\u00e9", "00", "1e5", "x" * 200_000]
    rows = [f"{i},1960,2020-01-0{day},I1{day}" for i in ids for day in range(1, 4)]
    path = tmp_path / "events.csv"
    path.write_text("patient_id,birth_year,date,code\n" + "\n".join(rows))
    datasets = converted(path, columns=("system=icd10cm",), train_ratio=0.5, min_observations=2)
    found = [dataset.patient_id(i) for dataset in datasets.values() for i in range(len(dataset))]
    assert sorted(found) == sorted(ids)  # type: ignore[type-var]


def as_nobody(action: Callable[[], None]) -> str:
    """Run an action as a user without rights; return what an expected error says that it ends with, "" for none."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        said, code = "", 0
        try:
            os.close(reader)
            if os.getuid() == 0:
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            action()
        except InputError as error:
            said = str(error)
        except OSError as error:  # which `console.one_line_errors` says so
            said = f"{error.filename}: {error.strerror}"
        except BaseException as error:  # the child must not go on as pytest
            said, code = f"{type(error).__name__}: {error}", 1
        finally:
            os.write(writer, said.encode()[:60_000])
            os._exit(code)
    os.close(writer)
    with open(reader, "rb") as file:
        said = file.read().decode()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, said
    return said


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_user_without_rights_gets_one_line(tmp_path: Path) -> None:
    path = write_records(tmp_path / "in/p.json", [record(i) for i in range(40)])
    folder = tmp_path / "out"
    folder.mkdir()
    for above in [tmp_path, *tmp_path.parents][:4]:  # which pytest keeps to its own user
        above.chmod(above.stat().st_mode | stat.S_IXGRP | stat.S_IXOTH)
    settings = ConvertSettings(input=(path,), output=folder / "d.pt", workers=1)
    folder.chmod(0o555)
    for step in (check, convert):
        assert as_nobody(lambda step=step: step(settings)) == f"{folder}: cannot be written to: permission denied"
    assert not list(folder.iterdir())
    folder.chmod(0o777)
    path.chmod(0)
    assert as_nobody(lambda: check(settings)) == f"{path}: cannot be read: permission denied"
    path.chmod(0o644)
    path.parent.chmod(0)
    said = as_nobody(lambda: check(settings))
    path.parent.chmod(0o755)
    assert str(path) in said and "\n" not in said
    convert(settings)
    dataset = folder / "d_train.pt"
    dataset.chmod(0)
    assert as_nobody(lambda: verify(dataset, open_dataset(dataset))) == f"{dataset}: cannot be read: permission denied"
    assert np.array_equal(open_dataset(dataset).lengths > 0, np.ones(len(open_dataset(dataset)), dtype=bool))
