"""Two replicas do what one does with the same batches: weights, losses and metrics."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

EXACT = 1e-6
"""The largest difference of a float32 weight after three steps; sums are made in another order."""


MODEL = """
import keras

def build_model(context):
    inputs = context.inputs()
    hidden = keras.layers.BatchNormalization()(inputs["edu_parts"])
    hidden = keras.layers.Dropout(0.2)(keras.layers.Dense(8, "relu")(hidden))
    model = keras.Model(inputs, keras.layers.Dense(1, "sigmoid")(hidden))
    model.compile(optimizer=context.optimizer(), loss="binary_crossentropy", metrics=["accuracy", keras.metrics.AUC()])
    return model
"""
TRAINING = {"strategy": "mirrored", "batch_size": 32, "max_epochs": 2, "optimizer": {"ema": 0.9, "clip_norm": 1.0}}


@pytest.fixture(scope="module")
def inputs(make_inputs):
    return make_inputs(rows=610, training=TRAINING, model=MODEL)


@pytest.fixture(scope="module")
def found(inputs):
    """What two logical CPU devices under MirroredStrategy found: devices are set before TensorFlow starts."""
    script = Path(__file__).with_name("replicated.py")
    arguments = json.dumps({name: str(path) for name, path in inputs.arguments("run").items()})
    ended = subprocess.run([sys.executable, script, arguments], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "scenario", ["sgd", "weighted, clipped and averaged", "in parts", "compiled", "applied within"]
)
def test_two_replicas_make_the_steps_of_one(found, scenario):
    """21 rows in batches of 8: the last batch is one row more than a replica takes, whose rest is padded.

    With SGD a wrong scale of the loss, or a penalty that is counted twice, is seen in the weights at once.
    """
    one, two = found[scenario]["one"], found[scenario]["two"]
    assert found[scenario]["difference"] < EXACT
    assert one["moved"] > 0.01
    assert (one["steps"], two["steps"]) == (3, 3)
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-6)
    for split in ("train", "eval"):
        assert two[split] == {name: pytest.approx(value, rel=1e-5) for name, value in one[split].items()}
    assert one["eval"]["mae"] > 0
    assert one["eval"]["root_mean_squared_error"] > 0


def test_each_replica_draws_its_own_units_to_drop_and_keeps_its_own_means(found):
    apart = found["kept by replica"]["apart"]
    (first, second) = apart["seed_generator_state"]
    assert second == [first[0] + 1, first[1]]
    assert apart["moving_mean"][0] != apart["moving_mean"][1]


def test_what_replicas_keep_is_averaged_before_it_is_saved_and_restored_to_all(found):
    apart, settled, restored = (found["kept by replica"][name] for name in ("apart", "settled", "restored"))
    for name in ("moving_mean", "moving_variance"):
        mean = [(a + b) / 2 for a, b in zip(*apart[name], strict=True)]
        assert settled[name] == [pytest.approx(mean, rel=1e-5)] * 2
    assert settled["seed_generator_state"] == apart["seed_generator_state"]
    assert restored == settled


def test_an_infinite_gradient_of_one_replica_skips_the_step_of_all(found):
    """Keras 3.15 looks at the first replica's gradient alone, and would put infinities into the weights."""
    overflow = found["overflow"]
    assert overflow["optimizer"] == "LossScaleOptimizer"
    assert overflow["moved"] == 0
    assert overflow["scales"] == [32768, 16384]
    loss, moved = overflow["then"]
    assert 0 < loss < 100
    assert 0 < moved < 1


def test_a_call_that_takes_long_ends_with_a_step_and_the_rest_is_taken_by_the_next(found):
    assert found["cut short"] == {"one": [1, 1, 1, 1], "two": [1, 1, 1, 1], "difference": 0}


def test_all_hear_that_one_is_asked_to_stop(found):
    assert found["asked"] == [False, True]


def test_a_metric_that_is_no_sum_is_refused_for_several_workers(found):
    assert found["refusal"].startswith(
        "metric largest: must keep what can be summed over workers (got a variable of aggregation 'only_first_replica')"
    )


def test_a_users_model_is_trained_by_two_replicas_exported_and_resumed(found, inputs, raw_rows_as_tensors):
    """The served model, on raw rows and one device, has the loss that was measured: averages of weights included."""
    first, second = found["runs"]
    assert (first["strategy"], first["replicas"], first["steps"]) == ("mirrored", 2, 40)
    assert (second["resumed_from_step"], second["eval_loss"]) == (40, first["eval_loss"])
    saved = tf.saved_model.load(inputs.outputs("run")["model"] / "saved_model")
    raw = raw_rows_as_tensors(inputs.raw["eval"], slice(None))
    probability = saved.signatures["serving_default"](**raw)["probability"].numpy()
    files = sorted((inputs.transformed / "eval").glob("*.parquet"))
    label = np.concatenate([pq.read_table(path)["__label__"].to_numpy() for path in files])
    loss = -np.mean(label * np.log(probability) + (1 - label) * np.log(1 - probability))
    assert loss == pytest.approx(first["eval_loss"], rel=1e-5)
