"""A test split with every kind of row, a real model, and its offline predictions."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from tidemill.artifacts import ExamplesManifest
from tidemill.bundle import pack
from tidemill.instances import arrays_from_batch
from tidemill.problem import parse_problem

ROWS = 120
_PROBLEM = """
name: toy
task: binary_classification
label: {column: income, positive: ">50K"}
features: {age: numeric, hours: numeric, job: categorical}
gates: {serving: {rows: 40}}
"""


@pytest.fixture(scope="session")
def toy() -> ModuleType:
    """The module of the toy model."""
    spec = importlib.util.spec_from_file_location("toy", Path(__file__).parents[1] / "serving" / "toy.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Artefacts:
    """The inputs of a rehearsal."""

    root: Path
    bundle: Path
    examples: Path
    model: Path
    predictions: Path

    def bundle_with(self, **overrides: str) -> Path:
        problem = parse_problem(_PROBLEM, "problem.yaml", {f"gates.serving.{k}": v for k, v in overrides.items()})
        return pack(problem, self.root, self.root / "bundles")


def table() -> pa.Table:
    numbers = np.random.default_rng(0)
    ages = [float(age) for age in numbers.normal(40, 10, ROWS)]
    hours = [int(h) for h in numbers.integers(1, 80, ROWS)]
    jobs = [f"job {j} é" for j in numbers.integers(1, 30, ROWS)]
    ages[17], ages[18], hours[50], jobs[77] = None, float("nan"), None, None  # type: ignore[call-overload]
    columns = {"age": pa.array(ages, pa.float64()), "hours": pa.array(hours, pa.int64()), "job": pa.array(jobs)}
    return pa.table({**columns, "income": pa.array([">50K"] * ROWS)})


def write_examples(directory: Path, rows: pa.Table) -> Path:
    (directory / "test").mkdir(parents=True)
    half = rows.num_rows // 2
    pq.write_table(rows.slice(0, half), directory / "test" / "part-00000.parquet", row_group_size=16)
    pq.write_table(rows.slice(half), directory / "test" / "part-00001.parquet")
    columns = {"age": "float64", "hours": "int64", "job": "string", "income": "string"}
    ExamplesManifest({"test": rows.num_rows}, columns, ("<=50K", ">50K"), {}).write(directory)
    return directory


def write_predictions(directory: Path, model: Path, rows: pa.Table, toy: Any, shift: float = 0.0) -> Path:
    directory.mkdir()
    predict = tf.saved_model.load(str(model / "saved_model")).signatures["serving_default"]
    arrays = arrays_from_batch(rows, toy.INPUTS)
    outputs = predict(**{name: tf.constant(array) for name, array in arrays.items()})
    label = [value.decode() for value in outputs["label"].numpy()]
    columns = {"row": np.arange(rows.num_rows), "probability": outputs["probability"].numpy() + shift, "label": label}
    pq.write_table(pa.table(columns), directory / "part-00000.parquet")
    return directory


@pytest.fixture(scope="session")
def artefacts(toy: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Artefacts:
    root = tmp_path_factory.mktemp("rehearsal")
    model = toy.export(root / "model", 0.0)
    rows = table()
    bundle = pack(parse_problem(_PROBLEM, "problem.yaml"), root, root / "bundles")
    examples = write_examples(root / "examples", rows)
    return Artefacts(root, bundle, examples, model, write_predictions(root / "predictions", model, rows, toy))
