"""One process of a training by many: ``python3 -m tidemill.train.worker``; TF_CONFIG tells its place among them.

SIGTERM and SIGINT have all workers save at one step and end with the exit code that asks for a retry.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tidemill.errors import PlatformError, UsageError
from tidemill.jobs.job import CHECKPOINTS, RECORDS
from tidemill.stage import Stage
from tidemill.train.heartbeats import Heart
from tidemill.train.place import Place
from tidemill.train.preemption import listening
from tidemill.train.service import CLUSTER_VARIABLE, publish_curves, trainers

if TYPE_CHECKING:
    import tensorflow as tf

_PR_SET_PDEATHSIG = 1
_OF_OTHERS: Final = re.compile(r"\bcollective|\bpeers?\b|\bheartbeat|\bcoordination (service|agent)", re.IGNORECASE)
"""Of what TensorFlow's errors are that come of other workers: ``Collective ops is aborted by``, ``CollectiveReduce``,
``Connection reset by peer``, ``/job:worker/task:1 heartbeat timeout``, ``coordination service``."""


def main(arguments: Sequence[str] | None = None) -> None:
    given = _parser().parse_args(arguments)
    if given.parent is not None:
        _die_with(given.parent)
    if (cluster := trainers(os.environ.get(CLUSTER_VARIABLE))) is not None:
        os.environ[CLUSTER_VARIABLE] = cluster
    try:
        place = Place.read(os.environ)
    except UsageError as error:  # so nobody knows which worker's record this would belong in
        print(f"UsageError: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    worker = place.worker
    heart, record = Heart(worker), given.shared / RECORDS / f"worker-{worker}.json"
    record.unlink(missing_ok=True)  # of an earlier start: it must not pass for this one's, should that be killed
    with Stage("train", record) as stage:
        with listening() as notice, heart.beating(given.shared):
            import tensorflow as tf

            from tidemill.train.run import forget, run

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
            except tf.errors.OpError as error:
                if (lost := _lost(error, place)) is None:
                    raise
                raise lost from error
            notice.done()
            stage.report(report)
            if worker == 0:
                publish_curves(given.history, os.environ)
        for number in (signal.SIGTERM, signal.SIGINT):  # all that is left is to say that it is done
            signal.signal(number, signal.SIG_IGN)
    if worker == 0 and given.parent is None:  # a parent removes them itself when all its workers have ended
        forget(given.bundle, given.shared / CHECKPOINTS, given.hyperparameters)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # tearing TensorFlow down takes a second and does nothing for anyone


def _lost(error: tf.errors.OpError, place: Place) -> PlatformError | None:
    """Returns what an error of TensorFlow's is if it is what a worker meets when another has gone; else None."""
    import tensorflow as tf

    lines = error.message.splitlines() or [""]
    named = next((line for line in lines if _OF_OTHERS.search(line)), None)
    gone = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError)
    # Also what is truly a defect has these codes, but then its message is not of other workers.
    mixed = (tf.errors.InternalError, tf.errors.FailedPreconditionError)
    if isinstance(error, gone) or (place.workers > 1 and named is not None and isinstance(error, mixed)):
        return PlatformError("train", "needs all its workers", f"{type(error).__name__}: {named or lines[0]}")
    return None


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
