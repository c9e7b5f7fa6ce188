"""What `windows` makes of a problem's features and columns, and what it refuses."""

from __future__ import annotations

import pytest
import yaml

from tidemill.errors import ProblemError
from tidemill.features import Categorical, Crossed, Numeric
from tidemill.problem import Problem, parse_problem

PROBLEM = {
    "name": "pumps",
    "task": "binary_classification",
    "label": {"column": "broke", "positive": "1"},
    "features": {
        "load": "numeric",
        "kind": {"kind": "categorical", "column": "mode"},
        "both": {"kind": "crossed", "of": ["mode", "site"]},
    },
    "time": "at",
    "group": ["pump"],
    "windows": {"length": 3},
}


def problem(**changes: object) -> Problem:
    return parse_problem(yaml.safe_dump({**PROBLEM, **changes}, sort_keys=False), "problem.yaml")


def test_each_feature_is_followed_by_the_same_of_the_rows_before():
    read = problem().read_features
    assert list(read) == ["load", "load@1", "load@2", "kind", "kind@1", "kind@2", "both", "both@1", "both@2"]
    assert read["load"] == Numeric()
    assert read["load@2"] == Numeric(column="load@2")
    assert read["kind@1"] == Categorical(column="mode@1")
    assert read["both@1"] == Crossed(of=("mode@1", "site@1"))


def test_the_model_reads_columns_that_the_source_does_not_need():
    whole = problem()
    assert whole.raw_columns == (
        "load", "load@1", "load@2", "mode", "mode@1", "mode@2", "site", "site@1", "site@2",
    )  # fmt: skip
    assert whole.needed_columns == ("load", "mode", "site", "broke", "at", "pump")
    named = problem(windows={"length": 2, "features": ["kind"]})
    assert named.raw_columns == ("load", "mode", "mode@1", "site")
    assert named.windowed_columns == ("mode",)


def test_without_windows_features_are_read_as_they_are():
    plain = problem(windows=None)
    assert plain.read_features == plain.features
    assert (plain.windowed, plain.windowed_columns) == ((), ())


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"time": None}, "windows needs `time`"),
        ({"time": None, "group": []}, "windows needs `time` and `group`"),
        ({"windows": {"features": ["load", "lode"]}}, "windows.features names lode, which `features` does not"),
        ({"windows": {"length": 1}}, "windows.length"),
        ({"windows": {"size": 3}}, "windows.size"),
        ({"windows": {"straddle": True}}, "windows.straddle needs split.method temporal"),
        (
            {"features": {**PROBLEM["features"], "load@2": "numeric"}},
            "features must not be named load@2: windows names its own so",
        ),
        (
            {"task": "regression", "label": {"column": "load"}},
            "features must not read load: the label is made of it",
        ),
        (
            {"task": "regression", "label": {"column": "load"}, "windows": {"horizon": 1}},
            "to predict load from its past, write `label: {expression: load, uses: [load]}`",
        ),
    ],
)  # fmt: skip
def test_what_windows_cannot_mean_is_refused(changes, fault):
    with pytest.raises(ProblemError) as caught:
        problem(**changes)
    assert fault in str(caught.value)


def test_what_a_later_label_is_made_of_may_be_a_feature():
    ahead = problem(
        task="regression", label={"expression": "load", "uses": ["load"]}, windows={"length": 2, "horizon": 1}
    )
    assert ahead.label.output == "label"
    with pytest.raises(ProblemError, match="features must not read load"):
        problem(task="regression", label={"expression": "load", "uses": ["load"]}, windows={"length": 2})
