"""Embeddings of patients: what is pooled, at which times, from which input, by several processes, and on a resume."""

import csv
import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from click.testing import Result
from conftest import ROOT, record, write_records
from typer.testing import CliRunner

from exmed_bert.cli import script
from exmed_bert.cohorts.tasks.own_labels import OwnLabels
from exmed_bert.commands import COMMANDS
from exmed_bert.data.dataset import PatientDataset
from exmed_bert.data.decoding import decoded_chunks
from exmed_bert.data.tokenizer import Tokenizer
from exmed_bert.data.vocabulary import MASK
from exmed_bert.embedding import embed as step
from exmed_bert.embedding.histories import AGES, HistoryBuilder, descriptions
from exmed_bert.embedding.parts import COLUMNS, vectors_of
from exmed_bert.interface import load_model
from exmed_bert.models import ExMedBertConfig, ExMedBertForMaskedLM
from exmed_bert.models.code_tree import BIAS, EMBEDDINGS, HEAD, CodeTree, TreeRows
from exmed_bert.models.folder import read_pretrained, write_pretrained

HIDDEN = 16


@pytest.fixture(scope="module")
def model(small_datasets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a model with random weights, for the small datasets."""
    train = PatientDataset.load(small_datasets / "small_train.pt")
    torch.manual_seed(5)
    config = ExMedBertConfig(
        code_vocab_size=len(train.info.vocabulary), max_position_embedding=31, hidden_size=HIDDEN,
        num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, visit_distance_bias=True, context_scale=1.0,
    )  # fmt: skip
    network = ExMedBertForMaskedLM(config)
    folder = tmp_path_factory.mktemp("embedding") / "model"
    write_pretrained(folder, network, network.state_dict(), train.info)
    return folder


def run(*options: object) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(script(COMMANDS["embed"]), list(map(str, options)))


def embedded(path: Path, *options: object) -> pyarrow.Table:
    """Run the command and return what it wrote to a path."""
    result = run("--output", path, *options)
    assert result.exit_code == 0 and result.stderr == "", result.output
    assert str(path) in result.stdout and not list(path.parent.glob(".*"))
    return pyarrow.parquet.read_table(path)


def hidden_states(folder: Path, dataset: PatientDataset, row: int) -> tuple[np.ndarray, dict[str, torch.Tensor]]:
    """Return the last hidden states of one patient of a dataset, (L, hidden), and the model's input."""
    network = read_pretrained(folder)[0]
    item = {name: values for name, values in dataset[row].items() if name != "plos_label"}
    with torch.no_grad():
        return network.bert(**item).last_hidden_state[0].numpy(), item


def test_a_vector_for_each_patient_at_the_last_visit(model: Path, small_datasets: Path, tmp_path: Path) -> None:
    val = PatientDataset.load(small_datasets / "small_val.pt")
    found = embedded(tmp_path / "e.parquet", "--model-dir", model, "--input", small_datasets / "patients.json")
    assert tuple(found.column_names) == COLUMNS and len(found) == 200
    assert [str(field.type) for field in found.schema][:2] == ["int64", "timestamp[us]"]
    assert found.schema.field("embedding").type.list_size == HIDDEN
    rows = {patient: row for row, patient in enumerate(found["patient_id"].to_pylist())}
    for row in range(3):
        hidden, _ = hidden_states(model, val, row)
        place = rows[val.patient_id(row)]
        np.testing.assert_allclose(vectors_of(found)[place], hidden.mean(axis=0), atol=1e-5)
        assert found["prediction_time"][place].as_py().date() == val.patient(row).visits()[-1][0]
    again = embedded(tmp_path / "d.parquet", "--model-dir", model, "--input", small_datasets / "small_val.pt")
    assert again["patient_id"].to_pylist() == [val.patient_id(row) for row in range(len(val))]
    same = [rows[patient] for patient in again["patient_id"].to_pylist()]
    np.testing.assert_allclose(vectors_of(again), vectors_of(found)[same], atol=1e-5)


@pytest.mark.parametrize("pooling", ["last-visit", "query"])
def test_what_is_pooled(pooling: str, model: Path, small_datasets: Path, tmp_path: Path) -> None:
    source = small_datasets / "small_val.pt"
    found = embedded(tmp_path / "e.parquet", "--model-dir", model, "--input", source, "--pooling", pooling)
    hidden, item = hidden_states(model, PatientDataset.load(source), 0)
    if pooling == "last-visit":
        last = item["visit_ids"].numpy() == item["visit_ids"].numpy().max()
        np.testing.assert_allclose(vectors_of(found)[0], hidden[last].mean(axis=0), atol=1e-5)
        return
    more = {"input_ids": MASK, "age_ids": item["age_ids"][-1], "visit_ids": min(item["visit_ids"].max() + 1, 30)}
    more |= {name: values[-1] for name, values in item.items() if name not in more}
    with torch.no_grad():  # the age at the last visit is that of the prediction time
        batch = {name: torch.cat((values, torch.tensor([more[name]] * 2)))[None] for name, values in item.items()}
        batch["entity_ids"][0, -2:] = torch.tensor([1, 2])
        states = read_pretrained(model)[0].bert(**batch).last_hidden_state[0, -2:]
    np.testing.assert_allclose(vectors_of(found)[0], states.mean(dim=0).numpy(), atol=1e-5)


def test_a_model_that_makes_forecasts_gives_what_they_are_computed_from(small_datasets: Path, tmp_path: Path) -> None:
    dataset = PatientDataset.load(small_datasets / "small_val.pt")
    torch.manual_seed(6)
    config = ExMedBertConfig(
        code_vocab_size=len(dataset.info.vocabulary), max_position_embedding=31, hidden_size=HIDDEN,
        num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, predict_future_codes=True,
        hazard_bin_ends=[30.0, 365.0], forecast_groups=["atc:A"],
    )  # fmt: skip
    network = ExMedBertForMaskedLM(config)
    write_pretrained(tmp_path / "model", network, network.state_dict(), dataset.info)
    found = load_model(tmp_path / "model").embed(small_datasets / "small_val.pt")
    assert found.equals(load_model(tmp_path / "model").embed(small_datasets / "small_val.pt", "query"))
    item = {name: values for name, values in dataset[0].items() if name != "plos_label"}
    query = {"input_ids": MASK, "entity_ids": 0, "age_ids": item["age_ids"][-1]}
    query |= {"visit_ids": min(item["visit_ids"].max() + 1, 30)}
    query |= {name: values[-1] for name, values in item.items() if name not in query}
    batch = {name: torch.cat((values, torch.tensor([query[name]])))[None] for name, values in item.items()}
    with torch.no_grad():
        hidden = network.eval().bert(**batch).last_hidden_state[:, -1]
        states = network.forecast_states(hidden, batch["input_ids"], batch["age_ids"])
    np.testing.assert_allclose(found.iloc[0], states[0].numpy(), atol=1e-5)


def test_a_code_that_the_model_never_met_is_the_sum_of_its_ancestors(
    model: Path, small_datasets: Path, tmp_path: Path
) -> None:
    network, form = read_pretrained(model)
    info = PatientDataset.load(small_datasets / "small_train.pt").info
    tree, new = CodeTree.of(form.vocabulary.keys), ("icd10cm", "E11.649")
    assert new not in form.vocabulary.keys
    rng = np.random.default_rng(0)
    tables = {name: rng.normal(size=(len(tree.nodes), HIDDEN)).astype(np.float32) for name in (EMBEDDINGS, HEAD)}
    network.tree_rows = TreeRows(tree.nodes, tables | {BIAS: tables[HEAD][:, :1]}, 0.0)
    write_pretrained(tmp_path / "model", network, network.state_dict(), info)
    known = form.vocabulary.tokens[form.vocabulary.keys.index(("icd10cm", "I10"))]
    with torch.no_grad():  # a twin in which a code that it knows has the sum
        sums = torch.from_numpy(network.tree_rows.sums([new])[1][EMBEDDINGS])
        network.get_input_embeddings().weight[form.vocabulary.ids[known]] = sums[0]
    write_pretrained(tmp_path / "twin", network, network.state_dict(), info)
    found = []
    for name, code in (("model", new[1]), ("twin", known)):
        people = [record(1, diagnoses=["E11.9", code, "E11.9"]), record(2, diagnoses=["E11.9"] * 3)]
        source = write_records(tmp_path / f"{name}.json", people)
        found.append(embedded(tmp_path / f"{name}.parquet", "--model-dir", tmp_path / name, "--input", source))
        loaded = load_model(tmp_path / name)
        np.testing.assert_allclose(loaded.embed(people).to_numpy(), vectors_of(found[-1]), atol=1e-5)
        assert len(loaded.embeddings) == len(form.vocabulary)
    np.testing.assert_allclose(vectors_of(found[0]), vectors_of(found[1]), atol=1e-6)


def test_embeddings_at_given_times_see_nothing_later(model: Path, tmp_path: Path) -> None:
    people = write_records(tmp_path / "p.json", [record("a"), record("b"), record("c")])
    dates = ["20220315"] * 2, ["20220320"]
    early = {"diagnoses": ["I10", "E11.9"], "diagnosis_dates": dates[0]}
    early |= {"drugs": ["C10AA05"], "prescription_dates": dates[1]}
    before = write_records(tmp_path / "early.json", [record("a", **early), record("b", **early)])
    labels = tmp_path / "labels.csv"
    times = [
        ("b", "2023-12-14 08:00"),
        ("a", "2024-06-01"),
        ("a", "2022-03-20"),
        ("c", "2022-03-14"),
        ("d", "2024-01-01"),
    ]
    with open(labels, "w", newline="") as file:
        csv.writer(file).writerows([("subject_id", "prediction_time", "boolean_value"), *((*t, "true") for t in times)])
    options = ("--model-dir", model, "--labels", labels, "--input", people)
    at_times = embedded(tmp_path / "e.parquet", *options)
    assert at_times["patient_id"].to_pylist() == ["a", "a", "b"]  # c has no code by then, d is nobody's
    days = [time.date() for time in at_times["prediction_time"].to_pylist()]
    assert days == [date(2022, 3, 20), date(2024, 6, 1), date(2023, 12, 14)]
    whole = vectors_of(embedded(tmp_path / "w.parquet", "--model-dir", model, "--input", people))
    of_early = vectors_of(embedded(tmp_path / "b.parquet", "--model-dir", model, "--input", before))
    np.testing.assert_allclose(vectors_of(at_times), [of_early[0], whole[0], of_early[1]], atol=1e-6)
    without = embedded(tmp_path / "x.parquet", *options, "--same-day", "exclude")
    assert np.abs(vectors_of(without)[0] - of_early[0]).max() > 1e-3  # 2022-03-20 itself is not seen


def test_a_dataset_decodes_to_the_patients_it_was_made_of(small_datasets: Path) -> None:
    val = PatientDataset.load(small_datasets / "small_val.pt")
    for row in (0, 3):  # codes that nobody knows, one of them of no system
        val.columns["codes"][val.columns["offsets"][row]] = 1
    val.columns["entities"][val.columns["offsets"][3]] = 0
    info, start = val.info, 0
    tokenizer = Tokenizer(info.max_length, 1, info.age_unit, info.vocabulary, info.static_columns, extend=False)
    for chunk in decoded_chunks(val, size=20):
        again = tokenizer.encode(chunk)
        rows = range(start, start + len(chunk))
        start += len(chunk)
        first, end = (int(val.columns["offsets"][row]) for row in (rows[0], rows[-1] + 1))
        kept = np.ones(end - first, dtype=bool)
        if rows[0] == 0:
            kept[int(val.columns["offsets"][3])] = False
        for name in ("codes", "entities", "ages"):
            assert (getattr(again, name) == val.arrays[name][first:end][kept]).all(), name
        assert (again.static["sex"] == val.static_ids("sex")[rows[0] : rows[-1] + 1]).all()
        assert [val.patient_id(row) for row in rows] == chunk.patient_ids
    assert start == len(val)


def test_points_of_a_map_have_ages_and_static_values(model: Path, small_datasets: Path) -> None:
    val, form = PatientDataset.load(small_datasets / "small_val.pt"), read_pretrained(model)[1]
    histories = HistoryBuilder(form, OwnLabels(None)).build(next(decoded_chunks(val)))[0]
    found = dict(descriptions(histories))
    assert list(found) == ["age", "sex", "state"] and set(found["sex"]) <= {"FEMALE", "MALE", None}
    for row in range(len(val)):
        visit, born = val.patient(row).visits()[-1][0].year, val.patient(row).birth_year
        assert found["age"][row] == AGES[min((visit - born) // 20, 4)]


def test_a_killed_run_goes_on_to_the_same_bytes(
    model: Path, small_datasets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "AT_ONCE", 60)
    options = ("--model-dir", model, "--input", small_datasets / "patients.json", "--map", "pca", "--projector")
    embedded(tmp_path / "whole.parquet", *options)
    target, written = tmp_path / "cut.parquet", []

    def write(path: Path, *given: object) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        step.write_part.__wrapped__(path, *given)  # type: ignore[attr-defined]

    write.__wrapped__ = step.write_part  # type: ignore[attr-defined]
    monkeypatch.setattr(step, "write_part", write)
    assert run("--output", target, *options).exit_code == 130
    assert not target.exists() and len(list(tmp_path.glob(".cut.parquet.embedding/part-*"))) == 2
    monkeypatch.setattr(step, "write_part", lambda *given: written.append(given[0]) or write.__wrapped__(*given))
    embedded(target, *options)
    assert [path.name for path in written] == [f"part-00000{number}.parquet" for number in range(4)]
    assert target.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    for name in ("{}_pca.png", "{}_projector/00000/patients/metadata.tsv", "{}.settings.json"):
        assert (tmp_path / name.format("cut")).is_file(), name
    header, *rows = (tmp_path / "cut_projector/00000/patients/metadata.tsv").read_text().splitlines()
    assert header == "age\tsex\tstate" and len(rows) == 200  # no ids
    assert (tmp_path / "cut_pca.png").read_bytes() == (tmp_path / "whole_pca.png").read_bytes()


def test_two_processes_write_the_same(model: Path, small_datasets: Path, tmp_path: Path) -> None:
    both = [f"--input={small_datasets / name}" for name in ("small_train.pt", "small_val.pt")]
    alone = embedded(tmp_path / "one.parquet", "--model-dir", model, *both)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    launch += [str(ROOT / "scripts" / "embed_patients.py"), "--model-dir", str(model), *both]
    done = subprocess.run(
        [*launch, "--output", "two.parquet"], cwd=tmp_path, capture_output=True, text=True, timeout=200,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("histories embedded") == 1
    assert pyarrow.parquet.read_table(tmp_path / "two.parquet").equals(alone)
    assert not list(tmp_path.glob(".*"))


def test_what_cannot_be_embedded_is_one_line(model: Path, small_datasets: Path, tmp_path: Path) -> None:
    patients, output = small_datasets / "patients.json", tmp_path / "e.parquet"
    empty = write_records(
        tmp_path / "empty.json", [record(diagnoses=[], diagnosis_dates=[], drugs=[], prescription_dates=[])]
    )
    twice = write_records(tmp_path / "twice.json", [record(1), record(1)])
    for options, code, problem in (
        (
            ("--input", patients, "--input", small_datasets / "small_val.pt"),
            2,
            "expected datasets or patients, not both",
        ),
        (("--input", patients, "--color-by", "insurance"), 2, "'insurance', expected one of age, sex, state"),
        (("--input", empty), 1, "nothing to embed: 1 patients read; 1 excluded: no event"),
        (("--input", twice), 1, "expected each patient once"),
    ):
        result = run("--model-dir", model, "--output", output, *options)
        assert result.exit_code == code and problem in result.stderr, result.output
        assert result.stderr.count("\n") == 1 and not output.exists() and not list(tmp_path.glob(".*"))
    assert "expected a name that ends in .parquet" in run("--output", tmp_path / "e.csv", "--model-dir", model).stderr
