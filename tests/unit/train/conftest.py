"""Small real inputs for the train stage: a packed problem, transformed Parquet and a transform graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tidemill.artifacts import ExamplesManifest
from tidemill.bundle import pack
from tidemill.problem import load_problem
from tidemill.transform.features import TransformedFeature, TransformedFeatures

tf = pytest.importorskip("tensorflow", reason="needs the tensorflow environment")

COLORS = ("red", "green", "blue", "grey")
WORDS = 12
RAW = {"hours-per-week": "float32", "education num": "int64", "1st color": "string", "note": "string"}
FEATURES = (
    TransformedFeature("hours-per-week", "dense", 1, 0, "hours-per-week"),
    TransformedFeature("edu_parts", "dense", 2, 0, "education num"),
    TransformedFeature("1st color", "ids", len(COLORS) + 2, 0, "1st color"),
    TransformedFeature("note", "bag", WORDS + 2, 5, "note"),
)
CLASSES = {
    "binary_classification": ("no", "yes"),
    "multiclass_classification": ("low", "middle", "high"),
    "regression": (),
}


@dataclass(frozen=True)
class Inputs:
    """Paths as the component gives them to ``run``, and the raw rows behind them."""

    directory: Path
    bundle: Path
    transformed: Path
    transform_graph: Path
    raw: Mapping[str, Mapping[str, np.ndarray]]

    def outputs(self, name: str) -> dict[str, Path]:
        """Returns fresh paths for the outputs of a run."""
        return {key: self.directory / name / key for key in ("model", "history", "checkpoints")}

    def arguments(self, name: str) -> dict[str, Path]:
        return {
            "bundle": self.bundle,
            "transformed": self.transformed,
            "transform_graph": self.transform_graph,
            **self.outputs(name),
        }


def raw_rows(rows: int, seed: int) -> dict[str, np.ndarray]:
    """Returns raw columns with missing values as ``tidemill.instances`` encodes them."""
    rng = np.random.default_rng(seed)
    hours = rng.normal(40, 10, rows).astype(np.float32)
    education = rng.integers(0, 16, rows)
    colors = np.array([c.encode() for c in (*COLORS, "unseen")], object)[rng.integers(0, 5, rows)]
    words = [b" ".join(b"w%d" % w for w in rng.integers(0, WORDS + 2, n)) for n in rng.integers(0, 9, rows)]
    hours[rng.random(rows) < 0.1] = np.nan
    education[rng.random(rows) < 0.1] = np.iinfo(np.int64).min
    colors[rng.random(rows) < 0.1] = b""
    return {"hours-per-week": hours, "education num": education, "1st color": colors, "note": np.array(words, object)}


def true_score(raw: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns a score that every raw column has a part in."""
    hours = np.nan_to_num((raw["hours-per-week"] - 40) / 10)
    education = np.where(raw["education num"] < 0, 0, (raw["education num"] - 7.5) / 4.6)
    color = np.array([{b"red": 1.0, b"blue": -1.0}.get(c, 0.0) for c in raw["1st color"]])
    note = np.array([(b"w3" in n.split()) * 1.5 - (b"w7" in n.split()) for n in raw["note"]])
    return 1.2 * hours + 0.8 * education + 1.5 * color + note


class _Transform(tf.Module):
    """The transform graph that tf.Transform would have written."""

    def __init__(self) -> None:
        super().__init__()
        vocabulary = tf.lookup.KeyValueTensorInitializer(list(COLORS), tf.range(1, len(COLORS) + 1, dtype=tf.int64))
        self.colors = tf.lookup.StaticHashTable(vocabulary, len(COLORS) + 1)
        specs = {name: tf.SparseTensorSpec([None, None], dtype) for name, dtype in RAW.items()}
        self.transform_fn = tf.function(self._transform, input_signature=[specs])

    def _transform(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        hours = _dense(raw["hours-per-week"], 40.0)
        education = _dense(tf.cast(raw["education num"], tf.float32), -1.0)
        known = tf.cast(education >= 0, tf.float32)
        color = _dense(raw["1st color"], "")
        words = tf.strings.split(_dense(raw["note"], "")).to_tensor("", shape=[None, 5])
        number = tf.strings.to_number(tf.strings.regex_replace(tf.where(words == "", "w0", words), "w", ""), tf.int64)
        return {
            "hours-per-week": (hours - 40) / 10,
            "edu_parts": tf.stack([known * (education - 7.5) / 4.6, 1 - known], axis=1),
            "1st color": tf.where(color == "", tf.constant(0, tf.int64), self.colors.lookup(color)),
            "note": tf.where(words == "", tf.constant(0, tf.int64), tf.minimum(number, WORDS) + 1),
        }


def _dense(column: Any, default: object) -> Any:
    filled = tf.fill([column.dense_shape[0]], tf.constant(default, column.dtype))
    return tf.tensor_scatter_nd_update(filled, column.indices[:, :1], column.values)


def write_transform_graph(directory: Path, task: str, weight: str | None) -> None:
    tf.saved_model.save(_Transform(), str(directory / "transform_fn"))
    # The toy graph has its vocabularies in its nodes; tf.Transform's are these files.
    for name, terms in (("002_1st_color", COLORS), ("003_note", [f"w{i}" for i in range(WORDS)])):
        lines = "".join(f"{term}\n" for term in ("␀", *terms))
        (directory / "transform_fn" / "assets" / f"vocabulary_{name}.txt").write_text(lines)
    TransformedFeatures(RAW, FEATURES, "__label__", weight, CLASSES[task], task).write(directory)


def write_split(directory: Path, columns: Mapping[str, np.ndarray], row_group: int) -> None:
    arrays = {}
    for name, values in columns.items():
        flat = pa.array(values.reshape(-1))
        arrays[name] = flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    directory.mkdir(parents=True)
    half = math.ceil(len(columns["__label__"]) / 2)
    table = pa.table(arrays)
    pq.write_table(table[:half], directory / "part-00000.parquet", row_group_size=row_group)
    pq.write_table(table[half:], directory / "part-00001.parquet", row_group_size=row_group)


def labels(task: str, raw: Mapping[str, np.ndarray], seed: int) -> np.ndarray:
    score = true_score(raw)
    noise = np.random.default_rng(seed).logistic(size=len(score))
    if task == "regression":
        return (1000 + 50 * (score + 0.1 * noise)).astype(np.float32)
    if task == "binary_classification":
        return (score + noise > 0.5).astype(np.float32)
    return np.digitize(score + 0.3 * noise, [-1, 1]).astype(np.int64)


def problem_yaml(task: str, **changes: Any) -> dict[str, Any]:
    label = {"column": "y", "positive": "yes"} if task == "binary_classification" else {"column": "y"}
    return {
        "name": "toy",
        "task": task,
        "label": label,
        "features": {
            "hours-per-week": "numeric",
            "education num": "numeric",
            "1st color": "categorical",
            "note": "text",
        },
        **changes,
    }


@pytest.fixture(scope="session")
def make_inputs(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Inputs]:
    """Returns a function that writes the inputs of a run.

    Its arguments: task, rows of the training split, ``training`` and ``problem`` settings, the source of ``model.py``,
    whether rows are weighted, and a function that spoils the transformed columns of a split.
    """
    from tidemill.transform.graph import load_transform

    graphs: dict[tuple[str, bool], Path] = {}

    def make(
        task: str = "binary_classification",
        rows: int = 600,
        training: Mapping[str, Any] | None = None,
        model: str | None = None,
        weighted: bool = False,
        spoil: Callable[[str, dict[str, np.ndarray]], dict[str, np.ndarray]] | None = None,
    ) -> Inputs:
        directory = tmp_path_factory.mktemp("inputs")
        if (task, weighted) not in graphs:
            graphs[task, weighted] = tmp_path_factory.mktemp("graph")
            write_transform_graph(graphs[task, weighted], task, "__weight__" if weighted else None)
        graph = graphs[task, weighted]
        transform = load_transform(graph)
        raw = {split: raw_rows(n, seed) for seed, (split, n) in enumerate(_sizes(rows).items())}
        for seed, (split, columns) in enumerate(raw.items()):
            outputs = transform({name: tf.constant(values) for name, values in columns.items()})
            transformed = {name: tensor.numpy() for name, tensor in outputs.items()}
            transformed["__label__"] = labels(task, columns, seed)
            if weighted:
                transformed["__weight__"] = np.random.default_rng(seed).uniform(0, 4, len(columns["note"])).astype("f4")
            spoilt = spoil(split, transformed) if spoil else transformed
            write_split(directory / "transformed" / split, spoilt, row_group=100)
        types = dict.fromkeys((*(f.name for f in FEATURES), "__label__"), "float32")
        ExamplesManifest(_sizes(rows), types, CLASSES[task], {}).write(directory / "transformed")
        settings = problem_yaml(task, training={"max_epochs": 3, **(training or {})})
        if model:
            settings["user_code"] = {"model": "model:build_model"}
            (directory / "model.py").write_text(model)
        (directory / "problem.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
        bundle = pack(load_problem(directory), directory, directory / "bundles", "model")
        return Inputs(directory, bundle, directory / "transformed", graph, raw)

    return make


def _sizes(rows: int) -> dict[str, int]:
    return {"train": rows, "eval": rows // 4 + 1, "test": rows // 4 + 1}


@pytest.fixture(scope="session")
def raw_rows_as_tensors() -> Callable[..., dict[str, Any]]:
    """Returns the function from raw columns and a slice of their rows to the arguments of ``serving_default``."""
    return lambda raw, rows: {name: tf.constant(values[rows], RAW[name]) for name, values in raw.items()}
