"""Piecewise-exponential hazards against integrals, simulations and rates that are known."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from exmed_bert.models.hazards import HazardBins, cumulative_incidence, log_likelihood, log_rates

BINS = HazardBins((30.0, 90.0, 365.0))
OUTCOME = np.array([0.002, 0.0005, 0.001, 0.003])  # per day, by bin
DEATH = np.array([0.0001, 0.0007, 0.0002, 0.0004])
HORIZONS = (1.0, 30.0, 45.0, 180.0, 365.0, 1000.0)


def hazard(rates: np.ndarray, day: float) -> float:
    """Return a hazard on a day, by looking through the bins one after another."""
    for end, rate in zip(BINS.ends, rates, strict=False):
        if day <= end:
            return float(rate)
    return float(rates[-1])


def integral(function: Callable[[float], float], end: float) -> float:
    """Integrate from 0, with the breaks between bins told."""
    breaks = [at for at in BINS.ends if at < end]
    return quad(function, 0, end, points=breaks or None, limit=200)[0]


def logs(*rates: np.ndarray) -> torch.Tensor:
    """Return log hazards of causes, (C, K)."""
    return torch.tensor(np.log(np.stack(rates)))


@pytest.mark.parametrize("day", [1, 30, 31, 90, 200, 365, 366, 900])
@pytest.mark.parametrize("happened", [True, False])
def test_the_likelihood_is_that_of_the_continuous_hazard(day: int, happened: bool) -> None:
    days = torch.tensor([day])
    found = log_likelihood(logs(OUTCOME), BINS.exposure(days.double()), BINS.of(days), torch.tensor([happened]))
    expected = -integral(lambda at: hazard(OUTCOME, at), day)
    expected += np.log(hazard(OUTCOME, day)) if happened else 0
    assert float(found[0]) == pytest.approx(expected, rel=1e-9)


def test_the_cumulative_incidence_is_that_of_the_continuous_hazards() -> None:
    found = cumulative_incidence(logs(OUTCOME, DEATH), BINS, torch.tensor(HORIZONS))

    def density(own: np.ndarray) -> Callable[[float], float]:
        def of_day(at: float) -> float:
            free = np.exp(-integral(lambda day: hazard(OUTCOME, day) + hazard(DEATH, day), at))
            return hazard(own, at) * free

        return of_day

    for cause, own in enumerate((OUTCOME, DEATH)):
        expected = [integral(density(own), horizon) for horizon in HORIZONS]
        np.testing.assert_allclose(found[cause], expected, rtol=1e-6)


def test_one_cause_alone_gives_one_minus_its_survival() -> None:
    found = cumulative_incidence(logs(OUTCOME), BINS, torch.tensor(HORIZONS))
    expected = [1 - np.exp(-integral(lambda at: hazard(OUTCOME, at), horizon)) for horizon in HORIZONS]
    np.testing.assert_allclose(found[0], expected, rtol=1e-9)


def test_incidences_keep_their_precision_where_hazards_vanish() -> None:
    rates = torch.full((2, len(BINS)), -60.0)
    found = cumulative_incidence(rates, BINS, torch.tensor([10.0, 500.0]))
    np.testing.assert_allclose(found, np.exp(-60.0) * np.array([[10.0, 500.0]] * 2), rtol=1e-4)


def test_gradients_are_finite_at_all_hazards() -> None:
    rates = torch.linspace(-80, 10, 8).view(2, 4).requires_grad_()
    cumulative_incidence(rates, BINS, torch.tensor(HORIZONS)).sum().backward()
    assert rates.grad is not None and torch.isfinite(rates.grad).all()


def test_the_likelihood_is_highest_at_the_rates_that_were_drawn_from() -> None:
    """Days drawn by inversion of the cumulative hazard, some of them censored."""
    generator = np.random.default_rng(0)
    size = 200_000
    grid = np.arange(0, 3001)
    cumulative = np.concatenate(([0.0], np.cumsum([hazard(OUTCOME, day) for day in grid[1:]])))
    days = np.interp(generator.exponential(size=size), cumulative, grid)
    end = generator.uniform(1, 1500, size)
    happened = torch.from_numpy(days <= end)
    until = torch.from_numpy(np.minimum(days, end))
    exposure, bins = BINS.exposure(until), BINS.of(until)
    events = torch.bincount(bins[happened], minlength=len(BINS))
    found = log_rates(events, exposure.sum(dim=0))
    np.testing.assert_allclose(found.exp(), OUTCOME, atol=4 * np.max(OUTCOME / np.sqrt(events.numpy())))
    best = log_likelihood(found.double().expand(size, -1), exposure, bins, happened).sum()
    for bin_ in range(len(BINS)):
        for step in (-0.05, 0.05):
            other = found.double().clone()
            other[bin_] += step
            assert log_likelihood(other.expand(size, -1), exposure, bins, happened).sum() < best


def test_a_day_at_an_end_is_of_the_bin_that_ends_there() -> None:
    days = torch.tensor([0, 1, 30, 31, 90, 365, 366, 10_000])
    assert BINS.of(days).tolist() == [0, 0, 0, 1, 1, 2, 3, 3]
    np.testing.assert_array_equal(BINS.exposure(days).sum(dim=1), days)
    assert BINS.exposure(torch.tensor([100])).tolist() == [[30, 60, 10, 0]]


def test_bins_end_with_the_follow_up() -> None:
    assert HazardBins.cut_to(400).ends == (30, 90, 180, 365)
    assert HazardBins.cut_to(365).ends == (30, 90, 180)
    assert len(HazardBins.cut_to(10)) == 1


def test_ends_that_do_not_rise_are_refused() -> None:
    with pytest.raises(ValueError, match="expected days above 0 that rise"):
        HazardBins((30.0, 30.0))
