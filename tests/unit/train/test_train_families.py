"""Every family of models learns every task from every kind of feature, in every precision."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tidemill.artifacts import ModelManifest
from tidemill.errors import UserCodeError
from tidemill.train.architectures import ARCHITECTURES
from tidemill.train.context import LabelSummary, TrainContext
from tidemill.train.models import call_model, sample
from tidemill.train.run import run
from tidemill.training import Training
from tidemill.transform.features import TransformedFeature

CLASSES = {"binary_classification": ("no", "yes"), "multiclass_classification": ("a", "b", "c"), "regression": ()}
FEATURES = (
    TransformedFeature("number", "dense", 1, 0, "number"),
    TransformedFeature("other", "dense", 1, 0, "other"),
    TransformedFeature("vector", "dense", 3, 0, "vector"),
    TransformedFeature("color", "ids", 6, 0, "color"),
    TransformedFeature("city", "ids", 100, 0, "city"),
    TransformedFeature("note", "bag", 14, 5, "note"),
)
NEW = ("deep_and_cross", "ft_transformer")


def context(task: str = "binary_classification", features=FEATURES, **training) -> TrainContext:
    counts = {"binary_classification": (8, 2), "multiclass_classification": (5, 3, 2), "regression": ()}[task]
    return TrainContext(
        task=task,
        classes=CLASSES[task],
        features=tuple(features),
        training=Training.model_validate(training),
        label=LabelSummary(10, 5.0, 2.0, counts, 10.0),
        strategy=tf.distribute.get_strategy(),
        batch_size=4,
        steps_per_epoch=1,
        max_steps=10,
        checkpoints=Path("unused"),
    )


@pytest.mark.parametrize("family", NEW)
@pytest.mark.parametrize("task", CLASSES)
def test_every_family_learns_every_task(make_inputs, family, task):
    """Held against the linear model, which the toy data are made by; the signatures are those of all models."""
    settings = {"model": family, "max_epochs": 7, "batch_size": 64, "learning_rate": 0.01, "embedding_dimensions": 8}
    paths = make_inputs(task, rows=600, training={**settings, "transformer_blocks": 1}).arguments("run")
    report = run(**paths)
    if task == "regression":
        assert report.metrics["rmse"] < 50  # of 100 without a model
    elif task == "binary_classification":
        assert report.metrics["auc"] > 0.8
    else:
        assert report.metrics["accuracy"] > 0.7
    assert {"serving_default", "serving_examples", "transform_features"} <= set(
        ModelManifest.read(paths["model"]).signatures
    )


@pytest.mark.parametrize("family", ARCHITECTURES)
@pytest.mark.parametrize("kind", ["dense", "ids", "bag"])
def test_every_family_takes_features_of_one_kind_alone(family, kind):
    features = [f for f in FEATURES if f.kind == kind]
    for chosen in (features, features[:1]):
        told = context(features=chosen, model=family)
        answer = call_model(ARCHITECTURES[family](told), sample(told, 3), training=False)
        assert answer.shape == (3, 1)


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_an_untrained_model_answers_about_the_prior(family):
    told = context("multiclass_classification", model=family)
    answer = call_model(ARCHITECTURES[family](told), sample(told, 1), training=False).numpy()[0]
    assert answer.sum() == pytest.approx(1, abs=1e-5)
    tolerance = 1e-5 if family == "linear" else 0.35
    np.testing.assert_allclose(answer, [0.5, 0.3, 0.2], atol=tolerance)


@pytest.mark.parametrize("family", ARCHITECTURES)
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_computes_in_it_and_answers_in_float32(family, policy):
    told = context(model=family)
    keras.mixed_precision.set_dtype_policy(policy)
    try:
        model = ARCHITECTURES[family](told)
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    assert all(variable.dtype == "float32" for variable in model.trainable_variables)
    answer = call_model(model, sample(told, 3), training=True)
    assert answer.dtype == tf.float32
    computed = {layer.compute_dtype for layer in model.layers if layer.weights}
    assert policy.removeprefix("mixed_") in computed


def test_an_embedding_is_gathered_before_it_is_cast():
    """Otherwise each step would cast the whole table, and its gradient would be as large."""
    keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    try:
        model = ARCHITECTURES["wide_and_deep"](told := context())
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(call_model(model, sample(told, 3), training=False))
    assert isinstance(tape.gradient(loss, model.get_layer("wide").table.value), tf.IndexedSlices)


@pytest.mark.parametrize("family", NEW)
def test_the_same_seed_gives_the_same_weights(make_inputs, family):
    settings = {"model": family, "max_epochs": 1, "batch_size": 64, "embedding_dimensions": 8, "transformer_blocks": 1}
    inputs = make_inputs(rows=200, training=settings)
    digests = []
    for name in ("first", "second"):
        run(**inputs.arguments(name))
        digests.append(ModelManifest.read(inputs.outputs(name)["model"]).lineage["weights"])
    assert digests[0] == digests[1]


def test_a_cross_layer_is_that_of_the_paper():
    """x' = x0 * (W x + b) + x, twice, of two numbers."""
    features = FEATURES[:2]
    told = context(features=features, model="deep_and_cross", dropout=0.0)
    model = ARCHITECTURES["deep_and_cross"](told)
    rng = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(rng.normal(size=variable.shape))
    start = crossed = hidden = np.array([[0.7, -1.3]])
    for i in range(2):
        kernel, bias = (np.array(v) for v in model.get_layer(f"cross_{i}").weights)
        crossed = start * (crossed @ kernel + bias) + crossed
        kernel, bias = (np.array(v) for v in model.get_layer(f"hidden_{i}").weights)
        hidden = np.maximum(0, hidden @ kernel + bias)
    kernel, bias = (np.array(v) for v in model.get_layer("output").weights)
    logit = np.concatenate([crossed, hidden], axis=1) @ kernel + bias
    answer = call_model(model, {"number": tf.constant([0.7]), "other": tf.constant([-1.3])}, training=False)
    assert answer.numpy() == pytest.approx(1 / (1 + np.exp(-logit)), rel=1e-4)


def test_no_weights_of_a_transformer_begin_with_the_same_numbers():
    features = [TransformedFeature(name, "bag", 14, 5, name) for name in ("note", "title")]
    model = ARCHITECTURES["ft_transformer"](context(features=[*FEATURES[:2], *features], model="ft_transformer"))
    drawn = [np.array(weight).ravel()[:64] for weight in model.weights]
    drawn = [values for values in drawn if len(np.unique(values)) > 1]  # not those that begin at 0 or 1
    assert len({tuple(values) for values in drawn}) == len(drawn)


def test_a_transformers_answer_depends_on_every_feature_and_each_has_a_token():
    told = context(model="ft_transformer", transformer_blocks=2)
    model = ARCHITECTURES["ft_transformer"](told)
    assert model.get_layer("tokens").output.shape == (None, 1 + len(FEATURES), 64)
    base = sample(told, 1)
    answer = call_model(model, base, training=False).numpy()
    for feature in FEATURES:
        changed = {**base, feature.name: base[feature.name] + tf.ones_like(base[feature.name])}
        assert not np.allclose(call_model(model, changed, training=False), answer, atol=1e-7), feature.name


SEQUENTIAL = """
import keras
from keras import layers, ops


class Joined(layers.Layer):
    def call(self, inputs):
        return ops.concatenate([inputs["edu_parts"], inputs["hours-per-week"][:, None]], axis=1)


def build_model(context):
    model = keras.Sequential([Joined(), layers.Dense(8, "relu"), layers.Dense(1), context.probabilities()])
    model.compile(optimizer=context.optimizer(), loss=context.loss(), weighted_metrics=[keras.metrics.AUC(name="auc")])
    return model
"""
SUBCLASSED = """
import keras
from keras import layers, ops


class Net(keras.Model):
    def __init__(self, context):
        super().__init__()
        self.colors = layers.Embedding(context.vocabulary_sizes["1st color"], 4)
        self.hidden, self.logits = layers.Dense(8, "relu"), layers.Dense(1)
        self.answer = context.probabilities()

    def call(self, inputs, training=False):
        columns = [inputs["edu_parts"], inputs["hours-per-week"][:, None], self.colors(inputs["1st color"])]
        return self.answer(self.logits(self.hidden(ops.concatenate(columns, axis=1))), training=training)


def build_model(context):
    model = Net(context)
    model.compile(optimizer=context.optimizer(), loss=context.loss(), weighted_metrics=[keras.metrics.AUC(name="auc")])
    return model
"""


@pytest.mark.parametrize("source", [SEQUENTIAL, SUBCLASSED], ids=["sequential", "subclassed"])
def test_a_users_model_of_any_kind_takes_the_settings_that_it_asks_for(make_inputs, source, raw_rows_as_tensors):
    training = {"max_epochs": 8, "batch_size": 64, "learning_rate": 0.02, "focal_gamma": 2.0, "optimizer": {"ema": 0.9}}
    inputs = make_inputs(rows=600, model=source, training=training)
    paths = inputs.arguments("run")
    assert run(**paths).metrics["auc"] > 0.65
    served = tf.saved_model.load(paths["model"] / "saved_model").signatures["serving_default"]
    answer = served(**raw_rows_as_tensors(inputs.raw["eval"], slice(None)))["probability"].numpy()
    assert 0 < answer.min() < answer.max() < 1


def test_an_optimizer_that_accumulates_by_itself_is_refused_for_several_replicas(make_inputs, monkeypatch):
    """Keras' own branches on the step, within which replicas can't wait for each other."""
    source = SEQUENTIAL.replace("context.optimizer()", "keras.optimizers.Adam(gradient_accumulation_steps=4)")
    run(**make_inputs(rows=200, model=source, training={"max_epochs": 1}).arguments("run"))
    monkeypatch.setattr(tf.distribute.Strategy, "num_replicas_in_sync", 2)
    with pytest.raises(
        UserCodeError, match=r"must not accumulate gradients itself .*\(got gradient_accumulation_steps=4"
    ):
        run(**make_inputs(rows=200, model=source, training={"max_epochs": 1}).arguments("run"))
