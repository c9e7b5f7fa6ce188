"""A network as a LiteRT file."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tidemill.artifacts import SAVED_MODEL
from tidemill.compress.networks import Features
from tidemill.compression import LiteRT
from tidemill.errors import DataError, UserCodeError
from tidemill.network import SIGNATURE, NetworkInput

# LiteRT's division of int8 saturates where the quotient's scale is far from the dividend's: the mean of a bag of words,
# which is divided by their number, was off by a hundred times its size.
_FLOAT = ("DIV",)
_UNSUPPORTED = re.compile(r"'tf\.(\w+)' op is neither a custom op nor a flex op")


def convert(
    name: str, variant: LiteRT, model: Path, inputs: Sequence[NetworkInput], sample: Features, blamed: str
) -> bytes:
    """Returns the network of a model artefact as the content of a ``.tflite`` file.

    Args:
        name: the variant's, for errors.
        inputs: of the network.
        sample: transformed training rows, which ``int8`` takes the ranges of its numbers from.
        blamed: whose model it is, for errors.

    Raises:
        DataError: if ``int8`` has fewer rows than it is to have.
        UserCodeError: if LiteRT lacks an operation of the network; all that it lacks are named.
    """
    converter: Any = tf.lite.TFLiteConverter.from_saved_model(str(model / SAVED_MODEL), signature_keys=[SIGNATURE])
    if variant.quantization != "none":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if variant.quantization == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if variant.quantization == "int8":
        rows = len(next(iter(sample.values())))
        if rows < variant.representative_rows:
            raise DataError(
                f"compression.variants.{name}",
                f"int8 needs {variant.representative_rows} representative rows of the training split",
                f"{rows}",
                "lower `representative_rows`, or give more data",
            )
        converter.representative_dataset = lambda: _one_by_one(inputs, sample, variant.representative_rows)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.TFLITE_BUILTINS]
    try:
        with warnings.catch_warnings():
            # The converter calibrates by the interpreter that TensorFlow itself calls deprecated.
            warnings.filterwarnings("ignore", r"(?s)\s*Warning: tf\.lite\.Interpreter is deprecated", UserWarning)
            return bytes(_quantized(converter) if variant.quantization == "int8" else converter.convert())
    except Exception as error:  # the converter has no public class of errors
        lacking = sorted(set(_UNSUPPORTED.findall(str(error))))
        if not lacking:
            raise
        raise UserCodeError(
            blamed,
            f"compression.variants.{name}: LiteRT has no {', '.join(lacking)}",
            remedy="do that part in preprocessing, or leave the variant out",
        ) from error


def _quantized(converter: Any) -> bytes:
    """Returns the network in int8, all but :data:`_FLOAT`."""
    options = tf.lite.experimental.QuantizationDebugOptions(denylisted_ops=list(_FLOAT))
    debugger = tf.lite.experimental.QuantizationDebugger(
        converter=converter, debug_dataset=converter.representative_dataset, debug_options=options
    )
    return bytes(debugger.get_nondebug_quantized_model())


def _one_by_one(
    inputs: Sequence[NetworkInput], sample: Features, rows: int
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    for row in range(rows):
        yield SIGNATURE, {i.name: sample[i.feature][row : row + 1].astype(i.dtype, copy=False) for i in inputs}
