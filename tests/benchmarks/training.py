"""How fast examples are read and steps are taken, beside a bare Keras loop, ``keras.Model.fit`` and a second worker.

Makes transformed examples like those of the taxi problem (3 numbers and 11 columns of ids), and prints a table::

    python tests/benchmarks/training.py --rows 200000 --steps 1000

Run it in the tensorflow environment. Each figure is the best of ``--repeats``; compilation is apart. The bare loop
calls one graph per step, with nothing in it but the model, its loss and its optimizer, on batches that were made
beforehand; fit() gets the same model and the same examples, from memory and cut into batches beforehand. Ours reads
Parquet, shuffles, and keeps the metrics. On a busy machine only the ratios mean something: they are taken in one
process, in turn. Workers are processes of one core each; one alone has one core too.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
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
from tidemill.train.batches import Block, Examples, Packing, ahead, summarize_labels
from tidemill.train.context import LabelSummary, TrainContext
from tidemill.train.place import Place
from tidemill.train.ports import reserved
from tidemill.train.replicas import make_steps
from tidemill.train.steps import Steps
from tidemill.train.strategies import distribute
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


def context_of(
    label: LabelSummary, batch_size: int, steps: int, strategy: tf.distribute.Strategy | None = None
) -> TrainContext:
    return TrainContext(
        task=DESCRIBED.task,
        classes=DESCRIBED.classes,
        features=FEATURES,
        training=Training(batch_size=batch_size),
        label=label,
        strategy=strategy or tf.distribute.get_strategy(),
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
    rows = sum(len(block.tensors()["label"]) for block in ahead(split.blocks(batch_size, order=(0, 0))))
    return rows / (time.perf_counter() - begun)


def endless(examples: Examples, batch_size: int) -> Iterator[Block]:
    for epoch in itertools.count():
        for block in ahead(examples.blocks(batch_size, order=(0, epoch))):
            yield block[: len(block) // batch_size * batch_size]


def loop_rate(steps: Steps, examples: Examples, batch_size: int, count: int, workers: int = 1) -> float:
    """Returns steps per second of our loop, reading and shuffling included.

    Args:
        batch_size: rows per step of this worker.
    """
    begun, left = time.perf_counter(), count
    for block in endless(examples, batch_size):
        part = block[: left * batch_size]
        while len(part) and left:
            rows = np.full(len(part) // batch_size, workers * batch_size, np.int32)
            taken = steps.train(part, rows).steps
            part = part[taken * batch_size :]
            left -= taken
        if not left:
            return count / (time.perf_counter() - begun)
    raise AssertionError("endless() ended")


def memory_rate(steps: Steps, block: Block, batch_size: int, count: int) -> float:
    """Returns steps per second of our graph on one block that lies in memory: what reading and shuffling add to."""
    begun, left = time.perf_counter(), count
    while left:
        left -= steps.train(block[: left * batch_size]).steps
    return count / (time.perf_counter() - begun)


def bare_loop(model: keras.Model, packing: Packing, block: Block, batch_size: int) -> Callable[[int], float]:
    """Returns a function that takes steps as Keras's guide to loops of one's own does, and returns them per second."""
    whole = len(block) // batch_size
    batches_made = [packing.unpack(block[i * batch_size : (i + 1) * batch_size].tensors())[:2] for i in range(whole)]
    model.optimizer.build(model.trainable_variables)

    @tf.function(autograph=False)
    def step(inputs: dict[str, tf.Tensor], labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = model.compute_loss(inputs, labels, model(inputs, training=True))
        variables = model.trainable_variables
        model.optimizer.apply(tape.gradient(loss, [v.value for v in variables]), variables)
        return loss

    step(*batches_made[0])

    def rate(count: int) -> float:
        begun = time.perf_counter()
        for i in range(count):
            loss = step(*batches_made[i % whole])
        float(loss)
        return count / (time.perf_counter() - begun)

    return rate


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


def worker_rates(directory: Path, count: int, batch_size: int, steps: int) -> list[float]:
    """Returns the examples per second of each of ``count`` workers that train together, each on one core."""
    threads = dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"), "1")
    cores = sorted(os.sched_getaffinity(0))
    with reserved(count) as ports:
        cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
        processes = []
        for i in range(count):
            config = {"cluster": cluster, "task": {"type": "worker", "index": i}}
            command = [sys.executable, __file__, "--worker", str(directory), str(batch_size), str(steps)]
            environment = {**os.environ, **threads, "TF_CONFIG": json.dumps(config)}
            pin = ["taskset", "-c", str(cores[i % len(cores)])] if shutil.which("taskset") else []
            processes.append(
                subprocess.Popen(
                    [*pin, *command], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
                )
            )
        return [float(process.communicate(timeout=600)[0].split()[-1]) for process in processes]


def work(directory: Path, batch_size: int, count: int) -> None:
    """Trains as one of the workers of TF_CONFIG and prints this worker's examples per second."""
    place = Place.read()
    distribution = distribute("auto", place)
    packing = Packing(DESCRIBED)
    label = summarize_labels(directory, DESCRIBED)
    context = context_of(label, batch_size * place.workers, count, distribution.strategy)
    with distribution.strategy.scope():
        model = ARCHITECTURES["wide_and_deep"](context)
    steps = make_steps(model, packing, context, False, distribution)
    examples = Examples(directory, "train", packing, place=place)
    loop_rate(steps, examples, batch_size, 5, place.workers)
    rates = [loop_rate(steps, examples, batch_size, count, place.workers) for _ in range(3)]
    print(max(rates) * batch_size, flush=True)
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        directory, batch_size, count = arguments.worker
        work(Path(directory), int(batch_size), int(count))
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
        streamed = fresh()
        (windows,) = best(arguments.repeats, lambda: reading_rate(fresh, 1024))
        print(f"{'input from Parquet, one window (batch 1024)':58} {whole:>8,.0f} ex/s")
        print(f"{'input from Parquet, eight windows (batch 1024)':58} {windows:>8,.0f} ex/s; goal 200,000")
        for batch_size in (40, 256, 1024):
            compare(label, packing, streamed, batch_size, arguments)
        batches.WINDOW_BYTES = window
        for batch_size in (256, 1024):
            count = max(20, arguments.steps // 5)
            (alone,) = worker_rates(directory, 1, batch_size, count)
            both = worker_rates(directory, 2, batch_size, count)
            what = f"per worker of one core, batch {batch_size} each: alone {alone:,.0f} ex/s"
            mean = sum(both) / 2
            print(f"{what:58} {mean:>8,.0f} ex/s with a second worker; ratio {mean / alone:.2f}")


def compare(
    label: LabelSummary, packing: Packing, examples: Examples, batch_size: int, arguments: argparse.Namespace
) -> None:
    """Prints the rates of our loop and of others with the same model, measured in turn."""
    context = context_of(label, batch_size, arguments.steps)
    keras.utils.set_random_seed(0)
    begun = time.perf_counter()
    steps = Steps(ARCHITECTURES["wide_and_deep"](context), packing, context, weighted=False)
    block = next(examples.blocks(batch_size))
    steps.train(block[:batch_size])
    compiled = time.perf_counter() - begun
    model, dataset = ARCHITECTURES["wide_and_deep"](context), in_memory(examples, batch_size)
    model.fit(dataset, steps_per_epoch=2, epochs=1, verbose=0)
    bare = bare_loop(ARCHITECTURES["wide_and_deep"](context), packing, block, batch_size)
    ours, memory, barely, theirs = best(
        arguments.repeats,
        lambda: loop_rate(steps, examples, batch_size, arguments.steps),
        lambda: memory_rate(steps, block, batch_size, arguments.steps),
        lambda: bare(arguments.steps),
        lambda: fit_rate(model, dataset, arguments.steps),
    )
    what = f"wide and deep, batch {batch_size}: {ours * batch_size:,.0f} ex/s; first step after {compiled:.1f} s"
    print(
        f"{what:58} {ours:>8,.0f} steps/s; ratio to a bare loop from memory {ours / barely:.2f} (goal 0.95), "
        f"to our graph from memory {ours / memory:.2f}, to fit {ours / theirs:.1f}"
    )
    table = JointEmbedding(FEATURES[NUMBERS:], 1, 0.0, "zeros", "wide")
    wide, hot = (
        Steps(wide_only(context, layer), packing, context, weighted=False) for layer in (table, OneHotWide(SIZES))
    )
    tables, one_hot = best(
        arguments.repeats,
        lambda: loop_rate(wide, examples, batch_size, arguments.steps),
        lambda: loop_rate(hot, examples, batch_size, arguments.steps),
    )
    what = f"wide part alone, batch {batch_size}: table"
    print(f"{what:58} {tables:>8,.0f} steps/s; one-hot {one_hot:,.0f}; ratio {tables / one_hot:.1f}")


if __name__ == "__main__":
    main()
