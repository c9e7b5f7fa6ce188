"""Raw rows as the model's serving signature takes them: the one encoding that offline and online share.

A signature has dense inputs, and JSON and dense tensors have no null, so each dtype has a value that means
"missing". The transform graph inside the SavedModel turns these back into absent values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

MISSING: Final[Mapping[str, Any]] = {"float32": float("nan"), "int64": np.iinfo(np.int64).min, "string": b""}
"""What stands for a missing value, by dtype of the signature's input."""


def arrays_from_batch(batch: Any, inputs: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Turns columns of an Arrow record batch into the arrays that ``serving_default`` takes.

    Args:
        batch: a ``pyarrow.RecordBatch`` or ``Table`` with the raw columns; a column it lacks is all missing.
        inputs: dtype (``float32``, ``int64`` or ``string``) by input name.

    Returns:
        By input name an array of shape [rows]: float32, int64, or object (bytes).
    """
    arrays = {}
    for name, dtype in inputs.items():
        if name in batch.schema.names:
            column = batch.column(batch.schema.names.index(name))
            arrays[name] = _array(column, dtype)
        else:
            arrays[name] = np.full(batch.num_rows, MISSING[dtype], dtype=object if dtype == "string" else dtype)
    return arrays


def _array(column: Any, dtype: str) -> np.ndarray:
    import pyarrow as pa
    import pyarrow.compute as pc

    if dtype == "string":
        filled = pc.fill_null(pc.cast(column, pa.binary()), pa.scalar(b"", pa.binary()))
        return np.asarray(filled.to_numpy(zero_copy_only=False) if isinstance(filled, pa.Array) else filled.to_numpy())
    arrow_type = pa.int64() if dtype == "int64" else pa.float64()
    filled = pc.fill_null(pc.cast(column, arrow_type), pa.scalar(MISSING[dtype], arrow_type))
    values = filled.to_numpy(zero_copy_only=False) if isinstance(filled, pa.Array) else filled.to_numpy()
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, as it is to a client that sends it
        return np.asarray(values, dtype=dtype)
