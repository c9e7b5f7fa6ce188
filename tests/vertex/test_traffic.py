"""Traffic splits are whole percents that sum to 100, whatever was there before."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.vertex.traffic import idle, split_with


@pytest.mark.parametrize(
    ("current", "chosen", "percent", "expected"),
    [
        ({}, "a", 100, {"a": 100}),
        ({}, "a", 10, {"a": 100}),  # an endpoint without traffic: nobody else could take the rest
        ({"a": 100}, "b", 100, {"b": 100}),
        ({"a": 100}, "b", 10, {"a": 90, "b": 10}),
        ({"a": 90, "b": 10}, "b", 50, {"a": 50, "b": 50}),
        ({"a": 50, "b": 50}, "c", 50, {"a": 25, "b": 25, "c": 50}),
        ({"a": 50, "b": 50}, "c", 99, {"a": 1, "c": 99}),
        ({"a": 99, "b": 1}, "c", 50, {"a": 50, "c": 50}),
        ({"a": 0, "b": 100}, "a", 30, {"a": 30, "b": 70}),
        ({"a": 100}, "a", 30, {"a": 100}),
    ],
)
def test_the_chosen_one_gets_its_share(
    current: dict[str, int], chosen: str, percent: int, expected: dict[str, int]
) -> None:
    assert split_with(current, chosen, percent) == expected


@st.composite
def _splits(draw: st.DrawFn) -> dict[str, int]:
    cuts = sorted(draw(st.lists(st.integers(0, 100), max_size=5)))
    edges = [0, *cuts, 100]
    return {f"m{i}": high - low for i, (low, high) in enumerate(itertools.pairwise(edges))}


@given(current=_splits(), percent=st.integers(1, 100))
def test_shares_sum_to_a_hundred_and_keep_their_order(current: dict[str, int], percent: int) -> None:
    after = split_with(current, "new", percent)
    assert sum(after.values()) == 100
    assert all(share > 0 for share in after.values())
    assert after["new"] == percent
    for one, other in itertools.permutations(current, 2):
        assert current[one] <= current[other] or after.get(one, 0) >= after.get(other, 0)
    assert split_with(after, "new", percent) == after  # a repeated step changes nothing


def test_only_who_has_no_traffic_may_go() -> None:
    assert idle(["a", "b", "c"], {"a": 100, "b": 0}, but="c") == ["b"]
