"""The SavedModel: signatures that agree with each other, with Keras and with themselves in any batch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tidemill.artifacts import ModelManifest
from tidemill.errors import DataError, ProblemError
from tidemill.instances import MISSING
from tidemill.network import read_inputs, read_weights
from tidemill.train import run as stage
from tidemill.train.batches import Block, Examples, Packing
from tidemill.train.export import ServedModel, check_names
from tidemill.train.models import call_model
from tidemill.transform.features import TransformedFeature, TransformedFeatures

TASKS = ("binary_classification", "multiclass_classification", "regression")


@pytest.fixture(scope="module", params=TASKS)
def trained(request, make_inputs):
    """Returns inputs, output paths, the signatures and the Keras model before export."""
    weighted = request.param == "multiclass_classification"
    inputs = make_inputs(request.param, training={"learning_rate": 0.02}, weighted=weighted)
    paths = inputs.arguments("run")
    models = []
    with pytest.MonkeyPatch.context() as patch:
        build = stage.build_model
        patch.setattr(stage, "build_model", lambda *a: models.append(build(*a)) or models[0])
        stage.run(**paths)
    return inputs, paths, tf.saved_model.load(paths["model"] / "saved_model").signatures, models[0]


def answers(signature, raw, rows=slice(None)):
    dtypes = {"hours-per-week": tf.float32, "education num": tf.int64}
    outputs = signature(**{n: tf.constant(v[rows], dtypes.get(n, tf.string)) for n, v in raw.items()})
    return {name: tensor.numpy() for name, tensor in outputs.items()}


def example(raw, row, empty):
    """Returns a serialized tf.Example; a missing value is an absent feature, or one with an empty list."""
    features = {}
    for name, values in raw.items():
        kind, value = values.dtype.kind, values[row]
        missing = np.isnan(value) if kind == "f" else value == MISSING["int64" if kind == "i" else "string"]
        if missing and not empty:
            continue
        found = [] if missing else [value]
        if kind == "f":
            features[name] = tf.train.Feature(float_list=tf.train.FloatList(value=found))
        elif kind == "i":
            features[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=found))
        else:
            features[name] = tf.train.Feature(bytes_list=tf.train.BytesList(value=found))
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def number(task):
    return {"binary_classification": "probability", "multiclass_classification": "probabilities"}.get(task, "value")


def scale(values):
    return max(1.0, float(np.abs(values).max()))


def test_raw_rows_are_answered_as_keras_answers_the_transformed_examples(trained):
    inputs, _, signatures, model = trained
    described = TransformedFeatures.read(inputs.transform_graph)
    packing = Packing(described)
    block = Block.concat(list(Examples(inputs.transformed, "test", packing).blocks(64)))
    features, _, _ = packing.unpack(block.tensors())
    expected = call_model(model, features, training=False).numpy()
    found = answers(signatures["serving_default"], inputs.raw["test"])[number(described.task)]
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=0, atol=1e-6 * scale(expected))


@pytest.mark.parametrize("empty", [False, True])
def test_serialized_examples_are_answered_as_raw_rows_are(trained, empty):
    inputs, _, signatures, _ = trained
    raw = inputs.raw["test"]
    expected = answers(signatures["serving_default"], raw)
    examples = tf.constant([example(raw, row, empty) for row in range(len(raw["note"]))])
    found = signatures["serving_examples"](examples=examples)
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name].numpy(), values)


def test_the_answer_does_not_depend_on_the_batch(trained):
    inputs, paths, signatures, _ = trained
    raw = {name: values[:64] for name, values in inputs.raw["test"].items()}
    name = number(ModelManifest.read(paths["model"]).task)
    whole = answers(signatures["serving_default"], raw)[name]
    single = [answers(signatures["serving_default"], raw, slice(i, i + 1))[name] for i in range(64)]
    np.testing.assert_allclose(np.concatenate(single), whole, rtol=0, atol=1e-6 * scale(whole))
    assert answers(signatures["serving_default"], raw, slice(0, 0))[name].shape == (0, *whole.shape[1:])


def test_the_transformed_features_are_those_that_were_trained_on(trained):
    inputs, _, signatures, _ = trained
    packing = Packing(TransformedFeatures.read(inputs.transform_graph))
    block = Block.concat(list(Examples(inputs.transformed, "test", packing).blocks(64)))
    expected, _, _ = packing.unpack(block.tensors())
    found = answers(signatures["transform_features"], inputs.raw["test"])
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor.numpy())


def test_the_network_answers_the_transformed_features_as_the_model_answers_raw_rows(trained):
    inputs, paths, signatures, _ = trained
    features = answers(signatures["transform_features"], inputs.raw["test"])
    taken = {each.name: tf.constant(features[each.feature]) for each in read_inputs(paths["model"])}
    assert {name: value.dtype.name for name, value in taken.items()} == {
        each.name: each.dtype for each in read_inputs(paths["model"])
    }
    found = signatures["network"](**taken)["output"].numpy()
    expected = answers(signatures["serving_default"], inputs.raw["test"])[
        number(ModelManifest.read(paths["model"]).task)
    ]
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=0, atol=1e-6 * scale(expected))


def test_the_weights_are_kept_by_their_layers_names(trained):
    _, paths, _, model = trained
    found = read_weights(paths["model"])
    assert [path for path, _ in found] == [weight.path for weight in model.weights]
    assert "hidden_0/kernel" in dict(found)
    for (_, value), weight in zip(found, model.weights, strict=True):
        np.testing.assert_array_equal(value, np.array(weight))


def test_a_model_of_before_there_was_a_network_is_told_so(tmp_path):
    for read in (read_inputs, read_weights):
        with pytest.raises(DataError, match=r"has no network/network\.json\n  → train it again"):
            read(tmp_path)


def test_the_label_is_the_class_of_the_probability(trained):
    inputs, paths, signatures, _ = trained
    manifest = ModelManifest.read(paths["model"])
    found = answers(signatures["serving_default"], inputs.raw["test"])
    if manifest.task == "regression":
        assert set(found) == {"value"}
    elif manifest.task == "binary_classification":
        assert [label.decode() for label in found["label"]] == [
            manifest.classes[int(p >= manifest.threshold)] for p in found["probability"]
        ]
    else:
        np.testing.assert_allclose(found["probabilities"].sum(axis=1), 1, atol=1e-5)
        assert [label.decode() for label in found["label"]] == [
            manifest.classes[i] for i in found["probabilities"].argmax(axis=1)
        ]


def test_the_manifest_says_what_the_signatures_take_and_give(trained):
    _, paths, signatures, _ = trained
    manifest = ModelManifest.read(paths["model"])
    assert set(manifest.signatures) == set(signatures)
    found = answers(signatures["serving_default"], {n: np.array([MISSING[d]]) for n, d in manifest.inputs.items()})
    assert {n: "string" if v.dtype == object else v.dtype.name for n, v in found.items()} == manifest.outputs
    assert set(manifest.lineage) == {"bundle", "transformed", "transform_graph", "weights"}


def test_an_example_with_two_values_of_a_column_is_refused(trained):
    _, _, signatures, _ = trained
    words = tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"red", b"green"]))
    two = tf.train.Example(features=tf.train.Features(feature={"1st color": words})).SerializeToString()
    with pytest.raises(tf.errors.InvalidArgumentError, match="1st color has more than one value"):
        signatures["serving_examples"](examples=tf.constant([two]))


def test_columns_may_have_any_name(tmp_path):
    """Names, that is, that TensorFlow would trace neither as arguments nor as nodes."""
    names = ["hours-per-week", "a b", "1st", "straße", "x/y:z", "inputs", "input_0"]
    transform = tf.Module()
    features = tuple(TransformedFeature(name, "dense", 1, 0, name) for name in names)
    raw_types = dict.fromkeys(names, "float32")
    transform.described = TransformedFeatures(raw_types, features, "__label__", None, (), "regression")

    class Transform(tf.Module):
        described = transform.described

        def __call__(self, raw):
            return raw

    class Model(tf.Module):
        layers = ()

        def call(self, inputs):
            return self(inputs)

        def __call__(self, inputs):
            return tf.reduce_sum([10.0**i * inputs[name] for i, name in enumerate(names)], axis=0)[:, None]

    class Regression:
        task = "regression"

    ServedModel(Transform(), Model(), Regression()).save(tmp_path / "saved_model")
    signatures = tf.saved_model.load(tmp_path / "saved_model").signatures
    raw = {name: tf.constant([float(i + 1)]) for i, name in enumerate(names)}
    assert signatures["serving_default"](**raw)["value"].numpy().tolist() == [7654321.0]
    assert {n: t.numpy()[0] for n, t in signatures["transform_features"](**raw).items()} == {
        name: float(i + 1) for i, name in enumerate(names)
    }
    numbered = {f"feature_{i}": value for i, value in enumerate(raw.values())}
    assert signatures["network"](**numbered)["output"].numpy().tolist() == [[7654321.0]]


@pytest.mark.parametrize("columns", [["a-b", "a_b"], ["x", "self"]])
def test_columns_that_python_could_not_tell_apart_are_refused(columns):
    check_names(columns[:1])
    with pytest.raises(ProblemError, match=f"column {columns[1]}: is the same to a TensorFlow signature as"):
        check_names(columns)


PLAIN = """
import json, sys
import numpy as np
import tensorflow as tf
signature = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
rows = json.loads(sys.stdin.read())
dtypes = {"hours-per-week": tf.float32, "education num": tf.int64}
outputs = signature(**{n: tf.constant(v, dtypes.get(n, tf.string)) for n, v in rows.items()})
assert not {"tensorflow_transform", "tidemill"} & set(sys.modules)
print(json.dumps({n: t.numpy().tolist() for n, t in outputs.items() if t.dtype != tf.string}))
"""


@pytest.mark.parametrize("trained", ["multiclass_classification"], indirect=True)
def test_a_process_with_nothing_but_tensorflow_answers_the_same(trained):
    inputs, paths, signatures, _ = trained
    python = Path(sys.prefix).parent / "serving" / "bin" / "python"
    if not python.is_file():
        pytest.skip("the serving environment is not beside this one")
    raw = {name: values[:8] for name, values in inputs.raw["test"].items()}
    rows = {n: [v.decode() if isinstance(v, bytes) else v for v in values.tolist()] for n, values in raw.items()}
    done = subprocess.run(
        [python, "-c", PLAIN, str(paths["model"] / "saved_model")],
        input=json.dumps(rows),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    for name, values in answers(signatures["serving_default"], raw).items():
        if name != "label":
            np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-6 * scale(values))
