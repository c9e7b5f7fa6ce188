"""What a linear model says, written so that it can be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import keras
import numpy as np

from tidemill.features import Bucketized, Categorical, Text
from tidemill.files import write_json
from tidemill.problem import Problem
from tidemill.train.batches import Examples
from tidemill.train.context import TrainContext
from tidemill.transform.features import TransformedFeature

COEFFICIENTS_FILE = "coefficients.json"
MISSING_VALUE, OTHER_VALUE = "(missing)", "(other)"


@dataclass(frozen=True)
class Coefficient:
    """One weight of the model.

    Attributes:
        feature: the transformed feature.
        value: which of the feature's ids, or which of its columns; None for a single number.
        output: the class, where there are several outputs.
        weight: what the output moves by for one more unit, or for this id: log-odds, or the label's unit; with focal
            loss the logits that it is of, which the model makes log-odds of.
        effect: for an id, how far the weight is from the feature's average weight over the training rows (of a bag:
            the weight); for a number, the weight times its standard deviation there.
        share: occurrences of the id per training row; 1 for a number.
    """

    feature: str
    value: str | None
    output: str | None
    weight: float
    effect: float
    share: float


def write_coefficients(
    history: Path, model: keras.Model, context: TrainContext, train: Examples, names: Mapping[str, Sequence[str]]
) -> None:
    """Writes ``coefficients.json``: the intercept and the coefficients, those of the largest effect first.

    Args:
        history: the artefact's directory.
        model: what :func:`tidemill.train.architectures.linear.linear` built, trained.
        context: what it was built from.
        train: the training split, for averages and deviations.
        names: names of the ids by feature, as :func:`id_names` returns them.
    """
    unit = context.label.std or 1.0 if context.task == "regression" else 1.0
    offset = context.label.mean if context.task == "regression" else 0.0
    weights = {name: value * unit for name, value in _weights(model, context).items()}
    moments = _moments(train)
    outputs = list(context.classes) if context.outputs > 1 else [None]
    found = [
        Coefficient(feature.name, value, output, float(weight[i, j]), float(effect[i, j]), float(share[i]))
        for feature in context.features
        for weight, (effect, share) in [(weights[feature.name], _effects(feature, weights, moments))]
        for i, value in enumerate(_values(feature, names))
        for j, output in enumerate(outputs)
        if share[i] > 0 or weight[i, j] != 0
    ]
    found.sort(key=lambda c: (-abs(c.effect), c.feature, c.value or "", c.output or ""))
    intercept = np.array(model.get_layer("intercept").bias) * unit + offset + _shift(context)
    write_json(
        history / COEFFICIENTS_FILE,
        {
            "unit": _unit(context),
            "intercept": intercept.tolist(),
            "coefficients": [asdict(coefficient) for coefficient in found],
        },
    )


def _unit(context: TrainContext) -> str:
    if context.task == "regression":
        return "label"
    return "log-odds" if context.training.focal_gamma is None else "focal logits"


def _shift(context: TrainContext) -> np.ndarray | float:
    """Returns what the model adds to its logits for the rows that were left out of the training."""
    shift = -np.log(context.kept or [1.0] * len(context.classes))
    return float(shift[1] - shift[0]) if context.task == "binary_classification" else shift if len(shift) else 0.0


def id_names(problem: Problem, features: Sequence[TransformedFeature], transform_graph: Path) -> dict[str, list[str]]:
    """Returns the names of the ids by feature: terms of its vocabulary, or the numbers of its buckets."""
    return {f.name: _id_names(problem, f, transform_graph / "transform_fn" / "assets") for f in features}


def _id_names(problem: Problem, feature: TransformedFeature, assets: Path) -> list[str]:
    described = None if problem.user_code.preprocessing else problem.features.get(feature.source)
    if isinstance(described, (Categorical, Text)):
        index = list(problem.features).index(feature.source)
        (path,) = assets.glob(f"vocabulary_{index:03d}_*.txt")
        _, *terms = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
        other = [OTHER_VALUE] * (feature.size - 1 - len(terms))
        return [MISSING_VALUE, *terms, *other]
    if isinstance(described, Bucketized):
        return [MISSING_VALUE, *(f"bucket {i} of {feature.size - 1}" for i in range(1, feature.size))]
    return [f"#{i}" for i in range(feature.size)]


def _values(feature: TransformedFeature, names: Mapping[str, Sequence[str]]) -> list[str | None]:
    if feature.kind != "dense":
        return list(names[feature.name])
    return [None] if feature.size == 1 else [f"[{i}]" for i in range(feature.size)]


def _weights(model: keras.Model, context: TrainContext) -> dict[str, np.ndarray]:
    """Returns [ids or width, outputs] by feature."""
    found: dict[str, np.ndarray] = {}
    for kind, layer in (("dense", "slopes"), ("ids", "wide")):
        if group := [f for f in context.features if f.kind == kind]:
            table = np.array(model.get_layer(layer).weights[0])
            parts = np.split(table, np.cumsum([f.size for f in group])[:-1])
            found |= {f.name: part for f, part in zip(group, parts, strict=True)}
    for i, feature in enumerate(f for f in context.features if f.kind == "bag"):
        table = np.array(model.get_layer(f"wide_bag_{i}").weights[0])
        table[0] = 0  # padding, which the layer leaves out
        found[feature.name] = table
    return found


def _moments(train: Examples) -> dict[str, np.ndarray]:
    """Returns standard deviations [width] of dense features, and mean occurrences per row [ids] of the others."""
    packing = train.packing
    width = sum(f.size for f in packing.dense)
    total, square = np.zeros(width), np.zeros(width)
    counts = {f.name: np.zeros(f.size) for f in packing.ids}
    for block in train.blocks(batch_size=1):
        dense = block.dense.astype(np.float64)
        total += dense.sum(axis=0)
        square += np.square(dense).sum(axis=0)
        start = 0
        for feature in packing.ids:
            columns = max(feature.length, 1)
            ids = block.ids[:, start : start + columns].ravel()
            counts[feature.name] += np.bincount(ids, minlength=feature.size)
            start += columns
    deviations = np.sqrt(np.maximum(0, square / train.rows - np.square(total / train.rows)))
    parts = np.split(deviations, np.cumsum([f.size for f in packing.dense])[:-1]) if packing.dense else []
    found = {f.name: part for f, part in zip(packing.dense, parts, strict=True)}
    return found | {name: count / train.rows for name, count in counts.items()}


def _effects(
    feature: TransformedFeature, weights: Mapping[str, np.ndarray], moments: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns effects [ids or width, outputs] and shares [ids or width]."""
    weight, moment = weights[feature.name], moments[feature.name]
    if feature.kind == "dense":
        return weight * moment[:, None], np.ones(feature.size)
    if feature.kind == "bag":
        return weight, np.concatenate([[0.0], moment[1:]])
    return weight - (weight * moment[:, None]).sum(axis=0), moment
