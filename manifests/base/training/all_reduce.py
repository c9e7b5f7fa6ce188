"""Adds up one number per node across all nodes: proves names, ports, policies and TF_CONFIG before real work does."""

import json
import os
import sys

import tensorflow as tf

config = json.loads(os.environ.get("TF_CONFIG", "{}"))
nodes = len(config.get("cluster", {}).get("worker", [0]))
strategy = tf.distribute.MultiWorkerMirroredStrategy()


@tf.function
def total():
    return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(lambda: tf.constant(1.0)), axis=None)


each = strategy.num_replicas_in_sync
got = float(total())
index = config.get("task", {}).get("index", 0)
print(f"node {index} of {nodes}: {each} replicas, their sum is {got:g}", flush=True)
sys.exit(0 if got == each and each % nodes == 0 and each >= nodes else 1)
