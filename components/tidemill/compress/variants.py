"""Makes the variants that a problem asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tidemill.bundle import Bundle
from tidemill.compress import litert, onnx_file
from tidemill.compress.measures import Size, weights_content
from tidemill.compress.networks import LiteRTNetwork, Network, OnnxNetwork, SavedNetwork
from tidemill.compression import LiteRT, Onnx, Variant
from tidemill.errors import ProblemError
from tidemill.network import read_weights


@dataclass(frozen=True)
class Made:
    """A variant that is on disk and can be asked.

    Attributes:
        network: answers transformed features.
        size: of what has the network alone.
        about: what is to be said of it, such as whom it learnt from.
    """

    network: Network
    size: Size
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Workshop:
    """What variants are made from.

    Attributes:
        transformed: Parquet per split.
        transform_graph: tf.Transform's output with features.json.
        model: the trained model's artefact.
        original: the same, loaded.
        sample: transformed training rows.
        checkpoints: directory that outlives a killed run.
    """

    bundle: Bundle
    transformed: Path
    transform_graph: Path
    model: Path
    original: SavedNetwork
    sample: Mapping[str, np.ndarray]
    checkpoints: Path

    def make(self, name: str, variant: Variant, directory: Path) -> Made:
        """Writes a variant into a directory.

        Raises:
            UserCodeError: if the format lacks an operation of the network.
            DataError: if there are too few rows to calibrate on.
        """
        if isinstance(variant, LiteRT):
            content = litert.convert(name, variant, self.model, self.original.inputs, self.sample, self._blamed)
            return self._file(directory / "model.tflite", content, LiteRTNetwork(content, self.original.inputs))
        if not isinstance(variant, Onnx):
            raise ProblemError(f"compression.variants.{name}", f"{variant.kind} is not made yet")
        content = onnx_file.convert(name, variant, self.original, self._blamed)
        return self._file(directory / "model.onnx", content, OnnxNetwork(content, self.original.inputs))

    @property
    def _blamed(self) -> str:
        problem = self.bundle.problem
        return problem.user_code.model or f"training.model {problem.training.model}"

    @staticmethod
    def _file(path: Path, content: bytes, network: Network) -> Made:
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        return Made(network, Size.of(content))


def saved(model: Path, about: Mapping[str, Any], network: SavedNetwork | None = None) -> Made:
    """Returns a model artefact as a variant; its size is that of its weights."""
    return Made(network or SavedNetwork(model), Size.of(weights_content(read_weights(model))), about)
