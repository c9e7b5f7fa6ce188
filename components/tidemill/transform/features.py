"""``features.json``: what the transformed examples hold, for whoever trains on them (needs no TensorFlow)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from tidemill.files import write_json
from tidemill.windows import lagged

FEATURES_FILE: Final = "features.json"
LABEL: Final = "__label__"
WEIGHT: Final = "__weight__"

RawType = Literal["int64", "float32", "string"]
FeatureKind = Literal["dense", "ids", "bag", "image"]
RAW_TYPES: Final[Mapping[str, RawType]] = {"int64": "int64", "float64": "float32", "string": "string"}
"""The dtype in the transform graph and the serving signature, by column type of the examples."""


@dataclass(frozen=True)
class TransformedFeature:
    """One column of the transformed examples.

    Attributes:
        name: the column, and the key of the transform graph's output.
        kind: ``dense`` (float32 [batch], or [batch, size] when ``size`` > 1), ``ids`` (int64 [batch]),
            ``bag`` (int64 [batch, length], where id 0 is padding) or ``image`` (uint8 [batch, *shape]).
        size: ids and bags: the number of ids, all of them in [0, size); dense and images: numbers per row.
        length: ids per row of a bag, otherwise 0.
        source: the feature of the problem it comes from; the output's own name where user code made it.
        ordered: the ids of the bag are in the order of the words of a text.
        lag: how many rows of its group ago the feature was so, where the problem has windows.
        shape: height, width and channels of an image.
        flip: a mirrored image is as good.
    """

    name: str
    kind: FeatureKind
    size: int
    length: int
    source: str
    ordered: bool = False
    lag: int = 0
    shape: tuple[int, ...] = ()
    flip: bool = False

    @property
    def newest(self) -> str:
        """The name of the same feature of the row itself, where this one is of a row before."""
        return self.source + self.name.removeprefix(lagged(self.source, self.lag)) if self.lag else self.name

    def to_json(self) -> dict[str, Any]:
        """Returns the fields, without those that hardly a feature has where it hasn't them."""
        rare = ("ordered", "lag", "shape", "flip")
        return {key: value for key, value in asdict(self).items() if value or key not in rare}


@dataclass(frozen=True)
class TransformedFeatures:
    """What goes into the transform graph and what comes out of it.

    Attributes:
        raw: dtype of the transform graph's inputs by raw column.
        features: the transformed features, in the order of the problem.
        label: column of the transformed examples: float32 (0/1 for binary, the value for regression), or the int64
            class index for multiclass.
        weight: float32 column of example weights, if the problem has one.
        classes: as in ``tidemill.artifacts.ExamplesManifest``.
        task: the problem's task.
    """

    raw: Mapping[str, RawType]
    features: tuple[TransformedFeature, ...]
    label: str
    weight: str | None
    classes: tuple[str, ...]
    task: str

    def write(self, transform_graph: Path) -> None:
        features = [feature.to_json() for feature in self.features]
        write_json(Path(transform_graph) / FEATURES_FILE, {**asdict(self), "features": features})

    @classmethod
    def read(cls, transform_graph: Path) -> TransformedFeatures:
        value = json.loads((Path(transform_graph) / FEATURES_FILE).read_text(encoding="utf-8"))
        features = tuple(
            TransformedFeature(**{**feature, "shape": tuple(feature.get("shape", ()))}) for feature in value["features"]
        )
        return cls(**{**value, "features": features, "classes": tuple(value["classes"])})
