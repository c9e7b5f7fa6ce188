"""How long an evaluation takes, and where the time goes.

Makes its own table and model (binary; about 60 slices over two sensitive columns, their cross and a number), evaluates
it as the component would, and prints one line per size::

    python tests/benchmarks/evaluation.py --rows 100000 1500000

Run it in the tensorflow environment. Times are wall seconds with imports apart; ``predict`` is the model alone,
``count`` everything else that is done per row (reading, slicing, counting with 40 bootstrap replicates, writing the
answers), ``metrics`` the metrics and intervals out of the counts with the gate, ``write`` the results.
"""

from __future__ import annotations

import argparse
import functools
import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_started = time.perf_counter()

import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
import tensorflow as tf  # noqa: E402
import yaml  # noqa: E402

from tidemill.artifacts import ExamplesManifest, ModelManifest  # noqa: E402
from tidemill.bundle import pack  # noqa: E402
from tidemill.evaluate.evaluation import Evaluation, Inputs  # noqa: E402
from tidemill.evaluate.run import run  # noqa: E402
from tidemill.evaluate.scoring import Model  # noqa: E402
from tidemill.problem import parse_problem  # noqa: E402

_IMPORT_S = time.perf_counter() - _started
_NUMERIC, _STRINGS = 8, 4
_CHUNK = 100_000


def make_examples(directory: Path, rows: int) -> None:
    """Writes a test split of ``rows`` rows and a small training split, with the columns that the model reads."""
    for split, size in (("train", 10_000), ("test", rows)):
        (directory / split).mkdir(parents=True)
        for i, start in enumerate(range(0, size, _CHUNK)):
            table = _table(min(_CHUNK, size - start), i + (split == "test") * 1000)
            pq.write_table(table, directory / split / f"part-{i:05d}.parquet")
    columns = {name: "float64" if name[0] == "x" else "string" for name in table.column_names}
    columns |= {"age": "int64", "weight": "float64"}
    ExamplesManifest({"train": 10_000, "test": rows}, columns, ("no", "yes"), {}).write(directory)


def _table(rows: int, seed: int) -> pa.Table:
    generator = np.random.default_rng(seed)
    numbers = generator.normal(size=(_NUMERIC, rows))
    sex = generator.choice(["Female", "Male"], rows)
    region = generator.choice([f"region {i}" for i in range(16)], rows)
    signal = numbers.sum(0) / 2 + (sex == "Male") * 0.5 + generator.logistic(size=rows)
    columns: dict[str, Any] = {f"x{i}": pa.array(numbers[i], mask=generator.random(rows) < 0.02) for i in range(8)}
    columns |= {f"s{i}": pa.array(generator.choice([f"v{k}" for k in range(500)], rows)) for i in range(_STRINGS)}
    columns |= {
        "sex": pa.array(sex),
        "region": pa.array(region, mask=generator.random(rows) < 0.01),
        "age": pa.array(generator.integers(18, 80, rows)),
        "weight": pa.array(generator.gamma(2, 0.5, rows)),
        "label": pa.array(np.where(signal > 0, "yes", "no")),
    }
    return pa.table(columns)


class WideAndDeep(tf.Module):
    """A model of the default's size: hashed embeddings and two dense layers."""

    def __init__(self) -> None:
        super().__init__()
        generator = np.random.default_rng(0)
        width = _NUMERIC + _STRINGS * 16

        def variable(*shape: int) -> tf.Variable:
            return tf.Variable(generator.normal(size=shape, scale=0.1), dtype=tf.float32)

        self.tables = [variable(1000, 16) for _ in range(_STRINGS)]
        self.layers = [(variable(width, 64), variable(64)), (variable(64, 32), variable(32)), (variable(32, 1), 0.0)]

    def answer(self, **inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        numbers = tf.stack([inputs[f"x{i}"] for i in range(_NUMERIC)], -1)
        numbers = tf.where(tf.math.is_nan(numbers), tf.zeros_like(numbers), numbers)
        strings = [
            tf.gather(table, tf.strings.to_hash_bucket_fast(inputs[f"s{i}"], 1000))
            for i, table in enumerate(self.tables)
        ]
        hidden = tf.concat([numbers, *strings], -1)
        for kernel, bias in self.layers:
            hidden = tf.nn.relu(hidden @ kernel + bias) if kernel.shape[1] > 1 else hidden @ kernel
        probability = tf.sigmoid(hidden[:, 0] + tf.reduce_sum(numbers, -1) / 2)
        return {"probability": probability, "label": tf.where(probability >= 0.5, "yes", "no")}


def make_model(directory: Path) -> None:
    module = WideAndDeep()
    inputs = {f"x{i}": "float32" for i in range(_NUMERIC)} | {f"s{i}": "string" for i in range(_STRINGS)}
    specs = {name: tf.TensorSpec([None], dtype, name) for name, dtype in inputs.items()}
    signature = tf.function(module.answer).get_concrete_function(**specs)
    tf.saved_model.save(module, str(directory / "saved_model"), signatures={"serving_default": signature})
    ModelManifest(
        "benchmark", "binary_classification", ("no", "yes"), 0.5, inputs, {}, ("serving_default",), str(directory), {}
    ).write(directory)


def make_bundle(directory: Path) -> Path:
    problem = {
        "name": "benchmark",
        "task": "binary_classification",
        "label": {"column": "label", "positive": "yes"},
        "features": {f"x{i}": "numeric" for i in range(_NUMERIC)} | {f"s{i}": "categorical" for i in range(_STRINGS)},
        "weight": "weight",
        "sensitive": ["sex", "region", ["sex", "region"], "age"],
        "baseline": "prior",
        "gates": {
            "quality": [{"metric": "auc", "min": 0.6, "max_worse_than_champion": 0.01, "slices": "sensitive"}],
            "fairness": [{"metric": "equalized_odds_gap", "max": 0.5}],
        },
    }
    return pack(parse_problem(yaml.safe_dump(problem), "problem.yaml"), directory, directory)


class Stopwatch:
    """Adds up the time spent in some methods, without changing what they do."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def watch(self, owner: type, method: str, name: str) -> None:
        original: Callable[..., Any] = owner.__dict__[method]
        inner = original.__func__ if isinstance(original, classmethod) else original

        @functools.wraps(inner)
        def timed(*args: Any, **kwargs: Any) -> Any:
            begun = time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begun

        setattr(owner, method, classmethod(timed) if isinstance(original, classmethod) else timed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000], help="rows of the test split")
    parser.add_argument("--champion", action="store_true", help="evaluate a champion beside the candidate")
    arguments = parser.parse_args()
    watch = Stopwatch()
    for owner, method, name in (
        (Model, "predict", "predict"),
        (Inputs, "read", "plan"),
        (Inputs, "count", "rows"),
        (Evaluation, "of", "of"),
        (Evaluation, "write", "write"),
    ):
        watch.watch(owner, method, name)
    print(f"imports {_IMPORT_S:.1f} s")
    columns = ("rows", "slices", "plan s", "predict s", "count s", "metrics s", "write s", "total s", "peak MB")
    print(" | ".join(f"{column:>9}" for column in columns))
    for rows in arguments.rows:
        watch.seconds.clear()
        with tempfile.TemporaryDirectory() as scratch:
            here = Path(scratch)
            make_examples(here / "examples", rows)
            make_model(here / "model")
            if arguments.champion:
                make_model(here / "champion")
            begun = time.perf_counter()
            report = run(
                make_bundle(here),
                here / "examples",
                here / "model",
                here / "champion",
                here / "evaluation",
                here / "blessing",
                here / "predictions",
            )
            total = time.perf_counter() - begun
            assert len(json.loads((here / "evaluation/metrics.json").read_text())["metrics"]) == report.slices
        s = watch.seconds
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        times = (s["plan"], s["predict"], s["rows"] - s["predict"], s["of"] - s["rows"], s["write"], total)
        print(" | ".join([f"{rows:9,}", f"{report.slices:9}", *(f"{t:9.2f}" for t in times), f"{peak:9.0f}"]))


if __name__ == "__main__":
    main()
