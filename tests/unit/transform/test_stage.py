"""The stage's artefacts: what describes them, how they are laid out, that they are the same twice."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
import tensorflow_transform as tft

from tidemill.artifacts import ExamplesManifest, parts
from tidemill.beam import pipeline_options
from tidemill.errors import DataError, PlatformError, ProblemError, UserCodeError
from tidemill.files import digest_tree, sha256_file
from tidemill.instances import arrays_from_batch
from tidemill.transform.features import TransformedFeatures
from tidemill.transform.graph import load_transform
from tidemill.transform.run import run


def raw_arrays(stage, split):
    described = TransformedFeatures.read(stage.graph)
    return arrays_from_batch(pq.read_table(parts(stage.inputs.examples, split)[0]), described.raw)


def assert_equals_parquet(stage, split, outputs):
    table = pq.read_table(stage.transformed / split)
    for feature in TransformedFeatures.read(stage.graph).features:
        np.testing.assert_array_equal(np.asarray(outputs[feature.name]), np.array(table[feature.name].to_pylist()))


def test_features_json_describes_what_goes_in_and_out(stage):
    described = TransformedFeatures.read(stage.graph)
    assert described.raw["age"] == "float32"
    assert described.raw["zone"] == "int64"
    assert described.raw["city"] == "string"
    assert (described.label, described.weight) == ("__label__", "__weight__")
    assert (described.classes, described.task) == (("no", "yes"), "binary_classification")
    assert described.features == stage.report.features
    flag = next(f for f in described.features if f.name == "age__missing")
    assert (flag.kind, flag.size, flag.source) == ("dense", 1, "age")
    assert [f.source for f in described.features][:2] == ["age", "age"], "a flag follows its feature"


def test_every_id_is_below_its_size(stage):
    for split in ("train", "eval"):
        for feature in stage.report.features:
            if feature.kind != "dense":
                values = np.array(stage.column(split, feature.name))
                assert values.min() >= 0
                assert values.max() < feature.size


def test_the_manifest_vouches_for_every_file(stage):
    manifest = ExamplesManifest.read(stage.transformed)
    assert manifest.rows == {"train": 8, "eval": 3, "test": 0} == stage.report.rows
    for path, entry in manifest.files.items():
        assert sha256_file(stage.transformed / path) == entry["sha256"]
        assert pq.read_metadata(stage.transformed / path).num_rows == entry["rows"]


def test_columns_are_stored_without_nulls_in_the_promised_types(stage):
    schema = pq.read_schema(parts(stage.transformed, "train")[0])
    assert schema.field("age").type == pa.float32()
    assert schema.field("city").type == pa.int64()
    assert schema.field("note").type == pa.list_(pa.int64(), 3)
    assert schema.field("seen").type == pa.list_(pa.float32(), 4)
    assert schema.field("__label__").type == pa.float32()
    assert not any(field.nullable for field in schema)


def test_an_empty_split_stays_a_readable_empty_split(stage):
    assert pq.read_table(stage.transformed / "test").num_rows == 0


def test_tf_transform_itself_gives_the_same_from_sparse_inputs(stage):
    layer = tft.TFTransformOutput(str(stage.graph)).transform_features_layer()
    table = pq.read_table(parts(stage.inputs.examples, "eval")[0])
    sparse = {}
    for name, dtype in TransformedFeatures.read(stage.graph).raw.items():
        there = [(i, v) for i, v in enumerate(table[name].to_pylist()) if v not in (None, "")]
        sparse[name] = tf.SparseTensor(
            np.array([[i, 0] for i, _ in there], np.int64).reshape(-1, 2),
            tf.constant([v for _, v in there], dtype),
            [table.num_rows, 1],
        )
    assert_equals_parquet(stage, "eval", layer(sparse))


def test_the_raw_metadata_carries_the_validated_domains(stage):
    metadata = tft.TFTransformOutput(str(stage.graph)).raw_metadata
    features = {feature.name: feature for feature in metadata.schema.feature}
    assert features["income"].int_domain.max == 99
    assert [d.name for d in metadata.schema.string_domain] == ["cities"]
    assert features["city"].domain == "cities"
    assert "outcome" not in features, "the label is no input of the graph"
    assert metadata.schema.feature[0].name == "age"
    assert tft.TFTransformOutput(str(stage.graph)).raw_feature_spec()["city"] == tf.io.VarLenFeature(tf.string)


EXPORTED = """
import json, sys
import numpy as np, tensorflow as tf
inputs = {n: tf.constant(np.array(v, object) if d == "string" else np.array(v, d), d)
          for n, (d, v) in json.load(sys.stdin).items()}
outputs = tf.saved_model.load(sys.argv[1]).signatures["serving_default"](**inputs)
assert "tensorflow_transform" not in sys.modules
print(json.dumps({name: value.numpy().tolist() for name, value in outputs.items()}))
"""


def test_the_graph_survives_export_inside_another_model_into_another_process(stage, tmp_path):
    """Vocabulary tables and asset files go with it, and the artefact isn't needed any more."""
    artefact = tmp_path / "moved"
    artefact.mkdir()
    for path in stage.graph.rglob("*"):
        if path.is_file():
            (artefact / path.relative_to(stage.graph)).parent.mkdir(parents=True, exist_ok=True)
            (artefact / path.relative_to(stage.graph)).write_bytes(path.read_bytes())
    model = tf.Module()
    model.transform = load_transform(artefact)
    # TensorFlow would silently rename inputs such as void-bucket, as they are no Python names.
    names = {f"input_{i}": name for i, name in enumerate(model.transform.described.raw)}
    serve = tf.function(lambda **raw: model.transform({name: raw[key] for key, name in names.items()}))
    specs = {key: model.transform.input_signature[name] for key, name in names.items()}
    model.serve = serve.get_concrete_function(**specs)
    tf.saved_model.save(model, str(tmp_path / "model"), signatures=model.serve)
    artefact.rename(tmp_path / "gone")
    raw = raw_arrays(stage, "eval")
    text = {
        key: (dtype, [v.decode() for v in raw[name]] if dtype == "string" else raw[name].tolist())
        for key, (name, dtype) in zip(names, model.transform.described.raw.items(), strict=True)
    }
    command = [sys.executable, "-c", EXPORTED, str(tmp_path / "model")]
    done = subprocess.run(command, input=json.dumps(text), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert_equals_parquet(stage, "eval", json.loads(done.stdout.splitlines()[-1]))


AGAIN = "import sys; from tidemill.transform.run import run; run(*sys.argv[1:])"


def test_another_process_writes_the_same_bytes(stage, tmp_path):
    i = stage.inputs
    paths = [i.bundle, i.examples, i.schema, tmp_path / "graph", tmp_path / "transformed"]
    done = subprocess.run([sys.executable, "-c", AGAIN, *map(str, paths)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert digest_tree(tmp_path / "transformed") == digest_tree(stage.transformed)
    assert (tmp_path / "graph" / "features.json").read_bytes() == (stage.graph / "features.json").read_bytes()
    assets = "transform_fn/assets"
    assert digest_tree(tmp_path / "graph" / assets) == digest_tree(stage.graph / assets)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["graph", "transformed"], "no debris"


PLAIN = """
name: plain
task: {task}
label: {{column: y{positive}}}
features: {{x: {kind}}}
"""


def plain(kind="numeric", task="binary_classification"):
    return PLAIN.format(kind=kind, task=task, positive=', positive: "1"' if task == "binary_classification" else "")


def one_split(**columns):
    return {name: (dtype, {"train": values}) for name, (dtype, values) in columns.items()}


@pytest.mark.parametrize(
    ("kind", "dtype", "values", "said"),
    [
        ("numeric", "string", ["1", "n/a"], "numeric needs numbers in column x"),
        ("bucketized", "string", ["1", "n/a"], "bucketized needs numbers in column x"),
        ("{kind: date, format: iso8601}", "int64", [1, 2], r"date \(iso8601\) needs text in ISO 8601"),
        ("date", "string", ["2024-01-01", None], r"date \(epoch_s\) needs numbers"),
    ],
)
def test_a_column_that_does_not_fit_its_kind_is_named(make_inputs, tmp_path, kind, dtype, values, said):
    inputs = make_inputs(plain(kind), one_split(x=(dtype, values), y=("int64", [0, 1])))
    with pytest.raises(DataError, match=said):
        run(inputs.bundle, inputs.examples, inputs.schema, tmp_path / "g", tmp_path / "t")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_training_split_is_refused(make_inputs, tmp_path):
    inputs = make_inputs(plain(), one_split(x=("float64", []), y=("int64", [])))
    with pytest.raises(DataError, match="must have rows"):
        run(inputs.bundle, inputs.examples, inputs.schema, tmp_path / "g", tmp_path / "t")


def test_a_column_that_the_examples_lack_is_named(make_inputs, tmp_path):
    inputs = make_inputs(plain(), one_split(z=("float64", [1.0]), y=("int64", [1])))
    with pytest.raises(DataError, match=r"columns of the features: x"):
        run(inputs.bundle, inputs.examples, inputs.schema, tmp_path / "g", tmp_path / "t")


def test_a_row_without_a_label_stops_the_stage_and_leaves_nothing(make_inputs, tmp_path):
    """Also a file of several row groups, and a problem whose numbers have no missing value."""
    inputs = make_inputs(
        plain(task="multiclass_classification"), one_split(x=("int64", [1, 2]), y=("int64", [1, None]))
    )
    with pytest.raises(DataError, match="must be there in every row"):
        run(inputs.bundle, inputs.examples, inputs.schema, tmp_path / "g", tmp_path / "t")
    assert [p.name for p in tmp_path.iterdir()] == ["g"]


USER = """
import tensorflow as tf
import tensorflow_transform as tft


def fill(column, default):
    shape = [column.dense_shape[0], 1]
    return tf.squeeze(tf.sparse.to_dense(tf.SparseTensor(column.indices, column.values, shape), default), 1)


def preprocessing_fn(inputs):
    x, n, s = fill(inputs["x"], 0.0), fill(inputs["n"], 0), fill(inputs["s"], "")
    return {
        "z": tft.scale_to_z_score(x),
        "twice": tft.scale_to_0_1(tft.scale_to_z_score(x)),
        "positive": x > 0,
        "column": x[:, tf.newaxis],
        "pair": tf.stack([x, -x], axis=1),
        "word": tft.compute_and_apply_vocabulary(s, vocab_filename="words"),
        "bucket": tft.bucketize(x, 2),
        "number": n,
        "numbers": tf.stack([n, n + 1], axis=1),
    }
"""
USER_PROBLEM = """
name: user
task: regression
label: {{column: y}}
features: {{x: numeric, n: categorical, s: categorical}}
user_code: {{preprocessing: "{module}:preprocessing_fn"}}
"""
USER_COLUMNS = {
    "x": ("float64", {"train": [-1.0, 1.0, -1.0, 1.0], "eval": [3.0]}),
    "n": ("int64", {"train": [0, 3, 1, None], "eval": [9]}),
    "s": ("string", {"train": ["a", "b", "a", "a"], "eval": ["unseen"]}),
    "y": ("float64", {"train": [0.5, 1.5, 2.5, 3.5], "eval": [0.0]}),
}


def test_the_users_preprocessing_fn_takes_the_place_of_the_defaults(make_inputs, tmp_path):
    inputs = make_inputs(USER_PROBLEM.format(module="own_code"), USER_COLUMNS, (), own_code=USER)
    report = run(inputs.bundle, inputs.examples, inputs.schema, tmp_path / "g", tmp_path / "t")
    found = {f.name: (f.kind, f.size, f.length) for f in report.features}
    assert found == {
        "z": ("dense", 1, 0),
        "twice": ("dense", 1, 0),
        "positive": ("dense", 1, 0),
        "column": ("dense", 1, 0),
        "pair": ("dense", 2, 0),
        "word": ("ids", 3, 0),
        "bucket": ("ids", 3, 0),
        "number": ("ids", 5, 0),
        "numbers": ("bag", 6, 2),
    }
    train = pq.read_table(tmp_path / "t" / "train").to_pydict()
    assert train["z"] == [-1, 1, -1, 1]
    assert train["twice"] == [0, 1, 0, 1], "an analysis of an analysis"
    assert train["word"] == [0, 1, 0, 0]
    assert train["pair"][1] == [1, -1]
    assert train["number"] == [0, 3, 1, 0]
    assert train["__label__"] == [0.5, 1.5, 2.5, 3.5]
    later = pq.read_table(tmp_path / "t" / "eval").to_pydict()
    assert later["number"] == [4], "beyond what training had: the last id"
    assert later["numbers"] == [[5, 5]]
    assert later["word"] == [2], "tf.Transform's -1 for an unknown word is no id"
    assert report.vocabularies == {"words": 2}


@pytest.mark.parametrize(
    ("module", "body", "said"),
    [
        (
            "raises",
            "    raise KeyError('salary')",
            r"raises\.py:4: raises:preprocessing_fn raised .*KeyError: 'salary'",
        ),
        ("below", "    return {'x': tf.strings.lower(inputs['x'].values)}", r"below\.py:4: .*raised"),
        ("strings", "    return {'s': inputs['s'].values}", r"output s: must be of floats or integers \(got string\)"),
        ("sparse", "    return {'x': inputs['x']}", r"output x: must be a dense tensor \(got SparseTensor\)"),
        ("nothing", "    return None", r"must return a dict of tensors by name \(got NoneType\)"),
        ("wide", "    return {'x': tf.sparse.to_dense(inputs['x'])}", r"output x: must be \[batch\] or \[batch, n\]"),
        (
            "nan",
            "    return {'x': 0.0 * inputs['x'].values / 0.0}",
            "transformed feature x: must be finite in every row",
        ),
        (
            "short",
            "    return {'n': inputs['n'].values}",
            "transformed feature n: must have a value for each of 4 rows",
        ),
    ],
)
def test_faults_of_user_code_name_the_line_or_the_output(make_inputs, tmp_path, module, body, said):
    source = f"import tensorflow as tf\n\ndef preprocessing_fn(inputs):\n{body}\n"
    inputs = make_inputs(USER_PROBLEM.format(module=module), USER_COLUMNS, (), **{module: source})
    with pytest.raises((UserCodeError, DataError), match=said):
        run(inputs.bundle, inputs.examples, inputs.schema, tmp_path / "g", tmp_path / "t")
    assert not (tmp_path / "t").exists()


def test_user_code_that_fails_only_on_the_data_is_still_the_users_fault(make_inputs, tmp_path):
    source = (
        "import tensorflow as tf\nimport tensorflow_transform as tft\n\n"
        "def preprocessing_fn(inputs):\n"
        "    number = tf.strings.to_number(inputs['s'].values)\n"
        "    return {'x': number - tft.mean(number)}\n"
    )
    inputs = make_inputs(USER_PROBLEM.format(module="late"), USER_COLUMNS, (), late=source)
    with pytest.raises(UserCodeError, match=r"(?s)late:preprocessing_fn: failed on the training split.*StringToNumber"):
        run(inputs.bundle, inputs.examples, inputs.schema, tmp_path / "g", tmp_path / "t")


def _disk_full(_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere")


def test_a_full_disk_in_a_worker_is_the_platforms_fault_even_under_user_code(make_inputs, tmp_path, monkeypatch):
    """Beam turns the worker's OSError into a RuntimeError, which alone would look like a fault of the user."""

    def analyse(*_):
        with beam.Pipeline(options=pipeline_options()) as pipeline:
            _ = pipeline | beam.Create([1]) | beam.Map(_disk_full)

    monkeypatch.setattr("tidemill.transform.run.analyse", analyse)
    inputs = make_inputs(USER_PROBLEM.format(module="innocent"), USER_COLUMNS, (), innocent=USER)
    with pytest.raises(PlatformError, match="No space left on device"):
        run(inputs.bundle, inputs.examples, inputs.schema, tmp_path / "g", tmp_path / "t")
    assert list(tmp_path.iterdir()) == []


def test_a_module_that_is_not_there_is_a_fault_of_the_problem(make_inputs):
    with pytest.raises(ProblemError, match="absent"):
        make_inputs(USER_PROBLEM.format(module="absent"), USER_COLUMNS, ())
