"""Models in Python: patients in every form, embeddings, risks, masked codes, near codes, and scikit-learn."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from conftest import ROOT, record, write_records
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks
from typer.testing import CliRunner

from exmed_bert import PatientDataset, PatientEmbedder, PatientModel, PatientTokenizer, load_model
from exmed_bert.cli import script
from exmed_bert.commands import COMMANDS
from exmed_bert.console import InputError
from exmed_bert.data.patient import LISTED
from exmed_bert.data.patient_input import PatientInput
from exmed_bert.data.static_columns import BUILT_IN
from exmed_bert.data.vocabulary import MASK, UNK
from exmed_bert.interface.given import as_input, columns_of_events
from exmed_bert.models import ExMedBertConfig, ExMedBertForMaskedLM, ExMedBertForSequenceClassification
from exmed_bert.models.code_tree import BIAS, EMBEDDINGS, HEAD, CodeTree, TreeRows
from exmed_bert.models.folder import write_finetuned, write_pretrained

HIDDEN = 16
SIZES = {"hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}


@pytest.fixture(scope="module")
def train(small_datasets: Path) -> PatientDataset:
    return PatientDataset.load(small_datasets / "small_train.pt")


@pytest.fixture(scope="module")
def model(train: PatientDataset, tmp_path_factory: pytest.TempPathFactory) -> PatientModel:
    """Return a pretrained model with random weights."""
    torch.manual_seed(5)
    config = ExMedBertConfig(
        code_vocab_size=len(train.info.vocabulary), max_position_embedding=31, context_scale=1.0, **SIZES
    )
    network = ExMedBertForMaskedLM(config)
    folder = tmp_path_factory.mktemp("interface") / "model"
    write_pretrained(folder, network, network.state_dict(), train.info)
    return load_model(folder)


@pytest.fixture(scope="module")
def val(small_datasets: Path) -> PatientDataset:
    return PatientDataset.load(small_datasets / "small_val.pt")


def close(one: pandas.DataFrame, other: pandas.DataFrame) -> bool:
    return list(one.index) == list(other.index) and bool(np.abs(one.to_numpy() - other.to_numpy()).max() < 1e-5)


def test_patients_in_every_form_embed_alike(
    model: PatientModel, val: PatientDataset, small_datasets: Path, tmp_path: Path
) -> None:
    found = model.embed(val)
    assert found.shape == (len(val), HIDDEN) and found.index.name == "patient_id"
    assert list(found.index) == [val.patient_id(row) for row in range(len(val))]
    patients = [val.patient(row) for row in range(len(val))]
    events = val.to_pandas()
    shuffled = events.sample(frac=1, random_state=3).sort_values("date", kind="stable")
    for same in (events, patients, [patient.to_record() for patient in patients], small_datasets / "small_val.pt"):
        assert close(model.embed(same), found)
    assert set(shuffled.columns) == {"patient_id", "date", "system", "code", "birth_year", "sex", "patient_state"}
    of_files = model.embed(str(small_datasets / "patients.json"), pooling="query")
    assert close(of_files.loc[found.index], model.embed(val, "query"))
    assert model.embed(patients[0]).shape == (1, HIDDEN)
    target = tmp_path / "e.parquet"
    words = [
        "--model-dir",
        str(model.folder),
        "--input",
        str(small_datasets / "patients.json"),
        "--output",
        str(target),
    ]
    assert CliRunner().invoke(script(COMMANDS["embed"]), words).exit_code == 0
    written = pandas.read_parquet(target).set_index("patient_id")["embedding"]
    np.testing.assert_allclose(np.stack(written.loc[found.index]), found.to_numpy(), atol=1e-5)


def test_a_table_of_events_is_read_as_a_record_is(tmp_path: Path) -> None:
    (columns,) = PatientInput([write_records(tmp_path / "p.json", [record("b"), record("a")])]).quiet_chunks()
    rows = [(i, code, system, day) for i in ("b", "a") for system, code, day in (
        ("icd10cm", "I10", "2022-03-15"), ("ICD-10-CM", "E11.9", pandas.Timestamp("2022-03-15")),
        ("icd10cm", "E11.95", "20231215"), ("atc", "C10AA05", "20220320"), ("ATC", "A10BA02", "20231215"),
    )]  # fmt: skip
    events = pandas.DataFrame(rows, columns=["patient_id", "code", "system", "date"])
    events = events.assign(birth_year=1965, sex="FEMALE", state="CA")
    found = columns_of_events(events, BUILT_IN)
    assert found.patient_ids == ["b", "a"] == columns.patient_ids
    assert found.static == columns.static and (found.birth_years == 1965).all()
    codes = [[one.events.table[i] for i in one.events.codes] for one in (found, columns)]
    assert codes[0] == codes[1] and (found.events.days == columns.events.days).all()
    assert (found.events.offsets == columns.events.offsets).all()


def test_without_a_birth_year_the_age_is_unknown(model: PatientModel, val: PatientDataset) -> None:
    events = val.to_pandas()
    ages = model.tokenizer.encode(events[["patient_id", "date", "system", "code"]])
    assert set(ages["age_ids"][ages["attention_mask"] == 1].tolist()) == {UNK}
    known = model.tokenizer.encode(events)
    assert (known["input_ids"] == ages["input_ids"]).all() and (known["age_ids"] != ages["age_ids"]).any()


def test_who_has_no_event_has_no_vector(model: PatientModel, capsys: pytest.CaptureFixture[str]) -> None:
    empty: dict[str, Any] = {key: [] for fields in LISTED.values() for key in fields}
    people = [record("a"), record("b", **empty), record("c", birth_year=1700), record("d")]
    found = model.embed(people)
    assert list(found.index) == ["a", "b", "c", "d"] and found.isna().all(axis=1).tolist() == [False, True, True, False]
    assert "1 left out: implausible birth year" in capsys.readouterr().err
    early = model.embed(people, at="2022-03-16")
    cut = {"diagnoses": ["I10", "E11.9"], "diagnosis_dates": ["20220315"] * 2, "drugs": [], "prescription_dates": []}
    np.testing.assert_allclose(early.loc["a"], model.embed(record(**cut)).iloc[0], atol=1e-6)
    assert model.embed(people, at="2001-01-01").isna().all(axis=None)


def test_patients_that_cannot_be_read_are_one_line(model: PatientModel, val: PatientDataset) -> None:
    events = val.to_pandas()
    for wrong, problem in (
        (events.drop(columns="system"), "column system is missing, expected patient_id, date, system, code"),
        (events.assign(date="soon"), "row 0: date: 'soon', expected a date"),
        (events.assign(system="icd-99"), "system: 'icd-99', expected one of"),
        (events.assign(code=[*events["code"][:-1], None]), f"row {len(events) - 1}: code: is missing"),
        (events.assign(code=5), "code: 5, expected a code as a string"),
        (events.assign(sex=1), "row 0: sex: 1, expected a string"),
        ({"diagnoses": []}, "record 1 (patient_id 0): birth_year: is missing"),
        ([record(1), record(1)], "patient_id 1: stands there twice"),
        ([3], "record 1: got 3, expected a dict"),
        (3, "got 3, expected records, a DataFrame of events, a dataset or a path"),
    ):
        with pytest.raises(InputError) as caught:
            as_input(wrong, BUILT_IN)
        assert problem in str(caught.value)
    with pytest.raises(ValueError, match="pooling: 'max', expected one of mean, last-visit, query"):
        model.embed(val, "max")  # type: ignore[arg-type]


# --- codes ---


def test_masked_codes_are_filled_with_what_the_network_expects(model: PatientModel) -> None:
    patient = record(diagnoses=["I10", "MASK", "MASK"], drugs=["MASK", "A10BA02"])
    found = model.fill_masked(patient, top=2)
    assert list(found.columns) == ["date", "system", "rank", "code", "name", "probability"]
    assert [(str(row.date), row.system, row.rank) for row in found.itertuples()] == [
        (day, system, rank)
        for day, system in (("2022-03-15", "icd10cm"), ("2022-03-20", "atc"), ("2023-12-15", "icd10cm"))
        for rank in (1, 2)
    ]
    batch = model.tokenizer.encode(patient)
    assert (batch["input_ids"] == MASK).sum() == 3
    with torch.no_grad():
        scores = model.network(**batch).logits[0, batch["input_ids"][0] == MASK]
    best = scores[:, 6:].softmax(dim=1).topk(2)
    assert found["code"].tolist() == model.tokenizer.decode(best.indices.flatten() + 6)
    np.testing.assert_allclose(found["probability"], best.values.flatten(), rtol=1e-4)
    both = model.fill_masked(record(diagnoses=["MASK", "MASK", "I10"], diagnosis_dates=["20220315"] * 3), top=1)
    assert len(both) == 2  # two of one visit stay two
    with pytest.raises(InputError, match="none of the codes is MASK"):
        model.fill_masked(record())


def test_masked_codes_are_filled_beside_a_code_that_the_model_never_met(
    model: PatientModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, nodes = model.network, CodeTree.of(model.form.vocabulary.keys).nodes
    table = torch.randn(len(nodes), HIDDEN, generator=torch.Generator().manual_seed(1)).numpy()
    rows = TreeRows(nodes, {EMBEDDINGS: table, HEAD: table, BIAS: table[:, :1]}, 0.0)
    monkeypatch.setattr(network, "tree_rows", rows)
    new, known = ("icd10cm", "E11.649"), model.token_of("I10")
    found = model.fill_masked(record(diagnoses=[new[1], "MASK", "E66.9"]), top=9)
    vectors = network.get_input_embeddings().weight.detach()
    before = vectors[known].clone()
    vectors[known] = torch.from_numpy(rows.sums([new])[1][EMBEDDINGS][0])
    expected = model.fill_masked(record(diagnoses=["I10", "MASK", "E66.9"]), top=9)  # a twin that has the sum
    vectors[known] = before
    pandas.testing.assert_frame_equal(found, expected)


def test_near_codes_are_those_of_a_small_angle(model: PatientModel) -> None:
    with torch.no_grad():
        weight = model.network.get_input_embeddings().weight
        token, other = model.token_of("I10"), model.token_of("E11.9")
        weight[other] = 3 * weight[token] + 0.1
    near = model.nearest_codes("i10", top=3)
    assert near["code"][0] == "E11.9" and near["similarity"].is_monotonic_decreasing and len(near) == 3
    assert near["name"][0] == "Type 2 diabetes mellitus without complications" and near["system"][0] == "icd10cm"
    with pytest.raises(InputError, match=r"code 'I1O': the model does not know it; it knows .*I10"):
        model.nearest_codes("I1O")


def test_a_folder_is_enough_for_its_tokenizer(model: PatientModel, val: PatientDataset) -> None:
    tokenizer = PatientTokenizer.from_pretrained(model.folder)
    found = tokenizer.encode(val)
    batch = val.batch(range(len(val)))
    assert (found["input_ids"].numpy() == batch.codes).all() and (found["age_ids"].numpy() == batch.ages).all()
    assert (found["sex_ids"].numpy()[:, 0] == batch.static["sex"]).all()
    own = replace(model.form, pretraining=None)
    assert tokenizer.form.vocabulary.tokens == own.vocabulary.tokens and tokenizer.form.max_length == own.max_length
    assert tokenizer.decode(found["input_ids"][0]) == [event.code for event in val.patient(0).events]


def test_hidden_states_and_attentions_of_every_layer(model: PatientModel, val: PatientDataset) -> None:
    encoder, batch = model.network.bert, model.tokenizer.encode(val[:3])
    kernel = encoder.config._attn_implementation
    encoder.set_attn_implementation("eager")
    with torch.no_grad():
        found = encoder(**batch, output_hidden_states=True, output_attentions=True)
        plain = encoder(**batch)
    assert plain.hidden_states is None and plain.attentions is None
    assert len(found.hidden_states) == 3 and torch.equal(found.hidden_states[-1], plain.last_hidden_state)
    assert len(found.attentions) == 2 and torch.allclose(found.attentions[0].sum(dim=-1), torch.ones(1))
    encoder.set_attn_implementation("sdpa")
    with pytest.raises(ValueError, match="output_attentions: attention kernel 'sdpa' gives no weights"):
        encoder(**batch, output_attentions=True)
    encoder.set_attn_implementation(kernel)


# --- risks ---


def test_risk_is_what_predict_only_writes(
    model: PatientModel, train: PatientDataset, small_datasets: Path, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    vocabulary = train.info.vocabulary
    targets = [i for i, token in enumerate(vocabulary.tokens) if token.startswith("I")]
    config = ExMedBertConfig(**model.network.config.to_dict() | {"target_codes": targets})
    network = ExMedBertForSequenceClassification(config)
    task = {"name": "first-occurrence", "endpoint": ["I*"], "horizon_days": 365, "gap_days": 0}
    folder, kept = tmp_path / "tuned", {"min_history": 5, "max_length": 30, "age_unit": "years", "bias": 0.1}
    write_finetuned(folder, network, vocabulary, kept | {"title": "I* in a year", "task": task, "temperature": 2.0})
    patients = small_datasets / "patients.json"
    words = ["--predict-only", "--model-dir", folder, "--input", patients, "--output-dir", tmp_path / "out"]
    result = CliRunner().invoke(script(COMMANDS["finetune"]), list(map(str, words)))
    assert result.exit_code == 0, result.output
    written = pandas.read_parquet(tmp_path / "out" / "predictions.parquet").set_index("patient_id")["probability"]
    tuned = load_model(folder)
    found = tuned.risk(patients, "I*", 365)
    assert len(found) == 200 and found.notna().sum() == len(written) < 200
    np.testing.assert_allclose(found.dropna(), written.loc[found.dropna().index])
    assert "I* in a year" in repr(tuned) and tuned.embed(patients).shape == (200, HIDDEN)
    for asked in ({"endpoint": "J*"}, {"horizon_days": 30}):
        with pytest.raises(InputError, match="the model predicts another outcome: I\\* in a year"):
            tuned.risk(patients, **asked)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="is fine-tuned and predicts no codes"):
        tuned.fill_masked(record(diagnoses=["MASK", "I10", "I10"]))


def test_a_pretrained_model_without_forecasts_gives_no_risk(model: PatientModel, small_datasets: Path) -> None:
    with pytest.raises(InputError, match="is pretrained: expected an endpoint, or a fine-tuned model"):
        model.risk(small_datasets / "patients.json")
    with pytest.raises(InputError, match="forecasts no hazards"):
        model.risk(small_datasets / "patients.json", "I*")


# --- scikit-learn ---

# What check_estimator does without data; it leaves the rest out itself, since the tags say that X is no table of
# numbers.
CHECKS = [
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_estimator_cloneable",
    "check_estimator_tags_renamed",
    "check_estimator_repr",
    "check_get_params_invariance",
    "check_mixin_order",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_set_params",
    "check_valid_tag_types",
]


@pytest.mark.parametrize("name", CHECKS)
def test_the_transformer_passes_the_checks_that_need_no_data(name: str, model: PatientModel) -> None:
    estimator: Any = PatientEmbedder(model)
    getattr(estimator_checks, name)("PatientEmbedder", estimator)


def test_the_transformer_stands_in_a_pipeline(model: PatientModel, val: PatientDataset) -> None:
    with pytest.warns(UserWarning, match="Can't test estimator PatientEmbedder"):
        estimator_checks.check_estimator(PatientEmbedder(model))
    people = [val.patient(row).to_record() for row in range(len(val))]
    labels = np.array([person["sex"] == "MALE" for person in people])
    pipeline = make_pipeline(PatientEmbedder(str(model.folder)), LogisticRegression(max_iter=1000))
    assert cross_val_score(pipeline, people, labels, cv=3, scoring="roc_auc").mean() > 0.6
    embedder = pipeline.fit(people, labels)[0]
    assert embedder.transform(people[:2]).shape == (2, HIDDEN)
    assert embedder.get_feature_names_out()[-1] == f"embedding{HIDDEN - 1}"
    with pytest.raises(NotFittedError):
        PatientEmbedder(model).transform(people)


def test_the_package_loads_no_torch_and_completes_its_names() -> None:
    code = "import sys, exmed_bert; assert 'torch' not in sys.modules; print(*dir(exmed_bert))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {"load_model", "PatientEmbedder", "PatientDataset", "PatientTokenizer"} <= set(done.stdout.split())
