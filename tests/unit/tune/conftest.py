"""A small problem with everything that a trial needs, made once: raw examples, transformed ones and a graph."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

from tidemill.artifacts import ExamplesManifest
from tidemill.bundle import pack
from tidemill.problem import load_problem
from tidemill.transform.features import LABEL, TransformedFeature, TransformedFeatures

with warnings.catch_warnings():  # what Beam warns of on import is its own; the evaluation's counting brings it
    warnings.simplefilter("ignore")
    tf = pytest.importorskip("tensorflow", reason="needs the tensorflow environment")
    pytest.importorskip("apache_beam")

ROWS = {"train": (180, 60), "eval": (80,)}  # rows by part
SPACE = {"learning_rate": {"low": 0.001, "high": 0.1, "log": True}, "hidden_units": {"choices": [[4], [8, 4]]}}
RATE = {"space": SPACE, "objective": "auc", "trials_per_round": 2, "budget": {"trials": 4}}


class _Scaled(tf.Module):
    """The transform graph that tf.Transform would have written for one number."""

    def __init__(self) -> None:
        super().__init__()
        spec = {"x": tf.SparseTensorSpec([None, None], tf.float32)}
        self.transform_fn = tf.function(self._transform, input_signature=[spec])

    def _transform(self, raw: Any) -> Any:
        x = raw["x"]
        dense = tf.scatter_nd(x.indices[:, :1], x.values, x.dense_shape[:1])
        return {"x": dense / 2}


@dataclass(frozen=True)
class Data:
    """Where the artefacts of the stages before are, and how a problem of them is packed."""

    examples: Path
    transformed: Path
    graph: Path
    pack: Callable[..., Path]


def raw_rows(rows: int, generator: np.random.Generator) -> dict[str, Any]:
    x = generator.normal(0, 2, rows).astype(np.float32)
    label = x + generator.normal(0, 1, rows) > 0
    return {
        "x": pa.array(x, pa.float64()),
        "who": pa.array([f"person {i}" for i in generator.integers(0, 40, rows)]),
        "when": pa.array([f"2026-01-{day:02d}T00:00:00Z" for day in generator.integers(1, 29, rows)]),
        "sex": pa.array(np.where(generator.random(rows) < 0.5, "f", "m").tolist()),
        "y": pa.array(np.where(label, "yes", "no").tolist()),
    }


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    root = tmp_path_factory.mktemp("tune")
    examples, transformed, graph = root / "examples", root / "transformed", root / "graph"
    generator = np.random.default_rng(7)
    for split, sizes in ROWS.items():
        for directory in (examples, transformed):
            (directory / split).mkdir(parents=True)
        for i, rows in enumerate(sizes):
            raw = pa.table(raw_rows(rows, generator))
            name = f"part-{i:05d}.parquet"
            pq.write_table(raw, examples / split / name)
            label = (pc.equal(raw["y"], "yes")).cast(pa.float32())
            made = pa.table({"x": pc.divide(raw["x"], 2).cast(pa.float32()), LABEL: label})
            pq.write_table(made, transformed / split / name)
    rows = {split: sum(sizes) for split, sizes in ROWS.items()}
    columns = {"x": "float64", "who": "string", "when": "string", "sex": "string", "y": "string"}
    ExamplesManifest(rows, columns, ("no", "yes"), {}).write(examples)
    ExamplesManifest(rows, {"x": "float", LABEL: "float"}, ("no", "yes"), {}).write(transformed)
    tf.saved_model.save(_Scaled(), str(graph / "transform_fn"))
    features = (TransformedFeature("x", "dense", 1, 0, "x"),)
    TransformedFeatures({"x": "float32"}, features, LABEL, None, ("no", "yes"), "binary_classification").write(graph)

    def packed(tuning: Any = None, code: str = "", view: str = "whole", **more: Any) -> Path:
        directory = root / "problems" / str(len(list((root / "problems").glob("*"))) if root.exists() else 0)
        directory.mkdir(parents=True)
        if code:
            (directory / "search.py").write_text(code)
        value = {
            "name": "toy",
            "task": "binary_classification",
            "label": {"column": "y", "positive": "yes"},
            "features": {"x": {"kind": "numeric", "scale": "none"}},
            "sensitive": ["sex"],
            "training": {"hidden_units": [4], "max_epochs": 2, "batch_size": 32, "dropout": 0.0},
            **({"tuning": tuning} if tuning is not None else {}),
            **more,
        }
        (directory / "problem.yaml").write_text(yaml.safe_dump(value, sort_keys=False))
        return pack(load_problem(directory), directory, directory / "bundles", view)

    return Data(examples, transformed, graph, packed)
