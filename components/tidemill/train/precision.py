"""In what numbers a model computes, its weights being float32 whatever it is. Source: Micikevicius et al. 2018."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import keras
import tensorflow as tf

from tidemill.errors import ProblemError
from tidemill.train.strategies import has_tpu


@contextmanager
def computing_in(precision: str) -> Iterator[None]:
    """Has the layers that are made within the block compute in ``precision``.

    A model that is compiled under mixed_float16 gets an optimizer that scales its loss, as Keras does it.

    Args:
        precision: float32, mixed_bfloat16 or mixed_float16.

    Raises:
        ProblemError: for mixed_float16 where there is a TPU, which has no such numbers.
    """
    if precision == "mixed_float16" and has_tpu():
        raise ProblemError(
            "training.precision", "can't be mixed_float16 on a TPU", precision, "take mixed_bfloat16, a TPU's own"
        )
    if precision != "float32" and not (has_tpu() or tf.config.list_physical_devices("GPU")):
        print(f"train: training.precision {precision} makes nothing faster on a CPU, only less exact", flush=True)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
