"""Images and texts in order in problem.yaml, and the examples of the page that tells of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tidemill.errors import ProblemError
from tidemill.features import Image, Text
from tidemill.problem import Problem, dump_problem, json_schema, parse_problem

PAGE = Path(__file__).parents[3] / "components" / "tidemill" / "train" / "README.md"
MINIMAL = {"name": "signs", "task": "regression", "label": {"column": "y"}}
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE.read_text().partition("## Inputs\n")[2].partition("\n## ")[0], re.S)


def problem(**changes: object) -> Problem:
    return parse_problem(yaml.safe_dump({**MINIMAL, **changes}, sort_keys=False), "problem.yaml")


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_of_the_page_is_valid(example):
    assert problem(**yaml.safe_load(example)).features


def test_the_page_has_an_example_of_each():
    text = "".join(EXAMPLES)
    assert all(word in text for word in ("kind: image", "as: sequence", "windows: {length", "horizon"))


def test_a_text_is_written_as_it_was_read():
    read = problem(features={"note": {"kind": "text", "as": "sequence"}, "bag": "text"})
    assert isinstance(read.features["note"], Text)
    assert (read.features["note"].form, read.features["bag"].form) == ("sequence", "bag")
    assert yaml.safe_load(dump_problem(read))["features"]["note"] == {"kind": "text", "as": "sequence"}
    assert parse_problem(dump_problem(read), "problem.yaml") == read


def test_an_image_may_be_its_kind_alone():
    assert problem(features={"sign": "image"}).features["sign"] == Image()


def test_editors_know_the_settings():
    definitions = json_schema()["$defs"]
    assert definitions["Text"]["properties"]["as"]["enum"] == ["bag", "sequence"]
    assert definitions["Image"]["properties"]["channels"]["enum"] == [1, 3]
    assert definitions["Windows"]["properties"]["incomplete"]["enum"] == ["drop", "keep"]


@pytest.mark.parametrize(
    ("feature", "fault"),
    [
        ({"kind": "image", "height": 4}, "features.sign.height"),
        ({"kind": "image", "channels": 2}, "features.sign.channels"),
        ({"kind": "image", "size": 32}, "features.sign.size"),
        ({"kind": "text", "as": "list"}, "features.sign.as"),
        ({"kind": "text", "form": "sequence"}, "features.sign.form"),
    ],
)
def test_what_a_feature_cannot_be_is_told_with_its_place(feature, fault):
    with pytest.raises(ProblemError) as caught:
        problem(features={"sign": feature})
    assert re.search(rf"line \d+: {re.escape(fault)}: ", str(caught.value))


def test_the_past_of_images_is_seen_only_where_that_is_asked_for():
    features = {"sign": "image", "x": "numeric"}
    series = {"features": features, "time": "t", "group": ["g"]}
    assert problem(**series, windows={"length": 2}).raw_columns == ("sign", "x", "x@1")
    assert problem(**series, windows={"length": 2, "features": ["sign"]}).raw_columns == ("sign", "sign@1", "x")
