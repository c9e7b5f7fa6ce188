"""One process of a training by many: ``python3 -m tidemill.train.worker``; TF_CONFIG tells its place among them.

SIGTERM and SIGINT have all workers save at one step and end with the exit code that asks for a retry.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tidemill.errors import PlatformError, UsageError
from tidemill.jobs.job import CHECKPOINTS, RECORDS
from tidemill.stage import Stage
from tidemill.train.heartbeats import Heart
from tidemill.train.place import Place
from tidemill.train.preemption import listening
from tidemill.train.service import CLUSTER_VARIABLE, publish_curves, trainers

_PR_SET_PDEATHSIG = 1


def main(arguments: Sequence[str] | None = None) -> None:
    given = _parser().parse_args(arguments)
    if given.parent is not None:
        _die_with(given.parent)
    if (cluster := trainers(os.environ.get(CLUSTER_VARIABLE))) is not None:
        os.environ[CLUSTER_VARIABLE] = cluster
    try:
        worker = Place.read(os.environ).worker
    except UsageError as error:  # so nobody knows which worker's record this would belong in
        print(f"UsageError: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    heart, record = Heart(worker), given.shared / RECORDS / f"worker-{worker}.json"
    record.unlink(missing_ok=True)  # of an earlier start: it must not pass for this one's, should that be killed
    with (
        Stage("train", record) as stage,
        listening() as notice,
        heart.beating(given.shared),
    ):
        import tensorflow as tf

        from tidemill.train.run import run

        stage.begin()
        try:
            report = run(
                given.bundle,
                given.transformed,
                given.transform_graph,
                given.model,
                given.history,
                given.shared / CHECKPOINTS,
                heart=heart,
                notice=notice,
                hyperparameters=given.hyperparameters,
                champion=given.champion,
            )
        except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError) as error:
            # What is left of a collective operation when another worker has gone.
            raise PlatformError("train", "needs all its workers", str(error).partition("\n")[0]) from error
        stage.report(report)
        if worker == 0:
            publish_curves(given.history, os.environ)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # tearing TensorFlow down takes a second and does nothing for anyone


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m tidemill.train.worker", description=__doc__, allow_abbrev=False)
    for name, told in {
        "bundle": "the problem",
        "transformed": "as transform put out",
        "transform-graph": "as transform put out",
        "model": "where the model goes",
        "history": "where the history goes",
        "shared": "directory of all workers and their watcher; see tidemill.jobs.job",
    }.items():
        parser.add_argument(f"--{name}", required=True, type=Path, help=told)
    parser.add_argument("--champion", type=Path, help="the model in production, where the problem starts from it")
    parser.add_argument("--hyperparameters", type=Path, help="what tuning found")
    parser.add_argument("--parent", type=int, help="process with which this one is to end, whatever happens to it")
    return parser


def _die_with(parent: int) -> None:
    """Has the kernel kill this process when the one that started it is gone: an orphan would train on, for nobody.

    The kernel goes by the thread that started it, which must not end before.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it went before that
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
