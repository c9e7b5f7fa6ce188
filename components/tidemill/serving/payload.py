"""Predict requests and responses in TensorFlow Serving's REST format, validated value by value.

Everything that a client can get wrong is found here, before the request is merged with others into one batch.
Messages name fields and rows and the type of what was sent, never a value: values are the data of people.
"""

from __future__ import annotations

import base64
import binascii
import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson

from tidemill.instances import MISSING

DEFAULT_SIGNATURE: Final = "serving_default"
_SHOWN_FAULTS = 10
_LONGEST_NAME = 64
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_INT64 = np.iinfo(np.int64)


@dataclass(frozen=True)
class Signature:
    """What a signature takes and gives; every input and output is one value per row.

    Attributes:
        inputs: ``float32``, ``int64`` or ``string`` by input name.
        outputs: dtype by output name, in the order of the response.
        raw: the inputs are raw features, so that any of them may be missing.
    """

    name: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    raw: bool


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a request; ``row`` and ``field`` where they are known."""

    message: str
    field: str | None = None
    row: int | None = None


class Refused(Exception):
    """The request cannot be answered, and the client can tell why from the status and the faults."""

    def __init__(self, status: int, *faults: Fault, retry_after_s: int | None = None) -> None:
        self.status, self.faults, self.retry_after_s = status, faults, retry_after_s
        super().__init__(faults[0].message)


@dataclass(frozen=True)
class Call:
    """A valid request: arrays of shape [rows] by input name, ready to be merged with others."""

    signature: str
    arrays: Mapping[str, np.ndarray]
    rows: int
    columnar: bool


class _Faults:
    """Collects faults, keeping the first few: a wrong column of a large request has as many as it has rows."""

    def __init__(self) -> None:
        self.shown: list[Fault] = []
        self.count = 0

    def add(self, where: str, message: str, field: str | None = None, row: int | None = None) -> None:
        self.count += 1
        if len(self.shown) < _SHOWN_FAULTS:
            self.shown.append(Fault(f"{where}: {message}", field, row))

    def raise_any(self) -> None:
        if self.count > len(self.shown):
            self.shown.append(Fault(f"and {self.count - len(self.shown)} more"))
        if self.shown:
            raise Refused(400, *self.shown)


def parse(body: bytes, signatures: Mapping[str, Signature], max_rows: int) -> Call:
    """Turns the body of a predict request into arrays.

    Raises:
        Refused: 400 naming field and row of what is malformed, 404 for an unknown signature, 413 for too many rows.
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused(400, Fault(f"the body is not JSON: {error}")) from error
    if not isinstance(value, dict):
        raise Refused(400, Fault(f"expected an object with `instances` or `inputs` (got {_kind(value)})"))
    _check_keys(value)
    signature = _signature(value.get("signature_name"), signatures)
    columnar = "inputs" in value
    columns, rows = (_columns if columnar else _rows)(value["inputs" if columnar else "instances"], signature, max_rows)
    faults = _Faults()
    arrays = {}
    for name, dtype in signature.inputs.items():
        where = _in_column(name) if columnar else _in_row(name)
        arrays[name] = _array(name, dtype, columns.get(name), rows, signature.raw, where, faults)
    faults.raise_any()
    return Call(signature.name, arrays, rows, columnar)


def _check_keys(value: Mapping[str, Any]) -> None:
    faults = _Faults()
    for key in value:
        if key not in ("instances", "inputs", "signature_name", "parameters"):
            faults.add("request", f"unknown key {_name(key)}{_did_you_mean(key, ('instances', 'inputs'))}", key)
    if ("instances" in value) == ("inputs" in value):
        faults.add("request", "expected exactly one of `instances` and `inputs`")
    if value.get("parameters"):  # Vertex AI passes the key on, usually empty
        faults.add("parameters", "this model takes none", "parameters")
    faults.raise_any()


def _signature(name: Any, signatures: Mapping[str, Signature]) -> Signature:
    if name is None or name == "":
        name = DEFAULT_SIGNATURE
    if not isinstance(name, str):
        raise Refused(400, Fault(f"signature_name: expected a string (got {_kind(name)})", "signature_name"))
    if name not in signatures:
        known = ", ".join(sorted(signatures))
        message = f"signature_name: no signature {_name(name)}; the model has {known}"
        raise Refused(404, Fault(message, "signature_name"))
    return signatures[name]


def _rows(instances: Any, signature: Signature, max_rows: int) -> tuple[Mapping[str, Sequence[Any]], int]:
    """Returns the values by input name out of the row format."""
    if not isinstance(instances, list):
        raise Refused(400, Fault(f"instances: expected a list (got {_kind(instances)})", "instances"))
    _check_count(len(instances), max_rows, "instances")
    names = signature.inputs
    if len(names) == 1 and not any(_is_named(instance) for instance in instances):
        return {next(iter(names)): instances}, len(instances)
    faults = _Faults()
    for row, instance in enumerate(instances):
        if not isinstance(instance, dict):
            faults.add(f"instances[{row}]", f"expected an object of features (got {_kind(instance)})", row=row)
        elif not instance.keys() <= names.keys():
            for key in instance.keys() - names.keys():
                faults.add(f"instances[{row}]", _unknown(key, names), key, row)
    faults.raise_any()
    return {name: [instance.get(name) for instance in instances] for name in names}, len(instances)


def _columns(inputs: Any, signature: Signature, max_rows: int) -> tuple[Mapping[str, Sequence[Any]], int]:
    """Returns the values by input name out of the columnar format."""
    names = signature.inputs
    if len(names) == 1 and isinstance(inputs, list):
        inputs = {next(iter(names)): inputs}
    if not isinstance(inputs, dict):
        raise Refused(400, Fault(f"inputs: expected an object of columns (got {_kind(inputs)})", "inputs"))
    faults = _Faults()
    for key, column in inputs.items():
        if key not in names:
            faults.add("inputs", _unknown(key, names), key)
        elif not isinstance(column, list):
            faults.add(f"inputs.{key}", f"expected a list of values (got {_kind(column)})", key)
    faults.raise_any()
    lengths = {key: len(column) for key, column in inputs.items()}
    rows = max(lengths.values(), default=0)
    _check_count(rows, max_rows, "inputs")
    for key, length in lengths.items():
        if length != rows:
            faults.add(f"inputs.{key}", f"expected {rows} values, as many as the longest column (got {length})", key)
    faults.raise_any()
    return inputs, rows


def _check_count(rows: int, max_rows: int, where: str) -> None:
    if rows == 0:
        raise Refused(400, Fault(f"{where}: expected at least one row", where))
    if rows > max_rows:
        raise Refused(413, Fault(f"{where}: expected at most {max_rows} rows (got {rows})", where))


def _array(
    name: str,
    dtype: str,
    values: Sequence[Any] | None,
    rows: int,
    raw: bool,
    where: Callable[[int], str],
    faults: _Faults,
) -> np.ndarray:
    """Returns one input as an array of shape [rows]; where a value is wrong, a fault is added for it."""
    missing = MISSING[dtype]
    if values is None:
        values = [None] * rows
    kinds = set(map(type, values))
    if raw:
        kinds.discard(type(None))
    elif type(None) in kinds:
        for row, value in enumerate(values):
            if value is None:
                faults.add(where(row), f"{_EXPECTED[dtype]}, and no null", name, row)
        return np.empty(0)
    if dtype == "string" and kinds <= {str}:
        return _objects([missing if value is None else value.encode() for value in values])
    if dtype == "float32" and kinds <= {float, int}:
        array = np.array([missing if value is None else value for value in values], dtype=np.float64)
        if not (np.abs(array) > _FLOAT32_MAX).any():
            return array.astype(np.float32)
    convert, converted = _CONVERT[dtype], []
    for row, value in enumerate(values):
        if value is None:
            converted.append(missing)
            continue
        try:
            converted.append(convert(value))
        except ValueError as error:
            faults.add(where(row), str(error), name, row)
    if dtype == "string":
        return _objects(converted)
    return np.array(converted, dtype=dtype)


def _objects(values: Sequence[bytes]) -> np.ndarray:
    array = np.empty(len(values), dtype=object)  # an `S` array would cut trailing zero bytes
    array[:] = values
    return array


def _float32(value: Any) -> float:
    if type(value) not in (float, int):
        raise ValueError(f"{_EXPECTED['float32']} (got {_kind(value)})")
    if abs(value) > _FLOAT32_MAX:
        raise ValueError("expected a number within the range of float32 (got one that is out of range)")
    return float(value)


def _int64(value: Any) -> int:
    if type(value) not in (float, int):
        raise ValueError(f"{_EXPECTED['int64']} (got {_kind(value)})")
    if value != int(value):
        raise ValueError(f"{_EXPECTED['int64']} (got a number with a fraction)")
    if not _INT64.min < value <= _INT64.max:  # the least int64 stands for a missing value
        raise ValueError("expected an integer within the range of int64 (got one that is out of range)")
    return int(value)


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str):
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError("expected base64 in `b64` (got something else)") from error
    raise ValueError(f"{_EXPECTED['string']} (got {_kind(value)})")


_CONVERT: Mapping[str, Callable[[Any], Any]] = {"float32": _float32, "int64": _int64, "string": _bytes}
_EXPECTED: Mapping[str, str] = {
    "float32": "expected a number",
    "int64": "expected an integer",
    "string": 'expected a string or {"b64": …}',
}


def _is_named(instance: Any) -> bool:
    return isinstance(instance, dict) and instance.keys() != {"b64"}


def _in_row(name: str) -> Callable[[int], str]:
    return lambda row: f"instances[{row}].{name}"


def _in_column(name: str) -> Callable[[int], str]:
    return lambda row: f"inputs.{name}[{row}]"


def _kind(value: Any) -> str:
    kinds = {
        bool: "a boolean",
        int: "an integer",
        float: "a number",
        str: "a string",
        list: "a list",
        dict: "an object",
    }
    return kinds.get(type(value), "null")


def _name(key: str) -> str:
    return repr(key if len(key) <= _LONGEST_NAME else f"{key[:_LONGEST_NAME]}…")


def _unknown(key: str, names: Mapping[str, str]) -> str:
    return f"{_name(key)} is not an input of this model{_did_you_mean(key, tuple(names))}"


def _did_you_mean(key: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(key[:_LONGEST_NAME], names, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def render(outputs: Mapping[str, np.ndarray], columnar: bool) -> bytes:
    """Returns the response body: ``predictions`` row by row, or ``outputs`` by column.

    A model with one output gives its bare values. Strings that aren't UTF-8, and all strings of an output whose
    name ends in ``_bytes``, become ``{"b64": …}``. A value that isn't finite becomes null: JSON has no NaN.
    """
    columns = {name: _values(name, array) for name, array in outputs.items()}
    bare = next(iter(columns.values())) if len(columns) == 1 else None
    if columnar:
        return bytes(orjson.dumps({"outputs": columns if bare is None else bare}))
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return bytes(orjson.dumps({"predictions": rows if bare is None else bare}))


def _values(name: str, array: np.ndarray) -> list[Any]:
    values: list[Any] = array.tolist()
    return _text(values, name.endswith("_bytes")) if array.dtype == object else values


def _text(values: list[Any], binary: bool) -> list[Any]:
    if values and isinstance(values[0], list):
        return [_text(row, binary) for row in values]
    return [_string(value, binary) for value in values]


def _string(value: bytes, binary: bool) -> str | dict[str, str]:
    if not binary:
        try:
            return value.decode()
        except UnicodeDecodeError:
            pass  # bytes that are no text are given as base64 below
    return {"b64": base64.b64encode(value).decode()}
