"""`compression:` of problem.yaml: strict, every fault at once, and nothing that could never be decided."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tidemill.bundle import VIEWS, pack_views
from tidemill.compression import Distilled, LiteRT, Onnx, Pruned
from tidemill.errors import ProblemError
from tidemill.problem import Problem, parse_problem

README = Path(__file__).parents[3] / "components" / "tidemill" / "compress" / "README.md"
PROBLEM: dict[str, Any] = {
    "name": "toy",
    "task": "binary_classification",
    "label": {"column": "y", "positive": "yes"},
    "features": {"age": "numeric"},
    "sensitive": ["sex", ["sex", "age"]],
}
HALF = {"half": {"kind": "litert"}}


def parse(compression: Any, **changes: Any) -> Problem:
    return parse_problem(
        yaml.safe_dump({**PROBLEM, "compression": compression, **changes}, sort_keys=False), "problem.yaml"
    )


def test_the_example_of_the_readme_is_valid() -> None:
    example = re.search(r"```yaml\n(compression:.*?)```", README.read_text(), re.DOTALL)
    assert example is not None
    settings = parse(**yaml.safe_load(example[1])).compression
    assert settings is not None
    assert [type(variant) for variant in settings.variants.values()] == [LiteRT, Onnx, Pruned, Distilled]
    assert settings.release == "original"


def test_all_faults_are_told_at_once() -> None:
    variants = {"half": {"kind": "litert", "quantization": "int4"}, "thin": {"kind": "pruned", "sparsity": 1}, "x": {}}
    with pytest.raises(ProblemError) as told:
        parse({"variants": variants, "limit": {}})
    for fault in (
        "half.quantization",
        "thin.sparsity",
        "variants.x: kind must be one of",
        "compression.limit: unknown",
    ):
        assert fault in str(told.value)


@pytest.mark.parametrize(
    ("compression", "changes", "fault"),
    [
        ({"variants": {}}, {}, "at least 1 item"),
        ({"variants": {"Half": {"kind": "onnx"}}}, {}, "should match pattern"),
        ({"variants": {"original": {"kind": "onnx"}}}, {}, "must not call one original"),
        ({"variants": HALF, "release": "other"}, {}, "`release` names other; there are original, half"),
        ({"variants": HALF, "release": "half"}, {}, "kind pruned or distilled, not litert"),
        (
            {"variants": {"thin": {"kind": "pruned", "required": False}}, "release": "thin"},
            {},
            "`required` must be true",
        ),
        ({"variants": HALF, "limits": {"max_bytes": 0}}, {}, "limits.max_bytes"),
        ({"variants": HALF, "limits": {"metrics": [{"metric": "rmse", "max_worse": 1}]}}, {}, "has no rmse"),
        (
            {"variants": HALF, "limits": {"metrics": [{"metric": "mean_label", "max_worse": 1}]}},
            {},
            "mean_label has no better or worse",
        ),
        (
            {"variants": HALF, "limits": {"metrics": [{"metric": "auc", "max_worse": 1, "slices": "sensitive"}]}},
            {"sensitive": []},
            "`slices: sensitive` needs `sensitive`",
        ),
        (
            {"variants": {"a": {"kind": "onnx", "limits": {"metrics": [{"metric": "r2", "max_worse": 1}]}}}},
            {},
            "compression.variants.a.limits.metrics.0: binary_classification has no r2",
        ),
        (
            {"variants": HALF, "limits": {"fairness": [{"metric": "equal_opportunity_gap", "max_worse": 0.1}]}},
            {"sensitive": []},
            "fairness needs binary_classification and `sensitive`",
        ),
        (
            {
                "variants": HALF,
                "limits": {"fairness": [{"metric": "equal_opportunity_gap", "max_worse": 0.1, "over": ["age"]}]},
            },
            {},
            "is not an entry of `sensitive`",
        ),
        (
            {"variants": {"small": {"kind": "distilled", "temperature": 2}}},
            {"task": "regression", "label": {"column": "y"}},
            "temperature has no meaning for regression",
        ),
        (
            {"variants": {"thin": {"kind": "pruned"}}},
            {"training": {"resample": 0.5}},
            "pruned trains on all rows, which training.resample leaves out",
        ),
        (
            {"variants": {"thin": {"kind": "pruned"}}},
            {"tuning": {"space": {"resample": {"choices": [None, 0.5]}}}},
            "pruned trains on all rows, which training.resample leaves out",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(compression: Any, changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(ProblemError, match=re.escape(fault)):
        parse(compression, **changes)


def test_only_what_comes_after_training_sees_the_section(tmp_path: Path) -> None:
    """So that another limit doesn't train the model again."""
    without = pack_views(parse(None), tmp_path, tmp_path / "bundles")
    with_it = pack_views(parse({"variants": HALF}), tmp_path, tmp_path / "bundles")
    assert {view for view in VIEWS if without[view] != with_it[view]} == {"whole"}
