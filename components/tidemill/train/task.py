"""The train task: in its own process, or by several workers on its machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tidemill.bundle import open_bundle
from tidemill.errors import UsageError
from tidemill.jobs.job import CHECKPOINTS, TrainingJob
from tidemill.train.checkpoints import directory_of
from tidemill.train.local_launcher import LocalLauncher
from tidemill.train.preemption import listening
from tidemill.train.run import TrainReport, forget, run
from tidemill.train.supervisor import Supervisor


def train(
    bundle: str,
    transformed: str,
    transform_graph: str,
    model: str,
    history: str,
    scratch: Path,
    champion: str | None = None,
    hyperparameters: str | None = None,
    workers: int = 1,
) -> TrainReport | dict[str, Any]:
    """Trains, and goes on where an earlier try of the task stopped. Returns the report, or the JSON of the chief's.

    Args:
        bundle: the problem.
        transformed: Parquet per split.
        transform_graph: tf.Transform's output with features.json.
        model: where the model artefact goes.
        history: where the history artefact goes.
        scratch: directory that outlives a killed try.
        champion: the model in production, where the problem starts from it.
        hyperparameters: what tuning found.
        workers: processes; one is this process itself.

    Raises:
        UsageError: if there are no workers.
        Preempted: if it is told to end before it is done.
    """
    if workers < 1:
        raise UsageError("workers", "must be at least 1", str(workers))
    with listening() as notice:
        if workers == 1:
            own = scratch  # the checkpoints of several lie there beside their records
            report: TrainReport | dict[str, Any] = run(
                bundle,
                transformed,
                transform_graph,
                model,
                history,
                own,
                notice=notice,
                hyperparameters=hyperparameters,
                champion=champion,
            )
            notice.done()
        else:
            given = {
                "bundle": bundle,
                "transformed": transformed,
                "transform-graph": transform_graph,
                "model": model,
                "history": history,
                "shared": scratch,
                "champion": champion,
                "hyperparameters": hyperparameters,
            }
            arguments = [text for name, value in given.items() if value for text in (f"--{name}", str(value))]
            job = TrainingJob("train", tuple(arguments), workers, scratch)
            own = scratch / CHECKPOINTS
            training = open_bundle(Path(bundle)).problem.training
            checkpoints = directory_of(training.checkpoint_uri, own)
            outcome = Supervisor(job, LocalLauncher(), checkpoints, training.hang_timeout_s, notice).run()
            report = {**outcome.summary, "restarts": list(outcome.restarts)}
        forget(bundle, own, hyperparameters)
    return report
