"""What counts as the same answer."""

from __future__ import annotations

from typing import Any

from tidemill.samples import Sample


def agree(one: Any, other: Any, tolerance: float) -> bool:
    return Sample({}, one, tolerance).agrees(other)


def test_answers_agree_in_shape_and_within_the_tolerance() -> None:
    assert agree({"value": 1.0, "label": "a"}, {"value": 1.05, "label": "a"}, 0.1)
    assert not agree({"value": 1.0}, {"value": 1.2}, 0.1)
    assert not agree({"value": 1.0}, {"score": 1.0}, 0.1)
    assert agree([1.0, 2.0], [1.0, 2.0], 0)
    assert not agree([1.0], [1.0, 2.0], 0)
    assert not agree(None, 1.0, 1)


def test_the_request_asks_for_the_one_row() -> None:
    assert Sample({"age": 3}, 1.0, 0.1).request == {"instances": [{"age": 3}]}
