"""Conversion and the dataset: encoding by a plain reference, splits, files, refusals."""

import json
import pickle
import re
import tracemalloc
import zipfile
from collections import Counter
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import WithSplits, record, write_records
from hypothesis import given, settings
from hypothesis import strategies as st
from test_io import patient_records

from exmed_bert import codes
from exmed_bert.config import Resolved
from exmed_bert.console import InputError
from exmed_bert.data import batches as batches_module
from exmed_bert.data.batches import LengthGroupedBatchSampler, MaskedCodeCollator
from exmed_bert.data.convert import convert, run
from exmed_bert.data.coverage import warn_of_unknown
from exmed_bert.data.dataset import PatientDataset
from exmed_bert.data.implausible_dates import DateCheck
from exmed_bert.data.masking import IGNORED
from exmed_bert.data.options import check
from exmed_bert.data.patient import PatientColumns, no_events
from exmed_bert.data.splits import FROM_INPUT, InputSplit
from exmed_bert.data.static_columns import SEX
from exmed_bert.data.tokenizer import EventCounts, TokenizerSummary
from exmed_bert.data.vocabulary import SPECIAL_TOKENS, UNK, CodeVocabulary
from exmed_bert.reporting.small_cells import MinCell
from exmed_bert.settings import ConvertSettings


def reference_tokens(made: dict[str, Any], max_length: int) -> list[tuple[str, str, int, int]]:
    """Encode one record the plain way: (code, entity, age in years, visit) a token."""
    visits: dict[str, list[tuple[str, str]]] = {}
    for field, dates, system in (
        ("diagnoses", "diagnosis_dates", "icd"),
        ("drugs", "prescription_dates", "atc"),
    ):
        for text, day in zip(made[field], made[dates], strict=True):
            code = codes.normalize(text, system)
            token = (code or f"UNK {text.strip().lower()}", system)
            visit = visits.setdefault(day, [])
            if token not in visit:
                visit.append(token)
    kept: list[tuple[str, list[tuple[str, str]]]] = []
    for day in sorted(visits, reverse=True):
        if sum(len(tokens) for _, tokens in kept) + len(visits[day]) > max_length:
            if not kept:
                kept.append((day, visits[day][:max_length]))
            break
        kept.insert(0, (day, visits[day]))
    return [
        (code.split()[0], system, int(day[:4]) - made["birth_year"], number)
        for number, (day, tokens) in enumerate(kept, start=1)
        for code, system in tokens
    ]


def convert_all(records: list[dict[str, Any]], folder: Path, **changes: Any) -> dict[str, PatientDataset]:
    path = write_records(folder / "p.json", records)
    return convert(ConvertSettings(input=path, output=folder / "d.pt", **changes)).datasets


def test_encoding_agrees_with_the_plain_way(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("encoding")
    monkeypatch.setattr(DateCheck, "apply", lambda check, patients, summary: patients)  # of any dates there are

    @settings(max_examples=60, deadline=None)
    @given(patient_records(), st.integers(2, 9))
    def check(records: list[dict[str, Any]], max_length: int) -> None:
        expected = {made["patient_id"]: reference_tokens(made, max_length) for made in records}
        full = {made["patient_id"]: len(reference_tokens(made, 10**6)) for made in records}
        for split in ("train", "val"):
            try:
                dataset = convert_all(records, folder, max_length=max_length, min_observations=2, split=split)[split]
            except InputError:  # nobody fell into this split
                continue
            vocabulary = dataset.info.vocabulary
            for i in range(len(dataset)):
                patient_id = dataset.patient_id(i)
                assert full[patient_id] >= 2
                item = {name: tensor.tolist() for name, tensor in dataset[i].items() if tensor.ndim}
                got = [
                    (vocabulary.code(code), vocabulary.entity_names[entity], age - len(SPECIAL_TOKENS), visit)
                    for code, entity, age, visit in zip(
                        item["input_ids"], item["entity_ids"], item["age_ids"], item["visit_ids"], strict=True
                    )
                ]
                clipped = [
                    (code, system, age if age < 0 else min(age, 110), visit)
                    for code, system, age, visit in expected[patient_id]
                ]
                unknown_age = UNK - len(SPECIAL_TOKENS)
                assert got == [(c, s, unknown_age if a < 0 else a, v) for c, s, a, v in clipped]

    check()


def test_a_patient_comes_back(tmp_path: Path) -> None:
    dataset = convert_all([record(i) for i in range(30)], tmp_path)["train"]
    patient = dataset.patient(0)
    assert patient.to_record() == record(patient.patient_id)
    assert patient.visits() == [
        (date(2022, 3, 15), ["I10", "E11.9"]),
        (date(2022, 3, 20), ["C10AA05"]),
        (date(2023, 12, 15), ["E11.95", "A10BA02"]),
    ]


def test_unknown_codes_sex_and_state_are_kept_and_counted(tmp_path: Path) -> None:
    odd = {"sex": "?", "patient_state": "XX", "diagnoses": ["I10", "fever", "e11.9"]}
    path = write_records(tmp_path / "p.json", [record(i, **odd) for i in range(20)])
    result = convert(ConvertSettings(input=path, output=tmp_path / "d.pt"))
    dataset = result.datasets["train"]
    assert result.summary.unknown_codes == {("icd10cm", "fever"): 20}
    assert result.summary.unknown_static == {"sex": 20, "state": 20}
    assert dataset[0]["sex_ids"].unique().tolist() == [UNK]
    assert "UNK" in dataset.patient(0).diagnoses and dataset.patient(0).sex is None
    assert "fever" not in dataset.info.vocabulary.ids and "E11.9" in dataset.info.vocabulary.ids


def test_different_unknown_codes_of_a_day_are_different_tokens(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["fever", " Fever ", "cough", "FEVER", "I10", "i10", "cough"]
    short = {"diagnoses": ["I10", "fever"], "diagnosis_dates": ["20220315"] * 2}
    long = {"diagnoses": ["fever"] + ["I10"] * 9, "diagnosis_dates": [f"201{i}0315" for i in range(10)]}
    records = [
        *(record(i, diagnoses=texts, diagnosis_dates=["20220315"] * 7, drugs=["fever", "?"]) for i in range(20)),
        *(record(i, drugs=[], prescription_dates=[], **short) for i in range(20, 30)),
        *(record(i, drugs=["?", "C10AA05"], **long) for i in range(30, 40)),
    ]
    path = write_records(tmp_path / "p.json", records)
    made = ConvertSettings(input=path, output=tmp_path / "d.pt", min_observations=5, max_length=9, min_cell=0)
    result = convert(made)
    summary = result.summary
    datasets = list(result.datasets.values())
    found = {one.patient_id(i): one.patient(i) for one in datasets for i in range(len(one))}
    assert set(found) == {*range(20), *range(30, 40)}, "two unknown diagnoses, a known one, two unknown drugs: five"
    assert found[0].diagnoses == ["UNK", "UNK", "I10"] and found[0].drugs == ["UNK", "UNK"]
    assert summary.unknown == EventCounts(read=170, repeated=60, excluded=10, cut=10)
    assert summary.events == EventCounts(read=20 * 9 + 10 * 2 + 10 * 12, repeated=80, excluded=20, cut=30)
    assert summary.unknown.kept == 90 == sum(one.stats()["unknown codes"] for one in datasets)

    for split, kept in (("all", [90]), ("train", [datasets[0].stats()["unknown codes"]])):
        run(Resolved(made.model_copy(update={"split": split}), {}))
        printed = capsys.readouterr()
        shown = dict(re.findall(r"^  +(\S.*?)  +(\S.*)$", printed.out.split("d_train.pt")[0], re.MULTILINE))
        assert shown["events of no known code, read as UNK"] == "170"
        assert shown["most frequent of them"].startswith("ICD-10-CM 'fever' (40), ICD-10-CM 'cough' (40), ATC '?' (30)")
        flow = [int(value) for name, value in shown.items() if name.startswith(("left out: ", "kept: "))]
        assert flow[:3] == [60, 10, 10] and sum(flow) == 170 and flow[3:4] == kept and len(flow) == 4 + (split != "all")
        assert "p.json: 53% of the events have no known code; the largest part is declared as ICD-10-CM" in printed.err
        assert "no codes of it, such as 'fever', 'cough'" in printed.err


@pytest.mark.parametrize(
    ("unmapped", "counts", "part"),
    [
        ({}, {"unknown_codes": {("atc", "x"): 20}}, None),
        (
            {},
            {"unknown_codes": {("atc", "x"): 21}},
            "21% of the events .* declared as ATC .*, such as 'x': check",
        ),
        (
            {},
            {"unknown_codes": {("atc", f"x{i}"): 1 for i in range(30)}},
            "30% .* as ATC and no codes of it: check the",
        ),
        ({}, {"not_in_vocabulary": {("atc", "C10AA05"): 30}}, "30% .* part is not in the vocabulary of --vocab-from"),
        ({("rxnorm", "161"): 25}, {}, None),
        (
            {("rxnorm", "161"): 20, ("ndc", "1"): 13},
            {"unknown_codes": {("atc", "x"): 12}},
            "34% .* part is RxNorm: map it with --athena or --code-map, or keep it with --keep-systems rxnorm",
        ),
    ],
)
def test_a_fifth_without_a_known_code_is_a_warning(
    unmapped: dict[Any, int], counts: dict[str, Any], part: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = TokenizerSummary(
        events=EventCounts(read=100),
        unknown=EventCounts(read=sum(sum(codes.values()) for codes in counts.values())),
        **{name: Counter(codes) for name, codes in counts.items()},
    )
    warn_of_unknown("input", unmapped, summary, MinCell(11))
    shown = capsys.readouterr().err
    assert shown == "" if part is None else re.search(part, shown) and shown.count("\n") == 1, shown


def test_nobody_changes_split_when_the_cohort_grows(tmp_path: Path) -> None:
    def split_of(count: int) -> dict[Any, str]:
        datasets = convert_all([record(f"id-{i}") for i in range(count)], tmp_path)
        return {d.patient_id(i): split for split, d in datasets.items() for i in range(len(d))}

    small, large = split_of(100), split_of(400)
    assert {patient: large[patient] for patient in small} == small
    assert 0.7 < sum(split == "train" for split in large.values()) / 400 < 0.9


def test_splits_of_the_input_follow_their_patients() -> None:
    static: dict[str, list[str | None]] = {"sex": [None] * 4, "state": [None] * 4}
    splits = np.array([0, 1, 2, -1], dtype=np.int8)
    patients = PatientColumns([1, 2, 3, 4], np.full(4, 1950), static, np.full(4, -1), no_events(4), splits=splits)
    taken = patients.take(np.array([2, 0, 0])).up_to(np.zeros(3))
    assert taken.splits is not None and taken.splits.tolist() == [
        InputSplit.HELD_OUT,
        InputSplit.TRAIN,
        InputSplit.TRAIN,
    ]
    assert replace(patients, splits=None).take(np.array([1])).splits is None


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("nowhere", "nowhere: file not found"),
        ("folder", "folder: --vocab-from: holds neither vocab.json nor manifest.json, expected the folder of a"),
        ("p.csv", "p.csv: --vocab-from: expected the folder of a model, its vocab.json, or a dataset"),
        ("p.pt", "p.pt: is damaged or no dataset"),
        (None, "--extend-vocab: extends the vocabulary of --vocab-from, which is not given"),
    ],
)
def test_a_vocabulary_comes_from_a_model_or_a_dataset(source: str | None, part: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name in ("p.csv", "p.pt"):
        (tmp_path / name).write_text("I10")
    settings = ConvertSettings(
        input=write_records(tmp_path / "p.json", [record(i) for i in range(20)]),
        output=tmp_path / "d.pt",
        vocab_from=None if source is None else tmp_path / source,
        extend_vocab=True,
    )
    with pytest.raises(InputError) as error:
        check(settings)
        convert(settings)
    assert part in str(error.value)


def test_without_a_code_of_the_given_vocabulary_nothing_is_converted(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text(json.dumps(CodeVocabulary.build([("icd10cm", "Z99.9")]).to_dict()))
    with pytest.raises(InputError, match="of 20 patients with at least 5 codes none has one that is known"):
        convert_all([record(i) for i in range(20)], tmp_path, vocab_from=tmp_path)


def test_the_splits_of_the_input_are_taken(
    with_splits: WithSplits, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [record(i, drugs=["C10AA05", f"A10BA{i:02d}"]) for i in range(60)]
    given = ConvertSettings(input=[write_records(tmp_path / "p.json", records)], output=tmp_path / "d.pt")
    by_hash = convert(given).datasets["train"].to_dict()
    assert "split_from" not in by_hash

    with_splits(lambda patient: int(patient) % 4 - 1)
    from_input = given.model_copy(update={"split_from": "input"})
    run(Resolved(from_input, {}))
    shown = capsys.readouterr().out
    assert "patients read                         60" in shown
    assert "excluded: held out by the input       15" in shown and "excluded: in no split                 15" in shown
    for name, number in (("train", InputSplit.TRAIN), ("val", InputSplit.TUNING)):
        dataset = PatientDataset.load(tmp_path / f"d_{name}.pt")
        assert [dataset.patient_id(i) for i in range(len(dataset))] == [i for i in range(60) if i % 4 - 1 == number]
        assert dataset.info.split_from == "input" and dataset.info.split_rule == FROM_INPUT
        assert not {"A10BA00", "A10BA03"} & set(dataset.info.vocabulary.ids), "codes of patients in neither dataset"
    content = PatientDataset.load(tmp_path / "d_train.pt").to_dict()
    assert content["split_from"] == "input" and set(content) == {*by_hash, "split_from"}
    assert (convert(given).datasets["train"].columns["patient_hashes"] == by_hash["columns"]["patient_hashes"]).all()


@pytest.mark.parametrize(
    ("split", "part"),
    [
        (
            None,
            "p.json: puts no patient into a split, expected train, tuning, held_out, which --split-from",
        ),
        (0, "left for the val split: 20 patients, 0 of them with fewer than 5 codes; .* change --split-from or"),
        (2, "left for the train split: 20 patients held out by the input, 0 patients, 0 of them"),
        (-1, "left for the train split: 20 patients in no split, 0 patients, 0 of them"),
    ],
)
def test_splits_of_the_input_that_leave_nobody_are_refused(
    split: int | None, part: str, with_splits: WithSplits, tmp_path: Path
) -> None:
    if split is not None:
        with_splits(lambda patient: split)
    with pytest.raises(InputError, match=part):
        convert_all([record(i) for i in range(20)], tmp_path, split_from="input")
    assert not list(tmp_path.glob("*.pt"))


def test_both_splits_share_one_vocabulary(tmp_path: Path) -> None:
    records = [record(i, drugs=["C10AA05", f"A10BA{i:02d}"]) for i in range(60)]
    datasets = convert_all(records, tmp_path)
    labels = datasets["train"].info.vocabulary.tokens
    assert labels == datasets["val"].info.vocabulary.tokens
    assert labels[:6] == SPECIAL_TOKENS and len(labels) == 6 + 3 + 61
    assert list(labels[6:]) == sorted(labels[6:67]) + sorted(labels[67:])


def test_a_category_spelled_alike_in_both_systems_is_two_codes() -> None:
    vocabulary = CodeVocabulary.build([("icd10cm", "C10"), ("atc", "C10AA05"), ("atc", "C10")])
    assert len(set(vocabulary.tokens)) == 9
    assert [vocabulary.code(i) for i in (6, 7, 8)] == ["C10", "C10AA05", "C10"]
    assert vocabulary.keys[6:] == [("atc", "C10"), ("atc", "C10AA05"), ("icd10cm", "C10")]
    assert CodeVocabulary.from_json(vocabulary.to_json()).tokens == vocabulary.tokens


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    records = [record(i, diagnoses=["I10", "E11.9", f"J{i % 90 + 10}"]) for i in range(50)]
    files = []
    for name in ("one", "two"):
        for mode in (True, False):
            convert_all(records, tmp_path / name, dynamic_masking=mode)
            files.append((tmp_path / name / "d_train.pt").read_bytes())
    assert files[0] == files[2] and files[1] == files[3] and files[0] != files[1]


@pytest.mark.parametrize("dynamic", [True, False])
def test_a_saved_dataset_opens_as_it_was(dynamic: bool, tmp_path: Path) -> None:
    made = convert_all([record(f"p{i}") for i in range(40)], tmp_path, dynamic_masking=dynamic, age_unit="months")
    opened = PatientDataset.load(tmp_path / "d_train.pt")
    assert opened.info.masking == made["train"].info.masking and opened.info.age_vocabulary_size == 1327
    assert [opened.patient(i) for i in range(len(opened))] == [
        made["train"].patient(i) for i in range(len(made["train"]))
    ]
    content = torch.load(tmp_path / "d_train.pt", weights_only=True)
    assert content["max_length"] == 50 and content["masking"]["mode"] == ("dynamic" if dynamic else "static")
    assert ("masked" in content["columns"]) is not dynamic


def test_months_are_counted_from_the_day_of_birth_where_it_is_known(tmp_path: Path) -> None:
    """The first visit of the record is on 15 March 2022, the last on 15 December 2023."""
    born = {1: "1965-03-15", 2: "1965-03-16", 3: None, 4: "1965-12-20"}
    people = [record(i, birth_date=day) for i, day in born.items()]
    ages = {}
    for unit in ("months", "years"):
        dataset = convert_all(people, tmp_path, split="train", train_ratio=0.99, age_unit=unit)["train"]
        ages[unit] = {
            dataset.patient_id(i): (dataset[i]["age_ids"][[0, -1]] - len(SPECIAL_TOKENS)).tolist()
            for i in range(len(dataset))
        }
        assert ("birth_date" in dataset.columns) is (unit == "months"), "no birthdays where nothing needs them"
        first = dataset.patient(0)
        assert first.to_record().get("birth_date") == ("19650315" if unit == "months" else None)
    assert ages["months"] == {1: [684, 705], 2: [683, 704], 3: [686, 707], 4: [674, 695]}
    assert set(map(tuple, ages["years"].values())) == {(57, 58)}


def test_subset_keeps_everything_of_its_patients(tmp_path: Path) -> None:
    dataset = convert_all([record(f"p{i}", birth_year=1940 + i) for i in range(40)], tmp_path, dynamic_masking=False)[
        "train"
    ]
    chosen = [5, 2, 9]
    subset = dataset.subset(chosen)
    assert [subset.patient(i) for i in range(3)] == [dataset.patient(i) for i in chosen]
    whole, part = dataset.batch(chosen), subset.batch([0, 1, 2])
    assert (whole.patient_hashes == part.patient_hashes).all() and (whole.masked == part.masked).all()
    assert len(dataset.subset([])) == 0


def test_static_masks_are_stored_once(tmp_path: Path) -> None:
    dataset = convert_all([record(i) for i in range(40)], tmp_path, dynamic_masking=False)["train"]
    collate = MaskedCodeCollator(dataset.info, plos=True)
    batches = []
    for epoch in (0, 5):
        collate.set_epoch(epoch)
        batches.append(collate(dataset.batch([0, 3, 4])))
    for name, tensor in batches[0].items():
        assert torch.equal(tensor, batches[1][name])
    assert ((batches[0]["code_labels"] != IGNORED).sum(dim=1) == 1).all()


def test_dynamic_masks_change_with_the_epoch_and_validation_masks_never(tmp_path: Path) -> None:
    dataset = convert_all([record(i) for i in range(60)], tmp_path)["train"]
    patients = list(range(40))
    train, val = MaskedCodeCollator(dataset.info, False), MaskedCodeCollator(dataset.info, False, validation=True)
    first = train(dataset.batch(patients))["code_labels"]
    train.set_epoch(1)
    assert not torch.equal(first, train(dataset.batch(patients))["code_labels"])
    again = MaskedCodeCollator(dataset.info, False, validation=True)(dataset.batch(patients))
    assert torch.equal(val(dataset.batch(patients))["code_labels"], again["code_labels"])


def test_batches_hold_every_patient_once_and_little_padding() -> None:
    lengths = np.random.default_rng(0).integers(5, 512, 5000)
    sampler = LengthGroupedBatchSampler(lengths, 16, seed=3)
    orders = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
        assert sorted(i for batch in orders[-1] for i in batch) == list(range(5000))
        assert len(orders[-1]) == len(sampler)
    assert orders[0] == orders[2] != orders[1]
    positions = sum(len(batch) * max(lengths[batch]) for batch in orders[0])
    assert sampler.padding_fraction() == pytest.approx(1 - sum(lengths) / positions)
    assert sampler.padding_fraction() < 0.05
    neighbors = [max(lengths[batch]) - min(lengths[batch]) for batch in orders[0]]
    assert np.corrcoef([lengths[b[0]] for b in orders[0][:-1]], [lengths[b[0]] for b in orders[0][1:]])[0, 1] < 0.2
    assert np.median(neighbors) < 30


def sorted_as_a_whole(lengths: np.ndarray, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Return the batches of an epoch as one sort of all patients gives them."""
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    order = order[np.lexsort((lengths[order], np.arange(len(order)) // (batch_size * 64)))]
    batches = rng.permutation(-(-len(lengths) // batch_size))
    return [order[batch * batch_size : (batch + 1) * batch_size].tolist() for batch in batches]


@pytest.mark.parametrize("dtype", [np.int64, np.uint16])
@pytest.mark.parametrize("at_once", [1, 1000, 2**18])
def test_patients_are_sorted_pool_by_pool_as_if_at_once(
    dtype: type, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches_module, "_WORKED_ON_AT_ONCE", at_once)
    rng = np.random.default_rng(5)
    for patients in (0, 1, 127, 128, 129, 1024, 5000):
        lengths = rng.integers(2, 40, patients).astype(dtype)
        for batch_size in (1, 2, 16):
            for epoch in (0, 7):
                sampler = LengthGroupedBatchSampler(lengths, batch_size, seed=3)
                sampler.set_epoch(epoch)
                expected = sorted_as_a_whole(lengths.astype(np.int64), batch_size, 3, epoch)
                assert list(sampler) == expected
                positions = sum(len(batch) * int(lengths[batch].max()) for batch in expected)
                padding = 1 - int(lengths.sum()) / positions if positions else 0.0
                assert sampler.padding_fraction() == pytest.approx(padding)


def test_the_order_of_an_epoch_takes_four_bytes_per_patient() -> None:
    lengths = np.full(1_000_000, 30, dtype=np.uint16)
    sampler = LengthGroupedBatchSampler(lengths, 16, seed=0)
    tracemalloc.start()
    batches = iter(sampler)
    next(batches)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 5 * len(lengths) and peak - kept < 20 * 2**18, "the order, and what is worked on at once"


@pytest.mark.parametrize(
    ("records", "changes", "parts"),
    [
        ([record(1), record(2), record(1)], {}, ["record 3", "patient_id 1", "record 1"]),
        ([record(7), record("7")], {}, ["record 2", "'7'", "record 1"]),
        ([record(1)], {}, ["no patient is left", "1 patients"]),
        ([record(i) for i in range(9)], {"min_observations": 99}, ["9 of them with fewer than 99 codes"]),
        (
            [record(i, diagnoses=["250.00", "fever", "401.9"], drugs=["aspirin", "x"]) for i in range(40)],
            {"min_observations": 2},
            ["no event has a known code", "'250.00'", "ICD-10-CM in diagnoses and ATC in drugs"],
        ),
    ],
)
def test_conversion_refuses(records: list[Any], changes: dict[str, Any], parts: list[str], tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        convert_all(records, tmp_path, **changes)
    for part in parts:
        assert part in str(error.value)
    assert not list(tmp_path.glob("*.pt")) and not list(tmp_path.glob(".*"))


class _Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("harmed"),))


def test_loading_refuses_what_is_no_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    convert_all([record(i) for i in range(40)], tmp_path)
    content = torch.load(tmp_path / "d_train.pt", weights_only=True)
    torch.save(content | {"version": 99}, tmp_path / "version.pt")
    torch.save({"weights": torch.zeros(3)}, tmp_path / "other.pt")
    torch.save({"format": content["format"], "version": 1, "evil": _Harmful()}, tmp_path / "pickle.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(_Harmful()))
    (tmp_path / "text.pt").write_text("hello")
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "d_train.pt").read_bytes()[:-300])
    torch.save(content | {"columns": content["columns"] | {"ages": torch.zeros(3)}}, tmp_path / "columns.pt")
    for name, part in (
        ("version.pt", "version 99"),
        ("other.pt", "no dataset"),
        ("pickle.pt", "Python objects"),
        ("plain.pt", "refused|no dataset"),
        ("text.pt", "no dataset"),
        ("empty.pt", "no dataset"),
        ("cut.pt", "damaged"),
        ("columns.pt", "column ages"),
        ("missing.pt", "convert_synthetic_to_dataset"),
    ):
        with pytest.raises(InputError, match=part):
            PatientDataset.load(tmp_path / name)
    assert not (tmp_path / "harmed").exists()


def test_the_file_is_small_and_holds_no_pickled_code(tmp_path: Path) -> None:
    records = [
        record(
            i,
            diagnoses=["I10"] * 15,
            diagnosis_dates=[f"2022{m:02d}15" for m in range(1, 13)] + ["20230101", "20230201", "20230301"],
        )
        for i in range(2000)
    ]
    dataset = convert_all(records, tmp_path)["train"]
    assert (tmp_path / "d_train.pt").stat().st_size / len(dataset) < 300
    with zipfile.ZipFile(tmp_path / "d_train.pt") as file:
        program = file.read(next(name for name in file.namelist() if name.endswith("data.pkl")))
    assert b"exmed_bert" not in program.replace(b"exmed_bert.PatientDataset", b"")


def test_novel_codes_are_known_from_the_generator(tmp_path: Path) -> None:
    (tmp_path / "p.meta.json").write_text(json.dumps({"novel_codes": {"E11.95": {"source": "E11.9"}}}))
    dataset = convert_all([record(i) for i in range(20)], tmp_path)["train"]
    assert [dataset.info.vocabulary.tokens[i] for i in dataset.novel_ids] == ["E11.95"]
    assert dataset.stats()["novel codes"] == len(dataset)


def test_sexes_have_their_own_ids(tmp_path: Path) -> None:
    dataset = convert_all([record(i, sex="FEMALE" if i % 2 else "m") for i in range(40)], tmp_path)["train"]
    names = {SEX.value(int(dataset[i]["sex_ids"][0])) for i in range(len(dataset))}
    assert names == {"FEMALE", "MALE"}
