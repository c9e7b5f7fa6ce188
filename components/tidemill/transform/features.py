"""``features.json``: what the transformed examples hold, for whoever trains on them (needs no TensorFlow)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

from tidemill.files import write_json

FEATURES_FILE: Final = "features.json"
LABEL: Final = "__label__"
WEIGHT: Final = "__weight__"

RawType = Literal["int64", "float32", "string"]
FeatureKind = Literal["dense", "ids", "bag"]
RAW_TYPES: Final[Mapping[str, RawType]] = {"int64": "int64", "float64": "float32", "string": "string"}
"""The dtype in the transform graph and the serving signature, by column type of the examples."""


@dataclass(frozen=True)
class TransformedFeature:
    """One column of the transformed examples.

    Attributes:
        name: the column, and the key of the transform graph's output.
        kind: ``dense`` (float32 [batch], or [batch, size] when ``size`` > 1), ``ids`` (int64 [batch]) or
            ``bag`` (int64 [batch, length], where id 0 is padding).
        size: ids and bags: the number of ids, all of them in [0, size); dense: the width.
        length: ids per row of a bag, otherwise 0.
        source: the feature of the problem it comes from; the output's own name where user code made it.
    """

    name: str
    kind: FeatureKind
    size: int
    length: int
    source: str


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
        write_json(Path(transform_graph) / FEATURES_FILE, asdict(self))

    @classmethod
    def read(cls, transform_graph: Path) -> TransformedFeatures:
        value = json.loads((Path(transform_graph) / FEATURES_FILE).read_text(encoding="utf-8"))
        features = tuple(TransformedFeature(**feature) for feature in value["features"])
        return cls(**{**value, "features": features, "classes": tuple(value["classes"])})
