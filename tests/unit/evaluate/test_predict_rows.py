"""How many rows a model has in memory at once."""

from __future__ import annotations

from types import SimpleNamespace

import tensorflow as tf

from tidemill.evaluate.scoring import predict_rows


def signature(**shapes: list[int]) -> SimpleNamespace:
    outputs = {name: tf.TensorSpec([None, *shape], tf.float32, name) for name, shape in shapes.items()}
    return SimpleNamespace(structured_outputs=outputs)


def test_models_of_images_have_fewer_rows_in_memory_at_once():
    assert predict_rows(signature(x=[], words=[32])) == 8192
    assert predict_rows(signature(x=[], sign=[224, 224, 3])) == 445  # 256 MiB
    assert predict_rows(signature(sign=[20_000, 20_000, 3])) == 1
    assert predict_rows(None) == 8192  # a model that doesn't say
