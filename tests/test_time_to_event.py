"""Cox's regression compared with torchsurv, risks with death competing, metrics over time, and the baselines."""

import numpy as np
import pytest
import torch
from test_censoring import followed
from test_evaluation import RULE, planted
from torchsurv.loss.cox import neg_partial_log_likelihood

from exmed_bert.cohorts.labeled import TEST, TRAIN, VALIDATION, LabeledPatients
from exmed_bert.console import InputError
from exmed_bert.evaluation import calibration, survival_baselines
from exmed_bert.evaluation.assemble import ModelScores, assemble
from exmed_bert.evaluation.bootstrap import with_intervals
from exmed_bert.evaluation.censoring import HorizonOutcome
from exmed_bert.evaluation.concordance import concordance
from exmed_bert.evaluation.cox import Baseline, Hazards, PartialLikelihood, fit_cox, risks
from exmed_bert.evaluation.follow_up import CENSORED, DEATH, OUTCOME, FollowUp
from exmed_bert.evaluation.incidence import cumulative_incidence
from exmed_bert.evaluation.metrics import logit, measure, sigmoid
from exmed_bert.evaluation.results import Results
from exmed_bert.evaluation.time_to_event import (
    RisksOverTime,
    differences_over_time,
    incidence_beside_models,
    measure_over_time,
    recalibrate_over_time,
)

HORIZONS = (20.0, 40.0, 60.0)


class TestCox:
    @pytest.mark.parametrize("ties", [False, True])
    def test_its_loss_and_gradient_are_torchsurvs(self, ties: bool) -> None:
        follow_up, _ = followed(150, ties=ties)
        scores = np.random.default_rng(1).normal(size=150)
        value, gradient = PartialLikelihood(follow_up).loss(scores)
        given = torch.tensor(scores, requires_grad=True)
        event, days = torch.tensor(follow_up.events == OUTCOME), torch.tensor(follow_up.days, dtype=torch.float64)
        expected = neg_partial_log_likelihood(given, event, days, ties_method="efron", reduction="sum").sum()
        expected.backward()
        assert value == pytest.approx(float(expected.detach()))
        assert given.grad is not None
        assert gradient == pytest.approx(given.grad.numpy())

    def test_it_finds_planted_coefficients_and_the_penalty_shrinks_them(self) -> None:
        rng = np.random.default_rng(0)
        x, planted_coefficients = rng.normal(size=(4000, 3)), np.array([1.0, -0.5, 0.0])
        days = rng.exponential(np.exp(-x @ planted_coefficients))
        end = rng.exponential(1.5, 4000)
        follow_up = FollowUp(np.minimum(days, end), np.where(days <= end, OUTCOME, CENSORED))
        assert fit_cox(x, follow_up, 100.0) == pytest.approx(planted_coefficients, abs=0.08)
        assert np.abs(fit_cox(x, follow_up, 1e-4)).max() < 0.3
        own = Baseline.of(follow_up, x @ planted_coefficients)
        assert own.cumulative(np.array([0.5, 1.0])) == pytest.approx([0.5, 1.0], rel=0.1)

    def test_without_columns_risks_are_the_cumulative_incidence(self) -> None:
        follow_up, _ = followed(3000, ties=False)
        nobody = np.zeros(len(follow_up))
        outcome = Hazards(nobody, Baseline.of(follow_up, nobody))
        death = Hazards(nobody, Baseline.of(follow_up, nobody, DEATH))
        expected = cumulative_incidence(follow_up).by(np.array(HORIZONS))[0]
        assert risks(outcome, death, HORIZONS)[0] == pytest.approx(expected, abs=2e-3)
        assert (risks(outcome, None, HORIZONS)[0] > expected + 0.02).all()


class TestMetricsOverTime:
    def test_they_are_those_at_each_horizon(self) -> None:
        follow_up, risk = followed(300)
        over_time = np.stack([risk * share for share in (0.5, 0.7, 0.9)], axis=1)
        found = measure_over_time(follow_up, over_time, HORIZONS, resamples=50)
        assert found.concordance is not None
        assert found.concordance.value == concordance(follow_up, risk, 60)
        assert found.concordance.low < found.concordance.value < found.concordance.high
        for i, own in enumerate(found.horizons):
            outcome = RisksOverTime(follow_up, over_time, HORIZONS).outcomes[i]
            expected = with_intervals(
                outcome.labels, over_time[:, i], resamples=50, names=own.metrics, weigh=outcome.weights
            )
            assert own.metrics == expected and set(own.metrics) >= {"auroc", "brier", "calibration_slope"}
            assert own.incidence.low < own.incidence.value < own.incidence.high
            assert own.patients == outcome.known.sum() and own.predicted == pytest.approx(over_time[:, i].mean())
            assert sum(one.patients for one in own.bins) == 300

    def test_recalibration_undoes_what_is_wrong_at_all_horizons(self) -> None:
        follow_up, risk = followed(3000, ties=False)
        outcomes = [HorizonOutcome(follow_up, horizon) for horizon in HORIZONS]
        right = [calibration.fit(own.labels, logit(risk), own.weights()[0]).apply(logit(risk)) for own in outcomes]
        over_time = sigmoid(2.5 * np.stack(right, axis=1) - 1.2)
        raw = measure_over_time(follow_up, over_time, HORIZONS, resamples=0)
        found = recalibrate_over_time(follow_up, over_time, HORIZONS)
        after = found.probabilities(logit(over_time))
        assert (np.diff(after, axis=1) >= 0).all()
        for before, own in zip(
            raw.horizons, measure_over_time(follow_up, after, HORIZONS, resamples=0).horizons, strict=True
        ):
            assert own.metrics["calibration_slope"].value == pytest.approx(1, abs=0.01)
            assert own.metrics["calibration_intercept"].value == pytest.approx(0, abs=0.01)
            assert own.predicted == pytest.approx(own.incidence.value, abs=0.005)
            assert own.metrics["brier"].value < before.metrics["brier"].value

    def test_differences_are_paired(self) -> None:
        follow_up, risk = followed(300)
        ours = np.stack([risk] * 3, axis=1)
        theirs = np.stack([np.random.default_rng(0).random(300)] * 3, axis=1)
        found = differences_over_time(follow_up, ours, theirs, HORIZONS, resamples=50)
        assert found["concordance"].excludes_zero and found["auroc_40"].value > 0.1 and found["brier_40"].value < 0
        same = differences_over_time(follow_up, ours, ours, HORIZONS, resamples=20)
        assert all(one.value == 0 and one.interval in (None, (0, 0)) for one in same.values())

    def test_incidence_stands_beside_what_models_predict(self) -> None:
        follow_up, risk = followed(300)
        points = incidence_beside_models(follow_up, {"ours": np.stack([risk / 2, risk], axis=1)}, (20, 40))
        assert [one.day for one in points] == [20, 40]
        assert points[0].observed.value < points[1].observed.value and points[0].death < points[1].death
        assert points[1].predicted["ours"] == pytest.approx(risk.mean())

    @pytest.mark.parametrize(
        ("shape", "horizons", "message"),
        [((120, 1), HORIZONS, "shape"), ((120, 2), (40, 20), "rise"), ((120, 2), (0, 20), "rise")],
    )
    def test_bad_risks_are_named(self, shape: tuple[int, int], horizons: tuple[float, ...], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            RisksOverTime(followed()[0], np.full(shape, 0.5), horizons)


def hazards_of(patients: LabeledPatients) -> FollowUp:
    """Return follow-up in which whoever has the code of the rule has the outcome early."""
    offsets = patients.dataset.columns["offsets"].numpy()
    has = np.add.reduceat(patients.dataset.columns["codes"].numpy() == RULE, offsets[:-1]) > 0
    rng = np.random.default_rng(0)
    outcome, death = rng.exponential(np.where(has, 30, 300)), rng.exponential(300, len(has))
    end = rng.exponential(100, len(has))
    days = np.minimum(np.minimum(outcome, death), end)
    events = np.where(outcome == days, OUTCOME, np.where(death == days, DEATH, CENSORED))
    return FollowUp(np.ceil(days), events)


class TestReport:
    """The report of a binary task some of whose patients are censored."""

    @staticmethod
    def results(patients: LabeledPatients, outcome: HorizonOutcome | None) -> Results:
        score = 4 * patients.labels + np.random.default_rng(0).normal(size=len(patients)) - 2
        return assemble(patients, [ModelScores("ours", "ours", score)], title="", outcome=outcome, resamples=20).results

    def test_without_censoring_it_is_the_plain_one(self) -> None:
        patients = planted()
        everyone = FollowUp(np.full(len(patients), 40), patients.labels)  # the others are observed to the horizon
        plain, weighted = self.results(patients, None), self.results(patients, HorizonOutcome(everyone, 40))
        ours, theirs = plain.models[0], weighted.models[0]
        assert ours.series is not None and theirs.series is not None
        assert {name: e.value for name, e in theirs.metrics.items()} == pytest.approx(
            {name: e.value for name, e in ours.metrics.items()}
        )
        assert [group.metrics.keys() for group in theirs.groups] == [group.metrics.keys() for group in ours.groups]
        assert theirs.by_chance == pytest.approx(ours.by_chance) and theirs.calibration == ours.calibration
        assert [b.observed for b in theirs.series.bins] == pytest.approx([b.observed for b in ours.series.bins])
        assert np.array(theirs.series.net_benefit) == pytest.approx(np.array(ours.series.net_benefit))

    def test_the_censored_count_through_those_who_stay(self) -> None:
        patients = planted()
        outcome = HorizonOutcome(hazards_of(patients), 60)
        test, validation = patients.rows(TEST), patients.rows(VALIDATION)
        results = self.results(patients, outcome)
        own, censored = results.models[0], int((~outcome.take(test).known).sum())
        assert results.notes[0].startswith(f"{censored} test patients are censored before the end of 60 days.")
        score = 4 * patients.labels + np.random.default_rng(0).normal(size=len(patients)) - 2
        fitted = calibration.fit(outcome.labels[validation], score[validation], outcome.take(validation).weights()[0])
        assert own.calibration == fitted
        expected = measure(outcome.labels[test], fitted.probabilities(score[test]), outcome.take(test).weights())
        assert {name: e.value for name, e in own.metrics.items()} == pytest.approx(expected)
        assert own.series is not None and sum(one.patients for one in own.series.bins) == len(test)


@pytest.mark.parametrize("name", survival_baselines.LABELS)
def test_baselines_learn_a_planted_rule_and_never_see_the_follow_up_of_test_patients(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = survival_baselines._GRIDS[name]
    monkeypatch.setitem(survival_baselines._GRIDS, name, [grid[0], grid[-1]])
    patients = planted()
    follow_up = hazards_of(patients)
    train, validation, test = (patients.rows(split) for split in (TRAIN, VALIDATION, TEST))
    found = survival_baselines.fit(name, patients, follow_up, HORIZONS, train, validation, 0)
    reached = concordance(follow_up.take(test), found.risks[test, -1], 60)
    assert reached is not None and reached > 0.65 and len(found.trials) == 2
    assert (np.diff(found.risks, axis=1) >= 0).all() and (found.risks >= 0).all() and (found.risks <= 1).all()
    observed = cumulative_incidence(follow_up.take(train)).by(np.array(HORIZONS))[0]
    assert found.risks[train].mean(axis=0) == pytest.approx(observed, abs=0.05)
    if name == "cox":  # which learns from a column that tells the day of the outcome
        told = np.where(follow_up.events == OUTCOME, -np.log(follow_up.days), -6.0)
        better = survival_baselines.fit(name, patients, follow_up, HORIZONS, train, validation, 0, told)
        assert better.name == "cox_answer"
        assert concordance(follow_up.take(test), better.risks[test, -1], 60) > 0.9
    changed = FollowUp(follow_up.days.copy(), follow_up.events.copy())
    changed.days[test], changed.events[test] = 1, OUTCOME
    again = survival_baselines.fit(name, patients, changed, HORIZONS, train, validation, 0)
    assert (again.risks == found.risks).all()


def test_a_survival_baseline_needs_an_outcome() -> None:
    patients = planted()
    nobody = FollowUp(np.full(len(patients), 90), np.full(len(patients), CENSORED))
    with pytest.raises(InputError, match=r"none of \d+ training patients has the outcome within 60 days"):
        survival_baselines.fit("cox", patients, nobody, HORIZONS, patients.rows(TRAIN), patients.rows(VALIDATION), 0)
