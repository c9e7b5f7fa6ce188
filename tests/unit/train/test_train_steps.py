"""The graph functions: gradients, losses and metrics over blocks."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tidemill.train.batches import Block, Packing
from tidemill.train.context import LabelSummary, TrainContext
from tidemill.train.steps import Steps, summed
from tidemill.training import Training
from tidemill.transform.features import TransformedFeature, TransformedFeatures

IDS, REPEATS, RATE = 4, 30, 0.01


def context_of(features, batch_size):
    return TrainContext(
        task="regression",
        classes=(),
        features=features,
        training=Training(),
        label=LabelSummary(1, 0.0, 1.0, (), 1.0),
        strategy=tf.distribute.get_strategy(),
        batch_size=batch_size,
        steps_per_epoch=1,
        max_steps=1,
        checkpoints=Path("unused"),
    )


def embedding_steps(optimizer, batch_size=REPEATS, weighted=False):
    """Returns steps of a model that answers with the one number that is stored for an id."""
    features = (TransformedFeature("id", "ids", IDS, 0, "id"),)
    context = context_of(features, batch_size)
    inputs = context.inputs()
    output = layers.Embedding(IDS, 1, embeddings_initializer="zeros")(inputs["id"])
    model = keras.Model(inputs, output)
    model.compile(optimizer=optimizer, loss="mse", **{"weighted_metrics" if weighted else "metrics": ["mae"]})
    packing = Packing(TransformedFeatures({"id": "int64"}, features, "__label__", None, (), "regression"))
    return Steps(model, packing, context, weighted)


def id_block(ids, labels):
    ids = np.asarray(ids, np.int32).reshape(-1, 1)
    return Block(np.empty((len(ids), 0), np.float32), ids, np.asarray(labels, np.float32), None)


def adam(gradients, rate=RATE, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    """Returns the weights after the steps. Definition: Kingma and Ba 2015, before section 2.1."""
    weight = np.zeros_like(gradients[0])
    m, v = np.zeros_like(weight), np.zeros_like(weight)
    for t, gradient in enumerate(gradients, 1):
        m = beta_1 * m + (1 - beta_1) * gradient
        v = beta_2 * v + (1 - beta_2) * gradient**2
        weight = weight - rate * np.sqrt(1 - beta_2**t) / (1 - beta_1**t) * m / (np.sqrt(v) + epsilon)
    return weight


def test_adam_moves_the_embedding_of_a_repeated_id_as_far_as_the_closed_form_says():
    """Keras 3.15 alone squares each of the 30 slices: it fails this by a factor of sqrt(30) in the second step."""
    steps = embedding_steps(keras.optimizers.Adam(RATE))
    steps.train(id_block([1] * REPEATS, [1.0] * REPEATS))
    steps.train(id_block([2] * REPEATS, [3.0] * REPEATS))
    # d mse / d weight of a batch that is all one id, at weight 0: -2 * label.
    first, second = np.zeros(IDS), np.zeros(IDS)
    first[1], second[2] = -2.0, -6.0
    found = np.array(steps.model.trainable_variables[0])[:, 0]
    np.testing.assert_allclose(found, adam([first, second]), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", ["Adam", "AdamW", "Adagrad", "RMSprop", "Ftrl", "SGD", "Lion", "Nadam"])
def test_an_embedding_learns_as_a_dense_layer_over_one_hot_ids_does(name):
    optimizer = getattr(keras.optimizers, name)
    steps = embedding_steps(optimizer(learning_rate=0.1), batch_size=8)
    dense = keras.Sequential([keras.Input((IDS,)), layers.Dense(1, use_bias=False, kernel_initializer="zeros")])
    dense.compile(optimizer=optimizer(learning_rate=0.1), loss="mse")
    rng = np.random.default_rng(0)
    for _ in range(3):
        ids, labels = rng.integers(0, IDS - 1, 8), rng.normal(size=8).astype(np.float32)
        steps.train(id_block(ids, labels))
        dense.train_on_batch(np.eye(IDS, dtype=np.float32)[ids], labels[:, None])
    found, expected = (np.array(m.trainable_variables[0]) for m in (steps.model, dense))
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)


def test_sparse_gradients_are_summed_by_row():
    slices = tf.IndexedSlices(tf.constant([[1.0], [2.0], [4.0]]), tf.constant([2, 0, 2]), tf.constant([3, 1]))
    assert summed(slices).numpy().tolist() == [[2.0], [0.0], [5.0]]


def test_a_block_takes_one_step_per_batch_and_the_last_batch_may_be_smaller():
    rng = np.random.default_rng(0)
    ids, labels = rng.integers(0, IDS, 20), rng.normal(size=20).astype(np.float32)
    whole, single = (embedding_steps(keras.optimizers.Adam(RATE), batch_size=8) for _ in range(2))
    loss = whole.train(id_block(ids, labels)).loss
    losses = [single.train(id_block(ids[i : i + 8], labels[i : i + 8])).loss for i in (0, 8, 16)]
    assert loss == pytest.approx(sum(losses))
    assert int(whole.model.optimizer.iterations) == 3
    np.testing.assert_array_equal(*(np.array(s.model.trainable_variables[0]) for s in (whole, single)))


def test_evaluation_is_over_all_examples_however_they_are_cut():
    steps = embedding_steps("sgd", batch_size=8)
    labels = np.arange(21, dtype=np.float32)
    block = id_block([0] * 21, labels)
    results = steps.evaluate([block[:16], block[16:]])
    assert results == {"loss": pytest.approx(np.mean(labels**2)), "mae": pytest.approx(10.0)}
    assert steps.results(0.0)["mae"] == 0.0, "the metrics begin anew"


def test_a_metric_that_is_not_finite_is_none():
    steps = embedding_steps("sgd")
    steps.evaluate([id_block([0], [1.0])])
    steps.model.metrics[1].update_state(np.array([[np.nan]]), np.array([[1.0]]))
    assert steps.results(0.5) == {"loss": 0.5, "mae": None}


def test_an_example_of_weight_two_counts_as_two():
    rng = np.random.default_rng(0)
    ids, labels = rng.integers(0, IDS, 20), rng.normal(size=20).astype(np.float32)
    weighted = embedding_steps(keras.optimizers.Adam(RATE), 20, weighted=True)
    plain = embedding_steps(keras.optimizers.Adam(RATE), 10)
    block = dataclasses.replace(id_block(ids, labels), weight=np.repeat([2, 0], 10).astype(np.float32))
    assert weighted.train(block).loss / 20 == pytest.approx(plain.train(id_block(ids[:10], labels[:10])).loss / 10)
    np.testing.assert_allclose(*(np.array(s.model.trainable_variables[0]) for s in (weighted, plain)), rtol=1e-6)
    found, expected = weighted.evaluate([block]), plain.evaluate([id_block(ids[:10], labels[:10])])
    assert found == {name: pytest.approx(value) for name, value in expected.items()}
