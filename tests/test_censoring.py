"""Metrics of censored follow-up compared with torchsurv, with loops over the definitions, and with a known truth."""

import importlib
from types import ModuleType

import numpy as np
import pytest
import torch
from conftest import ROOT
from sklearn.metrics import average_precision_score, roc_auc_score
from torchsurv.metrics.auc import Auc
from torchsurv.metrics.brier_score import BrierScore
from torchsurv.metrics.cindex import ConcordanceIndex
from torchsurv.stats.ipcw import get_ipcw
from torchsurv.stats.kaplan_meier import KaplanMeierEstimator

from exmed_bert.cohorts.labeled import Timeline
from exmed_bert.cohorts.observation import NEVER
from exmed_bert.evaluation.bootstrap import PairedPredictions, mean_paired_differences, with_intervals
from exmed_bert.evaluation.censoring import CensoringCurve, HorizonOutcome
from exmed_bert.evaluation.concordance import Concordance, concordance
from exmed_bert.evaluation.follow_up import CENSORED, DEATH, OUTCOME, FollowUp
from exmed_bert.evaluation.incidence import calibration_bins, cumulative_incidence
from exmed_bert.evaluation.metrics import measure

HORIZON = 40


def followed(n: int = 120, seed: int = 0, deaths: bool = True, ties: bool = True) -> tuple[FollowUp, np.ndarray]:
    """Return follow-up in which a score says who has the outcome early, and the score as a risk."""
    rng = np.random.default_rng(seed)
    score = rng.normal(size=n)
    outcome = rng.exponential(60 * np.exp(-score))
    death = rng.exponential(80, n) if deaths else np.full(n, np.inf)
    end = rng.exponential(60, n)
    days = np.minimum(np.minimum(outcome, death), end)
    events = np.where(outcome == days, OUTCOME, np.where(death == days, DEATH, CENSORED))
    risk = 1 / (1 + np.exp(-score))
    return FollowUp(np.ceil(days / 4).astype(int) * 4 if ties else days, events), np.round(risk, 2) if ties else risk


def observed_by_hand(follow_up: FollowUp, day: float, drawn: np.ndarray) -> float:
    """Return the Kaplan-Meier probability of not being censored before a day, by its definition."""
    found = 1.0
    for own in np.unique(follow_up.days[follow_up.days < day]):
        lost = drawn[(follow_up.days == own) & (follow_up.events == CENSORED)].sum()
        stayed = drawn[follow_up.days > own].sum()
        found *= stayed / (stayed + lost) if stayed + lost else 1.0
    return found


@pytest.mark.parametrize(
    ("days", "events", "message"),
    [
        ([1, 2], [0], "shapes"),
        ([], [], "at least 1"),
        ([1, -2], [0, 1], "follow-up of -2 days"),
        ([1, np.nan], [0, 1], "follow-up of nan"),
        ([1, 2], [0, 3], "event 3"),
    ],
)
def test_bad_follow_up_is_named(days: list[float], events: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FollowUp(np.array(days), np.array(events))


def test_on_one_day_the_outcome_comes_first_and_censoring_last() -> None:
    days = np.full(4, 30)
    later = np.full(4, 99)
    found = FollowUp.between(
        np.full(4, 10),
        np.where([1, 0, 0, 1], days, later),
        np.where([1, 1, 1, 0], days, 20),
        np.where([1, 1, 0, 1], days, later),
    )
    assert found.days.tolist() == [20, 20, 20, 10]
    assert found.events.tolist() == [OUTCOME, DEATH, CENSORED, CENSORED]


def test_follow_up_of_a_cohort_is_what_followed_its_index_dates() -> None:
    start = np.array([100, 100, 100])
    timeline = Timeline(np.array([130, NEVER, NEVER]), np.array([190, 140, 160]), np.array([NEVER, 140, NEVER]))
    found = FollowUp.of(timeline, start)
    assert found.days.tolist() == [30, 40, 60] and found.events.tolist() == [OUTCOME, DEATH, CENSORED]
    with pytest.raises(ValueError, match="end of observation is not known"):
        FollowUp.of(Timeline.unknown(3), start)


class TestWeights:
    def test_they_are_those_of_the_definition_in_every_stratum_and_resample(self) -> None:
        follow_up, _ = followed()
        rng = np.random.default_rng(1)
        strata, drawn = rng.integers(3, size=len(follow_up)), rng.integers(3, size=(4, len(follow_up)))
        found = HorizonOutcome(follow_up, HORIZON, strata)
        weights = found.weights(drawn)
        for patient in range(len(follow_up)):
            same = strata == strata[patient]
            for resample in range(len(drawn)):
                day = min(follow_up.days[patient], HORIZON)
                observed = observed_by_hand(follow_up.take(same), day, drawn[resample, same])
                known = follow_up.events[patient] != CENSORED or follow_up.days[patient] >= HORIZON
                expected = drawn[resample, patient] / observed if known and drawn[resample, patient] else 0
                assert weights[resample, patient] == pytest.approx(expected)

    def test_they_are_torchsurvs(self) -> None:
        follow_up, _ = followed(deaths=False, ties=False)
        event, days = torch.tensor(follow_up.events == OUTCOME), torch.tensor(follow_up.days)
        kaplan_meier = KaplanMeierEstimator()
        kaplan_meier(event, days, censoring_dist=True)
        # Torchsurv's curve has fallen on the day itself already, ours on the day after: nobody is censored on a day
        # with an outcome, where times do not tie.
        cases = np.flatnonzero(follow_up.events == OUTCOME)
        curve = CensoringCurve(follow_up)
        own = curve.estimate(np.ones((1, len(follow_up))))[0, curve.places(follow_up.days)]
        assert own[cases] == pytest.approx(kaplan_meier.predict(days[cases]).numpy(), rel=1e-5)

    def test_those_who_are_known_stand_for_all(self) -> None:
        follow_up, _ = followed()
        found = HorizonOutcome(follow_up, HORIZON)
        assert found.weights().sum() == pytest.approx(len(follow_up))
        assert 1 < found.effective_patients < found.known.sum() and found.largest_weight > 1

    def test_who_is_censored_at_the_horizon_has_been_seen_to_the_end(self) -> None:
        follow_up = FollowUp(np.array([40, 40, 39, 10]), np.array([CENSORED, OUTCOME, CENSORED, DEATH]))
        found = HorizonOutcome(follow_up, 40)
        assert found.known.tolist() == [True, True, False, True]
        assert found.labels.tolist() == [0, 1, 0, 0]
        assert found.weights()[0] == pytest.approx([1.5, 1.5, 0, 1])

    def test_without_censoring_metrics_are_the_plain_ones(self) -> None:
        follow_up, risk = followed()
        whole = FollowUp(np.where(follow_up.events == CENSORED, 99, follow_up.days), follow_up.events)
        outcome = HorizonOutcome(whole, HORIZON)
        assert measure(outcome.labels, risk, outcome.weights()) == pytest.approx(measure(outcome.labels, risk))


class TestMetricsAtAHorizon:
    def test_they_are_scikit_learns_with_these_weights(self) -> None:
        follow_up, risk = followed()
        outcome = HorizonOutcome(follow_up, HORIZON)
        weights = outcome.weights()[0]
        found = measure(outcome.labels, risk, weights)
        assert found["auroc"] == pytest.approx(roc_auc_score(outcome.labels, risk, sample_weight=weights))
        expected = average_precision_score(outcome.labels, risk, sample_weight=weights)
        assert found["auprc"] == pytest.approx(expected)

    def test_auroc_and_brier_score_are_torchsurvs(self) -> None:
        follow_up, risk = followed(400, deaths=False, ties=False)
        event, days = torch.tensor(follow_up.events == OUTCOME), torch.tensor(follow_up.days, dtype=torch.float64)
        at = torch.tensor([HORIZON], dtype=torch.float64)
        outcome = HorizonOutcome(follow_up, HORIZON)
        found = measure(outcome.labels, risk, outcome.weights())
        weight, weight_at = get_ipcw(event, days), get_ipcw(event, days, new_time=at)
        auc = Auc()(torch.tensor(risk), event, days, weight=weight, new_time=at, weight_new_time=weight_at)
        assert found["auroc"] == pytest.approx(float(auc), abs=1e-5)
        survival = torch.tensor(1 - risk)[:, None]
        brier = BrierScore()(survival, event, days, new_time=at, weight=weight, weight_new_time=weight_at)
        assert found["brier"] == pytest.approx(float(brier), abs=1e-5)

    def test_a_resample_is_the_same_as_so_many_copies(self) -> None:
        follow_up, risk = followed()
        drawn = np.random.default_rng(2).multinomial(len(risk), np.full(len(risk), 1 / len(risk)))
        copies = np.repeat(np.arange(len(risk)), drawn)
        outcome = HorizonOutcome(follow_up, HORIZON)
        names = {"auroc", "auprc", "brier", "calibration_slope", "calibration_intercept"}
        found = measure(outcome.labels, risk, outcome.weights(drawn[None]))
        twice = outcome.take(copies)
        expected = measure(twice.labels, risk[copies], twice.weights())
        assert {name: found[name] for name in names} == pytest.approx({name: expected[name] for name in names})

    def test_intervals_and_differences_take_the_weights(self) -> None:
        follow_up, risk = followed(300)
        outcome = HorizonOutcome(follow_up, HORIZON)
        found = with_intervals(outcome.labels, risk, resamples=100, weigh=outcome.weights)
        value = measure(outcome.labels, risk, outcome.weights())
        assert {name: estimate.value for name, estimate in found.items()} == pytest.approx(value)
        assert found["auroc"].low < value["auroc"] < found["auroc"].high
        noise = np.random.default_rng(0).random(len(risk))
        both = PairedPredictions(outcome.labels, risk, noise, weigh=outcome.weights)
        difference = mean_paired_differences([both], ("auroc",), 100)["auroc"]
        other = measure(outcome.labels, noise, outcome.weights())["auroc"]
        assert difference.value == pytest.approx(value["auroc"] - other) and difference.excludes_zero


class TestIncidence:
    def test_it_is_that_of_the_definition(self) -> None:
        follow_up, _ = followed()
        drawn = np.random.default_rng(1).integers(1, 3, size=(2, len(follow_up)))
        found = cumulative_incidence(follow_up, drawn)
        for resample, weights in enumerate(drawn):
            free, outcome, death = 1.0, 0.0, 0.0
            for place, day in enumerate(found.days):
                at_risk = weights[follow_up.days >= day].sum()
                counts = [weights[(follow_up.days == day) & (follow_up.events == e)].sum() for e in (OUTCOME, DEATH)]
                outcome, death = outcome + free * counts[0] / at_risk, death + free * counts[1] / at_risk
                free *= 1 - sum(counts) / at_risk
                assert found.outcome[resample, place] == pytest.approx(outcome)
                assert found.death[resample, place] == pytest.approx(death)

    def test_without_death_it_is_one_minus_torchsurvs_survival(self) -> None:
        follow_up, _ = followed(deaths=False)
        kaplan_meier = KaplanMeierEstimator()
        event, days = torch.tensor(follow_up.events == OUTCOME), torch.tensor(follow_up.days, dtype=torch.float64)
        kaplan_meier(event, days)
        at = np.array([8.0, 20.0, 40.0])
        expected = 1 - kaplan_meier.predict(torch.tensor(at)).numpy()
        assert cumulative_incidence(follow_up).by(at)[0] == pytest.approx(expected, abs=1e-5)

    def test_it_is_the_mean_of_the_weighted_labels(self) -> None:
        follow_up, _ = followed()
        outcome = HorizonOutcome(follow_up, HORIZON)
        expected = (outcome.weights() @ outcome.labels) / len(follow_up)
        assert cumulative_incidence(follow_up).by(HORIZON)[0] == pytest.approx(expected)

    def test_its_variance_is_binomial_without_censoring_and_that_of_resamples_with(self) -> None:
        follow_up, _ = followed(400)
        whole = FollowUp(np.where(follow_up.events == CENSORED, 999, follow_up.days), follow_up.events)
        found = cumulative_incidence(whole)
        place = np.searchsorted(found.days, HORIZON)
        share = found.outcome[0, place]
        assert found.variance[0, place] == pytest.approx(share * (1 - share) / 400)
        drawn = np.random.default_rng(0).multinomial(400, np.full(400, 1 / 400), size=1000)
        resampled = cumulative_incidence(follow_up, drawn).by(HORIZON)
        found = cumulative_incidence(follow_up)
        assert found.variance[0, place] == pytest.approx(resampled.var(), rel=0.15)
        low, high = found.interval(HORIZON)
        assert np.concatenate((low, high)).ravel() == pytest.approx(np.quantile(resampled, [0.025, 0.975]), abs=0.01)

    def test_bins_of_calibration(self) -> None:
        follow_up, risk = followed(500)
        bins = calibration_bins(follow_up, risk, HORIZON)
        assert len(bins) == 10 and sum(one.patients for one in bins) == 500
        assert all(one.low < one.observed < one.high for one in bins if one.low is not None and one.high is not None)
        assert [one.predicted for one in bins] == sorted(one.predicted for one in bins)
        assert bins[-1].observed > bins[0].observed + 0.3

    def test_nothing_has_happened_yet(self) -> None:
        found = cumulative_incidence(FollowUp(np.array([3, 5]), np.array([CENSORED, CENSORED])))
        assert found.by([1, 4, 9]).tolist() == [[0, 0, 0]]
        assert np.isnan(found.interval(4)).all()


def concordance_by_hand(
    follow_up: FollowUp, scores: np.ndarray, horizon: float, drawn: np.ndarray, strata: np.ndarray
) -> float:
    """Return the concordance as a sum over all pairs."""
    right = total = 0.0

    def observed(patient: int, day: float) -> float:
        same = strata == strata[patient]
        return observed_by_hand(follow_up.take(same), day, drawn[same])

    for i in np.flatnonzero((follow_up.events == OUTCOME) & (follow_up.days <= horizon) & (drawn > 0)):
        for j in np.flatnonzero(drawn):
            later = follow_up.days[j] > follow_up.days[i]
            if later or (follow_up.days[j] == follow_up.days[i] and follow_up.events[j] != OUTCOME):
                weight = 1 / (observed(i, follow_up.days[i]) * observed(j, follow_up.days[i]))
            elif follow_up.events[j] == DEATH:
                weight = 1 / (observed(i, follow_up.days[i]) * observed(j, follow_up.days[j]))
            else:
                continue
            weight *= drawn[i] * drawn[j]
            total += weight
            right += weight * ((scores[j] < scores[i]) + (scores[j] == scores[i]) / 2)
    return right / total


class TestConcordance:
    @pytest.mark.parametrize("deaths", [False, True])
    @pytest.mark.parametrize("ties", [False, True])
    def test_it_is_that_of_all_pairs(self, deaths: bool, ties: bool) -> None:
        follow_up, risk = followed(50, deaths=deaths, ties=ties)
        rng = np.random.default_rng(1)
        drawn, strata = rng.integers(3, size=(3, len(risk))), rng.integers(2, size=len(risk))
        found = Concordance(follow_up, risk, HORIZON, strata).values(drawn)
        expected = [concordance_by_hand(follow_up, risk, HORIZON, own, strata) for own in drawn]
        assert found == pytest.approx(expected)

    def test_it_is_torchsurvs(self) -> None:
        follow_up, risk = followed(200, deaths=False, ties=False)
        event, days = torch.tensor(follow_up.events == OUTCOME), torch.tensor(follow_up.days, dtype=torch.float32)
        weight = get_ipcw(event, days)
        expected = ConcordanceIndex()(torch.tensor(risk), event, days, weight=weight, tmax=torch.tensor(HORIZON))
        assert concordance(follow_up, risk, HORIZON) == pytest.approx(float(expected), abs=1e-5)

    def test_it_is_undefined_without_a_case(self) -> None:
        assert concordance(FollowUp(np.array([3, 5]), np.array([CENSORED, DEATH])), np.array([0.1, 0.2]), 9) is None
        with pytest.raises(ValueError, match="finite"):
            concordance(FollowUp(np.array([3, 5]), np.array([0, 1])), np.array([0.1, np.nan]), 9)


class TestTruth:
    """What benchmarks/censoring.py does, with fewer and smaller cohorts."""

    @pytest.fixture(scope="class")
    def simulation(self) -> ModuleType:
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(ROOT / "benchmarks")
            return importlib.import_module("censoring")

    @pytest.mark.parametrize("kind", ["alike", "by stratum"])
    def test_weighted_estimates_find_it_and_those_without_the_censored_do_not(
        self, simulation: ModuleType, kind: str
    ) -> None:
        true = simulation.truth(kind, 300_000)
        arms = simulation.repeat(kind, true, cohorts=100, n=600, resamples=40)
        for name in simulation.NAMES:
            assert arms["weighted"].coverage(name) >= 0.9, name
            error, of_error = arms["weighted"].bias(name)
            assert abs(error) < 4 * of_error, name
        for name in ("brier", "calibration_intercept", "incidence"):
            assert arms["dropped"].coverage(name) < 0.7, name
            error, of_error = arms["dropped"].bias(name)
            assert error > 10 * of_error, name
        assert arms["dropped"].bias("incidence")[0] > 0.08  # of 0.33
        if kind == "by stratum":
            error, of_error = arms["weighted without strata"].bias("incidence")
            assert error < -4 * of_error
