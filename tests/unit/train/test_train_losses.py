"""Probabilities come out of focal loss and resampling as they went in."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tidemill.train.losses import Probabilities, SparseFocal, classification_loss
from tidemill.train.run import run


def focal(v: np.ndarray, gamma: float) -> np.ndarray:
    """Lin et al. 2017, eq. 4."""
    return -((1 - v) ** gamma) * np.log(v)


def test_focal_losses_are_those_of_the_definition():
    v = np.array([[0.2], [0.7]])
    binary = classification_loss(1, 2.0)(np.array([[1.0], [0.0]]), v)
    assert float(binary) == pytest.approx((focal(0.2, 2) + focal(0.3, 2)) / 2, rel=1e-5)
    three = np.array([[0.2, 0.5, 0.3], [0.1, 0.8, 0.1]])
    multiclass = SparseFocal(1.5)(np.array([2, 1]), three)
    assert float(multiclass) == pytest.approx((focal(0.3, 1.5) + focal(0.8, 1.5)) / 2, rel=1e-5)
    assert isinstance(classification_loss(1), keras.losses.BinaryCrossentropy)
    assert isinstance(classification_loss(3), keras.losses.SparseCategoricalCrossentropy)


def logit(p: np.ndarray) -> np.ndarray:
    return np.log(p / (1 - p))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_the_minimum_of_focal_loss_becomes_the_probability_that_it_is_the_minimum_of(gamma):
    grid = np.linspace(1e-5, 1 - 1e-5, 200_001)
    for p in (0.01, 0.2, 0.5, 0.9):
        v = grid[np.argmin(p * focal(grid, gamma) + (1 - p) * focal(1 - grid, gamma))]
        assert p == 0.5 or abs(v - p) > 0.01  # or there would be nothing to undo
        layer = Probabilities(gamma)
        assert float(layer(tf.constant([[logit(v)]]))[0, 0]) == pytest.approx(p, abs=2e-4)
        assert float(layer(tf.constant([[logit(v)]]), training=True)[0, 0]) == pytest.approx(v, abs=1e-5)
        both = Probabilities(gamma)(tf.math.log(tf.constant([[1 - v, v]], tf.float32)))
        assert both.numpy()[0, 1] == pytest.approx(p, abs=2e-4)


def test_leaving_out_rows_is_undone_for_two_classes_and_for_more():
    p, kept = np.array([0.7, 0.2, 0.1]), np.array([0.25, 0.5, 1.0])
    seen = p * kept / (p * kept).sum()
    answer = Probabilities(kept=kept)(tf.constant(np.log(seen)[None], tf.float32))
    np.testing.assert_allclose(answer[0], p, rtol=1e-5)
    seen = 0.02 / (0.02 + 0.98 * 0.1)
    assert float(Probabilities(kept=(0.1, 1.0))(tf.constant([[logit(seen)]], tf.float32))[0, 0]) == pytest.approx(0.02)


def test_both_are_undone_together():
    kept, gamma, p = (0.1, 1.0), 2.0, 0.05
    seen = p / (p + (1 - p) * kept[0])
    grid = np.linspace(1e-5, 1 - 1e-5, 200_001)
    v = grid[np.argmin(seen * focal(grid, gamma) + (1 - seen) * focal(1 - grid, gamma))]
    assert float(Probabilities(gamma, kept)(tf.constant([[logit(v)]]))[0, 0]) == pytest.approx(p, abs=1e-4)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_extreme_logits_stay_probabilities_in_order(gamma):
    logits = np.array([-300.0, -80, -20, -5, 0, 5, 20, 80, 300], np.float32)
    answer = Probabilities(gamma, (0.2, 1.0))(logits[:, None]).numpy()[:, 0]
    assert np.isfinite(answer).all()
    assert (np.diff(answer) >= 0).all()
    assert answer[0] < 1e-6
    assert answer[-1] > 1 - 1e-6


def test_a_layer_is_made_again_from_its_config():
    layer = Probabilities(2.0, (0.5, 1.0))
    logits = tf.constant([[0.3]])
    assert float(Probabilities.from_config(layer.get_config())(logits)[0, 0]) == float(layer(logits)[0, 0])


@pytest.mark.parametrize("task", ["binary_classification", "multiclass_classification"])
def test_a_model_of_focal_loss_answers_probabilities_and_is_evaluated_by_log_loss(make_inputs, task):
    """Its eval loss is about that of the model of log loss; uncorrected it would be far off."""
    settings = {"learning_rate": 0.01, "max_epochs": 8, "batch_size": 64, "dropout": 0.0}
    plain = run(**make_inputs(task, rows=2000, training=settings).arguments("run"))
    focal_inputs = make_inputs(task, rows=2000, training={**settings, "focal_gamma": 3.0})
    of_focal = run(**focal_inputs.arguments("run"))
    assert of_focal.train_loss < plain.train_loss - 0.1  # another loss
    assert of_focal.eval_loss == pytest.approx(plain.eval_loss, rel=0.06)
