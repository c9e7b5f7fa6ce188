"""Requests are understood or refused value by value, before the model sees them."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.instances import MISSING
from tidemill.serving.payload import Call, Refused, Signature, parse, render

SIGNATURES = {
    "serving_default": Signature(
        "serving_default",
        {"age": "float32", "hours": "int64", "job": "string"},
        {"probability": "float32", "label": "string"},
        raw=True,
    ),
    "serving_examples": Signature("serving_examples", {"examples": "string"}, {"probability": "float32"}, raw=False),
}


def read(value: Any) -> Call:
    return parse(value if isinstance(value, bytes) else json.dumps(value).encode(), SIGNATURES, max_rows=100)


def refusal(value: Any) -> Refused:
    with pytest.raises(Refused) as refused:
        read(value)
    return refused.value


def test_rows_become_arrays_by_feature() -> None:
    call = read({"instances": [{"age": 1.5, "hours": 2, "job": "é"}, {"age": 3, "hours": 4.0, "job": {"b64": "AP8="}}]})
    assert (call.rows, call.columnar, call.signature) == (2, False, "serving_default")
    assert call.arrays["age"].dtype == np.float32
    assert call.arrays["age"].tolist() == [1.5, 3.0]
    assert call.arrays["hours"].dtype == np.int64
    assert call.arrays["hours"].tolist() == [2, 4]
    assert call.arrays["job"].tolist() == ["é".encode(), b"\x00\xff"]


def test_columns_become_the_same_arrays_as_rows() -> None:
    rows = read({"instances": [{"age": 1, "hours": 2, "job": "a"}, {"age": 3, "hours": 4, "job": "b"}]})
    columns = read({"inputs": {"age": [1, 3], "hours": [2, 4], "job": ["a", "b"]}})
    assert columns.columnar
    for name, array in rows.arrays.items():
        np.testing.assert_array_equal(array, columns.arrays[name])


def test_a_feature_that_is_null_or_left_out_is_missing() -> None:
    for value in ({"instances": [{"age": None, "hours": None, "job": None}, {}]}, {"inputs": {"age": [None, None]}}):
        arrays = read(value).arrays
        assert np.isnan(arrays["age"]).all()
        assert arrays["hours"].tolist() == [MISSING["int64"]] * 2
        assert arrays["job"].tolist() == [b"", b""]


def test_a_single_input_takes_bare_values() -> None:
    example = {"b64": base64.b64encode(b"proto").decode()}
    for value in ({"instances": [example]}, {"instances": [{"examples": example}]}, {"inputs": [example]}):
        assert read({"signature_name": "serving_examples", **value}).arrays["examples"].tolist() == [b"proto"]


@pytest.mark.parametrize(
    ("value", "status", "said"),
    [
        (b"", 400, "the body is not JSON"),
        (b"\xff", 400, "not JSON"),
        (b'{"instances": [{"age": NaN}]}', 400, "not JSON"),
        (b'{"instances": [{"age": 1e999}]}', 400, "not JSON"),
        (b"[" * 100_000, 400, "not JSON"),
        ([], 400, "expected an object with `instances` or `inputs` (got a list)"),
        ({}, 400, "exactly one of `instances` and `inputs`"),
        ({"instances": [{}], "inputs": {}}, 400, "exactly one"),
        ({"instance": [{}]}, 400, "did you mean 'instances'?"),
        ({"instances": {"age": 1}}, 400, "instances: expected a list (got an object)"),
        ({"instances": []}, 400, "instances: expected at least one row"),
        ({"instances": [{}] * 101}, 413, "at most 100 rows (got 101)"),
        ({"instances": [{}], "parameters": {"top_k": 3}}, 400, "parameters: this model takes none"),
        ({"instances": [{}], "signature_name": 3}, 400, "signature_name: expected a string"),
        ({"instances": [{}], "signature_name": "serving"}, 404, "the model has serving_default, serving_examples"),
        ({"instances": [{}, 5]}, 400, "instances[1]: expected an object of features (got an integer)"),
        ({"instances": [{}, {"agee": 1}]}, 400, "instances[1]: 'agee' is not an input of this model; did you mean"),
        ({"instances": [{"age": "1"}]}, 400, "instances[0].age: expected a number (got a string)"),
        ({"instances": [{"age": True}]}, 400, "instances[0].age: expected a number (got a boolean)"),
        ({"instances": [{"age": [1]}]}, 400, "instances[0].age: expected a number (got a list)"),
        ({"instances": [{"age": 1e39}]}, 400, "instances[0].age: expected a number within the range of float32"),
        ({"instances": [{"hours": 1}, {"hours": 1.5}]}, 400, "instances[1].hours: expected an integer"),
        ({"instances": [{"hours": False}]}, 400, "instances[0].hours: expected an integer (got a boolean)"),
        ({"instances": [{"hours": 2**63}]}, 400, "instances[0].hours: expected an integer within the range of int64"),
        ({"instances": [{"hours": -(2**63)}]}, 400, "within the range of int64"),
        ({"instances": [{"hours": 1e300}]}, 400, "within the range of int64"),
        ({"instances": [{"job": 3}]}, 400, "instances[0].job: expected a string"),
        ({"instances": [{"job": {"b64": "%%"}}]}, 400, "instances[0].job: expected base64"),
        ({"instances": [{"job": {"b64": "AAAA", "x": 1}}]}, 400, "instances[0].job: expected a string"),
        ({"inputs": []}, 400, "inputs: expected an object of columns (got a list)"),
        ({"inputs": {}}, 400, "inputs: expected at least one row"),
        ({"inputs": {"age": 3}}, 400, "inputs.age: expected a list of values (got an integer)"),
        ({"inputs": {"age": [1, 2], "hours": [1]}}, 400, "inputs.hours: expected 2 values"),
        ({"inputs": {"agee": [1, 2]}}, 400, "did you mean 'age'?"),
        ({"inputs": {"age": [1, "x"]}}, 400, "inputs.age[1]: expected a number"),
        ({"signature_name": "serving_examples", "instances": [None]}, 400, "instances[0].examples: expected a string"),
        ({"signature_name": "serving_examples", "instances": [{"example": "x"}]}, 400, "did you mean 'examples'?"),
    ],
)
def test_what_is_malformed_is_named(value: Any, status: int, said: str) -> None:
    refused = refusal(value)
    assert refused.status == status
    assert said in str(refused)


def test_a_fault_carries_field_and_row() -> None:
    (fault,) = refusal({"instances": [{}, {"age": "x"}]}).faults
    assert (fault.field, fault.row) == ("age", 1)


def test_all_faults_are_told_up_to_ten() -> None:
    faults = refusal({"instances": [{"age": "x", "hours": 1.5, "job": 1}] * 20}).faults
    assert len(faults) == 11
    assert faults[-1].message == "and 50 more"


def test_no_message_repeats_a_value() -> None:
    secret = "s3cret"
    values = [{"age": secret}, {"hours": secret}, {"job": {"b64": secret}}, {"job": [secret]}, {"age": {secret: 1}}]
    for instance in values:
        assert all(secret not in fault.message for fault in refusal({"instances": [instance]}).faults)


def test_a_long_unknown_name_is_cut_short() -> None:
    assert len(str(refusal({"instances": [{"x" * 10_000: 1}]}))) < 200


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_every_float32_is_taken_exactly(value: float) -> None:
    assert read({"instances": [{"age": value}]}).arrays["age"].tolist() == [value]


@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_every_integer_but_the_sentinel_is_taken_exactly(value: int) -> None:
    assert read({"instances": [{"hours": value}, {"hours": 1}]}).arrays["hours"].tolist() == [value, 1]


def test_predictions_come_row_by_row() -> None:
    outputs = {"probability": np.array([0.25, 0.5], np.float32), "label": np.array([b"no", b"yes"], object)}
    assert json.loads(render(outputs, columnar=False)) == {
        "predictions": [{"probability": 0.25, "label": "no"}, {"probability": 0.5, "label": "yes"}]
    }
    assert json.loads(render(outputs, columnar=True)) == {
        "outputs": {"probability": [0.25, 0.5], "label": ["no", "yes"]}
    }


def test_a_single_output_is_given_bare() -> None:
    outputs = {"value": np.array([[1.0, 2.0]], np.float32)}
    assert json.loads(render(outputs, columnar=False)) == {"predictions": [[1.0, 2.0]]}
    assert json.loads(render(outputs, columnar=True)) == {"outputs": [[1.0, 2.0]]}


def test_bytes_are_given_as_base64() -> None:
    outputs = {"name": np.array([[b"\xff", b"a"]], object), "image_bytes": np.array([b"a"], object)}
    (row,) = json.loads(render(outputs, columnar=False))["predictions"]
    assert row == {"name": [{"b64": "/w=="}, "a"], "image_bytes": {"b64": "YQ=="}}


def test_a_float32_survives_the_round_trip_and_nan_becomes_null() -> None:
    third = np.float32(1 / 3)
    first, second = json.loads(render({"value": np.array([third, math.nan], np.float32)}, False))["predictions"]
    assert np.float32(first) == third
    assert second is None
