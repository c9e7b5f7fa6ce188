"""Trains on several nodes: hands the artefacts over, has a TrainJob made, and stays with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tidemill.bundle import open_bundle
from tidemill.jobs.handover import Artefacts, handed_back, handed_over
from tidemill.jobs.job import TrainingJob, job_name
from tidemill.jobs.watch import Patience, Watch
from tidemill.kserve.cluster import Cluster
from tidemill.trainjob.launcher import TrainJobs
from tidemill.trainjob.settings import TrainJobSettings
from tidemill.trainjob.workflow import WORKFLOW_VARIABLE, Workflow

RUN_LABEL = "tidemill/run"


def run(
    artefacts: Artefacts,
    settings: Mapping[str, Any],
    shared: Path,
    run_id: str,
    environment: Mapping[str, str],
) -> dict[str, Any]:
    """Trains by a TrainJob and returns the chief's report, with where the job was.

    Args:
        settings: see `tidemill.trainjob.settings`.
        shared: directory that outlives a killed try, on the volume that the workers mount as well; has the task's name.
        run_id: of the pipeline's run, a label.
        environment: of this process: says which workflow it belongs to.

    Raises:
        TidemillError: as the worker raised it that failed.
    """
    known = TrainJobSettings.parse(settings)
    problem = open_bundle(artefacts.bundle).problem
    placed = handed_over(artefacts, shared)
    job = TrainingJob(
        name=job_name(run_id, shared.name),
        arguments=placed.arguments(shared),
        workers=known.workers,
        shared=shared,
        labels={RUN_LABEL: run_id},
    )
    with Cluster(known.namespace) as cluster:
        workflow = Workflow(cluster, environment.get(WORKFLOW_VARIABLE))
        launcher = TrainJobs(cluster, known, workflow.owner())
        hang_s = problem.training.hang_timeout_s
        patience = Patience(poll_s=known.poll_s, hang_s=hang_s, restarts=known.max_restarts)
        outcome = Watch(launcher, job, patience, workflow.cancelled).run()
    handed_back(placed, artefacts)
    return {**outcome.summary, "job": outcome.id, "attempts": outcome.attempts, "workers": known.workers}
