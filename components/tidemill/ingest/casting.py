"""From whatever a file holds to the three stored types: int64, float64 and string, each nullable."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

ColumnType = Literal["int64", "float64", "string"]
ARROW: Mapping[str, pa.DataType] = {"int64": pa.int64(), "float64": pa.float64(), "string": pa.string()}
NUMBERS: tuple[ColumnType, ...] = ("int64", "float64")
_ORDER = ("null", "int64", "float64", "string")


def widest(one: str, other: str) -> str:
    """Returns the narrowest of null, int64, float64, string that holds the values of both."""
    return max(one, other, key=_ORDER.index)


def natural_type(arrow: pa.DataType) -> str:
    """Returns the stored type for values of an Arrow type (``null`` if there are none)."""
    if pa.types.is_dictionary(arrow):
        return natural_type(arrow.value_type)
    if pa.types.is_null(arrow):
        return "null"
    if pa.types.is_integer(arrow) or pa.types.is_boolean(arrow):
        return "int64"
    if pa.types.is_floating(arrow) or pa.types.is_decimal(arrow):
        return "float64"
    return "string"


def normal(array: pa.Array) -> pa.Array:
    """Brings an array to its natural stored type, or leaves it null or binary.

    Booleans become 0 and 1, moments ISO 8601 (UTC where they have a zone), decimals float64, nested values JSON.
    Binary stays binary for :func:`conform` to decode, and unsigned integers beyond int64 stay uint64.
    """
    kind = array.type
    if pa.types.is_dictionary(kind):
        return normal(array.dictionary_decode())
    if pa.types.is_boolean(kind) or (pa.types.is_integer(kind) and kind != pa.uint64()):
        return array.cast(pa.int64())
    if pa.types.is_float16(kind):
        return array.cast(pa.float32()).cast(pa.float64())
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return array.cast(pa.float64())
    if pa.types.is_timestamp(kind):
        return _iso(array)
    if pa.types.is_nested(kind):
        texts = [None if v is None else json.dumps(v, ensure_ascii=False, default=str) for v in array.to_pylist()]
        return pa.array(texts, pa.string())
    if pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return array.cast(pa.binary())
    if pa.types.is_null(kind) or pa.types.is_binary(kind) or kind == pa.uint64():
        return array
    return array.cast(pa.string())


def _iso(array: pa.Array) -> pa.Array:
    zone = "Z" if array.type.tz else ""
    if array.type.tz:
        array = array.cast(pa.timestamp(array.type.unit, "UTC")).cast(pa.timestamp(array.type.unit))
    seconds = array.cast(pa.timestamp("s"), safe=False)
    whole = pc.all(pc.equal(seconds.cast(array.type), array)).as_py() is not False
    shown = seconds if whole else array.cast(pa.timestamp("us"), safe=False)
    return pc.strftime(shown, format=f"%Y-%m-%dT%H:%M:%S{zone}")


def conform(array: pa.Array, target: ColumnType) -> tuple[pa.Array, np.ndarray]:
    """Casts to a stored type, value by value where need be.

    Returns:
        The array of type ``target``, null where a value doesn't fit, and bool [rows] of those that don't.
    """
    arrow = ARROW[target]
    none_bad = np.zeros(len(array), dtype=bool)
    array = normal(array)
    whole = fit(array, target)
    return (whole, none_bad) if whole is not None else _conform_values(_trimmed(array), arrow)


def fit(array: pa.Array, target: ColumnType) -> pa.Array | None:
    """Casts an array of :func:`normal` form to a stored type, or returns None if a value doesn't fit."""
    arrow = ARROW[target]
    if array.type == arrow:
        return array
    try:
        # An integer beyond 2^53 may lose its last digits on the way to float64; that is no misfit.
        return _trimmed(array).cast(arrow, safe=not pa.types.is_integer(array.type) or target == "int64")
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None


def narrowest(texts: pa.Array) -> pa.Array:
    """Gives text the type that Arrow's CSV reader would have inferred: null, int64, float64 or string."""
    if texts.null_count == len(texts):
        return pa.nulls(len(texts))
    fitted = (fit(texts, candidate) for candidate in NUMBERS)
    return next((numbers for numbers in fitted if numbers is not None), texts)


def _trimmed(array: pa.Array) -> pa.Array:
    return pc.utf8_trim_whitespace(array) if pa.types.is_string(array.type) else array


def _conform_values(array: pa.Array, arrow: pa.DataType) -> tuple[pa.Array, np.ndarray]:
    encoded = array.dictionary_encode()
    values = [_cast_one(encoded.dictionary[i : i + 1], arrow) for i in range(len(encoded.dictionary))]
    fitted = pa.array(values, arrow).take(encoded.indices)
    bad = pc.and_(pc.is_valid(array), pc.is_null(fitted))
    return fitted, np.asarray(bad.to_numpy(zero_copy_only=False), dtype=bool)


def _cast_one(value: pa.Array, arrow: pa.DataType) -> Any:
    try:
        return value.cast(arrow)[0].as_py()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None


def finite(array: pa.Array) -> tuple[pa.Array, int]:
    """Returns a float64 array with NaN and ±inf as null, and how many there were."""
    good = pc.is_finite(array)
    bad = len(array) - array.null_count - (pc.sum(good).as_py() or 0)
    return (pc.if_else(good, array, pa.scalar(None, array.type)), bad) if bad else (array, 0)
