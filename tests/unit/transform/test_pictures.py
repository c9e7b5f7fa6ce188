"""Base64 in any of its spellings becomes the same picture; what can't be read is black and harms nobody else."""

from __future__ import annotations

import base64

import numpy as np
import pytest
import tensorflow as tf

from tidemill.pictures import pixels, readable

PICTURE = np.random.default_rng(0).integers(0, 256, (12, 16, 3)).astype(np.uint8)
PNG = tf.io.encode_png(PICTURE).numpy()
STANDARD = base64.b64encode(PNG)
SPELLINGS = {
    "standard": STANDARD,
    "web-safe": base64.urlsafe_b64encode(PNG),
    "without padding": base64.urlsafe_b64encode(PNG).rstrip(b"="),
    "with line breaks": base64.encodebytes(PNG),
    "data URL": b"data:image/png;base64," + STANDARD,
    "none, but the bytes": PNG,
}
BROKEN = {
    "empty": b"",
    "no base64": b"a picture!",
    "no image": base64.b64encode(b"a picture of my cat"),
    "cut off": STANDARD[:-60],
    "a cut character": STANDARD.rstrip(b"=")[:-3] if len(STANDARD.rstrip(b"=")) % 4 == 0 else b"abcde",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_is_read(spelling):
    assert {b"+", b"/"} <= {STANDARD[i : i + 1] for i in range(len(STANDARD))}
    found = pixels(tf.constant([SPELLINGS[spelling]]), 12, 16, 3).numpy()
    np.testing.assert_array_equal(found[0], PICTURE)
    assert readable(tf.constant([SPELLINGS[spelling]])).numpy().tolist() == [True]


@pytest.mark.parametrize("fault", BROKEN)
def test_what_cannot_be_read_is_black_and_leaves_its_neighbours_alone(fault):
    texts = tf.constant([STANDARD, BROKEN[fault], STANDARD])
    found = pixels(texts, 12, 16, 3).numpy()
    np.testing.assert_array_equal(found[[0, 2]], [PICTURE, PICTURE])
    assert not found[1].any()
    assert readable(texts).numpy().tolist() == [True, False, True]


def test_pictures_are_brought_to_one_size_and_number_of_channels():
    grey = tf.io.encode_jpeg(np.full((40, 30, 1), 200, np.uint8)).numpy()
    found = pixels(tf.constant([base64.b64encode(grey), STANDARD]), 8, 10, 1).numpy()
    assert found.shape == (2, 8, 10, 1)
    assert found.dtype == np.float32
    assert (found == np.round(found)).all()
    assert 0 <= found.min() <= found.max() <= 255
    np.testing.assert_allclose(found[0], 200, atol=2)


def test_no_rows_are_no_pictures():
    assert pixels(tf.constant([], tf.string), 8, 8, 3).shape == (0, 8, 8, 3)
