"""Artefacts that the evaluation reads, made small and real: Parquet splits and SavedModels."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
pytest.importorskip("tensorflow_model_analysis", reason="needs the tensorflow environment")

import tensorflow as tf

from tidemill.artifacts import ExamplesManifest, ModelManifest
from tidemill.bundle import pack
from tidemill.files import digest_tree
from tidemill.problem import parse_problem


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            # Beam and TFMA 0.52 use APIs that their own dependencies deprecate; nothing here can mend that.
            for category in ("DeprecationWarning", "FutureWarning", "PendingDeprecationWarning"):
                item.add_marker(pytest.mark.filterwarnings(f"ignore::{category}"))
            # TFMA divides by zero where a bin is empty and drops the NaN afterwards.
            item.add_marker(pytest.mark.filterwarnings("ignore::RuntimeWarning:tensorflow_model_analysis"))


class ScoreModel(tf.Module):
    """Answers with a function of the raw numeric input ``score``, as an exported model does with its features."""

    def __init__(self, task: str, classes: Sequence[str], threshold: float, noise: float, answer_nan: bool) -> None:
        super().__init__()
        self._task, self._threshold, self._nan = task, threshold, answer_nan
        self._classes = tf.constant(list(classes) or [""])
        self._noise = tf.Variable(noise, dtype=tf.float32)

    def answer(self, score: tf.Tensor, colour: tf.Tensor) -> dict[str, tf.Tensor]:
        known = tf.where(tf.math.is_nan(score), tf.zeros_like(score), score)
        signal = known + self._noise * tf.sin(known * 7) + tf.where(colour == b"red", 0.3, 0.0)
        if self._nan:
            signal = tf.where(colour == b"red", float("nan"), signal)
        if self._task == "regression":
            return {"value": signal * 10 + 50}
        if self._task == "multiclass_classification":
            centres = tf.linspace(-1.0, 1.0, len(self._classes))
            probabilities = tf.nn.softmax(-3 * tf.square(signal[:, None] - centres[None, :]))
            return {"probabilities": probabilities, "label": tf.gather(self._classes, tf.argmax(probabilities, -1))}
        probability = tf.sigmoid(2 * signal)
        return {
            "probability": probability,
            "label": tf.gather(self._classes, tf.cast(probability >= self._threshold, tf.int32)),
        }


def write_model(
    directory: Path,
    task: str,
    classes: Sequence[str] = (),
    threshold: float = 0.5,
    noise: float = 0.0,
    answer_nan: bool = False,
) -> Path:
    """Exports a model that reads ``score`` and ``colour``."""
    module = ScoreModel(task, classes, threshold, noise, answer_nan)
    signature = tf.function(
        module.answer,
        input_signature=[tf.TensorSpec([None], tf.float32, "score"), tf.TensorSpec([None], tf.string, "colour")],
    )
    tf.saved_model.save(
        module, str(directory / "saved_model"), signatures={"serving_default": signature.get_concrete_function()}
    )
    ModelManifest(
        name="unit",
        task=task,
        classes=tuple(classes),
        threshold=threshold,
        inputs={"score": "float32", "colour": "string"},
        outputs={},
        signatures=("serving_default",),
        digest=digest_tree(directory / "saved_model", exclude=("fingerprint.pb",)),
        framework={},
    ).write(directory)
    return directory


def write_examples(directory: Path, splits: Mapping[str, pa.Table], classes: Sequence[str], parts: int = 2) -> Path:
    """Writes splits of Parquet in several files, the last smaller than the others."""
    columns: dict[str, str] = {}
    for split, table in splits.items():
        (directory / split).mkdir(parents=True)
        size = -(-table.num_rows // parts) + 1
        for i in range(parts):
            pq.write_table(table.slice(i * size, size), directory / split / f"part-{i:05d}.parquet")
        columns = {f.name: "float64" if pa.types.is_floating(f.type) else str(f.type) for f in table.schema}
    ExamplesManifest(
        rows={name: table.num_rows for name, table in splits.items()}, columns=columns, classes=tuple(classes), files={}
    ).write(directory)
    return directory


def make_table(task: str, classes: Sequence[str], rows: int, seed: int) -> pa.Table:
    """Rows with two sensitive columns (one with missing values), a numeric one, a weight and a label."""
    generator = np.random.default_rng(seed)
    score = generator.normal(size=rows)
    sex = generator.choice(["Female", "Male"], rows)
    colour = generator.choice(["red", "green", "blue"], rows, p=[0.5, 0.4, 0.1])
    signal = score + 0.4 * (sex == "Male") + generator.logistic(size=rows) * 0.5
    if task == "regression":
        label: Any = pa.array(50 + 10 * signal)
    else:
        cuts = np.quantile(signal, np.linspace(0, 1, len(classes) + 1)[1:-1])
        label = pa.array(np.asarray(classes)[np.searchsorted(cuts, signal)])
    return pa.table(
        {
            "score": pa.array(score, mask=generator.random(rows) < 0.02),
            "sex": pa.array(sex),
            "colour": pa.array(colour, mask=generator.random(rows) < 0.05),
            "age": pa.array(generator.integers(18, 80, rows)),
            "weight": pa.array(generator.gamma(2.0, 0.5, rows)),
            "label": label,
        }
    )


def make_problem(task: str, **changes: Any) -> dict[str, Any]:
    problem: dict[str, Any] = {
        "name": "unit",
        "task": task,
        "label": {"column": "label"},
        "features": {"score": "numeric"},
        "sensitive": ["sex", "colour", ["sex", "colour"], "age"],
    }
    if task == "binary_classification":
        problem["label"]["positive"] = "yes"
    return {**problem, **changes}


CLASSES = {
    "binary_classification": ("no", "yes"),
    "multiclass_classification": ("a", "b", "c", "d"),
    "regression": (),
}


@pytest.fixture(scope="session")
def bundle_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Packs a problem given as a dictionary."""
    directory = tmp_path_factory.mktemp("bundles")

    def make(problem: Mapping[str, Any]) -> Path:
        return pack(parse_problem(yaml.safe_dump(dict(problem)), "problem.yaml"), directory, directory)

    return make


@pytest.fixture(scope="session")
def examples_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Examples of a task: 3,000 training and 2,001 test rows."""
    made: dict[str, Path] = {}

    def make(task: str) -> Path:
        if task not in made:
            classes = CLASSES[task]
            made[task] = write_examples(
                tmp_path_factory.mktemp("examples"),
                {"train": make_table(task, classes, 3000, 1), "test": make_table(task, classes, 2001, 2)},
                classes,
            )
        return made[task]

    return make


@pytest.fixture(scope="session")
def model_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Exported models of a task, made once per set of arguments."""
    made: dict[tuple[Any, ...], Path] = {}

    def make(task: str, **options: Any) -> Path:
        key = (task, *sorted(options.items()))
        if key not in made:
            made[key] = write_model(tmp_path_factory.mktemp("model"), task, CLASSES[task], **options)
        return made[key]

    return make


@pytest.fixture(scope="session")
def problem_of() -> Callable[..., dict[str, Any]]:
    """Problems as dictionaries, with changes."""
    return make_problem
