"""What LiteRT and ONNX can't take is told by the operation's name, and to whom it belongs."""

from __future__ import annotations

import numpy as np
import pytest

from tidemill.compress import litert, onnx_file
from tidemill.compress.fitting import Course
from tidemill.compress.networks import SavedNetwork
from tidemill.compress.run import run
from tidemill.compress.samples import training_rows
from tidemill.compression import LiteRT, Onnx
from tidemill.errors import DataError, ProblemError, TidemillError, UserCodeError
from tidemill.hyperparameters import write_hyperparameters
from tidemill.training import Training
from tidemill.transform.features import TransformedFeatures

STRINGS = """
import keras
import tensorflow as tf


class Written(keras.layers.Layer):
    def call(self, value):
        return tf.cast(tf.strings.length(tf.strings.as_string(value)), tf.float32)[:, None]


def build_model(context):
    inputs = context.inputs()
    written = Written()(inputs["hours-per-week"])
    answer = keras.layers.Dense(1, "sigmoid")(written)
    model = keras.Model(inputs, answer)
    model.compile(optimizer="sgd", loss="binary_crossentropy")
    return model
"""
FICKLE = """
import sys

import keras


def build_model(context):
    sys.built = getattr(sys, "built", 1) + 1
    inputs = context.inputs()
    hidden = keras.layers.Dense(sys.built, "relu", name="hidden")(inputs["edu_parts"])
    model = keras.Model(inputs, keras.layers.Dense(1, "sigmoid", name="answer")(hidden))
    model.compile(optimizer="sgd", loss="binary_crossentropy")
    return model
"""


@pytest.mark.parametrize(
    ("variant", "lacks"),
    [({"kind": "litert"}, r"LiteRT has no AsString, StringLength"), ({"kind": "onnx"}, r"ONNX \(opset 18\) has no")],
)
def test_an_operation_that_a_format_lacks_is_named(project_of, tmp_path, variant, lacks):
    project = project_of(model=STRINGS)
    with pytest.raises(UserCodeError, match=rf"model:build_model: compression\.variants\.mine: {lacks}") as refused:
        run(**project.arguments(tmp_path, {"variants": {"mine": variant}}))
    assert "StringLength" in str(refused.value)
    assert not (tmp_path / "compressed").exists()
    assert not (tmp_path / "compression").exists()


def test_int8_without_enough_representative_rows_is_refused(project, original):
    sample = training_rows(project.examples, original, 20)
    variant = LiteRT(quantization="int8", representative_rows=64)
    with pytest.raises(DataError, match=r"compression\.variants\.m: int8 needs 64 representative rows .*\(got 20\)"):
        litert.convert("m", variant, project.model, original.inputs, sample, "model")


def test_representative_rows_come_from_all_over_the_training_split(project, original):
    found = training_rows(project.examples, original, 12)
    every = training_rows(project.examples, original, 5000)
    assert len(found["note"]) == 12
    assert len(every["note"]) == 1200
    np.testing.assert_array_equal(found["hours-per-week"], every["hours-per-week"][::100])


def test_a_model_that_is_built_otherwise_each_time_cannot_be_pruned(project_of, tmp_path):
    project = project_of(model=FICKLE)
    with pytest.raises(UserCodeError, match="must build the same network whenever it is called"):
        run(**project.arguments(tmp_path, {"variants": {"sparse": {"kind": "pruned"}}}))


def test_a_network_whose_tuning_left_out_rows_cannot_be_pruned(project, tmp_path):
    """What problem.yaml alone can't tell where the search space is code."""
    write_hyperparameters(tmp_path / "found", {"resample": 0.49})
    arguments = project.arguments(tmp_path, {"variants": {"sparse": {"kind": "pruned"}}})
    with pytest.raises(ProblemError, match=r"variants\.sparse: pruned needs a training on all rows"):
        run(**arguments, hyperparameters=tmp_path / "found")


def test_variants_are_trained_with_the_batch_of_one_replica_where_that_is_what_is_given(project, tmp_path):
    training = Training(per_replica_batch_size=96)
    described = TransformedFeatures.read(project.transform_graph)
    assert Course(project.transformed, described, training, tmp_path, {}).context().batch_size == 96


def test_a_network_that_answers_otherwise_than_the_server_is_refused(project, original, monkeypatch):
    batch = project.test_rows().combine_chunks().to_batches()[0]
    original.check(batch, "probability")
    monkeypatch.setattr(SavedNetwork, "answer", lambda *_: np.zeros((batch.num_rows, 1), np.float32))
    with pytest.raises(TidemillError, match="its network must answer as serving_default does"):
        original.check(batch, "probability")


def test_the_oldest_opset_will_do(original):
    assert onnx_file.convert("edge", Onnx(opset=13), original, "model")
