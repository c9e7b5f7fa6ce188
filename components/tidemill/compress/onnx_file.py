"""A network as an ONNX file."""

from __future__ import annotations

import logging
from typing import Any

import onnx
import tensorflow as tf
from tf2onnx import convert as tf2onnx

from tidemill.compress.networks import SavedNetwork
from tidemill.compression import Onnx
from tidemill.errors import UserCodeError
from tidemill.network import OUTPUT


def convert(name: str, variant: Onnx, network: SavedNetwork, blamed: str) -> bytes:
    """Returns a network as the content of an ``.onnx`` file.

    Args:
        name: the variant's, for errors.
        blamed: whose model it is, for errors.

    Raises:
        UserCodeError: if ONNX lacks an operation of the network; all that it lacks are named.
    """
    names = [i.name for i in network.inputs]
    specs = [tf.TensorSpec([None, *i.shape], i.dtype, i.name) for i in network.inputs]
    function = tf.function(
        lambda *tensors: {OUTPUT: network.signature(**dict(zip(names, tensors, strict=True)))[OUTPUT]},
        input_signature=specs,
        autograph=False,
    )
    logging.getLogger("tf2onnx").setLevel(logging.CRITICAL)  # what it only logs is raised below
    proto, _ = tf2onnx.from_function(function, input_signature=specs, opset=variant.opset)
    if lacking := sorted(_unknown(proto.graph)):  # the converter leaves what it can't translate as it is
        raise UserCodeError(
            blamed,
            f"compression.variants.{name}: ONNX (opset {variant.opset}) has no {', '.join(lacking)}",
            remedy="do that part in preprocessing, or leave the variant out",
        )
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString(deterministic=True))


def _unknown(graph: Any) -> set[str]:
    """Returns the operations of a graph and of those inside it that no ONNX runtime knows."""
    found = {node.op_type for node in graph.node if not onnx.defs.has(node.op_type, node.domain)}
    for node in graph.node:
        for attribute in node.attribute:
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                found |= _unknown(inner)
    return found
