"""Fairness metrics against tables worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.evaluate.binary import MOMENTS
from tidemill.evaluate.fairness import Group, disparities, groups


def make_groups(*tables: tuple[int, int, int, int], weight: float = 1.0) -> list[Group]:
    """Groups from (tp, fp, fn, tn), every row of the same weight."""
    moments = {name: np.zeros(len(tables)) for name in MOMENTS}
    for i, (tp, fp, fn, tn) in enumerate(tables):
        total = tp + fp + fn + tn
        for name, value in zip(("tp", "fp", "fn", "tn"), (tp, fp, fn, tn), strict=True):
            moments[name][i] = value * weight
        moments["count"][i], moments["weight"][i] = total, total * weight
        moments["weight2"][i] = total * weight**2
        moments["positive_weight2"][i] = (tp + fn) * weight**2
        moments["selected_weight2"][i] = (tp + fp) * weight**2
    return groups(moments, [{"sex": str(i)} for i in range(len(tables))], range(len(tables)))


MEN, WOMEN = (60, 10, 20, 110), (20, 10, 20, 50)  # selected 70/200 and 30/100


def test_rates_of_a_group() -> None:
    men = make_groups(MEN, WOMEN)[0]
    assert men.count == 200
    expected = {"selection_rate": 70 / 200, "tpr": 60 / 80, "fpr": 10 / 120, "fnr": 20 / 80, "ppv": 60 / 70}
    assert {name: rate.value for name, rate in men.rates.items()} == pytest.approx(expected)
    sizes = {"selection_rate": 200, "tpr": 80, "fpr": 120, "fnr": 80, "ppv": 70}
    assert {name: rate.size for name, rate in men.rates.items()} == pytest.approx(sizes)
    # Wilson, 60 of 80
    assert men.rates["tpr"].interval == (pytest.approx(0.6453, abs=5e-4), pytest.approx(0.8319, abs=5e-4))


def test_gaps_and_ratios_of_two_groups() -> None:
    found = disparities(make_groups(MEN, WOMEN), min_examples=50)
    expected = {
        "demographic_parity_gap": 0.35 - 0.30,
        "demographic_parity_ratio": 0.30 / 0.35,
        "equal_opportunity_gap": 0.75 - 0.5,
        "equal_opportunity_ratio": 0.5 / 0.75,
        "equalized_odds_gap": 0.25,
        "predictive_parity_gap": 60 / 70 - 20 / 30,
        "predictive_parity_ratio": (20 / 30) / (60 / 70),
    }
    assert {name: one.value for name, one in found.items()} == pytest.approx(expected)
    assert found["equal_opportunity_gap"].lowest == {"sex": "1"}
    assert found["equal_opportunity_gap"].highest == {"sex": "0"}
    for one in found.values():
        assert one.low <= one.value <= one.high


def test_equalized_odds_takes_the_worse_of_its_two_gaps() -> None:
    found = disparities(make_groups((50, 10, 50, 90), (45, 60, 55, 40)), 50)["equalized_odds_gap"]
    assert found.rate == "fpr"
    assert found.value == pytest.approx(0.5)


def test_equal_weights_change_nothing() -> None:
    for name, one in disparities(make_groups(MEN, WOMEN, weight=7.0), 50).items():
        other = disparities(make_groups(MEN, WOMEN), 50)[name]
        assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high))


def test_small_groups_are_not_compared() -> None:
    tiny = (0, 9, 9, 0)
    with_tiny = disparities(make_groups(MEN, WOMEN, tiny), 50)
    assert with_tiny["equal_opportunity_gap"].value == pytest.approx(0.25)
    assert disparities(make_groups(MEN, WOMEN, tiny), 10)["equal_opportunity_gap"].value == pytest.approx(0.75)


def test_one_group_alone_decides_nothing() -> None:
    for one in disparities(make_groups(MEN), 50).values():
        assert math.isnan(one.value)
        assert one.lowest is None


def test_a_group_without_positives_is_left_out_of_equal_opportunity_and_equalized_odds_is_undefined() -> None:
    found = disparities(make_groups(MEN, (0, 30, 0, 70)), 50)
    assert math.isnan(found["equal_opportunity_gap"].value)
    assert math.isnan(found["equalized_odds_gap"].value)
    assert found["demographic_parity_gap"].value == pytest.approx(0.05)


def test_a_model_that_selects_nobody_treats_all_alike() -> None:
    found = disparities(make_groups((0, 0, 30, 70), (0, 0, 60, 40)), 50)
    assert found["demographic_parity_ratio"].value == 1.0
    assert found["demographic_parity_gap"].value == 0.0


cell = st.integers(0, 300)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(cell, cell, cell, cell), min_size=2, max_size=5))
def test_gaps_lie_between_0_and_1_and_ratios_too(tables: list[tuple[int, int, int, int]]) -> None:
    for one in disparities(make_groups(*tables), 1).values():
        if not math.isnan(one.value):
            assert 0 <= one.low <= one.value + 1e-12
            assert one.value <= 1
            assert one.value - 1e-12 <= one.high <= 1
