"""Intervals against the values published with them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.evaluate.intervals import bootstrap, difference, effective_size, ratio, wilson


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_equals_the_table_of_newcombe_1998(successes: int, trials: int, low: float, high: float) -> None:
    bounds = wilson(np.float64(successes / trials), np.float64(trials))
    assert bounds == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((6, 7), (2, 7), 0.0582, 0.8062),
        ((5, 56), (0, 29), -0.0381, 0.1926),
    ],
)
def test_differences_equal_method_10_of_newcombe_1998(
    first: tuple[int, int], second: tuple[int, int], low: float, high: float
) -> None:
    rates = [successes / trials for successes, trials in (first, second)]
    bounds = [tuple(map(float, wilson(np.float64(s / n), np.float64(n)))) for s, n in (first, second)]
    found = difference(rates[0], bounds[0], rates[1], bounds[1])
    assert found == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_ratios_of_large_samples_agree_with_the_delta_method_on_the_logarithm() -> None:
    (a, n), (b, m) = (3000, 10_000), (4000, 10_000)
    bounds = [tuple(map(float, wilson(np.float64(s / t), np.float64(t)))) for s, t in ((a, n), (b, m))]
    low, high = ratio(a / n, bounds[0], b / m, bounds[1])
    spread = 1.959964 * math.sqrt(1 / a - 1 / n + 1 / b - 1 / m)
    assert low == pytest.approx(0.75 * math.exp(-spread), rel=1e-3)
    assert high == pytest.approx(0.75 * math.exp(spread), rel=1e-3)


def test_a_ratio_to_a_rate_that_may_be_zero_has_no_upper_bound() -> None:
    low, high = ratio(0.5, (0.4, 0.6), 0.1, (0.0, 0.2))
    assert low > 0
    assert high == math.inf


@given(successes=st.integers(0, 500), more=st.integers(0, 500))
def test_a_wilson_interval_contains_its_rate_and_stays_between_0_and_1(successes: int, more: int) -> None:
    trials = successes + more
    if trials == 0:
        assert all(math.isnan(float(bound)) for bound in wilson(np.float64(np.nan), np.float64(0)))
        return
    rate = successes / trials
    low, high = wilson(np.float64(rate), np.float64(trials))
    assert 0 <= low <= rate <= high <= 1


def test_equal_weights_of_any_size_leave_the_sample_size_as_it_is() -> None:
    weights = np.full(50, 3.7)
    assert effective_size(weights.sum(), (weights**2).sum()) == pytest.approx(50)
    assert effective_size(np.float64(0), np.float64(0)) == 0


def test_bootstrap_intervals_use_the_replicates_spread_and_respect_the_range() -> None:
    replicates = np.asarray([[0.8, 0.97], [0.9, 0.99], [1.0, 1.01], [0.9, 0.99]])
    low, high = bootstrap(np.asarray([0.9, 0.99]), replicates, (0.0, 1.0))
    half = 3.182446 * replicates.std(0, ddof=1)  # Student's t with 3 degrees of freedom
    assert low == pytest.approx(np.asarray([0.9, 0.99]) - half)
    assert high == pytest.approx([1.0, 1.0])


def test_a_metric_that_most_replicates_do_not_define_has_no_interval() -> None:
    low, high = bootstrap(np.asarray([0.5]), np.asarray([[np.nan], [np.nan], [0.5]]))
    assert np.isnan(low).all()
    assert np.isnan(high).all()
