"""Runs its arguments as a command, with TF_CONFIG set from what Kubeflow Trainer tells a node.

Trainer knows no TensorFlow. Under ``mlPolicy: {jax: {}}`` it gives each node three variables, which are all that
TF_CONFIG needs: JAX_NUM_PROCESSES, JAX_PROCESS_ID and JAX_COORDINATOR_ADDRESS (``<job>-node-0-0.<job>:29500``). Node n
is called ``<job>-node-0-n.<job>``. Worker 0 is the chief; a single node gets no TF_CONFIG, as TensorFlow wants it.
"""

import json
import os
import re
import sys

_COORDINATOR = re.compile(r"(?P<job>.+-node-0)-0\.(?P<domain>[^:]+):(?P<port>\d+)")


def tf_config(environment):
    """Returns the cluster and this node's place in it, or None if it is alone.

    Raises:
        ValueError: if a variable is missing or makes no sense.
    """
    nodes = int(environment.get("JAX_NUM_PROCESSES", "1"))
    if nodes == 1:
        return None
    index = int(environment.get("JAX_PROCESS_ID", "-1"))
    coordinator = _COORDINATOR.fullmatch(environment.get("JAX_COORDINATOR_ADDRESS", ""))
    if coordinator is None or not 0 <= index < nodes:
        given = {name: environment.get(name) for name in sorted(environment) if name.startswith("JAX_")}
        raise ValueError(f"expected a coordinator <job>-node-0-0.<job>:<port> and a number below {nodes} (got {given})")
    workers = ["{job}-{n}.{domain}:{port}".format(n=n, **coordinator.groupdict()) for n in range(nodes)]
    return {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}


def main():
    if len(sys.argv) < 2:
        sys.exit("tf_config.py: expected a command (got none)\n  → give it as spec.trainer.args of the TrainJob")
    try:
        config = tf_config(os.environ)
    except ValueError as error:
        sys.exit(f"tf_config.py: {error}\n  → the TrainingRuntime needs `mlPolicy: {{jax: {{}}}}`")
    environment = dict(os.environ)
    if config is not None:
        environment["TF_CONFIG"] = json.dumps(config)
    sys.stdout.flush()
    os.execvpe(sys.argv[1], sys.argv[1:], environment)


if __name__ == "__main__":
    main()
