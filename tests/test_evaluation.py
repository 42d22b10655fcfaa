"""Metrics against scikit-learn and by hand, intervals by simulation, baselines on a planted rule, attributions."""

import importlib
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from sklearn import metrics as sklearn_metrics
from sklearn.linear_model import LogisticRegression

from exmed_bert.cohorts.labeled import TEST, TRAIN, VALIDATION, LabeledPatients, Timeline
from exmed_bert.console import InputError
from exmed_bert.data.dataset import PatientDataset
from exmed_bert.data.dataset_info import DatasetInfo
from exmed_bert.data.static_columns import SEX, STATE
from exmed_bert.data.vocabulary import CodeVocabulary
from exmed_bert.evaluation import baselines, calibration, ridge
from exmed_bert.evaluation.assemble import Evaluation, ModelScores, assemble
from exmed_bert.evaluation.bootstrap import (
    PairedPredictions,
    mean_paired_difference,
    paired_difference,
    with_intervals,
)
from exmed_bert.evaluation.differences import BETTER, TOO_FEW, UNCLEAR, judged
from exmed_bert.evaluation.explain import TOLERANCE, by_code, integrated_gradients
from exmed_bert.evaluation.features import RECENCY_DAYS, features, groups_of
from exmed_bert.evaluation.follow_up import CENSORED, OUTCOME, FollowUp
from exmed_bert.evaluation.groups import LEAST_EVENTS, by_group, groups
from exmed_bert.evaluation.membership import membership, patient_losses
from exmed_bert.evaluation.metrics import METRICS, SENSITIVITIES, Predictions, logit, measure, sigmoid
from exmed_bert.evaluation.results import CodeAttribution, CurvePoint
from exmed_bert.evaluation.results_page import write_report
from exmed_bert.evaluation.results_text import lead, notes, sections
from exmed_bert.evaluation.ridge import Prior
from exmed_bert.evaluation.series import calibration_error_by_chance, net_benefit, plot_series
from exmed_bert.reporting.content import Caution
from exmed_bert.reporting.small_cells import Count, MinCell, as_count
from exmed_bert.settings import BASELINES

VOCABULARY = CodeVocabulary.build(
    [
        *(("atc", code) for code in ("C10AA05", "C10AA01", "A10BA02")),
        *(("icd10cm", code) for code in ("E11.9", "E11.65", "I10", "J06.9", "M54.50")),
    ]
)
RULE = VOCABULARY.ids["E11.65"]  # whoever has it tends to have the outcome


def scored(n: int, seed: int = 0, rate: float = -1.5) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and the probabilities that they were drawn with."""
    rng = np.random.default_rng(seed)
    probabilities = sigmoid(rng.normal(size=n) + rate)
    return (rng.random(n) < probabilities).astype(int), probabilities


def planted(n: int = 600, seed: int = 0) -> LabeledPatients:
    """Return patients with random codes whose labels mostly follow from one of the codes."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(4, 9, n)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    codes = rng.integers(6, len(VOCABULARY), offsets[-1])
    positions = np.concatenate([np.arange(1, length + 1) for length in lengths])
    has = np.bincount(np.repeat(np.arange(n), lengths), weights=codes == RULE, minlength=n) > 0
    index_day = 19_000
    columns = {
        "offsets": offsets,
        "visit_offsets": offsets,  # a code a visit
        "codes": codes.astype(np.int16),
        "entities": VOCABULARY.entities[codes],
        "ages": np.full(len(codes), 60, dtype=np.uint8),
        "visit_ids": positions.astype(np.uint8),
        "visit_days": (index_day - 30 * (np.repeat(lengths, lengths) - positions)).astype(np.int32),
        "patient_hashes": rng.integers(0, 2**62, n),
        "birth_years": rng.integers(1930, 2000, n).astype(np.int16),
        "static_sex": rng.integers(6, len(SEX.tokens), n).astype(np.uint8),
        "static_state": rng.integers(6, len(STATE.tokens), n).astype(np.uint8),
        "plos": np.full(n, -1, dtype=np.int8),
        "id_numbers": np.arange(n),
    }
    info = DatasetInfo("all", 50, "years", None, VOCABULARY, (), "", 0, 0.8)
    dataset = PatientDataset(info, {name: torch.from_numpy(column) for name, column in columns.items()})
    labels = (rng.random(n) < np.where(has, 0.9, 0.1)).astype(np.int8)
    splits = rng.choice([TRAIN, VALIDATION, TEST], n, p=[0.5, 0.2, 0.3]).astype(np.int8)
    index_days = np.full(n, index_day, dtype=np.int32)
    return LabeledPatients(dataset, labels, index_days, splits, Timeline.unknown(n))


@pytest.mark.parametrize("digits", [1, 8])  # with many ties and with none
def test_metrics_are_those_of_scikit_learn(digits: int) -> None:
    labels, probabilities = scored(700)
    probabilities = np.round(probabilities, digits)
    found = measure(labels, probabilities)
    assert list(found) == list(METRICS)
    expected = {
        "auroc": sklearn_metrics.roc_auc_score(labels, probabilities),
        "auprc": sklearn_metrics.average_precision_score(labels, probabilities),
        "partial_auroc": sklearn_metrics.roc_auc_score(labels, probabilities, max_fpr=0.2),
        "brier": sklearn_metrics.brier_score_loss(labels, probabilities),
    }
    fitted = LogisticRegression(C=np.inf, tol=1e-8).fit(logit(probabilities)[:, None], labels)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    assert found["calibration_slope"] == pytest.approx(fitted.coef_[0, 0], abs=1e-4)
    expected_events = sigmoid(logit(probabilities) + found["calibration_intercept"]).sum()
    assert expected_events == pytest.approx(labels.sum())  # calibration in the large
    x, y, _ = sklearn_metrics.roc_curve(labels, probabilities, drop_intermediate=False)
    assert found["sensitivity_at_90"] == pytest.approx(y[x <= 0.1 + 1e-12].max())


def test_metrics_by_hand() -> None:
    labels, probabilities = np.array([1, 0, 1, 0]), np.array([0.9, 0.6, 0.4, 0.1])
    found = measure(labels, probabilities)
    assert found["auroc"] == pytest.approx(3 / 4)  # of four pairs one is the wrong way round
    assert found["auprc"] == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)
    assert found["brier"] == pytest.approx((0.1**2 + 0.6**2 + 0.6**2 + 0.1**2) / 4)
    assert found["sensitivity_at_95"] == pytest.approx(1 / 2)
    assert found["calibration_error"] == pytest.approx((0.1 + 0.6 + 0.6 + 0.1) / 4)  # each in a bin of its own


def test_metrics_that_are_not_defined_are_left_out() -> None:
    assert set(measure(np.zeros(5), np.linspace(0.1, 0.5, 5))) == {"brier", "calibration_error"}
    separated = measure(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9]))
    assert "calibration_slope" not in separated and separated["auroc"] == 1
    assert "calibration_slope" not in measure(np.array([0, 1]), np.array([0.3, 0.3]))
    # Half the resamples of one event have no event: AUROC has a value and no interval.
    one_event = with_intervals(np.eye(1, 30, dtype=int)[0], np.linspace(0.1, 0.9, 30), resamples=200)
    assert one_event["auroc"].low is None and one_event["brier"].low is not None


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [([0, 1], [0.5], "shapes"), ([], [], "length"), ([0, 2], [0.5, 0.5], "label 2"), ([0, 1], [0.5, 1.5], "1.5")],
)
def test_bad_predictions_are_named(labels: list[int], probabilities: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure(np.array(labels), np.array(probabilities))


def test_a_weight_is_a_repetition() -> None:
    labels, probabilities = scored(200)
    counts = np.random.default_rng(1).integers(0, 4, 200)
    weighted = Predictions(labels, probabilities).metrics(counts[None])
    repeated = measure(np.repeat(labels, counts), np.repeat(probabilities, counts))
    for name in set(METRICS) - {"calibration_error"}:  # whose bins are those of the sample
        assert weighted[name][0] == pytest.approx(repeated[name], abs=1e-6), name


def test_intervals_over_patients_and_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    two_level = importlib.import_module("two_level")
    rng = np.random.default_rng(0)
    n, keys = 600, np.arange(600)
    labels = (rng.random(n) < 0.2).astype(np.int8)
    good = np.round(labels + rng.normal(0, 1, n), 1)  # with ties
    weights = rng.integers(0, 3, (5, n)).astype(float)
    expected = Predictions(labels, sigmoid(good)).metrics(weights, ("auroc",))["auroc"]
    assert two_level.Ranked(labels, good).auroc(weights) == pytest.approx(expected)

    ours = np.stack([good + rng.normal(0, spread, n) for spread in (0.1, 1.5, 3)])
    theirs = np.stack([labels + rng.normal(0, 3, n)] * 3)
    drawn = two_level.Draws(labels, keys, {"ours": ours, "theirs": theirs})
    steady = two_level.Draws(labels, keys, {"ours": np.stack([ours[1]] * 3), "theirs": theirs})
    (of_seeds, of_patients) = (two_level.differences([one], "ours", 200)["theirs"][1] for one in (drawn, steady))
    paired = mean_paired_difference([PairedPredictions(labels, sigmoid(ours[1]), sigmoid(theirs[0]))], "auroc", 200)
    assert paired is not None and of_patients.value == pytest.approx(paired.value)
    assert np.ptp(of_patients.interval) == pytest.approx(np.ptp(paired.interval), rel=0.25)
    assert np.ptp(of_seeds.interval) > 1.15 * np.ptp(of_patients.interval)

    # With outcomes on one day and nobody censored, concordance is the AUROC.
    follow_up = FollowUp(np.where(labels, 5, 9), np.where(labels, OUTCOME, CENSORED))
    followed = two_level.FollowedDraws(follow_up, 7, keys, drawn.scores)
    assert two_level.differences([followed], "ours", 200)["theirs"] == pytest.approx(
        two_level.differences([drawn], "ours", 200)["theirs"]
    )


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    """AUROC of normal scores one standard deviation apart is known: Phi(1 / sqrt 2) = 0.7602."""
    rng, inside = np.random.default_rng(0), 0
    for trial in range(100):
        labels = np.arange(150) % 3 == 0
        probabilities = sigmoid(rng.normal(size=150) + labels)
        interval = with_intervals(labels, probabilities, resamples=300, seed=trial, names=["auroc"])["auroc"]
        inside += interval.low <= 0.7602 <= interval.high
    assert 86 <= inside <= 100


def test_resampling_is_by_patient() -> None:
    labels, probabilities = scored(120)
    once = with_intervals(labels, probabilities, names=["auroc"])["auroc"]
    four = [np.tile(values, 4) for values in (labels, probabilities, np.arange(120))]
    by_row = with_intervals(*four[:2], names=["auroc"])["auroc"]
    by_patient = with_intervals(*four, names=["auroc"])["auroc"]
    width = once.high - once.low
    assert by_patient.high - by_patient.low == pytest.approx(width, rel=0.15)
    assert by_row.high - by_row.low == pytest.approx(width / 2, rel=0.2)  # four times the rows, half the width
    assert with_intervals(*four, names=["auroc"]) == with_intervals(*four, names=["auroc"])


def test_the_difference_of_a_model_to_itself_is_zero() -> None:
    labels, probabilities = scored(300)
    for metric in METRICS:
        same = paired_difference(labels, probabilities, probabilities.copy(), metric, resamples=50)
        assert (same.value, same.low, same.high) == (0, 0, 0), metric


def test_pairing_narrows_the_difference() -> None:
    labels, ours = scored(400)
    theirs = sigmoid(logit(ours) + np.random.default_rng(1).normal(size=400) * 0.3)
    difference = paired_difference(labels, ours, theirs)
    alone = with_intervals(labels, ours, names=["auroc"])["auroc"]
    assert difference.high - difference.low < (alone.high - alone.low) / 2
    swapped = paired_difference(labels, theirs, ours)
    assert (swapped.value, swapped.low) == pytest.approx((-difference.value, -difference.high))
    assert paired_difference(np.zeros(400), ours, theirs) is None


def test_endpoints_of_the_same_patients_are_no_independent_evidence() -> None:
    labels, ours = scored(400)
    theirs = sigmoid(logit(ours) + np.random.default_rng(1).normal(size=400))
    hashes = np.arange(400)
    one = paired_difference(labels, ours, theirs)
    same = mean_paired_difference([PairedPredictions(labels, ours, theirs, hashes)] * 4)
    apart = mean_paired_difference([PairedPredictions(labels, ours, theirs)] * 4)
    width = one.high - one.low
    assert same.value == pytest.approx(one.value)
    assert same.high - same.low == pytest.approx(width, rel=0.1)
    assert apart.high - apart.low == pytest.approx(width / 2, rel=0.2)
    assert apart.excludes_zero and not one.excludes_zero


def test_recalibration_finds_a_planted_temperature_and_bias() -> None:
    labels, probabilities = scored(40_000)
    found = calibration.fit(labels, 3 * (logit(probabilities) - 0.8))
    assert found.temperature == pytest.approx(3, rel=0.05) and found.bias == pytest.approx(0.8, abs=0.05)
    after = measure(labels, found.probabilities(3 * (logit(probabilities) - 0.8)))
    assert after["calibration_error"] < 0.01 and after["calibration_slope"] == pytest.approx(1, abs=0.02)
    few = calibration.fit(np.array([0, 0, 1]), np.array([-9.0, -8.0, 9.0]))
    assert np.isfinite([few.temperature, few.bias]).all()
    assert calibration.fit(np.ones(5), np.arange(5.0)) == calibration.Calibration()
    backwards = calibration.fit(labels, -logit(probabilities))
    assert backwards.temperature > 0  # ranks stay, and so does every AUROC


def test_calibration_error_by_chance_falls_with_the_patients() -> None:
    labels, probabilities = scored(20_000)
    few, many = (calibration_error_by_chance(probabilities[:n]) for n in (200, 20_000))
    assert many < few / 5 and measure(labels, probabilities)["calibration_error"] < 2 * many


def test_net_benefit_by_hand() -> None:
    labels, probabilities = np.array([1, 0, 0, 0]), np.array([0.9, 0.6, 0.2, 0.1])
    benefit = net_benefit(labels, probabilities, np.array([0.5, 0.95]))
    assert benefit.tolist() == [1 / 4 - 1 / 4 * 0.5 / 0.5, 0]
    series = plot_series(labels, probabilities)
    assert series.roc[0] == (0, 0) and series.roc[-1] == (1, 1) and sum(count for _, count in series.histogram) == 4


def test_groups_with_few_events_show_their_counts_alone() -> None:
    patients = planted(200)
    rows = patients.rows(TEST)
    parts = groups(patients, rows)
    for kind in ("sex", "age", "codes"):
        assert sum(part.member for part in parts if part.kind == kind).tolist() == [1] * len(rows)
    labels = np.zeros(len(rows), dtype=int)
    labels[np.flatnonzero(parts[0].member)[: LEAST_EVENTS - 1]] = 1
    few, none = by_group(labels, np.linspace(0, 1, len(rows)), parts[:2], resamples=20)
    assert few.events == LEAST_EVENTS - 1 and few.metrics == {} and none.events == 0 and none.metrics == {}
    labels[np.flatnonzero(parts[0].member)[:LEAST_EVENTS]] = 1
    assert by_group(labels, np.linspace(0, 1, len(rows)), parts[:1], resamples=20)[0].metrics["auroc"].value >= 0


def test_features_are_what_the_history_says() -> None:
    patients = planted(50)
    table = features(patients, np.arange(50))
    matrix = dict(zip(table.names, table.matrix.toarray().T, strict=True))
    days = patients.dataset.columns["visit_days"].numpy()
    for i in (0, 17):
        start, end = patients.dataset.columns["offsets"][i : i + 2].tolist()
        own = patients.dataset.columns["codes"].numpy()[start:end] == RULE
        ago = (19_000 - days[start:end][own]).min() if own.any() else np.inf
        assert matrix["icd10cm:E11.65 count"][i] == pytest.approx(np.log1p(own.sum()))
        assert matrix["icd10cm:E11.65 present"][i] == own.any()
        assert matrix["icd10cm:E11.65 recency"][i] == pytest.approx(np.exp(-ago / RECENCY_DAYS))
    assert (matrix["icd10cm:E11 count"] >= matrix["icd10cm:E11.65 count"]).all()
    names, member = groups_of(VOCABULARY)
    assert {names[i] for i in member[RULE] if i >= 0} == {"icd10cm:E11.65", "icd10cm:E11"}
    # C10A, C10 and C cover what C10AA covers.
    assert {names[i] for i in member[VOCABULARY.ids["C10AA05"]] if i >= 0} == {"atc:C10AA05", "atc:C10AA"}


class TestRidge:
    def test_is_scikit_learns_where_all_variances_are_alike(self) -> None:
        rng = np.random.default_rng(0)
        inputs = rng.normal(size=(200, 5))
        labels = (rng.random(200) < 1 / (1 + np.exp(1 - inputs[:, 0]))).astype(np.int8)
        weights = rng.uniform(0.5, 1.5, size=200)
        found = ridge.fit(inputs, labels, weights, Prior(np.zeros(5), np.full(5, 0.3)))
        expected = LogisticRegression(C=0.3, tol=1e-10, max_iter=1000).fit(inputs, labels, weights)
        assert np.allclose(found, [expected.intercept_[0], *expected.coef_[0]], atol=1e-5)

    def test_a_small_variance_draws_a_coefficient_to_its_mean(self) -> None:
        inputs, labels = np.random.default_rng(0).normal(size=(50, 2)), np.arange(50) % 2
        found = ridge.fit(inputs, labels, None, Prior(np.array([1.0, 0.5]), np.array([1e6, 1e-9])))
        assert found[2] == pytest.approx(0.5, abs=1e-6) != found[1]

    def test_patients_who_were_not_fitted_to_decide(self) -> None:
        rng = np.random.default_rng(1)
        inputs = rng.normal(size=(120, 20))
        labels = (inputs[:, 0] + 0.5 * rng.normal(size=120) > 0).astype(np.int8)
        priors = [Prior(np.zeros(20), np.full(20, variance)) for variance in (1e-6, 0.1, 1e6)]
        losses = ridge.cross_validated(inputs, labels, None, priors, seed=0)
        assert losses.argmin() == 1 and losses[0] == pytest.approx(np.log(2), abs=0.01)
        with pytest.raises(ValueError, match="two patients of either label"):
            ridge.cross_validated(inputs, np.zeros(120), None, priors, seed=0)


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_learn_a_planted_rule_and_never_see_test_labels(name: baselines.BaselineName) -> None:
    patients = planted()
    train, validation, test = (patients.rows(split) for split in (TRAIN, VALIDATION, TEST))
    result = baselines.fit(name, patients, train, validation, seed=0)
    assert measure(patients.labels[test], result.probabilities[test])["auroc"] > 0.8  # 0.9 is what can be had
    best = max(trial.validation_auroc for trial in result.trials)
    chosen = [trial.validation_auroc for trial in result.trials if trial.settings == result.settings]
    assert chosen == [best] and f"{len(result.trials)} settings" in result.budget

    labels = patients.labels.copy()
    labels[test] = 1 - labels[test]
    again = baselines.fit(name, replace(patients, labels=labels), train, validation, seed=0)
    assert np.array_equal(again.probabilities, result.probabilities)


def test_a_search_on_some_of_the_patients_ends_with_a_fit_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    patients = planted()
    train, validation, test = (patients.rows(split) for split in (TRAIN, VALIDATION, TEST))
    everyone = baselines.fit("logreg", patients, train, validation, seed=0)
    monkeypatch.setattr(baselines, "_SEARCH_PATIENTS", 100)
    monkeypatch.setitem(baselines._GRIDS, "logreg", [everyone.settings])
    searched = baselines.fit("logreg", patients, train, validation, seed=0)
    assert [trial.patients for trial in searched.trials] == [100]
    assert np.array_equal(searched.probabilities[test], everyone.probabilities[test])


def test_a_baseline_needs_both_classes() -> None:
    patients = planted(100)
    without = np.flatnonzero((patients.labels == 0) & (patients.splits == TRAIN))
    with pytest.raises(InputError, match=f"0 of {len(without)} training patients"):
        baselines.fit("logreg", patients, without, patients.rows(VALIDATION), seed=0)


def test_attributions_add_up_to_the_difference_in_logit() -> None:
    torch.manual_seed(0)
    patients, length, hidden = 6, 7, 8
    layers = torch.nn.Sequential(torch.nn.Linear(hidden, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1)).requires_grad_(
        False
    )
    layers[0].weight *= 6  # bent enough that few points do not do
    real = torch.arange(length) < torch.tensor([7, 5, 3, 2, 1, 6])[:, None]

    def logit_of(embedded: torch.Tensor, who: torch.Tensor) -> torch.Tensor:
        shown = embedded * real[who, :, None]
        return layers(shown.sum(dim=1) + shown.pow(2).sum(dim=1))[:, 0]

    embedded, baseline = torch.randn(patients, length, hidden), torch.zeros(patients, length, hidden)
    found = integrated_gradients(logit_of, embedded, baseline, real)
    assert found.complete.all() and (found.tokens[~real] == 0).all()
    sums = logit_of(embedded, torch.arange(patients)) - logit_of(baseline, torch.arange(patients))
    missed = (found.tokens.sum(dim=1) - sums).abs()
    assert (missed <= TOLERANCE * sums.abs() + 1e-3).all()
    assert len(set(found.steps.tolist())) > 1  # only who needs more points gets them
    coarse = integrated_gradients(logit_of, embedded, baseline, real, most_steps=8)
    assert not coarse.complete.all()  # and says so

    equal_steps = torch.zeros(patients)
    for at in (torch.arange(32) + 0.5) / 32:
        point = (at * embedded).requires_grad_()
        (gradient,) = torch.autograd.grad(logit_of(point, torch.arange(patients)).sum(), point)
        equal_steps += (gradient * embedded).sum(dim=(1, 2)) / 32
    sixteen = integrated_gradients(logit_of, embedded, baseline, real, most_steps=16)
    assert sixteen.gap.abs().median() < (equal_steps - sums).abs().median()  # with half the points


def test_attributions_by_code() -> None:
    rule, other = RULE, VOCABULARY.ids["I10"]
    found = by_code(
        np.array([rule, rule, other, rule, other]),
        np.array([1.0, 2.0, -0.5, 1.0, 0.5]),
        np.array([0, 0, 0, 1, 2]),
        VOCABULARY,
    )
    assert [(a.code, a.entity, a.patients, a.mean, a.mean_absolute) for a in found] == [
        ("E11.65", "icd", 2, 2.0, 2.0),
        ("I10", "icd", 2, 0.0, 0.5),
    ]


HOSTILE = '<script src="https://example.org/x.js">|'


def evaluated(patients: LabeledPatients, **more: object) -> Evaluation:
    """Return an evaluation of a model that knows much, the same with noise, and a guess."""
    rng = np.random.default_rng(0)
    known = 4 * patients.labels + rng.normal(size=len(patients)) + 3.0
    models = [
        ModelScores("fine-tuned", HOSTILE, known, "1 run"),
        ModelScores("noisy", "with noise", known + 0.3 * rng.normal(size=len(patients))),
        ModelScores("guess", "a guess", rng.normal(size=len(patients))),
    ]
    return assemble(patients, models, title=HOSTILE, resamples=100, **more)


def test_everything_is_measured_on_test_and_recalibrated_on_validation() -> None:
    patients = planted()
    results, probabilities = (found := evaluated(patients)).results, found.probabilities
    test = patients.rows(TEST)
    first = results.models[0]
    assert first.metrics["auroc"].value == measure(patients.labels[test], probabilities["fine-tuned"][test])["auroc"]
    assert first.metrics["calibration_error"].value < first.uncalibrated["calibration_error"] / 2
    assert first.metrics["auroc"].value == first.uncalibrated["auroc"]
    assert [(s.split, s.patients) for s in results.splits] == [
        (name, len(patients.rows(split))) for split, name in enumerate(("train", "validation", "test"))
    ]
    verdicts = {(d.difference.theirs, d.difference.metric): d.verdict for d in judged(results.differences, 50)}
    assert verdicts["guess", "auroc"] == BETTER
    brier = next(d for d in results.differences if d.theirs == "guess" and d.metric == "brier")
    assert brier.difference.value < 0 and verdicts["guess", "brier"] == BETTER  # less is more
    same = replace(brier, difference=replace(brier.difference, low=-0.1, high=0.1))
    assert [d.verdict for d in judged([same, brier], 50)] == [UNCLEAR, BETTER]
    assert {d.verdict for d in judged(results.differences, Count(1, 10))} == {TOO_FEW}

    labels = patients.labels.copy()
    labels[test] = 1 - labels[test]
    again = evaluated(replace(patients, labels=labels))
    assert again.results.models[2].calibration == results.models[2].calibration  # a guess does not read the labels


def test_the_report_is_whole_and_needs_nothing_but_itself(tmp_path: Path) -> None:
    curve = [CurvePoint("fine-tuned", n, seed, 0.7 + 0.01 * seed) for n in (100, 300) for seed in (0, 1)]
    attributions = [CodeAttribution("E11.65", "icd", 40, 1.5, 1.6), CodeAttribution("I10", "icd", 3, -0.2, 0.3)]
    attrition, facts = [(HOSTILE, 700)], [("task", HOSTILE)]
    results = evaluated(
        planted(), label_efficiency=curve, attributions=attributions, attrition=attrition, facts=facts, notes=[HOSTILE]
    ).results
    written = write_report(tmp_path / "report", results)
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == sorted(path.name for path in written)

    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    plots = [path for path in written if path.suffix == ".png"]
    assert len(plots) == 7 == page.count("<svg ")
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in plots)
    loaded = re.findall(r"""(?:src|href)\s*=\s*["']?(?!data:|#)([^"'> ]+)""", re.sub(r"&lt;.*?&gt;", "", page))
    assert loaded == [] and page.count("<script") == 1 and page.count("url(") == page.count("url(#")

    text = (tmp_path / "report" / "results.md").read_text(encoding="utf-8")
    assert all(f"]({path.name})" in text for path in plots)
    content = json.loads((tmp_path / "report" / "results.json").read_text(encoding="utf-8"))
    assert content["models"][0]["metrics"]["auroc"]["low"] > 0.5 and content["attrition"] == [[HOSTILE, 700]]
    json.dumps(content, allow_nan=False)
    for section in sections(results):
        for table in (*section.tables, *section.folded):
            assert all(len(row) == len(table.columns) for row in table.rows), section.key


def test_the_page_tells_which_models_were_recalibrated() -> None:
    patients = planted()
    logits = np.linspace(-1, 1, len(patients))
    fitted, other = (
        ModelScores("a", "the model", logits, calibration=calibration.Calibration()),
        ModelScores("b", "another", logits),
    )
    for models, recalibrate, told in (
        ([other], True, "in the same way for every model."),
        (
            [fitted, other],
            True,
            "in the same way for every model but the model, which was fitted to their labels as well.",
        ),
        ([fitted], False, "Nothing was recalibrated."),
    ):
        results = assemble(patients, models, title="", recalibrate=recalibrate, resamples=2).results
        assert [told in " ".join(one.text) for one in sections(results) if one.key in ("metrics", "calibration")] == [
            True
        ] * 2


def test_the_page_begins_with_what_was_found_and_tells_no_model_from_another_by_few_events(tmp_path: Path) -> None:
    results = evaluated(planted()).results
    assert [section.key for section in sections(results)][:3] == ["cohort", "metrics", "differences"]
    assert "better than a guess" in lead(results) and not any(isinstance(note, Caution) for note in notes(results))
    few = [replace(split, events=49) for split in results.splits]
    results = replace(results, splits=few, notes=["A note."])
    assert lead(results).endswith("49 with the outcome, too few to tell it from another model.")
    assert [isinstance(note, Caution) for note in notes(results)] == [True, False]
    page = write_report(tmp_path, results)[0].read_text(encoding="utf-8")
    assert page.count(">too few events<") == 6 + 1 and ">better<" not in page  # two models in three metrics, the legend


def test_a_report_without_any_event_still_says_what_it_can(tmp_path: Path) -> None:
    patients = planted(120)
    labels = patients.labels.copy()
    labels[patients.rows(TEST)] = 0
    results = evaluated(replace(patients, labels=labels)).results
    assert "auroc" not in results.models[0].metrics and results.models[0].series is None
    assert all(difference.metric in ("brier", "calibration_error") for difference in results.differences)
    page = write_report(tmp_path, results)[0].read_text(encoding="utf-8")
    assert "there is no ranking to measure" in page and list(tmp_path.glob("*.png")) == []


def few_at_a_time(n: int, share: float) -> LabeledPatients:
    """Return patients of whom so many have the outcome, men hardly ever."""
    patients = planted(n)
    rng = np.random.default_rng(1)
    labels = (rng.random(n) < share).astype(np.int8)
    labels[(patients.dataset.static_ids("sex") == patients.dataset.static_ids("sex").min()) & (rng.random(n) < 0.8)] = 0
    return replace(patients, labels=labels)


def test_shared_results_tell_nothing_of_few_patients(tmp_path: Path) -> None:
    patients, cells = few_at_a_time(1500, 0.1), MinCell(11)
    attrition = [("patients read", 1507), ("excluded: no event", 7), ("patients left", 1500)]
    attributions = [CodeAttribution("E11.65", "icd", 40, 1.5, 1.6), CodeAttribution("I10", "icd", 3, -0.2, 0.3)]
    whole = evaluated(patients, attrition=attrition, attributions=attributions)
    told = evaluated(patients, attrition=attrition, attributions=attributions, cells=cells)
    assert all((told.probabilities[name] == whole.probabilities[name]).all() for name in whole.probabilities)
    results, everything = told.results, whole.results
    assert [str(count) for _, count in results.attrition] == ["1,501 to 1,510", "<11", "1500"]
    assert [code.code for code in results.attributions] == ["E11.65"] and cells.note in results.notes
    assert results.models[0].metrics["auroc"] == everything.models[0].metrics["auroc"]

    hidden = 0
    for model, known in zip(results.models, everything.models, strict=True):
        for group, real in zip(model.groups, known.groups, strict=True):
            others = (as_count(group.patients) - as_count(group.events)), real.patients - real.events
            for count, number in ((as_count(group.events), real.events), others):
                assert count.low <= number <= count.high
                assert not (cells.hides(number) and count.is_exact), (group, real)
            few = cells.hides(real.events, real.patients - real.events)
            hidden += few
            assert (group.metrics == {}) == (few or real.metrics == {})
        for kind in {group.kind for group in model.groups}:
            inexact = [not as_count(group.events).is_exact for group in model.groups if group.kind == kind]
            assert sum(inexact) != 1, "it would be the total less the others"
        assert model.series is not None and known.series is not None
        for one in model.series.bins:
            assert min(round(one.observed * one.patients), round((1 - one.observed) * one.patients)) >= 11
        assert sum(one.patients for one in model.series.bins) == everything.splits[-1].patients
        assert len(model.series.roc) <= everything.splits[-1].patients // 11 + 1 < len(known.series.roc)
        assert all(count % 11 == 0 for _, count in model.series.histogram)
        assert len(model.series.net_benefit) < len(known.series.net_benefit)
        for name in SENSITIVITIES:
            hits = round(everything.splits[-1].events * known.metrics[name].value)
            assert (name in model.metrics) != cells.hides(hits, everything.splits[-1].events - hits)
    assert hidden
    written = write_report(tmp_path, results)
    assert len([path for path in written if path.suffix == ".png"]) == 6
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["attrition"][:2] == [["patients read", "1,501 to 1,510"], ["excluded: no event", "<11"]]
    assert "1,501 to 1,510" in written[0].read_text(encoding="utf-8")


def test_no_metric_of_a_handful_of_outcomes_is_shared(tmp_path: Path) -> None:
    patients = few_at_a_time(300, 0.12)
    results = evaluated(patients, label_efficiency=[CurvePoint("fine-tuned", 100, 0, 0.8)], cells=MinCell(11)).results
    assert 0 < patients.labels[patients.rows(TEST)].sum() < 11
    written = write_report(tmp_path, results)
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["splits"][-1]["events"] == "<11" and content["differences"] == content["label_efficiency"] == []
    assert [(model["metrics"], model["series"]) for model in content["models"]] == [({}, None)] * 3
    page = written[0].read_text(encoding="utf-8")
    assert "metrics are not shown" in page and not re.search(r"AUROC\D{0,20}\d\.\d", page)


def test_a_patient_whose_loss_is_low_was_trained_on() -> None:
    rng = np.random.default_rng(3)
    counts = np.array([2, 0, 1, 3])
    assert patient_losses(np.array([1.0, 3.0, 5.0, 6.0, 6.0, 9.0]), counts).tolist() == [2.0, 5.0, 7.0]
    same = [membership(rng.normal(size=200), rng.normal(size=200)) for _ in range(200)]
    covered = np.mean([one["membership_auc_low"] <= 0.5 <= one["membership_auc_high"] for one in same])
    assert 0.9 < covered < 0.99, "an interval of 95 %"
    remembered = membership(rng.normal(-2, size=200), rng.normal(size=200))
    assert remembered["membership_auc"] == pytest.approx(0.921, abs=0.03) and remembered["membership_auc_low"] > 0.85
    assert membership(np.zeros(5), np.ones(9))["membership_auc"] == 1.0
