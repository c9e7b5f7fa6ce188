"""Prints where one step on two replicas takes a weight, by bound and scaling: run by ``test_train_optimizers.py``."""

from __future__ import annotations

import json

import keras
import numpy as np
import tensorflow as tf

from tidemill.train.optimizers import clipped_over_replicas

GRADIENTS = ([3.0, 4.0], [-3.0, 4.0])


def taken(scale: float | None, **bound: float) -> list[float]:
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        weight = keras.Variable(np.zeros(2, np.float32))
        optimizer = keras.optimizers.SGD(1.0, **bound)
        if scale:
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=scale)
        optimizer.build([weight])

    def replica(gradient: tf.Tensor) -> tf.Tensor:
        optimizer.apply(clipped_over_replicas(optimizer, [gradient]), [weight])
        return gradient

    def own(context: tf.distribute.experimental.ValueContext) -> tf.Tensor:
        return (scale or 1.0) * tf.constant(GRADIENTS[context.replica_id_in_sync_group])

    tf.function(lambda gradient: strategy.run(replica, (gradient,)), autograph=False)(
        strategy.experimental_distribute_values_from_function(own)
    )
    return [float(value) for value in weight.numpy()]


if __name__ == "__main__":
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
    bounds = {"global_clipnorm": 1.0, "clipnorm": 1.0, "clipvalue": 2.0}
    print(
        json.dumps(
            {f"{name} {scale}": taken(scale, **{name: b}) for name, b in bounds.items() for scale in (None, 8.0)}
        )
    )
