"""Which values of a column are no images."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_ROWS_AT_ONCE = 256  # decoded in full they may take megabytes each


def unreadable_images(column: pa.Array) -> np.ndarray:
    """Returns bool [rows]: where there is a value that the transform graph would take for a missing one."""
    present = pc.fill_null(pc.greater(pc.binary_length(column.cast(pa.binary())), 0), False)
    unreadable = np.zeros(len(column), dtype=bool)
    if not present.true_count:
        return unreadable
    import tensorflow as tf  # takes seconds, and only problems with images need it

    from tidemill.pictures import readable

    rows = np.flatnonzero(np.asarray(present))
    texts = column.cast(pa.string()).take(pa.array(rows)).to_numpy(zero_copy_only=False)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        found = readable(tf.constant(texts[start : start + _ROWS_AT_ONCE].tolist(), tf.string)).numpy()
        unreadable[rows[start : start + _ROWS_AT_ONCE]] = ~found
    return unreadable
