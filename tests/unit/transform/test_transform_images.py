"""Images and texts in their order: what is stored and how it is described."""

from __future__ import annotations

import base64
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from tidemill.artifacts import parts
from tidemill.errors import DataError
from tidemill.transform.application import batch_rows
from tidemill.transform.columns import BATCH_ROWS
from tidemill.transform.features import FEATURES_FILE, TransformedFeature, TransformedFeatures
from tidemill.transform.graph import load_transform
from tidemill.transform.run import run

PROBLEM = """\
name: signs
task: binary_classification
label: {column: y, positive: "1"}
features:
  sign: {kind: image, height: 8, width: 10, channels: 1, flip: false}
  said: {kind: text, as: sequence, max_words: 4}
  bag: {kind: text, column: said, max_words: 4}
"""


def picture(level: int) -> str:
    return base64.b64encode(tf.io.encode_png(np.full((8, 10, 1), level, np.uint8)).numpy()).decode()


SPLITS = {
    "train": {"sign": [picture(10), None, picture(30)], "said": ["b a b", "a", None], "y": [0, 1, 0]},
    "eval": {"sign": [picture(200)], "said": ["c b"], "y": [1]},
}


@pytest.fixture(scope="module")
def transformed(make_inputs, tmp_path_factory):
    types = {"sign": "string", "said": "string", "y": "int64"}
    made = make_inputs(PROBLEM, {n: (t, {s: rows[n] for s, rows in SPLITS.items()}) for n, t in types.items()})
    out = tmp_path_factory.mktemp("images")
    run(made.bundle, made.examples, made.schema, out / "graph", out / "transformed")
    return out


def test_images_are_stored_as_bytes_and_described_with_their_shape(transformed):
    (part,) = parts(transformed / "transformed", "train")
    table = pq.read_table(part)
    assert table.schema.field("sign").type == pa.list_(pa.uint8(), 80)
    assert [set(row) for row in table.column("sign").to_pylist()] == [{10}, {0}, {30}]
    described = {f.name: f for f in TransformedFeatures.read(transformed / "graph").features}
    assert described["sign"] == TransformedFeature("sign", "image", 80, 0, "sign", shape=(8, 10, 1))


def test_a_text_in_order_has_its_words_in_order_and_says_so(transformed):
    (part,) = parts(transformed / "transformed", "train")
    table = pq.read_table(part)
    assert table.column("said").to_pylist() == [[2, 1, 2, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert table.column("bag").to_pylist() == table.column("said").to_pylist()
    written = {f["name"]: f for f in json.loads((transformed / "graph" / FEATURES_FILE).read_text())["features"]}
    assert written["said"]["ordered"] is True
    assert written["bag"].keys() == {"name", "kind", "size", "length", "source"}  # as ever


def test_the_graph_that_is_served_gives_models_numbers_from_0_to_255(transformed):
    raw = {"sign": tf.constant([picture(77).encode(), b""]), "said": tf.constant(["", ""])}
    found = load_transform(transformed / "graph")(raw)["sign"]
    assert (found.dtype, found.shape) == (tf.float32, (2, 8, 10, 1))
    assert [set(row.ravel()) for row in found.numpy()] == [{77.0}, {0.0}]


def test_fewer_rows_are_transformed_at_once_where_images_would_take_too_much():
    number = TransformedFeature("x", "dense", 1, 0, "x")
    large = TransformedFeature("i", "image", 224 * 224 * 3, 0, "i", shape=(224, 224, 3))
    assert batch_rows([number]) == BATCH_ROWS
    assert batch_rows([number, large]) * large.size * 4 <= 64 << 20
    assert batch_rows([large, TransformedFeature("j", "image", 10**9, 0, "j")]) == 1


def test_an_image_is_not_made_of_numbers(make_inputs, tmp_path):
    columns = {"sign": ("float64", {"train": [1.0, 2.0]}), "said": ("string", {"train": ["a", "b"]})}
    made = make_inputs(PROBLEM, {**columns, "y": ("int64", {"train": [0, 1]})})
    with pytest.raises(DataError, match=r"features\.sign: image needs base64 in column sign \(got float32\)"):
        run(made.bundle, made.examples, made.schema, tmp_path / "graph", tmp_path / "transformed")
