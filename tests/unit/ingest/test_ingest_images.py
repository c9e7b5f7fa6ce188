"""A row whose image can't be read is kept aside with the reason; a row without one is a row."""

from __future__ import annotations

import base64

import pytest
import tensorflow as tf

from tidemill.errors import DataError

PROBLEM = {"features": {"sign": {"kind": "image", "height": 8, "width": 8}}}


@pytest.fixture(scope="module")
def rows():
    png = tf.io.encode_png(tf.zeros([4, 4, 3], tf.uint8)).numpy()
    texts = [base64.b64encode(png).decode()] * 90 + [""] * 10
    texts[20] = base64.b64encode(png[:30]).decode()
    return [f"{i},{text},{i % 2}\n" for i, text in enumerate(texts)]


def test_an_unreadable_image_is_quarantined_and_a_missing_one_is_not(ingest, rows):
    result = ingest("n,sign,y\n" + "".join(rows), gates={"data": {"max_quarantined": 0.1}}, **PROBLEM)
    (fault,) = result.quarantine
    assert (fault["kind"], fault["line"]) == ("unreadable image in sign", 22)
    assert result.report.reasons == {"unreadable image in sign": 1}
    assert sum(result.report.rows.values()) == 99
    assert result.report.nulls["sign"] == 10


def test_too_many_of_them_stop_the_run(ingest, rows):
    with pytest.raises(DataError, match=r"(?s)max_quarantined.*line 22: unreadable image in sign"):
        ingest("n,sign,y\n" + "".join(rows), gates={"data": {"max_quarantined": 0.001}}, **PROBLEM)
