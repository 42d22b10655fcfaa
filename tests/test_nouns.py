"""A code system, a static column and events of several systems: each is declared once and carried to the end."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
import yaml
from conftest import record, write_records
from torch.utils.data import DataLoader
from typer.testing import CliRunner

from exmed_bert import cli, codes
from exmed_bert.codes import CodeSystem
from exmed_bert.codes.system import without_last_digit
from exmed_bert.commands import COMMANDS
from exmed_bert.console import InputError
from exmed_bert.data.convert import convert
from exmed_bert.data.dataset import PatientDataset
from exmed_bert.data.formats import FORMATS
from exmed_bert.data.patient import PERIOD_FIELDS
from exmed_bert.data.patient_input import read_patients
from exmed_bert.data.static_columns import declared
from exmed_bert.data.writers import Fields, write_patients
from exmed_bert.models import ExMedBertForMaskedLM, ExMedBertModel
from exmed_bert.settings import ConvertSettings

# A test's own system with a tree: 10.21 under 10.2 under 10.
ORGANS = CodeSystem(
    name="organs",
    title="Organs",
    events="findings",
    spelling=lambda text: text if text.replace(".", "").isdigit() and len(text) <= 5 else None,
    parent_of=without_last_digit,
)
LARGE = [f"{10 + i}.{j}{k}" for i in range(3) for j in range(2) for k in range(2)]


def people(count: int = 120) -> list[dict[str, Any]]:
    """Return patients with events of three systems; who has organs 10.* gets more of them a year later."""
    rng = np.random.default_rng(3)
    made = []
    for i in range(count):
        organ = LARGE[int(rng.integers(len(LARGE)))]
        days = [f"20{20 + k // 4:02d}{1 + 3 * (k % 4):02d}11" for k in range(8)]
        events = [{"system": "organs", "code": organ, "date": day} for day in days[:6]]
        events += [{"system": "icd9cm", "code": "250.00", "date": days[1]}]
        if i % 3 == 0:
            events.append({"system": "organs", "code": "12.99", "date": days[6]})
        made.append(
            record(
                i,
                diagnoses=["I10"] * 8,
                diagnosis_dates=days,
                drugs=["C10AA05"] * 3,
                prescription_dates=days[:3],
                ethnicity=["HISPANIC", "NOT_HISPANIC", None][i % 3],
                had_plos=bool(i % 2),
                events=events,
                observation_start="20190101",
                observation_end="20230101" if i % 2 else None,
                death_date="20230505" if i % 7 == 0 else None,
            )
        )
    return made


def run(command: str, *arguments: Any) -> str:
    result = CliRunner().invoke(
        cli.script(COMMANDS[command]), [*map(str, arguments), "--debug"], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("extension", FORMATS)
def test_events_periods_and_columns_come_back_from_every_format(extension: str, tmp_path: Path) -> None:
    columns = declared({"ethnicity": ["hispanic", "not_hispanic"]})
    with codes.registered(ORGANS):
        source = write_records(tmp_path / "source.json", people(30))
        path = tmp_path / f"again{extension}"
        fields = Fields(static_columns=columns[2:], periods=True, events=True)
        write_patients(path, read_patients(source, columns, size=7), fields)
        found = [one for part in read_patients(path, columns, size=11) for one in part.records(columns[2:])]
    expected = [{name: value for name, value in one.items() if value is not None} for one in people(30)]
    assert [{name: value for name, value in one.items() if value is not None} for one in found] == expected


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"events": [{"system": "icd11", "code": "1", "date": "20200101"}]}, ["events[0].system", "'icd11'", "icd9cm"]),
        ({"events": [{"system": "icd9cm", "date": "20200101"}]}, ["events[0]", "system, code and date"]),
        ({"events": [{"system": "icd9cm", "code": 250, "date": "20200101"}]}, ["events[0]", "250", "as a string"]),
        ({"events": [{"system": "icd9cm", "code": "250", "date": "2020"}]}, ["events[0]", "'2020'", "YYYYMMDD"]),
        ({"events": "250"}, ["events", "expected a list"]),
        ({"death_date": "20231399"}, ["death_date", "'20231399'", "YYYYMMDD"]),
        ({"ethnicity": 7}, ["ethnicity", "7, expected a string or null"]),
    ],
)
def test_wrong_optional_fields_are_named(change: dict[str, Any], parts: list[str], tmp_path: Path) -> None:
    for name in ("p.json", "p.jsonl"):
        path = tmp_path / name
        made = record(5) | change
        path.write_text(json.dumps([made] if name == "p.json" else made))
        with pytest.raises(InputError) as error:
            list(read_patients(path, declared({"ethnicity": ["A"]})))
        for part in (name, "record 1", "patient_id 5", *parts):
            assert part in str(error.value)


@pytest.mark.parametrize(
    "further", [{"sex": ["A"]}, {"Race": ["A"]}, {"race": []}, {"race": ["a", "A"]}, {"age": ["A"]}, {"race": ["UNK"]}]
)
def test_impossible_static_columns_are_refused(further: dict[str, list[str]]) -> None:
    with pytest.raises(InputError, match=r"static_columns\."):
        declared(further)


def test_a_dataset_carries_systems_columns_and_periods(tmp_path: Path) -> None:
    with codes.registered(ORGANS):
        path = write_records(tmp_path / "p.json", people())
        settings = ConvertSettings(
            input=path, output=tmp_path / "d.pt", static_columns={"ethnicity": ["HISPANIC", "NOT_HISPANIC"]}
        )
        convert(settings)
        dataset = PatientDataset.load(tmp_path / "d_train.pt")
        vocabulary = dataset.info.vocabulary
        assert vocabulary.entity_names == ("default", "atc", "icd", "icd9cm", "organs")
        assert vocabulary.tokens[6:9] == ("C10AA05", "I10", "icd9cm:250.00")
        by_id = {one["patient_id"]: one for one in people()}
        for i in range(len(dataset)):
            patient = dataset.patient(i)
            made = by_id[patient.patient_id]
            back = patient.to_record()
            assert sorted(map(str, back.pop("events"))) == sorted(set(map(str, made["events"])))
            assert back == {name: made[name] for name in back}
            assert {name for name in PERIOD_FIELDS if made[name] is not None} <= back.keys()
        assert dataset.stats()["findings"] > 0 and "findings" in vocabulary.entities_by_events
    with pytest.raises(InputError, match="unknown code system 'organs'"):
        PatientDataset.load(tmp_path / "d_train.pt")


@pytest.mark.slow
def test_a_users_own_system_and_a_column_go_all_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Convert, pretrain, start from relatives, fine-tune to an endpoint of the system; subgroups by the column."""
    monkeypatch.chdir(tmp_path)
    columns = {"static_columns": {"ethnicity": ["HISPANIC", "NOT_HISPANIC"]}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(columns))
    with codes.registered(ORGANS):
        write_records(tmp_path / "p.json", people(400))
        run("convert", "--input", "p.json", "--output", "d.pt", "--train-ratio", 0.4)
        data = ["--training-data", "d_train.pt", "--validation-data", "d_val.pt"]
        sizes = ["--hidden-size", 16, "--num-hidden-layers", 1, "--max-steps", 30, "--train-batch-size", 16]
        run("pretrain", *data, *sizes, "--output-dir", "m", "--output-data-dir", "md", "--forecast-prob", 0.3)
        model = ExMedBertForMaskedLM.from_pretrained(tmp_path / "m")
        assert model.bert.embeddings.ethnicity_embeddings.weight.shape == (8, 16)
        assert model.config.number_of_codes == 5
        assert "findings_accuracy_top1" in (tmp_path / "md" / "eval_results.txt").read_text()

        # A code that the model has never seen starts from its relatives.
        grown = people(400)
        for one in grown[:200]:
            one["events"].append({"system": "organs", "code": "10.03", "date": "20200202"})
        write_records(tmp_path / "grown.json", grown)
        run("convert", "--input", "grown.json", "--output", "g.pt", "--train-ratio", 0.4)
        data = ["--training-data", "g_train.pt", "--validation-data", "g_val.pt"]
        further = ["--model-dir", "m", "--use-hierarchical-init", "--max-steps", 2, "--train-batch-size", 16]
        run("pretrain", *data, *further, "--output-dir", "m2", "--output-data-dir", "md2")
        started = (tmp_path / "m2" / "clinvec_codes.csv").read_text()
        assert "10.03,organs,ancestor" in started or "10.03,organs,siblings" in started

        run(
            "finetune", "--model-dir", "m", "--input", "p.json", "--output-dir", "ft", "--endpoint", "organs:12.99",
            "--epochs", 1, "--baselines", "logreg", "--horizon-days", 250,
        )  # fmt: skip
        results = json.loads((tmp_path / "ft" / "results.json").read_text())
        kinds = {group["kind"] for group in results["models"][0]["groups"]}
        assert {"sex", "ethnicity", "age"} <= kinds and "state" not in kinds

        # New patients may have codes of a system that the model has never seen.
        later = people(40)
        for one in later:
            one["events"].append({"system": "cpt", "code": "99213", "date": "20210101"})
        write_records(tmp_path / "later.json", later)
        run("finetune", "--predict-only", "--model-dir", "ft", "--input", "later.json", "--output-dir", "later")
        predictions = pyarrow.parquet.read_table(tmp_path / "later" / "predictions.parquet")
        without = [one for one in later if all(event["code"] != "12.99" for event in one["events"])]
        assert predictions["patient_id"].to_pylist() == [one["patient_id"] for one in without]


def test_the_baseline_has_features_of_every_static_column(tmp_path: Path) -> None:
    from exmed_bert.cohorts.labeled import LabeledPatients, Timeline
    from exmed_bert.evaluation.features import features

    with codes.registered(ORGANS):
        path = write_records(tmp_path / "p.json", people(60))
        columns = {"ethnicity": ["HISPANIC", "NOT_HISPANIC"]}
        dataset = convert(
            ConvertSettings(input=path, output=tmp_path / "d.pt", static_columns=columns, split="train")
        ).datasets["train"]
        n = len(dataset)
        zeros, days = np.zeros(n, np.int8), np.full(n, 19_500, np.int32)
        patients = LabeledPatients(dataset, zeros, days, zeros, Timeline.unknown(n))
        found = features(patients, np.arange(n))
    column = found.matrix[:, [found.names.index("ethnicity HISPANIC")]].toarray()[:, 0]
    assert column.tolist() == [float(dataset.patient(i).static["ethnicity"] == "HISPANIC") for i in range(n)]


def test_a_dataset_works_with_torchs_loader_slices_and_the_model(small_datasets: Path) -> None:
    dataset = PatientDataset.load(small_datasets / "small_train.pt")
    assert repr(dataset).startswith(f"PatientDataset({len(dataset)} patients")
    assert [dataset[0:3].patient_id(i) for i in range(3)] == [dataset.patient_id(i) for i in range(3)]
    torch.manual_seed(0)
    from exmed_bert.models import ExMedBertConfig

    config = ExMedBertConfig(
        code_vocab_size=len(dataset.info.vocabulary), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16,
    )  # fmt: skip
    model = ExMedBertModel(config).eval()
    alone = model(**dataset[1]).last_hidden_state
    assert alone.shape == (1, len(dataset[1]["input_ids"]), 16)
    batch = next(iter(DataLoader(dataset, batch_size=4)))
    assert batch["input_ids"].shape == (4, int(dataset.lengths[:4].max()))
    together = model(**batch).last_hidden_state
    torch.testing.assert_close(together[1, : alone.shape[1]], alone[0], rtol=1e-4, atol=1e-5)
    with pytest.raises(TypeError, match="race_ids"):
        model(**dataset[0], race_ids=torch.ones(1, 1, dtype=torch.long))


def test_a_dataset_of_an_earlier_version_is_refused(tmp_path: Path) -> None:
    path = write_records(tmp_path / "p.json", [record(i) for i in range(40)])
    convert(ConvertSettings(input=path, output=tmp_path / "d.pt"))
    content = torch.load(tmp_path / "d_train.pt", weights_only=True)
    torch.save(content | {"version": 1}, tmp_path / "old.pt")
    with pytest.raises(InputError, match=r"old\.pt: has dataset version 1, this release reads 2; convert again"):
        PatientDataset.load(tmp_path / "old.pt")
