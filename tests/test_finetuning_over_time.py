"""Fine-tuning to time to event: the cohort, the model's likelihood, where it starts, and a run through the command."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from test_finetuning import batch, config
from test_observation import DAY_0, ENDPOINT, Events, built, patient
from transformers import AutoModelForSequenceClassification

from exmed_bert.cohorts.collator import LabeledRows, PromptCollator
from exmed_bert.cohorts.endpoints import Endpoint
from exmed_bert.cohorts.index_dates import IndexRule
from exmed_bert.cohorts.labeled import TEST, TRAIN, UNLABELED, VALIDATION, LabeledPatients, Timeline
from exmed_bert.cohorts.tasks.time_to_event import TimeToEvent
from exmed_bert.data.dataset import PatientDataset
from exmed_bert.evaluation.follow_up import CENSORED, DEATH, OUTCOME, FollowUp
from exmed_bert.evaluation.over_time_assemble import LEAST_FOLLOWED, RiskScores, assemble_over_time, followed_horizons
from exmed_bert.evaluation.over_time_text import lead, sections
from exmed_bert.finetuning.hazards import Events as PoissonEvents
from exmed_bert.finetuning.hazards import TimeToEventObjective, _regression
from exmed_bert.finetuning.outcome_model import predict
from exmed_bert.models import ExMedBertForSequenceClassification
from exmed_bert.models.hazards import HazardBins, log_likelihood
from exmed_bert.reporting.small_cells import MinCell, as_count
from exmed_bert.settings import FinetuneSettings

BINS = [30.0, 90.0, 365.0]
LABELS = torch.tensor([[20, 1], [400, 2], [90, 0]])  # outcome, death, censored


def model_over_time(**changes: object) -> ExMedBertForSequenceClassification:
    """Return a model of outcome and death whose parameters are drawn."""
    torch.manual_seed(1)
    model = ExMedBertForSequenceClassification(config(outcome_bins=BINS, outcome_causes=2, **changes)).eval()
    for parameter in (model.classifier.weight, model.rates):
        torch.nn.init.normal_(parameter, std=0.3)
    torch.nn.init.normal_(model.slopes, mean=1, std=0.2)
    return model


class TestModel:
    def test_the_loss_is_the_likelihood_of_all_causes(self) -> None:
        model = model_over_time(target_codes=[7])
        output = model(**batch(), labels=LABELS)
        hazards = output.logits.double().exp().detach().numpy()  # (3, causes, bins)
        assert hazards.shape == (3, 2, 4)
        expected = 0.0
        for row, (days, event) in enumerate(LABELS.tolist()):
            for start, end, bin_ in zip((0, *BINS), (*BINS, np.inf), range(4), strict=True):
                lived = min(max(days - start, 0), end - start)
                expected += lived * hazards[row, :, bin_].sum()
                if event and start < days <= end:
                    expected -= np.log(hazards[row, event - 1, bin_])
        assert float(output.loss.detach()) == pytest.approx(expected / 3, rel=1e-5)

    def test_saved_and_loaded_by_the_auto_class(self, tmp_path: Path) -> None:
        model = model_over_time(classifier_head="gru", target_codes=[8])
        model.save_pretrained(tmp_path)
        loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
        assert torch.equal(model(**batch()).logits, loaded(**batch()).logits)

    def test_it_starts_proportional(self) -> None:
        model = ExMedBertForSequenceClassification(config(outcome_bins=BINS, target_codes=[7], prompt_scale=0.5))
        output = model.eval()(**batch())
        assert torch.allclose(output.logits, 0.5 * output.prompt_logits[:, None, None].expand(-1, 1, 4))


def task(rule: str = "random", gap: int = 0, horizons: tuple[int, ...] = (100, 200)) -> TimeToEvent:
    index = IndexRule.parse(rule, 10**6, 7, 0, gap + 1)
    return TimeToEvent(Endpoint(ENDPOINT), index, 10**6, gap, keep_censored=True, horizons=horizons)


class TestCohort:
    def test_nobody_is_excluded_for_being_censored(self, tmp_path: Path) -> None:
        followed: list[tuple[Events, dict[str, int]]] = [
            ({0: ["I10"], 90: [ENDPOINT]}, {"observation_end": 500}),  # the outcome on day 90
            ({0: ["I10"], 90: [ENDPOINT]}, {"observation_end": 60}),  # censored before it
            ({0: ["I10"]}, {"observation_end": 500, "death_date": 80}),
            ({0: ["I10"]}, {"observation_end": 1}),
            ({0: [ENDPOINT, "I10"]}, {"observation_end": 500}),  # had it
            ({0: ["I10"]}, {"observation_end": 0}),  # no day of follow-up
        ]
        records = [patient(i, events, **said) for i, (events, said) in enumerate(followed)]
        for horizons in ((100, 200), (7,)):
            cohort = built(tmp_path, records, task("first-visit", horizons=horizons))
            found = cohort.patients
            assert [found.dataset.patient_id(row) for row in range(len(found))] == [0, 1, 2, 3]
            assert found.labels.tolist() == [1, UNLABELED, 0, UNLABELED]
            follow_up = FollowUp.of(found.timeline, found.index_days)
            assert follow_up.days.tolist() == [90, 60, 80, 1]
            assert follow_up.events.tolist() == [OUTCOME, CENSORED, DEATH, CENSORED]
            counts = dict(cohort.attrition)
            assert counts["excluded: no visit with 1 day of follow-up after it"] == 1
            assert counts["excluded: endpoint on or before the index date"] == 1

    def test_a_gap_has_no_events(self, tmp_path: Path) -> None:
        records = [
            patient(0, {0: ["I10"], 20: [ENDPOINT]}, observation_end=500),
            patient(1, {0: ["I10"], 40: [ENDPOINT]}, observation_end=500),
            patient(2, {0: ["I10"]}, observation_end=30),
        ]
        cohort = built(tmp_path, records, task("fixed:2015-01-01", gap=30))
        assert cohort.patients.index_days.tolist() == [DAY_0] * 2
        assert dict(cohort.attrition)["excluded: endpoint within the gap"] == 1

    def test_the_prompt_is_of_two_years_whatever_the_horizons(self) -> None:
        assert task(gap=30).target_days == task(gap=30, horizons=(7,)).target_days == (30, 760)


@pytest.fixture(scope="module")
def cohort(small_datasets: Path) -> tuple[LabeledPatients, FollowUp]:
    """Return patients whose hazard of the outcome is 20 times as high with a code, and who die and are censored."""
    dataset = PatientDataset.load(small_datasets / "small_train.pt")
    n = len(dataset)
    rng = np.random.default_rng(0)
    present = np.zeros((n, len(dataset.info.vocabulary)), dtype=bool)
    for row in range(n):
        present[row, dataset[row]["input_ids"]] = True
    has = present[:, np.abs(present.mean(axis=0) - 0.5).argmin()]  # half of them
    outcome, death, end = (
        rng.exponential(mean, n) for mean in (np.where(has, 100.0, 2000.0), 1500.0, np.full(n, 600.0))
    )
    days = np.ceil(np.minimum(np.minimum(outcome, death), end)).astype(int)
    events = np.where(days >= outcome, OUTCOME, np.where(days >= death, DEATH, CENSORED)).astype(np.int8)
    labels = np.where(events == CENSORED, UNLABELED, events == OUTCOME).astype(np.int8)
    splits = np.where(np.arange(n) % 3 == 0, VALIDATION, TRAIN).astype(np.int8)
    index = np.full(n, 20_454, dtype=np.int32)
    return LabeledPatients(dataset, labels, index, splits, Timeline.unknown(n)), FollowUp(days, events)


def test_training_starts_from_what_single_codes_say_of_the_hazard(cohort: tuple[LabeledPatients, FollowUp]) -> None:
    patients, follow_up = cohort
    objective = TimeToEventObjective(patients, follow_up, patients.rows(TRAIN), 0, 365, FinetuneSettings())
    assert objective.causes == 2 and objective.bins.ends == (30, 90, 180, 365, 730)
    sizes = {"code_vocab_size": len(patients.dataset.info.vocabulary), "hidden_size": 64, "target_codes": [9]}
    torch.manual_seed(0)
    rows = [LabeledRows(patients, patients.rows(split), objective.targets) for split in (TRAIN, VALIDATION)]
    collate, found = PromptCollator([2], 30), []
    for pretrained in (False, True):
        model = ExMedBertForSequenceClassification(config(**sizes, **objective.config))
        objective.start(model, *rows, collate, pretrained)
        found.append(objective.measure(rows[1], predict(model, rows[1], collate, 64)))
    rates, fitted = found
    assert fitted["loss"] < rates["loss"] - 0.05 and fitted["concordance"] > max(rates["concordance"], 0.65)


def test_the_first_fit_is_where_the_penalized_likelihood_is_highest() -> None:
    """Its rates are profiled out; here they are parameters like the others."""
    rng = np.random.default_rng(2)
    inputs, bins = rng.normal(size=(300, 3)), HazardBins(tuple(BINS))
    targets = np.stack((rng.integers(1, 500, 300), rng.integers(0, 3, 300)), axis=1)
    events, strength = PoissonEvents.of(targets, bins, 2), 0.3
    found = _regression(inputs, events, 1, strength, np.zeros(3))
    days, x = torch.from_numpy(targets[:, 0]), torch.from_numpy(inputs)
    exposure, place, died = bins.exposure(days.double()), bins.of(days), torch.from_numpy(targets[:, 1] == 2)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        own = torch.from_numpy(parameters).requires_grad_()
        value = -log_likelihood(own[3:] + (x @ own[:3])[:, None], exposure, place, died).sum()
        value = value + (own[:3] ** 2).sum() / (2 * strength)
        value.backward()
        assert own.grad is not None
        return float(value.detach()), own.grad.numpy()

    expected = minimize(loss, np.array([0.0] * 3 + [-6.0] * 4), jac=True, method="L-BFGS-B").x
    assert found == pytest.approx(expected[:3], abs=1e-3)


def test_small_cells_are_hidden(cohort: tuple[LabeledPatients, FollowUp]) -> None:
    patients, follow_up = cohort
    patients = replace(patients, splits=np.where(patients.splits == VALIDATION, VALIDATION, TEST).astype(np.int8))
    rng = np.random.default_rng(3)
    risks = np.sort(rng.random((len(patients), 3)), axis=1)
    horizons = followed_horizons(patients, follow_up, (20, 60, 90, 5000))
    assert horizons == [20, 60, 90]
    models = [RiskScores("ours", "ours", risks), RiskScores("theirs", "theirs", risks**2)]
    told, plain = (
        assemble_over_time(patients, follow_up, horizons, models, title="t", resamples=20, cells=MinCell(limit)).results
        for limit in (11, 0)
    )
    assert plain.horizons[0].events < 11 <= plain.horizons[1].events and LEAST_FOLLOWED > 11
    assert str(told.horizons[0].events) == "<11" and all(one.followed is None for one in told.horizons)
    assert [at.horizon for at in told.models[0].horizons] == [60, 90] and len(plain.models[0].horizons) == 3
    assert not any(one.metric.endswith("_20") for one in told.differences)
    assert len(told.incidence) < len(plain.incidence)
    assert all(
        len(at.bins) <= len(whole.bins)
        for at, whole in zip(told.models[0].horizons, plain.models[0].horizons[1:], strict=True)
    )
    for one, at in zip(told.horizons[1:], told.models[0].horizons, strict=True):  # a share would tell the few of before
        assert not as_count(one.events).is_exact and one.incidence is None and not at.bins
    assert "Aalen" not in lead(told) and "Aalen" in lead(plain)
    observed = {group.kind for group in told.models[0].groups if "observed" in group.metrics}
    whole = {group.kind for group in plain.models[0].groups if "observed" in group.metrics}
    assert observed == {"codes"} and "age" in whole  # few of some age have the outcome
    assert {section.key for section in sections(told)} == {section.key for section in sections(plain)}
