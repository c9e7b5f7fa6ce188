"""Steps on two replicas beside the same steps on one: run by ``test_train_replicas.py``, as devices are set once.

Its argument: those of a whole training by ``mirrored``, as JSON. Prints one JSON object: what was found, by scenario.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from tidemill.errors import UserCodeError
from tidemill.train import replicas, steps
from tidemill.train.batches import Block, Packing
from tidemill.train.context import LabelSummary, TrainContext
from tidemill.train.place import Place
from tidemill.train.replicas import make_steps
from tidemill.train.run import run
from tidemill.train.steps import Steps
from tidemill.train.strategies import ALONE, Distribution, distribute
from tidemill.training import Training
from tidemill.transform.features import TransformedFeature, TransformedFeatures

FEATURES = (TransformedFeature("id", "ids", 4, 0, "id"), TransformedFeature("x", "dense", 2, 0, "x"))
PACKING = Packing(TransformedFeatures({"id": "int64"}, FEATURES, "__label__", None, (), "regression"))
ONE = Distribution("default", tf.distribute.get_strategy())
BATCH = 8


def build(
    distribution: Distribution,
    optimizer: Callable[[], keras.optimizers.Optimizer],
    weighted: bool = False,
    more: Callable[[Any], Any] = lambda hidden: hidden,
    training: Mapping[str, Any] | None = None,
    metrics: Callable[[], list[keras.metrics.Metric]] = list,
) -> Steps:
    """Returns the steps of a small model with an embedding, a penalty on its weights and metrics of both kinds."""
    context = TrainContext(
        task="regression",
        classes=(),
        features=FEATURES,
        training=Training(**(training or {})),
        label=LabelSummary(1, 0.0, 1.0, (), 1.0),
        strategy=distribution.strategy,
        batch_size=BATCH,
        steps_per_epoch=1,
        max_steps=100,
        checkpoints=Path("unused"),
    )
    keras.utils.set_random_seed(0)
    with distribution.strategy.scope():
        inputs = context.inputs()
        hidden = layers.Concatenate()([layers.Embedding(4, 3)(inputs["id"]), inputs["x"]])
        hidden = layers.Dense(5, "relu")(more(hidden))
        model = keras.Model(inputs, layers.Dense(1, kernel_regularizer=keras.regularizers.L2(0.1))(hidden))
        own = metrics()
        weighted_metrics = [keras.metrics.RootMeanSquaredError()]
        model.compile(optimizer=optimizer(), loss="mse", metrics=["mae", *own], weighted_metrics=weighted_metrics)
    return make_steps(model, PACKING, context, weighted, distribution)


def rows(count: int, weighted: bool = False, seed: int = 0) -> Block:
    rng = np.random.default_rng(seed)
    return Block(
        rng.normal(size=(count, 2)).astype(np.float32),
        rng.integers(0, 4, (count, 1)).astype(np.int32),
        rng.normal(size=count).astype(np.float32),
        rng.uniform(0, 3, count).astype(np.float32) if weighted else None,
    )


def weights(made: Steps) -> list[np.ndarray]:
    return [np.array(variable) for variable in made.variables]


def difference(first: list[np.ndarray], second: list[np.ndarray]) -> float:
    return max(float(np.abs(a.astype(float) - b.astype(float)).max()) for a, b in zip(first, second, strict=True))


def beside(two: Distribution, **how: Any) -> dict[str, Any]:
    """Trains on 21 rows and evaluates on 13, on one replica and on two."""
    weighted = how.get("weighted", False)
    found: dict[str, Any] = {}
    states = []
    for name, distribution in (("one", ONE), ("two", two)):
        made = build(distribution, **how)
        before = weights(made)
        taken = made.train(rows(21, weighted))
        states.append(weights(made))
        found[name] = {
            "steps": taken.steps,
            "loss": taken.loss,
            "train": made.results(0.0),
            "eval": made.evaluate([rows(8, weighted, 1), rows(5, weighted, 2)]),
            "moved": difference(before, weights(made)),
        }
    return {**found, "difference": difference(*states)}


def kept_by_replica(two: Distribution) -> dict[str, Any]:
    """A batch normalisation and a dropout, before and after the replicas agree."""
    made = build(two, keras.optimizers.Adam, more=lambda h: layers.Dropout(0.5)(layers.BatchNormalization()(h)))
    made.train(rows(21))
    assert isinstance(made, replicas.ReplicatedSteps)

    def parts() -> dict[str, list[Any]]:
        return {
            variable.name: [np.array(part).tolist() for part in made._parts(variable)]
            for variable in made.model.non_trainable_variables
        }

    apart = parts()
    made.settle()
    settled, values = parts(), made.values()
    made.train(rows(21))
    made.restore(values)
    return {"apart": apart, "settled": settled, "restored": parts()}


def overflow(two: Distribution) -> dict[str, Any]:
    """In float16, the second replica's gradient alone is infinite."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        made = build(two, lambda: keras.optimizers.SGD(0.01))
    finally:
        keras.config.set_dtype_policy("float32")
    model = made.model
    before = [np.array(variable) for variable in model.trainable_variables]
    block = rows(BATCH)
    block.label[BATCH // 2 :] = 1e6
    made.train(block)
    after = [np.array(variable) for variable in model.trainable_variables]
    scale = float(np.array(model.optimizer.dynamic_scale))
    taken = made.train(rows(BATCH))
    return {
        "optimizer": type(model.optimizer).__name__,
        "moved": difference(before, after),
        "scales": [model.optimizer.initial_scale, scale],
        "then": [taken.loss, difference(before, [np.array(variable) for variable in model.trainable_variables])],
    }


def cut_short(two: Distribution) -> dict[str, Any]:
    """Calls that may take less than no time end before their block, and what is left of it is taken by others."""
    whole = build(two, keras.optimizers.Adam)
    whole.train(rows(29))
    before, replicas.CALL_SECONDS, steps.CALL_SECONDS = steps.CALL_SECONDS, -1.0, -1.0
    try:
        made = {"one": build(ONE, keras.optimizers.Adam), "two": build(two, keras.optimizers.Adam)}
        found: dict[str, Any] = {}
        for name, each in made.items():
            block, taken = rows(29), []
            while len(block):
                taken.append(each.train(block).steps)
                block = block[taken[-1] * BATCH :]
            found[name] = taken
    finally:
        replicas.CALL_SECONDS = steps.CALL_SECONDS = before
    states = [[np.array(v) for v in each.model.variables] for each in (whole, made["two"])]
    return {**found, "difference": difference(*states)}


class Largest(keras.metrics.Metric):
    """The largest prediction, which can't be had from a sum."""

    def __init__(self) -> None:
        super().__init__(name="largest")
        self.largest = self.add_variable((), "zeros", aggregation="only_first_replica")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        del y_true, sample_weight
        self.largest.assign(keras.ops.maximum(self.largest, keras.ops.max(y_pred)))

    def result(self) -> Any:
        return self.largest


def refusal(two: Distribution) -> str:
    """A metric that is no sum, with one worker and as if there were two."""
    build(two, keras.optimizers.SGD, metrics=lambda: [Largest()]).train(rows(BATCH))
    try:
        build(Distribution(two.name, two.strategy, Place(0, 2)), keras.optimizers.SGD, metrics=lambda: [Largest()])
    except UserCodeError as error:
        return str(error)
    return ""


def main() -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    two = distribute("mirrored", ALONE)
    adam = {"optimizer": lambda: keras.optimizers.Adam(0.01, global_clipnorm=0.1, use_ema=True)}
    sgd = {"optimizer": lambda: keras.optimizers.SGD(0.1)}
    found: dict[str, Any] = {
        "sgd": beside(two, **sgd),
        "weighted, clipped and averaged": beside(two, weighted=True, **adam),
        "in parts": beside(two, training={"optimizer": {"accumulate_steps": 2}}, **sgd),
        "compiled": beside(two, training={"xla": True}, **sgd),
        "kept by replica": kept_by_replica(two),
        "overflow": overflow(two),
        "cut short": cut_short(two),
        "refusal": refusal(two),
        "asked": [build(two, **sgd).train(rows(9), None, lambda asked=asked: asked).stop for asked in (False, True)],
    }
    arguments = json.loads(sys.argv[1])
    found["runs"] = [asdict(run(**arguments)), asdict(run(**{**arguments, "model": None}))]
    replicas.applies_within = lambda _: True
    found["applied within"] = beside(two, weighted=True, **adam)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
    sys.stdout.flush()
