"""Features of the rows before share vocabulary, scale and boundaries with the row's own."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from tidemill.artifacts import parts
from tidemill.train.context import LabelSummary, TrainContext
from tidemill.training import Training
from tidemill.transform.features import FEATURES_FILE, TransformedFeatures
from tidemill.transform.run import run

PROBLEM = """\
name: pumps
task: binary_classification
label: {column: y, positive: "1"}
features:
  load: numeric
  level: {kind: bucketized, column: load, buckets: 2}
  mode: categorical
  spare: numeric
time: at
group: [pump]
windows: {length: 3, features: [load, level, mode], incomplete: keep}
"""
SPLITS = {
    "train": {
        "load": [1.0, 2.0, 3.0, 4.0],
        "load@1": [None, 1.0, 2.0, 3.0],
        "load@2": [None, None, 1.0, 2.0],
        "mode": ["a", "a", "b", "b"],
        "mode@1": ["c", "a", "a", "b"],
        "mode@2": [None, "c", "a", "a"],
        "spare": [1.0, 3.0, 1.0, 3.0],
        "y": [0, 1, 0, 1],
    },
    "eval": {
        "load": [5.0], "load@1": [None], "load@2": [1.0],
        "mode": ["c"], "mode@1": ["b"], "mode@2": [None], "spare": [2.0], "y": [1],
    },
}  # fmt: skip
KINDS = {"mode": "string", "mode@1": "string", "mode@2": "string", "y": "int64"}


@pytest.fixture(scope="module")
def transformed(make_inputs, tmp_path_factory):
    columns = {
        name: (KINDS.get(name, "float64"), {split: rows[name] for split, rows in SPLITS.items()})
        for name in SPLITS["train"]
    }
    made, out = make_inputs(PROBLEM, columns), tmp_path_factory.mktemp("windows")
    run(made.bundle, made.examples, made.schema, out / "graph", out / "transformed")
    return out


def column(transformed, split, name):
    (part,) = parts(transformed / "transformed", split)
    return pq.read_table(part).column(name).to_pylist()


def test_all_rows_of_a_window_are_scaled_alike_by_what_all_of_them_hold(transformed):
    loads = np.array([1, 2, 3, 4, 1, 2, 3, 1, 2], float)
    for lag in ("load", "load@1", "load@2"):
        raw = [loads.mean() if v is None else v for v in SPLITS["train"][lag]]
        expected = (np.array(raw) - loads.mean()) / loads.std()
        np.testing.assert_allclose(column(transformed, "train", lag), expected, atol=1e-6)
    np.testing.assert_allclose(column(transformed, "train", "spare"), [-1, 1, -1, 1], atol=1e-6)


def test_all_rows_of_a_window_share_a_vocabulary(transformed):
    # Over all rows there are a: 6 times, b: 3 times and c: twice.
    assert column(transformed, "train", "mode") == [1, 1, 2, 2]
    assert column(transformed, "train", "mode@1") == [3, 1, 1, 2]
    assert column(transformed, "eval", "mode") == [3]
    assert column(transformed, "eval", "mode@2") == [0]


def test_all_rows_of_a_window_share_boundaries(transformed):
    found: dict[float | None, set[int]] = {}
    for lag in ("", "@1", "@2"):
        for load, level in zip(SPLITS["train"][f"load{lag}"], column(transformed, "train", f"level{lag}"), strict=True):
            found.setdefault(load, set()).add(level)
    assert all(len(levels) == 1 for levels in found.values())
    assert (found[None], found[1.0], found[4.0]) == ({0}, {1}, {2})


def test_a_flag_for_missing_has_every_row_of_a_window_or_none(transformed):
    assert column(transformed, "train", "load__missing") == [0, 0, 0, 0]
    assert column(transformed, "train", "load@1__missing") == [1, 0, 0, 0]
    assert column(transformed, "train", "load@2__missing") == [1, 1, 0, 0]


def test_a_model_is_told_its_windows_in_the_order_of_time(transformed, tmp_path):
    described = TransformedFeatures.read(transformed / "graph")
    label = LabelSummary(4, 0.5, 0.5, (2, 2), 4.0)
    context = TrainContext(
        described.task, described.classes, described.features, Training(), label, None, 2, 2, 2, tmp_path
    )
    assert context.windows == {
        "load": ("load@2", "load@1", "load"),
        "load__missing": ("load@2__missing", "load@1__missing", "load__missing"),
        "level": ("level@2", "level@1", "level"),
        "mode": ("mode@2", "mode@1", "mode"),
    }
    sizes = {f.size for f in described.features if f.name.startswith("mode")}
    assert sizes == {5}  # missing, three tokens, one bucket for others


def test_what_has_no_window_is_described_as_ever(transformed):
    features = {f["name"]: f for f in json.loads((transformed / "graph" / FEATURES_FILE).read_text())["features"]}
    assert features["spare"] == {"name": "spare", "kind": "dense", "size": 1, "length": 0, "source": "spare"}
    assert features["load@2"]["source"] == "load"
