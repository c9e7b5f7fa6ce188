"""Training on what the transform stage really writes: the one contract that two stages share."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from tidemill.artifacts import ExamplesManifest, ModelManifest
from tidemill.bundle import pack
from tidemill.instances import arrays_from_batch
from tidemill.problem import parse_problem
from tidemill.train.run import run

PROBLEM = """
name: fruit
task: binary_classification
label: {column: sold, positive: "yes"}
features:
  price per kg: numeric
  best-before: {kind: bucketized, buckets: 3}
  colour: {kind: categorical, max_vocabulary: 3}
  praise: {kind: text, max_words: 3}
  day: {kind: date, parts: [weekday]}
training: {model: linear, max_epochs: 5, batch_size: 32, learning_rate: 0.05}
"""


def examples(directory):
    rng = np.random.default_rng(0)
    for split, rows in {"train": 400, "eval": 100, "test": 50}.items():
        colour = rng.choice(["red", "green", "yellow", "blue", None], rows, p=[0.3, 0.25, 0.2, 0.05, 0.2])
        price = rng.normal(3, 1, rows)
        score = 2 * (colour == "red") - (price - 3) + rng.logistic(size=rows)
        table = pa.table(
            {
                "price per kg": pa.array(price, mask=rng.random(rows) < 0.1),
                "best-before": pa.array(rng.integers(0, 9, rows), mask=rng.random(rows) < 0.1),
                "colour": pa.array(colour, pa.string()),
                "praise": pa.array(rng.choice(["", "sweet fresh", "fresh", "sour"], rows)),
                "day": pa.array(rng.integers(0, 10**9, rows)),
                "sold": pa.array(np.where(score > 0.5, "yes", "no")),
            }
        )
        (directory / split).mkdir(parents=True)
        pq.write_table(table, directory / split / "part-00000.parquet")
    types = {"price per kg": "float64", "best-before": "int64", "day": "int64"}
    columns = {name: types.get(name, "string") for name in table.column_names}
    ExamplesManifest({"train": 400, "eval": 100, "test": 50}, columns, ("no", "yes"), {}).write(directory)
    return table


@pytest.mark.filterwarnings("ignore")  # tf.Transform and Beam warn of themselves
def test_a_linear_model_of_transformed_examples_serves_raw_rows_and_names_its_terms(tmp_path):
    pytest.importorskip("tensorflow_transform", reason="the TPU image has none")
    from tidemill.transform.run import run as transform

    raw = examples(tmp_path / "examples")
    (tmp_path / "schema").mkdir()
    bundle = pack(parse_problem(PROBLEM, "problem.yaml"), tmp_path, tmp_path / "bundles")
    graph, transformed = tmp_path / "graph", tmp_path / "transformed"
    transform(bundle, tmp_path / "examples", tmp_path / "schema", graph, transformed)
    model, history = tmp_path / "model", tmp_path / "history"
    run(bundle, transformed, graph, model, history, tmp_path / "checkpoints")

    written = json.loads((history / "coefficients.json").read_text())["coefficients"]
    weight = {(c["feature"], c["value"]): c["weight"] for c in written}
    effect = {(c["feature"], c["value"]): c["effect"] for c in written}
    colours = {value for feature, value in weight if feature == "colour"}
    assert colours == {"(missing)", "red", "green", "yellow", "(other)"}
    assert {value for feature, value in weight if feature == "praise"} >= {"sweet", "fresh", "sour"}
    assert {value for feature, value in weight if feature == "best-before"} == {
        "(missing)",
        "bucket 1 of 3",
        "bucket 2 of 3",
        "bucket 3 of 3",
    }
    assert max(colours, key=lambda colour: effect["colour", colour]) == "red"
    assert effect["price per kg", None] < 0

    signature = tf.saved_model.load(model / "saved_model").signatures["serving_default"]
    inputs = ModelManifest.read(model).inputs
    arrays = arrays_from_batch(raw, inputs)
    found = signature(**{n: tf.constant(v, inputs[n]) for n, v in arrays.items()})["probability"].numpy()
    red = raw["colour"].to_numpy(zero_copy_only=False) == "red"
    assert np.isfinite(found).all()
    assert found[red].mean() > found[~red].mean()
