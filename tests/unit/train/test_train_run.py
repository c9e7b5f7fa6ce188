"""The stage as a whole: from transformed Parquet to a SavedModel that answers."""

from __future__ import annotations

import numpy as np
import pytest

from tidemill.artifacts import ModelManifest
from tidemill.files import digest_tree
from tidemill.train.run import run


@pytest.mark.parametrize("task", ["binary_classification", "multiclass_classification", "regression"])
def test_every_task_ends_with_a_model_that_answers_raw_rows(make_inputs, raw_rows_as_tensors, task):
    import tensorflow as tf

    inputs = make_inputs(task)
    paths = inputs.arguments("run")
    report = run(**paths)
    assert report.epochs == 3
    manifest = ModelManifest.read(paths["model"])
    assert manifest.digest == digest_tree(paths["model"] / "saved_model")
    assert set(manifest.signatures) == {"serving_default", "serving_examples", "transform_features"}
    loaded = tf.saved_model.load(paths["model"] / "saved_model")
    outputs = loaded.signatures["serving_default"](**raw_rows_as_tensors(inputs.raw["test"], slice(None)))
    assert set(outputs) == set(manifest.outputs)
    rows = len(inputs.raw["test"]["note"])
    for name, tensor in outputs.items():
        assert tensor.dtype.name == manifest.outputs[name]
        assert tensor.shape == ([rows, 3] if name == "probabilities" else [rows])
    if task != "regression":
        assert set(np.unique(outputs["label"].numpy())) <= {name.encode() for name in manifest.classes}
