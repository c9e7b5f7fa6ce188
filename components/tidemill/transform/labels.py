"""The label and the example weight as numbers."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from tidemill.errors import DataError


def encode_label(column: pa.Array, name: str, task: str, classes: tuple[str, ...]) -> pa.Array:
    """Turns raw labels into what a loss takes.

    Args:
        column: int64, float64 or string values.
        name: the label's column, for the errors.
        task: the problem's task.
        classes: as in ``tidemill.artifacts.ExamplesManifest``.

    Returns:
        float32: 1 for the positive class of a binary task and 0 for any other, or the value for regression; int64
        index into ``classes`` for a multiclass task.

    Raises:
        DataError: if a label is missing, is no class, or is no finite number for regression.
    """
    if column.null_count:
        raise DataError(f"label {name}", "must be there in every row", f"{column.null_count} missing in one batch")
    if task == "regression":
        return _finite(column, f"label {name}")
    known = pa.array(classes, pa.string())
    if not pa.types.is_string(column.type):
        known = known.cast(pa.float64()).cast(column.type)  # "1.0" of a float column is 1 of an integer one
    if task == "binary_classification":
        return pc.equal(column, known[1]).cast(pa.float32())
    found = pc.index_in(column, value_set=known)
    if found.null_count:
        strangers = column.filter(pc.is_null(found)).unique().to_pylist()
        raise DataError(f"label {name}", f"must be one of {', '.join(classes)}", ", ".join(map(repr, strangers[:5])))
    return found.cast(pa.int64())


def encode_weight(column: pa.Array, name: str) -> pa.Array:
    """Returns example weights as float32.

    Raises:
        DataError: if a weight is missing, negative, or no finite number.
    """
    if column.null_count:
        raise DataError(f"weight {name}", "must be there in every row", f"{column.null_count} missing in one batch")
    weights = _finite(column, f"weight {name}")
    if len(weights) and (least := pc.min(weights).as_py()) < 0:
        raise DataError(f"weight {name}", "must not be negative", str(least))
    return weights


def _finite(column: pa.Array, where: str) -> pa.Array:
    try:
        numbers = column.cast(pa.float64()).cast(pa.float32(), safe=False)
    except pa.ArrowInvalid as error:
        raise DataError(where, "must be a number", str(error)) from error
    if not pc.all(pc.is_finite(numbers), min_count=0).as_py():
        raise DataError(where, "must be finite", "NaN or infinity")
    return numbers
