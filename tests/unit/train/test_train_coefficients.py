"""The linear model's coefficients: they are the model, and they are named."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf

from tidemill.problem import Problem
from tidemill.train.coefficients import id_names
from tidemill.train.run import run
from tidemill.transform.features import TransformedFeature

LINEAR = {"model": "linear", "learning_rate": 0.05, "max_epochs": 12, "batch_size": 32}


@pytest.fixture(scope="module", params=["binary_classification", "multiclass_classification", "regression"])
def trained(request, make_inputs):
    inputs = make_inputs(request.param, rows=1000, training=LINEAR)
    paths = inputs.arguments("run")
    run(**paths)
    coefficients = json.loads((paths["history"] / "coefficients.json").read_text())
    return request.param, inputs, paths, coefficients


def test_the_coefficients_add_up_to_the_models_answer(trained):
    task, inputs, paths, written = trained
    signatures = tf.saved_model.load(paths["model"] / "saved_model").signatures
    dtypes = {"hours-per-week": tf.float32, "education num": tf.int64}
    raw = {n: tf.constant(v, dtypes.get(n, tf.string)) for n, v in inputs.raw["test"].items()}
    features = {name: tensor.numpy() for name, tensor in signatures["transform_features"](**raw).items()}
    outputs = [None] if task != "multiclass_classification" else ["low", "middle", "high"]
    weight = {(c["feature"], c["value"], c["output"]): c["weight"] for c in written["coefficients"]}
    colors = ["(missing)", "red", "green", "blue", "grey", "(other)"]
    words = ["(missing)", *(f"w{i}" for i in range(12)), "(other)"]
    scores = np.tile(np.array(written["intercept"]), (len(features["note"]), 1))
    for j, output in enumerate(outputs):
        scores[:, j] += features["hours-per-week"] * weight["hours-per-week", None, output]
        for i in range(2):
            scores[:, j] += features["edu_parts"][:, i] * weight["edu_parts", f"[{i}]", output]
        scores[:, j] += [weight["1st color", colors[i], output] for i in features["1st color"]]
        scores[:, j] += [sum(weight["note", words[i], output] for i in ids if i) for ids in features["note"]]
    answer = {name: tensor.numpy() for name, tensor in signatures["serving_default"](**raw).items()}
    if task == "binary_classification":
        np.testing.assert_allclose(answer["probability"], 1 / (1 + np.exp(-scores[:, 0])), atol=1e-5)
    elif task == "regression":
        np.testing.assert_allclose(answer["value"], scores[:, 0], rtol=1e-5)
    else:
        softmax = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(answer["probabilities"], softmax, atol=1e-5)


def test_the_largest_effects_come_first_and_are_the_true_ones(trained):
    task, _, _, written = trained
    effects = [abs(c["effect"]) for c in written["coefficients"]]
    assert effects == sorted(effects, reverse=True)
    assert written["unit"] == ("label" if task == "regression" else "log-odds")
    if task == "multiclass_classification":
        return
    effect = {(c["feature"], c["value"]): c["effect"] for c in written["coefficients"]}
    assert effect["1st color", "red"] > 0 > effect["1st color", "blue"]
    assert effect["note", "w3"] > 0 > effect["note", "w7"]
    assert effect["hours-per-week", None] > 0
    if task == "regression":  # with its small noise: 50 of the label's units for one of the score
        assert effect["1st color", "red"] - effect["1st color", "blue"] == pytest.approx(150, rel=0.1)


def test_effects_of_a_feature_are_around_their_mean_over_the_rows(trained):
    _, _, _, written = trained
    found = [c for c in written["coefficients"] if c["feature"] == "1st color"]
    for output in {c["output"] for c in found}:
        own = [c for c in found if c["output"] == output]
        assert sum(c["share"] for c in own) == pytest.approx(1)
        assert sum(c["share"] * c["effect"] for c in own) == pytest.approx(
            0, abs=1e-4 * max(abs(c["effect"]) for c in own)
        )


def test_ids_without_a_vocabulary_are_numbered(tmp_path):
    problem = Problem.model_validate(
        {
            "name": "p",
            "task": "regression",
            "label": {"column": "y"},
            "features": {
                "age": {"kind": "bucketized", "buckets": 2},
                "cross": {"kind": "crossed", "of": ["a", "b"], "hash_buckets": 3},
            },
        }
    )
    features = [TransformedFeature("age", "ids", 3, 0, "age"), TransformedFeature("cross", "ids", 3, 0, "cross")]
    assert id_names(problem, features, tmp_path) == {
        "age": ["(missing)", "bucket 1 of 2", "bucket 2 of 2"],
        "cross": ["#0", "#1", "#2"],
    }
