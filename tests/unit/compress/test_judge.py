"""Each limit refuses what is beyond it, and lets pass what isn't."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tidemill.compress.comparison import Comparison
from tidemill.compress.judge import Judge
from tidemill.compress.measures import Latency, Size, latencies
from tidemill.compression import Compression, Limits


class Changed:
    """The original's answers after a function."""

    def __init__(self, original: Any, change: Any) -> None:
        self._original, self._change = original, change

    def answer(self, features: Any) -> np.ndarray:
        return self._change(self._original.answer(features), features)


def _one_group_refused(answers: np.ndarray, features: Any) -> np.ndarray:
    return np.where((features["1st color"] == 3)[:, None], np.float32(0.01), answers)


CHANGES = {
    "same": lambda answers, _: answers,
    "noisy": lambda answers, _: np.random.default_rng(0).random(answers.shape, np.float32),
    "unfair": _one_group_refused,
    "nobody": lambda answers, _: answers * 0,
    "broken": lambda answers, _: np.where(np.arange(len(answers))[:, None] == 7, np.nan, answers),
}


@pytest.fixture(scope="module")
def comparison(project, original):
    networks = {name: Changed(original, change) for name, change in CHANGES.items()}
    return Comparison.of(project.inputs(), original, networks)


@pytest.fixture
def checks(comparison):
    """Returns a function from a variant and limits to its checks."""

    def make(name: str, required: bool = True, **limits: Any) -> list[Any]:
        variant = {"kind": "onnx", "limits": limits, "required": required}
        settings = Compression.model_validate({"variants": {name: variant}})
        sizes = {"original": Size(4000, 2000), name: Size(1500, 1000)}
        times = {"original": {1: Latency(0.4, 0.9)}, name: {1: Latency(0.2, 0.3)}}
        judge = Judge(settings, comparison, sizes, times)
        decision = judge.decide()
        assert judge.passed(name) == all(check.passed or not check.blocking for check in judge.checks(name))
        return list(decision.checks)

    return make


def refused(found: list[Any]) -> list[str]:
    return [check.name for check in found if check.blocking and not check.passed]


def test_a_variant_that_answers_alike_is_not_worse_by_anything(checks):
    found = checks(
        "same",
        metrics=[{"metric": "auc", "max_worse": 0}, {"metric": "log_loss", "max_worse": 0, "slices": "sensitive"}],
        fairness=[{"metric": "equalized_odds_gap", "max_worse": 0}],
    )
    assert len(found) > 4
    assert not refused(found)
    assert found[0].value == 0


def test_a_worse_metric_is_refused_whichever_direction_is_better(checks):
    limits = [{"metric": name, "max_worse": 0.05} for name in ("auc", "log_loss", "calibration")]
    found = checks("noisy", metrics=limits)
    assert {"auc.noisy", "log_loss.noisy"} <= set(refused(found))
    auc = found[0]
    assert auc.value < -0.05
    assert "Variant noisy: area under the ROC curve is 0." in auc.message
    assert "of the original 0." in auc.message
    assert "at most 0.05 worse than the original is allowed" in auc.message


def test_a_slice_is_refused_by_itself_and_a_small_one_does_not_decide(checks):
    limit = {"metric": "recall", "max_worse": 0.05, "slices": "sensitive"}
    (check,) = [c for c in checks("unfair", metrics=[limit]) if not c.passed]
    assert check.slice == {"1st color": "blue"}
    assert check.blocking
    assert not refused(checks("unfair", metrics=[{**limit, "min_examples": 10_000}]))


def test_groups_that_lie_further_apart_are_refused(checks, comparison):
    limit = {"metric": "demographic_parity_gap", "max_worse": 0.05}
    (check,) = checks("unfair", fairness=[limit])
    assert not check.passed
    assert check.name == "demographic_parity_gap[1st color].unfair"
    assert check.value == comparison.fairness("unfair", limit["metric"], ("1st color",), 50).difference > 0.05
    ratio = checks(
        "unfair", fairness=[{"metric": "demographic_parity_ratio", "max_worse": 0.05, "over": ["1st color"]}]
    )
    assert refused(ratio)


def test_a_variant_that_selects_nobody_cannot_hide_behind_what_is_not_defined(checks):
    (check,) = checks("nobody", fairness=[{"metric": "predictive_parity_gap", "max_worse": 0.5}])
    assert not check.passed
    assert check.blocking
    assert check.got == "not defined"


def test_an_answer_that_is_no_number_is_refused_without_any_limit(checks):
    assert refused(checks("broken")) == ["answers.broken"]
    assert refused(checks("broken", metrics=[{"metric": "auc", "max_worse": 1}])) == ["answers.broken", "auc.broken"]


@pytest.mark.parametrize(
    ("limit", "tight", "loose"),
    [("max_bytes", 999, 1000), ("max_bytes_ratio", 0.49, 0.5), ("max_latency_ratio", 0.49, 0.51)],
)
def test_size_and_time_are_refused_beyond_their_limit(checks, limit, tight, loose):
    (check,) = checks("same", **{limit: tight})
    assert not check.passed
    assert not refused(checks("same", **{limit: loose}))


def test_what_is_not_required_does_not_block(checks):
    found = checks("noisy", required=False, metrics=[{"metric": "auc", "max_worse": 0.0}])
    assert not found[0].passed
    assert not found[0].blocking


def test_limits_of_a_variant_take_the_place_of_those_of_all():
    settings = Compression.model_validate(
        {
            "variants": {"a": {"kind": "onnx"}, "b": {"kind": "onnx", "limits": {"max_bytes": 5}}},
            "limits": {"max_bytes": 7},
        }
    )
    assert settings.limits_of("a") == Limits(max_bytes=7)
    assert settings.limits_of("b") == Limits(max_bytes=5)


def test_bytes_are_of_the_content_and_of_its_gzip():
    assert Size.of(bytes(10_000)).file_bytes == 10_000
    assert Size.of(bytes(10_000)).gzip_bytes < 100
    noise = np.random.default_rng(0).bytes(10_000)
    assert Size.of(noise).gzip_bytes >= 10_000


def test_every_network_is_timed_with_one_row_and_with_many():
    asked: dict[str, list[int]] = {"a": [], "b": []}

    class Counting:
        def __init__(self, name: str) -> None:
            self.name = name

        def answer(self, features: Any) -> np.ndarray:
            asked[self.name].append(len(features["x"]))
            return np.zeros((len(features["x"]), 1))

    found = latencies({name: Counting(name) for name in asked}, {"x": np.arange(100.0)})
    assert asked["a"] == asked["b"]
    assert set(asked["a"]) == {1, 256}
    assert found["a"][256].p50_ms <= found["a"][256].p99_ms
