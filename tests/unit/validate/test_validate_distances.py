"""Distances are numpy's; chance stays below what is allowed for it, and a real move above."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa
import pytest
from tensorflow_data_validation.statistics import stats_impl
from tfx_bsl.arrow import table_util

from tidemill.validate.distances import Distance, compare
from tidemill.validate.statistics import Statistics, stats_options

Draw = Callable[[np.random.Generator, int], np.ndarray]
QUANTITIES: Mapping[str, Draw] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "heavy": lambda rng, n: rng.pareto(1, n),
    "zeros": lambda rng, n: np.where(rng.random(n) < 0.9, 0, rng.lognormal(8, 1, n)),
    "minutes": lambda rng, n: 60 * np.round(rng.lognormal(6.2, 0.9, n) / 60),
    "few": lambda rng, n: rng.integers(0, 5, n).astype(float),
    "whole": lambda rng, n: rng.integers(0, 10**6, n),
}
CATEGORIES: Mapping[str, Draw] = {
    "coin": lambda rng, n: np.array(["heads", "tails"])[rng.integers(0, 2, n)],
    "long": lambda rng, n: np.array([f"v{i}" for i in rng.zipf(1.5, n) % 900]),
}
SIZES = [(80, 20), (800, 100), (20_000, 2_500)]


def described(columns: Mapping[str, object], by_value: tuple[str, ...] = ()) -> Statistics:
    arrays = [values if isinstance(values, pa.Array) else pa.array(values) for values in columns.values()]
    batch = pa.RecordBatch.from_arrays(arrays, list(columns))
    listed = table_util.CanonicalizeRecordBatch(batch)
    return stats_impl.generate_statistics_in_memory(listed, stats_options(by_value))


def sample(rows: int, seed: int, draws: Mapping[str, Draw], copies: int) -> Statistics:
    rng = np.random.default_rng(seed)
    return described({f"{name} {i}": draw(rng, rows) for name, draw in draws.items() for i in range(copies)})


def between(ours: Statistics, theirs: Statistics, role: str, limit: float = 0.1) -> list[Distance]:
    names = [feature.path.step[0] for feature in ours.datasets[0].features]
    found = compare("skew", ours, theirs, dict.fromkeys(names, role), frozenset(names), limit)
    return [distance for distance in found if distance.measure != "missing_share"]


@pytest.mark.parametrize(("rows", "fewer"), SIZES)
@pytest.mark.parametrize(("draws", "role"), [(QUANTITIES, "quantity"), (CATEGORIES, "category")])
def test_samples_of_one_distribution_stay_within_what_chance_is_allowed(
    rows: int, fewer: int, draws: Mapping[str, Draw], role: str
) -> None:
    """Eight pairs for each distribution, against the allowance alone; it is made for 199 in 200 pairs."""
    found = between(sample(rows, 1, draws, 8), sample(fewer, 2, draws, 8), role)
    assert len(found) == 8 * len(draws)
    assert len([d for d in found if d.value is None or d.value > d.allowance]) <= 1


@pytest.mark.parametrize("name", ["normal", "minutes", "whole"])
def test_a_distribution_that_moved_far_is_told_from_chance_in_100_rows(name: str) -> None:
    ours = sample(800, 1, {name: QUANTITIES[name]}, 5)
    moved = sample(100, 2, {name: lambda rng, n: 3 * QUANTITIES[name](rng, n) + 2 * 10**3}, 5)
    assert all(distance.exceeded for distance in between(ours, moved, "quantity"))


def test_l_infinity_is_the_largest_difference_of_shares() -> None:
    ours = described({"city": ["a"] * 60 + ["b"] * 30 + ["c"] * 10})
    theirs = described({"city": ["a"] * 20 + ["b"] * 20 + ["c"] * 10})
    (distance,) = between(ours, theirs, "category")
    assert distance.value == pytest.approx(0.2)
    assert distance.where == "a"
    assert distance.rows == (100, 50)
    assert distance.allowance == pytest.approx(1.5 * np.sqrt(1 / 100 + 1 / 50))


def test_whole_numbers_that_are_categories_are_compared_by_value() -> None:
    ours, theirs = (described({"term": values}, ("term",)) for values in ([12] * 6 + [24] * 4, [12] * 3 + [36] * 7))
    (distance,) = between(ours, theirs, "category")
    assert distance.value == pytest.approx(0.7)
    assert distance.where == "36"


def test_the_divergence_over_quantiles_is_the_one_of_the_values_themselves() -> None:
    """With few distinct values the bins are the values, and numpy can say what the divergence is."""
    ours, theirs = np.repeat([1.0, 2.0, 3.0], [500, 300, 200]), np.repeat([1.0, 2.0, 3.0], [200, 300, 500])
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.3, 0.5])
    middle = (p + q) / 2
    expected = float(np.sum(p * np.log2(p / middle) + q * np.log2(q / middle)) / 2)
    (distance,) = between(described({"x": ours}), described({"x": theirs}), "quantity")
    assert distance.value == pytest.approx(expected, rel=0.01)


def test_a_missing_share_is_compared_for_text_too() -> None:
    ours = described({"note": ["x"] * 90 + [None] * 10})
    theirs = described({"note": ["x"] * 50 + [None] * 50})
    (distance,) = compare("drift", ours, theirs, {"note": "other"}, frozenset({"note"}), 0.1)
    assert (distance.measure, distance.value) == ("missing_share", pytest.approx(0.4))
    assert distance.exceeded


def test_what_can_not_be_compared_says_why() -> None:
    rows = 3000
    ours = {"gone": [1.0] * rows, "ids": [f"i{i}" for i in range(rows)], "kind": [1.0] * rows, "void": [1.0] * rows}
    theirs = {"ids": ours["ids"], "kind": ["one"] * rows, "void": pa.nulls(rows, pa.float64())}
    roles = {"gone": "quantity", "ids": "category", "kind": "quantity", "void": "quantity"}
    found = compare("drift", described(ours), described(theirs), roles, frozenset(roles), 0.1)
    reasons = {distance.column: distance.reason for distance in found if distance.reason}
    assert reasons.keys() == roles.keys()
    assert "the other side does not have it" in reasons["gone"]
    assert "3000 distinct values" in reasons["ids"]
    assert "type" in reasons["kind"]
    assert "no value on one side" in reasons["void"]
    assert not any(distance.exceeded for distance in found if distance.reason)
