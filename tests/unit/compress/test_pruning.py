"""Pruning by magnitude: as much as the schedule says, the smallest first, and for good."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tidemill.compress.pruning import Pruner, Schedule, prunable


class FakeSteps:
    def __init__(self, model: keras.Model) -> None:
        self.model = model


def shares(schedule: Schedule, steps: int) -> list[float]:
    return [float(schedule.share(tf.constant(step))) for step in range(steps)]


def test_the_share_of_zeros_follows_the_polynomial_of_zhu_and_gupta():
    schedule = Schedule(0.8, 10, 1)
    expected = [0.8 + (0 - 0.8) * (1 - (t + 1) / 10) ** 3 for t in range(10)]
    np.testing.assert_allclose(shares(schedule, 10), expected, rtol=1e-5)
    assert shares(schedule, 13)[9:] == pytest.approx([0.8] * 4)


def test_neither_biases_of_heads_nor_tokens_are_pruned():
    attention = keras.layers.MultiHeadAttention(2, 4)
    attention(np.zeros((1, 3, 8), np.float32), np.zeros((1, 3, 8), np.float32))
    assert [variable.name for variable in prunable(attention.trainable_variables)] == ["kernel"] * 4


def test_pruning_is_due_every_so_many_steps_and_at_the_end():
    schedule = Schedule(0.5, 12, 5)
    due = [step for step in range(30) if bool(schedule.due(tf.constant(step)))]
    assert due == [0, 5, 10, 11]


def trained(optimizer: keras.optimizers.Optimizer, schedule: Schedule, steps: int) -> tuple[list[np.ndarray], float]:
    """Returns the kernel after each step of a training on noise, and the share of zeros in the end."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(6), keras.layers.Dense(1)])
    model.compile(optimizer=optimizer, loss="mse")
    optimizer.build(model.trainable_variables)
    pruner = Pruner(schedule)
    pruner.attach(FakeSteps(model))
    generator = np.random.default_rng(0)
    kernels = []

    @tf.function
    def step(x: tf.Tensor, y: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x) - y))
        optimizer.apply(tape.gradient(loss, [v.value for v in model.trainable_variables]), model.trainable_variables)

    for _ in range(steps):
        step(
            tf.constant(generator.normal(size=(16, 8)), tf.float32),
            tf.constant(generator.normal(size=(16, 1)), tf.float32),
        )
        kernels.append(np.array(model.layers[0].kernel))
    return kernels, pruner.finish()


@pytest.mark.parametrize("kind", ["Adam", "SGD"])
def test_what_is_pruned_stays_at_zero_and_the_schedule_is_kept(kind):
    kernels, share = trained(getattr(keras.optimizers, kind)(0.05), Schedule(0.75, 10, 1), 16)
    zeros = [kernel == 0 for kernel in kernels]
    for before, after in itertools.pairwise(zeros):
        assert (after | ~before).all(), "a pruned weight came back"
    assert [int(z.sum()) for z in zeros[9:]] == [36] * 7  # of 48
    assert share == pytest.approx((36 + round(0.75 * 6)) / 54, abs=0.02)


def test_the_smallest_weights_go_first():
    kernels, _ = trained(keras.optimizers.SGD(0.0), Schedule(0.5, 1, 1), 1)
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(6), keras.layers.Dense(1)])
    before = np.abs(np.array(model.layers[0].kernel))
    kept = kernels[0] != 0
    assert before[kept].min() > before[~kept].max()


def test_an_average_of_weights_is_pruned_too():
    _, share = trained(keras.optimizers.Adam(0.05, use_ema=True), Schedule(0.75, 4, 1), 8)
    assert share >= 0.72


def test_biases_are_not_pruned():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(6), keras.layers.Dense(1)])
    assert [variable.path.rsplit("/", 1)[-1] for variable in prunable(model.trainable_variables)] == ["kernel"] * 2
