"""How fast examples are read, how fast steps are taken, and how that compares with ``keras.Model.fit``.

Makes transformed examples like those of the taxi problem (3 numbers and 11 columns of ids), and prints a table::

    python tests/benchmarks/training.py --rows 200000 --steps 1000

Run it in the tensorflow environment. Each figure is the best of ``--repeats``; compilation is apart. fit() gets the
same model and the same examples, from memory and cut into batches beforehand. On a busy machine only the ratios mean
something: they are taken in one process, in turn.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf
from keras import layers, ops

from tidemill.train import batches
from tidemill.train.architectures import ARCHITECTURES
from tidemill.train.architectures.tables import JointEmbedding
from tidemill.train.batches import Block, Examples, Packing, summarize_labels
from tidemill.train.context import LabelSummary, TrainContext
from tidemill.train.steps import Steps
from tidemill.training import Training
from tidemill.transform.features import TransformedFeature, TransformedFeatures

NUMBERS = 3
SIZES = (25, 8, 13, 61, 71, 8, 58, 11, 11, 11, 11)
FEATURES = (
    *(TransformedFeature(f"n{i}", "dense", 1, 0, f"n{i}") for i in range(NUMBERS)),
    *(TransformedFeature(f"c{i}", "ids", size, 0, f"c{i}") for i, size in enumerate(SIZES)),
)
DESCRIBED = TransformedFeatures({}, FEATURES, "__label__", None, ("no", "yes"), "binary_classification")


def write_examples(directory: Path, rows: int) -> None:
    rng = np.random.default_rng(0)
    columns = {f"n{i}": rng.normal(size=rows).astype(np.float32) for i in range(NUMBERS)}
    columns |= {f"c{i}": rng.integers(0, size, rows) for i, size in enumerate(SIZES)}
    score = columns["n0"] + (columns["c0"] % 3) - 1
    columns["__label__"] = (score + rng.logistic(size=rows) > 0).astype(np.float32)
    (directory / "train").mkdir(parents=True)
    pq.write_table(pa.table(columns), directory / "train" / "part-00000.parquet", row_group_size=8192)


def context_of(label: LabelSummary, batch_size: int, steps: int) -> TrainContext:
    return TrainContext(
        task=DESCRIBED.task,
        classes=DESCRIBED.classes,
        features=FEATURES,
        training=Training(batch_size=batch_size),
        label=label,
        strategy=tf.distribute.get_strategy(),
        batch_size=batch_size,
        steps_per_epoch=-(-label.rows // batch_size),
        max_steps=steps,
        checkpoints=Path("unused"),
    )


def best(repeats: int, *timed: Callable[[], float]) -> list[float]:
    """Returns the largest rate of each, measured in turn."""
    rates = [[function() for function in timed] for _ in range(repeats)]
    return [max(column) for column in zip(*rates, strict=True)]


def reading_rate(examples: Callable[[], Examples], batch_size: int) -> float:
    """Returns rows per second of one shuffled epoch, read from disk and handed to TensorFlow."""
    split = examples()
    begun = time.perf_counter()
    rows = sum(len(block.tensors()["label"]) for block in split.blocks(batch_size, order=(0, 0)))
    return rows / (time.perf_counter() - begun)


def endless(examples: Examples, batch_size: int) -> Iterator[Block]:
    for epoch in itertools.count():
        yield from examples.blocks(batch_size, order=(0, epoch))


def loop_rate(steps: Steps, examples: Examples, batch_size: int, count: int) -> float:
    """Returns steps per second of our loop, reading and shuffling included."""
    begun, left = time.perf_counter(), count
    for block in endless(examples, batch_size):
        part = block[: left * batch_size]
        steps.train(part)
        left -= -(-len(part) // batch_size)
        if not left:
            return count / (time.perf_counter() - begun)
    raise AssertionError("endless() ended")


def fit_rate(model: keras.Model, dataset: tf.data.Dataset, count: int) -> float:
    begun = time.perf_counter()
    model.fit(dataset, steps_per_epoch=count, epochs=1, verbose=0)
    return count / (time.perf_counter() - begun)


def in_memory(examples: Examples, batch_size: int) -> tf.data.Dataset:
    """Returns batches for fit(), cut beforehand so that tf.data does next to nothing."""
    block = Block.concat(list(examples.blocks(batch_size)))
    whole = len(block) // batch_size
    inputs, label, _ = examples.packing.unpack(block[: whole * batch_size].tensors())
    cut = tf.nest.map_structure(lambda t: tf.reshape(t, [whole, batch_size, *t.shape[1:]]), (inputs, label))
    return tf.data.Dataset.from_tensor_slices(cut).shuffle(64, seed=0).repeat().prefetch(2)


class OneHotWide(layers.Layer):
    """The wide part as a product with one-hot ids, the alternative to a table that is looked up."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.sizes = sizes
        self.kernel = self.add_weight(shape=(sum(sizes), 1), initializer="zeros", name="kernel")

    def call(self, ids: list[keras.KerasTensor]) -> keras.KerasTensor:
        hot = [ops.one_hot(part, size) for part, size in zip(ids, self.sizes, strict=True)]
        return ops.matmul(ops.concatenate(hot, axis=1), self.kernel)


def wide_only(context: TrainContext, wide: layers.Layer) -> keras.Model:
    """Returns a model that is nothing but one weight per id."""
    inputs = {name: tensor for name, tensor in context.inputs().items() if name.startswith("c")}
    weights = wide([inputs[f"c{i}"] for i in range(len(SIZES))])
    model = keras.Model(inputs, layers.Activation("sigmoid")(ops.sum(weights, axis=1, keepdims=True)))
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss="binary_crossentropy")
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    packing = Packing(DESCRIBED)
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        write_examples(directory, arguments.rows)
        label = summarize_labels(directory, DESCRIBED)
        print(f"{'what':58} {'rate':>12}")

        def fresh() -> Examples:
            return Examples(directory, "train", packing)

        (whole,) = best(arguments.repeats, lambda: reading_rate(fresh, 1024))
        window, batches.WINDOW_BYTES = batches.WINDOW_BYTES, arguments.rows * packing.row_bytes // 8
        (windows,) = best(arguments.repeats, lambda: reading_rate(fresh, 1024))
        batches.WINDOW_BYTES = window
        print(f"{'input from Parquet, one window (batch 1024)':58} {whole:>8,.0f} ex/s")
        print(f"{'input from Parquet, eight windows (batch 1024)':58} {windows:>8,.0f} ex/s")
        examples = fresh()
        for batch_size in (40, 256, 1024):
            context = context_of(label, batch_size, arguments.steps)
            keras.utils.set_random_seed(0)
            begun = time.perf_counter()
            steps = Steps(ARCHITECTURES["wide_and_deep"](context), packing, context, weighted=False)
            steps.train(next(examples.blocks(batch_size))[:batch_size])
            compiled = time.perf_counter() - begun
            model, dataset = ARCHITECTURES["wide_and_deep"](context), in_memory(examples, batch_size)
            model.fit(dataset, steps_per_epoch=2, epochs=1, verbose=0)
            ours, theirs = best(
                arguments.repeats,
                lambda s=steps, b=batch_size: loop_rate(s, examples, b, arguments.steps),
                lambda m=model, d=dataset: fit_rate(m, d, arguments.steps),
            )
            what = (
                f"wide and deep, batch {batch_size}: {ours * batch_size:,.0f} ex/s; first step after {compiled:.1f} s"
            )
            print(f"{what:58} {ours:>8,.0f} steps/s; fit {theirs:,.0f}; ratio {ours / theirs:.1f}")
            table = JointEmbedding(FEATURES[NUMBERS:], 1, 0.0, "zeros", "wide")
            wide, hot = (
                Steps(wide_only(context, layer), packing, context, weighted=False)
                for layer in (table, OneHotWide(SIZES))
            )
            tables, one_hot = best(
                arguments.repeats,
                lambda s=wide, b=batch_size: loop_rate(s, examples, b, arguments.steps),
                lambda s=hot, b=batch_size: loop_rate(s, examples, b, arguments.steps),
            )
            what = f"wide part alone, batch {batch_size}: table"
            print(f"{what:58} {tables:>8,.0f} steps/s; one-hot {one_hot:,.0f}; ratio {tables / one_hot:.1f}")


if __name__ == "__main__":
    main()
