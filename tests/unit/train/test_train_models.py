"""The user's build_model: what it is told, and what is said when it doesn't keep the contract."""

from __future__ import annotations

from pathlib import Path

import pytest
import tensorflow as tf

from tidemill.errors import UserCodeError
from tidemill.train.architectures import ARCHITECTURES
from tidemill.train.context import LabelSummary, TrainContext
from tidemill.train.models import call_model, sample
from tidemill.train.run import run
from tidemill.training import Training
from tidemill.transform.features import TransformedFeature

HEAD = """
import keras
from keras import layers, ops


def build_model(context):
"""
COMPILED = """
    model.compile(optimizer=keras.optimizers.RMSprop(context.training.learning_rate), loss="binary_crossentropy",
                  metrics=["accuracy"], weighted_metrics=[keras.metrics.AUC(name="auc")])
    return model
"""
FUNCTIONAL = """
    inputs = context.inputs()
    note = layers.Embedding(context.vocabulary_sizes["note"], 4, mask_zero=False)(inputs["note"])
    columns = [layers.GlobalAveragePooling1D()(note), inputs["edu_parts"], inputs["hours-per-week"][:, None]]
    hidden = layers.BatchNormalization()(layers.Dense(8, "relu")(layers.Concatenate()(columns)))
    output = layers.Dense(1, "sigmoid")(layers.Dropout(0.2)(hidden))
    # The color is left out: a model needn't take all features.
    taken = {name: tensor for name, tensor in inputs.items() if name != "1st color"}
    model = keras.Model(taken, output)
"""
SUBCLASSED = """
    class Sum(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(1, "sigmoid")

        def call(self, inputs):
            return self.dense(ops.stack([inputs["hours-per-week"], *ops.unstack(inputs["edu_parts"], 2, 1)], 1))

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return ops.mean(ops.square(y - y_pred)) * 10.0

    model = Sum()
"""


@pytest.mark.parametrize("body", [FUNCTIONAL, SUBCLASSED])
def test_a_users_model_is_trained_by_its_own_loss_and_metrics(make_inputs, body):
    settings = {"max_epochs": 15, "learning_rate": 0.03, "batch_size": 64}
    report = run(**make_inputs(model=HEAD + body + COMPILED, training=settings).arguments("run"))
    assert report.model == "model:build_model"
    assert set(report.metrics) == {"accuracy", "auc"}
    assert report.metrics["auc"] > 0.7
    # Ten times the squared error, and the cross-entropy: neither is the default's.
    assert report.eval_loss > 1 if body is SUBCLASSED else report.eval_loss < 0.69


def test_learning_rate_schedules_work(make_inputs):
    import json

    compiled = """
    rate = keras.optimizers.schedules.CosineDecay(0.01, context.max_steps)
    model.compile(optimizer=keras.optimizers.AdamW(rate, clipnorm=1.0), loss=keras.losses.BinaryFocalCrossentropy())
    return model
"""
    paths = make_inputs(model=HEAD + FUNCTIONAL + compiled).arguments("run")
    run(**paths)
    epochs = json.loads((paths["history"] / "history.json").read_text())["epochs"]
    assert epochs[-1]["learning_rate"] < epochs[0]["learning_rate"] < 0.01


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("    return 3", "model:build_model: must return a keras.Model .got int"),
        (FUNCTIONAL + "    return model", "must return a compiled model"),
        ("    1 / 0", r"model.py:7: model:build_model raised while it built the model .got ZeroDivisionError"),
        (
            '    x = keras.Input((), name="age")\n    model = keras.Model({"age": x}, layers.Dense(1)(x[:, None]))'
            + COMPILED,
            "inputs must be among the features hours-per-week, edu_parts, 1st color, note .got age",
        ),
        (
            '    x = keras.Input((), name="age")\n    model = keras.Model(x, layers.Dense(1)(x[:, None]))' + COMPILED,
            "inputs must be a dict by feature name",
        ),
        (
            FUNCTIONAL + "    model = keras.Model(taken, layers.Dense(3)(hidden))" + COMPILED,
            r"the output for 2 examples must be one value per example, shape \(2, 1\) .got \(2, 3\)",
        ),
        (
            SUBCLASSED.replace('inputs["edu_parts"]', 'inputs["edu_part"]') + COMPILED,
            r"model.py:\d+: model:build_model returned a model that can't be called .got KeyError",
        ),
        (
            SUBCLASSED.replace(
                "compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True)",
                "train_step(self, data)",
            )
            + COMPILED,
            "must not override train_step",
        ),
        (
            SUBCLASSED.replace("* 10.0", "@ undefined") + COMPILED,
            r"model.py:\d+: model:build_model made a model that can't be trained .got NameError",
        ),
        (FUNCTIONAL + "    model.trainable = False" + COMPILED, "has nothing to train"),
    ],
)
# Keras warns of what a subclassed model raises before it raises it.
@pytest.mark.filterwarnings("ignore:.*unbuilt state:UserWarning")
def test_a_broken_contract_is_told_with_the_users_line(make_inputs, body, message):
    inputs = make_inputs(model=HEAD + body + "\n")
    with pytest.raises(UserCodeError, match=message):
        run(**inputs.arguments("run"))


def test_ids_beyond_an_embedding_are_the_users_fault_too(make_inputs):
    body = FUNCTIONAL.replace('context.vocabulary_sizes["note"]', "2")
    inputs = make_inputs(model=HEAD + body + COMPILED)
    with pytest.raises(UserCodeError, match=r"made a model that failed in training .got InvalidArgumentError"):
        run(**inputs.arguments("run"))


def test_a_table_that_no_layer_holds_is_told_at_export(make_inputs):
    body = SUBCLASSED.replace(
        "self.dense = ",
        "self.table = [tf.lookup.StaticHashTable(\n"
        "                tf.lookup.KeyValueTensorInitializer([0], [0.0], tf.int64), -1.0)]\n            self.dense = ",
    )
    body = body.replace('inputs["hours-per-week"]', 'self.table[0].lookup(inputs["1st color"])')
    inputs = make_inputs(model="import tensorflow as tf" + HEAD + body + COMPILED, training={"max_epochs": 1})
    with pytest.raises(UserCodeError, match=r"made a model that can't be exported .got AssertionError: Tried"):
        run(**inputs.arguments("run"))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_default_models_take_features_of_any_name(architecture):
    """Names of their own layers, of Keras's operations, and what Keras refuses as a name."""
    names = ["wide", "deep", "value", "sum", "reshape", "terms", "a/b", "hours per week", "straße"]
    kinds = ["ids", "dense", "bag"]
    features = tuple(TransformedFeature(n, kinds[i % 3], 3, 2 if i % 3 == 2 else 0, n) for i, n in enumerate(names))
    context = TrainContext(
        task="regression",
        classes=(),
        features=features,
        training=Training(),
        label=LabelSummary(10, 5.0, 2.0, (), 10.0),
        strategy=tf.distribute.get_strategy(),
        batch_size=2,
        steps_per_epoch=1,
        max_steps=1,
        checkpoints=Path("unused"),
    )
    output = call_model(ARCHITECTURES[architecture](context), sample(context, 2), training=False)
    assert output.shape == (2, 1)
    assert set(context.inputs()) == set(names)
