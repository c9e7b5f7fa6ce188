"""Optimizers and schedules move weights as their definitions say, also where rows of a table repeat."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from pydantic import ValidationError

from tidemill.artifacts import ModelManifest, parts
from tidemill.errors import ProblemError
from tidemill.train.accumulation import in_parts
from tidemill.train.optimizers import LearningRate, averaged, build_optimizer
from tidemill.train.run import run
from tidemill.train.steps import summed
from tidemill.training import Training

RATE = 0.1


def optimizer(**settings):
    return build_optimizer(Training(learning_rate=RATE, optimizer=settings), max_steps=100, replicas=1)


def table_gradient(table: keras.Variable, ids: list[int], per_id: float) -> tf.IndexedSlices:
    """Returns the gradient of ``per_id * sum(table[ids])``, whose slices repeat with the ids."""
    with tf.GradientTape() as tape:
        loss = per_id * tf.reduce_sum(tf.gather(table.value, ids))
    gradient = tape.gradient(loss, table.value)
    assert isinstance(gradient, tf.IndexedSlices)
    return gradient


def moved(steps: int, **settings) -> tuple[np.ndarray, np.ndarray]:
    """Applies the same gradients so often. Returns a table [3, 1] from 1, of gradients 30, 1, 0, and a bias from 2."""
    table, bias = keras.Variable(np.ones((3, 1), "f4"), name="table"), keras.Variable([2.0], name="bias")
    made = optimizer(**settings)
    made.build([table, bias])
    for _ in range(steps):
        made.apply([summed(table_gradient(table, [0] * 30 + [1], 1.0)), tf.constant([4.0])], [table, bias])
    return table.numpy()[:, 0], bias.numpy()


G = np.array([30.0, 1.0, 0.0])


@pytest.mark.parametrize(
    ("settings", "one_step"),
    [
        ({"kind": "sgd"}, 1 - RATE * G),
        ({"kind": "adam"}, 1 - RATE * np.sign(G)),
        ({"kind": "adamw"}, 1 - RATE * np.sign(G)),
        ({"kind": "adamw", "weight_decay": 0.5}, 1 - RATE * 0.5 - RATE * np.sign(G)),
        ({"kind": "lion"}, 1 - RATE * np.sign(G)),
        ({"kind": "lion", "weight_decay": 0.5}, 1 - RATE * 0.5 - RATE * np.sign(G)),
        ({"kind": "adagrad"}, 1 - RATE * G / np.sqrt(0.1 + G**2)),
        ({"kind": "rmsprop"}, 1 - RATE * np.sign(G) / math.sqrt(0.1)),
        ({"kind": "sgd", "clip_norm": 1.0}, 1 - RATE * G / math.sqrt(30**2 + 1 + 4**2)),
        ({"kind": "sgd", "clip_norm": 100.0}, 1 - RATE * G),
    ],
    ids=str,
)
def test_a_step_is_that_of_the_definition_with_a_row_30_times_in_the_batch(settings, one_step):
    table, _ = moved(1, **settings)
    np.testing.assert_allclose(table, one_step, rtol=1e-4, atol=1e-5)


def test_momentum_is_heavy_ball():
    table, _ = moved(2, kind="sgd", momentum=0.5)
    np.testing.assert_allclose(table, 1 - RATE * G - (RATE * G + 0.5 * RATE * G), rtol=1e-5)


def test_decay_leaves_biases_alone():
    _, bias = moved(1, kind="sgd", weight_decay=0.5)
    assert bias == pytest.approx(2 - RATE * 4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": {"kind": "adam", "momentum": 0.9}}, "adam has no momentum"),
        (
            {"optimizer": {"kind": "adagrad", "momentum": 0, "weight_decay": 0.1}},
            "adagrad has no momentum and no weight_decay",
        ),
        ({"schedule": {"final": 0.5}}, "a constant rate has no `final`"),
        ({"schedule": {"kind": "exponential"}}, "an exponential decay needs `final` > 0"),
    ],
)
def test_what_an_optimizer_would_not_read_is_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        Training.model_validate(settings)


def test_a_warm_up_as_long_as_the_training_is_refused():
    training = Training.model_validate({"schedule": {"warmup_steps": 10}})
    with pytest.raises(ProblemError, match=r"warmup_steps: must be less than the 10 steps .* \(got 10\)\n  → shorten"):
        build_optimizer(training, max_steps=10, replicas=1)
    build_optimizer(training, max_steps=11, replicas=1)


@pytest.mark.parametrize(
    ("kind", "share"),
    [
        ("constant", lambda t: 1.0),
        ("cosine", lambda t: 0.1 + 0.9 * (1 + math.cos(math.pi * t)) / 2),
        ("linear", lambda t: 1 - 0.9 * t),
        ("exponential", lambda t: 0.1**t),
    ],
)
def test_rates_follow_their_definition_after_the_warm_up(kind, share):
    rate = LearningRate(0.5, kind, warmup=4, steps=24, final=0.1)
    assert [float(rate(i)) for i in range(5)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    for done in (0, 5, 10, 20, 30):
        assert float(rate(4 + done)) == pytest.approx(0.5 * share(min(1, done / 20)), rel=1e-5)
    assert LearningRate(**rate.get_config()).get_config() == rate.get_config()


@pytest.mark.parametrize(("scaling", "rate"), [("none", 0.1), ("linear", 0.4), ("sqrt", 0.2)])
def test_rates_grow_with_the_replicas_as_asked(scaling, rate):
    training = Training(learning_rate=0.1, learning_rate_scaling=scaling)
    assert float(build_optimizer(training, 100, replicas=4).learning_rate) == pytest.approx(rate)


def model_of(value: float, made: keras.optimizers.Optimizer) -> keras.Model:
    inputs = keras.Input((1,))
    model = keras.Model(inputs, keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros", name="d")(inputs))
    model.layers[-1].kernel.assign([[value]])
    model.compile(optimizer=made, loss="mse")
    made.build(model.trainable_variables)
    return model


def test_within_averaged_the_weights_are_their_moving_averages():
    model = model_of(0.0, optimizer(kind="sgd", ema=0.5))
    for _ in range(3):
        model.optimizer.apply([tf.constant([[-10.0]])], model.trainable_variables)
    kernel = model.layers[-1].kernel
    with averaged(model):
        assert kernel.numpy().item() == pytest.approx(((1 + 2) / 2 + 3) / 2)
    assert kernel.numpy().item() == pytest.approx(3)
    plain = model_of(1.0, optimizer(kind="sgd"))
    with averaged(plain):
        assert plain.layers[-1].kernel.numpy().item() == 1.0


def test_weights_come_back_when_an_evaluation_raises():
    model = model_of(0.0, optimizer(kind="sgd", ema=0.5))
    for _ in range(2):
        model.optimizer.apply([tf.constant([[-10.0]])], model.trainable_variables)
    with pytest.raises(RuntimeError), averaged(model):
        raise RuntimeError
    assert model.layers[-1].kernel.numpy().item() == pytest.approx(2)


def test_a_batch_in_parts_has_the_gradients_of_the_whole():
    """7 rows in 3 parts of 3, 3 and 1; one variable takes no part in the loss."""
    rng = np.random.default_rng(0)
    x, y, kernel = rng.normal(size=(7, 2)).astype("f4"), rng.normal(size=(7, 1)).astype("f4"), tf.Variable([[1.0], [2]])
    variables = [kernel, tf.Variable([1.0])]

    def compute(x, y):
        with tf.GradientTape() as tape:
            prediction = tf.matmul(x, kernel)
            loss = tf.reduce_mean((prediction - y) ** 2)
        return prediction, loss, tape.gradient(loss, variables)

    prediction, loss, (gradient, none) = in_parts(compute, (x, y), 1, variables)
    made = tf.function(lambda: in_parts(compute, (tf.constant(x), tf.constant(y)), 3, variables), autograph=False)()
    np.testing.assert_allclose(made[0], prediction, rtol=1e-6)
    np.testing.assert_allclose(made[1], loss, rtol=1e-6)
    np.testing.assert_allclose(made[2][0], gradient, rtol=1e-5)
    assert none is None
    assert made[2][1].numpy() == 0


SETTINGS = {"batch_size": 64, "max_epochs": 2, "dropout": 0.0, "early_stopping_patience": None}


def trained(make_inputs, **settings):
    """Returns the history's epochs and the weights' digest."""
    paths = make_inputs(rows=300, training={**SETTINGS, **settings}).arguments("run")
    run(**paths)
    epochs = json.loads((paths["history"] / "history.json").read_text())["epochs"]
    return epochs, ModelManifest.read(paths["model"]).lineage["weights"]


def test_training_in_parts_is_training(make_inputs):
    """300 rows: the last batch, of 44, has smaller parts."""
    whole, _ = trained(make_inputs)
    parts, _ = trained(make_inputs, optimizer={"accumulate_steps": 5})
    assert [e["eval"]["loss"] for e in parts] == pytest.approx([e["eval"]["loss"] for e in whole], rel=1e-4)
    assert [e["train"]["auc"] for e in parts] == pytest.approx([e["train"]["auc"] for e in whole], rel=1e-3)


def test_the_averages_are_what_is_evaluated_and_exported(make_inputs, raw_rows_as_tensors):
    """With so much momentum the averages have hardly left the first step's weights, though the loss is far down."""
    settings = {"optimizer": {"ema": 0.999}, "learning_rate": 0.02, "max_epochs": 6}
    epochs, _ = trained(make_inputs, **settings)
    plain, _ = trained(make_inputs, **{**settings, "optimizer": {}})
    assert epochs[-1]["train"]["loss"] == pytest.approx(plain[-1]["train"]["loss"])
    assert epochs[-1]["eval"]["loss"] > plain[-1]["eval"]["loss"] + 0.05
    for patience in (None, 3):
        inputs = make_inputs(rows=300, training={**SETTINGS, **settings, "early_stopping_patience": patience})
        paths = inputs.arguments("run")
        report = run(**paths)
        served = tf.saved_model.load(paths["model"] / "saved_model").signatures["serving_default"]
        answer = served(**raw_rows_as_tensors(inputs.raw["eval"], slice(None)))["probability"].numpy()
        label = labels(inputs)
        loss = -np.mean(np.log(np.where(label == 1, answer, 1 - answer)))
        assert report.eval_loss == pytest.approx(loss, rel=1e-4)


def labels(inputs) -> np.ndarray:
    table = pq.read_table([str(p) for p in parts(inputs.transformed, "eval")])
    return table["__label__"].to_numpy()


def test_a_schedule_spans_the_training_and_the_history_tells_the_rate(make_inputs):
    schedule = {"kind": "linear", "warmup_steps": 2, "final": 0.5}
    epochs, _ = trained(make_inputs, schedule=schedule, learning_rate=0.01)
    assert epochs[0]["learning_rate"] == pytest.approx(0.01 * (1 - 0.5 * 3 / 8))
    assert epochs[-1]["learning_rate"] == pytest.approx(0.005)


def test_replicas_gradients_are_clipped_as_their_sum():
    """(3, 4) and (-3, 4) make (0, 8): within a norm of 1 that is (0, 1); Keras clips each, to (0, 1.6) together."""
    script = Path(__file__).with_name("clipped.py")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    taken = json.loads(done.stdout.splitlines()[-1])
    for scale in ("None", "8.0"):
        assert taken[f"global_clipnorm {scale}"] == pytest.approx([0.0, -1.0])
        assert taken[f"clipnorm {scale}"] == pytest.approx([0.0, -1.0])
        assert taken[f"clipvalue {scale}"] == pytest.approx([0.0, -2.0])
